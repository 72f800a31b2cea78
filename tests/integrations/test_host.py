"""A composer inside another stack's process: built late, kept to itself, refused where it cannot have its due."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import Composer, ConfigError, RewardBatch, RewardError, Score, SubScore
from rlaif_sdk.exceptions import StateError
from rlaif_sdk.integrations import Host, Sample, coalescing, save_state, verl
from rlaif_sdk.integrations.coalescing import Coalescer
from rlaif_sdk.integrations.verl import VerlReward


def length(completions):
    return [float(len(text)) for text in completions]


def sample(text, **columns):
    return Sample("?", text, columns)


def config_with(**settings):
    return {"rewards": {"length": {"use": f"{__name__}:length", **settings}}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "rewards.py").write_text("def length(completions):\n    return [float(len(t)) for t in completions]\n")
    (tmp_path / "rewards.yaml").write_text("rewards: {length: {use: 'rewards.py:length'}}\n")
    return tmp_path / "rewards.yaml"


def test_a_host_of_a_config_crosses_processes(config):
    """What is pickled is the config's path, so that a worker builds its own composer."""
    hosted = Host(config, "a test")
    assert hosted.score([sample("abc")])[0].total == 3.0
    other = pickle.loads(pickle.dumps(hosted))
    assert other.score([sample("ab")])[0].total == 2.0
    assert other.composer is not hosted.composer


def test_what_a_stack_averages_has_the_parts_of_scores():
    """Of a rubric each criterion and tag, but for those of some rows by themselves, and of scored rows as elsewhere."""

    def rubric(completions):
        shared = {"cites": SubScore(1.0), "brief": SubScore(None), "tag/form": SubScore(0.5)}
        whole = Score(0.5, subscores=shared | {"own": SubScore(0.0, per_row=True)})
        return [Score(None, error="out", subscores=shared) if text == "fail" else whole for text in completions]

    with Composer({"rubric": rubric, "length": length}) as composer:
        scored, failed = Host(composer, "a test").score([sample("abc"), sample("fail")])
    assert scored.known_scores() == {
        "rubric": 0.5,
        "length": 3.0,
        "unscored": 0.0,
        "rubric/subscore/cites": 1.0,
        "rubric/subscore/tag/form": 0.5,
    }
    assert failed.known_scores() == {"length": 4.0, "unscored": 0.0}
    assert scored.scores().keys() == failed.scores().keys()


def test_a_host_closes_its_composer_when_the_process_ends(tmp_path):
    """The reward is closed, quickly and without a warning: adapters live in processes that nobody closes them in."""
    (tmp_path / "closing.py").write_text(
        "import pathlib\n"
        "class Closing:\n"
        "    def score(self, batch):\n"
        "        return [1.0] * len(batch)\n"
        "    def close(self):\n"
        "        pathlib.Path('closed').touch()\n"
    )
    program = (
        "from rlaif_sdk.integrations import Host, Sample\n"
        "host = Host({'rewards': {'closing': {'use': 'closing.py:Closing'}}}, 'a test')\n"
        "assert host.score([Sample('?', 'a', {})])[0].total == 1.0\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    assert (tmp_path / "closed").exists()


def test_a_host_of_a_composer_says_why_it_cannot_cross():
    """A composer has threads and models: the config's path is asked for."""
    with Composer({"length": length}) as composer, pytest.raises(TypeError, match="give a test the config's path"):
        pickle.dumps(Host(composer, "a test"))


def test_rows_with_other_columns_are_not_mixed():
    """A reward sees a column only on rows that have it, however the rows come together."""
    seen = []

    def spy(completions, **columns):
        seen.append((list(completions), sorted(columns.keys() - {"prompts"})))
        return [float(len(text)) for text in completions]

    with Composer({"spy": spy}) as composer:
        scored = Host(composer, "a test").score([sample("a", x=1), sample("bb"), sample("ccc", x=2)])
    assert [one.total for one in scored] == [1.0, 2.0, 3.0]
    assert sorted(seen) == [(["a", "ccc"], ["x"]), (["bb"], [])]


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ({"normalize": "group_zscore"}, "rewards.length.normalize", "compares the completions to one prompt"),
        ({"normalize": "rank"}, "rewards.length.normalize", "compares the completions to one prompt"),
        ({"normalize": "zscore"}, "rewards.length.normalize", "learns only from training batches"),
        ({"normalize": "quantile"}, "rewards.length.normalize", "learns only from training batches"),
        ({"weight": {"schedule": "linear", "from": 0, "to": 1, "end": 5}}, "rewards.length.weight", "training step"),
    ],
)
def test_what_a_stack_cannot_tell_is_refused(settings, key, said):
    """A number that would depend on how the stack cuts its calls is refused at the first call, by key."""
    with pytest.raises(ConfigError, match=said) as refused:
        Host(config_with(**settings), "a test").score([sample("abc")])
    assert refused.value.key == key


