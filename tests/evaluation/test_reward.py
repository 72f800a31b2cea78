"""A reward against labels and pairs, with every completion scored once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import BatchError, Composer, DataError, reward
from rlaif_sdk.composer import Component, Constraint, Gate
from rlaif_sdk.composer.normalizers import GroupZScore, ZScore
from rlaif_sdk.evaluation import LabelMetrics, PairMetrics, evaluate_reward, run_benchmark, scored
from rlaif_sdk.reporting.evaluation_tables import counted_rows


def marks(completion_texts: list[str]) -> list[float]:
    return [float(text.count("!")) for text in completion_texts]


def length(completion_texts: list[str]) -> list[float]:
    return [float(len(text)) for text in completion_texts]


def silence(completion_texts: list[str]) -> list[float | None]:
    return [None if "?" in text else 1.0 for text in completion_texts]


def pair(chosen: str, rejected: str, prompt: str = "q", **columns: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **columns}


def labelled(*answers: tuple[str, Any], **columns: Any) -> list[dict[str, Any]]:
    return [{"prompt": "q", "completion": text, "good": value, **columns} for text, value in answers]


PAIRS = [
    pair("a!!", "b!", "q1", kind="x"),
    pair("a", "b!", "q2", kind="x"),
    pair("a!", "b!", "q3", kind="y"),
    pair("a!!!", "b", "q4", kind="y"),
]


def test_pairs_are_right_wrong_or_half() -> None:
    """Two of four are right, one is wrong, one ties; by category 1 of 2 and 1.5 of 2."""
    with Composer({"marks": marks}) as composer:
        found = evaluate_reward(composer, PAIRS, category="kind")
    total = found.metrics["total"]
    assert isinstance(total, PairMetrics)
    assert (total.accuracy.value, total.accuracy.n, total.ties) == (pytest.approx(2.5 / 4), 4, 1)
    assert {name: each.value for name, each in total.by_category.items()} == {"x": 0.5, "y": 0.75}
    assert total.calibration is not None
    assert found.metrics.keys() == {"total", "marks"}
    assert found.contributions == {}
    [mistake] = found.mistakes
    assert (mistake.row, mistake.margin, mistake.prompt) == (2, 1.0, "q2")
    assert {name: each.total for name, each in mistake.explanations.items()} == {"rejected": 1.0, "chosen": 0.0}
    json.dumps(found.record(), allow_nan=False)


def test_no_completion_is_scored_twice() -> None:
    """Leave-one-out, Shapley values and rows that stand twice ask no reward again."""
    asked: list[str] = []

    def noted(completion_texts: list[str]) -> list[float]:
        asked.extend(completion_texts)
        return marks(completion_texts)

    with Composer({"noted": noted, "length": length}) as composer:
        found = evaluate_reward(composer, [*PAIRS, *PAIRS, pair("b!", "a", "q2", kind="x")], category="kind")
    assert len(asked) == 8
    assert (found.rows, found.repeated, found.contradicted) == (5, 4, 1)


def test_pairs_of_one_prompt_are_drawn_together() -> None:
    """Four pairs that say the same of a prompt are worth no more than one: the interval is that of the prompts."""

    def right(number: int, prompt: str) -> dict[str, Any]:
        marked, plain = f"a{number}!", f"b{number}"
        return pair(marked, plain, prompt) if prompt in {"q0", "q1", "q2"} else pair(plain, marked, prompt)

    once = [right(0, f"q{prompt}") for prompt in range(6)]
    often = [right(number, f"q{prompt}") for prompt in range(6) for number in range(4)]
    with Composer({"marks": marks}) as composer:
        one, four = (evaluate_reward(composer, rows).metrics["total"].accuracy for rows in (once, often))  # type: ignore[union-attr]
    assert (four.value, four.low, four.high) == pytest.approx((one.value, one.low, one.high), abs=0.05)


def test_a_few_right_pairs_are_not_certain() -> None:
    """Every resample of five right pairs is right; Wilson's interval over five prompts is [0.57, 1]."""
    rows = [pair(f"a{n}!", f"b{n}", f"q{n}", kind="x") for n in range(5)]
    with Composer({"marks": marks}) as composer:
        found = evaluate_reward(composer, rows, category="kind").metrics["total"]
    for accuracy in (found.accuracy, found.by_category["x"]):  # type: ignore[union-attr]
        assert (accuracy.low, accuracy.high) == (pytest.approx(0.5655, abs=5e-5), 1)


