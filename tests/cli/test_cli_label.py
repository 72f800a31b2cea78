"""``rlaif label`` and ``rlaif judge probe``, as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from rlaif_sdk.cli.main import app
from rlaif_sdk.exceptions import ConfigError, JudgeError
from rlaif_sdk.io.tables import read_rows, write_table
from tests.judges.conftest import JudgeServer, completion, letters


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A judge that always says 1."""
    monkeypatch.setenv("COLUMNS", "160")
    running = JudgeServer()
    usage = {"prompt_tokens": 1000, "completion_tokens": 0}
    running.answer = lambda *_: (200, {}, {**letters({"1": -0.1, "2": -3.0}, "1"), "usage": usage})
    yield running
    running.close()


@pytest.fixture
def config(tmp_path: Path, server: Any) -> Path:
    """Two pairs and a job beside them."""
    rows = [{"prompt": f"q{row}", "response_1": "yes", "response_2": "no"} for row in range(2)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = {"model": "tiny", "base_url": server.url, "input_price": 3, "output_price": 6}
    path = tmp_path / "label.yaml"
    path.write_text(yaml.safe_dump({"pairs": {"file": "pairs.jsonl"}, "judge": judge}))
    return path


def rlaif(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_labelling_prints_flip_rate_position_bias_and_usage(config: Path) -> None:
    """What came of it is on the screen, and the file is named."""
    done = rlaif("label", config, "--set", "output=out")
    assert done.exit_code == 0, done.output
    assert "1.000 of 2" in done.output
    assert "first 1.000, second 0.000" in done.output
    assert "4 calls (0 retries), 4000 tokens in" in done.output
    assert "0.0120" in done.output
    assert (config.parent / "out" / "labels.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("given", "written"),
    [("jsonl", "csv"), ("json", "parquet"), ("csv", "arrow"), ("parquet", "json"), ("arrow", "jsonl")],
)
def test_pairs_of_every_form_become_labels_of_every_form(config: Path, given: str, written: str) -> None:
    """``--pairs`` and ``--output`` go by their suffixes; all but the labels stays in the job's folder."""
    folder = config.parent
    write_table([{"prompt": "q", "response_1": "yes", "response_2": "no", "id": "7"}], folder / f"mine.{given}")
    done = rlaif("label", config, "--pairs", folder / f"mine.{given}", "-o", folder / f"labels.{written}", "-q")
    assert done.exit_code == 0, done.output
    (row,) = read_rows(folder / f"labels.{written}")
    assert (row["chosen"], row["rejected"], row["id"]) == ("yes", "no", "7")
    assert float(row["chosen_prob"]) == pytest.approx(0.5)
    assert not [*(folder / "labels").glob("labels.*")]
    assert "labels." + written in (folder / "labels" / "README.md").read_text()


def test_labels_stand_in_a_pipe(config: Path) -> None:
    """Pairs come by standard input, standard output has nothing but labels, and the summary is on standard error."""
    program = [sys.executable, "-m", "rlaif_sdk", "label", config, "--pairs", "-", "-o", "-", "--limit", "1"]
    pairs = (config.parent / "pairs.jsonl").read_text()
    done = subprocess.run(program, input=pairs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["q0"]
    assert "wrote standard output" in done.stderr


def test_a_config_takes_its_pairs_from_standard_input_too(config: Path) -> None:
    """Whichever folder the config is in."""
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "pairs": {"file": "-"}}))
    program = [sys.executable, "-m", "rlaif_sdk", "label", config]
    pairs = (config.parent / "pairs.jsonl").read_text()
    done = subprocess.run(program, input=pairs, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert (config.parent / "labels" / "labels.jsonl").read_text().count("\n") == 2


def test_a_sample_is_the_same_each_time_and_resumes(config: Path, server: Any) -> None:
    """In the order of the table; another sample is another job."""
    pairs = config.parent / "pairs.jsonl"
    write_table([{"prompt": f"q{row}", "response_1": "yes", "response_2": "no"} for row in range(20)], pairs)
    first = rlaif("label", config, "--sample", 4)
    asked = len(server.requests)
    assert first.exit_code == 0, first.output
    drawn = [row["prompt"] for row in read_rows(config.parent / "labels" / "labels.jsonl")]
    assert len(drawn) == 4
    assert drawn == sorted(drawn, key=lambda prompt: int(prompt[1:]))
    assert rlaif("label", config, "--sample", 4, "-o", config.parent / "again.csv").exit_code == 0
    assert len(server.requests) == asked
    assert [row["prompt"] for row in read_rows(config.parent / "again.csv")] == drawn
    assert "sample: " in str(rlaif("label", config, "--sample", 5).exception)


def test_labels_never_overwrite_their_pairs(config: Path) -> None:
    """The table of the pairs stays as it is."""
    before = (config.parent / "pairs.jsonl").read_text()
    done = rlaif("label", config, "-o", config.parent / "pairs.jsonl")
    assert done.exit_code == 2
    assert (config.parent / "pairs.jsonl").read_text() == before


def test_a_changed_config_is_refused_with_the_next_step(config: Path) -> None:
    """The error names what differs."""
    assert rlaif("label", config).exit_code == 0
    refused = rlaif("label", config, "--set", "prompt.detail=base")
    assert isinstance(refused.exception, ConfigError)
    assert "\n  prompt: " in str(refused.exception)
    assert "name another output folder" in str(refused.exception)


def test_failed_pairs_are_told(config: Path, server: Any) -> None:
    """Where some failed and the share allows it, the screen says how many and where they stand."""
    good = server.answer
    server.answer = lambda number, sent: (400, {}, {}) if "q1" in str(sent) else good(number, sent)
    done = rlaif("label", config, "--set", "max_failed_share=0.5")
    assert done.exit_code == 3
    assert re.search(
        r"1 of 2 pairs are unlabelled; first: row \d: .*400.*; each pair's reason is in .*failures.jsonl", done.output
    )
    assert isinstance(rlaif("label", config, "--set", "max_failed_share=0.4").exception, JudgeError)


def test_an_outage_is_told_once_with_its_cause(config: Path, server: Any) -> None:
    """Two requests that are made again within ten seconds are one line, in words; the job goes on."""
    good = server.answer
    server.answer = lambda number, sent: (503, {"retry-after": "0.1"}, {}) if number in (1, 2) else good(number, sent)
    done = subprocess.run(
        [sys.executable, "-c", "from rlaif_sdk.cli import main; main()", "label", config],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, warned = done.stderr.splitlines()
    assert told == "trying again in 0.1 s: the judge's server answered HTTP 503"
    assert warned.startswith("warning: the preferred response changes with the order in 100% of")
    assert "(2 retries)" in done.stdout


RETRIES = """
import asyncio
import logging
from stamina.instrumentation import set_on_retry_hooks
from rlaif_sdk.cli.main import RetryNotes
from rlaif_sdk.io import retries

set_on_retry_hooks([lambda details: print("also", details.retry_num)])
retries.listeners.append(RetryNotes())

async def main():
    options = {"attempts": 2, "wait_initial": 0.01, "wait_max": 0.01, "wait_jitter": 0}
    async for attempt in retries.retry_context(lambda error: isinstance(error, OSError), **options):
        with attempt:
            if attempt.num == 1:
                raise OSError(28, "No space left on device (on purpose)")

asyncio.run(main())
"""


def test_another_attempt_is_told_in_the_error_s_words_beside_the_hooks_that_there_are() -> None:
    """Whatever the error's repr looks like; a hook that was set before is called as well."""
    done = subprocess.run([sys.executable, "-c", RETRIES], capture_output=True, text=True, check=False)
    assert done.stderr == "trying again in 0.01 s: [Errno 28] No space left on device (on purpose)\n"
    assert done.stdout == "also 1\n"


def test_the_probe_says_what_a_judge_gives(config: Path, server: Any) -> None:
    """Log-probabilities with the labels' share, text, tokens and cost."""
    done = rlaif("judge", "probe", config)
    assert done.exit_code == 0, done.output
    assert "log-probabilities: yes; the labels 1 and 2 have 0.955" in done.output
    assert "3000 tokens in" in done.output
    assert "cost 0.009" in done.output
    assert "problem: it answers 1 both to 'which is smaller?' and to 'which is larger?'" in done.output


def test_the_probe_fails_where_the_judge_cannot_do_what_is_asked(config: Path, server: Any) -> None:
    """Without log-probabilities likelihood mode is an error, and verdict mode is not."""
    server.answer = lambda *_: (200, {}, completion("1"))
    refused = rlaif("judge", "probe", config)
    assert refused.exit_code == 1
    assert "gave none" in refused.output
    assert "mode: verdict" in refused.output
    assert rlaif("judge", "probe", config, "--set", "mode=verdict").exit_code == 0


def test_the_schema_of_a_labelling_job_describes_its_config(config: Path) -> None:
    """A valid config passes, a misspelt key does not."""
    schema = json.loads(rlaif("schema", "label").output)
    good = yaml.safe_load(config.read_text())
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**good, "modus": "verdict"}, schema)
    assert "soft labels" in schema["properties"]["mode"]["description"]
