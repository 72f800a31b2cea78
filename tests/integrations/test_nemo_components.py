"""NeMo Gym and NeMo RL get the parts of a total, which sum to it, and are told what not to train on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardError
from rlaif_sdk.composer.constraints import Constraint
from rlaif_sdk.integrations import nemo_rl, save_state
from rlaif_sdk.integrations.samples import ADJUSTED
from tests.integrations.cases import CASES, build_composer, by_composer
from tests.integrations.environment_calls import EnvironmentReturn, nemo_gym_body, verified


def length(completion_texts: list[str]) -> list[float]:
    return [float(len(text)) for text in completion_texts]


def test_the_parts_sum_to_the_reward_whatever_happened() -> None:
    """Scored, gated, abstained and failed rows have the same parts, and the gate's is what it changes."""
    with build_composer() as composer:
        answers = verified(composer, [nemo_gym_body(case) for case in CASES])
    names = {tuple(answer["reward_components"]) for answer in answers}
    assert names == {("mentions", "brevity", "calm", ADJUSTED)}
    for answer, (total, _) in zip(answers, by_composer(CASES), strict=True):
        parts = answer["reward_components"]
        assert math.isclose(sum(parts.values()), answer["reward"], rel_tol=1e-9, abs_tol=1e-12)
        assert answer["reward"] == (0.0 if total is None else total)
        assert (parts[ADJUSTED] != 0) == (total == -1.0)


def test_a_constraint_has_a_part_as_a_gate_has(tmp_path: Path) -> None:
    """Without either the parts are the rewards alone."""
    log = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    with Composer({"length": length}) as composer:
        (answer,) = verified(composer, [nemo_gym_body(CASES[0])])
        assert answer["reward_components"] == {"length": 6.0}
    with Composer({"length": length}, constraints=[Constraint("length", max=2.0, initial=0.5)]) as composer:
        save_state(composer, tmp_path / "state.json")
        kind = nemo_rl.environment(
            composer, object, EnvironmentReturn, components=True, state=str(tmp_path / "state.json")
        )
        parts = kind().step([log], [None]).rewards
    assert parts["reward/length"].tolist() == [5.0]
    assert parts[f"reward/{ADJUSTED}"].tolist() == [-1.5]


def test_a_masked_sample_says_so_where_both_read_it() -> None:
    """NeMo Gym's agents at the top, NeMo RL in the instance's config, whose other settings stay."""
    with build_composer() as composer:
        unscored = {**nemo_gym_body(CASES[5]), "instance_config": {"image": "x"}}
        (answer,) = verified(composer, [unscored])
    assert answer["mask_sample"] is True
    assert answer["instance_config"] == {"image": "x", "mask_sample": True}
    assert "asked to fail" in answer["failure_reason"]


def test_columns_that_the_request_does_not_declare_reach_the_rewards() -> None:
    """NeMo Gym's own request drops them, and every row failed; what its collector adds is none."""
    seen: list[dict[str, Any]] = []

    def spy(completions: list[str], **columns: Any) -> list[float]:
        seen.append({name: values[0] for name, values in columns.items() if name != "prompts"})
        return [1.0] * len(completions)

    with Composer({"spy": spy}) as composer:
        (answer,) = verified(composer, [{**nemo_gym_body(CASES[0]), "_ng_task_index": 3, "_ng_rollout_id": "r"}])
    assert seen == [{"label": "Paris"}]
    assert answer["label"] == "Paris"


def test_nemo_rl_takes_the_parts_by_name() -> None:
    """As its GDPO finds them; an unscored completion raises, or has a part of its own."""
    with Composer({"length": length, "one": lambda completions: [1.0] * len(completions)}) as composer:
        environment = nemo_rl.environment(composer, object, EnvironmentReturn, components=True)()
        log = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        answer = environment.step([log], [None])
        assert {name: part.tolist() for name, part in answer.rewards.items()} == {
            "reward/length": [5.0],
            "reward/one": [1.0],
        }
        assert environment.step([], []).rewards.shape == (0,)
    with Composer({"quiet": lambda completions: [None] * len(completions)}) as composer:
        with pytest.raises(RewardError, match="unscored"):
            nemo_rl.environment(composer, object, EnvironmentReturn, components=True)().step([log], [None])
        stated = nemo_rl.environment(composer, object, EnvironmentReturn, components=True, unscored=-2.0)()
        assert stated.step([log], [None]).rewards["reward/unscored"].tolist() == [-2.0]


def test_nemo_rls_metrics_are_of_the_rows_that_know() -> None:
    """NeMo RL keeps what a step says of a row only while the row goes on."""
    with Composer({"length": length}) as composer:
        environment = nemo_rl.environment(composer, object, EnvironmentReturn)()
    batch = {"extra_env_info": [{"label": "x"}, None, {"rlaif": {"length": 4.0}}]}
    assert environment.global_post_process_and_metrics(batch) == (batch, {"rlaif/length": 4.0})
