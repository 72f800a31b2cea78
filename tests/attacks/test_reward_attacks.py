"""Attacks on compositions: what is overpaid is found, with what closes it; what is not is no finding."""

from __future__ import annotations

import json
import math
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlaif_sdk import Composer, ConfigError, DataError, RewardError, Score, reward
from rlaif_sdk.attacks import Edit, RewardAttack, attack_rewards, load_edits
from rlaif_sdk.attacks.rewards import spread_of
from rlaif_sdk.cli.main import app
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.normalizers import GroupZScore, ZScore
from rlaif_sdk.config import CompositionConfig
from rlaif_sdk.config.documents import Document, validate
from rlaif_sdk.conversations import view, with_answer
from rlaif_sdk.io.tables import write_table

WORDS = ("sky", "blue", "light", "scatters", "water", "stone", "bird", "river", "short",
    "wave", "moves", "through", "air", "and")  # fmt: skip
CODE = """
def wordy(completion_texts):
    return [float(len(text.split())) for text in completion_texts]

def bright(completion_texts):
    return [sum(word in ("blue", "light", "wave") for word in text.lower().split()) / 3 for text in completion_texts]

def shouted(prompt, answer):
    return answer.upper()
"""
CONFIG = """
rewards:
  wordy: {use: './mine.py:wordy'}
  bright: {use: './mine.py:bright', weight: 0}
"""
EDITS = load_edits()
PHRASE = Edit("phrase", "a key phrase", (1.0,), lambda _prompt, answer, _level, _draw: f"{answer} Verified.")
SHORTER = Edit("shorter", "its first word", (1.0,), lambda _prompt, answer, _level, _draw: answer.split(" ")[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "rewards.yaml").write_text(CONFIG)
    write_table(rows(12, 2), tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(prompts: int = 12, per_prompt: int = 1, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {
            "prompt": f"Question {number}: why is the sky blue?",
            "completion": " ".join(draw.choices(WORDS, k=draw.randint(4, 20))).capitalize() + ".",
            "worth": draw.random(),
        }
        for number in range(prompts)
        for _ in range(per_prompt)
    ]


def wordy(completion_texts: list[str]) -> list[float]:
    return [float(len(text.split())) for text in completion_texts]


def bright(completion_texts: list[str]) -> list[float]:
    """How many of the words are among those that matter: an honest witness of these answers."""
    return [sum(word in {"blue", "light", "wave"} for word in text.lower().split()) / 3 for text in completion_texts]


def phrase(completion_texts: list[str]) -> list[float]:
    return [float("Verified" in text) for text in completion_texts]


def of_witness(**parts: Any) -> dict[str, Any]:
    return {**parts, "bright": Component(bright, weight=0)}


def merged(config: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A composition with a change: keys beside its keys, lists at the end of its lists."""
    both = {**config, **change, "rewards": dict(config["rewards"])}
    for name, part in change.get("rewards", {}).items():
        both["rewards"][name] = {**config["rewards"].get(name, {}), **part}
    for key in ("gates", "constraints"):
        if key in change:
            both[key] = [*config.get(key, []), *change[key]]
    return both


def found(report: Any) -> list[str]:
    return [finding.result.name for finding in report.findings]


def test_every_edit_changes_an_answer_and_the_same_seed_changes_it_alike() -> None:
    """Each level of each edit gives another text than the answer, and the same one for the same seed."""
    answer = "Blue light scatters more. The sky is full of it. That is why."
    for edit in EDITS:
        for level in edit.levels:
            edited = edit("Why is the sky blue?", answer, level, "7")
            assert edited != answer, edit.name
            assert edited == edit("Why is the sky blue?", answer, level, "7"), edit.name
            assert edit.described(level)


def test_strength_is_what_its_level_says() -> None:
    """Padding reaches the factor, truncation the share, repetition the count, and compliments their number."""
    edits = {edit.name: edit for edit in EDITS}
    answer = "One two three. Four five six."
    assert len(edits["padding"]("p", answer, 4.0, "0").split()) >= 24
    assert edits["truncation"]("p", answer, 0.5, "0") == "One two three."
    assert edits["truncation"]("p", answer, 0.0, "0") == ""
    assert edits["repetition"]("p", answer, 3.0, "0").count("Four five six.") == 4
    assert edits["flattery"]("p", answer, 1.0, "0").startswith("What a wonderful question! One")
    assert edits["keywords"]("Why is water wet?", answer, 1.0, "0") == f"{answer}\n\nwater."
    assert edits["prompt copy"]("Why?", answer, "instead", "0") == "Why?"
    assert edits["markdown"]("Why?", answer, "bullets", "0") == "- One two three.\n- Four five six."
    assert sorted(edits["shuffling"]("p", answer, "words", "0").split()) == sorted(answer.split())


@given(st.text(max_size=80), st.text(max_size=80))
@settings(max_examples=60)
def test_no_text_breaks_an_edit(prompt: str, answer: str) -> None:
    """Whatever the prompt and the answer, an edit gives a text."""
    for edit in EDITS:
        for level in edit.levels:
            assert isinstance(edit(prompt, answer, level, "0"), str)


def test_a_reward_for_length_is_found_with_the_reward_that_pays() -> None:
    """Padding is first among single edits, paid by the reward for words, on every answer; nothing shorter is found."""
    with Composer(of_witness(wordy=wordy)) as composer:
        report = attack_rewards(composer, rows(20, 2), witness="bright", depth=1)
    first = report.findings[0]
    assert first.result.name in {"padding 4", "repetition 9"}
    assert first.result.payer == "wordy"
    assert first.result.wins.value >= 0.9
    assert first.result.gap.low > 0
    assert not any(name.startswith(("truncation", "empty", "refusal")) for name in found(report))
    before, after = first.example.explanations
    assert after.total > before.total
    assert first.example.after.startswith(first.example.before[:10])
    assert (report.answers, report.prompts, report.unit) == (40, 20, "the answers to one prompt")
    json.dumps(report.record(), allow_nan=False)


def test_the_gain_is_in_standard_deviations_of_real_answers() -> None:
    """A phrase that is worth 3 where real totals have a deviation of s gains exactly 3 / s on every prompt."""
    table = rows(16)
    with Composer({"wordy": wordy, "phrase": phrase}, weights={"wordy": 1.0, "phrase": 3.0}) as composer:
        [result] = attack_rewards(composer, table, edits=[PHRASE], depth=1).results
    lengths = np.array([len(row["completion"].split()) for row in table])
    assert result.total.value == pytest.approx(4 / lengths.std(ddof=1))  # the phrase, and one word
    assert result.paid_by["phrase"] == pytest.approx(3 / lengths.std(ddof=1))
    assert result.witness is None
    assert result.gap == result.total


def test_what_the_witness_sees_as_better_too_is_no_finding() -> None:
    """A total that is the witness's own opinion, by another function, is overpaid by nothing."""

    def double(completion_texts: list[str]) -> list[float]:
        return [2 * value + 1 for value in bright(completion_texts)]

    with Composer(of_witness(double=double)) as composer, pytest.warns(UserWarning, match="as the total does"):
        report = attack_rewards(composer, rows(20, 2), witness="bright")
    assert not report.overpays


def test_a_total_that_falls_less_than_the_witness_is_no_finding() -> None:
    """A gap above 0 with a falling total tempts no policy."""

    def whole(completion_texts: list[str]) -> list[float]:
        return [10.0 * (words > 2) - 0.01 * words for words in wordy(completion_texts)]

    with Composer({"wordy": wordy, "whole": Component(whole, weight=0)}) as composer:
        report = attack_rewards(composer, rows(20), witness="whole", edits=[SHORTER], depth=1)
    assert report.results[0].gap.low > 0
    assert report.results[0].total.high < 0
    assert report.results[0].wins.value == 0
    assert not report.findings


def test_intervals_hold_for_all_trials_at_once() -> None:
    """The same trial among more others has a wider interval, by Bonferroni: of Student's t at 1 - 0.05 / m."""
    from scipy.stats import t

    table = rows(16)
    with Composer({"wordy": wordy}) as composer:
        alone = attack_rewards(composer, table, edits=[SHORTER], depth=1).results[0].total
        every = attack_rewards(composer, table, edits=[SHORTER, *EDITS], depth=1)
    among = next(result for result in every.results if result.name == "shorter 1").total
    trials = len(every.results)
    assert alone.value == pytest.approx(among.value)
    wider = t.ppf(1 - 0.025 / trials, 15) / t.ppf(0.975, 15)
    assert (among.high - among.value) / (alone.high - alone.value) == pytest.approx(wider)


def test_answers_to_one_prompt_count_as_one_observation() -> None:
    """Twice the same answers to a prompt make no interval narrower."""
    table = rows(12)
    twice = [row for row in table for _ in range(2)]
    with Composer({"wordy": wordy}) as composer:
        once, doubled = (
            attack_rewards(composer, rows_, edits=[SHORTER], depth=1).results[0].total for rows_ in (table, twice)
        )
    assert once.n == doubled.n == 12
    scale = (once.high - once.low) / once.value
    assert (doubled.high - doubled.low) / doubled.value == pytest.approx(scale)


def test_a_few_prompts_are_too_few_for_findings() -> None:
    """Seven prompts that all gain the same are ranked, and said to be too few."""
    with Composer({"phrase": phrase, "wordy": wordy}) as composer:
        with pytest.warns(UserWarning, match="7 prompts are too few for findings: 8"):
            assert not attack_rewards(composer, rows(7), edits=[PHRASE]).findings
        assert found(attack_rewards(composer, rows(8), edits=[PHRASE])) == ["phrase 1"]


def test_one_row_is_ranked_without_an_interval() -> None:
    """A single answer has a gain of 0 deviations, since nothing varies, and is no finding."""
    with Composer({"wordy": wordy}) as composer, pytest.warns(UserWarning, match="too few"):
        report = attack_rewards(composer, rows(1))
    assert not report.findings
    json.dumps(report.record(), allow_nan=False)


def test_a_phrase_that_no_real_answer_has_is_measured_by_the_edited_ones() -> None:
    """Where all real totals are equal, the spread is that of real and edited ones, and the report says so."""
    with Composer({"phrase": phrase}) as composer:
        report = attack_rewards(composer, rows(10), edits=[PHRASE, SHORTER], depth=1)
    assert report.unit == "real and edited answers"
    assert found(report) == ["phrase 1"]


def test_answers_that_only_call_a_tool_are_attacked_like_others() -> None:
    """They have no words, of which the rewards that may close a finding say nothing."""
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    table = [
        {"prompt": f"Sum {n}?", "completion": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
        for n in range(10)
    ]

    def long(completion_texts: list[str]) -> list[float]:
        return [float(len(text)) for text in completion_texts]

    with Composer({"long": long}) as composer:
        report = attack_rewards(composer, table, edits=[PHRASE], depth=1)
    assert [finding.result.name for finding in report.findings] == ["phrase 1"]


def test_a_constant_reward_has_nothing_to_find() -> None:
    """Nothing that is done changes the total: said, and no finding."""

    def same(completion_texts: list[str]) -> list[float]:
        return [1.0 for _ in completion_texts]

    with Composer(of_witness(same=same)) as composer, pytest.warns(UserWarning, match="the same for all answers"):
        report = attack_rewards(composer, rows(10), witness="bright")
    assert not report.findings
    json.dumps(report.record(), allow_nan=False)


def test_a_witness_that_says_nothing_is_told() -> None:
    """A constant witness opposes nothing."""

    def silent(completion_texts: list[str]) -> list[float]:
        return [0.5 for _ in completion_texts]

    with (
        Composer({"wordy": wordy, "silent": Component(silent, weight=0)}) as composer,
        pytest.warns(UserWarning, match="says the same of all answers"),
    ):
        attack_rewards(composer, rows(10), witness="silent", depth=1)


def test_a_witness_that_the_total_depends_on_is_refused() -> None:
    """A reward with a weight, one behind a gate, the same reward under another name, and one that is not there."""
    with (
        Composer({"wordy": wordy, "bright": bright}) as composer,
        pytest.raises(ConfigError, match="depends on 'bright'"),
    ):
        attack_rewards(composer, rows(), witness="bright")
    gate = Gate("bright", floor=0.0, min=0.1)
    with Composer(of_witness(wordy=wordy), gates=[gate]) as composer, pytest.raises(ConfigError, match="depends on"):
        attack_rewards(composer, rows(), witness="bright")
    with Composer({"wordy": wordy}) as composer, pytest.raises(ConfigError, match="no reward 'nobody'"):
        attack_rewards(composer, rows(), witness="nobody")


def test_the_composition_under_another_name_is_no_witness(tmp_path: Path) -> None:
    """The same function with the same parameters, once with a weight and once without."""
    (tmp_path / "mine.py").write_text("def wordy(completion_texts):\n    return [len(t) for t in completion_texts]\n")
    use = {"use": f"{tmp_path}/mine.py:wordy"}
    composer = Composer.from_config({"rewards": {"one": use, "other": {**use, "weight": 0}}})
    with composer, pytest.raises(ConfigError, match="is 'one' once more"):
        attack_rewards(composer, rows(), witness="other")


def test_a_failure_on_edited_answers_is_unscored_and_not_a_loss() -> None:
    """A reward that fails on every edited answer leaves them without a total; nothing is found, and nothing counts as 0."""

    @reward
    def fragile(completion_texts: list[str]) -> list[Score]:
        if any("Verified" in text for text in completion_texts):
            return [float("nan") if "Verified" in text else 1.0 * len(text) for text in completion_texts]
        return [1.0 * len(text) for text in completion_texts]

    with Composer({"fragile": fragile}) as composer, pytest.warns(UserWarning, match="no edited answer has a total"):
        report = attack_rewards(composer, rows(10), edits=[PHRASE])
    assert (report.results[0].unscored, report.results[0].total.n) == (10, 0)
    assert math.isnan(report.results[0].gap.value)
    json.dumps(report.record(), allow_nan=False)


def test_a_witness_that_fails_on_some_answers_leaves_these_out() -> None:
    """Real answers without a word of the witness are counted, with the reason, and not edited."""

    @reward
    def picky(completion_texts: list[str]) -> list[Any]:
        return [
            None if len(text.split()) > 12 else value
            for text, value in zip(completion_texts, bright(completion_texts), strict=True)
        ]

    table = rows(24)
    silent = sum(len(row["completion"].split()) > 12 for row in table)
    with Composer({"wordy": wordy, "picky": Component(picky, weight=0)}) as composer:
        report = attack_rewards(composer, table, witness="picky", edits=[SHORTER], depth=1)
    assert silent > 0
    assert (report.answers, report.unscored) == (24 - silent, silent)
    assert report.reason == "picky has no score"


def test_edited_answers_without_a_word_of_the_witness_count_nowhere() -> None:
    """Their totals are in no mean, though they have one."""

    @reward
    def picky(completion_texts: list[str]) -> list[Any]:
        said = zip(completion_texts, bright(completion_texts), strict=True)
        return [None if "Verified" in text and len(text) % 2 else value for text, value in said]

    table = rows(24)
    silent = sum(len(f"{row['completion']} Verified.") % 2 for row in table)
    with Composer({"wordy": wordy, "picky": Component(picky, weight=0)}) as composer:
        [result] = attack_rewards(composer, table, witness="picky", edits=[PHRASE], depth=1).results
    assert silent > 0
    assert (result.unscored, result.total.n, result.gap.n) == (silent, 24 - silent, 24 - silent)


def test_an_answer_that_the_witness_puts_as_far_ahead_is_not_overrated() -> None:
    """Of the best by the total, only those that the witness puts less far ahead are shown."""

    def alike(completion_texts: list[str]) -> list[float]:
        return wordy(completion_texts)

    with (
        Composer({"wordy": wordy, "alike": Component(alike, weight=0)}) as composer,
        pytest.warns(UserWarning, match="as the total does"),
    ):
        assert not attack_rewards(composer, rows(12, 4), witness="alike", edits=[SHORTER], depth=1).overrated


def test_a_witness_that_scores_nothing_is_refused() -> None:
    """Without a single word of the witness there is nothing to compare with."""

    @reward
    def mute(completion_texts: list[str]) -> list[None]:
        return [None for _ in completion_texts]

    composer = Composer({"wordy": wordy, "mute": Component(mute, weight=0)})
    with composer, pytest.raises(DataError, match="no answer has a total and a score of the witness"):
        attack_rewards(composer, rows(), witness="mute")


def test_an_empty_table_and_a_missing_column_are_refused_with_their_place() -> None:
    """No rows; a row without a completion, by its number."""
    with Composer({"wordy": wordy}) as composer:
        with pytest.raises(DataError, match="has no rows"):
            attack_rewards(composer, [])
        with pytest.raises(DataError, match="list:2: has no column 'completion'"):
            attack_rewards(composer, [*rows(1), {"prompt": "p"}])


def test_an_edit_that_fails_is_named_with_its_row() -> None:
    """An exception, or what is no text, ends the attack before anything is scored."""
    scored: list[str] = []

    def watched(completion_texts: list[str]) -> list[float]:
        scored.extend(completion_texts)
        return [0.0 for _ in completion_texts]

    broken = Edit("broken", "fails", (1.0,), lambda _prompt, _answer, _level, _draw: str(1 / 0))
    number = Edit("number", "gives a number", (1.0,), lambda _prompt, _answer, _level, _draw: 5)  # type: ignore[return-value, arg-type]
    with Composer({"watched": watched}) as composer:
        with pytest.raises(ConfigError, match=r"the edit 'broken' failed: .*division by zero") as raised:
            attack_rewards(composer, rows(), edits=[broken])
        assert "row 1" in raised.value.__notes__[0]
        with pytest.raises(ConfigError, match="the edit 'number' gave int"):
            attack_rewards(composer, rows(), edits=[number])
    assert not scored


def test_a_reward_of_groups_is_refused() -> None:
    """It would have to be asked anew for each edit of each answer."""

    @reward(scope="group")
    def best(completion_texts: list[str]) -> list[float]:
        return [0.0 for _ in completion_texts]

    with (
        Composer({"best": best}) as composer,
        pytest.raises(ConfigError, match="compares the completions to one prompt"),
    ):
        attack_rewards(composer, rows())


def test_within_a_group_an_edited_answer_stands_among_the_others() -> None:
    """Under group_zscore the total of an edited answer is that of a group in which it replaced its original."""
    table = rows(10, 4)
    with Composer({"wordy": Component(wordy, normalizer=GroupZScore())}) as composer:
        report = attack_rewards(composer, table, edits=[PHRASE], depth=1)
    lengths = np.array(
        [[len(row["completion"].split()) for row in table[start : start + 4]] for start in range(0, 40, 4)]
    )
    before = (lengths - lengths.mean(axis=1, keepdims=True)) / lengths.std(axis=1, keepdims=True)
    gains = []
    for group, totals in zip(lengths.astype(float), before, strict=True):
        for place in range(4):
            edited = group.copy()
            edited[place] += 1
            gains.append(((edited - edited.mean()) / edited.std())[place] - totals[place])
    spread = math.sqrt((before**2).sum() / 30)
    assert report.results[0].total.value == pytest.approx(np.mean(gains) / spread, rel=1e-6)


def test_a_normalizer_within_groups_needs_groups() -> None:
    """With one answer a prompt all totals would be 0."""
    composer = Composer({"wordy": Component(wordy, normalizer=GroupZScore())})
    with composer, pytest.raises(DataError, match="no prompt has several"):
        attack_rewards(composer, rows(10))


def test_normalizers_learn_from_real_answers_and_not_from_edited_ones() -> None:
    """zscore's mean and deviation are those of the real answers, so that the edited total is known exactly."""
    table = rows(12)
    with Composer({"wordy": Component(wordy, normalizer=ZScore())}) as composer:
        before = composer.state_dict()
        report = attack_rewards(composer, table, edits=[PHRASE], depth=1)
        assert composer.state_dict() == before  # which is nothing's to change
    lengths = np.array([len(row["completion"].split()) for row in table])
    assert report.spread[0] == pytest.approx(lengths.std(ddof=1) / lengths.std())
    assert report.results[0].total.value * report.spread[0] == pytest.approx(1 / lengths.std())


def test_nothing_is_scored_twice_and_the_cost_is_said_before() -> None:
    """Equal edited answers are scored once, and no more completions than were told."""
    scored: list[str] = []

    def watched(completion_texts: list[str]) -> list[float]:
        scored.extend(completion_texts)
        return [float(len(text)) for text in completion_texts]

    with Composer({"watched": watched}) as composer:
        attack = RewardAttack(composer, rows(10), depth=2)
        real, edited, calls = attack.cost()
        attack.run()
    assert real == 10
    assert len(scored) <= real + edited
    assert calls == {"watched": None}
    texts = [text for text in scored if text.startswith("I'm sorry")]
    assert len(texts) == 10  # a refusal of each prompt, once


def test_the_limit_draws_prompts_with_all_their_answers() -> None:
    """Three of twelve prompts, the same for the same seed, with both answers."""
    with Composer({"wordy": wordy}) as composer, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = [attack_rewards(composer, rows(12, 2), edits=[PHRASE], limit=3, seed=seed) for seed in (0, 0, 1)]
    assert [(each.answers, each.prompts, each.of_prompts) for each in drawn] == [(6, 3, 12)] * 3
    assert drawn[0].record() == drawn[1].record()
    assert drawn[0].record() != drawn[2].record()


def test_a_chain_is_found_where_two_edits_pay_more_than_one() -> None:
    """Both phrases are paid; the chain of both is the first finding, and depth 1 does not look for it."""
    second = Edit("second", "another phrase", (1.0,), lambda _prompt, answer, _level, _draw: f"{answer} Certified.")

    def certified(completion_texts: list[str]) -> list[float]:
        return [float("Certified" in text) for text in completion_texts]

    with Composer({"wordy": wordy, "phrase": phrase, "certified": certified}) as composer:
        table, edits = rows(12), [PHRASE, second]
        assert found(attack_rewards(composer, table, edits=edits, depth=1)) == ["phrase 1", "second 1"]
        both = attack_rewards(composer, table, edits=edits, depth=2)
    assert both.findings[0].result.name in {"phrase 1 + second 1", "second 1 + phrase 1"}
    assert both.findings[0].result.total.value == pytest.approx(2 * both.findings[1].result.total.value)


def test_a_gate_that_closes_is_the_gate_that_it_says() -> None:
    """The first remedy against a key phrase is put into the composition, and then the edit is no finding any more."""
    table = rows(20, 2)
    with Composer(of_witness(wordy=wordy)) as composer:
        report = attack_rewards(composer, table, witness="bright", depth=1)
    remedy = next(each for each in report.findings[0].remedies if each.kind == "gate" and "rewards" not in each.config)
    assert remedy.closes
    assert remedy.stopped <= 0.05
    gate = Gate(**remedy.config["gates"][0])
    with Composer(of_witness(wordy=wordy), gates=[gate]) as composer:
        after = attack_rewards(composer, table, witness="bright", depth=1)
    result = next(each for each in after.results if each.chain == report.findings[0].result.chain)
    assert result.total.value == pytest.approx(remedy.total.value)
    assert report.findings[0].result.name not in found(after)


def test_every_remedy_is_a_change_that_the_loader_accepts(tmp_path: Path) -> None:
    """Each config of a remedy, over the composition, is a composition; and closing means what it says."""
    (tmp_path / "mine.py").write_text(
        "def wordy(completion_texts):\n    return [len(t.split()) for t in completion_texts]\n"
    )
    config: dict[str, Any] = {
        "rewards": {
            "wordy": {"use": f"{tmp_path}/mine.py:wordy"},
            "format": {"params": {"pattern": "."}},
        }
    }
    with Composer.from_config(config) as composer:
        report = attack_rewards(composer, rows(12, 2), depth=1)
    kinds = set()
    for finding in report.findings:
        for remedy in finding.remedies:
            kinds.add(remedy.kind)
            held = [one["reward"] for one in remedy.config.get("constraints", ())]
            assert "wordy" not in held  # it would undo what its weight is for
            validate(CompositionConfig, Document(merged(config, dict(remedy.config))))
            if remedy.closes:
                assert not (remedy.total.low > 0 and remedy.gap.low > 0)
                assert min(remedy.total.value, remedy.gap.value) <= 0
            assert remedy.yaml
    assert kinds == {"gate", "constraint", "penalty", "normalizer", "weight"}


def test_another_normalizer_comes_with_the_weight_that_keeps_its_rewards_influence(folder: Path) -> None:
    """Real totals vary under it as much as before, to the digits of the weight."""
    table, config = rows(12), yaml.safe_load(CONFIG)
    with Composer.from_config(config) as composer:
        report = attack_rewards(composer, table, witness="bright", edits=[PHRASE], depth=1)
    [finding] = report.findings
    others = [remedy for remedy in finding.remedies if remedy.kind == "normalizer"]
    assert len(others) == 2
    for remedy in others:
        with Composer.from_config(merged(config, dict(remedy.config))) as composer:
            after = attack_rewards(composer, table, witness="bright", edits=[PHRASE], depth=1)
        assert after.spread[0] == pytest.approx(report.spread[0], rel=1e-3)


def test_the_changes_close_what_they_say_they_close(folder: Path) -> None:
    """Every finding that any remedy closes is closed by one change; each change, put into place, closes all it names."""
    table = rows(12, 2)
    config = yaml.safe_load(CONFIG)
    with Composer.from_config(config) as composer:
        report = attack_rewards(composer, table, witness="bright", depth=1)
    named = [name for change in report.changes for name in change.closes]
    assert sorted(named) == sorted(
        finding.result.name for finding in report.findings if any(remedy.closes for remedy in finding.remedies)
    )
    assert named
    for change in report.changes:
        with Composer.from_config(merged(config, yaml.safe_load(change.remedy.yaml))) as composer:
            after = attack_rewards(composer, table, witness="bright", depth=1)
        assert not {*change.closes} & {*found(after)}


def test_a_change_that_makes_all_answers_alike_closes_nothing() -> None:
    """Without the only reward that tells real answers apart no edit pays, and no answer does."""

    def same(completion_texts: list[str]) -> list[float]:
        return [1.0 for _ in completion_texts]

    with Composer({"wordy": wordy, "same": same}) as composer:
        report = attack_rewards(composer, rows(12), edits=[PHRASE], depth=1)
    [none] = [each for each in report.findings[0].remedies if each.config == {"rewards": {"wordy": {"weight": 0.0}}}]
    assert none.total.value == 0
    assert not none.closes


def test_a_gate_or_constraint_may_pay_too() -> None:
    """What a constraint gives back is told as the payer's part."""
    held = Constraint("phrase", min=0.5, initial=4.0)
    parts = {"wordy": Component(wordy, weight=0.1), "phrase": Component(phrase, weight=0)}
    with Composer(parts, constraints=[held]) as composer:
        report = attack_rewards(composer, rows(12), edits=[PHRASE], depth=1)
    assert report.findings[0].result.payer == "constraint mean phrase >= 0.5"


def test_best_of_several_answers_is_compared_with_the_witness() -> None:
    """Where the total is paid for what the witness dislikes, choosing by it is an overpayment, with examples."""

    def opposite(completion_texts: list[str]) -> list[float]:
        return [-value for value in wordy(completion_texts)]

    with Composer({"wordy": wordy, "opposite": Component(opposite, weight=0)}) as composer:
        report = attack_rewards(composer, rows(12, 4), witness="opposite", edits=[SHORTER], depth=1)
    assert report.best_of is not None
    assert report.best_of.loss is not None
    assert report.best_of.loss.low > 0
    assert report.overpays
    assert not report.findings
    assert len(report.overrated) == 3
    assert report.overrated[0].total > 0 > report.overrated[0].witness


def test_the_spread_is_within_prompts_where_enough_prompts_have_several_answers() -> None:
    """Pooled over prompts against a slow reference; over all answers with too few, and 0 where nothing varies."""
    draw = np.random.default_rng(0)
    values, group = draw.normal(size=40) + np.repeat(np.arange(10) * 9.0, 4), np.repeat(np.arange(10), 4)
    slow = math.sqrt(sum(values[group == each].var(ddof=1) for each in range(10)) / 10)
    assert spread_of(values, group) == (pytest.approx(slow), "the answers to one prompt")
    assert spread_of(values[:8], group[:8]) == (pytest.approx(values[:8].std(ddof=1)), "all answers")
    assert spread_of(np.full(6, 0.1), np.arange(6))[0] == 0.0
    assert spread_of(np.r_[values, np.nan], np.r_[group, 10])[0] == pytest.approx(slow)


@pytest.mark.parametrize(
    ("completion", "edited"),
    [
        ("It is ten.", "No."),
        ("<think>Hm. It is ten.</think>It is ten.", "<think>Hm. It is ten.</think>No."),
        ([{"role": "assistant", "content": "It is ten."}], [{"role": "assistant", "content": "No."}]),
        (
            [
                {"role": "assistant", "content": "It is ten."},
                {"role": "tool", "content": "It is ten."},
                {"role": "assistant", "content": "So: "},
                {"role": "assistant", "content": "It is ten.", "reasoning_content": "hm"},
            ],
            [
                {"role": "assistant", "content": "It is ten."},
                {"role": "tool", "content": "It is ten."},
                {"role": "assistant", "content": "No.", "reasoning_content": "hm"},
            ],
        ),
        ("", "No."),
        ([], [{"role": "assistant", "content": "No."}]),
    ],
)
def test_an_edit_changes_the_policys_last_words_alone(completion: Any, edited: Any) -> None:
    """Thinking, tools' results and earlier turns stay as they are."""
    assert with_answer(completion, "No.") == edited
    assert view(with_answer(completion, "No."), "answer") == "No."


def test_chat_rows_are_attacked_as_text_is() -> None:
    """Messages give the gains that the same texts give."""
    table = rows(10)
    chat = [
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in table
    ]
    with Composer(of_witness(wordy=wordy)) as composer:
        text, messages = (attack_rewards(composer, each, witness="bright", depth=1) for each in (table, chat))
    assert [each.record() for each in text.results] == [each.record() for each in messages.results]


def test_a_reward_that_ends_the_run_ends_the_attack() -> None:
    """What fails on every row of its first batch is told as such."""

    def broken(completion_texts: list[str]) -> list[float]:
        raise NameError("name 'lenght' is not defined")

    with Composer({"broken": broken}) as composer, pytest.raises(RewardError, match="lenght"):
        attack_rewards(composer, rows())


def test_a_witness_that_reads_a_column_is_told() -> None:
    """It says of an edited answer what it says of the real one, since the column does not change."""

    def people(completion_texts: list[str], worth: list[float]) -> list[float]:
        return worth

    composer = Composer({"wordy": wordy, "people": Component(people, weight=0)})
    with composer, pytest.warns(UserWarning, match="as if it read a column"):
        attack_rewards(composer, rows(10), witness="people", depth=1)


# --- the command


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["attack", "rewards", "rows.jsonl", "rewards.yaml", *arguments])


def test_the_command_tells_findings_and_what_closes_them(folder: Path) -> None:
    """The table, an example, a gate as YAML; exit 0, and 1 where that is asked for."""
    done = run("--witness", "bright", "--depth", "1", "--report", "page.html", "--plot", "plot.png")
    assert done.exit_code == 0, done.output
    for part in (
        "padding 4",
        "wordy pays:",
        "before: ",
        "change 1 closes it",
        "Change 1: a gate that closes",
        "gates:",
        "overpaid edits",
    ):
        assert part in done.output, part
    assert "scoring 24 real answers and at most " in done.stderr
    assert "Changes that were tried" in (folder / "page.html").read_text()
    assert (folder / "plot.png").stat().st_size > 1000
    assert run("--witness", "bright", "--fail-on-success", "--only", "padding").exit_code == 1
    assert run("--witness", "bright", "--fail-on-success", "--only", "truncation").exit_code == 0


def test_the_command_gives_all_as_json(folder: Path) -> None:
    """What a script reads has every trial and every change that was tried; an edit of one's own is among them."""
    done = run("--witness", "bright", "--json", "--edit", "./mine.py:shouted", "--only", "shouted", "--only", "padding")
    record = json.loads(done.stdout)
    assert {edit["name"] for each in record["results"] for edit in each["edits"]} == {"shouted", "padding"}
    assert record["findings"][0]["remedies"][0]["closes"]
    assert record["best_of"]["points"]


def test_without_a_witness_the_command_says_what_that_means(folder: Path) -> None:
    """Loudly, before anything is scored."""
    done = run("--only", "padding")
    assert "warning: without --witness any rise of the total is a finding, deserved or not" in done.stderr
    assert done.exit_code == 0


def test_answers_that_are_left_out_are_told_at_the_end(folder: Path) -> None:
    """What was found is there without them, and the command exits with 3, as all that leave rows out."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    (folder / "mine.py").write_text(
        CODE.replace(
            "def wordy(completion_texts):",
            "def wordy(completion_texts):\n    return silent(completion_texts)\n\n\ndef words(completion_texts):",
        )
        + f"\ndef silent(texts):\n    return [None if text == {rows[0]['completion']!r} else value for text, value in zip(texts, words(texts))]\n"
    )
    done = run("--witness", "bright", "--only", "padding")
    assert done.exit_code == 3, done.output
    assert "1 of 24 answers are unscored and count nowhere: " in done.stderr


def test_the_check_says_the_cost_and_writes_nothing(folder: Path) -> None:
    """One row is scored; no ledger is made though the composition names one."""
    (folder / "rewards.yaml").write_text(f"{CONFIG}ledger: scores.sqlite\n")
    done = run("--witness", "bright", "--check")
    assert done.exit_code == 0, done.output
    assert "scoring 24 real answers and at most " in done.stderr
    assert not (folder / "scores.sqlite").exists()


def test_a_ledger_pays_for_nothing_twice(folder: Path) -> None:
    """The second attack asks no reward about anything that the first one scored."""
    (folder / "mine.py").write_text(
        f"{CODE}\nasked = []\nimport pathlib\n"
        + CODE.replace(
            "def wordy(completion_texts):",
            "def wordy(completion_texts):\n    with pathlib.Path('asked').open('a') as file:\n        file.write('x' * len(completion_texts))",
        )
    )
    (folder / "rewards.yaml").write_text(f"{CONFIG}ledger: scores.sqlite\n")
    assert run("--witness", "bright", "--only", "padding").exit_code == 0
    asked = (folder / "asked").stat().st_size
    assert asked > 24
    assert run("--witness", "bright", "--only", "padding").exit_code == 0
    assert (folder / "asked").stat().st_size == asked


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nothing"], "there is no edit 'nothing'"),
        (["--edit", "./mine.py:nothing"], "has no attribute 'nothing'"),
        (["--edit", "./mine.py:CODE"], "has no attribute 'CODE'"),
        (["--witness", "wordy"], "the total depends on 'wordy'"),
        (["--witness", "nobody"], "there is no reward 'nobody'"),
    ],
)
def test_a_wrong_option_is_told(folder: Path, arguments: list[str], told: str) -> None:
    """Before anything is scored, with what there is."""
    done = run(*arguments)
    assert done.exit_code != 0
    assert told in str(done.exception)


def test_an_edit_of_ones_own_needs_a_name_of_its_own(tmp_path: Path) -> None:
    """Two of one name could not be told apart; what is no function is refused."""
    (tmp_path / "mine.py").write_text("def padding(prompt, answer):\n    return answer\nnumber = 5\n")
    with pytest.raises(ConfigError, match="two edits have the name 'padding'"):
        load_edits(["./mine.py:padding"], folder=tmp_path)
    with pytest.raises(ConfigError, match="is no edit"):
        load_edits(["./mine.py:number"], folder=tmp_path)
