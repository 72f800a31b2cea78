"""A composition fitted to what people prefer: the weights, how far they are trusted, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_sdk import Composer, ConfigError, DataError, RewardBatch
from rlaif_sdk.evaluation import VerdictColumns, fit_composition, next_pairs, review_by_information
from rlaif_sdk.evaluation.judged_scores import scored_pairs
from rlaif_sdk.evaluation.verdicts import read_judged_pairs
from rlaif_sdk.preferences.review import ExportOptions, ReviewStore, export_review
from rlaif_sdk.statistics.davidson import verdict_probs

REWARDS = """
import json

def named(name):
    def score(completion_texts):
        return [json.loads(text).get(name) for text in completion_texts]
    return score

a, b, c, copy_of_a = named("a"), named("b"), named("c"), named("a")
"""
WEIGHTS = {"a": 1.5, "b": 0.5, "c": 0.0}


def composition(folder: Path, **rewards: Any) -> Path:
    """A composition of rewards that read their scores from the completion."""
    (folder / "rewards.py").write_text(REWARDS)
    wanted = rewards or {name: {} for name in WEIGHTS}
    path = folder / "rewards.yaml"
    path.write_text(
        json.dumps({"rewards": {name: {"use": f"./rewards.py:{name}", **own} for name, own in wanted.items()}})
    )
    return path


def completion(draw: np.random.Generator, **scores: float | None) -> str:
    """Scores about 50, so that none makes the text longer."""
    return json.dumps({**dict(zip("abc", (50 + draw.normal(size=3)).round(4).tolist(), strict=True)), **scores})


def judged(
    pairs: int, *, log_ties: float = -math.inf, seed: int = 0, people: int = 1, **scores: Any
) -> list[dict[str, Any]]:
    """Pairs, and what simulated people with the weights of `WEIGHTS` say of them."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(pairs):
        one, other = completion(draw, **scores), completion(draw, **scores)
        gap = sum(weight * (json.loads(one)[name] - json.loads(other)[name]) for name, weight in WEIGHTS.items())
        probs = verdict_probs(np.array([gap]), log_ties)[0]
        said = [[1, 2, "tie"][draw.choice(3, p=probs)] for _ in range(people)]
        rows.append({"prompt": f"q{number}", "response_1": one, "response_2": other, "human": said})
    return rows


HUMAN = VerdictColumns(human="human")


def test_weights_of_simulated_people_lie_within_their_intervals(tmp_path: Path) -> None:
    """Ties included; what they do not look at is near 0, its gain is nothing, and agreement rises."""
    found = fit_composition(composition(tmp_path), [judged(600, log_ties=0.0)], HUMAN)
    for name, weight in WEIGHTS.items():
        estimate = found.weights[name].estimate
        assert estimate.low <= weight <= estimate.high, name
        assert estimate.low >= 0 > found.weights["c"].unbounded.low
    assert found.weights["a"].gain.low > 0
    assert found.weights["c"].gain.low < 0.002
    assert 0.2 < found.tie_share < 0.45
    assert found.agreement["fitted"].accuracy.value > found.agreement["as it was"].accuracy.value
    assert found.agreement["a"].accuracy.value > found.agreement["c"].accuracy.value
    assert found.agreement["length alone"].accuracy.low < 0.5 < found.agreement["length alone"].accuracy.high
    assert found.change.low > 0
    json.dumps(found.record(), allow_nan=False)


WINSORIZED = {"kind": "fixed_zscore", "mean": 50.0, "std": 1.0, "winsorize": 0.01}