def test_a_constraint_is_refused_without_its_state():
    """A multiplier that never learns would hold nothing."""
    config = {**config_with(), "constraints": [{"reward": "length", "max": 5}]}
    with pytest.raises(ConfigError, match="multiplier"):
        Host(config, "a test").score([sample("abc")])


def test_saved_statistics_stay_as_they_are(tmp_path):
    """With a saved state a running z-score is the same for a row by itself, among others, and again later."""
    config = config_with(normalize="zscore")
    with Composer.from_config(config) as composer:
        composer.compose(RewardBatch(["?"] * 3, ["a", "abc", "abcde"]))
        expected = composer.compose(RewardBatch(["?"], ["abcd"], training=False)).totals[0]
        save_state(composer, tmp_path / "state.json")
    hosted = Host(config, "a test", state=tmp_path / "state.json")
    for samples in ([sample("abcd")], [sample("abcd"), sample("a" * 99)], [sample("abcd")]):
        assert hosted.score(samples)[0].total == expected
    with pytest.raises(ConfigError, match="no such file"):
        Host(config, "a test", state=tmp_path / "gone.json").score([sample("a")])
    (tmp_path / "torn.json").write_text('{"rewards": ')
    with pytest.raises(StateError, match="no JSON"):
        Host(config, "a test", state=tmp_path / "torn.json").score([sample("a")])


def test_an_unscored_completion_raises_and_says_why():
    """verl takes numbers alone: without a stated one the reason is the error."""
    with Composer({"quiet": lambda completions: [None] * len(completions)}) as composer:
        with pytest.raises(RewardError, match="every reward abstained"):
            VerlReward(composer, prompt_key=None).compute_score_sync("suite", "a", None)
        stated = VerlReward(composer, prompt_key=None, unscored=-1.0).compute_score_sync("suite", "a", None)
    assert (stated["score"], stated["unscored"]) == (-1.0, 1.0)


def test_a_missing_prompt_is_named():
    """verl's managers pass no prompt: the message says where it is looked for and what is there."""
    with Composer({"length": length}) as composer, pytest.raises(ConfigError, match="it has index"):
        VerlReward(composer).compute_score_sync("suite", "a", None, {"index": 3})


def test_verls_functions_take_the_config_among_what_verl_passes(config):
    """One completion or a batch, by a file; without one the setting to give is named."""
    row = {"data_source": "suite", "ground_truth": None, "extra_info": {"prompt": "?"}}
    settings = {"config": str(config), "prompt_key": "prompt", "reward_router_address": "unused"}
    said = asyncio.run(verl.compute_score(solution_str="abc", **row, **settings))
    assert said == verl.compute_score_sync(solution_str="abc", **row, **settings)
    rows = {f"{name}s": [value] for name, value in row.items()}
    assert verl.compute_score_batch(solution_strs=["abc"], **rows, **settings) == [said]
    assert said["score"] == 3.0
    with pytest.raises(ConfigError, match="reward_kwargs name no config"):
        verl.compute_score_sync(solution_str="abc", **row)


def test_verls_functions_have_the_signature_that_verl_documents(config):
    """They may be called by position as well, and what takes which names can be read from them."""
    asked, settings = ("suite", "abc", None, {"prompt": "?"}), {"config": str(config)}
    said = asyncio.run(verl.compute_score(*asked, **settings))
    assert said == verl.compute_score_sync(*asked, **settings)
    assert verl.compute_score_batch(*([value] for value in asked), **settings) == [said]
    for function in (verl.compute_score, verl.compute_score_sync):
        names = list(inspect.signature(function).parameters)
        assert names[:5] == ["data_source", "solution_str", "ground_truth", "extra_info", "config"]


def slow_length(completions):
    time.sleep(0.02)
    return [float(len(text)) for text in completions]


def test_those_who_ask_at_once_are_scored_together_and_none_is_crossed():
    """Many coroutines and many threads: each gets its own answer, in far fewer batches."""
    batches = []

    def counted(completions):
        batches.append(len(completions))
        return slow_length(completions)

    with Composer({"length": counted}) as composer:
        hosted = Host(composer, "a test")

        async def ask(start: int) -> list[float | None]:
            answers = await asyncio.gather(*(hosted.ascore_one(sample("x" * (start + n))) for n in range(100)))
            return [answer.total for answer in answers]

        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda start: asyncio.run(ask(start)), (0, 100, 200)))
    assert found == [[float(start + n) for n in range(100)] for start in (0, 100, 200)]
    assert sum(batches) == 300
    assert len(batches) < 60


def test_an_error_reaches_all_who_wait_for_it_and_nobody_else():
    """A reward that raises under policy ``raise`` fails its batch; later samples are scored."""

    def picky(completions):
        if "bad" in completions:
            raise ValueError("not this")
        return [1.0] * len(completions)

    config = {"rewards": {"picky": {"use": f"{__name__}:length"}}}
    assert Host(config, "a test").score([sample("a")])[0].total == 1.0
    from rlaif_sdk.composer.component import Component
    from rlaif_sdk.composer.failures import FailurePolicy

    with Composer({"picky": Component(picky, failure=FailurePolicy(policy="raise"))}) as composer:
        hosted = Host(composer, "a test")

        async def ask() -> tuple[object, object]:
            with pytest.raises(RewardError, match="not this"):
                await hosted.ascore_one(sample("bad"))
            return (await hosted.ascore_one(sample("good"))).total, None

        assert asyncio.run(ask())[0] == 1.0


