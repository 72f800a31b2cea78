"""Pairs in every shape that data sets have, and pairs longer than a trainer takes."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from trl.trainer.dpo_config import DPOConfig  # noqa: E402
from trl.trainer.reward_config import RewardConfig  # noqa: E402

from rlaif_sdk import DataError  # noqa: E402
from rlaif_sdk.conversations import aligned  # noqa: E402
from rlaif_sdk.io.arrow import to_dataset  # noqa: E402
from rlaif_sdk.training.data import (  # noqa: E402
    SameAnswersWarning,
    TooLongWarning,
    checked_preferences,
)
from rlaif_sdk.training.dpo import SoftDPOTrainer  # noqa: E402
from rlaif_sdk.training.methods import (  # noqa: E402
    load_run,
    train,
)
from rlaif_sdk.training.reward_model import SoftRewardTrainer  # noqa: E402
from rlaif_sdk.training.run_folder import check  # noqa: E402
from tests.training.preference_models import SETTINGS, build_reward_llama  # noqa: E402


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


ASKED = [user("w1 w2")]
PLAIN = {"prompt": ASKED, "chosen": [says("w3")], "rejected": [says("w4 w5")]}
SHAPES: dict[str, dict[str, Any]] = {
    "a prompt as text, conversations that begin with it": {
        "prompt": "w1 w2", "chosen": [*ASKED, says("w3")], "rejected": [*ASKED, says("w4 w5")],
    },
    "a prompt as text, answers as messages": {"prompt": "w1 w2", "chosen": [says("w3")], "rejected": [says("w4 w5")]},
    "a prompt of messages, conversations that repeat it": {
        "prompt": ASKED, "chosen": [*ASKED, says("w3")], "rejected": [*ASKED, says("w4 w5")],
    },
    "a prompt of messages, answers as text": {"prompt": ASKED, "chosen": "w3", "rejected": "w4 w5"},
    "no prompt": {"chosen": [*ASKED, says("w3")], "rejected": [*ASKED, says("w4 w5")]},
    "answers that are one message": {"prompt": ASKED, "chosen": says("w3"), "rejected": says("w4 w5")},
    "ShareGPT's fields": {
        "prompt": ASKED,
        "chosen": [{"from": "human", "value": "w1 w2"}, {"from": "gpt", "value": "w3"}],
        "rejected": [{"from": "human", "value": "w1 w2"}, {"from": "gpt", "value": "w4 w5"}],
    },
    "an answer as a response item": {
        "prompt": "w1 w2",
        "chosen": [{"type": "message", "role": "assistant", "content": "w3"}],
        "rejected": {"type": "output_text", "text": "w4 w5"},
    },
    "blocks of text": {
        "prompt": [user([{"type": "text", "text": "w1 w2"}])],  # type: ignore[arg-type]
        "chosen": [says([{"type": "text", "text": "w3"}])],  # type: ignore[arg-type]
        "rejected": [says([{"type": "text", "text": "w4 w5"}])],  # type: ignore[arg-type]
    },
    "null fields": {
        "prompt": "w1 w2 ",
        "chosen": [{**user("w1 w2"), "name": None}, says("w3")],
        "rejected": [*ASKED, {**says("w4 w5"), "tool_calls": None}],
    },
}  # fmt: skip
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another prompt": (
        {"prompt": "w9", "chosen": [*ASKED, says("w3")], "rejected": [*ASKED, says("w4")]},
        r"the answers begin with a message of the role 'user', 'w1 w2', which is not the prompt, 'w9'",
    ),
    "another prompt of messages": (
        {"prompt": [user("w9")], "chosen": [*ASKED, says("w3")], "rejected": [*ASKED, says("w4")]},
        r"which is not the prompt, 'w9'",
    ),
    "one answer to another prompt": (
        {"prompt": ASKED, "chosen": [*ASKED, says("w3")], "rejected": [user("w7"), says("w4")]}, r"'user', 'w.*which is not the",
    ),
    "a prompt that is a number": ({"prompt": 3, "chosen": "w3", "rejected": "w4"}, "'prompt' must be text or messages"),
}  # fmt: skip
TRAINERS: dict[str, Any] = {"dpo": (SoftDPOTrainer, DPOConfig), "reward_model": (SoftRewardTrainer, RewardConfig)}


@pytest.fixture(params=["dpo", "reward_model"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(tmp_path: Path, tokenizer: Any, llama: Any, kind: str) -> Callable[..., Any]:
    def build(rows: list[dict[str, Any]], *, streamed: bool = False, **settings: Any) -> Any:
        trainer, config = TRAINERS[kind]
        table = Dataset.from_list(rows)
        return trainer(
            llama if kind == "dpo" else build_reward_llama(),
            args=config(str(tmp_path / "trainer"), **{**SETTINGS, "max_steps": 1, **settings}),
            train_dataset=table.to_iterable_dataset() if streamed else table,
            processing_class=tokenizer,
        )

    return build


@pytest.fixture
def run(tmp_path: Path, tokenizer: Any, llama: Any, kind: str) -> Callable[..., Any]:
    def build(rows: list[dict[str, Any]], model: Any = None, **settings: Any) -> Any:
        (model or llama).save_pretrained(tmp_path / "start")
        tokenizer.save_pretrained(tmp_path / "start")
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {
            "model": {"name": str(tmp_path / "start")},
            "data": {"train": str(tmp_path / "pairs.jsonl"), "held_out_rows": 4},
            kind: {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True, **settings},
            "output": str(tmp_path / "out"),
        }
        return load_run(kind, config)  # type: ignore[arg-type]

    return build


def token_columns(trainer: Any) -> list[dict[str, Any]]:
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [{name: row[name] for name in names if name in row} for row in trainer.train_dataset]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_of_pairs_trains_on_the_same_tokens(make: Callable[..., Any], shape: str) -> None:
    """As the plain one: a prompt of messages, and answers that hold only what is theirs."""
    plain = token_columns(make([PLAIN] * 4))
    assert token_columns(make([SHAPES[shape]] * 4)) == plain
    streamed = make([SHAPES[shape]] * 4, streamed=True)
    assert token_columns(streamed) == plain
    streamed.train()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_run_takes_every_shape_and_its_check_says_the_same(run: Callable[..., Any], kind: Any, shape: str) -> None:
    """From labels to a trained model; the soft labels stay with their pairs."""
    rows = [{**SHAPES[shape], "chosen_prob": 0.5 + index / 20} for index in range(8)]
    loaded = run(rows)
    found = check(loaded)
    assert (found.problems, found.data["train"]["rows"]) == ([], 4)
    assert train(kind, loaded).steps == 1


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_pair_that_does_not_belong_together_is_named(make: Callable[..., Any], bad: str) -> None:
    """With its row, before anything is encoded, streamed or not."""
    row, message = BAD[bad]
    good = {**row, "prompt": row["chosen"][:1] if isinstance(row["chosen"], list) else "w1"}
    good |= {"rejected": [*row["chosen"][:1], says("w4")]} if isinstance(row["chosen"], list) else {}
    if isinstance(row["prompt"], str):
        good["prompt"] = "w1 w2"
    rows = [good, row] if not isinstance(row["prompt"], int) else [row]
    with pytest.raises(DataError, match=rf"the train set:{len(rows)}: .*{message}"):
        make(rows)
    with pytest.raises(DataError, match=message):
        make(rows, streamed=True).train()


@pytest.mark.parametrize("bad", [name for name in BAD if "number" not in name])
def test_a_check_names_it_as_training_does(run: Callable[..., Any], kind: Any, bad: str) -> None:
    """With the file and the row."""
    row, message = BAD[bad]
    good = {**row, "prompt": "w1 w2" if isinstance(row["prompt"], str) else ASKED, "rejected": [*ASKED, says("w4")]}
    loaded = run([good, good, row, *[good] * 5])
    (problem, *_) = check(loaded).problems
    assert "pairs.jsonl:3" in str(problem)
    with pytest.raises(DataError, match=message):
        train(kind, loaded)


@pytest.mark.parametrize("kind", ["dpo"])
def test_a_policy_needs_a_prompt(make: Callable[..., Any]) -> None:
    """Which answers without one and without shared messages do not have."""
    with pytest.raises(DataError, match="the train set:1: 'chosen' and 'rejected' share no message"):
        make([{"chosen": [says("w3")], "rejected": [says("w4")]}] * 4)


@given(
    st.lists(st.sampled_from([user("a"), says("b"), {"role": "system", "content": "c"}]), min_size=1, max_size=4),
    st.lists(st.sampled_from([says("x"), says("y"), {"role": "tool", "content": "z"}]), min_size=1, max_size=3),
    st.lists(st.sampled_from([says("x"), says("v")]), min_size=1, max_size=3),
)
def test_aligning_neither_loses_nor_adds_a_message(
    prompt: list[dict[str, Any]], chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]
) -> None:
    """The prompt and each answer, one after the other, are what was given; and aligning again changes nothing."""
    for given_prompt, answers in (
        (prompt, [chosen, rejected]),
        (prompt, [prompt + chosen, prompt + rejected]),
        (None, [prompt + chosen, prompt + rejected]),
    ):
        found, (first, second) = aligned(given_prompt, answers)
        assert (found + first, found + second) == (prompt + chosen, prompt + rejected)
        assert first
        assert second
        if given_prompt is not None:
            assert aligned(found, [first, second]) == (found, [first, second])


@pytest.mark.parametrize("answer", [[{"role": "assistant", "content": 42}], [{"from": "gpt"}, 7], [{"words": "w3"}], 3])
def test_an_answer_that_cannot_be_read_is_named(answer: Any) -> None:
    """With its row and what it is, before anything is encoded."""
    rows = [{"prompt": "w1", "chosen": chosen, "rejected": "w4"} for chosen in ("w2", answer)]
    with pytest.raises(DataError, match="the train set:2: 'chosen' must be text or messages: "):
        checked_preferences(to_dataset(rows), "the train set")


@pytest.mark.parametrize("nothing", [{"role": "assistant"}, {"role": "assistant", "content": None}, says("")])
def test_an_answer_without_content_is_an_empty_one(nothing: dict[str, Any]) -> None:
    """A chat template found no content to render, after the model was loaded."""
    assert aligned(ASKED, [[nothing], [says("w4")]]) == (ASKED, [[says("")], [says("w4")]])


LONG = {"prompt": "w1 ", "chosen": "w2 " * 30, "rejected": "w3"}
SHORT = {"prompt": "w1 ", "chosen": "w2", "rejected": "w3"}


def test_pairs_longer_than_max_length_are_counted_and_said(make: Callable[..., Any], kind: str) -> None:
    """A reward model leaves them out; a policy is trained on the beginning of the answer."""
    what = {"reward_model": "skipped", "dpo": "truncated"}[kind]
    with pytest.warns(
        TooLongWarning, match=f"the train set: 12 of 16 pairs are longer than max_length, 16 .*are {what}"
    ):
        trainer = make([LONG] * 12 + [SHORT] * 4, max_length=16)
    assert len(trainer.train_dataset) == (4 if kind == "reward_model" else 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TooLongWarning)
        make([LONG] * 2, max_length=64)
        make([LONG] * 2, max_length=None)


def test_pairs_of_which_none_is_left_are_refused(make: Callable[..., Any], kind: str) -> None:
    """TRL would end in num_samples=0."""
    rows = [LONG] * 5 if kind == "reward_model" else [{**SHORT, "prompt": "w1 " * 20}] * 5
    with pytest.raises(DataError, match="the train set: all 5 pairs are longer than max_length, 16 tokens"):
        make(rows, max_length=16)


def test_a_check_counts_them_before_a_model_loads(run: Callable[..., Any], kind: Any) -> None:
    """Of each table; where all would be left out the run is refused."""
    what = {"reward_model": "skipped", "dpo": "truncated"}[kind]
    found = check(run([LONG] * 6 + [SHORT] * 6, max_length=16))
    assert found.problems == []
    assert f"data.train: 6 of 8 rows are longer than max_length, 16 tokens, and are {what}" in found.warnings
    far = LONG if kind == "reward_model" else {**SHORT, "prompt": "w1 " * 20}
    loaded = run([far] * 8 + [SHORT] * 4, max_length=16)
    (problem,) = check(loaded).problems
    assert str(problem).startswith("data.train: all 8 rows are longer than max_length, 16 tokens")
    with pytest.raises(DataError, match="all 8 rows are longer"):
        train(kind, loaded)


SAME: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "w1 ", "chosen": "w2", "rejected": "w2"},
    "messages": {"prompt": ASKED, "chosen": [says("w2")], "rejected": [says("w2")]},
    "whole conversations": {"chosen": [*ASKED, says("w2")], "rejected": [*ASKED, says("w2")]},
    "null fields": {"prompt": ASKED, "chosen": [says("w2")], "rejected": [{**says("w2"), "refusal": None}]},
}
OTHER = {"texts": SHORT}


@pytest.mark.parametrize("shape", SAME, ids=str)
def test_pairs_of_the_same_answers_are_counted_and_refused_where_all_are(make: Callable[..., Any], shape: str) -> None:
    """Their gradient is zero: a run on them finished and had taught nothing."""
    same, other = SAME[shape], OTHER.get(shape, PLAIN)
    with pytest.raises(DataError, match="the train set: 'chosen' and 'rejected' are the same in all 4 pairs"):
        make([same] * 4)
    with pytest.warns(SameAnswersWarning, match=r"the same in 3 of 8 pairs.*the first is row 2"):
        make([other, *[same] * 3, *[other] * 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error", SameAnswersWarning)
        make([other] * 4)


def test_a_check_counts_pairs_of_the_same_answers(run: Callable[..., Any], kind: Any) -> None:
    """And a run refuses them where there are no others, before a model loads."""
    found = check(run([SAME["texts"], *[SHORT] * 11]))
    assert found.problems == []
    assert sum("are the same in 1 of" in warning for warning in found.warnings) == 1
    with pytest.raises(DataError, match=r"pairs\.jsonl: .*the same in all"):
        train(kind, run([SAME["texts"]] * 12))


def test_a_pair_beyond_the_model_s_positions_is_named(run: Callable[..., Any], kind: Any, build_model: Any) -> None:
    """Where max_length does not keep it from the model; TRL's is 1024 unless set."""
    model = build_model("gpt2", n_positions=20)
    rows = [SHORT, SHORT, LONG, *[SHORT] * 5]
    (problem,) = check(run(rows, model=model)).problems
    assert f"data.train:3: the row has 32 tokens, and the model takes 20 (set {kind}.max_length to 20)" in str(problem)
    assert check(run(rows, model=model, max_length=20)).problems == []


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "w1 w2", "completion": [says("w3 w4 w5")]},
        {"prompt": "w1 w2", "completion": [*ASKED, says("w3 w4 w5")]},
        {"prompt": ASKED, "completion": "w3 w4 w5"},
        {"prompt": ASKED, "completion": [*ASKED, says("w3 w4 w5")]},
    ],
)
def test_supervised_rows_may_mix_text_and_messages_too(tmp_path: Path, tokenizer: Any, llama: Any, row: Any) -> None:
    """They are the same conversation; rows that are cut are counted."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rows.jsonl").write_text((json.dumps(row) + "\n") * 8)
    config = {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "rows.jsonl"), "held_out_rows": 4},
        "sft": {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True, "max_length": 5},
        "output": str(tmp_path / "out"),
    }
    loaded = load_run("sft", config)
    found = check(loaded)
    assert found.problems == []
    assert "data.train: 4 of 4 rows are longer than max_length, 5 tokens, and are truncated" in found.warnings
    assert train("sft", loaded).steps == 1
    config["sft"]["max_length"] = 4
    (problem, *_) = check(load_run("sft", {**config, "output": str(tmp_path / "other")})).problems
    assert str(problem).startswith("data.train: all 4 rows are longer than max_length, 4 tokens")


@pytest.mark.parametrize("label", [True, False, "0.9", math.nan, math.inf, [0.9], 1.5, -0.1])
def test_a_label_that_is_no_probability_is_a_named_row(label: Any) -> None:
    """A JSON true was a TypeError without a row; a label as text sorted as text."""
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "chosen_prob": value} for value in (0.9, label)]
    with pytest.raises(DataError, match=r"pairs:2: 'chosen_prob' must be a (finite number|probability)"):
        checked_preferences(to_dataset(rows), "pairs")


@pytest.mark.parametrize(
    ("chosen", "rejected", "refused"),
    [
        ("The sky is blue", "The sky is blu", True),
        ("Yes", "Yes, and no", True),
        ("Q: 2 + 2? A: 4", "Q: 2 + 2? A: 5", False),
        ("The sky is blue", "The sea is blue", False),
    ],
)
def test_text_of_which_nothing_tells_the_prompt_is_a_named_row(chosen: str, rejected: str, refused: bool) -> None:
    """DPO takes what both begin with for the prompt: of such a pair all of the shorter one but its last character."""
    pairs = to_dataset([{"chosen": chosen, "rejected": rejected}])
    if not refused:
        assert checked_preferences(pairs, "pairs", needs_prompt=True)[:] == pairs[:]
        return
    with pytest.raises(DataError, match="pairs:1: one of 'chosen' and 'rejected' begins with the other") as error:
        checked_preferences(pairs, "pairs", needs_prompt=True)
    assert "give the column 'prompt'" in str(error.value)
    assert checked_preferences(pairs, "pairs")[:] == pairs[:]