def test_a_second_measurement_with_a_ledger_scores_nothing(tmp_path: Path) -> None:
    """What the ledger knows is not scored again, whatever is measured."""
    (tmp_path / "r.py").write_text(
        "from pathlib import Path\n\n\ndef marks(completion_texts):\n"
        "    with Path(__file__).with_name('asked').open('a') as asked:\n"
        "        asked.write('x' * len(completion_texts))\n"
        "    return [float(text.count('!')) for text in completion_texts]\n"
    )
    (tmp_path / "c.yaml").write_text("rewards:\n  marks: {use: './r.py:marks'}\nledger: {path: scores.sqlite}\n")
    for _ in range(2):
        with Composer.from_config(tmp_path / "c.yaml") as composer:
            evaluate_reward(composer, PAIRS)
            run_benchmark("pairs", PAIRS, composer)
    assert len((tmp_path / "asked").read_text()) == 8


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions to one prompt stay together, and a mistake is explained by its own numbers."""
    rows = [pair("a" + "!" * (n % 4), "b" + "!" * (n % 3), f"q{n % 5}") for n in range(20)]
    found = []
    for size in (1024, 3):
        monkeypatch.setattr(scored, "_CHUNK", size)
        with Composer({"marks": Component(marks, normalizer=GroupZScore())}) as composer:
            found.append(evaluate_reward(composer, rows).record())
    assert found[0]["mistakes"]
    assert found[0] == found[1]


def test_rows_that_differ_in_what_a_reward_reads_are_no_repetition() -> None:
    """The same answers beside another reference are another pair; another id is not."""

    def matches(completion_texts: list[str], reference: list[str]) -> list[float]:
        return [float(text == wanted) for text, wanted in zip(completion_texts, reference, strict=True)]

    rows = [
        pair("a", "b", reference="a", id=1),
        pair("a", "b", reference="b", id=2),
        pair("a", "b", reference="b", id=3),
    ]
    with Composer({"matches": matches}) as composer:
        found = evaluate_reward(composer, rows)
    assert (found.rows, found.repeated) == (2, 1)
    assert found.metrics["total"].accuracy.value == 0.5  # type: ignore[union-attr]


def test_one_completion_of_several_pairs_is_scored_once() -> None:
    """Whatever else stands in the rows, unless a reward reads it."""
    asked: list[str] = []

    def noted(completion_texts: list[str]) -> list[float]:
        asked.extend(completion_texts)
        return marks(completion_texts)

    with Composer({"noted": noted}) as composer:
        evaluate_reward(composer, [pair("a!", "b", id=1), pair("a!", "c", id=2)])
    assert sorted(asked) == ["a!", "b", "c"]


def test_a_pair_of_one_completion_with_itself_says_nothing() -> None:
    """It is no tie of the reward, and is counted apart."""
    with Composer({"marks": marks}) as composer:
        found = evaluate_reward(composer, [*PAIRS, pair("a", "a", "q9")])
    assert (found.rows, found.unlabelled) == (4, 1)
    assert counted_rows(found) == "4 rows; 1 has twice the same completion"


def test_a_reward_that_does_harm_has_a_negative_contribution() -> None:
    """Without `length` every pair would be right; the Shapley values add up to the accuracy less one half."""
    rows = [pair("a!" + "a" * n, "b" * (n + 4), f"q{n}") for n in range(30)]
    with Composer({"marks": marks, "length": length}) as composer:
        found = evaluate_reward(composer, rows)
    assert found.metrics["total"].accuracy.value == 0  # type: ignore[union-attr]
    harm, good = found.contributions["length"], found.contributions["marks"]
    assert (harm.leave_one_out.value, good.leave_one_out.value) == (-1, 0)
    assert harm.shapley + good.shapley == pytest.approx(0 - 0.5)
    assert (harm.shapley, good.shapley) == (pytest.approx((-0.5 - 1) / 2), pytest.approx((0.5 + 0) / 2))
    assert found.agreement_RR.tolist() == [[1, 0], [0, 1]]


def test_rewards_agree_on_the_pairs_that_both_decide() -> None:
    """A tie of one is no disagreement."""
    with Composer({"marks": marks, "again": marks}) as composer:
        assert evaluate_reward(composer, PAIRS).agreement_RR.tolist() == [[1, 1], [1, 1]]


def test_many_rewards_have_shapley_values_of_sampled_orders() -> None:
    """They still add up to the whole, and it is said."""
    rewards = {f"r{n}": marks for n in range(9)}
    with Composer(rewards) as composer:
        found = evaluate_reward(composer, PAIRS)
    assert not found.shapley_is_exact
    whole = found.metrics["total"].accuracy.value  # type: ignore[union-attr]
    assert sum(each.shapley for each in found.contributions.values()) == pytest.approx(whole - 0.5)


def test_a_gate_is_part_of_its_rewards_contribution() -> None:
    """A reward without a weight whose gate spoils the whole is found by leaving it out."""
    rows = [pair("a!!" + "a" * n, "b!" + "b" * n, f"q{n}") for n in range(9)]
    parts = {"marks": Component(marks), "length": Component(length, weight=0.0)}
    with Composer(parts, gates=[Gate("length", floor=-1.0, max=2.0)]) as composer:
        found = evaluate_reward(composer, rows)
    assert found.contributions["length"].leave_one_out.value == pytest.approx(1 / 18 - 0.5, abs=0.5)
    assert found.contributions["length"].leave_one_out.value < 0
    whole = found.metrics["total"].accuracy.value  # type: ignore[union-attr]
    assert found.contributions["marks"].leave_one_out.value == pytest.approx(whole - 0.5)


def test_a_reward_that_is_only_observed_contributes_nothing() -> None:
    """It is measured, and is no player; a reward that a constraint looks at is one."""
    parts = {"marks": Component(marks), "seen": Component(length, weight=0.0), "length": Component(length, weight=0.0)}
    with Composer(parts, constraints=[Constraint("length", max=1.0, initial=9.0)]) as composer:
        found = evaluate_reward(composer, PAIRS)
    assert found.metrics.keys() == {"total", *parts}
    assert found.contributions.keys() == {"marks", "length"}
    assert found.contributions["length"].leave_one_out.value != 0


def test_running_statistics_learn_from_the_table_and_leave_the_composer_as_it_was() -> None:
    """A fresh zscore would make every score 0; learned elsewhere and frozen, it stays."""
    part = Component(marks, normalizer=ZScore())
    with Composer({"marks": part}) as composer:
        found = evaluate_reward(composer, PAIRS)
        assert found.metrics["total"].accuracy.value == pytest.approx(2.5 / 4)  # type: ignore[union-attr]
        assert part.normalizer.state_dict()["count"] == 0
        frozen = evaluate_reward(composer, PAIRS, learn=False)
        assert frozen.metrics["total"].ties == 4  # type: ignore[union-attr]


def test_unscored_rows_are_counted_and_are_no_zeros() -> None:
    """The pair of an abstention is left out, with the reason."""
    rows = [pair("a", "b"), pair("what?", "b", "q2")]
    with Composer({"silence": silence}) as composer:
        found = evaluate_reward(composer, rows)
    total = found.metrics["total"]
    assert (total.unscored, total.accuracy.n) == (1, 1)  # type: ignore[union-attr]
    assert found.reason == "no reward with a weight has a score (silence: abstained)"


def test_an_unscored_pair_is_no_mistake_and_no_category() -> None:
    """Nor does it take the place of one; of many only the worst are told."""
    rows = [pair("what?", "b", "q0", kind="z"), *(pair("a", "b" + "!" * n, f"q{n}", kind="x") for n in (1, 3, 2))]
    with Composer(
        {"known": lambda completion_texts: [None if "?" in t else t.count("!") for t in completion_texts]}
    ) as c:
        found = evaluate_reward(c, rows, category="kind", mistakes=2)
    assert [(mistake.row, mistake.margin) for mistake in found.mistakes] == [(3, 3), (4, 2)]
    assert found.metrics["total"].by_category.keys() == {"x"}


def test_pairs_may_be_conversations_that_begin_with_their_prompt() -> None:
    """Only the policy's last words are scored."""
    asked = [{"role": "user", "content": "Why!!!"}]
    rows = [
        {
            "chosen": [*asked, {"role": "assistant", "content": "a!"}],
            "rejected": [*asked, {"role": "assistant", "content": "b"}],
        }
    ]
    with Composer({"marks": marks}) as composer:
        assert evaluate_reward(composer, rows).metrics["total"].accuracy.value == 1  # type: ignore[union-attr]


