"""Several answers a prompt from several models, and pairs of them by a composition."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from rlaif_sdk import ConfigError, DataError, JudgeError
from rlaif_sdk.cli.main import app
from rlaif_sdk.preferences.best import BestSettings, choose_best
from rlaif_sdk.preferences.candidates import CandidatesConfig, make_candidates
from rlaif_sdk.preferences.composed import BestConfig, ComposedPairsConfig, make_best, make_composed_pairs
from rlaif_sdk.preferences.pipeline import load_make_job
from tests.judges.conftest import completion, tiny_chat  # noqa: F401 - fixture
from tests.preferences.making import kill_when, rows_of, slow_down, write_rows

REWARDS = """
def length(prompts, completions, **columns):
    return [float(len(c)) if "mute" not in c else None for c in completions]
"""


@pytest.fixture
def config(tmp_path: Path, pair_server: Any) -> Path:
    """Two models at a server, three answers each, four prompts."""
    pair_server.answer = lambda number, sent: (
        200,
        {},
        {
            **completion(f"{sent['model']} {number} on {sent['messages'][0]['content']}"),
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        },
    )
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"question {row}", "answer": row} for row in range(4)])
    server = {"base_url": pair_server.url, "concurrency": 3}
    job = {
        "prompts": {"file": "prompts.jsonl"},
        "policies": {"one": {"model": "m1", **server}, "two": {"model": "m2", **server}},
        "completions": 3,
        "output": "candidates",
    }
    path = tmp_path / "candidates.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


@pytest.fixture
def pairs_config(tmp_path: Path) -> Path:
    """A job that prefers the longer of three answers to each of two prompts."""
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    (tmp_path / "composition.yaml").write_text("rewards:\n  length: {use: './my_rewards.py:length'}\n")
    answers = [["a", "aaa", "aa"], ["bb", "mute", "b"]]
    rows = [
        {"prompt": f"q{group}", "completion": text, "group": group, "policy": f"p{place}"}
        for group, texts in enumerate(answers)
        for place, text in enumerate(texts)
    ]
    write_rows(tmp_path / "candidates.jsonl", rows)
    path = tmp_path / "pairs.yaml"
    path.write_text("candidates: candidates.jsonl\ncomposition: composition.yaml\n")
    return path


def sample(config: Path, *overrides: str) -> Any:
    return make_candidates(load_make_job(CandidatesConfig, config, overrides=overrides))


def pair(config: Path, *overrides: str) -> Any:
    return make_composed_pairs(load_make_job(ComposedPairsConfig, config, overrides=overrides))


def test_every_model_answers_every_prompt_so_often(config: Path, pair_server: Any) -> None:
    """One row an answer, those to one prompt together, each with its model, its number and the prompt's columns."""
    result = sample(config)
    rows = rows_of(result.tables["candidates"])
    assert [(row["group"], row["policy"], row["sample"]) for row in rows] == [
        (group, policy, number) for group in range(4) for policy in ("one", "two") for number in range(3)
    ]
    assert all(row["completion"].endswith(row["prompt"]) and row["answer"] == row["group"] for row in rows)
    assert all(row["completion"].startswith("m1" if row["policy"] == "one" else "m2") for row in rows)
    assert (len(pair_server.requests), pair_server.requests[0]["temperature"]) == (24, 1.0)
    card = result.card.read_text()
    assert "Model: one" in card
    assert "| model | m2 |" in card


def test_a_local_model_beside_a_server(config: Path, tmp_path: Path, tiny_chat: Any) -> None:  # noqa: F811
    """Text is continued by the one and asked as a message of the other; the samples of a seed are the same again."""
    for part in tiny_chat:
        part.save_pretrained(tmp_path / "policy")
    job = yaml.safe_load(config.read_text())
    job["policies"]["two"] = {"model": str(tmp_path / "policy")}
    config.write_text(yaml.safe_dump({**job, "max_new_tokens": 5}))
    rows = rows_of(sample(config).tables["candidates"])
    again = rows_of(sample(config, "output=again").tables["candidates"])
    local = [row["completion"] for row in rows if row["policy"] == "two"]
    assert local == [row["completion"] for row in again if row["policy"] == "two"]
    assert len(set(local)) > 6
    other = rows_of(sample(config, "output=other", "seed=1").tables["candidates"])
    assert local != [row["completion"] for row in other if row["policy"] == "two"]


