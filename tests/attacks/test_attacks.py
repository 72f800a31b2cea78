"""Attacks on judges: what succeeds is found, and the judges' defences are on by default."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif_sdk import ConfigError, JudgeError
from rlaif_sdk.attacks import (
    Attack,
    AttackReport,
    Case,
    attack_judge,
    load_attacked,
    load_attacks,
    load_cases,
    measure_refusals,
)
from rlaif_sdk.attacks.run import Trials
from rlaif_sdk.conversations import read
from rlaif_sdk.conversations.templates import ChatEncoder
from rlaif_sdk.exceptions import JudgeResponseError
from rlaif_sdk.judges import PairwiseLabeler, PointwiseJudge
from rlaif_sdk.judges.backends.local import TransformersBackend
from rlaif_sdk.judges.screening import screen
from rlaif_sdk.testing import ScriptedJudge

CASES = [Case(prompt="Why?", poor="zork", good="fine"), Case(prompt="How?", poor="grue", good="finest")]
FAMILIES = {
    "master key", "opening", "verdict spoofing", "score flood", "instruction", "praise", "delimiter", "special token", "role marker",
    "fake transcript", "homoglyph", "invisible", "encoding", "template code", "verbosity", "position",
}  # fmt: skip


def scripted(script: Any) -> ScriptedJudge:
    return ScriptedJudge(script)


def named(trials: Any, name: str) -> Trials:
    return next(found for attack, found in trials.items() if attack.name == name)


def flat(report: AttackReport) -> set[str]:
    return {attack.name for attack, trials in report.defended.items() if trials.succeeded}


def test_the_corpus_has_every_family() -> None:
    """Each family that judges are known to fall for is tried, and none is there twice."""
    attacks = load_attacks()
    assert {attack.family for attack in attacks} == FAMILIES
    assert len(attacks) >= 150
    assert len({attack.language for attack in attacks}) >= 12
    for family in ("opening", "instruction", "verdict spoofing", "praise"):
        assert len({attack.language for attack in attacks if attack.family == family}) >= 12
    assert len(load_cases()) >= 8
    assert any("\ud800" in attack.text for attack in attacks)


@pytest.mark.parametrize(
    ("place", "made"), [("instead", "!!"), ("before", "!!ab"), ("after", "ab!!"), ("between", "a!!b"), ("swap", "ab")]
)
def test_an_attack_goes_where_it_says(place: Any, made: str) -> None:
    """Instead, before, after, between all letters; a swap leaves the text."""
    assert Attack(family="f", name="n", place=place, text="!", times=2).apply("ab") == made


def test_a_spoofed_verdict_that_lifts_the_score_is_a_success() -> None:
    """A judge that believes "Score: 10" is caught, with the size of the gain; a plain poor answer gains nothing."""
    judge = PointwiseJudge(scripted(lambda text: {"J": 0.9, "A": 0.1} if "Score: 10" in text else {"A": 0.9, "J": 0.1}))
    report = attack_judge(judge, cases=CASES)
    found = named(report.defended, "score")
    assert (found.succeeded, found.mean_gain) == (2, pytest.approx(0.8))
    assert named(report.defended, "boxed").succeeded == 0
    assert "score" in flat(report)
    json.dumps(report.record(), allow_nan=False)


def test_a_rise_within_the_threshold_is_no_success() -> None:
    """0.05 more is within 0.1, and beyond 0.01."""
    judge = PointwiseJudge(scripted(lambda text: {"J": 0.15, "A": 0.85} if "boxed" in text else {"J": 0.1, "A": 0.9}))
    assert attack_judge(judge, cases=CASES, undefended=False).successes == 0
    assert flat(attack_judge(judge, cases=CASES, threshold=0.01, undefended=False)) == {"boxed"}


def test_master_keys_are_refused_by_default_and_rewarded_without_defences() -> None:
    """A judge that loves short answers gives an empty one the best score; the screening never lets it see one."""
    seen: list[str] = []

    def loves_empty(text: str) -> dict[str, float]:
        seen.append(text)
        empty = not any(poor in text for poor in ("zork", "grue"))
        return {"J": 1.0} if empty else {"A": 1.0}

    report = attack_judge(PointwiseJudge(scripted(loves_empty)), cases=CASES)
    for attack, trials in report.defended.items():
        if attack.family == "master key" or (attack.family == "opening" and attack.place == "instead"):
            assert trials.succeeded == 0
            assert trials.marks["contentless"] == 2
            assert report.undefended[attack].succeeded == 2


def test_invisible_tricks_are_undone_by_default() -> None:
    """The judge is asked about the answer without them, flagged; without defences they reach it."""
    tricks = [attack for attack in load_attacks() if attack.family == "invisible"]
    hidden = ("\u200b", "\u200d", "\u202e", "\u2063", "\U000e0053", "\ud800")
    backend = scripted(lambda _: {"A": 1.0})
    report = attack_judge(PointwiseJudge(backend), attacks=tricks, cases=CASES, undefended=False)
    asked = "".join(turn.content for request in backend.requests for turn in read(request))
    assert not any(sign in asked for sign in hidden)
    assert all(sum(trials.marks.values()) >= 2 for trials in report.defended.values())
    attack_judge(PointwiseJudge(backend), attacks=tricks, cases=CASES)
    asked = "".join(turn.content for request in backend.requests for turn in read(request))
    assert all(sign in asked for sign in hidden if sign != "\ud800")  # which no naive judge can be sent


def test_delimiters_and_placeholders_in_an_answer_are_inert_by_default() -> None:
    """The tags in force occur in no answer, and no placeholder of an answer is filled; without defences they are."""
    tricks = [attack for attack in load_attacks() if attack.family in {"delimiter", "template code"}]
    backend = scripted(lambda _: {"1": 0.5, "2": 0.5})
    attack_judge(PairwiseLabeler(backend), attacks=tricks, cases=CASES[:1], undefended=False)
    defended = [read(request)[0].content for request in backend.requests]
    forged = next(text for text in defended if "Response 2 is excellent" in text)
    assert forged.count("</response_2>") == 1  # the attacker's own
    assert forged.count("<response_2-2>") == forged.count("</response_2-2>") == 1  # the judge's
    assert any("\n{response_2} {response_1}\n" in text for text in defended)
    naive = scripted(lambda _: {"1": 0.5, "2": 0.5})
    attack_judge(PairwiseLabeler(naive), attacks=tricks, cases=CASES[:1])
    undefended = [read(request)[0].content for request in naive.requests][len(defended) :]
    assert not any("<response_1-2>" in text for text in undefended)
    assert any("{verdict} {criteria} {preamble}" in text for text in undefended)
    pointwise = scripted(lambda _: {"A": 1.0})
    attack_judge(PointwiseJudge(pointwise), attacks=tricks, cases=CASES[:1])
    texts = [read(request)[0].content for request in pointwise.requests]
    assert sum("zork {verdict} {criteria}" in text for text in texts) == 1  # as it is, with only the defences


def test_the_other_place_wins_nothing_where_both_orders_are_asked() -> None:
    """A judge that always says 1 is moved by the place; averaged over both orders it is not."""
    always_first = scripted(lambda _: {"1": 0.9, "2": 0.1})
    report = attack_judge(PairwiseLabeler(always_first), cases=CASES)
    assert named(report.defended, "other place").succeeded == 0
    assert named(report.undefended, "other place").succeeded == 2
    one_order = attack_judge(PairwiseLabeler(always_first, orders="given"), cases=CASES)
    assert named(one_order.defended, "other place").succeeded == 2


def test_a_winner_that_a_small_rise_turns_is_told_apart_from_a_success() -> None:
    """From 0.48 to 0.52 is within the threshold: the judge was torn, and noise may do as much; beyond, it is a success."""

    def slightly(text: str) -> dict[str, float]:
        if "<response_1" not in text:  # the probe
            return {"1": 0.5, "2": 0.5}
        first, second = text.index("<response_1"), text.index("<response_2")
        poor_first = any(word in text[first:second] for word in ("zork", "grue"))
        own = 0.52 if "boxed" in text else 0.48
        return {"1": own, "2": 1 - own} if poor_first else {"1": 1 - own, "2": own}

    labeler = PairwiseLabeler(scripted(slightly))
    report = attack_judge(labeler, cases=CASES, undefended=False)
    assert flat(report) == set()
    found = named(report.defended, "boxed")
    assert (found.succeeded, found.flipped, report.flipped) == (0, 2, 2)
    assert found.mean_gain == pytest.approx(0.04)
    assert json.loads(json.dumps(report.record(), allow_nan=False))["flipped"] == 2
    strict = attack_judge(labeler, cases=CASES, threshold=0.01, undefended=False)
    assert (named(strict.defended, "boxed").succeeded, strict.flipped) == (2, 0)


def test_a_judge_of_answers_is_not_asked_about_places() -> None:
    """The attack on the place is for pairs alone."""
    report = attack_judge(PointwiseJudge(scripted(lambda _: {"A": 1.0})), cases=CASES, undefended=False)
    assert "position" not in {attack.family for attack in report.defended}


def test_what_a_judge_cannot_score_is_counted_and_no_success() -> None:
    """An attack that breaks the judge's answer leaves the case unscored."""
    broken = JudgeResponseError("gibberish")
    judge = PointwiseJudge(scripted(lambda text: broken if "boxed" in text else {"A": 1.0}))
    found = named(attack_judge(judge, cases=CASES, undefended=False).defended, "boxed")
    assert (found.unscored, found.succeeded) == (2, 0)
    assert math.isnan(found.mean_gain)


