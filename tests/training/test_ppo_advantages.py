"""Token rewards and generalized advantage estimation, against slow references."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402

from rlaif_sdk.training.ppo.advantages import generalized_advantages, token_rewards  # noqa: E402


def mask_of(lengths: list[int]) -> Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def explicit_advantage(rewards: list[float], values: list[float], t: int, gamma: float, lam: float) -> float:
    """Equation 16 as it is written: a sum of discounted residuals, the value after the end being 0."""
    padded = [*values, 0.0]
    residuals = [rewards[k] + gamma * padded[k + 1] - padded[k] for k in range(len(rewards))]
    return sum((gamma * lam) ** (k - t) * residuals[k] for k in range(t, len(rewards)))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_advantages_equal_the_explicit_sum_on_ragged_rows(
    lengths: list[int], gamma: float, lam: float, seed: int
) -> None:
    """Every row has the advantages of the formula, whatever the other rows' lengths and the padding's content."""
    generator = torch.Generator().manual_seed(seed)
    mask_BT = mask_of(lengths)
    rewards_BT = torch.randn(mask_BT.shape, generator=generator, dtype=torch.float64)
    values_BT = torch.randn(mask_BT.shape, generator=generator, dtype=torch.float64)
    rewards_BT[mask_BT == 0] = float("nan")
    values_BT[mask_BT == 0] = 1e30
    advantages_BT, returns_BT = generalized_advantages(rewards_BT, values_BT, mask_BT, gamma=gamma, lam=lam)
    for row, length in enumerate(lengths):
        rewards, values = rewards_BT[row, :length].tolist(), values_BT[row, :length].tolist()
        expected = [explicit_advantage(rewards, values, t, gamma, lam) for t in range(length)]
        assert advantages_BT[row, :length].tolist() == pytest.approx(expected, abs=1e-9)
        assert returns_BT[row, :length].tolist() == pytest.approx(
            [a + v for a, v in zip(expected, values, strict=True)], abs=1e-9
        )


def test_returns_are_reward_to_go_without_discount() -> None:
    """At gamma = lambda = 1 the return of a token is the sum of the rewards from it on, whatever the values."""
    rewards_BT = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 0.0, 0.0]])
    _, returns_BT = generalized_advantages(rewards_BT, torch.randn(2, 4), mask_of([4, 2]), gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns_BT, torch.tensor([[15.0, 14.0, 12.0, 8.0], [48.0, 32.0, 0.0, 0.0]]))


def test_padding_has_no_advantage_and_no_return() -> None:
    """Padding is exactly 0 in both, so that it cannot leak into a mean taken without a mask."""
    mask_BT = mask_of([5, 1, 3])
    advantages_BT, returns_BT = generalized_advantages(
        torch.randn(3, 5), torch.randn(3, 5), mask_BT, gamma=0.9, lam=0.9
    )
    assert not advantages_BT[mask_BT == 0].any()
    assert not returns_BT[mask_BT == 0].any()


def test_the_score_lands_once_on_the_last_real_token() -> None:
    """A row's score is added to the reward of its last real token and to no other."""
    mask_BT = mask_of([4, 1, 2])
    rewards_BT = token_rewards(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3, 4), mask_BT, 0.5)
    torch.testing.assert_close(rewards_BT, torch.tensor([[0.0, 0, 0, 1.0], [2.0, 0, 0, 0], [0, 3.0, 0, 0]]))


def test_what_falls_on_tokens_stays_there_and_the_rest_falls_on_the_last() -> None:
    """A row's rewards sum to its score; what stands on padding counts for nothing."""
    token_rewards_BT = torch.tensor([[0.5, 0.0, -2.0, 0.25], [1.0, 9.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0]])
    rewards_BT = token_rewards(
        torch.tensor([1.0, 1.0, 3.0]), torch.zeros(3, 4), mask_of([4, 1, 2]), 0.5, token_rewards_BT
    )
    torch.testing.assert_close(rewards_BT, torch.tensor([[0.5, 0.0, -2.0, 2.5], [1.0, 0, 0, 0], [0, 3.0, 0, 0]]))


def test_tokens_pay_for_their_divergence_beside_their_own_reward() -> None:
    """The penalty is taken from what falls on the token, and does not come back at the end."""
    rewards_BT = token_rewards(
        torch.tensor([1.0]), torch.tensor([[0.1, 0.2]]), mask_of([2]), 2.0, torch.tensor([[0.7, 0.0]])
    )
    torch.testing.assert_close(rewards_BT, torch.tensor([[0.5, -0.1]]))


def test_every_real_token_pays_for_its_divergence() -> None:
    """The KL penalty is taken on each real token, and not on padding."""
    kl_BT = torch.tensor([[0.1, 0.2, -0.3], [0.4, 9.0, 9.0]])
    rewards_BT = token_rewards(torch.tensor([1.0, 1.0]), kl_BT, mask_of([3, 1]), 2.0)
    torch.testing.assert_close(rewards_BT, torch.tensor([[-0.2, -0.4, 1.6], [0.2, 0.0, 0.0]]))


def test_a_row_that_counts_in_nothing_has_no_reward() -> None:
    """A row whose mask is all 0 gets no reward anywhere, its score included."""
    rewards_BT = token_rewards(torch.tensor([7.0]), torch.ones(1, 3), torch.zeros(1, 3), 1.0)
    assert not rewards_BT.any()