def test_a_model_that_fails_costs_its_own_answers_alone(config: Path, pair_server: Any) -> None:
    """The other model's answers to the prompt are there; the next start asks for the missing ones alone."""
    works = pair_server.answer
    pair_server.answer = lambda number, sent: (400, {}, {}) if sent["model"] == "m1" else works(number, sent)
    with pytest.raises(JudgeError):
        sample(config)
    result = sample(config, "max_failed_share=1")
    assert (result.counts["candidates"], result.counts["rows_failed"]) == (12, 4)
    pair_server.answer = works
    pair_server.requests.clear()
    assert sample(config).counts["candidates"] == 24
    assert {request["model"] for request in pair_server.requests} == {"m1"}


def test_a_command_that_leaves_rows_out_says_how_many_and_why(config: Path, pair_server: Any) -> None:
    """It exits with 3, and names the first row and the file with the others."""
    works = pair_server.answer
    pair_server.answer = lambda number, sent: (400, {}, {}) if sent["model"] == "m1" else works(number, sent)
    done = CliRunner().invoke(app, ["make", "candidates", str(config), "--set", "max_failed_share=1"])
    assert done.exit_code == 3, done.output
    assert "4 of 4 rows failed; first: row 1: the judge's server answered HTTP 400" in " ".join(done.stderr.split())
    assert str(config.parent / "candidates" / "__job__" / "failures.jsonl") in done.stderr


def test_a_killed_job_asks_for_what_is_missing(config: Path, pair_server: Any) -> None:
    """kill -9: each answer on disk stays as it is, and as many are asked for as are missing."""
    write_rows(config.parent / "prompts.jsonl", [{"prompt": f"question {row}"} for row in range(15)])
    asked = slow_down(pair_server, lambda sent, _: sent)
    program = (
        "from rlaif_sdk.preferences.candidates import *; from rlaif_sdk.preferences.pipeline import load_make_job; "
        f"make_candidates(load_make_job(CandidatesConfig, {str(config)!r}))"
    )
    lines = kill_when(program, config.parent / "candidates" / "__job__" / "journal.jsonl", 20)
    time.sleep(0.1)
    asked.clear()
    rows = rows_of(sample(config).tables["candidates"])
    assert len(asked) == 90 - len({line["row"] for line in lines})
    assert len(rows) == 90
    assert {line["text"] for line in lines} <= {row["completion"] for row in rows}


def test_the_best_answer_is_paired_with_the_worst(pairs_config: Path) -> None:
    """By the totals of the composition, with both totals and both models; an abstention is in no pair."""
    result = pair(pairs_config)
    first, second = rows_of(result.tables["pairs"])
    assert (first["chosen"], first["rejected"], first["chosen_policy"], first["rejected_policy"]) == ("aaa", "a", "p1", "p0")  # fmt: skip
    assert (first["chosen_total"], first["rejected_total"]) == (3.0, 1.0)
    assert first["chosen_prob"] == pytest.approx(0.8808, abs=1e-4)
    assert (second["chosen"], second["rejected"]) == ("bb", "b")
    assert result.counts["skipped/unscored_completion"] == 1
    assert "composition.yaml" in result.card.read_text()


def test_another_choice_needs_no_new_scores(pairs_config: Path) -> None:
    """Totals are kept; how pairs are chosen of them may change in the same folder."""
    assert pair(pairs_config).steps_run == 2
    result = pair(pairs_config, "choose=all", "temperature=null")
    assert (result.steps_run, result.counts["pairs"]) == (0, 4)
    assert {row["chosen_prob"] for row in rows_of(result.tables["pairs"])} == {1.0}
    rows = rows_of(pair(pairs_config, "choose=threshold", "threshold=2.5").tables["pairs"])
    assert [(row["chosen"], row["rejected"]) for row in rows] == [("aaa", "a"), ("aaa", "aa")]
    (pairs_config.parent / "composition.yaml").write_text(
        "rewards:\n  length: {use: './my_rewards.py:length', weight: 2}\n"
    )
    with pytest.raises(ConfigError, match="composition: "):
        pair(pairs_config)


