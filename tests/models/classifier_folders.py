"""Real small classifiers, built from a config with random weights, as folders that the loader reads."""

from __future__ import annotations

from pathlib import Path

TEXT = "the a cat dog sat on mat is was not good bad very kind rude and or answer question hello world"
WORDS = TEXT.split()
LABELS = ("nothate", "hate")


def write_word_tokenizer(folder: Path, *, max_length: int = 32) -> None:
    """Write the tokenizer of a BERT over `WORDS` into a model folder."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)


def build_bert(folder: Path, **config: object) -> Path:
    """Save a two-layer BERT classifier with random weights, large enough that its logits differ visibly."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(7)
    settings = {
        "vocab_size": len(WORDS) + 4,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        "initializer_range": 0.5,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
        **config,
    }
    BertForSequenceClassification(BertConfig(**settings)).save_pretrained(folder)
    write_word_tokenizer(folder)
    return folder
