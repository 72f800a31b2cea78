"""The losses of PPO and REINFORCE, and masked statistics."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from rlaif_sdk.training.ppo.losses import (  # noqa: E402
    clipped_policy_losses,
    clipped_value_losses,
    importance_weights,
    ppo_loss,
)
from rlaif_sdk.training.ppo.masked import (  # noqa: E402
    explained_variance,
    masked_mean,
    masked_variance,
    masked_whiten,
)


@pytest.mark.parametrize(("log_ratio", "advantage"), [(0.5, 1.0), (-0.5, -1.0)])
def test_the_policy_clip_removes_the_gradient(log_ratio: float, advantage: float) -> None:
    """A ratio that has left the clip range in the direction of the advantage gets exactly no gradient."""
    logprobs_BT = torch.tensor([[log_ratio]], requires_grad=True)
    losses_BT, clipped_BT = clipped_policy_losses(
        logprobs_BT, torch.zeros(1, 1), torch.tensor([[advantage]]), clip_low=0.2, clip_high=0.2
    )
    losses_BT.sum().backward()
    assert clipped_BT.all()
    assert logprobs_BT.grad is not None
    assert logprobs_BT.grad.item() == 0.0


@pytest.mark.parametrize(("log_ratio", "advantage"), [(0.5, -1.0), (-0.5, 1.0), (0.1, 1.0), (-0.1, -1.0)])
def test_the_policy_clip_lets_a_ratio_come_back(log_ratio: float, advantage: float) -> None:
    """Within the range, or against the direction of the advantage, the gradient is that of the plain ratio."""
    logprobs_BT = torch.tensor([[log_ratio]], requires_grad=True)
    losses_BT, clipped_BT = clipped_policy_losses(
        logprobs_BT, torch.zeros(1, 1), torch.tensor([[advantage]]), clip_low=0.2, clip_high=0.2
    )
    losses_BT.sum().backward()
    assert not clipped_BT.any()
    torch.testing.assert_close(logprobs_BT.grad, -advantage * torch.tensor([[log_ratio]]).exp())


def test_the_two_clips_of_the_ratio_are_apart() -> None:
    """The upper clip may be wider than the lower one."""
    logprobs_BT = torch.tensor([[1.25, 0.75]]).log()
    _, clipped_BT = clipped_policy_losses(
        logprobs_BT, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), clip_low=0.2, clip_high=0.28
    )
    assert clipped_BT.tolist() == [[False, True]]


def test_the_value_clip_removes_the_gradient() -> None:
    """A value that has moved towards its return by more than the clip gets exactly no gradient."""
    values_BT = torch.tensor([[0.5, -0.5]], requires_grad=True)
    losses_BT, clipped_BT = clipped_value_losses(values_BT, torch.zeros(1, 2), torch.tensor([[2.0, -2.0]]), clip=0.2)
    losses_BT.sum().backward()
    assert clipped_BT.all()
    assert values_BT.grad is not None
    assert not values_BT.grad.any()


def test_a_value_that_moved_away_is_called_back() -> None:
    """The larger of the two errors counts: away from the return, the clip protects nothing."""
    values_BT = torch.tensor([[0.5, 0.1]], requires_grad=True)
    losses_BT, clipped_BT = clipped_value_losses(values_BT, torch.zeros(1, 2), torch.tensor([[-2.0, 2.0]]), clip=0.2)
    losses_BT.sum().backward()
    assert not clipped_BT.any()
    torch.testing.assert_close(values_BT.grad, torch.tensor([[2.5, -1.9]]))


def test_without_a_value_clip_the_loss_is_half_the_squared_error() -> None:
    """``clip=None`` is the plain regression."""
    losses_BT, clipped_BT = clipped_value_losses(
        torch.tensor([[3.0]]), torch.tensor([[0.0]]), torch.tensor([[5.0]]), clip=None
    )
    assert losses_BT.item() == 2.0
    assert not clipped_BT.any()


def arguments(rows: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(rows, 5, generator=generator, dtype=torch.float64)
        for name in (
            "logprobs_BT",
            "entropies_BT",
            "values_BT",
            "old_logprobs_BT",
            "old_values_BT",
            "advantages_BT",
            "returns_BT",
        )
    }
    lengths_B = torch.randint(1, 6, (rows,), generator=generator)
    mask_BT = (torch.arange(5) < lengths_B[:, None]).long()
    clips = {"clip": (0.2, 0.2), "value_clip": 0.2, "value_coef": 0.1, "entropy_coef": 0.01}
    return {**tensors, "mask_BT": mask_BT, **clips}


def test_accumulated_minibatches_add_up_to_one_large_one() -> None:
    """With the shared token count, the mean of the parts' losses and metrics is that of the whole, however ragged."""
    whole = arguments(rows=8)
    tokens = float(whole["mask_BT"].sum())
    parts = []
    for rows in (slice(0, 2), slice(2, 8)):
        part = {name: value[rows] if isinstance(value, Tensor) else value for name, value in whole.items()}
        parts.append(ppo_loss(**part, tokens=tokens / 2))
    expected = ppo_loss(**whole, tokens=tokens)
    torch.testing.assert_close(torch.stack([part.total for part in parts]).mean(), expected.total)
    for name, value in expected.metrics.items():
        torch.testing.assert_close(torch.stack([part.metrics[name] for part in parts]).mean(), value)


