"""Constitutional critique and revision, and preferences under principles."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlaif_sdk import ConfigError
from rlaif_sdk.cli.main import app
from rlaif_sdk.judges import Pair
from rlaif_sdk.preferences import load_label_job, run_labeling
from rlaif_sdk.preferences.constitution import Constitution, PrincipleLabeler
from rlaif_sdk.preferences.pipeline import load_make_job
from rlaif_sdk.preferences.revisions import RevisionsConfig, make_revisions
from rlaif_sdk.testing import ScriptedJudge
from tests.judges.conftest import completion
from tests.preferences.conftest import prefers_good
from tests.preferences.making import kill_when, rows_of, slow_down, write_rows

PRINCIPLES = {
    "principles": [
        {
            "name": "brief",
            "critique": "What is too long?",
            "revision": "Shorten it.",
            "preference": "Prefer the short.",
        },
        {"name": "kind", "critique": "What is rude?", "revision": "Soften it.", "preference": "Prefer the kind."},
        {"name": "plain", "critique": "What is florid?", "revision": "Flatten it."},
    ]
}


def diligent(_: int, sent: dict[str, Any]) -> Any:
    """Answers, criticises and revises so that each text says what it was made of."""
    messages = sent["messages"]
    last = messages[-1]["content"]
    if last.startswith("What is"):
        text = f"critique({messages[-2]['content']})"
    elif last.endswith("it."):
        text = f"revision({messages[-4]['content']})"
    else:
        text = f"answer({last})"
    return 200, {}, {**completion(f" {text}\n"), "usage": {"prompt_tokens": 9, "completion_tokens": 4}}


@pytest.fixture
def config(tmp_path: Path, pair_server: Any) -> Path:
    """A job of eight prompts, two rounds, and a constitution of three principles."""
    pair_server.answer = diligent
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"q{row}", "draft": f"d{row}"} for row in range(8)])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(PRINCIPLES))
    job = {
        "prompts": {"file": "prompts.jsonl"},
        "policy": {"model": "tiny", "base_url": pair_server.url, "concurrency": 3},
        "constitution": "mine.yaml",
        "rounds": 2,
    }
    path = tmp_path / "revisions.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def revise(config: Path, *overrides: str) -> Any:
    return make_revisions(load_make_job(RevisionsConfig, config, overrides=overrides))


def test_answers_are_criticised_and_revised_round_after_round(config: Path, pair_server: Any) -> None:
    """Each round starts from the answer as it stands; the last revision is imitated and preferred; all steps are kept."""
    result = revise(config)
    sft, pairs, steps = (rows_of(result.tables[name]) for name in ("sft", "pairs", "steps"))
    for row in range(8):
        initial, final = f"answer(q{row})", f"revision(revision(answer(q{row})))"
        assert (sft[row]["prompt"], sft[row]["completion"]) == (f"q{row}", final)
        assert (pairs[row]["chosen"], pairs[row]["rejected"], pairs[row]["chosen_prob"]) == (final, initial, 1.0)
        first, second = steps[row]["rounds"]
        assert (steps[row]["initial"], first["critique"]) == (initial, f"critique({initial})")
        assert second["critique"] == f"critique(revision({initial}))"
        assert sft[row]["principles"] == [first["principle"], second["principle"]]
    assert len(pair_server.requests) == 40
    assert {name for row in steps for name in (one["principle"] for one in row["rounds"])} == {"brief", "kind", "plain"}


def test_the_principle_that_is_named_is_the_one_that_was_asked(config: Path, pair_server: Any) -> None:
    """Critique and revision of a round follow one principle."""
    steps = rows_of(revise(config, "prompts.rows=1").tables["steps"])
    by_name = {one["name"]: one for one in PRINCIPLES["principles"]}
    asked = [request["messages"][-1]["content"] for request in pair_server.requests[1:]]
    first, second = (by_name[one["principle"]] for one in steps[0]["rounds"])
    assert asked == [first["critique"], first["revision"], second["critique"], second["revision"]]


def test_a_seed_draws_the_same_principles(config: Path) -> None:
    """The same seed, the same principles; another seed, others."""

    def drawn(*overrides: str) -> list[list[str]]:
        return [row["principles"] for row in rows_of(revise(config, *overrides).tables["sft"])]

    assert drawn() == drawn("output=again") != drawn("output=other", "seed=1")


@given(st.integers(0, 2**31), st.integers(0, 99))
def test_principles_are_drawn_evenly(seed: int, row: int) -> None:
    """Over many rounds each has its share; a draw does not depend on the order of asking."""
    constitution = Constitution.model_validate(PRINCIPLES)
    names = [constitution.drawn(seed, row, round_).name for round_ in range(300)]
    assert all(50 < count < 155 for count in Counter(names).values())
    assert len(set(names)) == 3
    assert constitution.drawn(seed, row, 7).name == names[7]


def test_given_first_answers_are_revised(config: Path, pair_server: Any) -> None:
    """A column takes the place of the model's own first answers, and nothing is asked for them."""
    result = revise(config, "initial=draft", "rounds=1", "prompts.rows=2")
    assert [row["rejected"] for row in rows_of(result.tables["pairs"])] == ["d0", "d1"]
    assert len(pair_server.requests) == 4


def test_a_conversation_is_answered_in_its_own_form(config: Path) -> None:
    """Prompts in messages get completions in messages, which the trainers take."""
    turns = [{"role": "user", "content": "q"}]
    write_rows(config.parent / "prompts.jsonl", [{"prompt": turns}])
    result = revise(config, "rounds=1")
    [sft], [pair] = (rows_of(result.tables[name]) for name in ("sft", "pairs"))
    assert sft["completion"] == [{"role": "assistant", "content": "revision(answer(q))"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "answer(q)"}]


