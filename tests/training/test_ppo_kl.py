"""Estimators of the divergence, and the controllers that set its price."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rlaif_sdk.exceptions import StateError  # noqa: E402
from rlaif_sdk.training.ppo.kl import (  # noqa: E402
    AdaptiveKL,
    FixedKL,
    KLEstimator,
    estimate_kl,
    make_kl_controller,
)

ESTIMATORS: list[KLEstimator] = ["k1", "k2", "k3"]


@pytest.mark.parametrize(("estimator", "bias"), [("k1", 0.02), ("k2", 0.12), ("k3", 0.02)])
def test_the_estimators_are_right_in_the_mean(estimator: KLEstimator, bias: float) -> None:
    """Over samples of the policy: k1 and k3 without bias, k2 with a little where the two are close."""
    torch.manual_seed(0)
    policy = torch.randn(6).log_softmax(0)
    reference = (policy + 0.4 * torch.randn(6)).log_softmax(0)
    exact = (policy.exp() * (policy - reference)).sum().item()
    drawn = torch.multinomial(policy.exp(), 400_000, replacement=True)
    estimates = estimate_kl(policy[drawn], reference[drawn], estimator)
    assert estimates.mean().item() == pytest.approx(exact, rel=bias)
    assert (estimates.min().item() >= 0) == (estimator != "k1")


def test_the_estimators_are_those_of_the_note() -> None:
    """With r = reference / policy = 3: -log r, (log r)^2 / 2, (r - 1) - log r."""
    log_three = torch.tensor(3.0).log()
    found = [estimate_kl(torch.tensor(-2.0), log_three - 2.0, estimator) for estimator in ESTIMATORS]
    torch.testing.assert_close(torch.stack(found), torch.stack([-log_three, log_three**2 / 2, 2 - log_three]))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_where_policy_and_reference_agree_every_estimator_is_zero(estimator: KLEstimator) -> None:
    """Exactly, so that nothing is paid for at the start."""
    logprobs_BT = -torch.rand(3, 4) * 20
    assert not estimate_kl(logprobs_BT, logprobs_BT.clone(), estimator).any()


def test_a_fixed_coefficient_stays() -> None:
    """Without a target nothing changes it, a restored state neither."""
    controller = make_kl_controller(0.1, None, 1000)
    controller.update(50.0, 64)
    controller.load_state_dict({"coef": 9.0})
    assert isinstance(controller, FixedKL)
    assert controller.coef == 0.1


@settings(max_examples=50, deadline=None)
@given(kl=st.floats(-100, 100), completions=st.integers(1, 512))
def test_the_adaptive_coefficient_moves_towards_its_target(kl: float, completions: int) -> None:
    """Too much divergence raises the price, too little lowers it, at most by a fifth of completions / horizon."""
    controller = AdaptiveKL(coef=0.1, target=6.0, horizon=10_000)
    controller.update(kl, completions)
    change = controller.coef / 0.1 - 1
    assert abs(change) <= 0.2 * completions / 10_000 + 1e-12
    assert (change >= 0) == (kl >= 6.0) or change == pytest.approx(0, abs=1e-12)


def test_the_adaptive_coefficient_follows_the_paper() -> None:
    """Half the target, 100 of 1,000 completions: the error is cut at -0.2, the factor 0.98."""
    controller = AdaptiveKL(coef=0.1, target=6.0, horizon=1000)
    controller.update(3.0, 100)
    assert controller.coef == pytest.approx(0.098)


def test_the_adaptive_coefficient_survives_a_restart() -> None:
    """Its state carries the coefficient; a state without one is refused."""
    controller = AdaptiveKL(coef=0.1, target=6.0, horizon=1000)
    controller.update(100.0, 500)
    restored = AdaptiveKL(coef=0.1, target=6.0, horizon=1000)
    restored.load_state_dict(controller.state_dict())
    assert restored == controller
    with pytest.raises(StateError, match="no coefficient"):
        restored.load_state_dict(FixedKL(0.1).state_dict())