@pytest.mark.parametrize("normalize", ["none", "zscore", "group_zscore", "rank", WINSORIZED])
def test_the_file_gives_the_totals_that_were_fitted(tmp_path: Path, normalize: Any) -> None:
    """Whatever learns or looks at groups is replaced by a fixed scale, so the order on new text is the fitted one."""
    config = composition(tmp_path, a={"normalize": normalize}, b={})
    found = fit_composition(config, [judged(200)], HUMAN)
    card = found.write(tmp_path / "fitted.yaml")
    a, b = (found.weights[name].weight for name in "ab")
    one, other = ({"a": 51.0, "b": 52.0}, {"a": 49.5, "b": 50.25})
    with Composer.from_config(tmp_path / "fitted.yaml") as composer:
        totals = composer.compose(RewardBatch(["q", "q"], [json.dumps(one), json.dumps(other)])).totals
    scale = 1.0 if normalize == "none" else found.document["rewards"]["a"]["normalize"]["std"]
    assert totals[0] - totals[1] == pytest.approx(a * 1.5 / scale + b * 1.75, rel=1e-6)
    assert set(found.changed_normalizers) == (set() if normalize == "none" else {"a"})
    assert "Bradley-Terry" in card.read_text()


def test_a_review_is_fitted_by_each_reviewers_verdict(tmp_path: Path) -> None:
    """Two who disagree are one verdict for each side and no tie; pairs that nobody looked at are not verdicts."""
    rows = judged(30)
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps({**row, "human": None}) + "\n" for row in rows))
    store = ReviewStore(tmp_path / "review.sqlite", overlap=2, audit=0)
    store.add([labels])
    pairs = {pair.response_1: pair.id for pair, _ in store.results()}
    for row in rows[:20]:
        store.judge("ana", pairs[row["response_1"]], str(row["human"][0]))
    store.judge("bo", pairs[rows[0]["response_1"]], "2" if rows[0]["human"][0] == 1 else "1")
    store.judge("bo", pairs[rows[1]["response_1"]], str(rows[1]["human"][0]))
    store.judge("bo", pairs[rows[2]["response_1"]], "tie")
    export_review(store, tmp_path / "reviewed.jsonl", ExportOptions())
    found = fit_composition(composition(tmp_path), [tmp_path / "reviewed.jsonl", labels])
    assert (found.pairs, found.votes, found.unjudged) == (20, (22.0, 1.0), 10)
    assert found.annotators is not None


def test_rows_about_one_pair_are_its_annotators(tmp_path: Path) -> None:
    """Also where it stands the other way round, or in another table."""
    rows = [{"prompt": row["prompt"], "chosen": row["response_1"], "rejected": row["response_2"]} for row in judged(20)]
    again = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:5]]
    other = [{**row, "source": "human", "reviewers": ["ana"]} for row in rows[:3]]
    found = fit_composition(composition(tmp_path), [rows, again, other])
    assert (found.pairs, found.votes) == (20, (28.0, 0.0))


def test_a_measure_and_a_ranking_of_completions_are_pairs(tmp_path: Path) -> None:
    """More of a measure is better, less of a place; both say the same here."""
    draw = np.random.default_rng(0)
    rows = []
    for prompt in range(60):
        texts = [completion(draw) for _ in range(3)]
        values = [sum(WEIGHTS[name] * json.loads(text)[name] for name in WEIGHTS) + draw.normal() for text in texts]
        places = (np.argsort(np.argsort(-np.array(values))) + 1).tolist()
        rows += [
            {"prompt": f"q{prompt}", "completion": text, "value": value, "place": place}
            for text, value, place in zip(texts, values, places, strict=True)
        ]
    config = composition(tmp_path)
    measured = fit_composition(config, [rows], VerdictColumns(measure="value"))
    ranked = fit_composition(config, [rows], VerdictColumns(rank="place"))
    assert (measured.pairs, measured.prompts) == (180, 60)
    assert measured.weights == ranked.weights
    assert measured.weights["a"].estimate.low > measured.weights["b"].weight


def test_a_category_has_its_own_agreement(tmp_path: Path) -> None:
    """The rows' own names for them."""
    rows = [{**row, "kind": "xy"[number % 2]} for number, row in enumerate(judged(60))]
    found = fit_composition(composition(tmp_path), [rows], VerdictColumns(human="human", category="kind"))
    assert found.agreement["fitted"].by_category.keys() == {"x", "y"}


# --- bad input


