"""Rewards that were written for other libraries, named in a config."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlaif_sdk import Composer, ConfigError, RewardBatch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.integrations.conftest import build_tokenizer  # noqa: E402

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w3 w3"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three labels, as its folder."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    labels = {0: "calm", 1: "sad", 2: "glad"}
    config = transformers.BertConfig(vocab_size=31, pad_token_id=0, id2label=labels, **shape)
    folder = tmp_path_factory.mktemp("classifier")
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def composed(config: dict, completions: list, **columns: list) -> list[float | None]:
    with Composer.from_config(config) as composer:
        batch = RewardBatch(["?"] * len(completions), completions, columns=columns)
        return composer.compose(batch).to_list()


def test_a_text_classifier_gives_what_the_pipeline_gives(classifier):
    """``text_classification`` is the label's score of transformers' own pipeline."""
    pipeline = transformers.pipeline("text-classification", model=str(classifier), top_k=None)
    expected = [next(one["score"] for one in said if one["label"] == "glad") for said in pipeline(TEXTS)]
    params = {"model": str(classifier), "label": "glad"}
    totals = composed({"rewards": {"mood": {"use": "text_classification", "params": params}}}, TEXTS)
    assert totals == pytest.approx(expected, rel=1e-5)


def test_a_classifier_of_several_labels_wants_one_chosen(classifier):
    """Without a label the message names those to choose from."""
    config = {"rewards": {"mood": {"use": "text_classification", "params": {"model": str(classifier)}}}}
    with pytest.raises(ConfigError, match="calm, sad, glad"):
        composed(config, TEXTS)


def test_a_label_to_avoid_is_a_cost(classifier):
    """``higher_is_better: false`` turns the sign, and the log-odds do not saturate."""
    params = {"model": str(classifier), "label": "sad", "output": "log_odds"}
    plain = composed({"rewards": {"mood": {"use": "text_classification", "params": params}}}, TEXTS)
    cost = {**params, "higher_is_better": False}
    turned = composed({"rewards": {"mood": {"use": "text_classification", "params": cost}}}, TEXTS)
    assert turned == pytest.approx([-value for value in plain])


def test_a_reward_function_of_trl_needs_no_wrapper():
    """TRL's own rewards are named by their module."""
    pytest.importorskip("trl")
    talks = [[{"role": "assistant", "content": text}] for text in ("<think>a</think>b", "b")]
    assert composed({"rewards": {"format": {"use": "trl.rewards:think_format_reward"}}}, talks) == [1.0, 0.0]


async def exact(completion, answer, state, **info):
    """A verifiers function that raises where it is asked to."""
    if answer == "raise":
        raise ValueError("no such answer")
    return None if answer == "pass" else float(answer == completion) + info["bonus"] * (state["answer"] == "w4")


def grouped(completions):
    return [0.0] * len(completions)


def test_a_verifiers_function_is_called_by_row_and_fails_by_row():
    """It gets what a rubric gives it; where it raises the row has failed, which a rubric would score 0."""
    use = {"use": "verifiers", "params": {"function": f"{__name__}:exact", "arguments": {"bonus": 0.5}}}
    config = {"rewards": {"exact": use}}
    answers = ["w1 w2 w3", "w4", "raise", "pass"]
    assert composed(config, TEXTS, answer=answers) == [1.0, 1.5, None, None]
    with Composer.from_config(config) as composer:
        composition = composer.compose(RewardBatch(["?"] * 4, TEXTS, columns={"answer": answers}))
    column = composition.rewards["exact"]
    assert [column.status(row) for row in range(4)] == ["scored", "scored", "failed", "abstained"]
    assert "no such answer" in (column.reason(2) or "")


begun, told = threading.Event(), threading.Event()


def waits(completion):
    """A plain verifiers function that blocks until the async reward beside it goes on; 0 where it does not."""
    begun.set()
    return told.wait(5)


