"""What the trainer makes of ``reward_funcs``, datasets and compositions."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from transformers import HfArgumentParser  # noqa: E402

from rlaif_sdk import Composer, reward  # noqa: E402
from rlaif_sdk.exceptions import BatchError, ConfigError, DataError, RewardError  # noqa: E402
from rlaif_sdk.training.ppo import PPOConfig  # noqa: E402
from rlaif_sdk.training.ppo.scoring import (  # noqa: E402
    build_composer,
    check_datasets,
    reward_batch,
    reward_metrics,
    scores_of,
)
from rlaif_sdk.types import Progress, RewardBatch  # noqa: E402


def length(completions: list[str], **_: Any) -> list[float | None]:
    return [float(len(text)) if text else None for text in completions]


@reward(name="capitals")
def capitals(completions: list[str]) -> list[float]:
    """Number of capital letters."""
    return [float(sum(letter.isupper() for letter in text)) for text in completions]


def batch(completions: list[str]) -> RewardBatch:
    return RewardBatch(prompts=[""] * len(completions), completions=completions)


def test_a_composer_is_used_as_it_is() -> None:
    """Whatever has ``compose`` is not wrapped."""
    composer = Composer({"length": length})
    assert build_composer(composer) is composer


def test_a_list_is_summed_with_its_weights() -> None:
    """Functions and rewards together, weighted in their order; 1.0 each unless said."""
    composer = build_composer([length, capitals], [0.5, 2.0])
    np.testing.assert_allclose(composer.compose(batch(["aB", "ABC"])).totals, [3.0, 7.5])
    plain = build_composer((length, capitals))
    np.testing.assert_allclose(plain.compose(batch(["aB"])).totals, [3.0])


def test_one_function_and_a_mapping_do_as_well() -> None:
    """A single callable stands for a list of one; a mapping gives the names."""
    assert list(build_composer(length).compose(batch(["a"])).rewards) == ["length"]
    named = build_composer({"short": length, "long": length})
    assert list(named.compose(batch(["a"])).rewards) == ["short", "long"]


def test_two_rewards_of_one_name_are_refused() -> None:
    """Their figures could not be told apart; two lambdas are the usual case."""
    with pytest.raises(ConfigError, match="two rewards are named '<lambda>'"):
        build_composer([lambda completions: [0.0] * len(completions), lambda completions: [1.0] * len(completions)])


@pytest.mark.parametrize(
    ("rewards", "weights", "message"),
    [
        ([], None, "there is no reward"),
        ([length], [1.0, 2.0], "2 entries for 1 reward"),
        (Composer({"length": length}), [1.0], "along with a composer"),
    ],
)
def test_weights_must_fit(rewards: Any, weights: Any, message: str) -> None:
    """Surplus or missing weights are refused, never dropped; so are weights beside a composer's own."""
    with pytest.raises(ConfigError, match=message):
        build_composer(rewards, weights)


def test_something_that_is_no_reward_is_refused() -> None:
    """A number, say."""
    with pytest.raises(TypeError, match="is no reward"):
        build_composer([3])


class Classifier(torch.nn.Module):
    """As transformers' sequence classifiers are: the head, a layer, is called score."""

    def __init__(self) -> None:
        super().__init__()
        self.score = torch.nn.Linear(1, 1)


@pytest.mark.parametrize("model", ["org/reward-model", Classifier()])
def test_a_reward_model_is_refused_with_what_to_do(model: Any) -> None:
    """TRL takes one by name or as a module; here a module would be called with texts, in the first rollout."""
    for rewards in (model, [length, model]):
        with pytest.raises(TypeError, match="load_classifier"):
            build_composer(rewards)


def rows_batch(generations: int, *, training: bool = True) -> RewardBatch:
    rows = [{"prompt": "a", "reference": "x"}, {"prompt": "a", "reference": "x"}, {"prompt": "b"}, {"prompt": "b"}]
    return reward_batch(
        rows,
        prompts=[row["prompt"] for row in rows],
        completions=["1", "2", "3", "4"],
        completion_ids=[[1], [2], [3], [4]],
        generations=generations,
        progress=Progress(3, 10),
        training=training,
    )


def test_the_batch_says_where_it_comes_from() -> None:
    """How far training is, and whether it is training at all: running statistics stay clean of evaluation."""
    batch = rows_batch(2, training=False)
    assert (batch.progress, batch.training) == (Progress(3, 10), False)
    assert rows_batch(2).training


def test_columns_go_along_and_the_prompt_is_no_column() -> None:
    """Every other column of the dataset reaches the rewards; a gap in one is None."""
    assert rows_batch(2).columns == {"reference": ["x", "x", None, None]}


def test_generations_of_a_prompt_are_a_group() -> None:
    """Rows that answer one prompt share a label; with one generation nothing is known of groups."""
    assert rows_batch(2).group == [0, 0, 1, 1]
    assert rows_batch(1).group is None


class Totals:
    """A composition of given totals."""

    def __init__(self, totals: list[float]) -> None:
        self.totals = np.array(totals)
        self.rewards: dict[str, Any] = {}

    def metrics(self) -> dict[str, float]:
        """Nothing of its own."""
        return {}


