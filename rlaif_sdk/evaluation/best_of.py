"""Best of n by a composition: what choosing gains by the total and by a witness, and how far it moves the policy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.stages import users_of
from rlaif_sdk.evaluation.reward import check_column
from rlaif_sdk.evaluation.scored import Candidate, ScoredCompletions
from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.jsonl import plain
from rlaif_sdk.io.tables import Source, read_rows, table_name
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import Estimate, mean_estimate


@dataclass(frozen=True, slots=True)
class BestOfPoint:
    """What the best of n completions by the total is worth.

    Attributes:
        n: Of how many the best is taken.
        kl: log n - (n - 1) / n nats an answer: the divergence of best of n from the policy where no two answers are alike
            (Stiennon et al. 2020), and never less than it (Beirami et al. 2024).
        total: Its mean total, as ``witness`` with an interval by Student's t over prompts.
        witness: Its mean by the witness, higher being better; None without one.
    """

    n: int
    kl: float
    total: Estimate
    witness: Estimate | None

    def record(self) -> dict[str, Any]:
        """The point as a JSON-ready mapping."""
        witness = self.witness.record() if self.witness else None
        return {"n": self.n, "kl": self.kl, "total": self.total.record(), "witness": witness}


@dataclass(frozen=True, slots=True)
class BestOfCurve:
    """The curve over n.

    Attributes:
        points: For n = 1, 2, 4 and so on up to the greatest.
        loss: By how much the witness is worse at the greatest n than at the n that is best for it, which is chosen on one half
            of the prompts and measured on the other, both ways; above 0 the total is over-optimised. None without a witness.
        prompts: How many the means are over.
        skipped: How many have fewer scored completions than the greatest n.
        rows: How many completions there are.
        unscored: How many of them have no total, or no score of the witness.
        reason: Why the first has none.
    """

    points: tuple[BestOfPoint, ...]
    loss: Estimate | None
    prompts: int
    skipped: int
    rows: int
    unscored: int
    reason: str | None

    @property
    def peak(self) -> BestOfPoint:
        """The point that is best by the witness, or by the total without one."""
        return max(self.points, key=lambda point: (point.witness or point.total).value)

    def record(self) -> dict[str, Any]:
        """The curve as a JSON-ready mapping."""
        return {
            "prompts": self.prompts,
            "skipped": self.skipped,
            "rows": self.rows,
            "unscored": self.unscored,
            "reason": self.reason,
            "peak": self.peak.n,
            "loss": self.loss.record() if self.loss else None,
            "points": [point.record() for point in self.points],
        }


def best_of_kl(n: int) -> float:
    """The divergence of best of n, log n - (n - 1) / n nats; see `BestOfPoint.kl`.

    Example:
        >>> round(best_of_kl(16), 3)
        1.835
    """
    return math.log(n) - (n - 1) / n


def best_of_probabilities(totals_K: Array, n: int) -> Array:
    """How likely each of K completions is the best of n that are drawn from them without replacement.

    A mean that is weighted by this is the unbiased estimate of best of n from K >= n samples (Nakano et al. 2021, appendix
    I). Completions of equal totals are equally likely.

    Example:
        >>> import numpy as np
        >>> best_of_probabilities(np.array([0.1, 0.9, 0.5]), 2).round(3).tolist()
        [0.0, 0.667, 0.333]

    Args:
        totals_K: Their totals.
        n: From 1 to K.

    Returns:
        (K,) which sum to 1.
    """
    count = len(totals_K)
    chosen_K = np.array([math.comb(rank, n - 1) / math.comb(count, n) for rank in range(count)])
    order_K = np.argsort(totals_K, kind="stable")
    _, tied_K, sizes = np.unique(totals_K[order_K], return_inverse=True, return_counts=True)
    probabilities_K = np.empty(count)
    probabilities_K[order_K] = (np.bincount(tied_K, chosen_K) / sizes)[tied_K]
    return probabilities_K


def evaluate_best_of(
    composer: Composer,
    table: Source,
    *,
    witness: str | None = None,
    most: int | None = None,
    prompt: str = "prompt",
    completion: str = "completion",
    group: str = "group",
    learn: bool = True,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> BestOfCurve:
    """Measure what taking the best of n by a composition gains, and whether a witness agrees that it is better.

    The harder a composition is optimised, the further its total runs ahead of what it stands for (Gao et al. 2023): best
    of n shows it before a policy is trained. The witness is a reward of the composition that the total does not depend on,
    of weight 0. Each completion is scored once, and every n is estimated from all of a prompt's completions.

    Example:
        >>> from rlaif_sdk import Composer
        >>> from rlaif_sdk.composer import Component
        >>> from rlaif_sdk.evaluation import evaluate_best_of
        >>> def long(completion_texts):
        ...     return [float(len(text)) for text in completion_texts]
        >>> def right(completion_texts):
        ...     return [float("4" in text) for text in completion_texts]
        >>> rows = [{"prompt": p, "completion": c} for p in "ab" for c in ("4", "It is 4.", "It is 5 or so.", "5")]
        >>> with Composer({"long": long, "right": Component(right, weight=0)}) as composer:
        ...     curve = evaluate_best_of(composer, rows, witness="right")
        >>> [(point.n, round(point.witness.value, 2)) for point in curve.points]
        [(1, 0.5), (2, 0.42), (4, 0.0)]

    Args:
        composer: What chooses; nothing of it learns.
        table: A completion a row, several of each prompt.
        witness: The name of a reward, by which the chosen completions are measured too.
        most: The greatest n; by default as many as every prompt has scored completions, and 2 at least.
        prompt: The column of prompts.
        completion: The column of completions.
        group: The column that is equal for the completions to one prompt; without it those with the same prompt are.
        learn: Whether normalizers with running statistics learn from the table before its scores are combined.
        progress: Called with the completions scored so far and all.

    Raises:
        ConfigError: There is no such reward, or the total depends on it.
        DataError: A row lacks a column, or no prompt has as many scored completions.
    """
    name = table_name(table)
    check_witness(composer, witness)
    candidates = []
    for number, row in enumerate(read_rows(table), start=1):
        for column in (prompt, completion):
            check_column(row, column, name, number)
        label = row.get(group)
        key = json.dumps([row[prompt] if label is None else label], sort_keys=True, default=plain)
        columns = {other: value for other, value in row.items() if other not in (prompt, completion, group)}
        candidates.append(Candidate(row[prompt], row[completion], columns, key))
    if not candidates:
        raise DataError("has no rows", file=name)
    scored = ScoredCompletions(composer, candidates, learn=learn, progress=progress)
    return curve_of(
        scored.totals(),
        None if witness is None else scored.scores(witness),
        [each.group for each in candidates],
        most=most,
        file=name,
        reason=scored.reason_unscored(),
    )


def curve_of(
    totals_N: Array,
    witness_N: Array | None,
    group_N: Sequence[Hashable],
    *,
    most: int | None = None,
    file: str | None = None,
    reason: str | None = None,
) -> BestOfCurve:
    """The curve of N completions that are scored. See `evaluate_best_of`.

    Args:
        totals_N: Their totals, NaN where one is unscored.
        witness_N: Likewise what the witness says, higher being better; None without one.
        group_N: Equal for completions to one prompt.
        most: The greatest n.
        file: The table, for errors.
        reason: Why the first completion without a total has none.

    Raises:
        DataError: No prompt has as many scored completions.
    """
    present_N = ~np.isnan(totals_N) if witness_N is None else ~np.isnan(totals_N + witness_N)
    members: dict[Any, list[int]] = {}
    for place, label in enumerate(group_N):
        members.setdefault(label, [])
        if present_N[place]:
            members[label].append(place)
    most = most or max(2, min(map(len, members.values())))
    groups = [np.array(places) for places in members.values() if len(places) >= most]
    if not groups:
        least = max(map(len, members.values()))
        raise DataError(
            f"no prompt has {most} scored completions; the most that one has is {least}",
            file=file,
            hint=f"lower --most, sample more completions, or name the column of prompts or groups; {reason or 'all are scored'}",
        )
    sizes = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
    totals_SG = _chosen(sizes, totals_N, totals_N, groups)
    witness_SG = None if witness_N is None else _chosen(sizes, totals_N, witness_N, groups)
    points = tuple(
        BestOfPoint(
            n,
            best_of_kl(n),
            mean_estimate(totals_SG[place].tolist()),
            None if witness_SG is None else mean_estimate(witness_SG[place].tolist()),
        )
        for place, n in enumerate(sizes)
    )
    return BestOfCurve(
        points,
        None if witness_SG is None else _loss(witness_SG),
        len(groups),
        len(members) - len(groups),
        len(totals_N),
        int((~present_N).sum()),
        reason or (None if present_N.all() else "the witness has no score"),
    )


def check_witness(composer: Composer, witness: str | None) -> None:
    """Check that a witness is one: a reward of the composition that the total does not depend on.

    Raises:
        ConfigError: There is no such reward, or the total depends on it, or on the same reward under another name.
    """
    if witness is None:
        return
    if witness not in composer.components:
        names = ", ".join(composer.components)
        raise ConfigError(f"there is no reward {witness!r} to be the witness", hint=f"there are {names}")
    combiner = composer.combiner
    constraints = [multiplier.constraint for multiplier in combiner.multipliers]

    def decides(name: str) -> bool:
        users = users_of(name, composer.components, combiner.gates, constraints, combiner.followed)
        return composer.weights[name] != 0 or bool(users)

    if decides(witness):
        raise ConfigError(
            f"the total depends on {witness!r}, which then agrees with it by itself",
            key=f"rewards.{witness}",
            hint="a witness has weight 0, and no gate, constraint, schedule or condition looks at it",
        )
    own = composer.components[witness]
    for name, part in composer.components.items():
        if name != witness and part.asks_the_same(own) and part.columns == own.columns and decides(name):
            raise ConfigError(
                f"is {name!r} once more, on which the total depends, and then agrees with it by itself",
                key=f"rewards.{witness}",
                hint="a witness is another reward: another model, another check, what people said",
            )


def _chosen(sizes: Sequence[int], totals_N: Array, values_N: Array, groups: Sequence[Array]) -> Array:
    """(S, G) the mean of a value over the best of n of each group, for S sizes."""
    return np.array([[best_of_probabilities(totals_N[rows], n) @ values_N[rows] for rows in groups] for n in sizes])


def _loss(witness_SG: Array) -> Estimate:
    """What the greatest n loses to the best: the best of one half of the prompts is measured on the other half."""
    halves = [np.arange(witness_SG.shape[1]) % 2 == half for half in (0, 1)]
    if not halves[1].any():
        return Estimate(math.nan, math.nan, math.nan, witness_SG.shape[1])
    loss_G = np.empty(witness_SG.shape[1])
    for own, other in (halves, halves[::-1]):
        best = int(witness_SG[:, other].mean(axis=1).argmax())
        loss_G[own] = witness_SG[best, own] - witness_SG[-1, own]
    return mean_estimate(loss_G.tolist())
