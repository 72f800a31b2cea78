"""Labels, policies and rewards evaluated from files, as `rlaif label` and `rlaif score` leave and take them."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import Composer, ConfigError, DataError
from rlaif_sdk.evaluation import evaluate_answers, evaluate_labels, judge_policies, rank_policies, read_labels, win_rate
from rlaif_sdk.judges import Usage
from rlaif_sdk.judges.pairwise import labelled
from rlaif_sdk.preferences.review import ReviewStore, export_review
from rlaif_sdk.preferences.tables import labelled_row
from rlaif_sdk.testing import FixedReward
from tests.judges.conftest import JudgeServer, letters


def label_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Labels as `rlaif label` writes them, from (when first, when second) and other columns."""
    lines = []
    for number, given in enumerate(rows):
        row = dict(given)
        orders = row.pop("orders")
        usage = Usage(calls=len(orders), input_tokens=100, output_tokens=len(orders), cost=0.5)
        label = labelled(orders, usage=usage, hard=row.pop("hard", False)).record()
        texts = [row.pop(name, f"{name} {number}") for name in ("prompt", "response_1", "response_2")]
        lines.append(json.dumps({**labelled_row(*texts, label, "judge"), **row}) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Six labels: 1, 1 (people 2), 2, tie (people 1), flipped to the first place (people tie), 2 without people."""
    return label_file(
        tmp_path / "labels.jsonl",
        [
            {"orders": [0.9, 0.8], "human": 1},
            {"orders": [0.7, 0.8], "human": "2"},
            {"orders": [0.2, 0.1], "human": 2},
            {"orders": [0.75, 0.25], "human": "1"},
            {"orders": [0.9, 0.2], "human": "tie"},
            {"orders": [0.4, 0.3], "human": None},
        ],
    )


def test_alignment_counts_decided_pairs_and_ties_of_the_ai_half(labels: Path) -> None:
    """Right, wrong, right, tie: 2.5 of 4; people's ties and the pair without a human label are left out."""
    found = evaluate_labels(labels, human="human").alignment
    assert found is not None
    assert (found.accuracy.value, found.accuracy.n) == (pytest.approx(2.5 / 4), 4)
    assert found.when_first is not None
    assert found.when_first.value == pytest.approx(3 / 4)
    assert found.when_second is not None
    assert found.when_second.value == pytest.approx(2 / 4)
    assert (found.human_ties, found.without_human) == (1, 1)
    assert found.counts == [[1, 1, 1], [0, 1, 0], [1, 0, 0]]
    assert found.kappa.n == 5


def test_a_judge_that_always_says_1_has_no_kappa(tmp_path: Path) -> None:
    """It is right in 70% of the pairs by habit: 0, as scikit-learn has it; the symmetric kappa is another number."""
    rows = [{"orders": [0.9, 0.9], "human": 1 if row % 10 < 7 else 2} for row in range(40)]
    found = evaluate_labels(label_file(tmp_path / "l.jsonl", rows), human="human").alignment
    assert found is not None
    assert found.kappa.value == pytest.approx(0, abs=1e-12)
    assert found.symmetric_kappa.value == pytest.approx(0.4)
    assert found.record()["symmetric_kappa"]["value"] == pytest.approx(0.4)


def test_the_symmetric_kappa_does_not_depend_on_which_response_is_number_1(tmp_path: Path) -> None:
    """Where people's choice is always number 1, a judge that agrees in nine of ten is no better or worse for it."""
    agrees = [{"orders": [0.9, 0.9] if row % 10 else [0.1, 0.1], "human": 1} for row in range(40)]
    mixed = [
        {"orders": [1 - prob for prob in row["orders"]], "human": 2} if number % 2 else row
        for number, row in enumerate(agrees)
    ]
    always = evaluate_labels(label_file(tmp_path / "always.jsonl", agrees), human="human").alignment
    either = evaluate_labels(label_file(tmp_path / "either.jsonl", mixed), human="human").alignment
    assert always is not None
    assert either is not None
    one, other = always.symmetric_kappa, either.symmetric_kappa
    assert one.value == pytest.approx(0.8)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert 0.4 < one.low < 0.8 < one.high
    assert (always.kappa.value, either.kappa.value) == (pytest.approx(0), pytest.approx(0.8))


def test_accuracies_of_other_benchmarks_stand_beside_the_alignment(labels: Path) -> None:
    """Of 1/1, 1/2, 2/2, tie/1 and 1/tie three classes agree in 2 of 5; both orders together are right in 2 of 4."""
    found = evaluate_labels(labels, human="human").alignment
    assert found is not None
    assert (found.three_class.value, found.three_class.n) == (pytest.approx(2 / 5), 5)
    assert (found.strict.value, found.strict.n) == (pytest.approx(2 / 4), 4)
    assert found.brier == pytest.approx((0.15**2 + 0.75**2 + 0.15**2 + 0.5**2) / 4)
    assert (found.auc.value, found.auc.n) == (pytest.approx(3 / 4), 4)


def test_a_verdict_and_a_tie_are_right_and_two_opposite_verdicts_are_not(tmp_path: Path) -> None:
    """JudgeBench counts 1 for the right response, -1 for the other, 0 for a tie."""
    orders = [[0.9, 0.5], [0.9, 0.1], [0.5, 0.5], [0.1, 0.5]]
    path = label_file(tmp_path / "l.jsonl", [{"orders": pair, "human": 1} for pair in orders])
    found = evaluate_labels(path, human="human").alignment
    assert found is not None
    assert found.strict.value == pytest.approx(1 / 4)


def test_several_annotators_are_a_majority_and_their_agreement_is_told(tmp_path: Path) -> None:
    """Two of three decide, one each is a tie, null is nobody; Fleiss's kappa is over the pairs with two or more."""
    votes = [[1, 1, 2], ["2", 2, None], [1, 2], [None], None, [1, 1, 1]]
    path = label_file(tmp_path / "l.jsonl", [{"orders": [0.9], "human": value} for value in votes])
    found = evaluate_labels(path, human="human").alignment
    assert found is not None
    assert (found.accuracy.value, found.accuracy.n) == (pytest.approx(2 / 3), 3)
    assert (found.human_ties, found.without_human) == (1, 2)
    assert found.annotators is not None
    assert found.annotators.n == 4
    agreeing, said = (1 / 3 + 1 + 0 + 1) / 4, (6 / 10) ** 2 + (4 / 10) ** 2
    assert found.annotators.value == pytest.approx((agreeing - said) / (1 - said))


def test_pairs_that_people_alone_labelled_have_a_winner_and_no_label_to_evaluate(tmp_path: Path) -> None:
    """A review of pairs without a judge tells who wins; there is no judge whose labels could be measured."""
    pair = {"prompt": "q", "chosen": "b", "rejected": "a", "chosen_prob": 1.0, "chosen_response": 2}
    path = tmp_path / "reviewed.jsonl"
    path.write_text(json.dumps({**pair, "human_prob_1": 0.0, "source": "human"}) + "\n")
    found = win_rate(path)
    assert (found.wins, found.losses, found.ties) == (0, 1, 0)
    with pytest.raises(DataError, match="no labels of a judge"):
        evaluate_labels(path)


def reviewed(folder: Path, *files: Path, **verdicts: str) -> Path:
    """The export of a review of these files; verdicts by prompt."""
    with closing(ReviewStore(folder / "review.sqlite")) as store:
        store.add(files)
        for pair, _ in list(store.results()):
            if pair.prompt in verdicts:
                store.judge("ana", pair.id, verdicts[pair.prompt])
        export_review(store, folder / "reviewed.jsonl")
    return folder / "reviewed.jsonl"


def test_after_a_review_of_two_judges_their_mean_is_the_label(tmp_path: Path) -> None:
    """The first judge's ties are none if the other decides, two opposite labels are one, and the export agrees."""
    first, second = ([0.5], [0.6], [0.9]), ([0.9], [0.4], [0.3])
    texts = [{"prompt": f"q{row}", "response_1": "one", "response_2": "two"} for row in range(3)]
    files = [
        label_file(
            tmp_path / f"{name}.jsonl", [{**text, "orders": one} for text, one in zip(texts, orders, strict=True)]
        )
        for name, orders in (("a", first), ("b", second))
    ]
    export = reviewed(tmp_path, *files, q2="1")
    table = read_labels(export)
    assert table.prob_1_N == pytest.approx([0.7, 0.5, 0.6])
    assert table.tie_N.tolist() == [False, True, False]
    assert table.outcomes_N.tolist() == [1, 0.5, 1]
    assert evaluate_labels(export).ties == 1


def test_judges_that_label_bare_pairs_in_a_review_are_evaluated(tmp_path: Path) -> None:
    """Where the first file of a review has pairs without labels, those of the second are the judge's."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"prompt": f"q{row}", "chosen": "one", "rejected": "two"}) + "\n" for row in (0, 1))
    )
    rows = [{"prompt": f"q{row}", "response_1": "one", "response_2": "two", "orders": [0.8]} for row in (0, 1)]
    found = evaluate_labels(reviewed(tmp_path, pairs, label_file(tmp_path / "labels.jsonl", rows), q0="2"))
    assert found.labels == 2
    assert found.alignment is not None
    assert (found.alignment.accuracy.value, found.alignment.without_human) == (0, 1)


def test_a_tie_within_a_judges_margin_is_a_tie_after_a_review(tmp_path: Path) -> None:
    """0.55 is a tie to a judge with a margin of 0.1; a review with no other judge leaves it one."""
    path = label_file(tmp_path / "l.jsonl", [{"orders": [0.55]}])
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie": True}) + "\n")
    assert evaluate_labels(reviewed(tmp_path, path)).ties == evaluate_labels(path).ties == 1


def test_position_bias_says_how_often_which_place_decided(labels: Path) -> None:
    """Two of six flip, both to the first place; the probability rises by the mean difference of the orders."""
    found = evaluate_labels(labels)
    assert found.flip_rate is not None
    assert (found.flip_rate.value, found.flip_rate.n) == (pytest.approx(2 / 6), 6)
    assert found.first_wins is not None
    assert found.second_wins is not None
    assert (found.first_wins.value, found.second_wins.value) == (pytest.approx(2 / 6), 0)
    assert found.place_effect is not None
    assert found.place_effect.value == pytest.approx((0.1 - 0.1 + 0.1 + 0.5 + 0.7 + 0.1) / 6)
    assert found.alignment is None


def test_calibration_compares_soft_labels_with_people(labels: Path, tmp_path: Path) -> None:
    """Five soft labels have a human one; hard labels are no probabilities and are left out."""
    found = evaluate_labels(labels, human="human").alignment
    assert found is not None
    assert found.calibration is not None
    assert found.calibration.pairs == 5
    certain = label_file(tmp_path / "certain.jsonl", [{"orders": [1.0, 1.0], "human": 1}] * 3)
    sure = evaluate_labels(certain, human="human").alignment
    assert sure is not None
    assert sure.calibration is not None
    assert sure.calibration.error == pytest.approx(0, abs=1e-9)
    hard = label_file(tmp_path / "hard.jsonl", [{"orders": [1.0, 1.0], "human": 1, "hard": True}])
    verdicts = evaluate_labels(hard, human="human").alignment
    assert verdicts is not None
    assert verdicts.calibration is None


def test_cost_and_tokens_are_those_of_a_label(labels: Path) -> None:
    """0.5 a label, 102 tokens; the record is JSON without NaN."""
    found = evaluate_labels(labels, human="human")
    assert found.cost_per_label == pytest.approx(0.5)
    assert found.record()["tokens_per_label"] == pytest.approx(102)
    json.dumps(found.record(), allow_nan=False)


@pytest.mark.parametrize("value", [True, 0, 3, "first", 0.7, [True], ["1", "first"], {"1": 1}])
def test_what_people_prefer_is_checked(tmp_path: Path, value: Any) -> None:
    """Anything but 1, 2, tie, null and lists of these is refused with its row, never guessed."""
    path = label_file(tmp_path / "l.jsonl", [{"orders": [0.9], "human": 1}, {"orders": [0.9], "human": value}])
    with pytest.raises(DataError, match=r"l\.jsonl:2.*1, 2, 'tie' or null"):
        evaluate_labels(path, human="human")


def test_a_row_is_named_by_its_place_in_the_file_after_edits_too(tmp_path: Path) -> None:
    """An export's edits are rows that no label is read from; what comes behind one keeps its number."""
    row = {"orders": [0.9], "human": 1, "a": "new", "b": "old"}
    path = label_file(tmp_path / "l.jsonl", [row, row, {**row, "human": "first", "b": "new"}])
    lines = path.read_text().splitlines()
    edit = json.dumps({"prompt": "prompt 0", "chosen": "edited", "rejected": "x", "source": "human-edit"})
    path.write_text("\n".join([lines[0], edit, *lines[1:]]) + "\n")
    with pytest.raises(DataError, match=r"l\.jsonl:4"):
        evaluate_labels(path, human="human")
    with pytest.raises(DataError, match=r"l\.jsonl:4: 'new' plays against itself"):
        rank_policies(path, columns=("a", "b"))


def test_a_table_that_is_no_label_is_refused(tmp_path: Path) -> None:
    """The row and what is missing are named, as is a human column that is not there."""
    (tmp_path / "x.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:1: is no label: there is no 'chosen'"):
        evaluate_labels(tmp_path / "x.jsonl")
    path = label_file(tmp_path / "l.jsonl", [{"orders": [0.9]}])
    with pytest.raises(DataError, match="no column 'human'"):
        evaluate_labels(path, human="human")


def test_one_order_says_nothing_of_position(tmp_path: Path) -> None:
    """Where one order was asked there is no flip rate, rather than one of 0."""
    found = evaluate_labels(label_file(tmp_path / "l.jsonl", [{"orders": [0.9]}]))
    assert found.flip_rate is None
    assert found.place_effect is None


def test_the_win_rate_is_of_response_1_with_ties_half(tmp_path: Path) -> None:
    """Three wins, one loss, one tie of five; lengths go with the responses, whichever was chosen."""
    orders = [[0.9, 0.9], [0.8, 0.8], [0.7, 0.9], [0.2, 0.4], [0.5, 0.5]]
    lengths = (10, 11, 40, 13, 14)
    rows = [
        {"orders": pair, "response_1": "x" * 30, "response_2": "y" * length}
        for pair, length in zip(orders, lengths, strict=True)
    ]
    found = win_rate(label_file(tmp_path / "l.jsonl", rows), ("new", "old"))
    assert (found.wins, found.losses, found.ties) == (3, 1, 1)
    assert found.rate.value == pytest.approx(0.7)
    assert found.probability.value == pytest.approx((0.9 + 0.8 + 0.8 + 0.3 + 0.5) / 5)
    assert found.mean_lengths == (30, pytest.approx(17.6))
    assert 0 < found.length_controlled.low < found.length_controlled.high < 1
    assert found.length_overlap == pytest.approx(0.2)
    json.dumps(found.record(), allow_nan=False)


def test_policies_of_other_lengths_have_no_win_rate_at_equal_length(tmp_path: Path) -> None:
    """One always writes more: nothing is extrapolated, and the overlap says why."""
    rows = [{"orders": [0.8], "response_1": "x" * 30, "response_2": "y" * (n + 1)} for n in range(20)]
    found = win_rate(label_file(tmp_path / "l.jsonl", rows))
    assert math.isnan(found.length_controlled.value)
    assert math.isnan(found.length_controlled_by_ratio.value)
    assert not found.lengths_overlap
    assert found.record()["length_controlled"]["value"] is None


def test_the_difficulty_of_instructions_is_taken_from_the_table(tmp_path: Path) -> None:
    """Every row has AlpacaEval's column, or it plays no part; what is no number is refused with its row."""
    rows = [
        {
            "orders": [0.2 + 0.06 * n],
            "response_1": "x" * (9 + n % 3),
            "response_2": "y" * 10,
            "instruction_difficulty": n,
        }
        for n in range(12)
    ]
    with_it = win_rate(label_file(tmp_path / "with.jsonl", rows))
    without = win_rate(
        label_file(tmp_path / "without.jsonl", [*rows[:-1], {**rows[-1], "instruction_difficulty": None}])
    )
    assert with_it.length_controlled.value != without.length_controlled.value
    odd = label_file(tmp_path / "odd.jsonl", [*rows[:-1], {**rows[-1], "instruction_difficulty": "hard"}])
    with pytest.raises(DataError, match=r"odd\.jsonl:12.*instruction_difficulty must be a number"):
        win_rate(odd)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A judge that prefers the longer response, asked over HTTP."""
    monkeypatch.setenv("NO_PROXY", "*")
    server = JudgeServer()

    def answer(_: int, sent: dict[str, Any]) -> Any:
        text = sent["messages"][0]["content"]
        if "<response_1>" not in text:  # the probe
            return 200, {}, letters({"1": -0.1, "2": -3.0}, "1")
        first, second = (text.split(f"<response_{n}>\n")[1].split("\n</response")[0] for n in (1, 2))
        better = "1" if len(first) > len(second) else "2"
        return 200, {}, letters({better: -0.1, "12".replace(better, ""): -3.0}, better)

    server.answer = answer
    yield {"judge": {"model": "m", "base_url": server.url}}, server
    server.close()


def policies(folder: Path, **lengths: int) -> list[Path]:
    """Tables of completions of so many words, in different orders of the prompts."""
    files = []
    for turn, (name, words) in enumerate(lengths.items()):
        rows = [{"prompt": f"q{n}", "completion": f"{name} " + "word " * words} for n in range(4)]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in (rows[::-1] if turn else rows)))
        files.append(path)
    return files


def test_a_judge_ranks_policies_on_their_common_prompts(tmp_path: Path, judge: Any) -> None:
    """Every two meet on every prompt, whatever the order of the rows; the longest wins all, with finite strength."""
    config, server = judge
    files = policies(tmp_path, short=1, long=9, middle=4)
    labels = judge_policies(files, config, tmp_path / "out").labels
    found = rank_policies(labels)
    assert [each.policy for each in found.policies] == ["long", "middle", "short"]
    assert [each.games for each in found.policies] == [8, 8, 8]
    assert [each.win_rate.value for each in found.policies] == [1, 0.5, 0]
    assert found.policies[0].strength.value > found.policies[1].strength.value > found.policies[2].strength.value
    assert (found.undefeated, found.winless) == (("long",), ("short",))
    assert found.policies[0].strength.high == math.inf
    assert found.policies[2].strength.low == -math.inf
    assert found.compared_sets == (("short", "long", "middle"),)
    assert math.isnan(found.win_rates()[0][0])
    assert found.win_rates()[0][1:] == [1, 1]
    json.dumps(found.record(), allow_nan=False)
    asked = len(server.requests)
    judge_policies(files, config, tmp_path / "out")
    assert len(server.requests) == asked  # everything was known


def test_policies_must_have_answered_the_same_prompts(tmp_path: Path, judge: Any) -> None:
    """A prompt that one lacks would make the comparison one of prompts: it is named."""
    one, two = policies(tmp_path, one=1, two=2)
    two.write_text(two.read_text().replace("q3", "other"))
    with pytest.raises(DataError, match=r'have different prompts: the prompt "other" is only in \S+two.jsonl'):
        judge_policies([one, two], judge[0], tmp_path / "out")
    two.write_text(one.read_text() + one.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"is more often in \S+two.jsonl"):
        judge_policies([one, two], judge[0], tmp_path / "out")
    with pytest.raises(ConfigError, match="2 policies need as many different names"):
        judge_policies([one, one], judge[0], tmp_path / "out")


def test_a_ranking_needs_to_know_whose_the_responses_are(tmp_path: Path) -> None:
    """Names are text, and nobody plays against himself."""
    rows = [{"orders": [0.9], "policy_1": "a", "policy_2": "a"}]
    with pytest.raises(DataError, match="plays against itself"):
        rank_policies(label_file(tmp_path / "l.jsonl", rows))
    with pytest.raises(DataError, match="no column 'policy_1'"):
        rank_policies(label_file(tmp_path / "m.jsonl", [{"orders": [0.9]}]))


def completions(path: Path, texts: list[str]) -> Path:
    rows = [{"prompt": f"q{n}", "completion": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def composer() -> Composer:
    """Scores a number by itself; costs are lower the better."""
    value = lambda prompts, completions, **_: [None if c == "none" else float(c) for c in completions]  # noqa: E731
    cost = FixedReward(0.0, higher_is_better=False)
    cost.score = lambda batch: [float(c) if c != "none" else None for c in batch.completion_texts]  # type: ignore[method-assign]
    return Composer({"harmless": value, "cost": cost})


def test_rewards_before_and_after_are_paired_over_the_prompts(tmp_path: Path) -> None:
    """Both rose by 1 on every prompt: the change has no spread though the scores have; an unscored row has no part."""
    before = completions(tmp_path / "before.jsonl", ["0", "10", "20", "none"])
    after = completions(tmp_path / "after.jsonl", ["1", "11", "21", "5"])
    with composer() as scorer:
        found = evaluate_answers([before, after], scorer, thresholds={"harmless": 10, "cost": 10})
    measure = found["harmless"]
    assert measure.before.value == pytest.approx(10)
    assert measure.change is not None
    assert (measure.change.value, measure.change.n) == (pytest.approx(1), 3)
    assert measure.change.high - measure.change.low == pytest.approx(0, abs=1e-9)
    assert [share.value for share in measure.passed] == [pytest.approx(2 / 3), pytest.approx(2 / 4)]
    assert measure.unscored == (1, 0)
    assert [share.value for share in found["cost"].passed] == [pytest.approx(2 / 3), pytest.approx(2 / 4)]
    assert found["cost"].passed_change is not None
    assert found["cost"].passed_change.value == pytest.approx(-1 / 3)
    assert (found["cost"].passed_change.low, found["cost"].passed_change.high) == (-1, 1)  # of shares, not beyond
    json.dumps([m.record() for m in found.values()], allow_nan=False)


def test_tables_before_and_after_have_the_same_prompts(tmp_path: Path) -> None:
    """Rows of different prompts are no pairs; a threshold names a reward that is there."""
    before = completions(tmp_path / "before.jsonl", ["0", "1"])
    after = completions(tmp_path / "after.jsonl", ["0", "1"])
    after.write_text(after.read_text().replace("q1", "q2"))
    with composer() as scorer:
        with pytest.raises(DataError, match=r"after\.jsonl:2: has another prompt"):
            evaluate_answers([before, after], scorer)
        with pytest.raises(ConfigError, match="no reward 'toxicity'"):
            evaluate_answers([before], scorer, thresholds={"toxicity": 0.5})


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("chosen", True, "'chosen' cannot be read"),
        ("rejected", 1, "'rejected' cannot be read"),
        ("chosen_response", True, "chosen_response must be 1 or 2, not True"),
        ("prob_1_when_first", "0.5", "prob_1_when_first must be a probability"),
        ("usage", [1], "usage must be an object"),
        ("human", True, "what people prefer is 1, 2"),
        ("human", [True], "what people prefer is 1, 2"),
    ],
)
def test_a_label_of_a_wrong_kind_is_named_by_file_and_row(
    tmp_path: Path, column: str, value: Any, problem: str
) -> None:
    """A JSON bool is no text, number or place; nor does any other value end in a traceback."""
    file = label_file(tmp_path / "labels.jsonl", [{"orders": [0.9, 0.8], "human": 1}] * 2)
    first, second = file.read_text().splitlines()
    file.write_text(f"{first}\n{json.dumps({**json.loads(second), column: value})}\n")
    with pytest.raises(DataError) as caught:
        evaluate_labels(file, human="human")
    assert problem in str(caught.value)
    assert (caught.value.file, caught.value.row) == (str(file), 2)
