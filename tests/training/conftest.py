"""Small real models and a tokenizer, built from configs: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from transformers import (  # noqa: E402
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer  # noqa: E402
from tests.tiny_models import (  # noqa: E402
    WORDS,
    accept_renamed_checkpointing,
    quiet_and_single_threaded,  # noqa: F401 - a fixture
    tiny_llama,
    word_tokenizer,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role + ' ' + m.content + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def build_tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer("user", "assistant", "system", chat_template=CHAT_TEMPLATE)


def build_llama(**overrides: Any) -> LlamaForCausalLM:
    return tiny_llama(**{"vocab_size": 34, "initializer_range": 0.2, **overrides})


def build_gpt2(**overrides: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    settings = {
        "vocab_size": 34,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        "resid_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
    }
    return GPT2LMHeadModel(GPT2Config(**{**settings, **overrides}))


def build_t5(**overrides: Any) -> T5ForConditionalGeneration:
    """In the shape of Flan-T5: gated, with a language-model head of its own, functional and module dropout."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": 34,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "dropout_rate": 0.1,
        "initializer_factor": 0.5,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return T5ForConditionalGeneration(T5Config(**{**settings, **overrides}))


def build_bart(**overrides: Any) -> BartForConditionalGeneration:
    torch.manual_seed(0)
    settings = {
        "vocab_size": 34,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "init_std": 0.2,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.1,
        "encoder_layerdrop": 0.2,
        "decoder_layerdrop": 0.2,
        "decoder_start_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
    }
    return BartForConditionalGeneration(BartConfig(**{**settings, **overrides}))


BUILDERS: dict[str, Callable[..., Any]] = {
    "llama": build_llama,
    "gpt2": build_gpt2,
    "t5": build_t5,
    "bart": build_bart,
}


@pytest.fixture(params=["llama", "gpt2", "t5"])
def model(request: pytest.FixtureRequest) -> Any:
    """A model of each kind: rotary and learnt positions (wrong under padding unless told otherwise), encoder-decoder."""
    return BUILDERS[request.param]()


@pytest.fixture(params=["t5", "bart"])
def encoder_decoder(request: pytest.FixtureRequest) -> Any:
    """Relative positions, and learnt ones, which padding on the left shifts."""
    return BUILDERS[request.param]()


@pytest.fixture
def build_model() -> Callable[..., Any]:
    """Builds a model by its kind: llama, gpt2, t5 or bart."""
    return lambda kind, **overrides: BUILDERS[kind](**overrides)


@pytest.fixture
def load_model(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[[str], Any]:
    """Loads a model of a kind from a folder that holds its tokenizer, too, with heads as large as vLLM takes on CPUs."""
    shapes: dict[str, dict[str, int]] = {
        "llama": {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1},
        "gpt2": {"n_embd": 64, "n_head": 2},
    }

    def load(kind: str) -> Any:
        folder = tmp_path / kind
        model = BUILDERS[kind](**shapes.get(kind, {}))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return type(model).from_pretrained(folder)

    return load


@pytest.fixture
def llama() -> LlamaForCausalLM:
    return build_llama()


@pytest.fixture
def make_llama() -> Callable[..., LlamaForCausalLM]:
    return build_llama


@pytest.fixture
def prompts() -> Dataset:
    """Sixteen prompts of one to four words, and a column for rewards."""
    texts = [" ".join(WORDS[(row + k) % 28] for k in range(1 + row % 4)) for row in range(16)]
    return Dataset.from_dict({"prompt": texts, "wanted": [WORDS[row] for row in range(16)]})


def count_wanted(completions: list[str], wanted: list[str], **_: Any) -> list[float]:
    """Share of the words that are the wanted one."""
    return [text.split().count(word) / 8 for text, word in zip(completions, wanted, strict=True)]


@pytest.fixture
def make_trainer(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, prompts: Dataset) -> Callable[..., PPOTrainer]:
    """Builds a trainer: any argument of `PPOTrainer`, and settings of `PPOConfig` as keywords."""

    def make(
        model: Any,
        reward_funcs: Any = count_wanted,
        *,
        train_dataset: Dataset = prompts,
        eval_dataset: Any = None,
        callbacks: Any = None,
        peft_config: Any = None,
        eval_reward_funcs: Any = None,
        **settings: Any,
    ) -> PPOTrainer:
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "steps_per_generation": 2,
            "max_completion_length": 8,
            "max_steps": 4,
            "logging_steps": 1,
            "save_strategy": "no",
            "learning_rate": 1e-3,
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
        }
        if "generation_batch_size" in settings:
            del defaults["steps_per_generation"]
        return PPOTrainer(
            model,
            reward_funcs,
            args=PPOConfig(**{**defaults, **settings}),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=peft_config,
            eval_reward_funcs=eval_reward_funcs,
        )

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    accept_renamed_checkpointing(items, Path(__file__).parent)
