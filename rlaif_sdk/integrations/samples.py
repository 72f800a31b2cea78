"""One completion at a time, as other training stacks hand them over, and what a composition says of it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.conversations import ASSISTANT, USER, Turn, chat_messages, plain_words, read
from rlaif_sdk.conversations.offsets import Decodes
from rlaif_sdk.exceptions import BatchError, ConversationError, RewardError
from rlaif_sdk.statistics.arrays import json_number
from rlaif_sdk.types import Progress, RewardBatch, TextOrConversation

_T = TypeVar("_T")
ADJUSTED = "gates and constraints"
"""What `Scored.parts` calls what is no reward's share."""
"""A message of words has a role and a content, and nothing else."""
_UNKNOWN = Progress()


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion to score.

    Attributes:
        prompt: What it answers, text or a conversation.
        completion: Text, or a conversation of what was answered.
        columns: Whatever else the stack knows of it: references, labels, tests.
        group: A label that the completions to one prompt share; None when that is not known.
        group_size: How many they are, where each is asked for by itself and all are to be gathered first; see
            `rlaif_sdk.integrations.cohorts`. None where they come together, or alone.
        member: Which of them it is, so that asking for it again is known as that; None where nothing tells.
        completion_ids: The completion's tokens; None where they are not known.
        turn_spans: Where in them each turn of the policy stands; see `rlaif_sdk.RewardBatch`.
    """

    prompt: TextOrConversation
    completion: TextOrConversation
    columns: Mapping[str, Any] = field(default_factory=dict)
    group: Hashable | None = None
    group_size: int | None = None
    member: str | int | None = None
    completion_ids: Sequence[int] | None = None
    turn_spans: Sequence[tuple[int, int]] | None = None


def prompt_of(given: Any) -> TextOrConversation:
    """A stack's prompt as a sample has it; see `completion_of`."""
    return _canonical(given, USER)


def answer_of(given: Any) -> TextOrConversation:
    """As `completion_of`, but text where it is one message of words alone."""
    if isinstance(given, str):
        return given
    plain: Any = _plain(given)
    if (words := plain_words(plain)) is not None:
        return words
    turns = _read(plain)
    if turns and len(turns) == 1 and turns[0] == Turn(ASSISTANT, turns[0].content):
        return turns[0].content
    return _as_messages(plain, turns)


def completion_of(given: Any) -> TextOrConversation:
    """A stack's completion as a sample has it: text as it is, messages of whatever shape in canonical form.

    Arrays of messages and messages that are objects are read too. What cannot be read is left as it is, so that its row
    fails with the reason; so are messages with media, which canonical ones cannot carry.
    """
    return _canonical(given, ASSISTANT)


def _canonical(given: Any, role: str) -> TextOrConversation:
    if isinstance(given, str):
        return given
    plain: Any = _plain(given)
    return plain if plain_words(plain, role) is not None else _as_messages(plain, _read(plain, role))


def _as_messages(plain: Any, turns: Sequence[Turn] | None) -> TextOrConversation:
    """What was read as canonical messages; as it is where it could not be, or not be carried."""
    if turns is None or any(turn.media for turn in turns):
        return plain if isinstance(plain, (list, tuple)) else [plain]
    messages: Any = chat_messages(turns)
    return messages or ""


def _read(given: Any, role: str = ASSISTANT) -> tuple[Turn, ...] | None:
    """What the door makes of it, None where it cannot be read."""
    try:
        return read(given, role=role)
    except ConversationError:
        return None


def _plain(given: Any) -> Any:
    """Objects as mappings, arrays as lists, down to the messages."""
    if type(given) is dict:
        return given
    if hasattr(given, "model_dump"):
        return given.model_dump(exclude_none=True)
    if hasattr(given, "tolist"):
        given = given.tolist()
    return [_plain(each) for each in given] if isinstance(given, (list, tuple)) else given