async def tells(completions):
    await asyncio.to_thread(begun.wait, 5)
    told.set()
    return [1.0] * len(completions)


def test_a_plain_verifiers_function_holds_up_no_other_reward():
    """It blocks a thread of its own, not the event loop on which the async rewards of a composition run."""
    begun.clear()
    told.clear()
    waiting = {"use": "verifiers", "params": {"function": f"{__name__}:waits"}}
    config = {"rewards": {"waiting": waiting, "telling": {"use": f"{__name__}:tells", "weight": 0}}}
    assert composed(config, TEXTS) == [1.0] * len(TEXTS)


def test_an_edited_verifiers_function_is_another_reward_to_a_ledger(tmp_path, monkeypatch):
    """Its own code counts: what the old one said is not taken for what the new one says."""
    monkeypatch.syspath_prepend(tmp_path)
    use = {"use": "verifiers", "params": {"function": "edited_function:score"}}
    config = {"rewards": {"score": use}, "ledger": str(tmp_path / "ledger.sqlite")}
    for value, status in ((1.0, "scored"), (1.0, "cached"), (22.0, "scored")):
        (tmp_path / "edited_function.py").write_text(f"def score(completion):\n    return {value}\n")
        monkeypatch.delitem(sys.modules, "edited_function", raising=False)
        importlib.invalidate_caches()
        with Composer.from_config(config) as composer:
            composition = composer.compose(RewardBatch(["?"], ["w1"]))
        assert (composition.to_list(), composition.rewards["score"].status(0)) == ([value], status)


BOUND = """
import functools

class Opaque:
    pass

def word(text):
    return text.split()[0]

def score(completion, value, find=word):
    return value

bound = functools.partial(score, value={value}, find=word)
opaque = functools.partial(score, value=1.0, find=Opaque())
"""


def revision_elsewhere(folder, value, name):
    """The revision that another process gives a function of a module."""
    (folder / "binding.py").write_text(BOUND.replace("{value}", str(value)))
    code = f"from rlaif_sdk.io.digests import code_digest as d; import binding; print(d(binding.{name}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "PYTHONHASHSEED": "random"}
    asked = [sys.executable, "-c", code]
    return subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_partial_is_the_same_reward_in_every_process_and_another_when_it_binds_another_value(tmp_path):
    """Where it binds what nothing identifies, it has no revision, rather than one of this process alone."""
    first = revision_elsewhere(tmp_path, 1.0, "bound")
    assert first
    assert revision_elsewhere(tmp_path, 1.0, "bound") == first
    assert revision_elsewhere(tmp_path, 2.0, "bound") != first
    assert revision_elsewhere(tmp_path, 1.0, "opaque") == ""


def test_the_scores_of_a_function_without_a_revision_are_not_kept(tmp_path, monkeypatch):
    """Nothing would tell them from those of the function that takes its place."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bindings.py").write_text(BOUND.replace("{value}", "1.0"))
    for name, cached in (("opaque", None), ("bound", [True])):
        config = {"rewards": {"score": {"use": "verifiers", "params": {"function": f"bindings:{name}"}}}}
        for _ in range(2):
            with Composer.from_config({**config, "ledger": str(tmp_path / "ledger.sqlite")}) as composer:
                column = composer.compose(RewardBatch(["?"], ["w1"])).rewards["score"]
        assert (column.cached if column.cached is None else column.cached.tolist()) == cached


def test_a_verifiers_function_of_a_group_is_refused():
    """It would be called with the wrong arguments."""
    config = {"rewards": {"exact": {"use": "verifiers", "params": {"function": f"{__name__}:grouped"}}}}
    with pytest.raises(ConfigError, match="scores a group"):
        composed(config, TEXTS)


def test_the_rewards_are_listed_with_their_parameters():
    """`rlaif rewards show` has them, by the hook that any plugin uses."""
    from rlaif_sdk import Registry

    spec = Registry.default().reward("text_classification")
    assert "label" in json.dumps(spec.params.model_json_schema())
