"""Pairs from contrasting prompts, the self-rewarding score, and the job that makes them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlaif_sdk import ConfigError, DataError, JudgeError, MissingExtraError
from rlaif_sdk.cli.main import app
from rlaif_sdk.preferences.contrastive import (
    Contrast,
    ContrastingLogprobs,
    ContrastiveConfig,
    MarginConfig,
    contrasting_logprobs,
    make_contrastive,
    self_rewarding_margin,
)
from rlaif_sdk.preferences.pipeline import load_make_job
from tests.judges.conftest import completion, tiny_chat  # noqa: F401 - fixture
from tests.preferences.making import kill_when, rows_of, slow_down, write_rows

NATS = st.floats(-500, 0)


def two_faced(_: int, sent: dict[str, Any]) -> Any:
    """Kind when it is asked to be considerate, rude otherwise."""
    text = sent["messages"][-1]["content"]
    question = text.rpartition("question ")[2]
    tone = "kind" if "considerate" in text else "rude"
    return 200, {}, {**completion(f"{tone} {question}"), "usage": {"prompt_tokens": 30, "completion_tokens": 5}}


@pytest.fixture
def config(tmp_path: Path, pair_server: Any) -> Path:
    """A job of six prompts with a server."""
    pair_server.answer = two_faced
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"question {row}", "topic": row} for row in range(6)])
    job = {
        "prompts": {"file": "prompts.jsonl"},
        "policy": {"model": "tiny", "base_url": pair_server.url, "concurrency": 3},
        "licence": ["prompts: CC0"],
    }
    path = tmp_path / "contrastive.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


@pytest.fixture
def local_config(config: Path, tmp_path: Path, tiny_chat: Any) -> Path:  # noqa: F811
    """The same with a tiny model on disk."""
    for part in tiny_chat:
        part.save_pretrained(tmp_path / "policy")
    job = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**job, "policy": {"model": str(tmp_path / "policy")}, "max_new_tokens": 6}))
    return config


def make(config: Path, *overrides: str) -> Any:
    return make_contrastive(load_make_job(ContrastiveConfig, config, overrides=overrides))


def test_the_prompt_that_made_an_answer_is_its_label(config: Path, pair_server: Any) -> None:
    """The answer to the prompt that asks for the virtue is chosen, surely; the row keeps the plain prompt."""
    result = make(config)
    rows = rows_of(result.tables["pairs"])
    assert [row["prompt"] for row in rows] == [f"question {row}" for row in range(6)]
    assert [(row["chosen"], row["rejected"]) for row in rows] == [(f"kind {row}", f"rude {row}") for row in range(6)]
    assert {(row["chosen_prob"], row["source"]) for row in rows} == {(1.0, "contrastive")}
    assert [row["topic"] for row in rows] == list(range(6))
    assert "margin" not in rows[0]
    assert (len(pair_server.requests), result.usage.calls, result.failures) == (12, 12, None)
    assert json.loads((config.parent / "made" / "__job__" / "summary.json").read_text())["pairs"] == 6


def test_a_conversation_stays_one(config: Path, pair_server: Any) -> None:
    """The words go around the user's last message, and the answers are messages."""
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "question 9"},
    ]
    write_rows(config.parent / "prompts.jsonl", [{"prompt": turns}])
    [row] = rows_of(make(config).tables["pairs"])
    assert row["prompt"] == turns
    assert row["chosen"] == [{"role": "assistant", "content": "kind 9"}]
    first = pair_server.requests[0]["messages"]
    assert [turn["content"] for turn in first[:2]] == ["hello", "hi"]
    assert first[2]["content"].startswith("Answer the request")
    assert first[2]["content"].endswith("question 9")


def test_a_contrast_of_ones_own(config: Path, pair_server: Any) -> None:
    """A YAML file says what is put around the prompt."""
    (config.parent / "mine.yaml").write_text(
        "positive: {after: ' (be considerate)'}\nnegative: {before: '(be curt) '}\n"
    )
    make(config, "contrast=mine.yaml", "prompts.rows=1")
    asked = {request["messages"][0]["content"] for request in pair_server.requests}
    assert asked == {"question 0 (be considerate)", "(be curt) question 0"}


