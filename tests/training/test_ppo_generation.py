"""Generation of a rollout: what makes it faster changes none of its tokens."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")


from rlaif_sdk.training.ppo.inputs import contiguous_head_input  # noqa: E402
from tests.tiny_models import tiny_llama  # noqa: E402


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return tiny_llama().eval()


def _generate(model: Any) -> Any:
    torch.manual_seed(1)
    ids_BP = torch.randint(3, 10, (4, 6))
    mask_BP = torch.ones_like(ids_BP)
    mask_BP[0, :3] = 0
    asked = {"input_ids": ids_BP, "attention_mask": mask_BP, "do_sample": True, "max_new_tokens": 8}
    return model.generate(**asked, return_dict_in_generate=True, output_logits=True)


def _head_inputs(model: Any) -> list[bool]:
    """Whether each tensor that the head multiplies is contiguous; the hook runs after those that are there."""
    seen: list[bool] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    try:
        _generate(model)
    finally:
        hook.remove()
    return seen


def test_a_prompts_last_states_are_contiguous_where_the_head_reads_them(model: Any):
    """Of a slice, PyTorch would copy the head's weight for every row; without the context it is one."""
    assert not all(_head_inputs(model)), "transformers gives the head a contiguous tensor by now: this can go"
    with contiguous_head_input(model):
        assert all(_head_inputs(model))


def test_the_sampled_tokens_are_those_of_plain_generate(model: Any):
    """The same numbers are multiplied."""
    plain = _generate(model)
    with contiguous_head_input(model):
        found = _generate(model)
    assert torch.equal(found.sequences, plain.sequences)
    torch.testing.assert_close(found.logits, plain.logits)


def test_nothing_is_left_on_the_model(model: Any):
    """Not after an error either."""
    with pytest.raises(RuntimeError, match="stop"), contiguous_head_input(model):
        raise RuntimeError("stop")
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_a_model_without_a_head_is_left_as_it_is(model: Any):
    """A backbone has no output embeddings."""
    with contiguous_head_input(model.model):
        assert model.model.get_output_embeddings() is None
