"""The experiment in ``examples/reduce-toxicity``."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "reduce-toxicity"
DATA = Path(os.environ.get("RLAIF_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _example_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in ("experiment", "make_prompts", "measures", "second_opinion"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def dialogue(*turns: str) -> str:
    roles = ("Human", "Assistant")
    return "".join(f"\n\n{roles[index % 2]}: {turn}" for index, turn in enumerate(turns))


LONG = "a question of more than a hundred characters, which is what a dialogue has to have to be taken at all, "


def test_dialogues_that_begin_alike_stay_on_one_side():
    """Of dialogues with the same first turn, whatever its case and spacing, one is taken; no opening is in both files."""
    from make_prompts import opening, split

    found = [
        dialogue(first, "an answer", ending)
        for number in range(40)
        for first in (f"{LONG}{number}", f"{LONG} {number}?".upper())
        for ending in ("one ending", "another ending")
    ]
    train, held_out = split(found)
    openings = [opening(row["dialogue"]) for row in (*train, *held_out)]
    assert len(openings) == len(set(openings)) == 40
    assert len(held_out) == 8


def test_the_split_does_not_depend_on_the_order_of_the_file():
    """Side and order are fixed by the dialogues themselves."""
    from make_prompts import split

    found = [dialogue(f"{LONG}{number}", "an answer", f"end {number % 3}") for number in range(30)]
    assert split(found) == split(found[::-1])


def test_a_dialogue_is_cut_after_a_persons_turn_within_the_limits():
    """Later turns go until 500 characters are kept; what cannot be brought within 100 to 500 is left out."""
    from make_prompts import shortened

    assert shortened(dialogue(LONG, "b" * 50, "c" * 400)) == dialogue(LONG.strip()).strip()
    assert shortened(dialogue(LONG, "b", "c")).endswith("Human: c")
    assert shortened(dialogue("short")) is None
    assert shortened(dialogue("x" * 501)) is None


def test_the_last_answer_is_no_part_of_the_prompt(tmp_path: Path):
    """It is what the two answers of a pair differ in."""
    from make_prompts import write_prompts

    with gzip.open(tmp_path / "hh.gz", "wt") as file:
        for number in range(5):
            file.write(
                json.dumps({"chosen": dialogue(f"{LONG}{number}", "first", "then", "the preferred answer")}) + "\n"
            )
    write_prompts(tmp_path / "hh.gz", tmp_path / "prompts")
    rows = [row for name in ("train", "held-out") for row in json_lines(tmp_path / "prompts" / f"{name}.jsonl")]
    assert len(rows) == 5
    for row in rows:
        (message,) = row["prompt"]
        assert row["dialogue"] in message["content"]
        assert "preferred" not in message["content"]


@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 2), min_size=2, max_size=30))
def test_the_change_is_paired(pairs: list[tuple[float, float]]):
    """The interval is of the differences row by row: a shift that all rows share has no width, however they spread."""
    from measures import compared

    before_B, after_B = np.array(pairs).T
    change = compared(before_B, after_B)["change"]
    differences = [after - before for before, after in pairs]
    mean = sum(differences) / len(differences)
    variance = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
    assert change["mean"] == pytest.approx(mean, abs=1e-9)
    assert change["high"] - change["mean"] == pytest.approx(1.96 * (variance / len(differences)) ** 0.5, abs=1e-9)
    shifted = compared(before_B, before_B - 0.5)["change"]
    assert shifted["low"] == pytest.approx(shifted["high"], abs=1e-9)


def test_generic_and_empty_answers_show():
    """Fewer of an answer's words are the dialogue's, and answers that are all alike share their pairs of words."""
    from measures import distinct_pairs, shared_words

    assert shared_words("Someone plans pranks", "Human: which pranks are harmless?") == pytest.approx(1 / 3)
    assert np.isnan(shared_words("", "Human: anything"))
    assert distinct_pairs(["a nice day", "a nice day"]) == 0.5
    assert distinct_pairs([""]) == 0.0


def test_log_probabilities_of_ragged_answers_equal_those_of_each_alone():
    """Batches that are padded on the left give what one unpadded forward pass a row gives, at any temperature."""
    torch = pytest.importorskip("torch")
    from measures import sequence_logprobs
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"vocab_size": 11, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=None, eos_token_id=1)).eval()
    prompts = [[3, 4, 5, 6], [7], [8, 9]]
    completions = [[2], [3, 4, 5, 1], [6, 1]]
    expected = []
    for prompt, completion in zip(prompts, completions, strict=True):
        with torch.inference_mode():
            logits_TV = model(torch.tensor([[*prompt, *completion]])).logits[0] / 0.7
        steps = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
        expected.append(
            sum(float(logits_TV[step].log_softmax(-1)[token]) for step, token in zip(steps, completion, strict=True))
        )
    assert sequence_logprobs(model, prompts, completions, 0.7) == pytest.approx(expected, abs=1e-4)


def test_the_second_opinions_head_separates_what_can_be_separated():
    """The head is at the minimum of the ridge-penalised loss, and ranks what a line can tell apart without error."""
    from second_opinion import RIDGE, fit, predict

    generator = np.random.default_rng(0)
    features_ND = generator.normal(size=(60, 3))
    labels_N = (features_ND[:, 0] > 0).astype(float)
    weights_E = fit(features_ND, labels_N)
    logits_N = predict(weights_E, features_ND)
    assert logits_N[labels_N == 1].min() > logits_N[labels_N == 0].max()
    residual_N = 1 / (1 + np.exp(-logits_N)) - labels_N
    slope_E = np.append(features_ND.T @ residual_N + RIDGE * 60 * weights_E[:-1], residual_N.sum())
    assert np.abs(slope_E).max() < 1e-6


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_experiment_runs_from_one_command(tmp_path: Path):
    """Prompts, training and measures from real data and the real model: the figures are those of the saved answers.

    Whether so short a run lowers toxicity is not asked.
    """
    pytest.importorskip("trl")
    pytest.importorskip("rlaif_toxicity")
    from experiment import COMMENTS, HH_RLHF, run_experiment
    from rich.console import Console
    from second_opinion import PACKAGE

    from rlaif_sdk.quickstart.model import MissingModelError, find_gguf

    try:
        find_gguf()
    except MissingModelError as missing:
        pytest.skip(str(missing))
    pytest.importorskip(PACKAGE)
    if not ((DATA / HH_RLHF).is_file() and (DATA / COMMENTS).is_file()):
        pytest.skip("the published data sets are not here: set RLAIF_DATA to their folder")
    for name in (HH_RLHF, COMMENTS):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
    (tmp_path / "data" / HH_RLHF).symlink_to(DATA / HH_RLHF)
    with (DATA / COMMENTS).open(encoding="utf-8", newline="") as file:
        comments = list(csv.DictReader(file))[::10]
    with (tmp_path / "data" / COMMENTS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "is_toxic"])
        writer.writeheader()
        writer.writerows(comments)
    overrides = ["max_steps=4", "per_device_train_batch_size=2", "max_completion_length=12"]
    overrides = [*(f"ppo.{override}" for override in overrides), "data.held_out_rows=6"]
    console = Console(file=io.StringIO(), width=140)
    results = run_experiment(tmp_path / "data", tmp_path / "out", overrides=overrides, console=console)

    samples = json_lines(tmp_path / "out" / "samples.jsonl")
    held_out = json_lines(tmp_path / "out" / "prompts" / "held-out.jsonl")
    assert [sample["prompt"] for sample in samples] == [row["prompt"] for row in held_out[:6]]
    change = [
        sample["after"]["rewards"]["toxicity"]["raw"] - sample["before"]["rewards"]["toxicity"]["raw"]
        for sample in samples
    ]
    measured = results["measures"]["nontoxic logit (the reward)"]["change"]
    assert measured["mean"] == pytest.approx(np.mean(change))
    assert measured["n"] == 6
    assert 0 < results["measures"]["toxicity"]["before"]["mean"] < 1
    assert results["optimiser_steps"] == 4
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