def test_a_reward_that_separates_every_pair_has_an_open_weight(tmp_path: Path) -> None:
    """The weight is finite, and its interval says that the verdicts do not bound it."""
    rows = judged(40)
    for row in rows:
        row["human"] = 1 if json.loads(row["response_1"])["a"] > json.loads(row["response_2"])["a"] else 2
    found = fit_composition(composition(tmp_path), [rows], HUMAN)
    assert math.isfinite(found.weights["a"].weight)
    assert found.weights["a"].estimate.high == math.inf
    assert any("a differs in 40 pairs and contradicts none" in warning for warning in found.warnings)
    json.dumps(found.record(), allow_nan=False)


def test_of_two_rewards_that_say_the_same_only_the_sum_is_known(tmp_path: Path) -> None:
    """They share it out as the composition did, each interval is as wide as what is not known, and a warning says so."""
    config = composition(tmp_path, a={"weight": 3.0}, copy_of_a={"weight": 1.0})
    found = fit_composition(config, [judged(300)], HUMAN)
    a, copy = found.weights["a"], found.weights["copy_of_a"]
    assert a.weight == pytest.approx(3 * copy.weight, rel=1e-3)
    assert a.weight + copy.weight == pytest.approx(WEIGHTS["a"], abs=0.5)
    assert a.estimate.high > 2 * WEIGHTS["a"]
    assert any("a and copy_of_a say the same" in warning for warning in found.warnings)


def test_a_constant_reward_is_told_and_has_no_weight(tmp_path: Path) -> None:
    """Nothing is known of it, so its interval is open."""
    found = fit_composition(composition(tmp_path), [judged(100, b=1.0)], HUMAN)
    assert (found.weights["b"].weight, found.weights["b"].constant) == (0.0, True)
    assert found.weights["b"].estimate.high == math.inf
    assert any("b is the same on both sides of every pair" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("verdict", "pairs", "problem"),
    [
        ("tie", 40, "every verdict is a tie"),
        (1, 3, "has 3 judged pairs about 3 prompts, and weights that can be checked take pairs about 10"),
        (None, 40, "nobody was asked about any of the 40 pairs"),
        ("both", 40, "'tie' or null"),
    ],
)
def test_verdicts_of_which_nothing_can_be_learnt_are_refused(
    tmp_path: Path, verdict: Any, pairs: int, problem: str
) -> None:
    """The error says what is missing, and what to do."""
    rows = [{**row, "human": verdict} for row in judged(pairs)]
    with pytest.raises(DataError, match=problem):
        fit_composition(composition(tmp_path), [rows], HUMAN)


def test_annotators_who_contradict_each_other_explain_nothing(tmp_path: Path) -> None:
    """For each verdict there is one for the other side."""
    rows = [{**row, "human": [1, 2]} for row in judged(40)]
    with pytest.raises(DataError, match="no reward explains what people prefer"):
        fit_composition(composition(tmp_path), [rows], HUMAN)


def test_a_reward_that_people_dislike_is_0_unless_weights_are_signed(tmp_path: Path) -> None:
    """What its weight would be is told."""
    rows = judged(300)
    for row in rows:
        row["human"] = [{1: 2, 2: 1}[said] for said in row["human"]]
    config = composition(tmp_path, a={}, c={"weight": 0.5})
    with pytest.raises(DataError, match=r"every weight would be 0 \(a -1\."):
        fit_composition(composition(tmp_path, a={}), [rows], HUMAN)
    signed = fit_composition(config, [rows], HUMAN, signed=True)
    assert signed.weights["a"].estimate.high < 0


@pytest.mark.filterwarnings("ignore:.*is or becomes negative")
def test_a_weight_keeps_the_sign_that_it_had(tmp_path: Path) -> None:
    """A penalty that people agree with stays one, and needs no --signed."""
    rows = [{**row, "human": [{1: 2, 2: 1}[said] for said in row["human"]]} for row in judged(200)]
    found = fit_composition(composition(tmp_path, a={"weight": -1.0}, b={"weight": -1.0}), [rows], HUMAN)
    assert found.weights["a"].estimate.low < -WEIGHTS["a"] < found.weights["a"].estimate.high < 0