@dataclass(frozen=True, slots=True)
class Scored:
    """What a composition says of one sample.

    Attributes:
        composition: Of the batch that the sample was scored in.
        row: Its row there.
        gathered: How many of its group are in that batch, itself included, where the group was gathered; 0 where it came
            too late for its group.
        group_means: Where a server has seen more of its group than the batch has: what `group_mean` gives, by reward and of
            the totals under None, as far as it has no value of its own.
    """

    composition: Composition
    row: int
    gathered: int | None = None
    group_means: Mapping[str | None, float | None] = field(default_factory=dict)

    @property
    def total(self) -> float | None:
        """The composed reward, or None where the sample is unscored."""
        return json_number(self.composition.totals[self.row])

    @property
    def rewards(self) -> dict[str, float | None]:
        """Each reward's score in its own units, None where it abstained, failed, or was not asked."""
        return {name: json_number(column.raw[self.row]) for name, column in self.composition.rewards.items()}

    def no_variance(self, reward: str | None = None) -> bool | None:
        """Whether all of its group have the same total, or score of a reward, so that it teaches nothing; None without groups."""
        if self.composition.batch.group is None:
            return None
        return bool(self.composition.no_variance(reward)[self.row])

    @property
    def reason(self) -> str:
        """Why the sample is unscored, as far as a reward says so; once where all say the same."""
        columns = self.composition.rewards
        reasons = {name: columns[name].reason(self.row) for name, score in self.rewards.items() if score is None}
        said = {name: reason for name, reason in reasons.items() if reason}
        if len(said) > 1 and len({*said.values()}) == 1 and len(said) == len(columns):
            return next(iter(said.values()))
        return "; ".join(f"{name}: {reason}" for name, reason in said.items()) or "every reward abstained"

    def token_rewards(self, tokenizer: Decodes) -> list[float] | None:
        """What falls on each of the completion's tokens, which sums to the total; None where all falls on the last one.

        That is so too where the stack did not tell the tokens, or which of them are whose turn's.
        """
        batch = self.composition.batch
        if batch.completion_ids is None or batch.turn_spans is None:
            return None
        (placed_T,) = self.composition.token_rewards(tokenizer, rows=[self.row])
        return None if placed_T is None else placed_T.tolist()

    def number(self, unscored: float | None = None) -> float:
        """The total, for a stack that has no word for an unscored sample.

        Args:
            unscored: The fallback where the sample is unscored.

        Raises:
            RewardError: The sample is unscored, and there is no fallback.
        """
        total = unscored if self.total is None else self.total
        if total is None:
            raise RewardError(
                f"the completion is unscored, and this stack cannot leave it out: {self.reason}",
                hint="give the reward a default or a fallback under 'on_failure', or state unscored=VALUE",
            )
        return total

    def group_mean(self, reward: str | None = None) -> float | None:
        """The mean of what the completions to its prompt got, of those that are scored; None where none of them is.

        It is what a stack gets for an unscored one that cannot leave it out: its advantage is then 0, and the others are
        measured from their own mean.

        Args:
            reward: The reward whose scores are meant, in its own units; None means the totals.
        """
        if reward in self.group_means:
            return self.group_means[reward]
        values = self.composition.totals if reward is None else self.composition.rewards[reward].raw
        group = self.composition.batch.group
        if group is None or group[self.row] is None:
            return json_number(values[self.row])
        label = group[self.row]
        known = [
            value for value, of in zip(values.tolist(), group, strict=True) if of == label and not math.isnan(value)
        ]
        return math.fsum(known) / len(known) if known else None

    def parts(self) -> dict[str, float]:
        """What the total is made of: each reward's share, 0 where it took no part, and what gates and constraints change.

        They sum to the total. Of an unscored completion all are 0. The names are the same for every completion.
        """
        columns = self.composition.rewards
        total = self.total
        shares = {name: json_number(column.weighted[self.row]) or 0.0 for name, column in columns.items()}
        if total is None:
            total, shares = 0.0, dict.fromkeys(shares, 0.0)
        said = math.fsum(shares.values())
        is_adjusted = not math.isclose(total, said, rel_tol=1e-9, abs_tol=1e-12)
        if is_adjusted or self.composition.gates or self.composition.constraints:
            shares[ADJUSTED] = total - said
        return shares

    def number_in_group(self, unscored: float | None = None) -> float:
        """`number`, where an unscored completion gets the mean of its group.

        Args:
            unscored: The fallback where none of the group is scored.

        Raises:
            RewardError: None of the group is scored, and there is no fallback.
        """
        mean = self.group_mean() if self.total is None else None
        return self.number(unscored if mean is None else mean)

    def scores(self) -> dict[str, float]:
        """Flat numbers for a stack's log: each reward's score, NaN where it has none, and whether it is unscored."""
        rewards = {name: math.nan if value is None else value for name, value in self.rewards.items()}
        return {**rewards, "unscored": float(self.total is None)}

    def logged_scores(self) -> dict[str, float]:
        """`scores` for a log that takes finite numbers under the same names for every sample.

        A reward without a score is 0 there and 1 under ``NAME/missing``, so that the mean of those that have one is the
        mean of NAME over 1 - the mean of NAME/missing.
        """
        rewards = self.rewards
        said = {name: value or 0.0 for name, value in rewards.items()}
        missing = {f"{name}/missing": float(value is None) for name, value in rewards.items()}
        return {**said, **missing, "unscored": float(self.total is None)}

    def known_scores(self) -> dict[str, float]:
        """For a log that averages what it gets: `scores` without those that are NaN, and ``NAME/subscore/PART``.

        Sub-scores that mean something else in another row are left out.
        """
        known = {name: value for name, value in self.rewards.items() if value is not None}
        parts = {
            f"{name}/subscore/{part_name}": part.value
            for name in known
            for part_name, part in self.composition.rewards[name].subscores(self.row).items()
            if part.value is not None and not part.per_row
        }
        return {**known, "unscored": float(self.total is None), **parts}


