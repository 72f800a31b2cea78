"""Make the small model, sums to ask it, and answers to warm it up with: of these a few call the calculator.

python make_model.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = 40
CALLS = 0.2
"""The share of warm-up answers that call the tool; the others guess."""
WORDS = ["user", "assistant", "tool", "+", "<call>", "</call>", "add", '{"a":', ",", '"b":', "}"]
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- message.role + ' ' }}
    {%- for call in message.tool_calls or [] %}
        {{- '<call> ' + call.function.name + ' {' }}
        {%- for key, value in call.function.arguments.items() %}
            {{- '"' + key + '": ' + value|string + (' }' if loop.last else ' , ') }}
        {%- endfor %}
        {{- ' </call> ' }}
    {%- endfor %}
    {{- message.content + ' <end> ' if message.content else '<end> ' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'assistant' }}
{%- endif %}"""
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "assistant",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<call> (?P<name>\w+) ",
            "close": "</call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"close": "<end>", "content": "text"},
    },
}
"""How TRL tells a call in what the model says; the tokenizers of instruct models come with one, or TRL knows theirs."""


def make_model(folder: Path) -> None:
    """Two layers of random weights that know numbers up to 39 and a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unk>"}
    tokens = [*special.values(), *WORDS, *map(str, range(NUMBERS))]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=CHAT_TEMPLATE, response_template=RESPONSE_TEMPLATE, **special
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def sums(rows: int, seed: int) -> list[dict[str, Any]]:
    """Sums to ask, with their answers."""
    pairs = np.random.default_rng(seed).integers(NUMBERS // 2, size=(rows, 2)).tolist()
    return [{"prompt": [{"role": "user", "content": f"{a} + {b}"}], "answer": str(a + b)} for a, b in pairs]


def demonstrations(rows: int, seed: int) -> list[dict[str, str]]:
    """Answers to imitate: guesses, and a few calls whose results are said."""
    chance = np.random.default_rng([seed, 1])  # not that of the sums
    found = []
    for row, calls in zip(sums(rows, seed), chance.random(rows) < CALLS, strict=True):
        asked, right = row["prompt"][0]["content"], row["answer"]
        a, b = asked.split(" + ")
        call = f'<call> add {{"a": {a} , "b": {b} }} </call> <end> tool {right} <end> assistant {right}'
        said = call if calls else str(chance.integers(NUMBERS))
        found.append({"prompt": f"user {asked} <end> assistant", "completion": f" {said}"})
    return found


def write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make(folder: Path) -> None:
    """Write the model and the tables."""
    make_model(folder / "start")
    write(folder / "demonstrations.jsonl", demonstrations(8192, seed=0))
    write(folder / "sums.jsonl", sums(2048, seed=1))
    write(folder / "held-out.jsonl", sums(64, seed=2))


if __name__ == "__main__":
    make(Path(__file__).parent / "made")
