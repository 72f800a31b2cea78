"""What a composition of rewards says of a batch: totals, and every number that they are made of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaif_sdk.composer.advantages import gdpo_advantages
from rlaif_sdk.composer.aggregators import AggregationTree, WeightedSum
from rlaif_sdk.composer.column import RewardColumn
from rlaif_sdk.composer.constraints import ConstraintColumn
from rlaif_sdk.composer.credit import PlacedRow
from rlaif_sdk.composer.explain import Adjustment, Explanation, WaterfallStep
from rlaif_sdk.composer.gates import Gate, GateOrder
from rlaif_sdk.composer.layout import Layout, ends_in_words
from rlaif_sdk.composer.metrics import composition_diagnostics
from rlaif_sdk.composer.panels import spread
from rlaif_sdk.conversations.offsets import Decodes
from rlaif_sdk.diagnostics.saturation import no_variance
from rlaif_sdk.exceptions import BatchError, ConfigError
from rlaif_sdk.io.text import short_repr
from rlaif_sdk.statistics.arrays import Array, Mask, encode_groups, json_number
from rlaif_sdk.types import Credit, RewardBatch

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """The composed reward of B rows.

    Attributes:
        batch: What was scored.
        totals: (B,) the composed reward; NaN where the row is unscored.
        rewards: Each reward's part, by name.
        gates: The gates that were applied, each with the (B,) mask of the rows that did not pass.
        before_gates: (B,) the totals before any gate.
        dropped: (B,) True where a reward's failure policy dropped the row.
        constraints: The constraints' penalties, which are taken off before the gates.
        group_weights: The weight in force of each group of rewards, by name.
        aggregation: Which groups the rewards are in, and how they are aggregated.
        gate_order: How several gates work together.
        e_values: The evidence of each watch of the alarm after this batch, by name; see `rlaif_sdk.composer.Alarm`.
        thresholds: The e-value at which each goes off.
        without_variance: What `no_variance` says, by reward and of the total under None, as far as it was asked for or is
            known from elsewhere.
    """

    batch: RewardBatch
    totals: Array
    rewards: Mapping[str, RewardColumn]
    gates: Sequence[tuple[Gate, Mask]]
    before_gates: Array
    dropped: Mask
    constraints: Sequence[ConstraintColumn] = ()
    group_weights: Mapping[str, float] = field(default_factory=dict)
    aggregation: AggregationTree = field(default_factory=AggregationTree)
    gate_order: GateOrder = "independent"
    e_values: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    without_variance: dict[str | None, Mask] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.totals)

    def __repr__(self) -> str:
        unscored = int(np.isnan(self.totals).sum())
        return short_repr(f"Composition of {len(self)} rows, {unscored} unscored: {', '.join(self.rewards)}")

    def _repr_html_(self) -> str:
        """Each reward's mean and failures, and the total's, for a notebook."""
        skips = any(column.not_asked for column in self.rewards.values())
        rows = [
            (
                name,
                f"{column.weight:.4g}",
                f"{_mean(column.raw):.4g}",
                f"{_mean(column.weighted):+.4g}",
                str(int((~np.isnan(column.raw)).sum())),
                str(len(column.failures)),
                *([str(len(column.skipped))] if skips else []),
                ends_in_words(column.ends),
            )
            for name, column in self.rewards.items()
        ]
        scored = int((~np.isnan(self.totals)).sum())
        total = ("total", "", "", f"{_mean(self.totals):+.4g}", str(scored), "", *([""] if skips else []), "")
        counts = ("scored", "failed", *(["not asked"] if skips else []))
        headings = ("reward", "weight", "mean raw", "mean added", *counts, "ends")
        return Layout(f"{len(self)} rows", headings, rows, total)._repr_html_()

    def to_records(self) -> list[dict[str, Any]]:
        """One JSON-ready mapping a row: the total, and each reward's values, status and reason; `rlaif score` writes it.

        With groups of rewards it has their ``spreads`` too.
        """
        spreads = self.spreads()
        return [
            {
                "total": json_number(self.totals[row]),
                "rewards": {name: column.record(row) for name, column in self.rewards.items()},
                "penalties": {part.constraint.key: json_number(part.penalty[row]) for part in self.constraints},
                "gates_closed": [gate.reward for gate, closed in self.gates if closed[row]],
                **(
                    {"spreads": {name: json_number(values_B[row]) for name, values_B in spreads.items()}}
                    if spreads
                    else {}
                ),
            }
            for row in range(len(self))
        ]

    def to_pandas(self) -> pd.DataFrame:
        """One row a completion: ``total``, and ``NAME/raw``, ``/normalized``, ``/weighted`` and ``/status`` a reward.

        ``NAME/credit`` too of one that gives any, as in `to_records`.
        """
        import pandas as pd

        columns: dict[str, Any] = {"total": self.totals}
        for name, column in self.rewards.items():
            columns |= {
                f"{name}/raw": column.raw,
                f"{name}/normalized": column.normalized,
                f"{name}/weighted": column.weighted,
                f"{name}/status": [column.status(row) for row in range(len(self))],
            }
            if column.credit:
                columns[f"{name}/credit"] = [column.credit_record(row) for row in range(len(self))]
        columns |= {f"{name}/spread": spread_B for name, spread_B in self.spreads().items()}
        return pd.DataFrame(columns)

    def no_variance(self, reward: str | None = None) -> Mask:
        """(B,) True where all of a row's group have one value, so that the group teaches nothing.

        Where advantages are differences within a group they are all 0 there, as they are where fewer than two of a group
        have a value. `metrics` has the share of such groups, ``reward/total/no_variance``.

        Example:
            >>> from rlaif_sdk import Composer, RewardBatch
            >>> def right(completion_texts):
            ...     return [float(text == "4") for text in completion_texts]
            >>> batch = RewardBatch(["2 + 2?"] * 4, ["4", "5", "4", "4"], group=["a", "a", "b", "b"])
            >>> with Composer({"right": right}) as composer:
            ...     composer.compose(batch).no_variance().tolist()
            [False, False, True, True]

        Args:
            reward: The reward whose scores are looked at; the composed total if None.

        Raises:
            BatchError: The batch has no groups.
            KeyError: There is no such reward.
        """
        if not self.without_variance:
            group_B = encode_groups(self.batch.group)
            if group_B is None:
                raise BatchError("variance within groups is asked for, and the batch has no 'group'")
            names = (None, *self.rewards)
            values_RB = np.stack([self.totals, *(column.raw for column in self.rewards.values())])
            self.without_variance.update(zip(names, no_variance(values_RB, group_B)[:, group_B], strict=True))
        return self.without_variance[reward]

    def spreads(self) -> dict[str, Array]:
        """For each group of rewards the (B,) weighted standard deviations of its rewards' normalised values in each row.

        How far several judges of one thing disagree about a row; NaN where fewer than two have a value. The rewards of
        groups within a group count as its own.
        """
        found = {}
        for name in self.aggregation.groups:
            columns = [self.rewards[leaf] for leaf in self.aggregation.leaves(name)]
            found[name] = spread(
                np.stack([part.normalized for part in columns]), np.array([part.weight for part in columns])
            )
        return found

    def to_list(self) -> list[float | None]:
        """The totals as TRL takes them: None where a row is unscored."""
        return [*map(json_number, self.totals)]

    def credits(self, row: int) -> list[tuple[str, Credit]]:
        """Where a row's total falls, by what adds to it: each reward, constraint and gate; none of an unscored row.

        They sum to the total. What has no place of its own is ``rest`` alone, and falls on the end of the completion: a
        score without credit, what a constraint takes off, what a gate changes. Where a gate is closed all of the row is.

        Example:
            >>> from rlaif_sdk import Composer, RewardBatch, Score
            >>> def steps(completions):
            ...     return [Score.of_turns([0.25, 0.5]) for _ in completions]
            >>> def flat(completions):
            ...     return [1.0 for _ in completions]
            >>> said = [{"role": role, "content": "Ten."} for role in ("assistant", "tool", "assistant")]
            >>> with Composer({"steps": steps, "flat": flat}, weights={"steps": 2.0}) as composer:
            ...     composition = composer.compose(RewardBatch(["How late?"], [said]))
            >>> [(name, credit.turns, credit.rest) for name, credit in composition.credits(0)]
            [('steps', [0.5, 1.0], 0.0), ('flat', None, 1.0)]
        """
        if math.isnan(self.totals[row]):
            return []
        found = []
        for name, column in self.rewards.items():
            weighted = float(column.weighted[row])
            if not math.isnan(weighted):
                found.append((name, column.credited(row) or Credit(rest=weighted)))
        found += [
            (f"constraint {part.constraint}", Credit(rest=-float(part.penalty[row]))) for part in self.constraints
        ]
        found += [(gate.name, Credit(rest=gate.adds)) for gate in self._gates_of(row)]
        return found

    def token_rewards(
        self, tokenizer: Decodes | None = None, *, rows: Sequence[int] | None = None
    ) -> list[Array | None]:
        """For each row the (T,) rewards of its tokens, which sum to its total; None where all falls on the last token.

        A turn's credit falls on its last token, that of a span of text on the token with its last character, and all that
        has no place on the last token of the policy. See `credits`.

        Args:
            tokenizer: What the completions' tokens are decoded with; needed where a reward gives credit to spans of text.
            rows: Which rows; None means all.

        Raises:
            BatchError: There is credit, and the batch has no ``completion_ids``; or a row has several turns of the policy,
                and the batch no ``turn_spans``, or others than it has turns; or there is no tokenizer.
        """
        return [
            PlacedRow(self.batch, row, tokenizer).token_rewards(parts, float(self.totals[row])) if parts else None
            for row, parts in self._parts(rows)
        ]

    def turn_rewards(self, *, rows: Sequence[int] | None = None) -> list[Array | None]:
        """For each row the (K,) rewards of the policy's turns, which sum to its total; None where all falls on the last turn.

        A token's and a span's credit falls on the turn that it is in. See `credits`.

        Args:
            rows: Which rows; None means all.

        Raises:
            BatchError: A row has several turns of the policy and credit by token, and the batch does not say which tokens
                are whose.
        """
        return [
            PlacedRow(self.batch, row).turn_rewards(parts, float(self.totals[row])) if parts else None
            for row, parts in self._parts(rows)
        ]

    def _parts(self, rows: Sequence[int] | None) -> Iterator[tuple[int, list[Credit]]]:
        """Each of the rows, with the credit that has a place before its end."""
        giving = [column for column in self.rewards.values() if column.credit]
        for row in range(len(self)) if rows is None else rows:
            found = []
            if giving and not math.isnan(self.totals[row]):
                for column in giving:
                    if credited := column.credited(row):
                        found.append(credited)
                    elif row in column.credit and column.has_no_place(row):
                        _warn_without_place(column.name)
            yield row, found

    def explain(self, row: int) -> Explanation:
        """How a row's total came about; `print` shows it as a waterfall.

        Raises:
            IndexError: There is no such row.
        """
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a composition of {len(self)} rows")
        row %= len(self)
        present = [name for name, column in self.rewards.items() if not math.isnan(column.normalized[row])]
        effective = self._effective_weights(present)
        running = 0.0
        steps = []
        for name, column in self.rewards.items():
            weighted = float(column.weighted[row])
            running += 0.0 if math.isnan(weighted) else weighted
            steps.append(_step(column, row, weighted, running, effective.get(name, math.nan)))
        constraints = []
        for part in self.constraints:
            adds = -float(part.penalty[row])
            running += adds
            said = "no score" if math.isnan(adds) else f"multiplier {part.multiplier:.4g}"
            constraints.append(Adjustment(f"constraint {part.constraint}", adds + 0.0, running, said))
        total = float(self.totals[row])
        placed = [step.credit for step in steps if step.credit and (step.credit.turns or step.credit.spans)]
        return Explanation(
            row,
            tuple(steps),
            tuple(self._gates_of(row)),
            total,
            note=_note(self, row) if math.isnan(total) else "",
            constraints=tuple(constraints),
            text=tuple(PlacedRow(self.batch, row).in_text(placed)) if placed else (),
            marks=tuple(_marks(self.batch, row, steps)),
            scaling=_scaling(steps, self._effective_weights(self.rewards)),
            aggregation=tuple(self._aggregation_notes(row)),
        )

    def _gates_of(self, row: int) -> Iterator[Adjustment]:
        """What each gate did to the sum of a row. In lexicographic order one decides: the first closed, or the last."""
        running, total = float(self.before_gates[row]), float(self.totals[row])
        failed = [place for place, (_, closed_B) in enumerate(self.gates) if closed_B[row]]
        decides = failed[0] if failed else len(self.gates) - 1
        for place, (gate, closed_B) in enumerate(self.gates):
            raw = self.rewards[gate.reward].raw[row]
            verdict = f"does not pass: at most {gate.floor:g}" if closed_B[row] else "passes"
            unscored = False
            if math.isnan(raw):
                status = self.rewards[gate.reward].status(row)
                has_stated_score = status not in {"abstained", "failed"}
                unscored = gate.on_missing == "unscored" and not has_stated_score
                verdict = f"{status}, {'so the row is unscored' if unscored else verdict}"
            else:
                verdict = f"{raw:.4g} {verdict}"
            before = running
            if unscored:
                running = math.nan
            elif self.gate_order == "lexicographic":
                running = total if place == decides else running
            elif closed_B[row]:
                running = min(running, gate.floor)
            yield Adjustment(f"gate {gate}", running - before, running, verdict)

    def _effective_weights(self, present: Collection[str]) -> dict[str, float]:
        """What each of the rewards that took part is multiplied by; none where the total is no weighted sum."""
        weights = {name: column.weight for name, column in self.rewards.items()} | dict(self.group_weights)
        return self.aggregation.effective_weights(weights, present)

    def _aggregation_notes(self, row: int) -> Iterator[str]:
        if self.aggregation.kind != WeightedSum.__name__:
            yield f"the total is made by {self.aggregation.kind}, of which these are the shares"
        spreads = self.spreads()
        for name, members in self.aggregation.groups.items():
            kind = self.aggregation.kinds[name]
            how = "" if kind == WeightedSum.__name__ else f", made by {kind}"
            apart = "" if math.isnan(spreads[name][row]) else f"; spread {spreads[name][row]:.4g}"
            yield f"group {name}: weight {self.group_weights[name]:.4g}, of {', '.join(members)}{how}{apart}"

    def columns_for_gdpo(self) -> dict[str, list[float | None]]:
        """The rewards that have a weight, one by one, for TRL's ``multi_objective_aggregation="normalize_then_sum"``.

        Each is normalised, higher being better, and None where it is missing or the row is unscored. TRL takes the
        weights, which are those of `RewardColumn.weight`, as ``reward_weights``; the aggregator plays no part.

        Raises:
            ConfigError: There are gates, constraints, groups or an ``ask``, which cannot hold over rewards that are
                standardised each by itself.
        """
        asks = any(column.imputed is not None for column in self.rewards.values())
        parts = {"gates": self.gates, "constraints": self.constraints, "groups": self.group_weights, "ask": asks}
        for what, found in parts.items():
            if found:
                raise ConfigError(f"GDPO standardises each reward by itself, so {what} would not hold", key=what)
        unscored_B = np.isnan(self.totals)
        return {
            name: [json_number(value) for value in np.where(unscored_B, np.nan, column.normalized)]
            for name, column in self.rewards.items()
            if column.weight != 0
        }

    def gdpo_advantages(self, *, epsilon: float = 1e-4) -> Array:
        """(B,) the GDPO advantages of these rows; see `rlaif_sdk.composer.advantages.gdpo_advantages`.

        Raises:
            BatchError: The batch has no groups.
            ConfigError: As `columns_for_gdpo`.
        """
        group_B = encode_groups(self.batch.group)
        if group_B is None:
            raise BatchError("GDPO compares the completions to one prompt, and the batch has no 'group'")
        columns = self.columns_for_gdpo()
        rewards_RB = np.array(list(columns.values()), dtype=np.float64)
        weights_R = np.array([self.rewards[name].weight for name in columns])
        return gdpo_advantages(rewards_RB, weights_R, group_B, epsilon=epsilon)

    def metrics(self, *, detail: bool = True) -> dict[str, float]:
        """Flat numbers for a training log: of the total and of each reward, with failures counted apart.

        The weights and multipliers are those in force, so that a change of the reward is seen beside what it does.

        Args:
            detail: Add what `rlaif_sdk.composer.metrics.composition_diagnostics` measures.
        """
        numbers = {
            "reward/total/mean": _mean(self.totals),
            "reward/total/std": _std(self.totals),
            "reward/total/unscored": float(np.isnan(self.totals).mean()) if len(self) else 0.0,
        }
        if (group_B := encode_groups(self.batch.group)) is not None and len(self):
            (without_G,) = no_variance(self.totals[np.newaxis], group_B)
            numbers["reward/total/no_variance"] = float(without_G.mean())
        for name, column in self.rewards.items():
            numbers |= {
                f"reward/{name}/raw_mean": _mean(column.raw),
                f"reward/{name}/raw_std": _std(column.raw),
                f"reward/{name}/weighted_mean": _mean(column.weighted),
                f"reward/{name}/weight": column.weight,
                f"reward/{name}/failed": float(len(column.failures)),
                f"reward/{name}/abstained": float(column.abstained),
                f"reward/{name}/seconds": column.seconds,
            }
            for subscore, values in column.subscore_values().items():
                numbers[f"reward/{name}/subscore/{subscore}"] = math.fsum(values) / len(values)
            numbers |= {f"reward/{name}/{part}": value for part, value in column.counts().items()}
        numbers |= {f"group/{name}/weight": weight for name, weight in self.group_weights.items()}
        numbers |= {f"group/{name}/spread": _mean(spread_B) for name, spread_B in self.spreads().items()}
        for part in self.constraints:
            violation_B = part.constraint.violation(self.rewards[part.constraint.reward].raw)
            numbers[f"constraint/{part.constraint.key}/multiplier"] = part.multiplier
            numbers[f"constraint/{part.constraint.key}/violation"] = _mean(violation_B)
        numbers |= {f"alarm/{name}/e_value": value for name, value in self.e_values.items()}
        numbers |= {f"alarm/{name}/threshold": value for name, value in self.thresholds.items() if math.isfinite(value)}
        for gate, closed in self.gates:
            numbers[f"gate/{gate.reward}/closed"] = float(closed.mean()) if len(self) else 0.0
        return numbers | composition_diagnostics(self.batch, self.totals, self.rewards) if detail else numbers


def _warn_without_place(name: str) -> None:
    warnings.warn(
        f"the credit of {name!r} has no place in the total, so all of its share falls on the end of the completion: its "
        "normalizer or the aggregator does more than scale and shift; normalize by none, minmax, zscore or their like, and "
        "aggregate by weighted_sum",
        stacklevel=4,
    )


def _mean(values: Array) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _std(values: Array) -> float:
    present = values[~np.isnan(values)]
    return float(present.std()) if present.size else float("nan")


def _scaling(steps: Sequence[WaterfallStep], nominal: Mapping[str, float]) -> str:
    """By how much the weights of a weighted sum were scaled up, and because of whom; empty where they were not."""
    absent = [step.reward for step in steps if math.isnan(step.weighted) and step.weight]
    factors = {
        step.reward: step.effective / nominal[step.reward]
        for step in steps
        if not math.isnan(step.effective) and nominal.get(step.reward)
    }
    scaled = {name: factor for name, factor in factors.items() if not math.isclose(factor, 1.0)}
    if not absent or not scaled:
        return ""
    because = f"{', '.join(absent)} took no part"
    first, *others = factors.values()
    if all(math.isclose(first, other) for other in others):
        return f"weights x {first:.4g}: {because}"
    return f"weights x {', '.join(f'{factor:.4g} ({name})' for name, factor in scaled.items())}: {because}"


def _step(column: RewardColumn, row: int, weighted: float, running: float, effective: float) -> WaterfallStep:
    return WaterfallStep(
        reward=column.name,
        raw=float(column.raw[row]),
        normalized=float(column.normalized[row]),
        weight=column.weight,
        weighted=weighted,
        running=running,
        status=column.status(row),
        reason=column.reason(row),
        credit=column.credited(row),
        effective=math.nan if math.isnan(weighted) else effective,
        normalizer=_working(column, row),
        ends=column.ends,
        subscores=column.subscores(row),
    )


_MOST_MARKS = 12
_MARKED = 60


def _marks(batch: RewardBatch, row: int, steps: Sequence[WaterfallStep]) -> Iterator[str]:
    """What falls on turns and spans, in words, the most of it first."""
    found: list[tuple[float, str]] = []
    for step in steps:
        credit = step.credit or Credit()
        for number, value in enumerate(credit.turns or (), start=1):
            found.append((value, f"{step.reward}, turn {number}"))
        for span in credit.spans:
            text = batch.views(credit.view, thinking=credit.thinking)[row] or ""
            quoted = " ".join(text[span.start : span.end].split())
            shortened = quoted if len(quoted) <= _MARKED else f"{quoted[: _MARKED - 1]}\u2026"
            because = f": {span.reason}" if span.reason else ""
            found.append((span.value, f"{step.reward}, \u201c{shortened}\u201d{because}"))
    found = sorted((mark for mark in found if mark[0]), key=lambda mark: -abs(mark[0]))
    yield from (f"{value:+.4f} {said}" for value, said in found[:_MOST_MARKS])
    if len(found) > _MOST_MARKS:
        yield f"and {len(found) - _MOST_MARKS} more of less"


def _working(column: RewardColumn, row: int) -> str:
    if column.working is None or math.isnan(column.normalized[row]):
        return ""
    return column.working(row) or ("" if column.higher_is_better else "the score negated, since it is a cost")


def _note(composition: Composition, row: int) -> str:
    if composition.dropped[row]:
        failed = [name for name, column in composition.rewards.items() if row in column.failures]
        return f"dropped: {', '.join(failed)} failed"
    if any(math.isnan(part.penalty[row]) for part in composition.constraints):
        return "a constraint's reward has no score"
    if math.isnan(composition.before_gates[row]):
        shares = [column.weighted[row] for column in composition.rewards.values()]
        return "the sum overflows" if any(map(math.isinf, shares)) else "no reward with a weight has a score"
    return "a gate's reward has no score"
