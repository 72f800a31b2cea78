"""What the libraries beneath say on standard error."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from rlaif_sdk.cli.quiet import quiet_libraries
from tests.tiny_models import tiny_llama, word_tokenizer

CHAT = "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}"
BARS = ("%|", "it/s]", "examples/s]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy, rows whose prompts are no prefix of what follows, and configs."""
    folder = tmp_path_factory.mktemp("quiet")
    tokenizer = word_tokenizer("1", "2")  # the labels of a pair
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder / "policy")
    tiny_llama(vocab_size=len(tokenizer)).save_pretrained(folder / "policy")
    row = '{"prompt": "w1 w2", "completion": "w3", "response_1": "w1", "response_2": "w2"}\n'
    (folder / "rows.jsonl").write_text(row * 24)
    (folder / "sft.yaml").write_text(
        "model: {name: ./policy}\ndata: {train: rows.jsonl, held_out_rows: 4}\n"
        "sft: {max_steps: 1, per_device_train_batch_size: 2, bf16: false}\n"
    )
    (folder / "label.yaml").write_text("pairs: {file: rows.jsonl, rows: 2}\njudge: {model: ./policy}\n")
    return folder


def said(folder: Path, *arguments: str, **environment: str) -> str:
    """What a command says on standard error, which is no terminal here."""
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    program = [sys.executable, "-m", "rlaif_sdk", *arguments]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_run_shows_no_bars_and_each_warning_once(folder: Path) -> None:
    """TRL warns of each row whose prompt is no prefix: that matters, and is told once."""
    told = said(folder, "train", "sft", "sft.yaml")
    assert not [bar for bar in BARS if bar in told], told
    assert len(told.splitlines()) <= 2, told


@pytest.mark.slow
def test_a_labelling_job_shows_no_bars(folder: Path) -> None:
    """Neither of the weights that are loaded."""
    told = said(folder, "label", "label.yaml")
    assert not [bar for bar in BARS if bar in told], told


@pytest.mark.slow
def test_all_is_shown_where_it_is_asked_for(folder: Path) -> None:
    """``RLAIF_DEBUG``; whoever looks for a fault wants to see it."""
    assert "Loading weights" in said(folder, "train", "sft", "sft.yaml", "--set", "output=other", RLAIF_DEBUG="1")


def test_warnings_of_what_will_change_are_left_out_of_the_libraries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the user's own code, and a library's warning of the data, stay."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    kinds = [
        (FutureWarning, "transformers.trainer"),
        (UserWarning, "transformers.trainer"),
        (FutureWarning, "my_rewards"),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_libraries():
            for category, module in kinds:
                warnings.warn_explicit(f"of {module}", category, "file.py", 1, module=module)
    assert [(warning.category, str(warning.message)) for warning in caught] == [
        (UserWarning, "of transformers.trainer"),
        (FutureWarning, "of my_rewards"),
    ]


def test_where_a_data_set_was_read_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two lines of `datasets` for each name of the hub without a network; that one is missing stays."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with quiet_libraries():
        load = logging.getLogger("datasets.of_this_test.load")
        load.warning(
            "Using the latest cached version of the dataset since a/b couldn't be found on the Hugging Face Hub"
        )
        load.warning("Found the latest cached dataset configuration 'default' at /home/one")
        load.warning("a file is missing")
    assert [record.getMessage() for record in caplog.records] == ["a file is missing"]


def test_what_a_library_logs_is_told_once_and_another_s_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is filled into the message; once the command has ended, as ever."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with quiet_libraries():
        library, own = logging.getLogger("trl.of_this_test"), logging.getLogger("my_rewards.of_this_test")
        for row in range(3):
            library.warning("row %d is long", row)
            own.warning("row %d is long", row)
    library.warning("after")
    library.warning("after")
    told = [record.getMessage() for record in caplog.records]
    assert told == ["row 0 is long", "row 0 is long", "row 1 is long", "row 2 is long", "after", "after"]
    assert logging.getLoggerClass() is logging.Logger