def test_unscored_rows_stay_so() -> None:
    """NaN marks a row without a score; others are clipped to the range."""
    scores_B = scores_of(Totals([5.0, float("nan"), -5.0]), 3, clip=(-1.0, 1.0))
    assert scores_B.dtype is torch.float32
    assert scores_B.isnan().tolist() == [False, True, False]
    assert scores_B[[0, 2]].tolist() == [1.0, -1.0]


@pytest.mark.parametrize(("totals", "message"), [([1.0], r"shape \(1,\) for 2"), ([1.0, float("inf")], "infinite")])
def test_totals_that_would_poison_a_batch_are_refused(totals: list[float], message: str) -> None:
    """A wrong number of rows is not broadcast, and an infinite total does not reach the trainer."""
    with pytest.raises(RewardError, match=message):
        scores_of(Totals(totals), 2)


def test_means_are_over_scored_rows() -> None:
    """The logged reward leaves unscored rows out, and is NaN when there are no others."""
    assert reward_metrics(Totals([1.0, float("nan"), 3.0])) == {"reward": 2.0, "reward_std": 1.0}
    assert np.isnan(reward_metrics(Totals([float("nan")]))["reward"])


def test_composers_of_the_sdk_report_every_reward() -> None:
    """The metrics of a real composition come along."""
    metrics = reward_metrics(build_composer([length]).compose(batch(["ab", ""])))
    assert metrics["reward"] == metrics["reward/length/raw_mean"] == 2.0
    assert metrics["reward/total/unscored"] == 0.5


def test_datasets_are_refused_early() -> None:
    """A missing prompt and a reserved column are named before anything is generated, in evaluation sets too."""
    good = Dataset.from_dict({"prompt": ["a"]})
    check_datasets(good, None, {"held-out": good})
    with pytest.raises(DataError, match=r"no column 'prompt'.*text"):
        check_datasets(good, {"held-out": Dataset.from_dict({"text": ["a"]})})
    with pytest.raises(BatchError, match="'trainer_state' has a reserved name"):
        check_datasets(Dataset.from_dict({"prompt": ["a"], "trainer_state": [1]}))


def config(**settings: Any) -> PPOConfig:
    return PPOConfig("unused", use_cpu=True, report_to=[], **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.1}, "beta: beta cannot be used.*kl_coef"),
        ({"sync_ref_model": True}, "sync_ref_model"),
        ({"gamma": 1.5}, "gamma: gamma must be at most 1"),
        ({"gae_lambda": -0.1}, "gae_lambda must be at least 0"),
        ({"kl_coef": float("nan")}, "kl_coef must be"),
        ({"kl_target": 6.0, "kl_coef": 0.0}, "kl_target needs a kl_coef"),
        ({"kl_target": 0.0}, "kl_target must be above 0"),
        ({"kl_target": 6.0, "kl_horizon": 7.0}, r"kl_horizon \(7\) is shorter than a rollout of 16"),
        ({"value_clip": 0.0}, "value_clip must be above 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be above 0"),
        ({"max_completion_length": 0}, "max_completion_length must be above 0"),
        ({"generation_batch_size": 12}, r"generation_batch_size \(12\) is no multiple of the minibatch \(8\)"),
        ({"generation_batch_size": 16, "steps_per_generation": 2}, "exclude each other"),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 3}, "must not reach over two rollouts"),
        ({"num_generations": 3}, "no multiple of num_generations"),
        ({"router_aux_loss_coef": 0.1}, "router_aux_loss_coef"),
    ],
)
def test_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    """A value out of range, or a setting that PPO has another way for, is a ConfigError that says what to do."""
    with pytest.raises(ConfigError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("settings", "size", "minibatches"),
    [
        ({}, 16, 2),
        ({"gradient_accumulation_steps": 2}, 32, 4),
        ({"algorithm": "reinforce"}, 8, 1),
        ({"algorithm": "reinforce", "gradient_accumulation_steps": 4}, 32, 4),
        ({"steps_per_generation": 1}, 8, 1),
        ({"steps_per_generation": 4, "gradient_accumulation_steps": 2}, 32, 4),
        ({"generation_batch_size": 24}, 24, 3),
    ],
)
def test_a_rollout_is_sized_as_in_trl(settings: dict[str, Any], size: int, minibatches: int) -> None:
    """Minibatch times steps per generation; unless set, PPO makes two optimiser steps of a rollout and REINFORCE one."""
    made = config(**settings)
    assert (made.rollout_size, made.rollout_minibatches) == (size, minibatches)


def test_settings_can_come_from_a_command_line() -> None:
    """transformers' argument parser reads them, as it does TRL's."""
    (made,) = HfArgumentParser(PPOConfig).parse_args_into_dataclasses(
        [
            "--output_dir",
            "unused",
            "--kl_coef",
            "0.2",
            "--value_clip",
            "0.5",
            "--use_cpu",
            "true",
            "--report_to",
            "none",
        ]
    )
    assert (made.kl_coef, made.value_clip, made.bf16, made.gradient_checkpointing) == (0.2, 0.5, False, False)


def test_importing_the_package_loads_no_torch() -> None:
    """Command lines and editors may import the trainer's package without waiting for torch."""
    code = (
        "import sys, rlaif_sdk.composer as composer, rlaif_sdk.training.ppo as ppo;"
        "assert 'PPOTrainer' in dir(ppo) and 'Gate' in dir(composer);"
        "print([name for name in ('torch', 'transformers', 'trl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
