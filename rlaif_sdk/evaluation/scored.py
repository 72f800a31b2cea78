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
from rlaif_sdk.composer.explain import Explanation
from rlaif_sdk.composer.normalizers import Passthrough
from rlaif_sdk.composer.stages import columns_looked_at
from rlaif_sdk.composer.weights import current_weight
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jsonl import Row, plain
from rlaif_sdk.statistics.arrays import Array, Labels, encode_groups
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
            rows = [{**each.columns, "prompt": each.prompt, "completion": each.completion} for each in members]
            batch = RewardBatch.from_records(rows, training=False)
            self._batches.append(composer.compose(replace(batch, group=[each.group for each in members])))
            done += len(chunk)
            progress(done, len(unique))
        self._place_U = np.empty(len(unique), dtype=np.intp)
        self._place_U[[place for chunk in chunks for place in chunk]] = np.arange(len(unique))
        self._parts = {name: self._ready(name, part, learn=learn) for name, part in self.components.items()}
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

    def _ready(self, name: str, part: Component, *, learn: bool) -> Component:
        """A reward's part with its weight at the start of training, and a normalizer of its own."""
        normalizer = copy.deepcopy(part.normalizer)
        if learn:
            for batch in self._batches:
                normalizer.update(part.sign * batch.rewards[name].raw, encode_groups(batch.batch.group))
        return replace(part, normalizer=normalizer, weight=current_weight(part.weight, Progress()), ask=None)

    def _combine(self, kept: Collection[str], parts: Mapping[str, Component] | None = None) -> list[Composition]:
        ours = self._combiner
        parts = self._parts if parts is None else parts
        multipliers = [multiplier for multiplier in ours.multipliers if multiplier.constraint.reward in kept]
        combiner = Combiner(
            {name: part for name, part in parts.items() if name in kept},
            gates=[gate for gate in ours.gates if gate.reward in kept],
            gate_order=ours.gate_order,
            aggregator=ours.aggregator,
            groups=_groups_of(ours.groups, kept),
            constraints=[multiplier.constraint for multiplier in multipliers],
        )
        for multiplier, learned in zip(combiner.multipliers, multipliers, strict=True):
            multiplier.load_state_dict(learned.state_dict())
        return [
            combiner.combine(
                batch.batch,
                {name: batch.rewards[name] for name in combiner.components},
                {name: batch.rewards[name].seconds for name in combiner.components},
            )
            for batch in self._batches
        ]


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