def test_a_reward_that_fails_is_asked_again(pairs_config: Path) -> None:
    """An outage makes no pair, and is no abstention: the next start scores the prompt again.

    Here it lasts from the first batch on, which only a patient policy takes for an outage.
    """
    rewards = pairs_config.parent / "my_rewards.py"
    flag = pairs_config.parent / "down"
    rewards.write_text(
        textwrap.dedent(f"""
            from pathlib import Path
            def length(prompts, completions, **columns):
                if Path({str(flag)!r}).exists():
                    raise RuntimeError("down")
                return [float(len(c)) for c in completions]
            """)
    )
    patient = "{use: './my_rewards.py:length', on_failure: {fail_fast: false}}"
    (pairs_config.parent / "composition.yaml").write_text(f"rewards:\n  length: {patient}\n")
    flag.touch()
    result = pair(pairs_config, "max_failed_share=1")
    assert (result.counts["pairs"], result.counts["rows_failed"]) == (0, 2)
    assert "down" in rows_of(result.failures)[0]["error"]
    flag.unlink()
    assert pair(pairs_config).counts["pairs"] == 2


def test_candidates_go_straight_into_pairs(config: Path, pairs_config: Path) -> None:
    """`rlaif make candidates`, then `rlaif make pairs` on what it wrote, without a config file."""
    done = CliRunner().invoke(app, ["make", "candidates", str(config)])
    assert done.exit_code == 0, done.output
    table, folder = config.parent / "candidates" / "candidates.jsonl", config.parent / "out"
    options = ["--candidates", table, "-c", config.parent / "composition.yaml", "-o", folder, "--set", "choose=all"]
    done = CliRunner().invoke(app, ["make", "pairs", *map(str, options)])
    assert done.exit_code == 0, done.output
    assert json.loads((folder / "__job__" / "summary.json").read_text())["completions"] == 24


@pytest.mark.parametrize(
    ("override", "problem"),
    [("choose=threshold", r"pairs.yaml.*needs a threshold"), ("candidates=none.jsonl", "no such file"), ("group=g", "has no column 'g'")],
)  # fmt: skip
def test_a_job_that_cannot_be_done_is_refused(pairs_config: Path, override: str, problem: str) -> None:
    """Before anything is scored."""
    with pytest.raises((ConfigError, DataError), match=problem):
        pair(pairs_config, override)


def test_a_group_in_two_places_is_refused(pairs_config: Path) -> None:
    """Its completions would not be compared with each other."""
    with (pairs_config.parent / "candidates.jsonl").open("a") as file:
        file.write('{"prompt": "q0", "completion": "x", "group": 0}\n')
    with pytest.raises(DataError, match="sort the table"):
        pair(pairs_config)


def best(config: Path, *overrides: str) -> list[dict[str, Any]]:
    return rows_of(make_best(load_make_job(BestConfig, config, overrides=overrides)).tables["best"])


def test_the_best_completions_are_kept_with_their_totals(pairs_config: Path) -> None:
    """One a prompt, of those that have a total; what all rows of a prompt say stays with it."""
    kept = best(pairs_config)
    assert [
        (row["prompt"], row["completion"], row["total"], row["rank"], row["candidates"], row["group"]) for row in kept
    ] == [
        ("q0", "aaa", 3.0, 1, 3, 0),
        ("q1", "bb", 2.0, 1, 3, 1),
    ]
    assert [row["policy"] for row in kept] == ["p1", "p0"]
    assert [row["completion"] for row in best(pairs_config, "keep=2")] == ["aaa", "aa", "bb", "b"]
    assert [row["completion"] for row in best(pairs_config, "min_reward=2.5")] == ["aaa"]
    assert [row["completion"] for row in best(pairs_config, "min_reward=2.0")] == ["aaa", "bb"]


@pytest.mark.parametrize("choose", [best, pair])
def test_completions_to_equal_prompts_belong_together_where_no_column_says_so(
    pairs_config: Path, tmp_path: Path, choose: Any
) -> None:
    """As `rlaif eval best-of` has it; a column that is named must be there."""
    with_groups = choose(pairs_config)
    rows = [
        {name: value for name, value in row.items() if name != "group"}
        for row in rows_of(tmp_path / "candidates.jsonl")
    ]
    write_rows(tmp_path / "candidates.jsonl", rows)
    made, expected = (
        [{name: value for name, value in row.items() if name != "group"} for row in each]
        if choose is best
        else rows_of(each.tables["pairs"])
        for each in (choose(pairs_config, "output=without"), with_groups)
    )
    assert made == expected
    assert len(made) == 2
    with pytest.raises(DataError, match="has no column 'group'"):
        choose(pairs_config, "output=named", "group=group")