def test_dialogues_as_text_need_no_prompt() -> None:
    """Each row of such a table is about something of its own, for intervals and for normalizers within groups."""
    rows = [{"chosen": f"Human: {n}? Assistant: Yes!", "rejected": f"Human: {n}? Assistant: No."} for n in range(9)]
    rows.append({"chosen": "Assistant: No.", "rejected": "Assistant: Yes!!!"})
    with Composer({"marks": Component(marks, normalizer=GroupZScore())}) as composer:
        found = evaluate_reward(composer, rows)
    assert found.metrics["total"].accuracy.value == 0.9  # type: ignore[union-attr]
    assert found.metrics["total"].accuracy.low < 0.9  # type: ignore[union-attr]
    assert found.mistakes[0].margin == pytest.approx(2, abs=1e-6)


def test_length_is_taken_out_of_the_accuracy_and_nothing_is_drawn_to_one_half() -> None:
    """A reward that is right in 55% of 980 pairs of any length has that at equal length; one of length has half."""
    marked = [".!" if n % 20 < 11 else "!." for n in range(980)]
    rows = [pair("a" * (n % 7) + good[1], "b" * (n // 7 % 7) + good[0], f"q{n}") for n, good in enumerate(marked)]
    with Composer({"marks": marks, "length": length}) as composer:
        found = evaluate_reward(composer, rows)
    at_equal_length = {name: each.at_equal_length.value for name, each in found.metrics.items()}  # type: ignore[union-attr]
    assert at_equal_length["marks"] == pytest.approx(0.55, abs=0.02)
    assert at_equal_length["length"] == pytest.approx(0.5, abs=0.02)


def test_labels_have_an_area_a_threshold_and_errors_by_category() -> None:
    """Scores 3, 2 of good ones, 1, 2 of bad ones: 3.5 of 4 comparisons are right."""
    rows = [*labelled(("a!!!", True), ("b!!", 1), kind="x"), *labelled(("c!", "no"), ("d!!", False), kind="y")]
    with Composer({"marks": marks}) as composer:
        found = evaluate_reward(composer, rows, label="good", category="kind")
    total = found.metrics["total"]
    assert isinstance(total, LabelMetrics)
    assert total.auc.value == pytest.approx(3.5 / 4)
    assert total.average_precision.value == pytest.approx((1 + 2 / 3) / 2)
    assert total.threshold.value == 2.5
    assert (total.true_positives.value, total.false_positives.value) == (0.5, 0)
    assert total.by_category["x"].false_negatives.value == 0.5
    assert math.isnan(total.by_category["y"].auc.value)
    assert math.isnan(total.brier)  # the scores are no probabilities
    assert [mistake.row for mistake in found.mistakes] == [2]
    json.dumps(found.record(), allow_nan=False)


def test_a_row_counts_once_with_each_of_its_labels() -> None:
    """The same label again is a repetition; the other one contradicts it."""
    with Composer({"marks": marks}) as composer:
        found = evaluate_reward(composer, labelled(("a!", 1), ("a!", 1), ("a!", 0), ("b", 0)), label="good")
    assert (found.rows, found.repeated, found.annotators) == (3, 1, None)
    assert found.metrics["total"].auc.value == 0.75  # type: ignore[union-attr]


def test_scores_that_are_probabilities_have_a_brier_score() -> None:
    """By the reward's range."""

    @reward(range=(0, 1))
    def sure(completion_texts: list[str]) -> list[float]:
        return [0.9 if "!" in text else 0.3 for text in completion_texts]

    with Composer({"sure": sure}) as composer:
        found = evaluate_reward(composer, labelled(("a!", 1), ("b", 0)), label="good").metrics["sure"]
    assert isinstance(found, LabelMetrics)
    assert found.brier == pytest.approx((0.01 + 0.09) / 2)
    assert found.calibration is not None


def test_no_reward_sees_the_label() -> None:
    """It would only repeat it."""
    with Composer({"cheat": lambda completions, good: good}) as composer, pytest.raises(BatchError, match="good"):
        evaluate_reward(composer, labelled(("a!", 1), ("b", 0)), label="good")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (True, False),
        (1, 0),
        ("1", "0"),
        ("yes", "no"),
        ("TRUE", "False"),
        (1.0, 0.0),
        (0.8, 0.1),
        ([1, 1, 0], [0, 0, 1]),
    ],
)
def test_labels_of_every_usual_form_are_read(good: Any, bad: Any) -> None:
    """Bools, numbers, their texts, shares of annotators and lists of labels say the same."""
    with Composer({"marks": marks}) as composer:
        found = evaluate_reward(composer, labelled(("a!", good), ("b", bad)), label="good")
        turned = evaluate_reward(composer, labelled(("a!", bad), ("b", good)), label="good", good=False)
    assert found.metrics["total"].auc.value == turned.metrics["total"].auc.value == 1  # type: ignore[union-attr]


def test_a_table_of_comments_has_no_prompts_and_still_intervals() -> None:
    """Each row is drawn by itself, also where all rows have one prompt; another column of prompts must be there."""
    rows = [{"completion": f"{n}" + "!" * (n % 3), "good": n % 3 > n % 2} for n in range(60)]
    with Composer({"marks": marks}) as composer:
        without = evaluate_reward(composer, rows, label="good").metrics["total"]
        one_prompt = evaluate_reward(composer, [{**row, "prompt": "q"} for row in rows], label="good").metrics["total"]
        with pytest.raises(DataError, match="no column 'question'"):
            evaluate_reward(composer, rows, label="good", prompt="question")
    for found in (without, one_prompt):
        assert isinstance(found, LabelMetrics)
        assert found.auc.low < found.auc.value < found.auc.high


def test_labels_may_be_words_of_the_table() -> None:
    """`good` names the word."""
    with Composer({"marks": marks}) as composer:
        found = evaluate_reward(composer, labelled(("a!", "Not Toxic"), ("b", "Toxic")), label="good", good="Not Toxic")
        with pytest.raises(DataError, match="is no label"):
            evaluate_reward(composer, labelled(("a!", {"said": "Toxic"})), label="good", good="Not Toxic")
    assert found.metrics["total"].auc.value == 1  # type: ignore[union-attr]


def test_missing_and_undecided_labels_are_counted_and_annotators_agree_so_far() -> None:
    """Null, an empty text, NaN and one vote each are no labels."""
    rows = labelled(("a!", [1, 1]), ("b", [0, 0]), ("c", None), ("d", ""), ("e", [1, 0]), ("f", math.nan), ("g", []))
    with Composer({"marks": marks}) as composer:
        found = evaluate_reward(composer, rows, label="good")
    assert (found.rows, found.unlabelled) == (2, 5)
    assert counted_rows(found).startswith("2 rows; 5 have no label, or an undecided one")
    assert found.annotators is not None
    assert (found.annotators.n, found.annotators.value) == (3, pytest.approx((2 / 3 - 0.5) / 0.5))


@pytest.mark.parametrize("value", ["perhaps", 7, -1, {"good": 1}, [[1]], math.inf])
def test_what_is_no_label_is_refused_with_its_row(tmp_path: Path, value: Any) -> None:
    """Nothing is guessed, and no reward is asked."""
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in labelled(("a", 1), ("b", value))))
    with Composer({"marks": marks}) as composer, pytest.raises(DataError, match=r"t\.jsonl:2"):
        evaluate_reward(composer, table, label="good")


