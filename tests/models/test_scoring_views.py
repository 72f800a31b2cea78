"""The rewards of scoring models read the view that their params name, and abstain where it holds no words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import Composer, Composition, RewardBatch

LONE = [
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
]
TALK: list[Any] = [
    {"role": "assistant", "content": "the cat sat"},
    {"role": "tool", "content": "very rude"},
    {"role": "assistant", "content": "<think>bad dog</think>good answer"},
]


def composed(folder: Path, use: str, completions: list[Any], **params: Any) -> Composition:
    own = {"model": str(folder), "label": "hate", "device": "cpu", **params}
    with Composer.from_config({"rewards": {"r": {"use": use, "params": own}}}) as composer:
        return composer.compose(RewardBatch(["hello"] * len(completions), completions))


@pytest.mark.parametrize("use", ["text_classification", "onnx"])
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "the cat sat\n\ngood answer"),
        ({"view": "answer"}, "good answer"),
        ({"view": "answer", "thinking": "keep"}, "<think>bad dog</think>good answer"),
        ({"view": "transcript"}, "assistant: the cat sat\n\ntool: very rude\n\nassistant: good answer"),
    ],
)
def test_a_conversation_scores_as_its_view(onnx_folder: Path, use: str, params: dict[str, Any], words: str) -> None:
    """The text of the view alone, thinking and other people's words only where they are asked for."""
    only = {"input": "completion"} if use == "onnx" else {}
    talk = composed(onnx_folder, use, [TALK], **params, **only).to_list()
    plain = composed(onnx_folder, use, [words], thinking="keep", **only).to_list()
    assert talk == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("use", ["text_classification", "onnx"])
def test_a_lone_call_has_no_words(onnx_folder: Path, use: str) -> None:
    """It is no empty text: the reward abstains, and scores the others."""
    column = composed(onnx_folder, use, [LONE, "good answer"]).rewards["r"]
    assert [column.status(row) for row in range(2)] == ["abstained", "scored"]
