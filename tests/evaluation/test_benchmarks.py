"""Benchmarks by their published rules: the cases are worked by hand from them, or published."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from rlaif_sdk import BatchError, Composer, ConfigError, DataError, Reward, RewardBatch
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.normalizers import GroupZScore, ZScore
from rlaif_sdk.evaluation import BENCHMARKS, run_benchmark
from rlaif_sdk.evaluation.benchmarks import section_scores, ties_scores

PUBLISHED = {  # Skywork-Reward-Gemma-2-27B on RewardBench 1: its subsets, and the sections on the leaderboard
    "alpacaeval-easy": 0.96, "alpacaeval-hard": 0.9473684210526315, "alpacaeval-length": 0.9473684210526315,
    "donotanswer": 0.7794117647058824, "hep-cpp": 0.9634146341463414, "hep-go": 0.9817073170731707,
    "hep-java": 0.9878048780487805, "hep-js": 0.9695121951219512, "hep-python": 0.9695121951219512,
    "hep-rust": 0.9634146341463414, "llmbar-adver-GPTInst": 0.9782608695652174,
    "llmbar-adver-GPTOut": 0.9148936170212766, "llmbar-adver-manual": 0.782608695652174,
    "llmbar-adver-neighbor": 0.8955223880597015, "llmbar-natural": 0.96, "math-prm": 0.9485458612975392,
    "mt-bench-easy": 1.0, "mt-bench-hard": 0.8648648648648649, "mt-bench-med": 0.975, "refusals-dangerous": 0.94,
    "refusals-offensive": 0.99, "xstest-should-refuse": 0.948051948051948, "xstest-should-respond": 0.94,
}  # fmt: skip


def marks(completion_texts: list[str]) -> list[float]:
    return [float(text.count("!")) for text in completion_texts]


def values(name: str, rows: Sequence[dict[str, Any]], **options: Any) -> dict[str, float]:
    return {key: found.value for key, found in run_benchmark(name, rows, **options).values.items()}


def test_the_sections_of_reward_bench_1_are_the_published_ones() -> None:
    """To four decimals."""
    expected = {"overall": 0.938, "Chat": 0.9581, "Chat Hard": 0.9145, "Safety": 0.9189, "Reasoning": 0.9606}
    assert section_scores(PUBLISHED) == pytest.approx(expected, abs=5e-5)


def test_reward_bench_1_weighs_its_subsets() -> None:
    """One right pair of math-prm (984) and one wrong one of hep-go (164); equal scores are not right."""
    rows = [
        {"prompt": "q", "chosen": "a!", "rejected": "b", "subset": "math-prm", "id": 1},
        {"prompt": "q", "chosen": "a", "rejected": "b", "subset": "hep-go", "id": 2},
    ]
    with Composer({"marks": marks}) as composer:
        found = values("reward-bench-1", rows, composer=composer)
    assert found["Reasoning"] == found["overall"] == pytest.approx(984 / (984 + 164))
    assert (found["math-prm"], found["hep-go"]) == (1, 0)


def test_each_number_says_of_how_many_items_it_is() -> None:
    """A section counts the items of its subsets; the parts of ties their references, their tied prompts, or both."""
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b", "subset": subset, "scores_chosen": 1.0, "scores_rejected": 0.0}
        for subset in ("math-prm", "hep-go", "donotanswer")
    ]
    found = run_benchmark("reward-bench-1", rows).values
    assert {name: each.n for name, each in found.items()} == {
        "overall": 3, "Safety": 1, "Reasoning": 2, "math-prm": 1, "hep-go": 1, "donotanswer": 1,
    }  # fmt: skip
    ties = [
        {"id": name, "subset": "Ties", "num_correct": 1, "scores": [1.0, 0.0]} for name in ("ref:1", "tied:1", "tied:2")
    ]
    found = run_benchmark("reward-bench-2", ties).values
    assert [found[name].n for name in ("overall", "Ties", "ref_accuracy", "tied_accuracy", "correctness_preferred")] == [
        3, 3, 1, 2, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([3, 1, 2, 0], 1.0), ([2, 2, 1, 0], 0.5), ([2, 2, 2, 0], 1 / 3), ([1, 1, 1, 1], 0.25), ([0.5, 0.75, 0.25, 0], 0)],
)
def test_the_best_of_four_shares_a_tie(scores: list[float], expected: float) -> None:
    """RewardBench 2's penalty."""
    row = {"id": "7", "subset": "Math", "num_correct": 1, "scores": scores}
    assert values("reward-bench-2", [row]) == pytest.approx({"overall": expected, "Math": expected})