@pytest.mark.parametrize("name", ["harmlessness", "helpfulness"])
def test_the_packaged_contrasts_ask_for_opposites_about_the_same_prompt(name: str) -> None:
    """Both sides end with the prompt itself, and differ."""
    contrast = Contrast.load(name, Path())
    sides = [contrast.positive.around("Why?"), contrast.negative.around("Why?")]
    assert sides[0] != sides[1]
    assert all(side.endswith("\n\nWhy?") for side in sides)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("positive: {before: a}\nnegative: {before: a}\n", "are the same"),
        ("positive: {befor: a}\nnegative: {before: a}\n", "befor"),
        ("positive: {system: a}\nnegative: {before: a}\n", "no place for a system message"),
    ],
)
def test_a_contrast_that_is_none_is_refused(config: Path, text: str, problem: str) -> None:
    """Two equal sides, a misspelt key, or a system message for prompts in text."""
    (config.parent / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        make(config, "contrast=mine.yaml")
    with pytest.raises(ConfigError, match=r"--set: contrast: .*no contrast 'kindness'"):
        make(config, "contrast=kindness")


def test_equal_and_empty_answers_make_no_pair(config: Path, pair_server: Any) -> None:
    """They say nothing about what is better; they are counted."""
    pair_server.answer = lambda _, sent: (
        (200, {}, completion(" " if "question 1" in sent["messages"][0]["content"] else "same"))
    )
    result = make(config)
    assert rows_of(result.tables["pairs"]) == []
    assert result.counts["skipped/equal_answers"] == 5
    assert result.counts["skipped/empty_answer"] == 1


def test_a_killed_job_sends_only_what_is_missing(config: Path, pair_server: Any) -> None:
    """kill -9 in the middle: every answer that was on disk is kept, down to one of a pair."""
    write_rows(config.parent / "prompts.jsonl", [{"prompt": f"question {row}"} for row in range(40)])
    asked = slow_down(pair_server, lambda _, answered: answered[2]["choices"][0]["message"]["content"])
    program = (
        "from rlaif_sdk.preferences.contrastive import *; from rlaif_sdk.preferences.pipeline import load_make_job; "
        f"make_contrastive(load_make_job(ContrastiveConfig, {str(config)!r}))"
    )
    done = {line["row"] for line in kill_when(program, config.parent / "made" / "__job__" / "journal.jsonl", 15)}
    assert 15 <= len(done) < 80
    time.sleep(0.1)
    asked.clear()
    result = make(config)
    expected = {f"{tone} {row}" for row in range(40) for side, tone in enumerate(("kind", "rude")) if 2 * row + side not in done}  # fmt: skip
    assert sorted(asked) == sorted(expected)
    assert [row["chosen"] for row in rows_of(result.tables["pairs"])] == [f"kind {row}" for row in range(40)]
    assert (result.steps_run, result.usage.calls) == (80 - len(done), 80)


@pytest.mark.parametrize(
    ("override", "named"),
    [("temperature=0.5", "sampling"), ("contrast=helpfulness", "contrast"), ("policy.model=other", "policies")],
)
def test_a_changed_setting_is_refused_by_name(config: Path, pair_server: Any, override: str, named: str) -> None:
    """Answers of two settings do not mix in one folder."""
    make(config)
    pair_server.requests.clear()
    with pytest.raises(ConfigError, match=f"another dataset:\n  {named}: "):
        make(config, override)
    make(config, "max_failed_share=0.5", "rows_per_call=3")
    assert not pair_server.requests


def test_failed_rows_are_told_and_tried_again(config: Path, pair_server: Any) -> None:
    """A row whose answer failed makes no pair; the next start asks about it alone."""
    pair_server.answer = lambda number, sent: (
        (400, {}, {}) if sent["messages"][0]["content"].endswith("question 3") else two_faced(number, sent)
    )
    with pytest.raises(JudgeError, match="max_failed_share"):
        make(config, "max_failed_share=0.05")
    result = make(config)
    assert (result.counts["pairs"], result.counts["rows_failed"]) == (5, 1)
    [failure] = rows_of(result.failures)
    assert (failure["row"], failure["prompt"], failure["kind"]) == (4, "question 3", "JudgeResponseError")
    pair_server.answer = two_faced
    pair_server.requests.clear()
    again = make(config)
    assert (again.counts["pairs"], again.failures, len(pair_server.requests)) == (6, None, 2)


def test_parquet_without_pyarrow_is_refused_before_anything_is_sent(
    config: Path, pair_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for labels: no answer is paid for that could not be written."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow"):
        make(config, "format=parquet")
    assert pair_server.requests == []


def test_a_bad_prompt_is_named_before_anything_is_sent(config: Path, pair_server: Any) -> None:
    """The whole file is read first."""
    with (config.parent / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": 3}\n')
    with pytest.raises(DataError, match=r"prompts.jsonl:7.*cannot be read: 3 is neither"):
        make(config)
    assert not pair_server.requests


def test_a_server_gives_no_self_rewarding_score(config: Path, pair_server: Any) -> None:
    """It says how likely its own answers are and no others; that is said before anything is sent."""
    with pytest.raises(ConfigError, match="chat servers do not give"):
        make(config, "margin={}")
    assert not pair_server.requests


def test_the_margin_is_the_clipped_score_of_the_models_own_log_probabilities(
    local_config: Path,
    tiny_chat: Any,  # noqa: F811
) -> None:
    """Each row's four log-probabilities are the model's, the score is their contrast, and the margin follows from it."""
    from rlaif_sdk.preferences.policy import LocalPolicy

    done = CliRunner().invoke(app, ["make", "contrastive", str(local_config), "--margin", "--set", "format=parquet"])
    assert done.exit_code == 0, done.output
    rows = rows_of(local_config.parent / "made" / "pairs.parquet")
    assert len(rows) == 6
    contrast, policy = Contrast.load("harmlessness", Path()), LocalPolicy(*tiny_chat)
    for row in rows:
        prompts = [side.around(row["prompt"]) for side in (contrast.positive, contrast.negative)]
        asked = [(prompt, row[answer]) for answer in ("chosen", "rejected") for prompt in prompts]
        a, b, c, d = asyncio.run(policy.answer_logprobs(asked))
        assert row["self_reward"] == pytest.approx((a - b) - (c - d), abs=1e-3)
        assert row["margin"] == pytest.approx(0.05 * min(max(row["self_reward"], -40), 40))
    assert "scores_below_0" in done.output


def test_the_margins_reach_dpo(local_config: Path) -> None:
    """The made rows are what the trainer of DPO takes, margin and all."""
    pytest.importorskip("trl")
    from datasets import Dataset

    from rlaif_sdk.training.data import checked_preferences

    rows = rows_of(make(local_config, "margin={scale: 0.1}").tables["pairs"])
    checked = checked_preferences(Dataset.from_list(rows), "train")
    assert set(checked.column_names) >= {"prompt", "chosen", "rejected", "chosen_prob", "margin"}
    assert any(margin != 0 for margin in checked["margin"])


@given(NATS, NATS, NATS, NATS)
def test_the_score_is_turned_round_with_answers_and_with_prompts(a: float, b: float, c: float, d: float) -> None:
    """Exchanging the answers, or the prompts, changes its sign; a model that both prompts leave cold gives 0."""
    score = ContrastingLogprobs(a, b, c, d).score
    assert ContrastingLogprobs(c, d, a, b).score == pytest.approx(-score)
    assert ContrastingLogprobs(b, a, d, c).score == pytest.approx(-score)
    assert ContrastingLogprobs(a, a, c, c).score == 0


@given(NATS, NATS, NATS, NATS, st.floats(-50, 0), st.floats(0, 50), st.floats(0.01, 2))
def test_the_margin_is_the_papers_formula(
    a: float, b: float, c: float, d: float, low: float, high: float, scale: float
) -> None:
    """scale * clip(log [pi(a1|p+) / pi(a1|p-)] - log [pi(a2|p+) / pi(a2|p-)], low, high), of ratios of probabilities."""
    expected = scale * float(np.clip(np.log(np.exp(a - b)) - np.log(np.exp(c - d)), low, high))
    settings = MarginConfig(low=low, high=high, scale=scale)
    found = self_rewarding_margin(ContrastingLogprobs(a, b, c, d).score, settings)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("score", "margin"), [(1.5, 0.15), (9.0, 0.3), (-9.0, -0.2)])
def test_the_self_rewarding_margin_is_clipped_then_scaled(score: float, margin: float) -> None:
    """The bounds are of the score, in nats before the scale."""
    assert self_rewarding_margin(score, MarginConfig(low=-2, high=3, scale=0.1)) == pytest.approx(margin)


def test_bounds_in_the_wrong_order_are_refused() -> None:
    """A clip would answer with the upper bound without a word."""
    with pytest.raises(ValueError, match="above"):
        MarginConfig(low=1, high=-1)


def test_a_pair_that_is_too_long_has_no_score(tiny_chat: Any) -> None:  # noqa: F811
    """It is an error in its place, and the others are scored."""
    from rlaif_sdk.judges.backends import RowError
    from rlaif_sdk.preferences.policy import LocalPolicy

    policy = LocalPolicy(*tiny_chat, max_length=30)
    long, fine = asyncio.run(contrasting_logprobs(policy, [("p" * 50, "q", "a", "b"), ("p", "q", "a", "b")]))
    assert isinstance(long, RowError)
    assert isinstance(fine, ContrastingLogprobs)


def test_the_card_says_how_the_pairs_were_made(config: Path) -> None:
    """Method, model, digests, settings, counts, versions and the user's licence lines; the same when made again."""
    result = make(config)
    card = result.card.read_text()
    for said in (
        "arXiv 2307.12950",
        "prompts: CC0",
        "| model | tiny |",
        "prompts.jsonl",
        "| rlaif-sdk |",
        "| pairs | 6 |",
    ):
        assert said in card
    assert "temperature" in card
    assert make(config).card.read_text() == card


def test_a_card_shows_no_secret_and_keeps_its_cells(config: Path) -> None:
    """Further fields of requests may hold keys: they stay out; a pipe or a newline cannot break out of a table."""
    result = make(config, "policy.extra_body={token: geheim}", 'licence=["a | b\\n# c"]')
    card = result.card.read_text()
    assert "geheim" not in card
    assert "- a \\| b # c" in card