def test_the_loss_is_policy_plus_value_minus_entropy() -> None:
    """The total is made of its parts with their coefficients."""
    given_ = arguments(rows=4)
    loss = ppo_loss(**given_, tokens=float(given_["mask_BT"].sum()))
    parts = loss.metrics
    torch.testing.assert_close(loss.total, parts["policy_loss"] + 0.1 * parts["value_loss"] - 0.01 * parts["entropy"])


def test_a_masked_row_moves_nothing() -> None:
    """A row that does not count changes neither the loss nor any gradient, whatever its advantages."""
    given_ = arguments(rows=2)
    given_["mask_BT"][1] = 0
    alone = {name: value[:1] if isinstance(value, Tensor) else value for name, value in given_.items()}
    given_["advantages_BT"][1] = 1e6
    trained = [given_[name].requires_grad_() for name in ("logprobs_BT", "values_BT", "entropies_BT")]
    loss = ppo_loss(**given_, tokens=float(given_["mask_BT"].sum()))
    loss.total.backward()
    torch.testing.assert_close(loss, ppo_loss(**alone, tokens=float(given_["mask_BT"].sum())))
    assert not any(tensor.grad[1].any() for tensor in trained)


def test_a_divergence_is_a_term_of_the_loss_where_there_is_one() -> None:
    """It weighs its coefficient and has its gradient; without it there is no such term, and no metric of it."""
    given_ = arguments(rows=4)
    kl_BT = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    plain = ppo_loss(**given_, tokens=10.0)
    loss = ppo_loss(**given_, tokens=10.0, kl_BT=kl_BT, kl_coef=0.5)
    (loss.total - plain.total).backward()
    torch.testing.assert_close(kl_BT.grad, 0.5 * given_["mask_BT"].double() / 10.0)
    assert loss.metrics.keys() - plain.metrics.keys() == {"kl_loss"}


def test_a_batch_in_which_nothing_counts_has_loss_zero() -> None:
    """No division by zero, and still something to call backward on."""
    given_ = arguments(rows=2)
    given_["mask_BT"][:] = 0
    given_["logprobs_BT"].requires_grad_()
    loss = ppo_loss(**given_, tokens=0.0)
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert not given_["logprobs_BT"].grad.any()


