"""What prompts share is computed once, and every probability is that of a full forward pass."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif_sdk.judges.backends.local import TransformersBackend
from rlaif_sdk.judges.backends.shared_prefix import SharedPrefix, can_share_prefix, packs, shared_length

sequences_of = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8)


def full_logprobs(model: Any, tokens: list[int]) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].float().log_softmax(-1)


@given(sequences_of, st.integers(1, 30))
def test_packs_hold_every_sequence_and_no_shared_token_twice(sequences: list[list[int]], limit: int) -> None:
    """A branch reads as its sequence, packs keep to the limit, and a pack has as many tokens as distinct beginnings."""
    start = min(shared_length(sequences), min(map(len, sequences)) - 1)
    rows = []
    for pack in packs(sequences, start, limit):
        rows += pack.rows
        assert len(pack.tokens) <= limit or len(pack.rows) == 1
        for row, (_, places) in zip(pack.rows, pack.branches, strict=True):
            assert [pack.tokens[place] for place in places] == sequences[row][start:]
            assert [pack.depths[place] for place in places] == list(range(start, len(sequences[row])))
        beginnings = {
            tuple(sequences[row][:end]) for row in pack.rows for end in range(start + 1, len(sequences[row]) + 1)
        }
        assert len(pack.tokens) == len(beginnings)
    assert sorted(rows) == list(range(len(sequences)))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(sequences_of, min_size=1, max_size=3), prefix=st.lists(st.integers(5, 200), max_size=40))
def test_shared_and_full_forward_passes_agree(tiny_chat: Any, calls: list[list[list[int]]], prefix: list[int]) -> None:
    """Over several calls with different beginnings, whatever is kept from one to the next."""
    import torch

    model, _ = tiny_chat
    with torch.inference_mode():
        shared = SharedPrefix(model, max_tokens=16)
        for number, sequences in enumerate(calls):
            asked = [prefix[: len(prefix) - 7 * number] + tokens for tokens in sequences]
            found = shared.next_logprobs(asked, lambda: False)
            assert sorted(found) == list(range(len(asked)))
            for row, tokens in enumerate(asked):
                assert (found[row] - full_logprobs(model, tokens)).abs().max() < 1e-4


def families() -> list[Any]:
    from transformers import GemmaConfig, GPT2Config, GPTNeoXConfig, Qwen2Config

    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return [
        GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3),
        Qwen2Config(**sizes, **heads, initializer_range=0.3),
        GemmaConfig(**sizes, **heads, head_dim=8, initializer_range=0.3),
        GPTNeoXConfig(**sizes, num_attention_heads=4, initializer_range=0.3),
    ]


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_models_of_other_families_share_their_prefix_too(index: int, attention: str) -> None:
    """Learned and rotary positions, one or many key heads: the trial says yes, and the numbers agree."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(families()[index], attn_implementation=attention).eval()
    prompts = [[*range(40), 7, 8, 9], [*range(40), 7, 9], [*range(40), 3] + [5] * 30]
    with torch.inference_mode():
        assert can_share_prefix(model)
        found = SharedPrefix(model).next_logprobs(prompts, lambda: False)
        for row, tokens in enumerate(prompts):
            assert (found[row] - full_logprobs(model, tokens)).abs().max() < 1e-3


def test_attention_in_a_window_is_left_to_plain_batches() -> None:
    """A short trial could not tell, so the config decides; a recurrent model is left alone as well."""
    import torch
    from transformers import AutoModelForCausalLM, MambaConfig, MistralConfig

    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    mistral = MistralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, sliding_window=64)
    mamba = MambaConfig(vocab_size=300, hidden_size=32, state_size=4, num_hidden_layers=2)
    for config in (mistral, mamba):
        with torch.inference_mode():
            assert not can_share_prefix(AutoModelForCausalLM.from_config(config).eval())


def test_a_model_that_ignores_the_mask_is_found_out(tiny_chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial compares numbers: a model that sees more than its own sequence does not share."""
    import torch

    model, _ = tiny_chat
    forward = model.forward

    def careless(*args: Any, attention_mask: Any = None, **options: Any) -> Any:
        return forward(*args, **options)

    careless.__signature__ = __import__("inspect").signature(forward)  # type: ignore[attr-defined]
    with torch.inference_mode():
        assert can_share_prefix(model)
        monkeypatch.setattr(model, "forward", careless)
        assert not can_share_prefix(model)


def test_a_preamble_goes_through_the_model_once(tiny_chat: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two calls of one judge the tokens computed are those of the distinct beginnings, once."""
    model, tokenizer = tiny_chat
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    backend = TransformersBackend(str(tmp_path))
    backend.setup()
    seen: list[int] = []
    forward = backend._model.forward

    def counted(*args: Any, input_ids: Any, **options: Any) -> Any:
        seen.append(input_ids.numel())
        return forward(*args, input_ids=input_ids, **options)

    counted.__signature__ = __import__("inspect").signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(backend._model, "forward", counted)
    requests = [[{"role": "user", "content": f"{'Rate the answer. ' * 40} {text}"}] for text in "abcd"]
    usage = 0
    for call in (requests[:2], requests[2:], requests[:2]):
        usage += sum(reply.usage.input_tokens for reply in asyncio.run(backend.label_logprobs(call, ["1", "2"])))
    length = usage // 6
    assert sum(seen) < length + 6 * 12
    assert sum(seen) > length


def test_a_model_that_others_train_is_computed_anew(tiny_chat: Any) -> None:
    """Keys and values of a policy that judges are not kept from call to call: its weights may have moved."""
    import copy

    import torch

    model, tokenizer = copy.deepcopy(tiny_chat[0]), tiny_chat[1]
    backend = TransformersBackend(model, tokenizer)
    request = [[{"role": "user", "content": "Rate the answer. " * 20}]]
    [before] = asyncio.run(backend.label_logprobs(request, ["A", "B"]))
    with torch.no_grad():
        for weight in model.model.layers[0].parameters():
            weight.mul_(0.5)
    [after] = asyncio.run(backend.label_logprobs(request, ["A", "B"]))
    [fresh] = asyncio.run(TransformersBackend(model, tokenizer).label_logprobs(request, ["A", "B"]))
    assert after.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)
    assert after.logprobs != pytest.approx(before.logprobs, abs=1e-3)
