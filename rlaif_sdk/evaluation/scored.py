"""Completions that are scored once, and combined as often as a question about their rewards needs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.aggregators import RewardGroup
from rlaif_sdk.composer.combiner import Combiner
from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.composition import Composition
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.explain import Explanation
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.normalizers import Passthrough
from rlaif_sdk.composer.stages import columns_looked_at
from rlaif_sdk.composer.weights import current_weight
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jsonl import Row, plain
from rlaif_sdk.scoring.checks import CheckedScores
from rlaif_sdk.statistics.arrays import Array, Labels, Mask, encode_groups
from rlaif_sdk.statistics.groups import parts_of_groups
from rlaif_sdk.types import Progress, RewardBatch, TextOrConversation

_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    """A completion to score.

    Attributes:
        prompt: What it answers.
        completion: The completion.
        columns: What else rewards may read.
        group: Equal for completions to the same prompt; None is a group of its own.
    """

    prompt: TextOrConversation
    completion: TextOrConversation
    columns: Row = field(default_factory=dict)
    group: Hashable = None


class ScoredCompletions:
    """N completions, each scored once however often it stands among the candidates.

    Rewards that are left out, for `totals` of some of them, are not asked again: what they said is combined anew.

    Args:
        composer: What scores; nothing of it learns.
        candidates: The completions.
        learn: Whether normalizers with running statistics learn from these completions before they are combined. If
            False they stay as they are, such as after training.
        progress: Called with the completions scored so far and all.

    Raises:
        BatchError: A reward misses a column.
        RewardError: A reward failed whose policy is ``raise``.
    """

    def __init__(
        self,
        composer: Composer,
        candidates: Sequence[Candidate],
        *,
        learn: bool = True,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._combiner = composer.combiner
        self.components = composer.components
        unique, self._index_N = _unique(composer, candidates)
        chunks = list(parts_of_groups(encode_groups([each.group for each in unique]), _CHUNK))
        self._batches: list[Composition] = []
        done = 0
        for chunk in chunks:
            members = [unique[place] for place in chunk]
            batch = replace(_batch_of(members), group=[each.group for each in members])
            self._batches.append(composer.compose(batch))
            done += len(chunk)
            progress(done, len(unique))
        self._place_U = np.empty(len(unique), dtype=np.intp)
        self._place_U[[place for chunk in chunks for place in chunk]] = np.arange(len(unique))
        self._parts = {name: _ready(part) for name, part in self.components.items()}
        for composed in self._batches if learn else ():
            for name, part in self._parts.items():
                part.normalizer.update(part.sign * composed.rewards[name].raw, encode_groups(composed.batch.group))
        self._combined = self._combine(self.components)

    def __len__(self) -> int:
        return len(self._index_N)

    @property
    def repeated(self) -> int:
        """How many of the completions are another one again."""
        return len(self._index_N) - len(self._place_U)

    @property
    def influential(self) -> list[str]:
        """The rewards that the totals depend on: those with a weight, a gate or a constraint."""
        conditions = {gate.reward for gate in self._combiner.gates}
        conditions |= {multiplier.constraint.reward for multiplier in self._combiner.multipliers}
        return [name for name, part in self._parts.items() if part.weight != 0 or name in conditions]

    def scores(self, name: str) -> Array:
        """(N,) what a reward said, higher being better; NaN where it did not score."""
        raw_U = np.concatenate([batch.rewards[name].raw for batch in self._batches])
        return self._of_candidates(self.components[name].sign * raw_U)

    def values(self, name: str) -> Array:
        """(N,) what of a reward enters its normalizer, higher being better: its failures are handled by its policy.

        NaN where it takes no part in the total.
        """
        return self._of_candidates(np.concatenate([batch.rewards[name].normalized for batch in self._as_they_enter]))

    def defaulted(self, name: str) -> Mask:
        """(N,) where a reward failed, and its stated default is taken."""
        failed_P = np.concatenate([batch.rewards[name].defaulted for batch in self._batches])
        failed_N: Mask = failed_P[self._place_U][self._index_N]
        return failed_N

    def totals(self, kept: Collection[str] | None = None) -> Array:
        """(N,) the totals; NaN where a completion is unscored.

        Args:
            kept: Only these rewards take part, with the gates and constraints that look at them; all if None.
        """
        if kept is None:
            return self._of_candidates(np.concatenate([batch.totals for batch in self._combined]))
        if not any(self._parts[name].weight != 0 for name in kept):
            return np.zeros(len(self))
        return self._of_candidates(np.concatenate([batch.totals for batch in self._combine(kept)]))

    def explain(self, candidate: int) -> Explanation:
        """How a completion's total came about."""
        place = int(self._place_U[self._index_N[candidate]])
        for batch in self._combined:
            if place < len(batch):
                return batch.explain(place)
            place -= len(batch)
        raise IndexError(f"completion {candidate} of {len(self)}")

    def reason_unscored(self) -> str | None:
        """Why the first completion without a total has none; None where all have one."""
        for batch in self._combined:
            for row in np.flatnonzero(np.isnan(batch.totals)).tolist():
                explanation = batch.explain(row)
                silent = [step for step in explanation.steps if math.isnan(step.weighted)]
                said = "; ".join(f"{step.reward}: {step.reason or step.status}" for step in silent)
                return f"{explanation.note} ({said})" if said else explanation.note
        return None

    @cached_property
    def _as_they_enter(self) -> list[Composition]:
        parts = {name: replace(part, normalizer=Passthrough()) for name, part in self._parts.items()}
        return self._combine(parts, parts)

    def _of_candidates(self, values_P: Array) -> Array:
        values_N: Array = values_P[self._place_U][self._index_N]
        return values_N

    def _combine(self, kept: Collection[str], parts: Mapping[str, Component] | None = None) -> list[Composition]:
        combiner = _combiner_of(self._combiner, self._parts if parts is None else parts, kept)
        return [
            combiner.combine(
                batch.batch,
                {name: batch.rewards[name] for name in combiner.components},
                {name: batch.rewards[name].seconds for name in combiner.components},
            )
            for batch in self._batches
        ]


