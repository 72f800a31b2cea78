"""A cache of the hub with tiny models and tables under the names that people write.

Pages and examples say ``Qwen/Qwen3-0.6B`` and ``trl-lib/tldr``. With ``HF_HOME`` on this cache and the hub offline,
``from_pretrained``, ``load_dataset`` and the command line find there what has the same architecture, files, labels and
columns, with random weights and a few rows. A name that a page needs and the cache lacks is a line in `MODELS` or `TABLES`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

COMMIT = "0" * 40
_CAUSAL, _CLASSIFIER = "ForCausalLM", "ForSequenceClassification"
_SCORE = {"num_labels": 1, "max_position_embeddings": 512}
_HATE = {"id2label": {0: "nothate", 1: "hate"}, "label2id": {"nothate": 0, "hate": 1}}

MODELS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "Qwen/Qwen3-0.6B": ("Qwen3", _CAUSAL, {}),
    "Qwen/Qwen3-0.6B-Base": ("Qwen3", _CAUSAL, {}),
    "Qwen/Qwen2.5-0.5B-Instruct": ("Qwen2", _CAUSAL, {}),
    "Qwen/Qwen2.5-7B-Instruct": ("Qwen2", _CAUSAL, {}),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("Llama", _CAUSAL, {}),
    "google/flan-t5-small": ("T5", "ForConditionalGeneration", {}),
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": ("Qwen3", _CLASSIFIER, _SCORE),
    "facebook/roberta-hate-speech-dynabench-r4-target": ("Roberta", _CLASSIFIER, _HATE),
}
"""Each model's family and class in transformers, and what its config has of its own."""

_BLOCK = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_DECODER = {**_BLOCK, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 4096}
_SHAPES: Mapping[str, dict[str, Any]] = {
    "Qwen2": {key: value for key, value in _DECODER.items() if key != "head_dim"},
    "Qwen3": _DECODER,
    "Llama": _DECODER,
    "T5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0},
    "Roberta": {**_BLOCK, "bos_token_id": 0, "max_position_embeddings": 514},
}
_SPECIAL: Mapping[str, dict[str, str]] = {
    "T5": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Roberta": {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
}
_CHATML = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
_FRAMES = {"T5": "$A </s>", "Roberta": "<s> $A </s>"}
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)

_POSTS = [
    f"SUBREDDIT: r/pets\nTITLE: My cat and the {thing}\nPOST: Every night he pushes it off the shelf.\nTL;DR:"
    for thing in ("lamp", "vase", "clock", "plant", "radio", "globe", "mug", "bowl")
]
_QUESTIONS = [f"How do I {what}?" for what in ("boil an egg", "tie a tie", "fold a map", "plant a tree")]


def _asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _answered(question: str, answer: str) -> list[dict[str, str]]:
    return [*_asked(question), {"role": "assistant", "content": answer}]


_SUMMARIES = [{"prompt": post, "completion": " Cat pushes things off shelves at night."} for post in _POSTS]
_COMPARED = [
    {
        "chosen": _answered(question, "Slowly, one step at a time."),
        "rejected": _answered(question, "No."),
        "score_chosen": 8.0,
        "score_rejected": 3.5,
    }
    for question in _QUESTIONS * 8
]
_PROMPTS = [{"prompt": _asked(question)} for question in _QUESTIONS * 16]
_SUMS = [{"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(8)]

TABLES: Mapping[tuple[str, str], Mapping[str, Sequence[Mapping[str, Any]]]] = {
    ("trl-lib/tldr", "default"): {"train": _SUMMARIES * 20, "validation": _SUMMARIES[:4], "test": _SUMMARIES[4:]},
    ("trl-lib/ultrafeedback_binarized", "default"): {"train": _COMPARED, "test": _COMPARED[:4]},
    ("trl-lib/ultrafeedback-prompt", "default"): {"train": _PROMPTS, "test": _PROMPTS[:4]},
    ("openai/gsm8k", "main"): {"train": _SUMS, "test": _SUMS[:4]},
}
"""The splits of each data set's configuration, with rows in the shape of the real ones."""


def fill(home: Path, real: Mapping[str, Path] = MappingProxyType({})) -> dict[str, str]:
    """Write the cache.

    Args:
        home: A new folder for it.
        real: Folders of real models, by the names whose stand-ins they replace.

    Returns:
        The environment in which the libraries read the cache, and ask no hub.
    """
    for name, (family, task, settings) in MODELS.items():
        repository = home / "hub" / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        snapshot = repository / "snapshots" / COMMIT
        if name in real:
            snapshot.parent.mkdir()
            snapshot.symlink_to(real[name].resolve(), target_is_directory=True)
        else:
            _save_model(snapshot, family, task, settings)
    for (name, configuration), splits in TABLES.items():
        _save_table(home / "datasets", name, configuration, splits)
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _save_model(folder: Path, family: str, task: str, settings: Mapping[str, Any]) -> None:
    import torch
    import transformers

    tokenizer = _tokenizer(family)
    tokenizer.save_pretrained(folder)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "vocab_size": len(tokenizer)}
    config = getattr(transformers, f"{family}Config")(**{**ids, **_SHAPES[family], **settings})
    torch.manual_seed(0)
    getattr(transformers, family + task)(config).save_pretrained(folder)


def _tokenizer(family: str) -> Any:
    """A token a byte, after the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = _SPECIAL.get(family, _CHATML)
    tokens = [*special.values(), "<|im_start|>"] if special is _CHATML else [*special.values()]
    tokens += sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if frame := _FRAMES.get(family):
        ends = [(token, index) for index, token in enumerate(tokens) if token in frame]
        backend.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ends)
    added: dict[str, Any] = {}
    if special is _CHATML:
        template = _tool_template() if family == "Qwen3" else _CHAT_TEMPLATE
        added = {"extra_special_tokens": ["<|im_start|>"], "chat_template": template}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special, **added)


def _tool_template() -> str:
    """The chat template of Qwen3, with calls of tools; TRL has it where it is installed."""
    trl = importlib.util.find_spec("trl")
    if trl is None or trl.origin is None:
        return _CHAT_TEMPLATE
    return (Path(trl.origin).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")


def _save_table(cache: Path, name: str, configuration: str, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Lay a data set out as the library leaves it behind once it is loaded."""
    import datasets
    import pyarrow as pa

    owner, _, table = name.partition("/")
    folder = cache / f"{owner}___{table}" / configuration / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    info = datasets.DatasetInfo(dataset_name=table, config_name=configuration, version="0.0.0")
    info.splits = datasets.SplitDict(dataset_name=table)
    for split, rows in splits.items():
        arrow = datasets.Dataset.from_list([dict(row) for row in rows])
        info.features = arrow.features
        with pa.ipc.new_stream(str(folder / f"{table}-{split}.arrow"), arrow.data.table.schema) as writer:
            writer.write_table(arrow.data.table)
        info.splits.add(datasets.SplitInfo(split, num_examples=len(rows), dataset_name=table))
    info.write_to_directory(str(folder))
