"""Generation of a rollout: what makes it faster changes none of its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402

from rlaif_sdk.training import generation  # noqa: E402
from rlaif_sdk.training.generation import GenerationSettings, answer_prompts  # noqa: E402
from rlaif_sdk.training.ppo.inputs import contiguous_head_input  # noqa: E402


def _generate(model: Any) -> Any:
    torch.manual_seed(1)
    ids_BP = torch.randint(3, 10, (4, 6))
    mask_BP = torch.ones_like(ids_BP)
    mask_BP[0, :3] = 0
    asked = {"input_ids": ids_BP, "attention_mask": mask_BP, "do_sample": True, "max_new_tokens": 8}
    return model.generate(**asked, return_dict_in_generate=True, output_logits=True)


def _head_inputs(model: Any, generate: Callable[[], Any]) -> list[bool]:
    """Whether each tensor that the head multiplies is contiguous."""
    seen: list[bool] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, args, __: seen.append(args[0].is_contiguous()))
    try:
        generate()
    finally:
        hook.remove()
    assert seen
    return seen


def test_a_prompts_last_states_are_contiguous_where_the_head_reads_them(llama: Any):
    """Of a slice, PyTorch would copy the head's weight for every row; without the context it is one."""
    plain = _head_inputs(llama, lambda: _generate(llama))
    assert not all(plain), "transformers gives the head a contiguous tensor by now: this can go"
    with contiguous_head_input(llama):
        assert all(_head_inputs(llama, lambda: _generate(llama)))


def test_rollouts_and_held_out_answers_are_generated_so(make_trainer: Any, llama: Any, tokenizer: Any):
    """Both ways to sample: a trainer's, and that of an evaluation before and after."""
    trainer = make_trainer(llama)
    prompts = Dataset.from_dict({"prompt": ["w1 w2 w3", "w4"]})
    assert all(_head_inputs(llama, lambda: trainer._generate([*prompts["prompt"]])))
    assert all(_head_inputs(llama, lambda: answer_prompts(llama, tokenizer, prompts, trainer.args)))


def test_the_sampled_tokens_are_those_of_plain_generate(llama: Any):
    """The same numbers are multiplied."""
    plain = _generate(llama)
    with contiguous_head_input(llama):
        found = _generate(llama)
    assert torch.equal(found.sequences, plain.sequences)
    torch.testing.assert_close(found.logits, plain.logits)


def test_nothing_is_left_on_the_model(llama: Any):
    """Not after an error either."""
    with pytest.raises(RuntimeError, match="stop"), contiguous_head_input(llama):
        raise RuntimeError("stop")
    assert not llama.get_output_embeddings()._forward_pre_hooks


def test_a_model_without_a_head_is_left_as_it_is(llama: Any):
    """A backbone has no output embeddings."""
    with contiguous_head_input(llama.model):
        assert llama.model.get_output_embeddings() is None


def test_how_far_the_answering_is_and_the_time_left_are_told(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    """After every batch but the last, where batches take as long as the least time between two lines."""
    monkeypatch.setattr(generation, "TOLD_EVERY", 0.0)
    prompts = Dataset.from_dict({"prompt": ["w1 w2", "w3", "w4", "w5", "w6"]})
    settings = GenerationSettings(batch_size=2, max_completion_length=4).sampling(seed=0)
    told: list[str] = []
    answer_prompts(llama, tokenizer, prompts, settings, report=told.append)
    assert [line.rpartition(", ")[0] for line in told] == ["  2 of 5 answered", "  4 of 5 answered"]
    assert all(line.endswith(" s left") for line in told)
