"""What a plugin author writes: a `Reward` and its `Params`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

from rlaif_sdk.conversations import Thinking, View
from rlaif_sdk.exceptions import BatchError
from rlaif_sdk.types import RewardBatch, Score

ScoreLike: TypeAlias = Score | float | None
Scores: TypeAlias = Sequence[ScoreLike]
Scope: TypeAlias = Literal["row", "group"]


class Params(BaseModel):
    """Base for the parameters of a reward: unknown keys and non-finite numbers are refused.

    Document a field with a docstring beneath it: `rlaif rewards show` and the JSON schema print it.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        defer_build=True,
    )


class ViewParams(Params):
    """Base for the parameters of a reward that reads what a completion says: which view of it, and its thinking.

    A reward with another default says ``view: View = "answer"`` in its own params. `texts` gives the view.
    """

    view: View = "assistant"
    """What of a completion is read: ``answer``, the policy's last words; ``assistant``, all that it said;
    ``transcript``, everything, with the calls of tools and their results."""

    thinking: Thinking = "drop"
    """Whether the policy's thinking (a field, or ``<think>`` tags) is left out of what is read, or kept: ``keep``."""

    def texts(self, batch: RewardBatch) -> tuple[str | None, ...]:
        """The B completions of a batch as the params want them; see `rlaif_sdk.RewardBatch.views`."""
        return batch.views(self.view, thinking=self.thinking)


class Memory(Protocol):
    """What a reward found on the way to its scores, such as a judge's verdict on a pair, by keys of its own.

    A key is a JSON value that tells all that the finding depends on beside the reward and its parameters.
    """

    def get(self, keys: Sequence[Any]) -> list[Score | None]:
        """What is known under each key, None where nothing is."""

    def put(self, findings: Iterable[tuple[Any, Score]]) -> None:
        """Keep findings, each a key and a score with a value; what a finding cost is not kept."""


class _NoMemory:
    def get(self, keys: Sequence[Any]) -> list[Score | None]:
        return [None] * len(keys)

    def put(self, findings: Iterable[tuple[Any, Score]]) -> None:
        pass


class Reward(ABC):
    """Scores completions. Subclass it and write `score`; everything else has a default.

    Example:
        >>> from rlaif_sdk import Composer, Reward, RewardBatch
        >>> class Brevity(Reward):
        ...     range = (0.0, 1.0)
        ...
        ...     def score(self, batch):
        ...         return [min(1.0, 10 / max(1, len(text))) for text in batch.completion_texts]
        >>> with Composer({"brevity": Brevity()}) as composer:
        ...     composer.compose(RewardBatch(["Why?"] * 2, ["So.", "For twenty reasons.."])).to_list()
        [1.0, 0.5]

    Attributes:
        name: What the reward calls itself; in a composition the name in the config counts.
        version: Changes whenever the same input may get another score, so that caches know.
        range: The least and greatest score, or None for unbounded. A score outside it is a failure.
        columns: Names of the batch columns that must be present.
        higher_is_better: False for a cost, such as a probability of being toxic: the composer negates it.
        ends: What its low and its high end mean, in two words: ``("toxic", "harmless")``. None where that is not said.
        inputs: What `score` reads of a row beside its prompt and completion: names of columns, and ``completion_ids``.
            None when that is not said: a ledger then takes all of it for part of the input.
        reads_images: Whether `score` looks at the images of prompts and completions; see `rlaif_sdk.RewardBatch.images`.
            Where it does not, the reason of a row that has one says so.
        scope: ``group`` where a row's score depends on the other completions to its prompt: `score` then gets whole
            groups (see `rlaif_sdk.RewardBatch.groups`) and never a part of one, however a batch is cut. It is not asked
            about a row that is alone in its group, on which it abstains.
        cacheable: False where a row's score depends on more than that row, or with ``scope = "group"`` on more than its
            group: on chance, on progress. A ledger then never keeps it.
        memory: Where `score` may keep what a score is made of and is asked for again in other groups. It lasts where the
            composer has a ledger that keeps the reward's scores; otherwise, as in a process of the reward's own, nothing
            is known.
    """

    name: str = ""
    version: str = "0"
    range: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    higher_is_better: bool = True
    ends: tuple[str, str] | None = None
    inputs: tuple[str, ...] | None = None
    reads_images: bool = False
    scope: Scope = "row"
    cacheable: bool = True
    memory: Memory = _NoMemory()

    def setup(self) -> None:
        """Load models and open connections. Called once, before the first `score`, in the thread that scores."""

    @abstractmethod
    def score(self, batch: RewardBatch) -> Scores | Awaitable[Scores]:
        """Score a batch of B rows.

        May be ``async def``: all async rewards of a composition then run together on one event loop.
        The batch is the reward's own: what it sorts, pops or rewrites changes nothing for others.

        Returns:
            A list or tuple of B entries, each a number, a `Score`, or None to abstain; or a NumPy array of B numbers.
            Use `Score.failed` for a row that could not be scored; raise for a batch that could not.
        """

    def model_calls(self, rows: int) -> int | None:
        """The most calls of a model that a group of so many rows takes; None where that is not said.

        ``--check`` tells it before anything is paid for.
        """
        del rows
        return None

    def close(self) -> None:
        """Release what `setup` took. Called at most once; may be called without `setup`."""


def require_columns(
    reward: Reward,
    batch: RewardBatch,
    name: str,
    renamed: Mapping[str, str] = MappingProxyType({}),
    *,
    place: str = "",
) -> None:
    """Check that the batch has what a reward needs.

    Args:
        reward: The reward.
        batch: The rows, with their columns as the data set names them.
        name: What the reward is called in messages.
        renamed: The columns of the batch under the names that the reward knows, as ``columns:`` of its config has them.
        place: Where the reward stands in its config, as ``FILE:LINE``; empty where it has none.

    Raises:
        BatchError: A column is missing, and the message names the columns present; or the reward compares the
            completions to one prompt, and a training batch does not tell which those are. It names the reward.
    """
    who = f"{place}: reward {name!r}" if place else f"reward {name!r}"
    if reward.scope == "group" and batch.group is None and batch.training:
        raise BatchError(
            f"{who} compares the completions to one prompt, and nothing tells which those are",
            hint="name the column that groups them, group= or --group-column; in training have several generations a prompt",
        )
    present = f"columns present: {', '.join(sorted(batch.columns)) or 'only the prompt and the completion'}"
    for new, old in renamed.items():
        if old not in batch.columns:
            problem = f"the column {old!r} is missing, which 'columns.{new}' names"
            raise BatchError(f"{who}: {problem}", hint=present)
    missing = [column for column in reward.columns if column not in renamed and column not in batch.columns]
    if missing:
        raise BatchError(
            f"{who} needs the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}",
            hint=f"{present}; map one under 'columns:' of the reward",
        )
