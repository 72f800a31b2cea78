"""Replies in JSON that a server holds to their schema, and the same verdicts from one that does not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from rlaif_sdk import Criterion, RewardBatch, RubricVerdicts, load_listwise_judge, load_rubric_judge
from rlaif_sdk.judges import ListwiseJudge, ResponseList, rank_responses
from tests.judges.conftest import JudgeServer, completion, judge_server  # noqa: F401 - a fixture

CRITERIA = [Criterion("1", "It greets."), Criterion("2", "It is rude.")]
ENTRIES = [
    {"criterion": 1, "reason": "It says hello.", "evidence": ["Hello"], "verdict": "yes"},
    {"criterion": 2, "reason": "Not at all.", "evidence": [], "verdict": "no"},
]


def by_schema(reply: Any, seen: list[Any]) -> Any:
    """A server that answers only what fits the schema that it is sent."""

    def answer(_: int, body: dict[str, Any]) -> Any:
        schema = body["response_format"]["json_schema"]["schema"]
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(reply, schema)
        seen.append(body)
        return 200, {}, completion(json.dumps(reply))

    return answer


def verdicts(url: str, **options: Any) -> RubricVerdicts:
    judge = load_rubric_judge(model="m", base_url=url, judging={"mode": "verdict"}, **options)
    try:
        (found,) = asyncio.run(judge.judge(RewardBatch(["Greet."], ["Hello there."]), [CRITERIA]))
    finally:
        judge.close()
    return found


def ranked(url: str, **options: Any) -> Any:
    judge: ListwiseJudge = load_listwise_judge(
        model="m", base_url=url, judging={"mode": "verdict", "orders": 1}, **options
    )
    try:
        (found,) = rank_responses([ResponseList("Greet.", ["Hello there.", "Go away."])], judge)
    finally:
        judge.backend.close()
    return found


def test_a_rubric_s_verdicts_are_held_to_their_schema(judge_server: JudgeServer) -> None:  # noqa: F811
    """And read as those of a server that knows of none."""
    seen: list[Any] = []
    judge_server.answer = by_schema({"verdicts": ENTRIES}, seen)
    held = verdicts(judge_server.url, structured_output=True)
    judge_server.answer = lambda *_: (200, {}, completion(json.dumps(ENTRIES)))
    free = verdicts(judge_server.url)
    assert held.verdicts == free.verdicts
    assert [one.value for one in held.verdicts] == [1.0, 0.0]
    assert "verdicts" in seen[0]["messages"][-1]["content"]
    assert "response_format" not in judge_server.requests[-1]


def test_a_ranking_is_held_to_its_schema(judge_server: JudgeServer) -> None:  # noqa: F811
    """With the reason before it, which stays the ranking's reason."""
    seen: list[Any] = []
    judge_server.answer = by_schema({"reason": "The first is kind.", "ranking": [["A"], ["B"]]}, seen)
    held = ranked(judge_server.url, structured_output=True)
    judge_server.answer = lambda *_: (200, {}, completion('The first is kind.\n{"ranking": ["A", "B"]}'))
    free = ranked(judge_server.url)
    assert len(seen) == 1
    assert held.wins_AA.tolist() == free.wins_AA.tolist()
    assert held.errors == {} == free.errors


@pytest.mark.parametrize("reply", ["[]", '{"verdicts": 3}', '{"verdicts": [1]}', "no JSON", '{"ranking": []}'])
def test_a_server_that_does_not_keep_to_the_schema_leaves_the_row_unscored(
    judge_server: JudgeServer,  # noqa: F811
    reply: str,
) -> None:
    judge_server.answer = lambda *_: (200, {}, completion(reply))
    assert all(one.value is None and one.error for one in verdicts(judge_server.url, structured_output=True).verdicts)
    assert ranked(judge_server.url, structured_output=True).errors


def test_a_server_that_takes_no_schema_says_how_to_do_without(judge_server: JudgeServer) -> None:  # noqa: F811
    """It is asked once, and each verdict names the setting."""
    refusal = {"error": {"message": "response_format json_schema is not supported"}}
    judge_server.answer = lambda _, body: (
        (400, {}, refusal) if "response_format" in body else (200, {}, completion(json.dumps(ENTRIES)))
    )
    refused = verdicts(judge_server.url, structured_output=True)
    assert all("leave structured_output out" in str(one.error) for one in refused.verdicts)
    assert [one.value for one in verdicts(judge_server.url).verdicts] == [1.0, 0.0]
    assert len(judge_server.requests) == 2


def test_verdicts_by_schema_are_kept_apart_in_a_ledger() -> None:
    plain, held = (load_rubric_judge(model="m", base_url="http://x/v1", structured_output=on) for on in (False, True))
    assert plain.fingerprint != held.fingerprint
