"""What a reward is worth before a policy is trained on it: against labels, and against preference pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rlaif_sdk.composer import Composer
from rlaif_sdk.composer.explain import Explanation
from rlaif_sdk.conversations import USER, aligned, view
from rlaif_sdk.evaluation.length_control import length_controlled
from rlaif_sdk.evaluation.scored import Candidate, ScoredCompletions, columns_reader
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jsonl import Row, plain
from rlaif_sdk.io.tables import Source, read_rows, table_name
from rlaif_sdk.io.text import listed
from rlaif_sdk.preferences.tables import check_text
from rlaif_sdk.statistics.agreement import fleiss_kappa
from rlaif_sdk.statistics.arrays import Array, Mask, encode_groups, json_number
from rlaif_sdk.statistics.calibration import Calibration, calibrate, calibrate_probs
from rlaif_sdk.statistics.classification import LabelledScores, auc_over_groups, brier
from rlaif_sdk.statistics.correlation import spearman
from rlaif_sdk.statistics.estimates import Estimate, Indices, bootstrap, share_over_groups, weighted_mean

TOTAL = "total"
"""The composed reward, among the rewards that it is composed of."""
_EXACT_PLAYERS = 8
_ORDERS = 200
WEAK_LENGTH_PENALTY = 100.0
"""The inverse weight of the penalty on the regression on length: it keeps the fit finite, and draws nothing to one half."""
_TRUE = frozenset({"1", "true", "yes"})
_FALSE = frozenset({"0", "false", "no"})
Statistic: TypeAlias = Callable[[Array], float]
"""A metric, of how often each of the N rows counts."""


@dataclass(frozen=True, slots=True)
class CategoryErrors:
    """The errors of one category of rows at the best threshold of all.

    Attributes:
        auc: The area under the ROC curve within the category; NaN where one class is missing.
        false_positives: Of the negatives, the share with a score from the threshold on. The interval of
            `rlaif_sdk.statistics.estimates.share_over_groups` over prompts, as of every share here.
        false_negatives: Of the positives, the share below it.
    """

    auc: Estimate
    false_positives: Estimate
    false_negatives: Estimate


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """How well one reward tells completions labelled good from the others. Higher scores mean better.

    Attributes:
        auc: The area under the ROC curve; bootstrap over prompts, as for the next two, or over rows where all answer one
            prompt; of the area no narrower than Newcombe's interval over them.
        average_precision: The area under the precision-recall curve, in steps.
        threshold: From which score on a completion is called good, by the greatest balanced accuracy over these rows; for a
            cost, its negative. On other rows it does a little worse.
        true_positives: Of the good ones, the share from the threshold on.
        false_positives: Of the others, likewise.
        brier: Mean squared distance of scores from labels, where scores are declared to lie in [0, 1]; else NaN.
        calibration: Scores as probabilities, likewise; else None.
        by_category: The errors of each category of rows.
        unscored: Labelled rows without a score; they count nowhere else.
    """

    auc: Estimate
    average_precision: Estimate
    threshold: Estimate
    true_positives: Estimate
    false_positives: Estimate
    brier: float
    calibration: Calibration | None
    by_category: Mapping[str, CategoryErrors]
    unscored: int

    def record(self) -> dict[str, Any]:
        """The metrics as a JSON-ready mapping."""
        return {
            "auc": self.auc.record(),
            "average_precision": self.average_precision.record(),
            "threshold": self.threshold.record(),
            "true_positive_rate": self.true_positives.record(),
            "false_positive_rate": self.false_positives.record(),
            "brier": json_number(self.brier),
            "ece": self.calibration.error if self.calibration else None,
            "by_category": {
                name: {
                    "auc": errors.auc.record(),
                    "false_positive_rate": errors.false_positives.record(),
                    "false_negative_rate": errors.false_negatives.record(),
                }
                for name, errors in self.by_category.items()
            },
            "unscored": self.unscored,
        }


@dataclass(frozen=True, slots=True)
class PairMetrics:
    """How often one reward prefers the chosen completion of a pair.

    Attributes:
        accuracy: The share of pairs in which the chosen one scores higher, equal scores half; bootstrap over prompts, no
            narrower than Wilson's interval over them.
        at_equal_length: The same by `rlaif_sdk.evaluation.length_controlled`, with a weak penalty; NaN where chosen and rejected completions
            overlap too little in length.
        ties: Pairs with equal scores.
        calibration: logistic(chosen - rejected) as the probability that the chosen one is better, the model of a
            Bradley-Terry reward; None without pairs.
        by_category: The accuracy within each category, likewise.
        unscored: Pairs of which a completion has no score; they count nowhere else.
    """

    accuracy: Estimate
    at_equal_length: Estimate
    ties: int
    calibration: Calibration | None
    by_category: Mapping[str, Estimate]
    unscored: int

    def record(self) -> dict[str, Any]:
        """The metrics as a JSON-ready mapping."""
        return {
            "accuracy": self.accuracy.record(),
            "accuracy_at_equal_length": self.at_equal_length.record(),
            "ties": self.ties,
            "ece": self.calibration.error if self.calibration else None,
            "cross_entropy": self.calibration.cross_entropy if self.calibration else None,
            "by_category": {name: accuracy.record() for name, accuracy in self.by_category.items()},
            "unscored": self.unscored,
        }


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one reward adds to the composition's AUC or accuracy.

    Attributes:
        leave_one_out: The metric of the whole less that without this reward, its gates and constraints; bootstrap over
            prompts.
        shapley: Its Shapley value (1953): its mean gain over all orders in which rewards join. The values add up to the
            metric of the whole less one half.
    """

    leave_one_out: Estimate
    shapley: float

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping."""
        return {"leave_one_out": self.leave_one_out.record(), "shapley": self.shapley}


@dataclass(frozen=True, slots=True)
class Mistake:
    """What the composition gets wrong.

    Attributes:
        row: The row of the table, from 1.
        margin: By how much the wrong side is ahead: rejected less chosen, or the total's distance from the threshold.
        prompt: The prompt.
        explanations: How the totals came about: of the ``rejected`` and the ``chosen`` completion of a pair, or of the
            labelled ``completion``.
    """

    row: int
    margin: float
    prompt: str
    explanations: Mapping[str, Explanation]

    def record(self) -> dict[str, Any]:
        """As a JSON-ready mapping, the explanations as lines of text."""
        told = {name: str(explanation).splitlines() for name, explanation in self.explanations.items()}
        return {"row": self.row, "margin": self.margin, "prompt": self.prompt, "explanations": told}


@dataclass(frozen=True, slots=True)
class RewardEvaluation:
    """What a table of labels or pairs says of a composition and its rewards.

    Attributes:
        metrics: Of the composed reward, ``total``, and of each reward by name: `LabelMetrics` or `PairMetrics`.
        contributions: Of each reward that the total depends on; empty where there is only one.
        shapley_is_exact: Whether all sets of rewards were combined, rather than a sample of the orders.
        agreement_RR: (R, R) Spearman's rank correlation of the rewards over completions, or for pairs the share of those
            that both decide in which both prefer the same completion; NaN where there is none.
        mistakes: Of the composition, the worst first.
        rows: Rows of the table that count.
        repeated: Rows that say what another row says, and count once.
        contradicted: Pairs of which another row prefers the other completion; they all count.
        unlabelled: Rows without a label, or on which annotators are undecided; pairs of twice the same completion.
        annotators: Fleiss's kappa among annotators, where rows have several labels; else None.
        reason: Why the first completion without a total has none; None where all have one.
    """

    metrics: Mapping[str, LabelMetrics] | Mapping[str, PairMetrics]
    contributions: Mapping[str, Contribution]
    shapley_is_exact: bool
    agreement_RR: Array
    mistakes: Sequence[Mistake]
    rows: int
    repeated: int = 0
    contradicted: int = 0
    unlabelled: int = 0
    annotators: Estimate | None = None
    reason: str | None = None

    @property
    def rewards(self) -> list[str]:
        """The rewards' names, as in ``agreement_RR``."""
        return [name for name in self.metrics if name != TOTAL]

    def record(self) -> dict[str, Any]:
        """The evaluation as a JSON-ready mapping."""
        agreement = [[*map(json_number, row)] for row in self.agreement_RR.tolist()]
        return {
            "rows": self.rows,
            "repeated": self.repeated,
            "contradicted": self.contradicted,
            "unlabelled": self.unlabelled,
            "reason": self.reason,
            "annotators_kappa": self.annotators.record() if self.annotators else None,
            "metrics": {name: metrics.record() for name, metrics in self.metrics.items()},
            "contributions": {name: each.record() for name, each in self.contributions.items()},
            "shapley_is_exact": self.shapley_is_exact,
            "agreement": {"rewards": self.rewards, "values": agreement},
            "mistakes": [mistake.record() for mistake in self.mistakes],
        }


