"""What the adapter relies on of TRL and transformers.

When one of these fails after an upgrade, read the changed method and adapt `rlaif_sdk.integrations.trl` before moving the
pin.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

trl = pytest.importorskip("trl")

from packaging.version import Version  # noqa: E402
from transformers import TrainerState  # noqa: E402
from trl.trainer.utils import get_callable_name, is_async_callable  # noqa: E402

from rlaif_sdk import Composer  # noqa: E402
from rlaif_sdk.integrations.trl import generate_as_trainer  # noqa: E402
from rlaif_sdk.types import RESERVED_COLUMNS  # noqa: E402


def constant(completions: list[str]) -> list[float]:
    return [1.0] * len(completions)


def test_the_version_is_the_one_that_was_read() -> None:
    """What follows was read in this minor version."""
    assert Version(trl.__version__).release[:2] == (1, 16)


def test_a_reward_function_is_called_with_what_was_read(make_trainer: Callable[..., Any], kind: str) -> None:
    """By keyword: the batch, the dataset's columns, the state, and two methods of the trainer that calls."""
    calls: list[dict[str, Any]] = []

    def spy(**kwargs: Any) -> list[float]:
        calls.append(kwargs)
        return [0.0] * len(kwargs["prompts"])

    def other(**kwargs: Any) -> list[float]:
        return spy(**kwargs)

    trainer = make_trainer(kind, [spy, other], max_steps=1)
    trainer.train()
    first, second = calls
    assert set(first) == {
        "prompts", "completions", "completion_ids", "wanted", "trainer_state", "log_extra", "log_metric"
    }  # fmt: skip
    assert first["trainer_state"] is trainer.state
    assert first["log_metric"].__self__ is trainer
    assert second["completions"] is first["completions"], "all functions get one list, which tells the call"
    assert len(first["prompts"]) == 8
    assert [len(set(first["prompts"][start : start + 4])) for start in (0, 4)] == [1, 1]


def test_the_trainer_has_what_is_read_of_it(make_trainer: Callable[..., Any], kind: str) -> None:
    """Whether it trains, generations, processes, datasets, reward functions and their weights, settings."""
    trainer = make_trainer(kind, Composer({"constant": constant}).for_trl())
    assert trainer.model.training in {True, False}
    assert (trainer.num_generations, trainer.num_generations_eval) == (4, 4)
    assert trainer.accelerator.num_processes == 1
    assert trainer.train_dataset.column_names == ["prompt", "wanted"]
    assert trainer.eval_dataset is None
    assert trainer.reward_func_names == ["composed_reward"]
    assert trainer.reward_weights.tolist() == [1.0]
    assert trainer.log_completions is False
    assert trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation == 8
    assert getattr(trainer, "multi_objective_aggregation", None) == ("sum_then_normalize" if kind == "grpo" else None)


def test_an_object_with_a_name_is_a_plain_reward_function() -> None:
    """TRL takes its name and awaits nothing."""
    reward = Composer({"constant": constant}).for_trl()
    assert get_callable_name(reward) == "composed_reward"
    assert not is_async_callable(reward)


def test_metrics_are_averaged_over_what_was_logged(make_trainer: Callable[..., Any], kind: str) -> None:
    """A metric that a batch does not log does not count as 0."""

    def sparse(completions: list[str], log_metric: Any, trainer_state: Any, **_: Any) -> list[float]:
        if trainer_state.global_step == 0:
            log_metric("sparse", 3.0)
        return [0.0] * len(completions)

    trainer = make_trainer(kind, sparse, logging_steps=2)
    trainer.train()
    assert trainer.state.log_history[0]["sparse"] == 3.0


def test_the_trainer_s_state_carries_what_is_put_among_the_callbacks(tmp_path: Path) -> None:
    """It is saved as JSON and comes back as it was."""
    state = TrainerState(stateful_callbacks=[])
    state.stateful_callbacks["mine"] = {"args": {}, "attributes": {"count": 3}}
    state.save_to_json(str(tmp_path / "state.json"))
    assert json.loads((tmp_path / "state.json").read_text())["stateful_callbacks"]["mine"]["attributes"] == {"count": 3}
    assert TrainerState.load_from_json(str(tmp_path / "state.json")).stateful_callbacks == state.stateful_callbacks


def test_the_columns_that_trl_uses_itself_are_known() -> None:
    """Every name that TRL gives to reward functions is reserved."""
    given = set(re.findall(r' reward_kwargs\["(\w+)"\] =', inspect.getsource(trl.GRPOTrainer._calculate_rewards)))
    assert given == {"trainer_state", "log_extra", "log_metric", "environments"}
    assert given | {"prompts", "completions", "completion_ids"} <= RESERVED_COLUMNS


def test_an_environment_s_own_reward_is_asked_by_a_function_that_is_known() -> None:
    """It stands after those that were given, weighs 1, and has the class of the environments as a default."""
    source = inspect.getsource(trl.GRPOTrainer.__init__)
    assert source.count("def get_reward(environments, _env_type=env_type, **kwargs):") == 2
    for line in (
        "self.reward_funcs.append(get_reward)",
        "self.reward_func_names.append(env_type.__name__)",
        "self.reward_weights = torch.cat([self.reward_weights, torch.ones(1)])",
    ):
        assert line in source


def test_gdpo_is_spelt_as_it_was() -> None:
    """The setting that normalises before it sums."""
    fields = {field.name: field for field in dataclasses.fields(trl.GRPOConfig)}
    assert "normalize_then_sum" in fields["multi_objective_aggregation"].metadata["help"]


def test_a_rollout_gets_what_was_read(make_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prompt once for each completion, none of the dataset's columns, and a trainer that still can generate."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    calls: list[list[Any]] = []

    def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        calls.append(prompts)
        assert not trainer.tools
        assert trainer.environments is None
        return generate_as_trainer(prompts, trainer)

    reward = Composer({"constant": constant}).for_trl()
    make_trainer("grpo", reward, rollout_func=rollout, max_steps=1).train()
    assert [len(prompts) for prompts in calls] == [8]
    assert [len(set(calls[0][start : start + 4])) for start in (0, 4)] == [1, 1]


def test_rloo_has_no_rollout() -> None:
    """When it gets one, the how-to can say so."""
    assert "rollout_func" not in inspect.signature(trl.RLOOTrainer.__init__).parameters


def test_rollouts_are_played_by_one_method_and_scored_by_another() -> None:
    """What sets environments and tools up calls what generates and plays, once, and nothing but that is left out."""
    source = inspect.getsource(trl.GRPOTrainer._generate_and_score_completions)
    assert source.count("self._generate(prompts)") == 1
    assert source.index(".reset(**reset_kwargs)") < source.index("self._generate(prompts)")
    played = inspect.getsource(trl.GRPOTrainer._generate)
    assert "return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images" in played
    assert "self._metrics[mode]" in played