def test_what_is_asked_for_in_one_turn_of_the_loop_is_one_batch():
    """A thousand samples at once make as few batches as their number of rows allows; the first does not go alone."""
    batches = []

    def counted(completions):
        batches.append(len(completions))
        return length(completions)

    with Composer({"length": counted}) as composer:
        hosted = Host(composer, "a test")

        async def ask() -> list[float | None]:
            answers = await asyncio.gather(*(hosted.ascore_one(sample("x" * n)) for n in range(1000)))
            return [answer.total for answer in answers]

        assert asyncio.run(ask()) == [float(n) for n in range(1000)]
    assert batches == [256, 256, 256, 232]


@pytest.mark.parametrize(
    ("patience", "max_rows", "begun_beside_a"), [(60.0, 256, []), (60.0, 2, [["b", "c"]]), (0.01, 256, [["b", "c"]])]
)
def test_a_batch_fills_while_another_is_under_way(monkeypatch, patience, max_rows, begun_beside_a):
    """Beside another it begins when it is full or has waited for long enough, else when that one is done."""
    monkeypatch.setattr(coalescing, "PATIENCE", patience)
    gate = threading.Event()
    begun = []

    async def wait(completions):
        await asyncio.to_thread(gate.wait, 10)
        return [1.0] * len(completions)

    async def ask(composer: Composer) -> None:
        def submit(batch: RewardBatch) -> Any:
            begun.append(list(batch.completions))
            return composer.submit(batch)

        coalescer = Coalescer(submit, max_rows=max_rows)
        asked = [coalescer.score([sample("a")])]
        await asyncio.sleep(0.01)
        asked += [coalescer.score([sample(text)]) for text in "bc"]
        await asyncio.sleep(0.3)
        assert begun == [["a"], *begun_beside_a]
        gate.set()
        await asyncio.gather(*asked)

    with Composer({"wait": wait}) as composer:
        asyncio.run(ask(composer))
    assert begun == [["a"], ["b", "c"]]


def test_a_batch_that_nobody_waits_for_is_given_up():
    """Cancelling the last future of a batch cancels what composes it; a waiting one never begins."""
    begun = threading.Event()
    ended = threading.Event()
    calls = []

    async def hang(completions):
        calls.append(list(completions))
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.set()
            raise
        return [0.0] * len(completions)

    async def ask(composer: Composer) -> None:
        coalescer = Coalescer(composer.submit, in_flight=1)
        both = [coalescer.score([sample(text)]) for text in "ab"]
        assert await asyncio.to_thread(begun.wait, 5)
        waiting = coalescer.score([sample("c")])
        assert len(coalescer) == 1
        assert waiting.cancel()
        assert both[0].cancel()
        assert not await asyncio.to_thread(ended.wait, 0.1), "one still waits for the batch"
        assert both[1].cancel()
        assert await asyncio.to_thread(ended.wait, 5)
        assert len(coalescer) == 0

    with Composer({"hang": hang}) as composer:
        asyncio.run(ask(composer))
    assert calls == [["a", "b"]]


def test_a_loop_that_is_closed_early_leaves_the_others_alone(caplog):
    """What was under way for it comes back to nobody, without a word in the log; the next loop's samples are scored."""
    begun, composed = threading.Event(), threading.Event()

    def slow(completions):
        begun.set()
        return slow_length(completions)

    with Composer({"length": slow}) as composer:

        def submit(batch: RewardBatch) -> Any:
            composing = composer.submit(batch)
            composing.add_done_callback(lambda _: composed.set())
            return composing

        async def leave() -> None:
            Coalescer(submit).score([sample("gone")])
            assert await asyncio.to_thread(begun.wait, 5)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        loop.close()
        assert composed.wait(5)

        async def ask() -> float | None:
            return (await Host(composer, "a test").ascore_one(sample("stays"))).total

        assert asyncio.run(ask()) == 5.0
    assert not caplog.records


def test_openrlhf_is_answered_when_it_asks_of_nothing_and_gets_tensors_of_its_own() -> None:
    """An empty call has empty tensors, and what is done to the rewards changes no score."""
    torch = pytest.importorskip("torch")
    from rlaif_sdk.integrations import openrlhf

    with Composer({"length": lambda completions: [float(len(text)) for text in completions]}) as composer:
        reward_func = openrlhf.reward_function(composer)
        nothing = reward_func([], [], [])
        assert nothing["rewards"].shape == nothing["scores"].shape == (0,)
        said = reward_func(["ab"], ["a"], ["x"])
        said["rewards"] += 5
        assert said["scores"].tolist() == [1.0]
        assert torch.equal(said["extra_logs"]["length"], torch.ones(1))