def test_equal_weights_are_of_equal_units(tmp_path: Path) -> None:
    """A reward in hundredths says no more than the others."""
    rows = judged(200)
    for row in rows:
        for side in ("response_1", "response_2"):
            row[side] = json.dumps({**json.loads(row[side]), "c": 100 * json.loads(row[side])["c"]})
    found = fit_composition(composition(tmp_path), [rows], HUMAN)
    plain = fit_composition(composition(tmp_path), [judged(200)], HUMAN)
    assert found.agreement["equal weights"].accuracy == plain.agreement["equal weights"].accuracy
    assert found.agreement["as it was"].accuracy.value < plain.agreement["as it was"].accuracy.value


def test_a_pair_with_a_score_on_one_side_only_is_left_out(tmp_path: Path) -> None:
    """One without a score on either says nothing of that reward, and something of the others."""
    rows = judged(60)
    rows[0]["response_1"] = json.dumps({**json.loads(rows[0]["response_1"]), "b": None})
    for side in ("response_1", "response_2"):
        rows[1][side] = json.dumps({**json.loads(rows[1][side]), "b": None})
    found = fit_composition(composition(tmp_path), [rows], HUMAN)
    assert (found.pairs, found.skipped) == (59, {"b": 1})
    assert any("on one side only" in warning for warning in found.warnings)


def test_preferences_that_length_explains_are_told(tmp_path: Path) -> None:
    """A reward that is length by another name adds nothing at a given length."""
    draw = np.random.default_rng(0)
    rows = []
    for number in range(200):
        words = draw.integers(1, 60, size=2)
        texts = [
            json.dumps({"a": int(count), "b": 0.0, "c": round(draw.normal(), 3), "text": "x" * int(9 * count)})
            for count in words
        ]
        longer = words[0] > words[1] if draw.random() < 0.85 else words[0] < words[1]
        rows.append(
            {"prompt": f"q{number}", "response_1": texts[0], "response_2": texts[1], "human": 1 if longer else 2}
        )
    found = fit_composition(composition(tmp_path), [rows], HUMAN)
    assert any("length alone explains" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"aggregate": {"kind": "minimum"}}, "not those of minimum"),
        ({"gates": [{"reward": "a", "min": 0.0, "max": 1.0, "floor": -1.0}]}, "no single threshold"),
        ({"gate_order": "lexicographic"}, "the order of gates"),
        ({"groups": {"both": {"members": ["a", "b"]}}}, "each reward by itself"),
    ],
)
def test_what_is_no_weighted_sum_is_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    """At the key that makes it something else."""
    path = composition(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ConfigError, match=problem):
        fit_composition(path, [judged(20)], HUMAN)


def test_a_range_that_is_not_declared_is_refused_where_the_scale_needs_it(tmp_path: Path) -> None:
    """Before anything is scored; a scale that needs none is fitted as it is."""
    with pytest.raises(ConfigError, match=r"minmax needs a finite declared range"):
        fit_composition(composition(tmp_path, a={"normalize": "minmax"}), [judged(20)], HUMAN)


def test_a_schedule_is_refused(tmp_path: Path) -> None:
    """A fitted weight is a number."""
    schedule = {"schedule": "linear", "from": 0.0, "to": 1.0, "end": 100}
    with pytest.raises(ConfigError, match="is a schedule"):
        fit_composition(composition(tmp_path, a={"weight": schedule}), [judged(20)], HUMAN)


# --- what to ask next


def test_the_next_pairs_are_unjudged_and_teach_more_than_others(tmp_path: Path) -> None:
    """Those in which rewards differ most come first; before any verdict, too."""
    known, pool = judged(30), [{**row, "human": None} for row in judged(200, seed=1)]
    for rows in ([*known, *pool], pool):
        chosen = next_pairs(composition(tmp_path), [rows], 20, HUMAN)
        assert len(chosen) == 20
        assert all(row["human"] is None for row in chosen)
        assert _spread(chosen) > 1.3 * _spread(pool)