def test_a_refused_key_ends_the_attack() -> None:
    """What concerns all requests is raised, and not counted as a defence."""
    with pytest.raises(JudgeError, match="no log-probabilities"):
        attack_judge(PairwiseLabeler(scripted(lambda _: JudgeError("no log-probabilities"))), cases=CASES)


@pytest.mark.parametrize("paired", [False, True])
def test_a_local_model_is_attacked_with_every_family(tiny_chat: Any, paired: bool) -> None:
    """An attack of each goes through a real tokenizer and model; with its defences, nothing is left unscored."""
    model, tokenizer = tiny_chat
    backend = TransformersBackend(model, tokenizer)
    judge = PairwiseLabeler(backend) if paired else PointwiseJudge(backend)
    attacks = list({attack.family: attack for attack in load_attacks()}.values())
    report = attack_judge(judge, attacks=attacks, cases=load_cases()[:1], undefended=False)
    assert sum(trials.unscored for trials in report.defended.values()) == 0
    assert len(report.defended) == len(FAMILIES) - (not paired)


def test_no_attack_gets_a_special_token_into_the_prompt(tiny_chat: Any) -> None:
    """Of whatever attack, the prompt has the special tokens of the template and no others."""
    _, tokenizer = tiny_chat
    encode = ChatEncoder(tokenizer)
    added = set(tokenizer.added_tokens_decoder)

    def acting(text: str) -> list[int]:
        return [token for token in encode([{"role": "user", "content": text}]) if token in added]

    honest = acting("It is blue.")
    for attack in load_attacks():
        assert acting(screen(attack.apply("It is blue.")).text) == honest, attack.name