def test_an_answer_that_stays_as_it_was_makes_no_pair(config: Path, pair_server: Any) -> None:
    """It is imitated and not preferred to itself; an empty revision is neither."""
    pair_server.answer = lambda *_: (200, {}, completion("the same"))
    result = revise(config)
    assert (result.counts["sft"], result.counts["pairs"]) == (8, 0)
    assert result.counts["skipped/unchanged_revision"] == 8
    pair_server.answer = lambda *_: (200, {}, completion(" "))
    empty = revise(config, "output=empty")
    assert (empty.counts["sft"], empty.counts["steps"], empty.counts["skipped/empty_revision"]) == (0, 8, 8)


def test_a_killed_job_goes_on_at_the_step_where_it_was(config: Path, pair_server: Any) -> None:
    """kill -9 within a chain: no step that is on disk is asked for again."""
    write_rows(config.parent / "prompts.jsonl", [{"prompt": f"q{row}"} for row in range(20)])
    asked = slow_down(pair_server, lambda sent, _: sent)
    program = (
        "from rlaif_sdk.preferences.revisions import *; from rlaif_sdk.preferences.pipeline import load_make_job; "
        f"make_revisions(load_make_job(RevisionsConfig, {str(config)!r}))"
    )
    done = {line["row"] for line in kill_when(program, config.parent / "made" / "__job__" / "journal.jsonl", 23)}
    time.sleep(0.1)
    asked.clear()
    result = revise(config)
    assert len(asked) == 100 - len(done)
    rows = [(row["prompt"], row["completion"]) for row in rows_of(result.tables["sft"])]
    assert rows == [(f"q{row}", f"revision(revision(answer(q{row})))") for row in range(20)]


def test_the_packaged_constitution_is_whole(config: Path, pair_server: Any) -> None:
    """Each principle asks for a critique and a revision and says what to prefer; `rlaif make revisions` runs with it."""
    constitution = Constitution.load("short", Path())
    assert len(constitution.preferences()) == len(constitution.principles) >= 4
    done = CliRunner().invoke(app, ["make", "revisions", str(config), "--set", "constitution=short"])
    assert done.exit_code == 0, done.output
    assert "sft" in done.output
    card = (config.parent / "made" / "README.md").read_text()
    assert "kindness without preaching" in card
    assert "arXiv 2212.08073" in card


@pytest.mark.parametrize(
    ("constitution", "problem"),
    [
        ({"principles": []}, "principles"),
        ({"principles": [PRINCIPLES["principles"][0]] * 2}, "two principles are called 'brief'"),
        ({"principles": [{"name": "n", "critique": "c"}]}, "revision"),
    ],
)
def test_a_constitution_that_is_none_is_refused(config: Path, constitution: Any, problem: str) -> None:
    """The file and what is wrong with it are named."""
    (config.parent / "mine.yaml").write_text(yaml.safe_dump(constitution))
    with pytest.raises(ConfigError, match=problem):
        revise(config)
    with pytest.raises(ConfigError, match=r"--set: constitution: .*no constitution 'long'"):
        revise(config, "constitution=long")


def test_each_pair_is_judged_by_its_own_principle() -> None:
    """The principle stands in the judge's preamble and beside the label; order and company change nothing."""
    judge = ScriptedJudge(lambda text: {"1": 0.9, "2": 0.1})
    labeler = PrincipleLabeler(judge, Constitution.model_validate(PRINCIPLES))
    pairs = [Pair(f"q{row}", "yes", "no") for row in range(30)]
    labels = asyncio.run(labeler.label(pairs))
    assert {label.principle for label in labels} == {"brief", "kind"}
    asked = ["\n".join(str(turn["content"]) for turn in request) for request in judge.requests]
    for row, label in enumerate(labels):
        shown = [text for text in asked if f"\nq{row}\n" in text]
        assert len(shown) == 2
        assert all(f"above all: Prefer the {'short' if label.principle == 'brief' else 'kind'}." in text for text in shown)  # fmt: skip
    turned = asyncio.run(labeler.label([Pair(pair.prompt, "no", "yes") for pair in pairs[::-1]]))
    assert [label.principle for label in turned[::-1]] == [label.principle for label in labels]


def test_rlaif_label_takes_a_constitution(tmp_path: Path, write_pairs: Any, pair_server: Any) -> None:
    """A labelling job names each label's principle, and another constitution is another job."""
    pair_server.answer = prefers_good
    write_pairs(12)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(PRINCIPLES))
    judge = {"model": "tiny", "base_url": pair_server.url}
    job = {"pairs": {"file": "pairs.jsonl"}, "judge": judge, "prompt": {"constitution": "mine.yaml"}}
    path = tmp_path / "label.yaml"
    path.write_text(yaml.safe_dump(job))
    result = run_labeling(path)
    rows = rows_of(result.labels)
    assert {row["principle"] for row in rows} == {"brief", "kind"}
    assert all("good" in row["chosen"] for row in rows)
    card = (tmp_path / "labels" / "README.md").read_text()
    assert "| prompt.constitution | mine.yaml |" in card
    assert "| flip_rate |" in card
    with pytest.raises(ConfigError, match="constitution: "):
        run_labeling(load_label_job(path, overrides=["prompt.seed=1"]))
