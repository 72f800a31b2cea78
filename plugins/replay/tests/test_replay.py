"""The judge backend ``replay``, beside a real local model in the tests of the SDK's judges and a double here."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from rlaif_replay import Replay, ReplayParams, rlaif_judge_backends
from rlaif_sdk import (
    Composer,
    ConfigError,
    GeneratedText,
    JudgeBackendSpec,
    JudgeResponseError,
    LabelLogprobs,
    Registry,
    RewardBatch,
    Usage,
    hookimpl,
)
from rlaif_sdk.testing import ScriptedJudge, check_judge_backend_contract

REQUEST = [{"role": "user", "content": "Is water wet? \u2028 \ud83d\ude00"}]


class Counted(ScriptedJudge):
    """A judge that counts what it is asked, and fails on one question."""

    asked = 0

    def __init__(self, params=None):
        super().__init__(lambda _: "yes")

    async def label_logprobs(self, requests, labels):
        type(self).asked += len(requests)
        return [
            JudgeResponseError("no idea")
            if "cold" in request[0]["content"]
            else LabelLogprobs((-0.1, -math.inf), bounded=("B",), usage=Usage(calls=1, input_tokens=7))
            for request in requests
        ]

    async def generate(self, requests, *, max_new_tokens, temperature=0.0):
        type(self).asked += len(requests)
        return [GeneratedText("It is right.\nRating: 4.00", flags=("seen",)) for _ in requests]


class Plugin:
    """Offers that judge."""

    @hookimpl
    def rlaif_judge_backends(self):
        return [JudgeBackendSpec(name="counted", factory=Counted, params=ReplayModel, description="counts")]


class ReplayModel(ReplayParams):
    """Takes the model's name."""

    file: str = ""


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = Registry.discover()
    registry.register(Plugin(), name="counted")
    monkeypatch.setattr(Registry, "default", classmethod(lambda _: registry))
    Counted.asked = 0
    return registry


def backend(file, record="counted", model="m"):
    return Replay(ReplayParams(model=model, file=str(file), record=record))


def ask(judge, requests=(REQUEST,), labels=("A", "B")):
    return asyncio.run(judge.label_logprobs(list(requests), labels))


def test_an_answer_is_recorded_once_and_replayed_without_the_model(tmp_path):
    """The replayed answer is equal in every field, its usage and an impossible label included."""
    file = tmp_path / "judge.jsonl"
    recorded = ask(backend(file), [REQUEST, REQUEST])
    assert Counted.asked == 1
    assert ask(backend(file, record=None)) == recorded[:1]
    assert Counted.asked == 1
    assert recorded[0].logprobs == (-0.1, -math.inf)
    assert recorded[0].usage.input_tokens == 7


def test_text_is_replayed_for_the_same_limit_and_temperature_only(tmp_path):
    """Another limit may give another answer, so it is another request."""
    file = tmp_path / "judge.jsonl"
    said = asyncio.run(backend(file).generate([REQUEST], max_new_tokens=8))
    replay = backend(file, record=None)
    assert asyncio.run(replay.generate([REQUEST], max_new_tokens=8)) == said
    (missing,) = asyncio.run(replay.generate([REQUEST], max_new_tokens=9))
    assert isinstance(missing, JudgeResponseError)
    assert "has no answer to this request of m" in str(missing)


def test_a_failed_answer_is_not_recorded(tmp_path):
    """It is asked again the next time."""
    file = tmp_path / "judge.jsonl"
    request = [{"role": "user", "content": "Is the sun cold?"}]
    for _ in range(2):
        found = ask(backend(file), [REQUEST, request])
        assert isinstance(found[0], LabelLogprobs)
        assert isinstance(found[1], JudgeResponseError)
    assert Counted.asked == 3
    assert len(file.read_text().splitlines()) == 1


def test_a_torn_last_line_is_asked_again_and_the_file_stays_whole(tmp_path):
    """A recording process that was killed loses at most the answer that it was writing."""
    file = tmp_path / "judge.jsonl"
    ask(backend(file))
    whole = file.read_text()
    file.write_text(whole + whole[:30])
    assert ask(backend(file, record=None))[0].logprobs[0] == -0.1
    ask(backend(file), [[{"role": "user", "content": "Another?"}]])
    assert [json.loads(line)["model"] for line in file.read_text().splitlines()] == ["m", "m"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nothing\n", r":1: is no line of a recording"),
        ('{"model": "m"}\n', r":1: is no line of a recording"),
        ("[1]\n", r":1: is no line of a recording"),
        ("\xff\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_its_line(tmp_path, text, problem):
    """A wrong file is an error before anything is judged."""
    file = tmp_path / "judge.jsonl"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=problem):
        backend(file, record=None).setup()


def test_another_models_recording_and_no_recording_are_refused(tmp_path):
    """Answers of one model never pass for another's."""
    file = tmp_path / "judge.jsonl"
    ask(backend(file))
    with pytest.raises(ConfigError, match="records m, not n"):
        backend(file, model="n").setup()
    with pytest.raises(ConfigError, match="there is no such recording"):
        backend(tmp_path / "none.jsonl", record=None).setup()


@pytest.mark.parametrize("name", ["replay", "nobody"])
def test_a_backend_that_cannot_be_recorded_is_refused(tmp_path, name):
    """The refusal lists those that can."""
    with pytest.raises(ConfigError, match=f"no judge backend to record is called '{name}'"):
        backend(tmp_path / "judge.jsonl", record=name)


def test_the_backend_keeps_the_contract(tmp_path):
    """As any stranger's does."""
    spec = next(iter(rlaif_judge_backends()))
    options = {"model": "m", "file": str(tmp_path / "a.jsonl"), "record": "sure"}

    class Sure(Counted):
        async def label_logprobs(self, requests, labels):
            return [LabelLogprobs((-0.5, -1.0)) for _ in requests]

    class Offers:
        @hookimpl
        def rlaif_judge_backends(self):
            return [JudgeBackendSpec(name="sure", factory=Sure, params=ReplayModel, description="sure")]

    Registry.default().register(Offers(), name="sure")
    check_judge_backend_contract(spec, params=options)


def test_the_reward_judge_scores_from_a_recording(tmp_path, registry):
    """A composition with a judge is repeated without its model, to the same totals."""
    file = tmp_path / "judge.jsonl"
    batch = RewardBatch(prompts=["Is water wet?"] * 2, completions=["Yes, it is.", "No idea."])
    totals = []
    for record in ("counted", None):
        options = {"file": str(file), "record": record}
        params = {"model": "m", "backend": "replay", "backend_options": options, "mode": "rating"}
        params |= {"scale": [1, 5]}
        with Composer.from_config(
            {"rewards": {"judge": {"params": params, "on_failure": "abstain"}}}, registry=registry
        ) as composer:
            totals.append(composer.compose(batch).to_list())
    assert totals[0] == totals[1] == [0.5, 0.5]
    assert Counted.asked == 2
