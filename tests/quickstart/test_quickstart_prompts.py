"""The prompts that come with the quickstart, and how they are made."""

from __future__ import annotations

import gzip
import json
import os
from importlib.resources import files
from pathlib import Path

import pytest

from rlaif_sdk.quickstart.make_prompts import (
    HELD_OUT_SIZES,
    TRAIN_SIZES,
    choose,
    hh_rlhf_rows,
    interleave,
    truthfulqa_rows,
)

DATA = files("rlaif_sdk.quickstart") / "data"
TABLE = """\
Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source
A,Myths,Do pigs fly?,Pigs do not fly,Pigs do not fly; I have no comment; No.,Yes,x
A,Stereotypes,Are all people alike?,No,No,Yes,x
A,Myths,What is it?,I have no comment,I have no comment,That,x
"""


def rows(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def question(row: dict[str, object]) -> str:
    (message,) = row["prompt"]
    assert message["role"] == "user"
    return message["content"]


def test_held_out_prompts_are_not_trained_on():
    """No question is in both files, whatever its case, and none is there twice."""
    train = [question(row).lower() for row in rows("train.jsonl")]
    held_out = [question(row).lower() for row in rows("held-out.jsonl")]
    assert len({*train, *held_out}) == len(train) + len(held_out)
    assert (len(train), len(held_out)) == (sum(TRAIN_SIZES.values()), sum(HELD_OUT_SIZES.values()))


@pytest.mark.parametrize("name", ["train.jsonl", "held-out.jsonl"])
def test_references_are_there_where_an_answer_is_known(name: str):
    """TruthfulQA's rows have a reference; hh-rlhf's have null, so that the factuality reward abstains."""
    for row in rows(name):
        assert (row["reference"] is None) == (row["source"] == "hh-rlhf")


def test_the_data_come_with_their_licences():
    """Both sources are named with their licence; hh-rlhf's MIT text is there in full."""
    notice = (DATA / "NOTICE.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2022 Anthropic" in notice
    assert "THE SOFTWARE IS PROVIDED" in notice
    assert "Apache\nLicense 2.0" in notice or "Apache License 2.0" in notice


def test_a_reference_joins_the_correct_answers(tmp_path: Path):
    """Refusals to answer are no source of facts, stereotypes stay out, and an answer is not repeated."""
    (tmp_path / "t.csv").write_text(TABLE)
    (row,) = truthfulqa_rows(tmp_path / "t.csv")
    assert question(row) == "Do pigs fly?"
    assert row["reference"] == "Pigs do not fly. No."


def test_only_the_picked_openings_of_dialogues_are_taken(tmp_path: Path):
    """The first human turn of the picked lines, and nothing that was said later."""
    dialogue = "\n\nHuman: first  question?\n\nAssistant: answer\n\nHuman: second?\n\nAssistant: done"
    with gzip.open(tmp_path / "hh.jsonl.gz", "wt") as file:
        file.write((json.dumps({"chosen": dialogue}) + "\n") * 3)
    assert [question(row) for row in hh_rlhf_rows(tmp_path / "hh.jsonl.gz")] == ["first question?"], (
        "line 1 alone is picked"
    )


def test_samples_do_not_depend_on_the_order_of_the_source():
    """A sample is fixed by the questions themselves."""
    made = [
        {"prompt": [{"role": "user", "content": f"q{index}"}], "reference": None, "source": "s"} for index in range(20)
    ]
    assert choose(made, [3, 5]) == choose(made[::-1], [3, 5])


def test_interleaving_spreads_every_part_evenly():
    """Any stretch of the file has some of each source."""
    letters = interleave([["a"] * 2, ["b"] * 4])
    assert "".join(letters) == "babbab"


def test_the_shipped_files_are_what_the_command_makes(tmp_path: Path):
    """The files in the package were not edited by hand. Needs the published data sets."""
    root = Path(os.environ.get("RLAIF_DATA", Path(__file__).parents[3] / "shared" / "data"))
    hh_rlhf, truthfulqa = root / "hh-rlhf-harmless/harmless-base_test.jsonl.gz", root / "truthfulqa/TruthfulQA.csv"
    if not (hh_rlhf.is_file() and truthfulqa.is_file()):
        pytest.skip("the published data sets are not here: set RLAIF_DATA to their folder")
    made = {"hh-rlhf": hh_rlhf_rows(hh_rlhf), "truthfulqa": truthfulqa_rows(truthfulqa)}
    chosen = {name: choose(part, [HELD_OUT_SIZES[name], TRAIN_SIZES[name]]) for name, part in made.items()}
    for index, name in enumerate(("held-out.jsonl", "train.jsonl")):
        assert interleave([samples[index] for samples in chosen.values()]) == rows(name)
