"""Where the development data lies, and real small classifiers built from a config with random weights."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

TEXT = "the a cat dog sat on mat is was not good bad very kind rude and or answer question hello world"
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with surge-toxicity in it: the variable RLAIF_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("RLAIF_DATA") or Path(__file__).parents[4] / "shared" / "data")
    if not (folder / "surge-toxicity").is_dir():
        pytest.skip(f"no development data in {folder}; set RLAIF_DATA")
    return folder


@pytest.fixture(scope="session")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny RoBERTa with the labels ``nothate`` and ``hate``."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

    folder = tmp_path_factory.mktemp("roberta")
    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, model_input_names=["input_ids", "attention_mask"], **special
    ).save_pretrained(folder)
    torch.manual_seed(3)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=34,
        type_vocab_size=1,
        initializer_range=0.5,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        id2label={0: "nothate", 1: "hate"},
        label2id={"nothate": 0, "hate": 1},
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def onnx_folder(roberta_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same classifier exported to ONNX."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from transformers import RobertaForSequenceClassification

    folder = tmp_path_factory.mktemp("onnx")
    model = RobertaForSequenceClassification.from_pretrained(roberta_folder).eval()
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            model,
            kwargs={"input_ids": torch.full((2, 5), 4), "attention_mask": torch.ones((2, 5), dtype=torch.int64)},
            f=str(folder / "model.onnx"),
            dynamo=True,
            dynamic_shapes={"input_ids": dynamic, "attention_mask": dynamic},
            output_names=["logits"],
            opset_version=18,
            verbose=False,
        )
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((roberta_folder / file).read_bytes())
    return folder
