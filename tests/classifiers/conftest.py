"""The tiny BERT classifier that the tests share, saved by transformers and exported to ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.classifiers.classifier_folders import build_bert


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier of two labels."""
    return build_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def onnx_folder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same classifier exported to ONNX."""
    import torch
    from transformers import BertForSequenceClassification

    folder = tmp_path_factory.mktemp("onnx")
    model = BertForSequenceClassification.from_pretrained(bert_folder).eval()
    example = torch.ones((2, 5), dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            model,
            kwargs={name: example.clone() for name in names},
            f=str(folder / "model.onnx"),
            dynamo=True,
            dynamic_shapes=dict.fromkeys(names, dynamic),
            output_names=["logits"],
            opset_version=18,
            verbose=False,
        )
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((bert_folder / file).read_bytes())
    return folder
