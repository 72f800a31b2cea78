"""What evaluations found, as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlaif_sdk.evaluation.reward import TOTAL, LabelMetrics, PairMetrics
from rlaif_sdk.reporting.tables import format_number, reliability_table, text_table

if TYPE_CHECKING:
    from rich.table import Table

    from rlaif_sdk.evaluation import (
        BenchmarkResult,
        BestOfCurve,
        CompositionFit,
        LabelEvaluation,
        Measure,
        Ranking,
        RewardEvaluation,
        WinRate,
    )
    from rlaif_sdk.statistics.estimates import Estimate

INTERVALS = "95% confidence intervals in brackets"
OVER_PROMPTS = "by a bootstrap over prompts, of shares no narrower than Wilson's over them"
OF_AREAS = "of areas than Newcombe's"


def shown(estimate: Estimate | None, *, digits: int = 3, signed: bool = False) -> str:
    """An estimate with its interval, see `rlaif_sdk.statistics.estimates.Estimate.text`; a dash for none."""
    return "–" if estimate is None else estimate.text(digits=digits, signed=signed)


def label_estimates(found: LabelEvaluation) -> dict[str, str]:
    """Every estimate over labels by its name."""
    people = found.alignment
    estimates = {"labels": f"{found.labels} ({found.ties} ties, {found.hard} hard)"}
    if people is not None:
        estimates |= {
            f"agrees with people ({people.accuracy.n} pairs)": shown(people.accuracy),
            "  only in the given order": shown(people.when_first),
            "  only in the swapped order": shown(people.when_second),
            f"three classes, ties included ({people.three_class.n} pairs)": shown(people.three_class),
            "both orders right (JudgeBench's rule)": shown(people.strict),
            f"Cohen's kappa ({people.kappa.n} pairs)": shown(people.kappa),
            "  symmetric in the responses' numbers": shown(people.symmetric_kappa),
            "AUC of the soft labels": shown(people.auc),
            "Brier score": "–" if math.isnan(people.brier) else f"{people.brier:.3f}",
        }
        if people.annotators is not None:
            estimates[f"Fleiss's kappa among annotators ({people.annotators.n} pairs)"] = shown(people.annotators)
        if people.calibration is not None:
            estimates["calibration error"] = f"{people.calibration.error:.3f}"
        if people.human_ties or people.without_human:
            estimates["people undecided / not asked"] = f"{people.human_ties} / {people.without_human}"
    if found.flip_rate is not None:
        estimates |= {
            f"flip rate ({found.flip_rate.n} pairs)": shown(found.flip_rate),
            "  the first place wins both": shown(found.first_wins),
            "  the second place wins both": shown(found.second_wins),
            "  rise of the probability in the first place": shown(found.place_effect, signed=True),
        }
    estimates["tokens a label"] = f"{found.usage.tokens / found.labels:.0f}"
    if found.cost_per_label is not None:
        estimates["cost a label"] = f"{found.cost_per_label:.6f}"
    return estimates


def win_rate_estimates(found: WinRate) -> dict[str, str]:
    """Every estimate of a comparison by its name."""
    one, other = found.policies
    return {
        "pairs": f"{found.rate.n}: {found.wins} wins of {one}, {found.losses} of {other}, {found.ties} ties",
        f"win rate of {one}": shown(found.rate),
        "  over prompts": shown(found.rate_over_prompts),
        "mean probability": shown(found.probability),
        "at equal length, by the difference": _at_equal_length(found, found.length_controlled),
        "at equal length, by the ratio": _at_equal_length(found, found.length_controlled_by_ratio),
        "mean characters": f"{found.mean_lengths[0]:.0f} and {found.mean_lengths[1]:.0f}",
        "flip rate": shown(found.flip_rate),
    }


def _at_equal_length(found: WinRate, estimate: Estimate) -> str:
    if found.lengths_overlap:
        return shown(estimate)
    return f"– (in {found.length_overlap:.1%} of the pairs only is the otherwise shorter response as long)"


def estimates_table(estimates: Mapping[str, str], title: str) -> Table:
    """A row an estimate."""
    return text_table(("", ""), estimates.items(), title=title, caption=INTERVALS, words=(0, 1), show_header=False)


def label_tables(found: LabelEvaluation) -> list[Table]:
    """The estimates over labels, and their reliability where there are human labels."""
    tables = [estimates_table(label_estimates(found), "Labels")]
    if found.alignment is not None and found.alignment.calibration is not None:
        tables.append(reliability_table(found.alignment.calibration))
    return tables


def ranking_rows(found: Ranking) -> tuple[list[str], list[list[str]]]:
    """A row a policy, from the strongest to the weakest, under headings."""
    rows = [
        [
            each.policy,
            str(each.games),
            shown(each.win_rate),
            shown(each.strength, digits=2, signed=True),
            f"{each.elo:.0f} ± {each.elo_spread:.0f}",
        ]
        for each in found.policies
    ]
    return ["policy", "pairs", "win rate", "strength", "Elo"], rows


def ranking_table(found: Ranking) -> Table:
    """The ranking of several policies."""
    caption = f"{INTERVALS}; strength in nats of Bradley and Terry, mean 0"
    return text_table(*ranking_rows(found), title=f"Policies on {found.prompts} prompts", caption=caption)


def reward_rows(found: RewardEvaluation) -> tuple[list[str], list[list[str]]]:
    """A row of metrics for the composed reward and for each of its rewards, under headings."""
    against_pairs = all(isinstance(metrics, PairMetrics) for metrics in found.metrics.values())
    headings = (
        ["accuracy", "at equal length", "ties", "calibration error"]
        if against_pairs
        else ["AUC", "average precision", "threshold", "true positives", "false positives", "calibration error"]
    )
    rows = [[name, *_metric_cells(metrics), str(metrics.unscored)] for name, metrics in found.metrics.items()]
    return ["", *headings, "unscored"], rows


def _metric_cells(metrics: LabelMetrics | PairMetrics) -> list[str]:
    error = "–" if metrics.calibration is None else f"{metrics.calibration.error:.3f}"
    if isinstance(metrics, PairMetrics):
        return [shown(metrics.accuracy), shown(metrics.at_equal_length), str(metrics.ties), error]
    rates = (metrics.auc, metrics.average_precision, metrics.threshold, metrics.true_positives, metrics.false_positives)
    return [*map(shown, rates), error]


def category_rows(found: RewardEvaluation) -> tuple[list[str], list[list[str]]]:
    """A row a category of the composed reward, under headings; no rows without categories."""
    total = found.metrics[TOTAL]
    if isinstance(total, PairMetrics):
        rows = [[name, shown(accuracy), str(accuracy.n)] for name, accuracy in total.by_category.items()]
        return ["category", "accuracy", "pairs"], rows
    rows = [
        [name, shown(errors.auc), shown(errors.false_positives), shown(errors.false_negatives), str(errors.auc.n)]
        for name, errors in total.by_category.items()
    ]
    return ["category", "AUC", "false positives", "false negatives", "rows"], rows


def contribution_rows(found: RewardEvaluation) -> tuple[list[str], list[list[str]]]:
    """What each reward adds, and how far it agrees with the others, under headings."""
    agreement = dict(zip(found.rewards, found.agreement_RR.tolist(), strict=True))
    rows = [
        [
            name,
            shown(each.leave_one_out, signed=True),
            f"{each.shapley:+.3f}",
            *(format_number(value, digits=2) for value in agreement[name]),
        ]
        for name, each in found.contributions.items()
    ]
    return ["", "leave one out", "Shapley value", *(f"agrees with {name}" for name in found.rewards)], rows


def counted_rows(found: RewardEvaluation) -> str:
    """How many rows count, and which do not, in words."""
    of_pairs = isinstance(next(iter(found.metrics.values())), PairMetrics)
    unlabelled = (
        ("has twice the same completion", "have twice the same completion")
        if of_pairs
        else ("has no label, or an undecided one", "have no label, or an undecided one")
    )
    parts = ["1 row" if found.rows == 1 else f"{found.rows} rows"]
    for count, (one, several) in (
        (found.repeated, ("repeats another and does not count", "repeat another and do not count")),
        (found.contradicted, ("contradicts another", "contradict another")),
        (found.unlabelled, unlabelled),
    ):
        parts += [f"{count} {one if count == 1 else several}"] if count else []
    if found.annotators is not None:
        parts.append(f"Fleiss's kappa among annotators {shown(found.annotators)}")
    return "; ".join(parts)


def intervals_of(found: RewardEvaluation) -> str:
    """What the brackets of its metrics are, in words."""
    against_labels = isinstance(found.metrics[TOTAL], LabelMetrics)
    return f"{INTERVALS}, {OVER_PROMPTS}" + (f", {OF_AREAS}" if against_labels else "")


def reward_tables(found: RewardEvaluation) -> list[Table]:
    """Metrics, categories and contributions."""
    caption = f"{counted_rows(found)}; {intervals_of(found)}"
    tables = [text_table(*reward_rows(found), title="Rewards", caption=caption)]
    for title, (headings, rows) in (
        ("Total by category", category_rows(found)),
        ("What each reward adds to the total", contribution_rows(found)),
    ):
        tables += [text_table(headings, rows, title=title)] if rows else []
    return tables


def benchmark_rows(found: BenchmarkResult) -> tuple[list[str], list[list[str]]]:
    """A row a number of a benchmark, under headings."""
    return ["", "score", "items"], [[name, shown(value), str(value.n)] for name, value in found.values.items()]


def benchmark_table(found: BenchmarkResult) -> Table:
    """The numbers of a benchmark, and by whose rules."""
    caption = f"{found.version}. {found.rules} {INTERVALS.capitalize()}, {OVER_PROMPTS}."
    return text_table(*benchmark_rows(found), title=f"{found.title}: {found.items} items", caption=caption)


def best_of_rows(found: BestOfCurve) -> tuple[list[str], list[list[str]]]:
    """A row a number of completions, under headings."""
    headings = ["best of", "KL in nats", "total", *(["witness"] if found.loss else [])]
    rows = [
        [str(point.n), f"{point.kl:.2f}", shown(point.total), *([shown(point.witness)] if point.witness else [])]
        for point in found.points
    ]
    return headings, rows


def best_of_words(found: BestOfCurve) -> str:
    """What the curve rests on, and whether it turns."""
    told = [f"over {found.prompts} prompts"]
    if found.skipped:
        told.append(f"{found.skipped} have too few scored completions")
    if found.loss is not None:
        turns = found.loss.low > 0
        lost = f"the witness loses {shown(found.loss)} from its best to the greatest n"
        told.append(f"{lost}: the total is over-optimised" if turns else lost)
    return "; ".join(told)


def best_of_table(found: BestOfCurve) -> Table:
    """The curve of best of n."""
    return text_table(*best_of_rows(found), title="Best of n", caption=f"{best_of_words(found)}; {INTERVALS}.")


def ranking_warnings(found: Ranking) -> list[str]:
    """What a ranking cannot say, in words."""
    warnings = []
    if len(found.compared_sets) > 1:
        sets = " | ".join(", ".join(names) for names in found.compared_sets)
        warnings.append(f"no pair connects {sets}: strengths compare within these sets only; label pairs between them")
    for names, what, end in ((found.undefeated, "lost", "how strong"), (found.winless, "won", "how weak")):
        if names:
            told = f"never {what} a pair, so the pairs do not tell {end}: the interval of its strength is open"
            warnings.append(f"{', '.join(names)} {told}")
    return warnings


def measures_table(measures: Mapping[str, Measure]) -> Table:
    """The rows of each reward: means, the paired change, standard deviations, and the share that passes a threshold."""
    paired = any(measure.after is not None for measure in measures.values())
    rows = []
    for name, measure in measures.items():
        rows.append([name, *_cells(paired, measure.before, measure.after, measure.change)])
        rows.append(["  standard deviation", *map(format_number, measure.spreads)])
        if measure.passed:
            after = measure.passed[1] if paired else None
            label = f"  share that passes {measure.threshold:g}"
            rows.append([label, *_cells(paired, measure.passed[0], after, measure.passed_change)])
    headings = ("before", "after", "change", "rows") if paired else ("mean", "rows")
    return text_table(("", *headings), rows, title="Rewards", caption=INTERVALS)


def _cells(paired: bool, before: Estimate, after: Estimate | None, change: Estimate | None) -> list[str]:  # noqa: FBT001
    if not paired or change is None:
        return [shown(before), str(before.n)]
    return [shown(before), shown(after), shown(change, signed=True), str(change.n)]


def fit_tables(found: CompositionFit) -> list[Table]:
    """The weights of a fitted composition, and how it agrees with people beside what it is compared with."""
    caption = (
        f"{INTERVALS}; a weight is in log-odds a unit of the normalised score, a gain in nats a pair\n"
        f"{found.votes[0]:g} verdicts for a completion and {found.votes[1]:g} for neither; {found.unjudged} pairs without one; "
        f"penalty {found.penalty:g}; loss {shown(found.loss)} nats a pair"
    )
    if found.annotators is not None:
        caption += f"; Fleiss's kappa of {found.annotators.n} pairs with several {shown(found.annotators)}"
    title = f"Weights fitted to {found.pairs} pairs about {found.prompts} prompts"
    rows = [
        [name, f"{each.before:g}", shown(each.estimate), shown(each.gain, digits=4, signed=True)]
        for name, each in found.weights.items()
    ]
    rows += [
        [f"gate on {fitted.gate.reward}", f"{fitted.before:g}", shown(fitted.threshold), ""] for fitted in found.gates
    ]
    rows += [
        [f"default of {default.reward}", f"{default.before:g}", shown(default.value), ""] for default in found.defaults
    ]
    weights = text_table(("reward", "before", "fitted", "gain on held-out prompts"), rows, title=title, caption=caption)
    caption = f"{INTERVALS}, {OVER_PROMPTS}; what is fitted is asked about prompts that it was not fitted to"
    categories = [*next(iter(found.agreement.values())).by_category]
    rows = [
        [what, *map(shown, (agrees.accuracy, agrees.at_equal_length, *map(agrees.by_category.get, categories)))]
        for what, agrees in found.agreement.items()
    ]
    rows.append(["fitted, less as it was", shown(found.change, signed=True)])
    headings = ("", "all", "at equal length", *categories)
    return [weights, text_table(headings, rows, title="Agreement with people", caption=caption)]
