"""Adapters called by the reward-calling code of the real packages, where they are installed: ``nox -s adapters``.

slime and NeMo RL have no package that installs on this kind of machine; their calls have recorded shapes, in
``environment_calls.py`` and ``trainer_calls.py``. NeMo Gym's installs on Python 3.12.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardBatch
from rlaif_sdk.integrations import nemo_gym, openrlhf, skyrl, swift, verifiers, verl
from tests.integrations.cases import CASES, build_composer, by_composer
from tests.integrations.conftest import build_tokenizer
from tests.integrations.environment_calls import by_skyrl, by_verifiers_rubric
from tests.integrations.test_adapters_equal import assert_equal
from tests.integrations.trainer_calls import verl_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore", "default::pytest.PytestUnraisableExceptionWarning")

SCORED = [case for case, (total, _) in zip(CASES, by_composer(CASES), strict=True) if total is not None]
REQUIRED = os.environ.get("RLAIF_STACKS", "").split()


def stack(module: str) -> Any:
    """A stack's module; where it is not installed the test is skipped, unless RLAIF_STACKS says it must be."""
    if module.partition(".")[0] in REQUIRED:
        __import__(module)
    return pytest.importorskip(module, exc_type=ImportError, reason=f"{module} is not installed")


CONFIG = """
rewards:
  contains: {use: "rewards.py:contains", weight: 1.0}
  short: {use: "rewards.py:short", weight: 0.5}
"""
REWARDS = """
def contains(completions, ground_truth):
    return [float(word in text) for text, word in zip(completions, ground_truth)]


async def short(prompts, completions):
    return [1 / (1 + len(text)) if prompt else None for prompt, text in zip(prompts, completions)]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "rewards.py").write_text(REWARDS)
    (tmp_path / "rewards.yaml").write_text(CONFIG)
    return tmp_path / "rewards.yaml"


def verl_batch(tokenizer: Any, answers: list[str]) -> Any:
    """What verl's rollout hands to a reward manager: padded prompts and responses, and a row's columns."""
    import numpy as np
    import torch
    from verl import DataProto

    ids = [tokenizer(answer)["input_ids"] for answer in answers]
    width = max(map(len, ids))
    responses = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids])
    prompts = torch.full((len(answers), 2), 3)
    response_mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    mask = torch.cat([torch.ones_like(prompts), response_mask], dim=1)
    columns = {
        "data_source": ["suite"] * len(answers),
        "reward_model": [{"ground_truth": "w3", "style": "rule"} for _ in answers],
        "extra_info": [{"prompt": "w1 w2", "index": row} for row in range(len(answers))],
    }
    return DataProto.from_dict(
        tensors={"prompts": prompts, "responses": responses, "attention_mask": mask},
        non_tensors={name: np.array(values, dtype=object) for name, values in columns.items()},
    )


ANSWERS = ["w3 w4", "w5", "w6 w7 w3"]


@pytest.mark.parametrize("name", ["compute_score", "compute_score_sync"])
def test_verls_reward_loop_scores_with_a_config(config, name):
    """verl loads the function by ``pkg://`` with ``reward_kwargs`` and its naive manager calls it, sync or async."""
    stack("verl.experimental.reward_loop.reward_manager.naive")
    from omegaconf import OmegaConf
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.reward import get_custom_reward_fn

    settings = {
        "path": "pkg://rlaif_sdk.integrations.verl",
        "name": name,
        "reward_kwargs": {"config": str(config)},
    }
    run = OmegaConf.create({"reward": {"custom_reward_function": settings}})
    tokenizer = build_tokenizer()

    async def score() -> list[dict[str, Any]]:
        manager = NaiveRewardManager(run, tokenizer, get_custom_reward_fn(run))
        manager.loop = asyncio.get_running_loop()
        batch = verl_batch(tokenizer, ANSWERS)
        return await asyncio.gather(*(manager.run_single(batch[row : row + 1]) for row in range(len(ANSWERS))))

    results = asyncio.run(score())
    for answer, result in zip(ANSWERS, results, strict=True):
        contains, short = float("w3" in answer), 1 / (1 + len(answer))
        assert result["reward_score"] == pytest.approx(contains + 0.5 * short)
        extra = result["reward_extra_info"]
        assert (extra["contains"], extra["short"], extra["unscored"]) == (contains, pytest.approx(short), 0.0)