def test_whitening_uses_the_admitted_entries_alone() -> None:
    """Mean 0 and variance 1 over the mask, 0 outside, whatever stands there."""
    x = torch.tensor([[1.0, 2.0, float("nan")], [6.0, 1e30, -1e30]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    white = masked_whiten(x, mask)
    assert masked_mean(white, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert masked_variance(white, mask).item() == pytest.approx(1.0, abs=1e-6)
    assert not white[mask == 0].any()


def test_whitening_equal_entries_gives_zero() -> None:
    """No noise is blown up where all rows did equally well."""
    assert not masked_whiten(torch.full((2, 3), 0.7), torch.ones(2, 3)).any()


def test_explained_variance_tells_good_critics_from_bad() -> None:
    """1 for a perfect critic, 0 for a constant one, below 0 for a misleading one, 0 where nothing varies."""
    returns = torch.tensor([[1.0, 2.0, 3.0, 100.0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    assert explained_variance(returns, returns, mask).item() == pytest.approx(1.0)
    assert explained_variance(torch.full((1, 4), 9.0), returns, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(-returns, returns, mask).item() < 0
    assert explained_variance(torch.randn(1, 4), torch.ones(1, 4), mask).item() == 0.0


def test_reinforce_is_the_log_probability_times_the_advantage() -> None:
    """Its gradient is the score function's; nothing is clipped, however far the policy has moved."""
    given_ = arguments(rows=4) | {"clip": None, "value_coef": 0.0, "entropy_coef": 0.0}
    given_["logprobs_BT"].requires_grad_()
    mask_BT = given_["mask_BT"]
    loss = ppo_loss(**given_, tokens=float(mask_BT.sum()))
    loss.total.backward()
    torch.testing.assert_close(given_["logprobs_BT"].grad, -given_["advantages_BT"] * mask_BT / mask_BT.sum())
    assert loss.metrics["clip_ratio/policy"].item() == 0.0


def test_reinforce_makes_ppo_s_first_step() -> None:
    """Where the ratio is 1 the surrogate's gradient is the policy gradient (Schulman et al. 2017, section 2.1)."""
    gradients = []
    for clip in (None, (0.2, 0.2)):
        given_ = arguments(rows=4) | {"clip": clip}
        given_["old_logprobs_BT"] = given_["logprobs_BT"].clone()
        given_["logprobs_BT"].requires_grad_()
        ppo_loss(**given_, tokens=7.0).total.backward()
        gradients.append(given_["logprobs_BT"].grad)
    torch.testing.assert_close(*gradients)


def test_the_entropy_bonus_rewards_spread() -> None:
    """A step against its gradient raises the entropy; without a coefficient nothing pulls at it."""
    given_ = arguments(rows=4)
    given_["entropies_BT"].requires_grad_()
    ppo_loss(**given_, tokens=10.0).total.backward()
    torch.testing.assert_close(given_["entropies_BT"].grad, -0.01 * given_["mask_BT"].double() / 10.0)


def test_weights_make_the_gradient_that_of_the_policy_s_own_samples() -> None:
    """Over all tokens that an engine of other numerics draws, the weighted gradient is the one under the policy's own draws."""
    odds_V = torch.tensor([0.3, -1.2, 0.9, 0.1], requires_grad=True)
    drawn_V = torch.tensor([0.1, -1.0, 1.1, -0.1]).log_softmax(dim=0)
    advantages_V = torch.tensor([1.0, -2.0, 0.5, 3.0])
    own_V = odds_V.log_softmax(dim=0)
    (wanted,) = torch.autograd.grad(-(own_V.exp() * advantages_V).sum(), odds_V, retain_graph=True)
    weights_BT = importance_weights(own_V.detach()[:, None], drawn_V[:, None], most=3.0)
    assert (weights_BT - 1).abs().max() > 0.05
    old_BT, zeros_BT = own_V.detach()[:, None], torch.zeros(4, 1)
    for mine, expected in ((weights_BT, True), (None, False)):
        losses = [
            ppo_loss(
                logprobs_BT=own_V[row : row + 1, None],
                entropies_BT=zeros_BT[:1],
                values_BT=zeros_BT[:1],
                old_logprobs_BT=old_BT[row : row + 1],
                old_values_BT=zeros_BT[:1],
                advantages_BT=advantages_V[row : row + 1, None],
                returns_BT=zeros_BT[:1],
                mask_BT=torch.ones(1, 1),
                tokens=1.0,
                clip=(0.2, 0.2),
                value_clip=None,
                value_coef=0.0,
                entropy_coef=0.0,
                weights_BT=None if mine is None else mine[row : row + 1],
            ).total
            for row in range(4)
        ]
        whole = (drawn_V.exp() * torch.stack(losses)).sum()
        (found,) = torch.autograd.grad(whole, odds_V, retain_graph=True)
        assert torch.allclose(found, wanted, atol=1e-6) == expected


def test_a_weight_is_at_most_what_it_may_be() -> None:
    """A token that the engine held for nearly impossible would have the gradient of a thousand others."""
    weights_BT = importance_weights(torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[-9.0, -2.0, -2.0]]), most=3.0)
    torch.testing.assert_close(weights_BT, torch.tensor([[3.0, 1.0, torch.tensor(-1.0).exp()]]))