def same_columns(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of a group, each with the columns of all of them, None where it has none of that name."""
    names = {name: None for sample in samples for name in sample.columns}
    return [
        sample if len(sample.columns) == len(names) else replace(sample, columns={**names, **sample.columns})
        for sample in samples
    ]


def batch_of(samples: Sequence[Sample], progress: Progress = _UNKNOWN, *, training: bool = False) -> RewardBatch:
    """The batch of samples that have the same columns.

    It is a training batch only where whoever asks says so: most stacks do not say whether they train or evaluate, and
    running statistics must not learn from evaluation.
    """
    grouped = any(sample.group is not None for sample in samples)
    return RewardBatch(
        prompts=[sample.prompt for sample in samples],
        completions=[sample.completion for sample in samples],
        completion_ids=_all_or_none([sample.completion_ids for sample in samples]),
        turn_spans=_all_or_none([sample.turn_spans for sample in samples]),
        columns={name: [sample.columns[name] for sample in samples] for name in samples[0].columns},
        group=[sample.group for sample in samples] if grouped else None,
        progress=progress,
        training=training,
    )


def _all_or_none(values: list[_T | None]) -> list[_T] | None:
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def failed(sample: Sample, rewards: Sequence[str], reason: str) -> Scored:
    """A sample on which no reward was asked, all for one reason: each has failed on it."""
    none = np.full(1, np.nan)
    columns = {
        name: RewardColumn(
            name=name,
            weight=0.0,
            raw=none,
            normalized=none,
            weighted=none,
            failures={0: reason},
            masked=np.zeros(1, dtype=bool),
            defaulted=np.zeros(1, dtype=bool),
            seconds=0.0,
            entries=(),
        )
        for name in rewards
    }
    dropped = np.zeros(1, dtype=bool)
    return Scored(Composition(batch_of([sample]), none, columns, (), none, dropped), 0)


def alike(samples: Sequence[Sample]) -> list[list[int]]:
    """The places of the samples, those with the same columns together, so that none is given another's columns.

    Raises:
        BatchError: That would tear a group apart.
    """
    places: dict[frozenset[str], list[int]] = {}
    columns_of: dict[Hashable, frozenset[str]] = {}
    for place, sample in enumerate(samples):
        columns = frozenset(sample.columns)
        if sample.group is not None and columns_of.setdefault(sample.group, columns) != columns:
            raise BatchError("rows of one group must have the same columns", hint="send null where there is none")
        places.setdefault(columns, []).append(place)
    return list(places.values())


def in_order(parts: Sequence[Sequence[int]], compositions: Sequence[Composition]) -> list[Scored]:
    """What the compositions of the parts that `alike` made say, in the order of the samples."""
    if len(parts) == 1:
        return [Scored(compositions[0], row) for row in range(len(parts[0]))]
    scored = {
        place: Scored(composition, row)
        for places, composition in zip(parts, compositions, strict=True)
        for row, place in enumerate(places)
    }
    return [scored[place] for place in range(len(scored))]
