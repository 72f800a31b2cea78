"""Rubrics that a model writes from good answers: which criteria are kept, which are dropped, and what fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rlaif_sdk.cli.main import app
from rlaif_sdk.preferences.pipeline import load_make_job
from rlaif_sdk.preferences.rubrics import RubricsConfig, make_rubrics
from tests.judges.conftest import completion
from tests.preferences.making import rows_of, write_rows

GOOD = {"title": "Dose", "description": "Names the dose.", "weight": "Essential"}
WRONG = {"title": "Evening", "description": "Says to take it at night.", "weight": "important"}
AGAIN = {"title": "How much", "description": "Says how much to take.", "weight": "Optional"}
VAGUE = {"title": "Kindness", "description": "The author is a kind person.", "weight": "Pitfall"}
MADE_UP = {"title": "Source", "description": "Names its source.", "weight": "Optional"}
RUBRIC = [GOOD, WRONG, AGAIN, VAGUE, MADE_UP]
REVIEW = [
    {"criterion": number, "answerable": answerable, "same_as": same}
    for number, (answerable, same) in enumerate(
        [("yes", None), ("yes", None), ("yes", 1), ("no", None), (True, None)], start=1
    )
]
HELD = [
    {"criterion": number, "reason": "as it says", "evidence": quotes, "verdict": verdict}
    for number, (verdict, quotes) in enumerate(
        [("yes", ["two tablets"]), ("no", []), ("yes", []), ("yes", []), ("yes", ["the leaflet"])], start=1
    )
]


def script(written: Any = RUBRIC, reviewed: Any = REVIEW, held: Any = HELD) -> Any:
    """A server whose model writes, reviews and judges so."""

    def answer(_number: int, sent: dict[str, Any]) -> Any:
        asked = sent["messages"][0]["content"]
        said = written if "Write a rubric" in asked else reviewed if '"same_as"' in asked else held
        text = said if isinstance(said, str) else json.dumps(said)
        return 200, {}, {**completion(text), "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    return answer


@pytest.fixture
def config(tmp_path: Path, pair_server: Any) -> Path:
    """Two questions with good answers, a writer at a server."""
    pair_server.answer = script()
    rows = [{"prompt": f"How much, {n}?", "reference": "Take two tablets.", "id": n} for n in range(2)]
    write_rows(tmp_path / "questions.jsonl", rows)
    job = {
        "prompts": {"file": "questions.jsonl"},
        "writer": {"model": "m", "base_url": pair_server.url, "attempts": 1},
        "output": "rubrics",
        "max_failed_share": 1.0,
    }
    path = tmp_path / "rubrics.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def write(config: Path, *overrides: str) -> Any:
    return make_rubrics(load_make_job(RubricsConfig, config, overrides=overrides))


def test_only_criteria_that_hold_are_kept_and_the_others_say_why(config: Path) -> None:
    """Unanswerable, repeated, not true of the good answer, or held against it by words that are not there."""
    result = write(config)
    rows = rows_of(result.tables["rubrics"])
    assert [row["id"] for row in rows] == [0, 1]
    assert rows[0]["rubric"] == [GOOD]
    dropped = rows_of(result.tables["dropped"])[:4]
    assert [(one["title"], one["why"]) for one in dropped] == [
        ("Evening", "contradicted"),
        ("How much", "repeated"),
        ("Kindness", "unanswerable"),
        ("Source", "unchecked"),
    ]
    assert "quotes what the answer does not say" in dropped[3]["reason"]
    assert result.counts["criteria"] == 2
    assert result.counts["dropped/contradicted"] == 2
    card = result.card.read_text()
    assert "dropped/repeated" in card
    assert "no person has read them" in card
    assert result.usage.calls == 6


def test_the_reward_rubric_reads_what_was_made(config: Path) -> None:
    """The table's column is the reward's column."""
    criteria = pytest.importorskip("rlaif_rubric.criteria")
    (row, _) = rows_of(write(config).tables["rubrics"])
    (criterion,) = criteria.read_rubric(row["rubric"])
    assert (criterion.name, criterion.text, criterion.weight) == ("Dose", "Names the dose.", 1.0)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"written": "I would rather not."}, "no JSON list"),
        ({"written": "[]"}, "the rubric has no criteria"),
        ({"written": [{**GOOD, "weight": "High"}]}, "weighs 'High': not one of Essential"),
        (
            {"written": [GOOD, {"title": "x", "description": " ", "weight": "Optional"}]},
            "criterion 2 of the rubric lacks",
        ),
        ({"written": [GOOD, GOOD]}, "two criteria of the rubric have one title"),
        ({"reviewed": REVIEW[:4]}, "does not speak of each of 5 criteria once"),
        ({"reviewed": [*REVIEW, REVIEW[0]]}, "does not speak of each of 5 criteria once"),
        ({"reviewed": [{**REVIEW[0], "same_as": 1}, *REVIEW[1:]]}, "criterion 1 repeats '1', which is none before it"),
        ({"reviewed": [{**REVIEW[0], "answerable": "perhaps"}, *REVIEW[1:]]}, "'perhaps', which is neither yes nor no"),
        ({"held": "It is all true."}, "no criterion has a verdict on the reference"),
    ],
)
def test_a_reply_that_cannot_be_read_fails_its_row(config: Path, pair_server: Any, said: Any, problem: str) -> None:
    """The row is named with the reason; nothing is made of half a reply."""
    pair_server.answer = script(**said)
    result = write(config)
    assert result.counts["rows_failed"] == 2
    first, second = rows_of(result.failures)
    assert (first["row"], second["row"]) == (1, 2)
    assert problem in first["error"]
    assert not rows_of(result.tables["rubrics"])


def test_a_good_answer_that_says_nothing_fails_its_row(config: Path) -> None:
    """It contradicts no criterion: there is nothing in it to hold one against."""
    write_rows(config.parent / "questions.jsonl", [{"prompt": "How much?", "reference": "\u2026"}])
    result = write(config)
    (failed,) = rows_of(result.failures)
    assert "the reference cannot be judged: refused before judging" in failed["error"]
    assert not rows_of(result.tables["dropped"])


def test_a_job_that_failed_on_the_way_resumes_where_it_stopped(config: Path, pair_server: Any) -> None:
    """What was written is not written again."""
    pair_server.answer = script(reviewed="down")
    assert write(config).counts["rows_failed"] == 2
    asked: list[str] = []
    answer = script()
    pair_server.answer = lambda n, sent: (asked.append(sent["messages"][0]["content"]), answer(n, sent))[1]
    result = write(config)
    assert result.counts["rows_failed"] == 0
    assert not any("Write a rubric" in one for one in asked)
    assert len(asked) == 4


def test_a_rubric_of_which_nothing_holds_is_skipped_and_counted(config: Path, pair_server: Any) -> None:
    """Its row is in no table, since a reward would have nothing to judge by."""
    pair_server.answer = script([VAGUE], [{"criterion": 1, "answerable": "no", "same_as": None}], HELD[:1])
    result = write(config)
    assert not rows_of(result.tables["rubrics"])
    assert result.counts["skipped/no_criterion_left"] == 2


def test_another_model_may_check(config: Path, pair_server: Any) -> None:
    """The judge reviews and holds; the writer writes only."""
    models: list[tuple[str, bool]] = []
    answer = script()

    def noted(number: int, sent: dict[str, Any]) -> Any:
        models.append((sent["model"], "Write a rubric" in sent["messages"][0]["content"]))
        return answer(number, sent)

    pair_server.answer = noted
    write(config, f"judge={{model: strict, base_url: {pair_server.url!r}}}")
    assert sorted(set(models)) == [("m", True), ("strict", False)]


def test_the_command_makes_rubrics_and_says_where(config: Path) -> None:
    """`rlaif make rubrics` is the same job."""
    done = CliRunner().invoke(app, ["make", "rubrics", str(config), "--set", "prompts.rows=1"])
    assert done.exit_code == 0, done.output
    assert "rubrics.jsonl" in done.output
    assert "dropped/repeated" in done.output


def test_a_row_without_a_reference_is_refused_before_anything_is_paid_for(config: Path, pair_server: Any) -> None:
    """By its number, and the column."""
    from rlaif_sdk import DataError

    pair_server.answer = lambda *_: pytest.fail("asked")
    with pytest.raises(DataError, match="gold"):
        write(config, "reference=gold")
