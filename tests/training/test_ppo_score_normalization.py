"""Scores normalised on their way to rewards, on top of what the composer does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402

from rlaif_sdk.exceptions import StateError  # noqa: E402
from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.scoring import ScoreNormalizer  # noqa: E402
from tests.training.ppo_runs import Recorder, by_length, rollouts_of  # noqa: E402

Make = Callable[..., PPOTrainer]
NAN = float("nan")


def scores_of_first_tokens(trainer: PPOTrainer) -> list[float]:
    return trainer._rollout.returns_BT[:, 0].tolist()


def test_of_a_batch_mean_and_deviation_are_0_and_1() -> None:
    """Rows without a score stay without one and move nothing."""
    scores_B = torch.tensor([1.0, 3.0, NAN, 5.0, 7.0])
    normalized_B, _ = ScoreNormalizer("batch").normalize(scores_B, None, training=True)
    known = normalized_B[~normalized_B.isnan()]
    assert (known.mean().item(), known.std(correction=0).item()) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert normalized_B.isnan().tolist() == scores_B.isnan().tolist()


def test_running_statistics_are_those_of_all_training_scores() -> None:
    """However they were cut into rollouts; evaluation is normalised by them and teaches nothing."""
    normalizer = ScoreNormalizer("running")
    rollouts = [torch.tensor([0.0, 2.0, NAN]), torch.tensor([10.0, 4.0, 4.0])]
    for scores_B in rollouts:
        normalizer.normalize(scores_B, None, training=True)
    seen = torch.cat(rollouts)
    seen = seen[~seen.isnan()].numpy()
    for _ in range(2):
        (found,), _ = normalizer.normalize(torch.tensor([7.0]), None, training=False)
        assert found.item() == pytest.approx((7.0 - seen.mean()) / seen.std(), abs=1e-5)


def test_ranks_learn_from_each_other_and_keep_their_own_rows() -> None:
    """Two processes with half the rows each agree with one that has all."""
    scores_N = torch.tensor([1.0, 2.0, 3.0, 10.0])
    (together_N, _) = ScoreNormalizer("batch").normalize(scores_N, None, training=True)
    for rank in (0, 1):
        half = ScoreNormalizer("batch", gather=lambda _: scores_N, rank=rank)
        own = slice(2 * rank, 2 * rank + 2)
        torch.testing.assert_close(half.normalize(scores_N[own], None, training=True)[0], together_N[own])


@pytest.mark.parametrize("kind", ["none", "batch", "running"])
def test_a_row_s_tokens_are_scaled_as_its_score_is(kind: Any) -> None:
    """Two completions that differ by one token's value differ by that in their normalised scores too."""
    scores_B, token_rewards_BT = torch.tensor([1.0, 5.0]), torch.tensor([[1.0, 0.0], [1.0, 4.0]])
    normalized_B, scaled_BT = ScoreNormalizer(kind).normalize(scores_B, token_rewards_BT, training=True)
    assert (scaled_BT[1] - scaled_BT[0]).sum().item() == pytest.approx((normalized_B[1] - normalized_B[0]).item())


def test_the_state_belongs_to_its_kind() -> None:
    """It survives a restart; a checkpoint of another setting is refused by name."""
    normalizer = ScoreNormalizer("running")
    normalizer.normalize(torch.tensor([1.0, 5.0]), None, training=True)
    restored = ScoreNormalizer("running")
    restored.load_state_dict(normalizer.state_dict())
    new = torch.tensor([2.0])
    assert torch.equal(*(part.normalize(new, None, training=False)[0] for part in (normalizer, restored)))
    with pytest.raises(StateError, match="score_normalization 'running', and this run has 'none'"):
        ScoreNormalizer("none").load_state_dict(normalizer.state_dict())


def test_training_sees_normalised_scores_and_the_log_those_of_the_composer(make_trainer: Make, llama: Any) -> None:
    """The missing-EOS penalty is taken in normalised units; what is logged stays comparable between runs."""
    recorder = Recorder(by_length)
    trainer = make_trainer(
        llama, recorder, kl_coef=0.0, score_normalization="batch", missing_eos_penalty=3.0, temperature=3.0, max_steps=1
    )
    trainer.train()
    lengths = np.array([len(ids) for ids in recorder.batches[0].completion_ids])
    cut_short = np.array([ids[-1] != 1 for ids in recorder.batches[0].completion_ids])
    expected = (lengths - lengths.mean()) / lengths.std() - 3.0 * cut_short
    assert scores_of_first_tokens(trainer) == pytest.approx(expected.tolist(), abs=1e-5)
    assert rollouts_of(trainer)[0]["reward"] == pytest.approx((lengths / 8).mean())


def test_evaluation_teaches_the_running_statistics_nothing(make_trainer: Make, llama: Any, prompts: Dataset) -> None:
    """They are of training alone."""
    trainer = make_trainer(llama, Recorder(by_length), eval_dataset=prompts, score_normalization="running", max_steps=2)
    trainer.train()
    state = trainer.score_normalizer.state_dict()
    assert state["count"] == 8
    trainer.evaluate()
    assert trainer.score_normalizer.state_dict() == state


def test_a_resumed_run_goes_on_with_the_statistics_of_its_checkpoint(make_trainer: Make, make_llama: Any) -> None:
    """It ends with those of a run that was never interrupted."""
    settings: dict[str, Any] = {"score_normalization": "running", "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(make_llama(), Recorder(by_length), **settings)
    whole.train()
    resumed = make_trainer(make_llama(), Recorder(by_length), **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert resumed.score_normalizer.state_dict() == whole.score_normalizer.state_dict()
    assert whole.score_normalizer.state_dict()["count"] == 16