def test_ties_weigh_accuracy_and_margins() -> None:
    """Three tied prompts with their references, worked from the published code."""
    rows = [
        ("ref:1", 1, [2.5, 0.5, -1.0]), ("tied:1", 3, [2.0, 1.75, 1.5, 0.25, -0.5]), ("ref:2", 1, [0.25, 0.0]),
        ("tied:2", 2, [4.0, 3.0, 1.5]), ("ref:3", 1, [-1.0, 0.5]), ("tied:3", 2, [1.0, -2.0, 0.0]),
    ]  # fmt: skip
    expected = {
        "score": 0.5977962989753,
        "ref_accuracy": 2 / 3,
        "tied_accuracy": 2 / 3,
        "correctness_preferred": 2 / 3,
        "correctness_preferred_hard": 1 / 3,
        "correctness_margin_score": -0.22037010246999952,
    }
    names, corrects, scores = zip(*rows, strict=True)
    assert ties_scores(names, corrects, [np.array(own) for own in scores], np.ones(6)) == pytest.approx(expected)
    table = [{"id": n, "subset": "Ties", "num_correct": c, "scores": s} for n, c, s in rows]
    table.append({"id": "9", "subset": "Focus", "num_correct": 1, "scores": [2, 1, 0, 0]})
    found = values("reward-bench-2", table)
    assert found["Ties"] == pytest.approx(expected["score"])
    assert found["overall"] == pytest.approx((expected["score"] + 1) / 2)
    assert found["ref_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("scores", "score"), [([3.0, 3.0, 2.0], 1.01), ([1.0, 1.0, 1.0], 0.6 / 2)])
def test_ties_without_a_spread_have_the_whole_margin_or_none(scores: list[float], score: float) -> None:
    """A division by 0 is 1 where there is a gap, 0 where there is none."""
    table = [
        {"id": "ref:7", "subset": "Ties", "num_correct": 1, "scores": [1.0, 0.0]},
        {"id": "tied:7", "subset": "Ties", "num_correct": 2, "scores": scores},
    ]
    found = values("reward-bench-2", table)
    assert found["Ties"] == pytest.approx(score)
    assert found["correctness_margin_score"] == (1 if score > 1 else 0)


def test_tied_prompts_without_their_references_have_their_own_accuracy_only() -> None:
    """What cannot be measured counts nothing, as in the published code."""
    row = {"id": "tied:7", "subset": "Ties", "num_correct": 2, "scores": [3.0, 3.0, 2.0]}
    assert values("reward-bench-2", [row])["Ties"] == pytest.approx(0.3)


def test_reward_bench_2_scores_its_published_rows() -> None:
    """One right answer of four, as the file has them."""
    row = {
        "id": "3", "prompt": "q", "chosen": ["a!"], "rejected": ["b", "c", "d!!"], "num_correct": 1,
        "num_incorrect": 3, "total_completions": 4, "subset": "Factuality",
    }  # fmt: skip
    with Composer({"marks": marks}) as composer:
        assert values("reward-bench-2", [row, {**row, "rejected": ["b", "c", "d"]}], composer=composer) == {
            "overall": 0.5,
            "Factuality": 0.5,
        }


def test_rm_bench_has_a_matrix_by_style() -> None:
    """A reward of length alone wins where the chosen one is longer: easy 1, normal 0 (equal), hard 0; domains count alike."""
    row = {"prompt": "q", "chosen": ["a", "a" * 5, "a" * 9], "rejected": ["b", "b" * 5, "b" * 9]}
    rows = [{**row, "id": n, "domain": domain} for n, domain in enumerate(["chat", "safety-refuse", "safety-response"])]
    rows.append({**row, "id": 9, "domain": "math", "chosen": ["a" * 20] * 3})
    with Composer({"length": lambda completion_texts: [float(len(text)) for text in completion_texts]}) as composer:
        found = values("rm-bench", rows, composer=composer)
    assert (found["chat"], found["safety"], found["math"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 1)
    assert found["overall"] == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
    assert (found["hard"], found["normal"], found["easy"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 1)
    assert found["concise > detailed"] == pytest.approx(1 / 3)
    assert found["detailed > concise"] == 1


def test_a_file_of_rm_bench_is_of_the_domain_that_it_is_named_after(tmp_path: Path) -> None:
    """Its files have no column of it."""
    table = tmp_path / "math_filtered.jsonl"
    table.write_text(json.dumps({"score_chosen": [3, 3, 3], "score_rejected": [1, 2, 3]}))
    assert values("rm-bench", table)["math"] == pytest.approx(2 / 3)  # type: ignore[arg-type]


def test_judge_bench_asks_both_orders() -> None:
    """Its own results: right twice, right and a tie, right and wrong, nothing; of a reward, equal scores are a tie."""

    def row(*decisions: str | None, label: str = "A>B", source: str = "mmlu-pro-law") -> dict[str, Any]:
        return {"label": label, "source": source, "judgments": [{"decision": said} for said in decisions]}

    rows = [
        row("A>B", "B>A"), row("A>B", "A=B"), row("A>B", "A>B"), row(None, None),
        row("B>A", "A>B", label="B>A", source="livecodebench"),
    ]  # fmt: skip
    rows[3]["judgments"] = [None, None]
    assert values("judge-bench", rows) == pytest.approx({"overall": 3 / 5, "mmlu-pro": 2 / 4, "livecodebench": 1})
    pair = {"question": "q", "response_A": "a!", "response_B": "b", "label": "A>B", "source": "livebench-math"}
    with Composer({"marks": marks}) as composer:
        assert values("judge-bench", [pair, {**pair, "response_B": "b!"}], composer=composer)["overall"] == 0.5
    with Composer({"cheat": lambda completions, label: [1.0]}) as composer, pytest.raises(BatchError, match="label"):
        values("judge-bench", [pair], composer=composer)


def test_judge_bench_takes_the_labels_of_both_orders() -> None:
    """What `rlaif label` wrote about its pairs, A first."""
    row = {"label": "B>A", "source": "mmlu-pro", "prob_1_when_first": 0.4, "prob_1_when_second": 0.1}
    contradicting = {**row, "prob_1_when_second": 0.9}
    assert values("judge-bench", [row, contradicting])["overall"] == 0.5


def test_any_table_of_pairs_is_a_benchmark_with_its_categories() -> None:
    """The column is named; a pair without a score is left out and said."""
    rows = [
        {"prompt": "q", "chosen": "a!", "rejected": "b", "lang": "de"},
        {"prompt": "q", "chosen": "a?", "rejected": "b", "lang": "fr"},
    ]
    with Composer(
        {"known": lambda completion_texts: [None if "?" in t else float("!" in t) for t in completion_texts]}
    ) as c:
        found = run_benchmark("pairs", rows, c, category="lang")
    assert {name: each.value for name, each in found.values.items()} == {"overall": 1, "de": 1}
    assert (found.items, found.unscored) == (1, 1)
    assert found.reason is not None
    assert "known: abstained" in found.reason
    with Composer({"marks": Component(marks, normalizer=ZScore())}) as c:
        assert values("pairs", rows[:1], composer=c) == {"overall": 1}
        assert values("pairs", rows[:1], composer=c, learn=False) == {"overall": 0}
    json.dumps(found.record(), allow_nan=False)


def test_benchmarks_name_their_rules() -> None:
    """Whose, at which commit, in words."""
    for benchmark in BENCHMARKS.values():
        assert benchmark.rules.endswith(".")
        assert "@" in benchmark.version or benchmark.version.startswith("rlaif_sdk, ")
    with pytest.raises(ConfigError, match="reward-bench-1, reward-bench-2"):
        run_benchmark("reward-bench", [])


@pytest.mark.parametrize(
    ("name", "row", "problem"),
    [
        ("reward-bench-1", {"prompt": "q", "chosen": "a", "rejected": "b"}, "no 'subset'"),
        (
            "reward-bench-1",
            {"prompt": "q", "chosen": "a", "rejected": "b", "subset": "Math"},
            "no subset of RewardBench 1",
        ),
        (
            "reward-bench-1",
            {"prompt": "q", "chosen": 1, "rejected": "b", "subset": "hep-go"},
            "'chosen' cannot be read",
        ),
        (
            "reward-bench-2",
            {"prompt": "q", "chosen": "a", "rejected": "b", "subset": "Math"},
            "no list of texts but str",
        ),
        ("reward-bench-2", {"id": "x", "subset": "Ties", "num_correct": 1, "scores": [1, 0]}, "ref:NUMBER"),
        ("reward-bench-2", {"id": "x", "subset": "Math", "num_correct": 2, "scores": [1, 0]}, "from 1 to 1"),
        ("reward-bench-2", {"id": "x", "subset": "Math", "num_correct": True, "scores": [1, 0]}, "not True"),
        ("reward-bench-2", {"id": "x", "subset": "Math", "num_correct": 2, "scores": [1, 0, 0]}, "not the first 2"),
        ("reward-bench-2", {"id": "x", "subset": "Math", "num_correct": 1, "scores": [1, "0"]}, "a score is a number"),
        ("rm-bench", {"prompt": "q", "chosen": ["a"] * 3, "rejected": ["b"] * 3}, "no domain of RM-Bench"),
        ("rm-bench", {"prompt": "q", "chosen": ["a"], "rejected": ["b"], "domain": "chat"}, "not three chosen"),
        ("judge-bench", {"label": "A", "source": "x"}, "'A>B' or 'B>A'"),
        ("judge-bench", {"label": "A>B", "source": "x", "judgments": [{"decision": "C"}]}, "a decision is"),
        (
            "judge-bench",
            {"label": "A>B", "source": "x", "judgments": []},
            "must be a list of one or two, in both orders",
        ),
        ("judge-bench", {"label": "A>B", "source": "x", "prob_1_when_first": "0.4"}, "a label is a probability"),
        ("judge-bench", {"label": "A>B", "source": "x", "question": "q", "response_A": "a"}, "no 'response_B'"),
        ("pairs", {"prompt": "q", "chosen": "a"}, "no column 'rejected'"),
    ],
)
def test_rows_of_another_format_are_named(name: str, row: dict[str, Any], problem: str) -> None:
    """The row, what is wrong, and no traceback."""
    with Composer({"marks": marks}) as composer, pytest.raises(DataError, match=problem) as caught:
        run_benchmark(name, [row], composer)
    assert caught.value.row == 1


def test_the_completions_of_one_prompt_are_one_group() -> None:
    """A reward that compares within groups sees the two of a pair together, and items without a prompt apart."""
    seen: list[list[Any]] = []

    class Grouped(Reward):
        name = "grouped"

        def score(self, batch: RewardBatch) -> list[float]:
            seen.append(list(batch.group or ()))
            return [float(len(text)) for text in batch.completion_texts]

    rows = [{"prompt": prompt, "chosen": "longer", "rejected": "no"} for prompt in ("a", "b")]
    with Composer({"grouped": Component(Grouped(), normalizer=GroupZScore())}) as composer:
        found = run_benchmark("pairs", rows, composer=composer).values
    assert found["overall"].value == 1.0
    (groups,) = seen
    assert groups[0] == groups[1] != groups[2] == groups[3]


def test_rows_without_scores_need_a_reward() -> None:
    """And a table without rows is none."""
    with pytest.raises(DataError, match="holds no scores"):
        run_benchmark("pairs", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match="has no rows"):
        run_benchmark("pairs", [])
    with pytest.raises(DataError, match="has no column 'lang'"):
        run_benchmark("pairs", [{"scores_chosen": 1, "scores_rejected": 0}], category="lang")


def test_a_score_may_stand_in_a_list_of_its_own() -> None:
    """So a pipeline writes it."""
    assert values("pairs", [{"scores_chosen": [1.0], "scores_rejected": [[0.5]]}]) == {"overall": 1}


def test_rows_of_one_id_are_drawn_by_themselves() -> None:
    """Only the prompts of RewardBench 2's ties belong together by their names."""
    rows = [{"id": "7", "scores_chosen": n % 2, "scores_rejected": 0} for n in range(20)]
    found = run_benchmark("pairs", rows).values["overall"]
    assert found.low < found.value < found.high


def test_intervals_draw_a_tied_prompt_with_its_reference() -> None:
    """Resampling keeps both, so that no resample has one without the other."""
    table = [
        {"id": f"{kind}:{n}", "subset": "Ties", "num_correct": c, "scores": s}
        for n in range(20)
        for kind, c, s in (("ref", 1, [1.0, n % 2]), ("tied", 2, [2.0, 1.5, 0.0]))
    ]
    found = run_benchmark("reward-bench-2", table).values["Ties"]
    assert found.low < found.value < found.high
    assert not math.isnan(found.low)


@pytest.mark.parametrize("name", ["overall", "Chat", "alpacaeval-easy"])
def test_a_benchmark_of_few_right_items_is_not_certain(name: str) -> None:
    """Every resample of eight right items is right; the interval says no more than Wilson's over eight."""
    row = {"subset": "alpacaeval-easy", "scores_chosen": 1.0, "scores_rejected": 0.0}
    found = run_benchmark("reward-bench-1", [row] * 8).values[name]
    expected = binomtest(8, 8).proportion_ci(method="wilson")
    assert (found.low, found.high) == (pytest.approx(expected.low), 1)


def test_a_mean_of_sections_is_as_uncertain_as_its_smallest_ones() -> None:
    """100 right items of one subset and one of another, each half of the whole, tell of it as four items would."""
    rows = [{"id": str(n), "subset": "Math", "num_correct": 1, "scores": [1.0, 0, 0, 0]} for n in range(100)]
    rows.append({"id": "100", "subset": "Focus", "num_correct": 1, "scores": [1.0, 0, 0, 0]})
    found = run_benchmark("reward-bench-2", rows).values
    trials = 1 / (0.25 / 100 + 0.25)
    z2 = 1.959963985**2
    assert found["overall"].low == pytest.approx(trials / (trials + z2))
    assert found["Math"].low == pytest.approx(100 / (100 + z2))
    assert found["Focus"].low == pytest.approx(1 / (1 + z2))


def test_items_of_one_prompt_are_one_trial() -> None:
    """Ten right pairs of two prompts are two trials, of whatever benchmark."""
    rows = [{"prompt": f"q{n % 2}", "chosen": f"a{n}!", "rejected": "b"} for n in range(10)]
    with Composer({"marks": marks}) as composer:
        found = run_benchmark("pairs", rows, composer).values["overall"]
    assert (found.n, found.low) == (10, pytest.approx(2 / (2 + 1.959963985**2)))


def test_every_number_of_every_benchmark_has_an_interval_that_holds_it() -> None:
    """Also the margins of ties, which are from -1 to 1, and RM-Bench's cells."""
    ties = [
        {"id": f"{kind}:{n}", "subset": "Ties", "num_correct": 1, "scores": [1.0, n]}
        for n in range(2)
        for kind in ("ref", "tied")
    ]
    styles = [{"domain": "math", "score_chosen": [3, 2, 1], "score_rejected": [0, 1, 2]}] * 3
    for name, rows in (("reward-bench-2", ties), ("rm-bench", styles)):
        for found in run_benchmark(name, rows).values.values():
            assert found.low < found.high
            assert found.low <= found.value <= found.high
