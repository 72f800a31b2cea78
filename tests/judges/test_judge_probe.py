"""A judge is tried before it is put to work."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from rlaif_sdk.exceptions import JudgeAuthError, JudgeConnectionError, JudgeError, JudgeResponseError
from rlaif_sdk.judges import probe
from rlaif_sdk.judges.backends.local import TransformersBackend
from rlaif_sdk.judges.backends.openai import OpenAIBackend
from rlaif_sdk.judges.probe import require_logprobs
from rlaif_sdk.testing import ScriptedJudge


def test_a_server_that_gives_both_is_found_to(judge_server: Any, replies: Any) -> None:
    """Log-probabilities, their mass, text, tokens."""
    judge_server.answer = lambda *_: (
        200, {}, {**replies.letters({"1": math.log(0.7), "2": math.log(0.2)}, "1"), "usage": {"prompt_tokens": 20}}
    )  # fmt: skip
    found = asyncio.run(probe(OpenAIBackend("tiny", judge_server.url)))
    assert (found.logprobs, found.reply, found.problems) == (True, "1", ())
    assert found.label_mass == pytest.approx(0.9)
    assert found.usage.calls == 2
    assert found.usage.input_tokens == 40


def test_a_server_without_log_probabilities_is_named_and_still_asked_for_text(judge_server: Any, replies: Any) -> None:
    """The probe says what does not work; a job that needs it stops with the same words."""
    judge_server.answer = lambda *_: (200, {}, replies.completion("1"))
    backend = OpenAIBackend("tiny", judge_server.url)
    found = asyncio.run(probe(backend))
    assert (found.logprobs, found.label_mass, found.reply) == (False, None, "1")
    assert "gave none" in found.problems[0]
    with pytest.raises(JudgeError, match="gave none"):
        asyncio.run(require_logprobs(backend))


def test_a_judge_that_begins_with_other_words_is_a_problem_and_no_crash(judge_server: Any, replies: Any) -> None:
    """Neither label among the first tokens: said, while another question may still work."""
    judge_server.answer = lambda *_: (200, {}, replies.letters({"The": -0.1}, None))
    backend = OpenAIBackend("tiny", judge_server.url)
    found = asyncio.run(probe(backend))
    assert not found.logprobs
    assert len(found.problems) == 2
    asyncio.run(require_logprobs(backend))


def test_a_refused_key_ends_the_probe(judge_server: Any) -> None:
    """It is no property of the judge."""
    judge_server.answer = lambda *_: (401, {}, {})
    with pytest.raises(JudgeAuthError):
        asyncio.run(probe(OpenAIBackend("tiny", judge_server.url)))


def test_a_judge_out_of_reach_is_told_before_the_work_begins() -> None:
    """A job does not fail row by row on a server that is not there."""
    down = ScriptedJudge(lambda _: JudgeConnectionError("down"))
    with pytest.raises(JudgeConnectionError, match="down"):
        asyncio.run(require_logprobs(down))
    assert asyncio.run(probe(down)).problems == ("log-probabilities: down", "text: down")
    asyncio.run(require_logprobs(ScriptedJudge(lambda _: JudgeResponseError("odd"))))


def test_a_local_model_gives_log_probabilities(tiny_chat: Any) -> None:
    """A real model answers both ways."""
    found = asyncio.run(probe(TransformersBackend(*tiny_chat)))
    assert found.logprobs
    assert found.label_mass is not None
    assert 0 < found.label_mass < 1
    assert found.reply is not None
