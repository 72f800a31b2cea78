"""The examples in the package's docstrings, run as they stand.

A model that an example names as ``my-classifier`` or ``my-model`` is a folder with a tiny one of random weights.
"""

import ast
import doctest
import importlib
import warnings
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

import rlaif_sdk
from tests.docs.names import PACKAGE, ROOT

FIRST_MET = {
    "Composer", "ListwiseJudge", "OnnxScorer", "PPOTrainer", "PairwiseLabeler", "PointwiseJudge", "Registry", "Reward",
    "RewardBatch", "RewardSpec", "RubricJudge", "Score", "load_judge", "load_labeler", "load_listwise_judge",
    "load_rubric_judge", "reward", "view",
}  # fmt: skip
OF_MODELS = {"OnnxScorer", "PPOTrainer"}


def names_with_examples(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """The classes and functions, methods included, whose docstring shows what a call gives."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ">>>" in (ast.get_docstring(node) or ""):
                yield prefix + node.name
            yield from names_with_examples(node, f"{prefix}{node.name}.")


EXAMPLES = [
    (".".join(file.relative_to(ROOT).with_suffix("").parts), name)
    for file in sorted(PACKAGE.rglob("*.py"))
    for name in names_with_examples(ast.parse(file.read_text(encoding="utf-8")))
]


def run_examples(module: str, name: str) -> None:
    """Run the docstring's examples in a namespace that has only what is documented; each gives what it says."""
    home = importlib.import_module(module)
    documented = attrgetter(name)(home)
    known = {} if name in FIRST_MET else {name.rpartition(".")[2]: documented}
    test = doctest.DocTestParser().get_doctest(documented.__doc__, known, name, home.__file__, 0)
    said: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert results.failed == 0, "".join(said)


@pytest.mark.parametrize("name", sorted(FIRST_MET))
def test_a_name_that_people_meet_first_has_an_example(name: str) -> None:
    """The front door shows each of its names at work."""
    assert (getattr(rlaif_sdk, name).__module__, name) in EXAMPLES


@pytest.mark.parametrize(
    ("module", "name"),
    [pytest.param(*example, id=".".join(example)) for example in EXAMPLES if example[1] not in OF_MODELS],
)
def test_an_example_gives_what_it_says(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a model, a hub or a server, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    run_examples(module, name)


def test_the_example_of_the_scorer_gives_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier of two labels is exported, and scores two texts."""
    pytest.importorskip("onnxscript")
    from tests.models.tiny_classifiers import build

    build(tmp_path / "my-classifier", "bert", labels=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        run_examples("rlaif_sdk.models.scorer", "OnnxScorer")


def test_the_example_of_the_trainer_gives_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny policy makes two steps."""
    pytest.importorskip("trl")
    from tests.tiny_models import tiny_llama, word_tokenizer

    tiny_llama(vocab_size=31).save_pretrained(tmp_path / "my-model")
    word_tokenizer().save_pretrained(tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training libraries' own
        run_examples("rlaif_sdk.training.ppo.trainer", "PPOTrainer")
