"""Log-probabilities and entropies of given tokens: against plain formulas, in chunks, from logits and from a head."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rlaif_sdk.exceptions import TrainingError  # noqa: E402
from rlaif_sdk.training.ppo.logprobs import head_logprobs, token_logprobs  # noqa: E402


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_closed_form_gradients_are_right(temperature: float) -> None:
    """Log-probabilities and entropies pass the numeric gradient check together."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(7, (2, 3))
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, ids, temperature=temperature), (logits,))


@pytest.mark.parametrize("lowest", [-float("inf"), torch.finfo(torch.bfloat16).min])
def test_tokens_that_the_model_rules_out_leave_the_others_as_they_are(lowest: float) -> None:
    """Padding of a vocabulary, masked in the logits, changes no figure and no gradient of the tokens beside it."""
    torch.manual_seed(0)
    plain, ids = torch.randn(2, 3, 7, requires_grad=True), torch.randint(7, (2, 3))
    masked = torch.cat([plain.detach(), torch.full((2, 3, 2), lowest)], dim=-1).requires_grad_()
    parts = [token_logprobs(logits, ids, temperature=0.7) for logits in (masked, plain)]
    torch.testing.assert_close(*parts)
    for logprobs, entropies in parts:
        (logprobs.sum() + 0.3 * entropies.sum()).backward()
    assert masked.grad is not None
    torch.testing.assert_close(masked.grad[..., :7], plain.grad)
    assert not masked.grad[..., 7:].any()


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients are the same however many rows are worked on at once."""
    torch.manual_seed(0)
    ids = torch.randint(50, (4, 9))
    results = []
    for size in (1, 1 << 22):
        monkeypatch.setattr("rlaif_sdk.training.ppo.logprobs._CHUNK_ELEMENTS_CPU", size)
        logits = torch.linspace(-3, 3, 4 * 9 * 50).reshape(4, 9, 50).requires_grad_()
        logprobs, entropies = token_logprobs(logits, ids, temperature=0.9)
        (logprobs.sum() + 0.3 * entropies.sum()).backward()
        results.append((logprobs, entropies, logits.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_gradient_written_over_the_logits_is_the_same_and_taken_once() -> None:
    """``overwrite`` changes no gradient, leaves no second array of the logits' size, and forbids a second pass."""
    torch.manual_seed(0)
    weight, states, ids = torch.randn(11, 4, requires_grad=True), torch.randn(2, 5, 4), torch.randint(11, (2, 5))
    grads = []
    for overwrite in (False, True):
        logits = states @ weight.T
        logprobs, entropies = token_logprobs(logits, ids, temperature=0.7, overwrite=overwrite)
        loss = logprobs.square().sum() + 0.3 * entropies.sum()
        before = logits.detach().clone()
        grads.append(torch.autograd.grad(loss, weight, retain_graph=True)[0])
        assert torch.equal(before, logits) is not overwrite
    torch.testing.assert_close(*grads, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, weight)


def test_entropies_equal_the_distribution_s_own() -> None:
    """Against torch's Categorical, at a temperature."""
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 5, 11), torch.zeros(2, 5, dtype=torch.long)
    _, entropies = token_logprobs(logits, ids, temperature=0.7)
    torch.testing.assert_close(entropies, torch.distributions.Categorical(logits=logits / 0.7).entropy())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("words", [1, 3, 7])