@pytest.mark.parametrize("rows", [[("a", 1), ("b", 1)], [("a", None)], []])
def test_one_class_by_itself_tells_nothing(rows: list[tuple[str, Any]]) -> None:
    """Constant labels, no label, no row: refused before anything is scored."""
    with Composer({"marks": marks}) as composer, pytest.raises(DataError, match="nothing to tell apart"):
        evaluate_reward(composer, labelled(*rows), label="good")


def test_rows_without_the_columns_are_named() -> None:
    """Of labels and of pairs."""
    with Composer({"marks": marks}) as composer:
        with pytest.raises(DataError, match="no column 'toxic'"):
            evaluate_reward(composer, labelled(("a", 1)), label="toxic")
        with pytest.raises(DataError, match="no column 'rejected'"):
            evaluate_reward(composer, [PAIRS[0], {"prompt": "q", "chosen": "a"}])
        with pytest.raises(DataError, match="no column 'section'"):
            evaluate_reward(composer, PAIRS, category="section")
        with pytest.raises(DataError, match="has no pairs"):
            evaluate_reward(composer, [pair("same", "same")])
        with pytest.raises(DataError, match="share no message"):
            evaluate_reward(composer, [{"chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}])


def test_a_few_rows_told_apart_are_not_certain_to_be() -> None:
    """Of the whole and of a category: every resample is told apart too, so a bootstrap alone would say [1, 1]."""
    rows = [{**row, "kind": "all"} for row in labelled(("a!", 1), ("b", 0), ("c!", 1), ("d", 0))]
    with Composer({"marks": marks}) as composer:
        total = evaluate_reward(composer, rows, label="good", category="kind").metrics["total"]
    assert isinstance(total, LabelMetrics)
    for auc in (total.auc, total.by_category["all"].auc):
        assert (auc.value, auc.high) == (1, pytest.approx(1))
        assert 0.2 < auc.low < 0.6
    assert math.isnan(total.average_precision.low)


def test_equal_scores_for_everything_are_chance() -> None:
    """A reward that says one number is right half the time, and has no mistakes to explain."""
    rows = labelled(("a", 1), ("b", 0), ("c", 1))
    with Composer({"same": lambda completion_texts: [1.0] * len(completion_texts)}) as composer:
        found = evaluate_reward(composer, rows, label="good")
    assert found.metrics["total"].auc.value == 0.5  # type: ignore[union-attr]
    assert math.isnan(found.agreement_RR[0, 0])