def evaluate_reward(
    composer: Composer,
    table: Source,
    *,
    label: str | None = None,
    good: object = True,
    category: str | None = None,
    prompt: str = "prompt",
    completion: str = "completion",
    learn: bool = True,
    mistakes: int = 20,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> RewardEvaluation:
    """Measure a composition and each of its rewards against labels of completions, or against preference pairs.

    Every completion is scored once, whatever is asked of its scores; with a ledger, none that it knows is scored.

    Example:
        >>> from rlaif_sdk import Composer
        >>> from rlaif_sdk.evaluation import evaluate_reward
        >>> def polite(completion_texts):
        ...     return [float("please" in text.lower()) for text in completion_texts]
        >>> pairs = [
        ...     {"prompt": "Ask for salt.", "chosen": "The salt, please.", "rejected": "Salt!"},
        ...     {"prompt": "Ask for tea.", "chosen": "Tea?", "rejected": "Tea, please, now!"},
        ... ]
        >>> with Composer({"polite": polite}) as composer:
        ...     found = evaluate_reward(composer, pairs)
        >>> found.metrics["polite"].accuracy.value, [mistake.row for mistake in found.mistakes]
        (0.5, [2])

    Args:
        composer: What is measured; ``Composer({"name": reward})`` for a reward by itself.
        table: With ``label``, rows of a prompt, a completion and its label; else rows of ``chosen`` and ``rejected``, with
            their prompt or beginning with it.
        label: The column of labels: true or false, 1 or 0, also as text, ``good`` or another word; null where there is
            none; a share of annotators from 0 to 1; or a list of labels, one an annotator, of which the majority counts.
        good: The label of good completions, such as ``False`` of a column that says what is toxic.
        category: A column by which errors are told apart.
        prompt: The column of prompts; a table of labels may have none.
        completion: The column of completions that are labelled.
        learn: Whether normalizers with running statistics learn from the table before its scores are combined; False
            after a training's state is loaded.
        mistakes: How many are explained.
        progress: Called with the completions scored so far and all.

    Raises:
        DataError: A row has no such column, or a label or text of another kind; or the labels are all the same.
    """
    options: dict[str, Any] = {"learn": learn, "mistakes": mistakes, "progress": progress}
    name = table_name(table)
    if label is None:
        return _against_pairs(composer, read_rows(table), name, prompt, category, **options)
    return _against_labels(composer, read_rows(table), name, (prompt, completion), label, good, category, **options)


# --- labels


def _against_labels(
    composer: Composer,
    rows: Iterable[Row],
    file: str,
    texts: tuple[str, str],
    label: str,
    good: object,
    category: str | None,
    *,
    learn: bool,
    mistakes: int,
    progress: Callable[[int, int], None],
) -> RewardEvaluation:
    candidates, labels, categories, numbers, votes = [], [], [], [], []
    seen: set[str] = set()
    words: dict[str, None] = {}
    count = unlabelled = 0
    columns_read = columns_reader(composer)
    for count, row in enumerate(rows, start=1):
        needed = (texts[1], label, *filter(None, [category]), *([] if texts[0] == "prompt" else [texts[0]]))
        for column in needed:
            check_column(row, column, file, count)
        asked = row.get(texts[0]) or ""  # a table of comments has none
        said = _votes(row[label], good, file, count, label)
        words[repr(row[label])] = None
        votes.append([said.count(1.0), said.count(0.0)])
        share = float(np.mean(said)) if said else math.nan
        if math.isnan(share) or share == 0.5:
            unlabelled += 1
            continue
        columns = {name: value for name, value in row.items() if name not in {*texts, label}}
        key = json_digest([asked, row[texts[1]], share, columns_read(columns)], default=plain)
        if key in seen:
            continue
        seen.add(key)
        candidates.append(Candidate(asked, row[texts[1]], columns))
        labels.append(float(share > 0.5))
        categories.append("" if category is None else str(row[category]))
        numbers.append(count)
    labels_N = np.array(labels)
    if len(set(labels)) < 2:
        problem = "has no labels" if not labels else f"has only labels that say {'good' if labels[0] else 'not good'}"
        raise DataError(
            f"{problem} in {label!r}: there is nothing to tell apart",
            file=file,
            hint=f"the label of good completions is {good!r} (--good), and the table has {listed(words, 5)}; or take a table with both",
        )
    scored = ScoredCompletions(composer, candidates, learn=learn, progress=progress)
    groups_N = _groups([json_digest(each.prompt or place, default=plain) for place, each in enumerate(candidates)])
    columns = {TOTAL: scored.totals(), **{name: scored.scores(name) for name in scored.components}}
    metrics = {
        name: _label_metrics(scores_N, labels_N, groups_N, categories, _range(scored, name))
        for name, scores_N in columns.items()
    }

    def auc(totals_N: Array) -> Statistic:
        known_N = ~np.isnan(totals_N)
        labelled = LabelledScores(totals_N[known_N], labels_N[known_N])
        return lambda weights_N: labelled.roc_auc(weights_N[known_N])

    contributions, exact = _contributions(scored, auc, groups_N)
    totals_N, threshold = columns[TOTAL], metrics[TOTAL].threshold.value
    wrong_N = np.where(labels_N == 1, threshold - totals_N, totals_N - threshold)
    several = any(sum(own) > 1 for own in votes)
    return RewardEvaluation(
        metrics=metrics,
        contributions=contributions,
        shapley_is_exact=exact,
        agreement_RR=spearman(np.stack([scored.scores(name) for name in scored.components])),
        mistakes=[
            _mistake(scored, numbers[n], float(wrong_N[n]), candidates[n], completion=n)
            for n in _worst(wrong_N, mistakes)
        ],
        rows=len(candidates),
        repeated=count - unlabelled - len(candidates),
        unlabelled=unlabelled,
        annotators=fleiss_kappa(np.array(votes, dtype=np.float64)) if several else None,
        reason=scored.reason_unscored(),
    )


def _label_metrics(
    scores_N: Array,
    labels_N: Array,
    groups_N: Indices,
    categories: Sequence[str],
    value_range: tuple[float, float] | None,
) -> LabelMetrics:
    known_N = ~np.isnan(scores_N)
    scores_K, labels_K, groups_K = scores_N[known_N], labels_N[known_N], groups_N[known_N]
    category_K = np.array(categories, dtype=object)[known_N]
    labelled = LabelledScores(scores_K, labels_K)
    precision, threshold = (
        bootstrap(metric, groups_K) for metric in (labelled.average_precision, labelled.best_threshold)
    )
    called_K = scores_K >= threshold.value
    by_category = {}
    for name in sorted(set(category_K.tolist()) - {""}):
        own = category_K == name
        within = auc_over_groups(scores_K[own], labels_K[own], groups_K[own])
        wrongly_called = _share(called_K, own & (labels_K == 0), groups_K)
        missed = _share(~called_K, own & (labels_K == 1), groups_K)
        by_category[name] = CategoryErrors(within, wrongly_called, missed)
    are_probs = value_range == (0.0, 1.0) and len(scores_K) > 0
    return LabelMetrics(
        auc=auc_over_groups(scores_K, labels_K, groups_K),
        average_precision=precision,
        threshold=threshold,
        true_positives=_share(called_K, labels_K == 1, groups_K),
        false_positives=_share(called_K, labels_K == 0, groups_K),
        brier=brier(scores_K, labels_K) if are_probs else math.nan,
        calibration=calibrate_probs(scores_K, labels_K) if are_probs else None,
        by_category=by_category,
        unscored=int((~known_N).sum()),
    )


def _share(values_N: Array | Mask, among_N: Mask, groups_N: Indices) -> Estimate:
    groups = np.unique(groups_N[among_N], return_inverse=True)[1]
    return share_over_groups(values_N[among_N].astype(np.float64), groups)


def _votes(value: Any, good: object, file: str, row: int, column: str) -> list[float]:
    """What annotators say: 1 for good, 0 for another label, a share as it is; nothing where nobody was asked."""
    votes = value if isinstance(value, list) else [value]
    said = []
    for vote in votes:
        if vote is None or vote == "" or (isinstance(vote, float) and math.isnan(vote)):
            continue
        read = _label(vote, good)
        if read is None:
            raise DataError(
                f"{column!r} is no label: {value!r}",
                file=file,
                row=row,
                hint="a label is true or false, 1 or 0, a word, a share from 0 to 1, null, or a list of these; say "
                "which one is good with --good",
            )
        said.append(read)
    return said


def _label(vote: Any, good: object) -> float | None:
    """1 for the label of good completions, 0 for another, a share of annotators as it is; None for no label."""
    wanted, said = _truth(good), _truth(vote)
    if wanted is None:  # a word of the table's own
        return float(str(vote) == str(good)) if isinstance(vote, (str, int, float)) else None
    if said is not None:
        return float(said == wanted)
    if isinstance(vote, (int, float)) and 0 <= vote <= 1:
        return float(vote) if wanted else 1 - float(vote)
    return None


def _truth(value: object) -> bool | None:
    """A label that says yes or no in any of the usual forms; None for another."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = str(value).strip().lower() if isinstance(value, (bool, int, str)) else ""
    return True if word in _TRUE else False if word in _FALSE else None


# --- pairs


def _against_pairs(
    composer: Composer,
    rows: Iterable[Row],
    file: str,
    prompt: str,
    category: str | None,
    *,
    learn: bool,
    mistakes: int,
    progress: Callable[[int, int], None],
) -> RewardEvaluation:
    candidates: list[Candidate] = []
    categories, numbers, lengths = [], [], []
    seen: set[str] = set()
    repeated = contradicted = unlabelled = 0
    columns_read = columns_reader(composer)
    for count, row in enumerate(rows, start=1):
        if category is not None:
            check_column(row, category, file, count)
        asked, answers = read_pair(row, file, count, prompt=prompt)
        columns = {name: value for name, value in row.items() if name not in {prompt, "chosen", "rejected"}}
        shown = columns_read(columns)
        key, swapped = (json_digest([asked, *said, shown], default=plain) for said in (answers, answers[::-1]))
        if key == swapped:
            unlabelled += 1
            continue
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        contradicted += swapped in seen
        group = json_digest(asked or count, default=plain)
        candidates += [Candidate(asked, answer, columns, group=group) for answer in answers]
        categories.append("" if category is None else str(row[category]))
        lengths.append([len(view(answer, "assistant") or "") for answer in answers])
        numbers.append(count)
    if not candidates:
        raise DataError("has no pairs of two different completions", file=file)
    scored = ScoredCompletions(composer, candidates, learn=learn, progress=progress)
    groups_N = _groups([each.group for each in candidates[::2]])
    lengths_N2 = np.array(lengths, dtype=np.float64)
    differences = {TOTAL: scored.totals(), **{name: scored.scores(name) for name in scored.components}}
    differences = {name: values[::2] - values[1::2] for name, values in differences.items()}
    category_N = np.array(categories, dtype=object)
    metrics = {
        name: _pair_metrics(difference_N, lengths_N2, groups_N, category_N)
        for name, difference_N in differences.items()
    }

    def accuracy(totals_2N: Array) -> Statistic:
        right_N = prefers_first(totals_2N[::2] - totals_2N[1::2])
        known_N = ~np.isnan(right_N)
        right_K = right_N[known_N]
        return lambda weights_N: weighted_mean(right_K, weights_N[known_N])

    contributions, exact = _contributions(scored, accuracy, groups_N)
    signs_RN = np.sign(np.stack([differences[name] for name in scored.components]))
    return RewardEvaluation(
        metrics=metrics,
        contributions=contributions,
        shapley_is_exact=exact,
        agreement_RR=_same_preference(signs_RN),
        mistakes=[
            _mistake(
                scored, numbers[n], float(-differences[TOTAL][n]), candidates[2 * n], rejected=2 * n + 1, chosen=2 * n
            )
            for n in _worst(-differences[TOTAL], mistakes)
        ],
        rows=len(numbers),
        repeated=repeated,
        contradicted=contradicted,
        unlabelled=unlabelled,
        reason=scored.reason_unscored(),
    )


def read_pair(
    row: Row,
    file: str,
    number: int,
    *,
    prompt: str = "prompt",
    answers: tuple[str, str] = ("chosen", "rejected"),
) -> tuple[Any, list[Any]]:
    """The prompt of a row, and its two completions without it; an empty prompt of texts without one.

    Args:
        row: The row.
        file: Where it stands, for the error.
        number: Likewise, from 1.
        prompt: The column of the prompt.
        answers: The columns of the completions.

    Raises:
        DataError: One is missing, cannot be read, or the answers do not follow the prompt; names the row.
    """
    for column in answers:
        check_text(row, column, Path(file), number, named=" and ".join(answers))
    try:
        asked, said = aligned(row.get(prompt), [row[column] for column in answers])
    except ValueError as error:
        raise DataError(str(error), file=file, row=number) from None
    if asked is None and all(isinstance(answer, str) for answer in said):
        return "", said  # dialogues as text, such as hh-rlhf's
    if asked is None:
        one, other = answers
        raise DataError(
            f"has no {prompt!r}, and {one!r} and {other!r} share no message that would be it",
            file=file,
            row=number,
            hint=f"columns: {listed(row)}",
        )
    return asked, said


def _pair_metrics(
    difference_N: Array,
    lengths_N2: Array,
    groups_N: Indices,
    category_N: npt.NDArray[np.object_],
) -> PairMetrics:
    known_N = ~np.isnan(difference_N)
    difference_K, right_K, groups_K = difference_N[known_N], prefers_first(difference_N[known_N]), groups_N[known_N]
    everywhere_K = np.ones(len(right_K), dtype=np.bool_)
    return PairMetrics(
        accuracy=_share(right_K, everywhere_K, groups_K),
        at_equal_length=length_controlled(right_K, lengths_N2[known_N], groups_K, strength=WEAK_LENGTH_PENALTY),
        ties=int((difference_K == 0).sum()),
        calibration=calibrate(difference_K, np.ones(len(difference_K))) if len(difference_K) else None,
        by_category={
            name: _share(right_K, own, groups_K)
            for name in sorted(set(category_N.tolist()) - {""})
            if (own := category_N[known_N] == name).any()
        },
        unscored=int((~known_N).sum()),
    )


def prefers_first(difference_N: Array) -> Array:
    """1 where the chosen one is ahead, 0 where the rejected one is, 0.5 where they are equal, NaN where not scored."""
    right_N: Array = 0.5 * (1 + np.sign(difference_N))
    return right_N


def _same_preference(signs_RN: Array) -> Array:
    rewards = len(signs_RN)
    same_RR = np.full((rewards, rewards), np.nan)
    for one, other in itertools.product(range(rewards), repeat=2):
        product_N = signs_RN[one] * signs_RN[other]
        decided_N = np.abs(product_N) == 1
        if decided_N.any():
            same_RR[one, other] = (product_N[decided_N] > 0).mean()
    return same_RR


# --- both


def _contributions(
    scored: ScoredCompletions,
    metric: Callable[[Array], Statistic],
    groups_N: Indices,
) -> tuple[dict[str, Contribution], bool]:
    """What each reward adds to a metric of totals, and whether all sets of rewards were looked at."""
    players = scored.influential
    if len(players) < 2:
        return {}, True
    ones_N = np.ones(len(groups_N))
    values: dict[frozenset[str], float] = {frozenset(): 0.5}

    def value(kept: frozenset[str]) -> float:
        if kept not in values:
            found = metric(scored.totals(kept))(ones_N)
            values[kept] = 0.5 if math.isnan(found) else found
        return values[kept]

    exact = len(players) <= _EXACT_PLAYERS
    shapley = _exact_shapley(players, value) if exact else _sampled_shapley(players, value)
    whole = metric(scored.totals())
    found = {}
    for name in players:
        without = metric(scored.totals([other for other in players if other != name]))
        gained = bootstrap(partial(_gain, whole, without), groups_N)
        found[name] = Contribution(gained, shapley[name])
    return found, exact


def _gain(whole: Statistic, without: Statistic, weights_N: Array) -> float:
    return whole(weights_N) - without(weights_N)


def _exact_shapley(players: Sequence[str], value: Callable[[frozenset[str]], float]) -> dict[str, float]:
    size = len(players)
    found = dict.fromkeys(players, 0.0)
    for name in players:
        others = [other for other in players if other != name]
        for count in range(size):
            share = 1 / (size * math.comb(size - 1, count))
            for joined in map(frozenset, itertools.combinations(others, count)):
                found[name] += share * (value(joined | {name}) - value(joined))
    return found


def _sampled_shapley(players: Sequence[str], value: Callable[[frozenset[str]], float]) -> dict[str, float]:
    draw = np.random.default_rng(0)
    found = dict.fromkeys(players, 0.0)
    for _ in range(_ORDERS):
        joined: frozenset[str] = frozenset()
        for place in draw.permutation(len(players)).tolist():
            name = players[place]
            found[name] += (value(joined | {name}) - value(joined)) / _ORDERS
            joined |= {name}
    return found


def _mistake(scored: ScoredCompletions, row: int, margin: float, candidate: Candidate, **places: int) -> Mistake:
    explanations = {name: replace(scored.explain(place), row=row) for name, place in places.items()}
    return Mistake(row, margin, view(candidate.prompt, "transcript", role=USER), explanations)


def _worst(wrong_N: Array, count: int) -> list[int]:
    """Where the wrong side is ahead, by how much first."""
    order = np.argsort(-np.nan_to_num(wrong_N, nan=-np.inf), kind="stable")[:count]
    return [int(n) for n in order if wrong_N[n] > 0]


def _range(scored: ScoredCompletions, name: str) -> tuple[float, float] | None:
    return None if name == TOTAL else scored.components[name].oriented_range


def check_column(row: Row, column: str, file: str, number: int) -> None:
    """Check that a row has a column.

    Raises:
        DataError: It has not; names file and row.
    """
    if column not in row:
        hint = f"columns: {listed(row)}"
        raise DataError(f"has no column {column!r}", file=file, row=number, hint=hint)


def _groups(labels: Sequence[Hashable]) -> Indices:
    """What a bootstrap may not tear apart: rows of one label, or single rows where all have the same."""
    return encode_groups(labels) if len(set(labels)) > 1 else np.arange(len(labels))
