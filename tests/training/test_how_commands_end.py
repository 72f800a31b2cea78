"""How commands end: their exit codes, Ctrl-C and SIGTERM."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
import yaml

from rlaif_sdk.cli.exits import ExitCode, interruptible
from rlaif_sdk.io.jobs import JOURNAL_FILE

REWARDS = """
import pathlib, time

def slow(completions):
    pathlib.Path("began").touch()
    time.sleep(60)
    return [1.0] * len(completions)

def slow_later(completions):
    return slow(completions) if completions[0] == "bad" else [1.0] * len(completions)

def picky(completions):
    return [float("nan") if "bad" in c else 1.0 for c in completions]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    for name in ("slow", "slow_later", "picky"):
        (tmp_path / f"{name}.yaml").write_text(f'rewards: {{{name}: {{use: "./my_rewards.py:{name}"}}}}\n')
    rows = [{"prompt": "a", "completion": said} for said in ("good", "bad", "good", "bad")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def begin(folder, *arguments):
    program = Path(sys.executable).with_name("rlaif")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "200"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([program, *map(str, arguments)], cwd=folder, env=environment, **pipes)


@pytest.fixture(autouse=True)
def sigint_is_heard():
    """A shell's background job ignores SIGINT, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(process, sign, number=signal.SIGINT):
    """Send a signal once a file says that the work has begun."""
    until = time.monotonic() + 300
    try:
        while not sign():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    return said


def test_the_documented_exit_codes_are_those_there_are():
    """The table of the reference, and no other code."""
    page = Path(__file__).parents[2] / "docs/reference/cli.md"
    table = page.read_text().partition("## Exit codes")[2]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [*ExitCode]


def test_unscored_rows_are_counted_explained_and_told_by_the_exit_code(folder):
    """How many, why the first, where the rest is."""
    process = begin(folder, "score", "rows.jsonl", "--config", "picky.yaml")
    _, said = process.communicate(timeout=120)
    assert process.returncode == ExitCode.ROWS_LEFT_OUT
    (line,) = [line for line in said.splitlines() if "unscored" in line]
    assert line.startswith("2 of 4 rows are unscored; first: row 2: picky failed (")
    assert line.endswith("each row's status and reason are in rows.scored.jsonl")


def test_a_failure_that_the_other_rewards_hide_is_told(folder):
    """Each such reward's first, with its row in the table; every row has a total, so that the code is 0."""
    (folder / "late.py").write_text(
        "def late(completions):\n    if 'bad' in completions:\n        raise ValueError('no bad ones')\n"
        "    return [1.0] * len(completions)\n\ndef same(completions):\n    return [1.0] * len(completions)\n"
    )
    (folder / "late.yaml").write_text("rewards: {late: {use: './late.py:late'}, same: {use: './late.py:same'}}")
    process = begin(folder, "score", "rows.jsonl", "--config", "late.yaml", "--chunk", "1")
    _, said = process.communicate(timeout=120)
    assert process.returncode == ExitCode.DONE, said
    assert re.search(
        r"^late failed on \d of 4 rows; first: row 2: raised ValueError: no bad ones; ", said, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_ctrl_c_and_sigterm_in_score_say_what_is_kept_and_how_to_continue(folder, number, code):
    """Nothing half written is left."""
    process = begin(folder, "score", "rows.jsonl", "--config", "slow.yaml")
    said = interrupt(process, (folder / "began").exists, number)
    assert process.returncode == code, said
    assert "stopped: 0 of 4 rows were scored, rows.scored.jsonl is not written" in said
    assert "to continue: rlaif score rows.jsonl --config slow.yaml" in said
    assert not (folder / "rows.scored.jsonl").exists()
    assert "Traceback" not in said


def test_ctrl_c_in_score_names_the_file_of_the_rows_that_were_written(folder):
    """It is beside the output, which is not there."""
    process = begin(folder, "score", "rows.jsonl", "--config", "slow_later.yaml", "--chunk", "1")
    said = interrupt(process, (folder / "began").exists)
    assert "stopped: 1 of 4 rows were scored, rows.scored.jsonl is not written, no ledger keeps their scores" in said
    (line,) = [line for line in said.splitlines() if line.startswith("the rows written until then are in ")]
    (kept,) = folder.glob(".*.partial*")
    assert kept.name in line
    assert [json.loads(row)["completion"] for row in kept.read_text().splitlines()] == ["good"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_waits_until_what_is_done_is_kept(number, capfd):
    """And says that a third does not; the handlers are put back."""
    before = signal.getsignal(number)
    kept = []

    def work():
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            kept.append("all")

    with pytest.raises(typer.Exit) as ended, interruptible(lambda: "all is kept"):
        work()
    assert kept
    assert ended.value.exit_code == 128 + number
    said = capfd.readouterr().err
    assert said.index("once more ends it at once") < said.index("stopped: all is kept")
    assert signal.getsignal(number) == before


def test_a_third_signal_ends_the_command_at_once():
    """Whatever its cleaning up waits for."""
    code = """if True:
        import os, signal, time
        from rlaif_sdk.cli.exits import interruptible
        with interruptible(str):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(60)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 130


def test_a_signal_to_a_fork_is_its_makers_affair(capfd):
    """A worker that is told to end ends, and says nothing of the command's work."""
    with interruptible(lambda: "nothing"):
        if not (child := os.fork()):
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert not capfd.readouterr().err


STOPPED = {
    "label": (
        f"labels/{JOURNAL_FILE}",
        r"stopped: \d+ of 64 pairs are labelled, and each label so far is kept in .*labels",
    ),
    "sweep": ("out/points/*/*/run.json", r"stopped: \d points? (is|are) measured and kept in .*out"),
    "iterate": ("out/round-000/evaluation.json", r"stopped: round-00\d is finished, and each finished part of a round"),
    "distill": ("out/candidates/stage.json", r"stopped: finished: candidates.*, and each finished part of a stage is"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPPED)
def test_what_ctrl_c_stops_is_continued_by_the_command_that_it_names(tmp_path, name):
    """It says where it stopped and what is kept, and ends with the results of one that was never stopped."""
    from tests.kills.commands import COMMANDS

    command, (sign, told) = COMMANDS[name], STOPPED[name]
    folder, inputs = tmp_path / "run", tmp_path / "inputs"
    folder.mkdir()
    command.prepare(folder)
    shutil.copytree(folder, inputs)
    whole = begin(folder, *command.arguments)
    _, said = whole.communicate()
    assert whole.returncode == 0, said
    expected = command.result(folder)
    shutil.rmtree(folder)
    shutil.copytree(inputs, folder)
    process = begin(folder, *command.arguments)
    said = interrupt(process, lambda: any(file.stat().st_size for file in folder.glob(sign)))
    assert process.returncode == ExitCode.INTERRUPTED, said
    assert re.search(told, said), said
    assert "Traceback" not in said
    (resume,) = re.findall("^to continue: rlaif (.*)$", said, re.MULTILINE)
    again = begin(folder, *shlex.split(resume))
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert command.result(folder) == expected


@pytest.mark.parametrize(
    ("settings", "ways"),
    [
        ({"save_strategy": "steps", "save_steps": 50}, "ppo.save_strategy and save_steps say when the first is due"),
        ({}, "--set ppo.save_strategy=steps --set ppo.save_steps=N saves them"),
    ],
)
def test_a_run_stopped_before_its_first_checkpoint_is_told_of_save_strategy_only_where_it_is_not_set(
    folder, monkeypatch, capsys, settings, ways
):
    """Where it is set, the hint is that the first was not due."""
    from rlaif_sdk.cli.main import app

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rlaif_sdk.reporting.live_view.watch_run", stopped)
    run = {"model": {"name": "m"}, "data": {"train": "t.jsonl"}, "composition": "picky.yaml", "ppo": settings}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    with pytest.raises(SystemExit) as ended:
        app(["train", "ppo", str(folder / "run.yaml")])
    assert ended.value.code == ExitCode.INTERRUPTED
    assert f"no checkpoint was saved, so training begins anew ({ways})" in capsys.readouterr().err


PAIRS = [{"prompt": f"w{row} w3", "chosen": " w5 w6", "rejected": " w7"} for row in range(12)]
PROMPTS = [{"prompt": f"w{row} w3"} for row in range(12)]
STEPS = {
    "per_device_train_batch_size": 4,
    "use_cpu": True,
    "max_steps": 4000,
    "save_strategy": "steps",
    "save_steps": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ppo", "dpo"])
def test_ctrl_c_in_training_names_the_checkpoint_and_the_command_that_resumes(folder, llama, tokenizer, method):
    """Interrupted a second time, the resumed run says so again; the command that it printed is accepted."""
    llama.save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")
    config = {
        "model": {"name": "start"},
        "data": {"train": "train.jsonl", "held_out_rows": 4},
        method: STEPS | ({"max_completion_length": 4, "steps_per_generation": 1} if method == "ppo" else {}),
    }
    if method == "ppo":
        config["composition"] = "picky.yaml"
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    rows = PROMPTS if method == "ppo" else PAIRS
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoints = folder / "run" / "checkpoints"
    process = begin(folder, "train", method, "--config", "run.yaml")
    said = interrupt(process, lambda: [*checkpoints.glob("checkpoint-*/run.json")])
    assert process.returncode == ExitCode.INTERRUPTED, said
    assert re.search(r"stopped: training resumes from .*checkpoint-\d+", said), said
    resume = f"rlaif train {method} --config run.yaml --resume"
    assert f"to continue: {resume}" in said
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "interrupted"
    refused = begin(folder, "train", method, "--config", "run.yaml")
    assert "holds an unfinished run" in refused.communicate(timeout=120)[1]
    assert refused.returncode == ExitCode.REFUSED
    kept = len([*checkpoints.glob("checkpoint-*")])
    again = begin(folder, *resume.split()[1:])
    said = interrupt(again, lambda: len([*checkpoints.glob("checkpoint-*/run.json")]) > kept)
    assert again.returncode == ExitCode.INTERRUPTED, said
    changed = begin(folder, "train", method, "--config", "run.yaml", "--resume", "--set", "seed=1")
    assert "seed: 0 → 1" in changed.communicate(timeout=120)[1]
    listed, _ = begin(folder, "runs", "list").communicate(timeout=120)
    assert re.search(rf"run +{method} +interrupted", listed), listed
    assert listed.count("interrupted") == 1
    shown, _ = begin(folder, "runs", "show", "run").communicate(timeout=120)
    assert re.search(r"config.seed +0", shown), shown
    same, _ = begin(folder, "runs", "compare", "run", "run").communicate(timeout=120)
    assert same.startswith("the runs were made of the same")
    refused = begin(folder, "runs", "show", "checkpoints")
    assert "it is no folder of a run" in refused.communicate(timeout=120)[1]
