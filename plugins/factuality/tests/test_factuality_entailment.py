"""The reward ``factuality`` with an entailment classifier: a real tiny BERT, and doubles that misbehave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rlaif_factuality.reward as reward_module
from rlaif_factuality import rlaif_rewards
from rlaif_sdk import ConfigError, RewardBatch, RewardError
from rlaif_sdk.testing import check_reward_contract

SPEC = next(iter(rlaif_rewards()))
LABELS = ("contradiction", "ENTAILMENT", "neutral")


@pytest.fixture(scope="module")
def nli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT sequence classifier of two layers with random weights, and its tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("nli")
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["paris", "lyon", "is", "the", "capital", "of", "france", "a", "river", "."],
    ]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


class Classifier:
    """A double that answers what it is told and counts its calls."""

    labels = LABELS
    problem_type = "single_label_classification"
    revision = "r1"
    truncated = 0

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[list[tuple[str, str]]] = []
        self.answer = answer
        self.closed = False

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> NDArray[np.float32]:
        asked = list(zip(texts, pairs or (), strict=True))
        self.calls.append(asked)
        if self.answer is not None:
            return np.asarray(self.answer(asked), dtype=np.float32)
        return np.asarray(
            [[0, 9 if hypothesis in premise else -9, 0] for premise, hypothesis in asked], dtype=np.float32
        )

    def close(self) -> None:
        self.closed = True


def scored(monkeypatch: pytest.MonkeyPatch, double: Classifier, batch: RewardBatch, **params: Any) -> list[Any]:
    monkeypatch.setattr(reward_module, "load_classifier", lambda *_, **__: double)
    reward = SPEC.build({"model": "m", **params})
    reward.setup()
    return list(reward.score(batch))


def rows(*pairs: tuple[str, Any]) -> RewardBatch:
    return RewardBatch(
        prompts=[""] * len(pairs),
        completions=[completion for completion, _ in pairs],
        columns={"reference": [reference for _, reference in pairs]},
    )


def test_a_real_classifier_gives_the_probability_of_entailment_by_its_label(nli_folder: Path) -> None:
    """The score is the softmax of the model's own logits at the label called entailment, in any case."""
    from rlaif_sdk import load_classifier

    claim, source = "the river is a capital .", "the capital of france is paris ."
    reward = SPEC.build({"model": str(nli_folder), "device": "cpu"})
    reward.setup()
    (score,) = reward.score(rows((claim, source)))
    logits = load_classifier(nli_folder, device="cpu").logits([source], [claim])[0].astype(float)
    assert score.value == pytest.approx(np.exp(logits[1]) / np.exp(logits).sum(), abs=1e-6)
    reward.close()


def test_the_reward_keeps_the_contract_with_a_real_classifier(nli_folder: Path) -> None:
    """The checks that the SDK ships for plugin authors pass."""
    check_reward_contract(SPEC, params={"model": str(nli_folder), "device": "cpu"})


def test_a_classifier_without_the_label_is_a_config_error_that_lists_its_labels(nli_folder: Path) -> None:
    """A wrong label name is found before the first row is scored."""
    with pytest.raises(ConfigError, match="contradiction, ENTAILMENT, neutral"):
        SPEC.build({"model": str(nli_folder), "entailment_label": "supports", "device": "cpu"}).setup()


def test_the_weights_are_part_of_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights may give other scores, so caches must tell them apart."""
    monkeypatch.setattr(reward_module, "load_classifier", lambda *_, **__: Classifier())
    reward = SPEC.build({"model": "m"})
    reward.setup()
    assert reward.version == "4+r1"


def test_all_pairs_of_a_batch_are_scored_in_one_call_and_each_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one group often repeat sentences; the classifier reads each once."""
    double = Classifier()
    batch = rows(("It rains. It pours.", "It rains."), ("It rains.", "It rains."), ("It snows.", "It pours."))
    assert len(split := scored(monkeypatch, double, batch)) == 3
    assert [len(call) for call in double.calls] == [3]
    assert split[1].value == pytest.approx(1.0, abs=1e-3)


def test_a_yes_is_read_after_its_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier cannot tell from "Yes." alone what is claimed."""
    double = Classifier()
    batch = RewardBatch(["Is it wet?"], ["Yes, it is."], columns={"reference": ["It rains."]})
    scored(monkeypatch, double, batch)
    assert double.calls == [[("It rains.", "Is it wet? Yes, it is.")]]


def test_a_no_is_asked_although_the_source_lacks_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a source has another name is what a denial rests on."""
    double = Classifier(lambda asked: [[0, 9, 0]] * len(asked))
    batch = RewardBatch(["Was she born in Paris?"] * 2, ["No.", "Yes."], columns={"reference": ["Born in Rome."] * 2})
    no, yes = scored(monkeypatch, double, batch)
    assert no.value == pytest.approx(1.0, abs=1e-3)
    assert yes.value == 0.0


def test_the_best_piece_of_a_long_source_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is read in pieces of at most premise_words words, and one that entails the claim is enough."""
    double = Classifier()
    source = " ".join(f"Word {'again ' * 6}at {index}." for index in range(30)) + " it rains all day."
    (score,) = scored(monkeypatch, double, rows(("it rains all day.", source)), premise_words=20)
    assert score.value == pytest.approx(1.0, abs=1e-3)
    assert len(double.calls[0]) > 10
    assert max(len(premise.split()) for premise, _ in double.calls[0]) <= 20


def test_a_missing_number_or_name_is_unsupported_without_asking_the_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact checks hold in this mode too; entailment models are weak at both."""
    double = Classifier(lambda asked: [[0, 9, 0]] * len(asked))
    batch = rows(("It is in Lyon.", "It is in Paris."), ("It has 5 parts.", "It has 6 parts."))
    assert [score.value for score in scored(monkeypatch, double, batch)] == [0.0, 0.0]
    assert double.calls == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_fail_their_row_and_no_other(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    """A failed row is unscored, never 0."""
    double = Classifier(lambda asked: [[0, bad if "snow" in claim else 9, 0] for _, claim in asked])
    failed, fine = scored(monkeypatch, double, rows(("it snows.", "x y."), ("it rains.", "x y.")))
    assert failed.value is None
    assert "finite" in failed.error
    assert fine.value == pytest.approx(1.0, abs=1e-3)


def test_an_answer_of_the_wrong_shape_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are never assigned to the wrong rows."""
    with pytest.raises(RewardError, match="shape"):
        scored(monkeypatch, Classifier(lambda asked: [[0, 1, 2]] * (len(asked) + 1)), rows(("it rains.", "x y.")))


def test_closing_releases_the_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's memory is given back."""
    double = Classifier()
    monkeypatch.setattr(reward_module, "load_classifier", lambda *_, **__: double)
    reward = SPEC.build({"model": "m"})
    reward.setup()
    reward.close()
    assert double.closed
