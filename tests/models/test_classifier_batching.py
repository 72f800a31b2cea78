"""What `Classifier.logits` promises, whatever runs the model, on the real small BERT of the fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rlaif_sdk import BatchError, Classifier, RewardError, load_classifier

TEXTS = ["the cat sat on the mat", "a dog", "bad", "", "very kind and not rude", "a dog", "hello \ud800 world"]
PAIRS = ["question", "the answer is good and kind", "bad", "rude", "mat", "the dog sat", "hello"]


@pytest.fixture(scope="module", params=["transformers", "onnx"])
def classifier(request: pytest.FixtureRequest) -> Iterator[Classifier]:
    """The same weights on either backend."""
    folder = request.getfixturevalue("bert_folder" if request.param == "transformers" else "onnx_folder")
    loaded = load_classifier(folder, tokens_per_batch=24)
    yield loaded
    loaded.close()


def reference_logits(folder: Path, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
    """What transformers computes for each input on its own."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for row, text in enumerate(texts):
            inputs = tokenizer(text, None if pairs is None else pairs[row], return_tensors="pt")
            rows.append(model(**inputs).logits[0].numpy())
    return np.stack(rows)


def test_logits_are_the_models_own_in_input_order(classifier: Classifier, bert_folder: Path) -> None:
    """Sorting, batching and padding change nothing but speed."""
    logits_NL = classifier.logits(TEXTS)
    assert logits_NL.dtype == np.float32
    replaced = [text.replace("\ud800", "?") for text in TEXTS]
    np.testing.assert_allclose(logits_NL, reference_logits(bert_folder, replaced), atol=1e-4)


def test_pairs_are_read_as_two_segments(classifier: Classifier, bert_folder: Path) -> None:
    """A pair is encoded as the tokenizer encodes pairs, token types included, not as one joined text."""
    texts = TEXTS[:6]
    logits_NL = classifier.logits(texts, PAIRS[:6])
    np.testing.assert_allclose(logits_NL, reference_logits(bert_folder, texts, PAIRS[:6]), atol=1e-4)
    assert not np.allclose(logits_NL, classifier.logits(texts), atol=1e-2)


def test_it_satisfies_the_protocol(classifier: Classifier) -> None:
    """A loaded classifier is a `Classifier`, with its labels from the config."""
    assert isinstance(classifier, Classifier)
    assert classifier.labels == ("nothate", "hate")
    assert classifier.problem_type == "single_label_classification"


def test_no_texts_give_no_logits(classifier: Classifier) -> None:
    """An empty batch keeps its second dimension."""
    assert classifier.logits([]).shape == (0, 2)


def test_a_special_token_in_a_text_is_ordinary_text(classifier: Classifier) -> None:
    """Writing the separator into a text gives the tokens of its letters, not the end of a segment."""
    spelled, spaced = classifier.logits(["bad [SEP] dog"]), classifier.logits(["bad [ SEP ] dog"])
    np.testing.assert_allclose(spelled, spaced, atol=1e-5)


@pytest.mark.parametrize("backend_fixture", ["bert_folder", "onnx_folder"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_an_over_long_text_is_cut_on_the_declared_side_and_counted(
    request: pytest.FixtureRequest, backend_fixture: str, side: str
) -> None:
    """The kept end decides the logits, and every row that was cut counts, duplicates too."""
    loaded = load_classifier(request.getfixturevalue(backend_fixture), max_length=6, truncation_side=side)  # type: ignore[arg-type]
    head, tail = "the cat sat on", "very rude bad dog"
    long = f"{head} {'kind ' * 50} {tail}"
    logits_NL = loaded.logits([long, long, head, tail])
    np.testing.assert_allclose(logits_NL[0], logits_NL[3 if side == "left" else 2], atol=1e-5)
    assert loaded.truncated == 2


def test_the_first_cut_is_told_and_later_ones_are_counted(onnx_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names the model, the limit and the side once; nothing is said while every input fits."""
    loaded = load_classifier(onnx_folder, max_length=6, truncation_side="left")
    with caplog.at_level("WARNING"):
        loaded.logits(["a dog"])
        assert not caplog.messages
        for _ in range(2):
            loaded.logits(["kind " * 50, "a dog", "rude " * 50])
    (told,) = caplog.messages
    assert str(onnx_folder) in told
    assert "6 tokens of an input at most; longer ones are cut on the left: 2 so far" in told
    assert loaded.truncated == 4


def test_inputs_that_are_no_texts_are_refused(classifier: Classifier) -> None:
    """One string, a None among the texts, or pairs of another length: each is named."""
    with pytest.raises(BatchError, match="not one string"):
        classifier.logits("text")
    with pytest.raises(BatchError, match=r"texts\[1\] must be a string, not NoneType"):
        classifier.logits(["a", None])  # type: ignore[list-item]
    with pytest.raises(BatchError, match="pairs has 1 entries where texts has 2"):
        classifier.logits(["a", "b"], ["c"])


def test_a_closed_classifier_says_so(bert_folder: Path) -> None:
    """Closing twice is harmless; scoring afterwards is an error, not a crash."""
    loaded = load_classifier(bert_folder)
    loaded.close()
    loaded.close()
    with pytest.raises(RewardError, match="closed"):
        loaded.logits(["a"])


def test_a_duplicate_is_scored_once(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred copies of a text cost one forward row."""
    loaded = load_classifier(bert_folder)
    seen: list[int] = []
    forward = loaded.forward  # type: ignore[attr-defined]
    monkeypatch.setattr(loaded, "forward", lambda tokens: seen.append(len(tokens.input_ids)) or forward(tokens))
    logits_NL = loaded.logits(["a dog"] * 100 + ["bad"])
    assert sum(seen) == 2
    assert (logits_NL[:100] == logits_NL[0]).all()
