"""What the package ``rlaif-toxicity`` promises as a plugin, and its reward over any classifier."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlaif_sdk import ConfigError, RewardBatch, Score
from rlaif_sdk.testing import check_reward_contract
from rlaif_toxicity import rlaif_rewards

SPEC = next(iter(rlaif_rewards()))
TEXTS = ["the cat sat on the mat", "rude dog", "hello", "very bad and very rude and not kind"]


def scores_of(texts: list[str], **params: object) -> list[Score]:
    """The reward's scores of some completions, under the prompt ``hello``."""
    reward = SPEC.build(params)
    reward.setup()
    scores: list[Score] = reward.score(RewardBatch(prompts=["hello"] * len(texts), completions=texts))
    reward.close()
    return scores


def raw_logits(folder: Path, texts: list[str]) -> list[list[float]]:
    """The logits that transformers itself computes, one text at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]


def test_the_entry_point_leads_to_the_registration_module() -> None:
    """An installed plugin is found by name and states its API version."""
    (entry,) = entry_points(group="rlaif_sdk", name="toxicity")
    assert entry.load().rlaif_api_version == 1


def test_registering_loads_no_heavy_library() -> None:
    """Listing rewards answers at once: no torch, transformers or onnxruntime is imported."""
    code = "import sys, rlaif_toxicity as t; t.rlaif_rewards(); print({'torch', 'transformers', 'onnxruntime'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("output", ["logit", "probability", "log_odds"])
def test_the_embedded_default_keeps_the_contract(output: str) -> None:
    """The checks that the SDK ships for plugin authors pass without any parameter but the output's."""
    check_reward_contract(SPEC, params={"output": output, "text": "prompt_and_completion"})


@pytest.mark.parametrize("output", ["logit", "probability", "log_odds"])
def test_a_hugging_face_classifier_keeps_the_contract(roberta_folder: Path, output: str) -> None:
    """The same holds for a model that the user names."""
    check_reward_contract(SPEC, params={"model": str(roberta_folder), "label": "nothate", "output": output})


def test_the_logit_is_the_models_raw_logit_of_the_named_label(roberta_folder: Path) -> None:
    """With ``output: logit`` the reward is what transformers computes for the label, whichever index it has."""
    for index, label in enumerate(("NotHate", "hate")):
        found = [score.value for score in scores_of(TEXTS, model=str(roberta_folder), label=label, output="logit")]
        assert found == pytest.approx([row[index] for row in raw_logits(roberta_folder, TEXTS)], abs=1e-5)


def test_probability_and_log_odds_follow_from_the_logits(roberta_folder: Path) -> None:
    """The probability is the softmax of the raw logits, the log-odds their difference for two labels."""
    raw = raw_logits(roberta_folder, TEXTS)
    named = {"model": str(roberta_folder), "label": "nothate"}
    log_odds = [score.value for score in scores_of(TEXTS, **named, output="log_odds")]
    probability = scores_of(TEXTS, **named, output="probability")
    assert log_odds == pytest.approx([row[0] - row[1] for row in raw], abs=1e-5)
    assert [score.value for score in probability] == pytest.approx(
        [1 / (1 + math.exp(row[1] - row[0])) for row in raw], abs=1e-6
    )
    assert [score.details["toxic_probability"] for score in probability] == pytest.approx(
        [1 / (1 + math.exp(row[0] - row[1])) for row in raw], abs=1e-6
    )


@pytest.mark.parametrize("output", ["probability", "log_odds"])
def test_penalising_a_label_is_rewarding_its_opposite(roberta_folder: Path, output: str) -> None:
    """With two labels ``toxic_label: hate`` gives the same score and details as ``label: nothate``."""
    rewarded = scores_of(TEXTS, model=str(roberta_folder), label="nothate", output=output)
    penalised = scores_of(TEXTS, model=str(roberta_folder), toxic_label="hate", output=output)
    assert [s.value for s in penalised] == pytest.approx([s.value for s in rewarded], abs=1e-6)
    assert [s.reason for s in penalised] == [s.reason for s in rewarded]


def test_an_onnx_folder_scores_as_pytorch_does(roberta_folder: Path, onnx_folder: Path) -> None:
    """The exported graph gives the logits of the model that it was exported from."""
    settings = {"label": "nothate", "output": "logit"}
    onnx = [score.value for score in scores_of(TEXTS, model=str(onnx_folder), **settings)]
    torch = [score.value for score in scores_of(TEXTS, model=str(roberta_folder), **settings)]
    assert onnx == pytest.approx(torch, abs=1e-4)


def test_the_prompt_is_read_only_when_asked_for(roberta_folder: Path) -> None:
    """``text`` decides whether the classifier sees the prompt before the completion."""
    named = {"model": str(roberta_folder), "label": "nothate", "output": "logit"}
    alone = scores_of(["rude dog"], **named)[0].value
    after_prompt = scores_of(["rude dog"], **named, text="prompt_and_completion")[0].value
    assert after_prompt == pytest.approx(raw_logits(roberta_folder, ["hello\nrude dog"])[0][0], abs=1e-5)
    assert after_prompt != pytest.approx(alone, abs=1e-3)


def test_of_an_over_long_text_the_end_is_read(roberta_folder: Path) -> None:
    """Truncation drops the beginning, where the prompt is, so padding an answer does not hide its end."""
    named = {"model": str(roberta_folder), "label": "nothate", "output": "logit", "max_length": 6}
    cut, short = scores_of(["kind " * 40 + "very rude and bad", "very rude and bad"], **named)
    assert cut.value == pytest.approx(short.value, abs=1e-5)


def test_a_wrong_label_is_refused_with_the_labels_there_are(roberta_folder: Path) -> None:
    """A misspelt label never falls back to an index."""
    with pytest.raises(ConfigError, match=r"'nothat'.*nothate, hate"):
        SPEC.build({"model": str(roberta_folder), "label": "nothat"}).setup()


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"model": "someone/classifier"}, "give label"),
        ({"label": "nontoxic", "toxic_label": "toxic"}, "not both"),
        ({"device": "cpu"}, "go with model"),
        ({"modle": "x"}, "modle"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(params: dict[str, str], problem: str) -> None:
    """A config that would silently mean something else fails before anything is loaded."""
    with pytest.raises(ValidationError, match=problem):
        SPEC.build(params)


def test_the_range_is_declared_where_there_is_one() -> None:
    """Only a probability is bounded."""
    assert SPEC.build({"output": "probability"}).range == (0.0, 1.0)
    assert SPEC.build({"output": "logit"}).range is None