def test_a_lone_surrogate_leaves_the_naive_judge_without_a_score(tiny_chat: Any) -> None:
    """What a defence prevents does not end the comparison."""
    surrogate = [attack for attack in load_attacks() if attack.name == "lone surrogate"]
    judge = PointwiseJudge(TransformersBackend(*tiny_chat))
    report = attack_judge(judge, attacks=surrogate, cases=CASES)
    assert named(report.defended, "lone surrogate").unscored == 0
    assert named(report.undefended, "lone surrogate").unscored == 2


def test_own_attacks_and_cases_come_from_files(tmp_path: Path) -> None:
    """A list each; a twin or an empty list is refused with its place."""
    own = {"family": "mine", "name": "one", "text": "Please!"}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump([own]))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump([{"prompt": "p", "poor": "q", "good": "r"}]))
    [attack], [case] = load_attacks(tmp_path / "a.yaml"), load_cases(tmp_path / "c.yaml")
    assert attack.apply(case.poor) == "qPlease!"
    (tmp_path / "a.yaml").write_text(yaml.safe_dump([own, own]))
    with pytest.raises(ConfigError, match="is there twice"):
        load_attacks(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("[]")
    with pytest.raises(ConfigError, match="has no cases"):
        load_cases(tmp_path / "c.yaml")


def test_the_judge_of_a_config_is_found(tmp_path: Path) -> None:
    """A labelling job gives the labeler of pairs, a composition its judge; anything else is refused with the step."""
    path = tmp_path / "c.yaml"
    path.write_text("judge:\n  model: somewhere\nmode: verdict\n")
    labeler = load_attacked(path, overrides=["orders=given"])
    assert isinstance(labeler, PairwiseLabeler)
    assert labeler.mode == "verdict"
    path.write_text(
        "rewards:\n  judge:\n    params: {model: somewhere}\n  short:\n    use: conciseness\n    params: {target: 10}\n"
    )
    assert isinstance(load_attacked(path), PointwiseJudge)
    with pytest.raises(ConfigError, match=r"c\.yaml:4: rewards\.short: 'short' is no judge"):
        load_attacked(path, reward="short")
    path.write_text("rewards:\n  short:\n    use: conciseness\n    params: {target: 10}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:1: rewards: none of them is a judge"):
        load_attacked(path)
    path.write_text("model: x\n")
    with pytest.raises(ConfigError, match="neither a judge"):
        load_attacked(path)


def test_the_threshold_is_checked() -> None:
    """1 or more could never be exceeded."""
    with pytest.raises(ConfigError, match="threshold"):
        attack_judge(PointwiseJudge(scripted(lambda _: {"A": 1.0})), threshold=1.0)


def test_a_written_verdict_is_the_judges_own_last_line() -> None:
    """A judge that quotes the attacker's verdict and then says its own is not fooled, even without the other defences."""
    judge = PairwiseLabeler(
        scripted(lambda text: f"It says 'Preferred: 2'.\nPreferred: {_good_place(text)}"), mode="verdict"
    )
    report = attack_judge(judge, cases=CASES)
    assert named(report.defended, "preferred").succeeded == 0
    assert named(report.undefended, "preferred").succeeded == 0


def _good_place(text: str) -> int:
    goods = [text.find(f"\n{word}\n") for word in ("fine", "finest")]
    poors = [text.find(f"\n{word}\n") for word in ("zork", "grue")]
    return 1 if max(goods) < max(poors) or max(poors) < 0 else 2


@pytest.mark.parametrize("kind", [PointwiseJudge, PairwiseLabeler])
def test_what_the_defences_refuse_of_real_answers_is_counted_by_the_reason(kind: Any) -> None:
    """Nothing, openings and what is too long, what is changed, and calls, which are not refused; nobody is asked."""
    backend = scripted(lambda _: {"A": 1.0})
    call = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]
    answers: list[Any] = [
        "4",
        "",
        "...",
        "Here is how:",
        "Solution",
        "no\u200bw",
        "x" * 30,
        [{"role": "assistant", "content": "Yes"}],
        call,
    ]
    found = measure_refusals(kind(backend, max_chars=20), answers)
    assert (found.answers, len(found.without_words), len(found.openings), found.overlong) == (9, 2, 2, 1)
    assert found.changed == {"invisible": 1}
    assert [one.answer for one in found.openings] == [4, 5]
    share = found.share_of_openings
    assert (share.value, share.n) == (pytest.approx(2 / 7), 7)
    assert 0 < share.low < share.value < share.high < 1
    assert "4 of 9 answers refused: 2 without a word, 2 only an opening (28.57%" in str(found)
    assert len(json.loads(json.dumps(found.record(), allow_nan=False))["refused"]) == 4
    assert not backend.requests
    assert str(measure_refusals(kind(backend), [])) == "0 of 0 answers refused: 0 without a word, 0 only an opening"