def test_verls_batch_manager_scores_a_batch(config):
    """verl's batch manager calls `compute_score_batch` and lands each total on the last token of its response."""
    stack("verl.workers.reward_manager.batch")
    from verl.workers.reward_manager.batch import BatchRewardManager

    tokenizer = build_tokenizer()
    manager = BatchRewardManager(tokenizer, num_examine=0, compute_score=verl.compute_score_batch, config=str(config))
    answer = manager(verl_batch(tokenizer, ANSWERS), return_dict=True)
    expected = [float("w3" in text) + 0.5 / (1 + len(text)) for text in ANSWERS]
    assert answer["reward_tensor"].sum(dim=1).tolist() == pytest.approx(expected)
    assert answer["reward_tensor"][2, -1].item() == pytest.approx(expected[2])
    assert answer["reward_extra_info"]["contains"] == [1.0, 0.0, 1.0]


GROUP_CONFIG = """
rewards:
  contains: {use: "rewards.py:contains", normalize: group_zscore}
  short: {use: "rewards.py:short", weight: 0.5}
"""


def verl_run(tmp_path: Path, *overrides: str) -> Any:
    """A run's config as verl's own files compose it, with our manager, and a policy's tokenizer."""
    from hydra import compose, initialize_config_dir

    verl_tokenizer().save_pretrained(tmp_path / "policy")
    settings = [
        *("reward.reward_manager.source=importlib", "reward.reward_manager.name=RewardManager"),
        "reward.reward_manager.module.path=pkg://rlaif_sdk.integrations.verl",
        f"+reward.custom_reward_function.reward_kwargs.config={tmp_path / 'rewards.yaml'}",
        *(f"actor_rollout_ref.model.path={tmp_path / 'policy'}", "actor_rollout_ref.rollout.n=3"),
        *("reward.num_workers=1", "trainer.val_before_train=False", "data.train_batch_size=4"),
    ]
    folder = Path(__import__("verl").__file__).parent / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose("ppo_trainer", overrides=[*settings, *overrides])