def test_gradients_from_a_head_are_right(monkeypatch: pytest.MonkeyPatch, temperature: float, words: int) -> None:
    """Those of states and weight pass the numeric gradient check, with one word at a time, some, or all."""
    monkeypatch.setattr("rlaif_sdk.training.ppo.logprobs.MADE_ELEMENTS_CPU", 10 * words)
    torch.manual_seed(0)
    states, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 5, 3), (7, 3)))
    ids = torch.randint(7, (2, 5))
    assert torch.autograd.gradcheck(lambda *x: head_logprobs(*x, ids, temperature=temperature), (states, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_gives_what_its_logits_give(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """The same figures; the same gradients too, which in bfloat16 are no coarser for being summed over parts."""
    monkeypatch.setattr("rlaif_sdk.training.ppo.logprobs.MADE_ELEMENTS_CPU", 16 * 40)
    torch.manual_seed(0)
    ids = torch.randint(400, (16, 40))
    states, weight = torch.randn(16, 40, 24), torch.randn(400, 24) / 5
    exact, results = [], []
    for wide in (True, False):
        inputs = [x.to(dtype).to(torch.float64 if wide else dtype).requires_grad_() for x in (states, weight)]
        scores = head_logprobs(*inputs, ids, temperature=0.7) if not wide else None
        logprobs, entropies = scores or token_logprobs(inputs[0] @ inputs[1].T, ids, temperature=0.7)
        (logprobs.sum() + 0.3 * entropies.sum()).backward()
        (exact if wide else results).extend([logprobs, entropies, inputs[0].grad, inputs[1].grad])
    assert results[0].dtype == torch.float32
    assert results[3].dtype == dtype
    for one, other in zip(results, exact, strict=True):
        limit = 1e-5 if dtype is torch.float32 else 0.006
        assert float((one - other).detach().norm()) <= limit * float(other.detach().norm())


def test_autocast_decides_the_type_of_the_products() -> None:
    """States of its type and a weight in float32, as a model in mixed precision has them, give what both in its type give."""
    torch.manual_seed(0)
    states, weight, ids = torch.randn(2, 5, 24).bfloat16(), torch.randn(50, 24), torch.randint(50, (2, 5))
    grads = []
    for mixed in (False, True):
        head = weight.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            logprobs, _ = head_logprobs(states, head if mixed else head.bfloat16(), ids)
        logprobs.sum().backward()
        grads.append(head.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_autocast_around_the_backward_pass_changes_nothing() -> None:
    """Gradients of a forward pass in float32 are taken in float32, wherever ``backward`` is called."""
    torch.manual_seed(0)
    states, weight, ids = torch.randn(2, 5, 24), torch.randn(50, 24), torch.randint(50, (2, 5))
    grads = []
    for mixed in (False, True):
        inputs = [x.clone().requires_grad_() for x in (states, weight)]
        logprobs, entropies = head_logprobs(*inputs, ids, temperature=0.7)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            (logprobs.sum() + 0.3 * entropies.sum()).backward()
        grads.append([x.grad for x in inputs])
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_a_frozen_head_or_frozen_states_cost_no_gradient() -> None:
    """Only what is trained has a gradient, and it is the same as when all is trained."""
    torch.manual_seed(0)
    states, weight, ids = torch.randn(2, 5, 3), torch.randn(7, 3), torch.randint(7, (2, 5))
    grads = []
    for trained in ((True, True), (True, False), (False, True)):
        inputs = [x.clone().requires_grad_(wanted) for x, wanted in zip((states, weight), trained, strict=True)]
        sum(part.sum() for part in head_logprobs(*inputs, ids, temperature=0.7)).backward()
        grads.append([x.grad for x in inputs])
    assert grads[1][1] is None
    assert grads[2][0] is None
    torch.testing.assert_close((grads[1][0], grads[2][1]), tuple(grads[0]))


def test_no_tokens_have_no_logprobs() -> None:
    """An empty batch gives empty tensors."""
    ids = torch.zeros(0, 5, dtype=torch.long)
    for scores in (
        token_logprobs(torch.zeros(0, 5, 7), ids),
        head_logprobs(torch.zeros(0, 5, 3), torch.ones(7, 3), ids),
    ):
        assert [part.shape for part in scores] == [(0, 5), (0, 5)]


@pytest.mark.parametrize(("token", "said"), [(-100, "from -100 to 6"), (7, "from 0 to 7")])
def test_a_token_outside_the_vocabulary_is_refused(token: int, said: str) -> None:
    """Padding of labels, or a token that was added to the tokenizer alone, has no probability."""
    ids = torch.tensor([[0, 3, 6, token]])
    with pytest.raises(TrainingError, match=rf"{said}, .*vocabulary from 0 to 6"):
        token_logprobs(torch.zeros(1, 4, 7), ids)
    with pytest.raises(TrainingError, match=rf"{said}, .*vocabulary from 0 to 6"):
        head_logprobs(torch.zeros(1, 4, 3), torch.ones(7, 3), ids)