def test_a_command_of_which_nothing_comes_is_no_success(pairs_config: Path) -> None:
    """A floor that no completion reaches."""
    done = CliRunner().invoke(app, ["make", "best", str(pairs_config), "--set", "min_reward=100"])
    assert done.exit_code == 1, done.output
    assert "nothing came of any row" in done.stderr


def test_what_differs_among_the_candidates_is_said_of_none(pairs_config: Path, tmp_path: Path) -> None:
    """A note about the first one is none about the best."""
    rows = rows_of(tmp_path / "candidates.jsonl")
    write_rows(
        tmp_path / "candidates.jsonl", [{**row, "topic": "t", "note": f"n{place}"} for place, row in enumerate(rows)]
    )
    assert all(row["topic"] == "t" and "note" not in row for row in best(pairs_config))


def test_each_prompt_has_draws_of_its_own(pairs_config: Path, tmp_path: Path) -> None:
    """Which a seed repeats; one draw for all would take the same place of each prompt."""
    rows = [
        {"prompt": f"q{group}", "completion": text, "group": group} for group in range(20) for text in ("a", "b", "c")
    ]
    write_rows(tmp_path / "candidates.jsonl", rows)
    drawn = [row["completion"] for row in best(pairs_config, "temperature=1", "output=one")]
    assert set(drawn) == {"a", "b", "c"}
    assert drawn == [row["completion"] for row in best(pairs_config, "temperature=1", "output=two")]
    assert drawn != [row["completion"] for row in best(pairs_config, "temperature=1", "seed=1", "output=three")]


def test_with_a_temperature_a_completion_is_kept_as_often_as_the_tilted_policy_gives_it() -> None:
    totals, texts = np.array([0.0, 1.0, 2.0]), ["a", "b", "c"]
    settings, draw = BestSettings(temperature=1.0), np.random.default_rng(0)
    places = [place for _ in range(6000) for _, place in choose_best(totals, texts, [False] * 3, settings, draw)]
    assert np.bincount(places) / 6000 == pytest.approx(np.exp(totals) / np.exp(totals).sum(), abs=0.02)
    assert choose_best(totals, texts, [False] * 3, BestSettings(temperature=1e-9), draw) == [(1, 2)]
    assert choose_best(totals, texts, [False] * 3, BestSettings(temperature=1.0, keep=9), draw) == [
        (1, 2),
        (2, 1),
        (3, 0),
    ]


def test_what_cannot_be_learnt_from_is_not_kept() -> None:
    """Unscored, empty, repeated and truncated completions."""
    totals, texts = np.array([5.0, np.nan, 4.0, 4.0, 3.0, 2.0]), [" ", "x", "a", "a", "cut", "b"]
    truncated, draw = [False, False, False, False, True, False], np.random.default_rng(0)
    kept = choose_best(totals, texts, truncated, BestSettings(keep=9), draw)
    assert kept == [(1, 2), (2, 5)]
    assert choose_best(totals, texts, truncated, BestSettings(keep=9, drop_truncated=False), draw) == [
        (1, 2),
        (2, 4),
        (3, 5),
    ]
    assert choose_best(np.array([np.nan]), ["x"], [False], BestSettings(temperature=1.0), draw) == []


def test_the_best_are_made_by_a_command(pairs_config: Path, tmp_path: Path) -> None:
    parts = ["--candidates", str(tmp_path / "candidates.jsonl"), "--composition", str(tmp_path / "composition.yaml")]
    result = CliRunner().invoke(app, ["make", "best", *parts, "--keep", "2", "--output", str(tmp_path / "made")])
    assert result.exit_code == 0, result.output
    assert len(rows_of(tmp_path / "made" / "best.jsonl")) == 4
    assert "the best 2 of each" in (tmp_path / "made" / "README.md").read_text()