def test_next_needs_a_pair_without_a_verdict(tmp_path: Path) -> None:
    """And says which columns such a table has."""
    with pytest.raises(DataError, match="has a verdict"):
        next_pairs(composition(tmp_path), [judged(20)], 5, HUMAN)


def _spread(rows: list[dict[str, Any]]) -> float:
    gaps = [
        [json.loads(row["response_1"])[name] - json.loads(row["response_2"])[name] for name in "abc"] for row in rows
    ]
    return float(np.sqrt((np.array(gaps) ** 2).mean()))


def test_annotators_agree_whichever_completion_stands_first(tmp_path: Path) -> None:
    """Where the better one is always the chosen one, agreement is no less beyond chance; where they differ, it is said."""
    rows = [{"prompt": row["prompt"], "chosen": row["response_1"], "rejected": row["response_2"]} for row in judged(40)]
    others = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[::2]]
    agreed = fit_composition(composition(tmp_path), [rows, rows], signed=True)
    apart = fit_composition(composition(tmp_path), [rows, others + rows[1::2]], signed=True)
    assert agreed.annotators is not None
    assert agreed.annotators.value == 1
    assert apart.annotators is not None
    assert any("no more than by chance" in warning for warning in apart.warnings)


# --- defaults of rewards that fail


FALLIBLE = """
import json
from rlaif_sdk import reward

@reward(name="c")
def c(completion_texts):
    found = [json.loads(text)["c"] for text in completion_texts]
    return [float("nan") if value is None else value for value in found]
"""