def verl_rollouts(run: Any, rollouts: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """What verl's agent loop gets from its reward worker for each rollout, all under way at the same time."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, AgentLoopWorker
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    tokenizer = verl_tokenizer()

    async def score() -> list[Any]:
        worker = RewardLoopWorker(run)
        loop = AgentLoopWorker.__new__(AgentLoopWorker)
        loop.processor = loop.mm_processor_kwargs = None
        loop.reward_loop_worker_handles = [SimpleNamespace(compute_score=SimpleNamespace(remote=worker.compute_score))]
        outputs = []
        for text, columns in rollouts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            turns = 2 * text.count("<|im_start|>assistant") + 2
            known = {"turn_scores": [], "tool_rewards": []}
            output = AgentLoopOutput(
                prompt_ids=[1, 2, 3], response_ids=ids, response_mask=[1] * len(ids), num_turns=turns,
                metrics=AgentLoopMetrics(), extra_fields=known,
            )  # fmt: skip
            outputs.append((output, columns))
        await asyncio.gather(*(loop._compute_score([output], kwargs=columns) for output, columns in outputs))
        return [output for output, _ in outputs]

    return asyncio.run(score())


def verl_row(uid: str) -> dict[str, Any]:
    return {
        "raw_prompt": [{"role": "user", "content": "w1 w2"}],
        "data_source": "suite",
        "reward_model": {"ground_truth": "w3", "style": "rule"},
        "extra_info": {"index": 3},
        "uid": uid,
        "index": 3,
        "agent_name": "tool_agent",
    }


def test_verls_agent_loop_gathers_groups(tmp_path, config):
    """verl loads the manager by its config, its agent loop asks for one rollout after another, and groups are compared."""
    stack("verl.experimental.agent_loop.agent_loop")
    config.write_text(GROUP_CONFIG)
    said = [("w3<|im_end|>", "a"), ("w5<|im_end|>", "b"), ("w5<|im_end|>", "a"), ("w3 w3<|im_end|>", "b"),
            ("w6<|im_end|>", "a"), ("w3<|im_end|>", "b")]  # fmt: skip
    outputs = verl_rollouts(verl_run(tmp_path), [(text, verl_row(uid)) for text, uid in said])
    with Composer.from_config(config) as composer:
        batch = RewardBatch(
            prompts=[verl_row("")["raw_prompt"]] * len(said),
            completions=[text.removesuffix("<|im_end|>") for text, _ in said],
            columns={"ground_truth": ["w3"] * len(said)},
            group=[uid for _, uid in said],
            training=False,
        )
        assert [output.reward_score for output in outputs] == pytest.approx(composer.compose(batch).to_list())
    assert [output.extra_fields["reward_extra_info"]["contains"] for output in outputs] == [1, 0, 0, 1, 0, 1]


def test_verls_gdpo_has_no_nan_advantage(tmp_path, config):
    """An abstention has its group's mean, and what a tool answered is not the policy's word."""
    stack("verl.trainer.ppo.core_algos")
    import numpy as np
    import torch
    from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage

    (tmp_path / "rewards.py").write_text(
        "def contains(completion_texts, ground_truth):\n"
        "    return [None if 'pass' in t else float(g in t) for t, g in zip(completion_texts, ground_truth)]\n"
        "def short(completion_texts):\n    return [1 / (1 + len(t)) for t in completion_texts]\n"
    )
    keys = "+algorithm.gdpo_reward_keys=[contains,short]"
    run = verl_run(tmp_path, "algorithm.adv_estimator=gdpo", keys)
    tool = "call<|im_end|>\n<|im_start|>user\nw3 w3<|im_end|>\n<|im_start|>assistant\nw5<|im_end|>"
    outputs = verl_rollouts(run, [(text, verl_row("a")) for text in ("w3<|im_end|>", "pass<|im_end|>", tool)])
    known = [output.extra_fields["reward_extra_info"] for output in outputs]
    assert [info["contains"] for info in known] == [1.0, 0.5, 0.0]
    advantages, _ = compute_gdpo_outcome_advantage(
        token_level_rewards=torch.zeros(3, 4),
        response_mask=torch.ones(3, 4),
        index=np.array(["a"] * 3),
        config=run.algorithm,
        non_tensor_batch={name: np.array([info[name] for info in known]) for name in known[0]},
        batch={"prompts": torch.ones(3, 2), "attention_mask": torch.ones((3, 6), dtype=torch.long)},
    )
    assert torch.isfinite(advantages).all()
    assert advantages[0, -1] > advantages[2, -1]


def test_openrlhfs_executor_scores_with_a_file(tmp_path, config):
    """OpenRLHF's executor loads ``reward_func`` from a two-line file and reads its rewards and extra logs."""
    stack("openrlhf.utils.agent")
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    (tmp_path / "reward.py").write_text(
        "from rlaif_sdk.integrations.openrlhf import reward_function\n"
        f"reward_func = reward_function({str(config)!r}, label_column='ground_truth', end_tokens=['<eos>'])\n"
    )
    tokenizer = build_tokenizer()

    class Engine:
        async def generate(self, ids: list[int], params: Any, multi_modal_data: Any = None) -> Any:
            answer = [*tokenizer("w3 w4")["input_ids"], tokenizer.eos_token_id]
            return SimpleNamespace(outputs=[SimpleNamespace(token_ids=answer, finish_reason="stop", logprobs=None)])

    executor = SingleTurnAgentExecutor(str(tmp_path / "reward.py"))
    params = SimpleNamespace(max_tokens=8, logprobs=None)
    output = asyncio.run(executor.execute("w1 w2", "w3", params, 64, tokenizer, Engine()))
    short = 1 / (1 + len(" w3 w4 "))
    assert output["reward"].item() == pytest.approx(1 + 0.5 * short)
    assert output["extra_logs"]["contains"].item() == 1.0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_swifts_trainer_scores_with_an_orm(asynchronous):
    """ms-swift's own scoring of samples calls the class as it calls its own, and reads None as missing."""
    stack("swift.rl_core.grpo_algorithm")
    import torch
    from swift.rl_core.data import GRPOSample
    from swift.rl_core.grpo_algorithm import compute_rewards_per_func

    samples = [
        GRPOSample(
            messages=[{"role": "user", "content": case.prompt}, {"role": "assistant", "content": case.completion}],
            prompt_id=case.prompt,
            extra={"label": case.label},
        )
        for case in CASES
    ]
    with build_composer() as composer:
        reward = swift.orm(composer, asynchronous=asynchronous)(args=None)
        state = SimpleNamespace(global_step=1, max_steps=5)
        scores_BF = compute_rewards_per_func(samples, [reward], [None], torch.device("cpu"), trainer_state=state)
    totals = [None if value != value else value for value in scores_BF[:, 0].tolist()]
    expected = [total for total, _ in by_composer(CASES)]
    assert totals == [None if total is None else pytest.approx(total, rel=1e-6) for total in expected]


def test_skyrls_gym_makes_and_steps_the_environment():
    """SkyRL-Gym registers the class, makes an environment of it and steps it; its base class runs underneath."""
    stack("skyrl_gym")
    import skyrl_gym
    from skyrl_gym.envs.base_text_env import BaseTextEnv
    from skyrl_gym.envs.registration import registry

    with build_composer() as composer:
        assert_equal("skyrl", by_skyrl(composer, CASES, BaseTextEnv), by_composer(CASES))
        skyrl_gym.register(id="composed", entry_point=skyrl.environment(composer, BaseTextEnv))
        try:
            environment = skyrl_gym.make("composed", extras={"extra_info": {"label": "Paris"}})
            environment.init([{"role": "user", "content": CASES[0].prompt}])
            answer = environment.step("Paris.")
        finally:
            del registry["composed"]
    assert answer["reward"] == by_composer(CASES[:1])[0][0]
    assert environment.get_metrics()["mentions"] == 1.0


def test_skyrls_search_environment_takes_turns(monkeypatch):
    """SkyRL-Gym's own environment with a tool runs underneath, and its episode is scored as a conversation."""
    stack("skyrl_gym")
    from skyrl_gym.envs.search.env import SearchEnv, SearchEnvConfig

    monkeypatch.setattr(SearchEnv, "_execute_tool", lambda *_: "<information>They purr.</information>")

    def answers(completion_texts, ground_truth):
        return [float(truth["target"] in text) for text, truth in zip(completion_texts, ground_truth, strict=True)]

    with Composer({"answers": answers}) as composer:
        kind = skyrl.environment(composer, SearchEnv)
        environment = kind(SearchEnvConfig(), {"reward_spec": {"ground_truth": {"target": "purr"}}, "max_turns": 3})
        environment.init([{"role": "user", "content": "About cats?"}])
        steps = [environment.step(action) for action in ("<search>cats</search>", "<answer>none</answer>")]
    assert [(step["reward"], step["done"]) for step in steps] == [(0, False), (0.0, True)], "the page is not its word"
    assert steps[0]["observations"][0]["content"] == "<information>They purr.</information>"


def test_verifiers_rubric_scores_a_group():
    """verifiers' own Rubric is the base: a group gets the composer's totals, and advantages about their mean."""
    vf = stack("verifiers")
    if not hasattr(vf, "Rubric"):
        pytest.skip("verifiers 0.2 and later has no rubric")
    with build_composer() as composer:
        assert_equal("verifiers", by_verifiers_rubric(composer, CASES, vf.Rubric), by_composer(CASES))


@pytest.mark.parametrize("plugged", [False, True])
def test_verifiers_task_scores_a_trace(tmp_path, config, monkeypatch, plugged):
    """A task of verifiers 0.4 scores its own Trace, by a method or by what its config names: all of it, by who said what."""
    vf = stack("verifiers.v1")
    if not hasattr(vf, "TaskData"):
        pytest.skip("verifiers 0.1 has no tasks of this kind")
    from verifiers.v1.graph import MessageNode

    (tmp_path / "rewards.py").write_text(
        "def contains(completion_texts, ground_truth):\n"
        "    return [float(g in text) for text, g in zip(completion_texts, ground_truth)]\n"
        "def short(completions, prompt_texts):\n"
        "    return [float(len(turns)) for turns in completions]\n"
    )
    (tmp_path / "plugged.py").write_text(
        f"from rlaif_sdk.integrations.verifiers import task_reward\ncomposed = task_reward({str(config)!r})\n"
    )

    class Data(vf.TaskData):
        ground_truth: str = ""

    class Answer(vf.Task[Data]):
        if not plugged:
            composed = vf.reward(verifiers.task_reward(str(config)))

    settings = vf.TaskConfig(rewards={"composed": {"fn": f"{tmp_path / 'plugged.py'}:composed"}}) if plugged else None
    task = Answer(Data(idx=0, prompt="About cats?", ground_truth="purr"), settings)
    call = {"id": "c1", "name": "search", "arguments": "{}"}
    said = [
        (vf.UserMessage(content="About cats?"), False),
        (vf.AssistantMessage(content="I look.", tool_calls=[call]), True),
        (vf.ToolMessage(tool_call_id="c1", content="They purr."), False),
        (vf.AssistantMessage(content="Cats purr."), True),
    ]
    trace = SimpleNamespace(metrics={}, rewards={}, last_reply="Cats purr.")
    trace.branches = [SimpleNamespace(nodes=[MessageNode(message=message, sampled=by) for message, by in said])]
    trace.record_metrics = trace.metrics.update
    trace.record_reward = lambda name, value, weight: trace.rewards.update({name: value * weight})
    asyncio.run(task.score(trace))
    assert trace.rewards == {"composed": 1 + 0.5 * 3}
    assert trace.metrics == {"contains": 1.0, "short": 3.0, "unscored": 0.0}
    said[3] = (vf.AssistantMessage(content="No idea."), True)
    trace.branches = [SimpleNamespace(nodes=[MessageNode(message=message, sampled=by) for message, by in said])]
    trace.last_reply = "No idea."
    asyncio.run(task.score(trace))
    assert trace.metrics["contains"] == 0.0, "what the tool said is not the policy's"


def test_nemo_gyms_server_verifies(config):
    """Its own route and classes, of the package that installs on Python 3.12: columns, turns, parts and the mask."""
    stack("nemo_gym.base_resources_server")
    from fastapi.testclient import TestClient
    from nemo_gym.base_resources_server import (
        BaseResourcesServerConfig,
        BaseVerifyRequest,
        BaseVerifyResponse,
        SimpleResourcesServer,
    )

    (config.parent / "rewards.py").write_text(
        "def contains(completion_texts, ground_truth):\n"
        "    return [None if g is None else float(g in text) for text, g in zip(completion_texts, ground_truth)]\n"
        "def short(completion_texts, ground_truth):\n"
        "    return [None if g is None else 1 / (1 + len(text)) for text, g in zip(completion_texts, ground_truth)]\n"
    )

    class Composed(SimpleResourcesServer):
        verify = nemo_gym.verifier(str(config), BaseVerifyRequest, BaseVerifyResponse)

    said = {"id": "m", "type": "message", "role": "assistant", "status": "completed"}
    output = [
        {"type": "function_call", "name": "search", "arguments": "{}", "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": "w3"},
        {**said, "content": [{"type": "output_text", "text": "w5", "annotations": []}]},
    ]
    made = {"id": "r", "created_at": 0.0, "model": "m", "object": "response", "tools": [], "output": output}
    body = {
        "responses_create_params": {"input": [{"role": "user", "content": "w1"}]},
        "response": {**made, "parallel_tool_calls": True, "tool_choice": "auto"},
        "_ng_task_index": 3,
    }
    settings = BaseResourcesServerConfig(name="composed", host="127.0.0.1", port=1, entrypoint="x", domain="other")
    server = Composed.model_construct(config=settings, server_client=None)
    with TestClient(server.setup_webserver()) as client:
        scored, unscored = (client.post("/verify", json={**body, "ground_truth": g}).json() for g in ("w3", None))
    assert scored["reward_components"] == {"contains": 0.0, "short": pytest.approx(0.5 / 3)}
    assert scored["reward"] == pytest.approx(0.5 / 3)
    assert (unscored["mask_sample"], unscored["instance_config"]) == (True, {"mask_sample": True})


def test_openrlhf_finds_the_completion_in_a_query():
    """The completion is what follows the prompt, without the token that ends it, whatever OpenRLHF cut off before."""
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert openrlhf.completion_of(f"{prompt}Hello </s> yes<|im_end|>\n", prompt) == "Hello </s> yes"
    assert openrlhf.completion_of(f"<s>{prompt}Hello", prompt) == "Hello"
    long = "x" * 500 + prompt
    assert openrlhf.completion_of(f"{long[300:]}Hello", long) == "Hello"
