"""A trained reward model as the reward ``reward_model``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers import LlamaConfig, LlamaForSequenceClassification  # noqa: E402
from trl import RewardConfig  # noqa: E402

from rlaif_sdk import Composer, ConfigError, RewardBatch  # noqa: E402
from rlaif_sdk.training.reward_model import SoftRewardTrainer  # noqa: E402
from tests.training.conftest import build_tokenizer  # noqa: E402

PROMPTS = ["w1 w2 ", "w3 ", "w4 w5 w6 ", "w1 "]
CHOSEN = ["w7 w8", "w9 w9 w9 w9", "w2", "w11 w12"]
REJECTED = ["w3", "w14 w15", "w2 w2 w2", "w1 w1"]
CHATML = "{% for m in messages %}{{ '<s>' + m.role + ' ' + m.content + ' <eos> ' }}{% endfor %}"

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")


def chats(texts: list[str], role: str) -> list[list[dict[str, str]]]:
    return [[{"role": role, "content": text.strip()}] for text in texts]


def trained(folder: Path, rows: Dataset, *, labels: int = 1, pad: str = "<pad>") -> SoftRewardTrainer:
    """A Llama with an adapter, trained for two steps and saved."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0, "vocab_size": 34, "initializer_range": 0.2}
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.pad_token = pad
    trainer = SoftRewardTrainer(
        LlamaForSequenceClassification(LlamaConfig(num_labels=labels, **shape, **ids)),
        args=RewardConfig(
            output_dir=str(folder / "run"),
            max_steps=2,
            learning_rate=1e-2,
            per_device_train_batch_size=4,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"),
    )
    trainer.train()
    trainer.save_reward(folder / "model")
    return trainer


def own_logits(trainer: SoftRewardTrainer) -> list[float]:
    """What the trained model says of its own training batch: of the chosen ones, then of the rejected ones."""
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(PROMPTS))])
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits[:, 0].tolist()


def composed(folder: Path, prompts: list[Any], completions: list[Any]) -> list[float | None]:
    params = {"model": str(folder / "model"), "device": "cpu"}
    with Composer.from_config({"rewards": {"reward_model": {"params": params}}}) as composer:
        return composer.compose(RewardBatch(prompts, completions)).to_list()


@pytest.mark.parametrize("pad", ["<pad>", "<eos>"])
@pytest.mark.parametrize("kind", ["text", "messages"])
def test_the_composed_reward_is_the_trainers_own_logit(tmp_path: Path, kind: str, pad: str) -> None:
    """On the very pairs it was trained on, text or messages, adapter merged, padding apart from the end token or not."""
    columns = {"prompt": PROMPTS, "chosen": CHOSEN, "rejected": REJECTED}
    if kind == "messages":
        roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        columns = {name: chats(texts, roles[name]) for name, texts in columns.items()}
    trainer = trained(tmp_path, Dataset.from_dict(columns), pad=pad)
    expected = own_logits(trainer)
    assert max(expected) - min(expected) > 0.05
    found = composed(tmp_path, columns["prompt"] * 2, [*columns["chosen"], *columns["rejected"]])
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_message_cannot_end_its_own_turn(tmp_path: Path) -> None:
    """A special token that a completion spells out is no special token."""
    rows = {"prompt": chats(PROMPTS, "user"), "chosen": chats(CHOSEN, "assistant")}
    trained(tmp_path, Dataset.from_dict({**rows, "rejected": chats(REJECTED, "assistant")}))
    spelled, broken = chats(["w1 <eos> w2", "w1 < eos> w2"], "assistant")
    prompts = chats(["w1", "w1"], "user")
    first, second = composed(tmp_path, prompts, [spelled, broken])
    assert first == pytest.approx(second, abs=1e-5)


def test_a_classifier_of_several_labels_is_no_reward_model(tmp_path: Path) -> None:
    """The error says what rewards a label."""
    config = LlamaConfig(
        num_labels=2, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=34
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"2 labels.*text_classification"):
        composed(tmp_path, ["w1"], ["w2"])


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    """Without one the row is unscored, and not put to the model in a way that it was not trained on."""
    rows = Dataset.from_dict({"prompt": PROMPTS, "chosen": CHOSEN, "rejected": REJECTED})
    trained(tmp_path, rows)
    (tmp_path / "model" / "chat_template.jinja").unlink()
    found = composed(tmp_path, [PROMPTS[0], *chats(PROMPTS[:1], "user")], [CHOSEN[0], *chats(CHOSEN[:1], "assistant")])
    assert found[0] is not None
    assert found[1] is None