def fallible(pairs: int, worth: float, share: float = 0.3, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs of which a reward fails on some completions, that people take to be worth a score."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(pairs):
        sides = [dict(zip("ac", (50 + draw.normal(size=2)).tolist(), strict=True)) for _ in range(2)]
        for side in sides:
            side["c"] = None if draw.random() < share else side["c"]
        gap = (sides[0]["a"] - sides[1]["a"]) + 1.5 * np.subtract(
            *(worth if side["c"] is None else side["c"] for side in sides)
        )
        said = 1 if draw.random() < 1 / (1 + math.exp(-gap)) else 2
        one, other = (json.dumps(side) for side in sides)
        rows.append({"prompt": f"q{number}", "response_1": one, "response_2": other, "human": [said]})
    return rows


def with_a_default(folder: Path, value: float) -> Path:
    config = composition(folder, a={}, c={"on_failure": {"policy": "default", "value": value, "fail_fast": False}})
    with (folder / "rewards.py").open("a") as file:
        file.write(FALLIBLE)
    return config


@pytest.mark.parametrize("worth", [48.5, 50.8])
def test_the_default_of_a_reward_that_fails_is_what_people_take_a_failure_for(tmp_path: Path, worth: float) -> None:
    """It lies within its interval, the weights within theirs, and the file has both and agrees more with people."""
    config = with_a_default(tmp_path, value=53.0)
    found = fit_composition(config, [fallible(300, worth)], HUMAN)
    [default] = found.defaults
    assert (default.reward, default.before) == ("c", 53.0)
    assert default.value.low <= worth <= default.value.high
    assert default.value.value == pytest.approx(worth, abs=0.6)
    assert default.value.n > 100
    assert found.weights["c"].estimate.low < 1.5 < found.weights["c"].estimate.high
    assert found.change.value > 0
    found.write(tmp_path / "fitted.yaml")
    with Composer.from_config(tmp_path / "fitted.yaml") as composer:
        said = composer.compose(RewardBatch(["q"], [json.dumps({"a": 50.0, "c": None})], training=False))
    assert said.rewards["c"].normalized[0] == pytest.approx(default.value.value)


def test_a_default_that_verdicts_do_not_contradict_is_kept(tmp_path: Path) -> None:
    """A few failures tell nothing, and where there is none nothing is said of it."""
    found = fit_composition(with_a_default(tmp_path, value=50.0), [fallible(100, 50.1, share=0.05)], HUMAN)
    assert [each.value.value for each in found.defaults] == [50.0]
    assert fit_composition(with_a_default(tmp_path, value=50.0), [fallible(60, 50.0, share=0.0)], HUMAN).defaults == []


@pytest.mark.parametrize("more_is_better", [True, False])
def test_a_default_is_in_the_units_of_its_reward(tmp_path: Path, more_is_better: bool) -> None:
    """For the gate that looks at it too, whichever way it counts: with the one that it had the pairs are as they were."""
    config = json.loads(with_a_default(tmp_path, value=53.0).read_text())
    code = (tmp_path / "rewards.py").read_text()
    (tmp_path / "rewards.py").write_text(code.replace('(name="c"', f'(name="c", higher_is_better={more_is_better}'))
    config["rewards"]["c"]["use"] = f"{tmp_path}/rewards.py:c"
    config["rewards"]["a"]["use"] = f"{tmp_path}/rewards.py:a"
    config["gates"] = [{"reward": "c", "max": 52.0, "floor": -9.0}]
    with Composer.from_config(config) as composer:
        pairs = scored_pairs(composer, read_judged_pairs(composer, [fallible(60, 50.0)], HUMAN), lambda *_: None)
    assert pairs.defaulted["c"].failed_N2.any()
    same = pairs.with_default("c", 53.0)
    assert same.raw["c"].tolist() == pairs.raw["c"].tolist()
    np.testing.assert_allclose(same.differences_NR, pairs.differences_NR, atol=1e-12)


def test_a_reward_that_only_abstains_beside_its_failures_keeps_its_default(tmp_path: Path) -> None:
    """No score of its own says what one may be."""
    config = with_a_default(tmp_path, value=50.0)
    code = (tmp_path / "rewards.py").read_text()
    (tmp_path / "rewards.py").write_text(code.replace("else value for", "else None for"))
    rows = fallible(60, 50.0, share=0.0)
    for row in rows[:20]:
        for side in ("response_1", "response_2"):
            row[side] = json.dumps({**json.loads(row[side]), "c": None})
    assert fit_composition(config, [rows], HUMAN).defaults == []


# --- gates


def test_a_gate_is_found_where_people_refuse(tmp_path: Path) -> None:
    """They prefer whatever passes, and go by the weights between two that do; the file has the threshold and a low floor."""
    rows = judged(400, seed=3)
    for row in rows:
        unsafe = [json.loads(row[side])["c"] < 49.6 for side in ("response_1", "response_2")]
        if unsafe[0] != unsafe[1]:
            row["human"] = 2 if unsafe[0] else 1
    config = composition(tmp_path, a={}, b={}, c={"weight": 0.0})
    gates = [{"reward": "c", "min": 50.5, "floor": 0.0}]
    config.write_text(json.dumps({**json.loads(config.read_text()), "gates": gates}))
    found = fit_composition(config, [rows], HUMAN)
    [gate] = found.gates
    assert gate.before == 50.5
    assert gate.threshold.low <= gate.threshold.value <= gate.threshold.high
    assert gate.threshold.value == pytest.approx(49.6, abs=0.02)
    assert found.weights["a"].estimate.low < WEIGHTS["a"] < found.weights["a"].estimate.high
    assert found.agreement["fitted"].accuracy.value > found.agreement["as it was"].accuracy.value + 0.1
    found.write(tmp_path / "fitted.yaml")
    with Composer.from_config(tmp_path / "fitted.yaml") as composer:
        texts = [json.dumps({"a": 60.0, "b": 60.0, "c": 49.0}), json.dumps({"a": 49.0, "b": 49.0, "c": 50.0})]
        refused, passed = composer.compose(RewardBatch(["q", "q"], texts)).totals
    assert refused < passed


def test_a_pair_without_the_score_of_a_gate_is_left_out(tmp_path: Path) -> None:
    """The completion would have no total; a gate that lets it pass loses nothing."""
    rows = judged(60)
    for side in ("response_1", "response_2"):
        rows[0][side] = json.dumps({**json.loads(rows[0][side]), "c": None})
    config = composition(tmp_path, a={}, c={"weight": 0.0})
    plain = json.loads(config.read_text())
    for on_missing, pairs in (("unscored", 59), ("pass", 60)):
        gate = {"reward": "c", "min": 49.0, "floor": 0.0, "on_missing": on_missing}
        config.write_text(json.dumps({**plain, "gates": [gate]}))
        assert fit_composition(config, [rows], HUMAN).pairs == pairs


def test_a_gate_that_people_do_not_care_about_lets_nearly_everything_pass(tmp_path: Path) -> None:
    """Whatever it was set to."""
    config = composition(tmp_path, a={}, b={}, c={"weight": 0.0})
    gates = [{"reward": "c", "max": 50.0, "floor": 0.0}]
    config.write_text(json.dumps({**json.loads(config.read_text()), "gates": gates}))
    found = fit_composition(config, [judged(300)], HUMAN)
    assert found.gates[0].threshold.value > 51.5
    assert found.agreement["fitted"].accuracy.value > found.agreement["as it was"].accuracy.value


@pytest.mark.parametrize(("bound", "lowest"), [("min", 2 / 3), ("max", -2 / 3)])
def test_a_gate_can_let_everything_pass(tmp_path: Path, bound: str, lowest: float) -> None:
    """Also where the worst score has more digits than are written of others."""
    rows = judged(200)
    draw = np.random.default_rng(0)
    for row in rows:
        for side in ("response_1", "response_2"):
            score = lowest * draw.integers(1, 4)
            row[side] = json.dumps({**json.loads(row[side]), "c": score})
    config = composition(tmp_path, a={}, b={}, c={"weight": 0.0})
    gates = [{"reward": "c", bound: 2.2 * lowest, "floor": 0.0}]
    config.write_text(json.dumps({**json.loads(config.read_text()), "gates": gates}))
    assert fit_composition(config, [rows], HUMAN).gates[0].threshold.value == lowest


def test_a_review_asks_what_teaches_most_and_fits_anew(tmp_path: Path) -> None:
    """Its first ten pairs are those of `next_pairs`, its next ten those that are best given the verdicts on them."""
    rows = judged(60)
    verdict = {row["response_1"]: str(row["human"][0]) for row in rows}
    pool = [{name: row[name] for name in ("prompt", "response_1", "response_2")} for row in rows]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pool))
    store = ReviewStore(tmp_path / "review.sqlite", audit=0)
    store.add([tmp_path / "pool.jsonl"])
    config, fits = composition(tmp_path), []
    review_by_information(store, config, told=lambda judged, weights: fits.append((judged, weights)))
    asked = []
    for _ in range(21):
        pair = store.claim("ana")
        assert pair is not None
        asked.append({"prompt": pair.prompt, "response_1": pair.response_1, "response_2": pair.response_2})
        store.judge("ana", pair.id, verdict[pair.response_1])
    first = next_pairs(config, [pool], 10)
    known = [{**row, "human": int(verdict[row["response_1"]])} for row in first]
    others = [{**row, "human": None} for row in pool if row not in first]
    assert asked[:10] == first
    assert [{**row, "human": None} for row in asked[10:20]] == next_pairs(config, [known, others], 10, HUMAN)
    assert [judged for judged, _ in fits] == [0, 10, 20]
    assert fits[2][1]["a"][1] < fits[0][1]["a"][1]


def test_a_review_goes_on_with_doubtful_pairs_where_none_was_chosen(tmp_path: Path) -> None:
    """Pairs that no reward tells apart, or that lack a score, are reviewed all the same."""
    rows = [
        {"prompt": f"q{place}", "response_1": '{"a": 1}', "response_2": f'{{"a": 1, "x": {place}}}'}
        for place in range(3)
    ]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = ReviewStore(tmp_path / "review.sqlite", audit=0)
    store.add([tmp_path / "pool.jsonl"])
    review_by_information(store, composition(tmp_path, a={}))
    while pair := store.claim("ana"):
        store.judge("ana", pair.id, "tie")
    assert store.progress().judged == 3
