"""The losses of soft preference labels, against slow references."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rlaif_sdk.training.soft_labels import dpo_differences, soft_preference_losses  # noqa: E402

differences = st.floats(-60, 60)
probabilities = st.floats(0, 1)


def tensor(*values: float, **options: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, **options)


@given(differences, probabilities)
def test_the_loss_is_the_cross_entropy_on_the_softmax_of_two_scores(difference: float, prob: float) -> None:
    """For any scores and label the loss is -sum y log softmax, written out."""
    scores = torch.tensor([difference / 2, -difference / 2], dtype=torch.float64)
    log_normaliser = math.log(sum(math.exp(score - float(scores.max())) for score in scores.tolist())) + scores.max()
    slow = -(prob * (scores[0] - log_normaliser) + (1 - prob) * (scores[1] - log_normaliser))
    assert soft_preference_losses(tensor(difference), tensor(prob)).item() == pytest.approx(slow.item(), abs=1e-9)


@given(st.lists(st.tuples(differences, probabilities), min_size=1, max_size=8))
def test_the_loss_is_torchs_binary_cross_entropy(pairs: list[tuple[float, float]]) -> None:
    """The difference of the scores is the logit of torch's own binary cross-entropy."""
    gaps, probs = (tensor(*column) for column in zip(*pairs, strict=True))
    reference = torch.nn.functional.binary_cross_entropy_with_logits(gaps, probs, reduction="none")
    assert torch.allclose(soft_preference_losses(gaps, probs), reference, rtol=0, atol=1e-12)


@given(differences)
def test_a_label_of_one_is_the_hard_loss_to_the_bit(difference: float) -> None:
    """With p = 1 neither the loss nor its gradient differs from -log sigmoid."""
    soft, hard = tensor(difference, requires_grad=True), tensor(difference, requires_grad=True)
    soft_loss, hard_loss = soft_preference_losses(soft, tensor(1.0)), -torch.nn.functional.logsigmoid(hard)
    soft_loss.sum().backward()
    hard_loss.sum().backward()
    assert torch.equal(soft_loss, hard_loss)
    assert torch.equal(soft.grad, hard.grad)


@given(differences, probabilities)
def test_the_gradient_is_the_belief_minus_the_label(difference: float, prob: float) -> None:
    """So the loss is least where the model believes the label."""
    gap = tensor(difference, requires_grad=True)
    soft_preference_losses(gap, tensor(prob)).sum().backward()
    assert gap.grad.item() == pytest.approx(torch.sigmoid(tensor(difference)).item() - prob, abs=1e-12)


def test_an_even_label_pulls_an_undecided_model_nowhere() -> None:
    """At p = 0.5 and h = 0 the gradient is exactly 0."""
    gap = torch.zeros(3, requires_grad=True)
    soft_preference_losses(gap, torch.full((3,), 0.5)).sum().backward()
    assert torch.equal(gap.grad, torch.zeros(3))


@given(differences, probabilities)
def test_the_names_of_the_two_completions_do_not_matter(difference: float, prob: float) -> None:
    """Swapping chosen and rejected, with 1 - p as the label, leaves the loss as it is."""
    swapped = soft_preference_losses(tensor(-difference), 1 - tensor(prob))
    assert soft_preference_losses(tensor(difference), tensor(prob)).item() == pytest.approx(swapped.item(), abs=1e-9)


def test_the_loss_stays_finite_where_a_softmax_would_saturate() -> None:
    """Differences of a thousand nats give losses of a thousand nats, not infinity or NaN."""
    losses = soft_preference_losses(torch.tensor([1e3, -1e3, 1e3]), torch.tensor([0.0, 1.0, 0.25]))
    assert losses.tolist() == [1000.0, 1000.0, 750.0]


def test_the_difference_of_dpo_is_beta_times_the_difference_of_the_log_ratios() -> None:
    """Policy and reference each count once, with the signs of the paper's equation 7."""
    found = dpo_differences(
        chosen_logprobs_B=tensor(-1.0),
        rejected_logprobs_B=tensor(-7.0),
        ref_chosen_logprobs_B=tensor(-3.0),
        ref_rejected_logprobs_B=tensor(-4.0),
        beta=0.5,
    )
    assert found.item() == 0.5 * ((-1 + 3) - (-7 + 4))