class ScoredPool:
    """Completions that are scored as they come, each once, and then combined in any arrangement.

    Unlike `ScoredCompletions`, one of them may stand in several groups, as an edited answer does among the others to its
    prompt, normalizers learn from those that one chooses, and rewards, gates and constraints may be changed.

    Args:
        composer: What scores; nothing of it learns.
        progress: Called with the completions scored so far and all, at each `add`.

    Raises:
        ConfigError: A reward compares the completions to one prompt: each arrangement would have to be paid for.
    """

    def __init__(self, composer: Composer, *, progress: Callable[[int, int], None] = lambda *_: None) -> None:
        for name, part in composer.components.items():
            if part.reward.scope == "group":
                raise ConfigError(
                    "compares the completions to one prompt, and would have to be asked anew for each edit of one",
                    key=f"rewards.{name}",
                    hint="leave it out: look at a composition without it",
                )
        self._composer = composer
        self._progress = progress
        self._columns_read = columns_reader(composer)
        self._places: dict[str, int] = {}
        self._candidates: list[Candidate] = []
        self._said: dict[str, CheckedScores] = {}
        self.parts: dict[str, Component] = {name: _ready(part) for name, part in composer.components.items()}

    def new(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that `add` would have to score."""
        found = {key: each for each in candidates if (key := self._key(each)) not in self._places}
        return [*found.values()]

    def add(self, candidates: Sequence[Candidate]) -> Labels:
        """(N,) the places of N completions in the pool; those that are new are scored."""
        new = self.new(candidates)
        columns = [*dict.fromkeys(name for each in new for name in each.columns)]
        for start in range(0, len(new), _CHUNK):
            batch = _batch_of(new[start : start + _CHUNK], columns)
            for name, column in self._composer.compose(batch).rewards.items():
                before = [self._said[name]] if name in self._said else []
                self._said[name] = CheckedScores.joined([*before, column])
            self._progress(start + len(batch), len(new))
        self._places |= {self._key(each): len(self._candidates) + place for place, each in enumerate(new)}
        self._candidates += new
        return np.array([self._places[self._key(each)] for each in candidates], dtype=np.intp)

    def candidates(self, places_M: Labels) -> list[Candidate]:
        """M of the completions."""
        return [self._candidates[place] for place in places_M]

    def learn(self, places_M: Labels, group_M: Labels) -> None:
        """Let normalizers with running statistics learn from M of the completions."""
        for name, part in self.parts.items():
            part.normalizer.update(part.sign * self.raw(name)[places_M], group_M)

    def raw(self, name: str) -> Array:
        """What a reward said of all completions, in its units; NaN where it did not score."""
        return self._said[name].raw

    def said(self, places_M: Labels) -> dict[str, CheckedScores]:
        """What the rewards said of M of the completions, by name."""
        rows = places_M.tolist()
        return {name: column.select(rows) for name, column in self._said.items()}

    def combine(
        self,
        places_M: Labels,
        group_M: Labels,
        *,
        parts: Mapping[str, Component] | None = None,
        others: ScoredPool | None = None,
        gates: Sequence[Gate] = (),
        constraints: Sequence[Constraint] = (),
    ) -> Composition:
        """Compose M of the completions.

        Args:
            places_M: Which.
            group_M: Integers, equal for those that count as answers to one prompt.
            parts: How the rewards take part, in the place of ``parts`` of this pool.
            others: A pool whose rewards take part too.
            gates: Further gates, after those of the composition.
            constraints: Further constraints, held by the multipliers that they begin with.

        Raises:
            ConfigError: What is added does not fit the composition.
            RewardError: A reward failed whose policy is ``raise``.
        """
        parts = {**(self.parts if parts is None else parts), **(others.parts if others else {})}
        combiner = _combiner_of(self._composer.combiner, parts, parts, gates, constraints)
        candidates = self.candidates(places_M)
        said = {**self.said(places_M), **(others.said(others.add(candidates)) if others else {})}
        batch = replace(_batch_of(candidates), group=group_M.tolist())
        return combiner.combine(batch, {name: said[name] for name in parts}, dict.fromkeys(parts, 0.0))

    def _key(self, each: Candidate) -> str:
        return json_digest([each.prompt, each.completion, self._columns_read(each.columns)], default=plain)


def columns_reader(composer: Composer) -> Callable[[Row], Row]:
    """What takes of a row's columns those that the rewards and their conditions read; all of them where a reward does not say what it reads."""
    names: set[str] = set()
    for part in (*composer.components.values(), *composer.fallbacks.values()):
        if part.reward.inputs is None:
            return lambda columns: columns
        names |= {part.columns.get(name, name) for name in (*part.reward.inputs, *part.reward.columns)}
    names.update(columns_looked_at(composer.components))
    return lambda columns: {name: value for name, value in columns.items() if name in names}


def _unique(composer: Composer, candidates: Sequence[Candidate]) -> tuple[list[Candidate], Labels]:
    """The different candidates, and which of them each of the N is."""
    numbers: dict[str, int] = {}
    unique: list[Candidate] = []
    index_N = np.empty(len(candidates), dtype=np.intp)
    columns_read = columns_reader(composer)
    for place, each in enumerate(candidates):
        said = [each.prompt, each.completion, columns_read(each.columns), repr(each.group)]
        key = json_digest(said, default=plain)
        index_N[place] = numbers.setdefault(key, len(unique))
        if index_N[place] == len(unique):
            unique.append(each)
    return unique, index_N


def _batch_of(candidates: Sequence[Candidate], columns: Sequence[str] = ()) -> RewardBatch:
    rows = [{**each.columns, "prompt": each.prompt, "completion": each.completion} for each in candidates]
    return RewardBatch.from_records(rows, training=False, columns=columns)


def _ready(part: Component) -> Component:
    """A reward's part with its weight at the start of training, and a normalizer of its own."""
    weight = current_weight(part.weight, Progress())
    return replace(part, normalizer=copy.deepcopy(part.normalizer), weight=weight, ask=None)


def _combiner_of(
    ours: Combiner,
    parts: Mapping[str, Component],
    kept: Collection[str],
    gates: Sequence[Gate] = (),
    constraints: Sequence[Constraint] = (),
) -> Combiner:
    """The arithmetic over the parts that are kept, with the multipliers of now, and what is added."""
    multipliers = [multiplier for multiplier in ours.multipliers if multiplier.constraint.reward in kept]
    combiner = Combiner(
        {name: part for name, part in parts.items() if name in kept},
        gates=[*(gate for gate in ours.gates if gate.reward in kept), *gates],
        gate_order=ours.gate_order,
        aggregator=ours.aggregator,
        groups=_groups_of(ours.groups, kept),
        constraints=[*(multiplier.constraint for multiplier in multipliers), *constraints],
    )
    for multiplier, learned in zip(combiner.multipliers, multipliers, strict=False):
        multiplier.load_state_dict(learned.state_dict())
    return combiner


def _groups_of(groups: Mapping[str, RewardGroup], kept: Collection[str]) -> dict[str, RewardGroup]:
    """The groups of the rewards that are kept, without those that have none."""

    def holds(name: str) -> bool:
        return name in kept or (name in groups and any(map(holds, groups[name].members)))

    return {
        name: replace(
            group,
            members=[member for member in group.members if holds(member)],
            weight=current_weight(group.weight, Progress()),
        )
        for name, group in groups.items()
        if holds(name)
    }
