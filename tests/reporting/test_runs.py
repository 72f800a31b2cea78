"""Runs side by side."""

import copy
import json
import math

import pytest

pytest.importorskip("trl")

from typer.testing import CliRunner

from rlaif_sdk.cli.main import app
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.reporting.runs import difference, find_runs
from rlaif_sdk.statistics.estimates import SampleMean

RUN = {
    "method": "ppo",
    "status": "finished",
    "started": "2026-11-30T00:00:00+00:00",
    "config": {"seed": 0, "ppo": {"learning_rate": 1e-6}, "output": "a"},
    "data": {"train": {"rows": 8, "digest": "a" * 32}},
    "code": {},
    "models": [],
    "versions": {"trl": "1.0"},
    "results": {"steps": 4},
}


def written(folder, record, mean):
    estimate = {"mean": mean, "standard_error": 0.03, "n": 16}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.json").write_text(json.dumps({"held_out": {"composed_reward": {"after": estimate}}}))


def test_two_runs_are_compared_by_what_they_were_made_of_and_by_their_rewards(tmp_path):
    """Config, rows and versions a line each; means with their standard errors, and the difference with its own."""
    other = copy.deepcopy(RUN)
    other["config"] |= {"ppo": {"learning_rate": 1e-5}, "output": "b"}
    other["data"]["train"] = {"rows": 9, "digest": "b" * 32}
    other["versions"]["trl"] = "1.1"
    written(tmp_path / "a", RUN, 0.5)
    written(tmp_path / "b", other, 0.75)
    said = CliRunner().invoke(app, ["runs", "compare", str(tmp_path / "a"), str(tmp_path / "b")]).output
    assert said.splitlines()[:3] == [
        "ppo.learning_rate: 1e-06 → 1e-05",
        "data.train: other rows, 8 rows aaaaaaaa… → 9 rows bbbbbbbb…",
        "versions.trl: 1.0 → 1.1",
    ]
    assert all(shown in said for shown in ("0.500 ± 0.030", "0.750 ± 0.030", "+0.250 ± 0.042"))


@pytest.mark.parametrize(
    ("results", "checkpoint", "steps"),
    [({"steps": 5}, 4, 5), ({}, 4, 4), ({}, None, None)],
    ids=["interrupted", "killed", "killed before its first checkpoint"],
)
def test_a_run_that_did_not_finish_has_the_steps_that_are_known(tmp_path, results, checkpoint, steps):
    """Of a killed one those of its last checkpoint that is whole."""
    written(tmp_path / "a", {**RUN, "status": "running", "results": results}, 0.5)
    for number, state in (checkpoint, "{}"), (6, "torn"):
        if checkpoint is not None:
            folder = tmp_path / "a" / "checkpoints" / f"checkpoint-{number}"
            folder.mkdir(parents=True)
            (folder / "trainer_state.json").write_text(state)
    (run,) = find_runs(tmp_path)
    assert run.steps == steps


def test_runs_below_a_folder_are_found_and_their_checkpoints_are_none(tmp_path):
    """A checkpoint has the run.json of its run; a job that is no training has an identity."""
    written(tmp_path / "a", RUN, 0.5)
    (tmp_path / "a" / "checkpoints").mkdir()
    written(tmp_path / "a" / "checkpoints" / "checkpoint-2", RUN, 0.5)
    (tmp_path / "labels" / "__job__").mkdir(parents=True)
    job = {"kind": "labelling job", "identity": {"judge": "j"}}
    (tmp_path / "labels" / "__job__" / "identity.json").write_text(json.dumps(job))
    assert [(run.folder.name, run.kind, run.status) for run in find_runs(tmp_path)] == [
        ("a", "ppo", "finished"),
        ("labels", "labelling job", "unfinished"),
    ]


def test_a_folder_that_is_called_checkpoints_may_have_runs(tmp_path):
    """Only those of a run are none."""
    written(tmp_path / "a", RUN, 0.5)
    (tmp_path / "a" / "checkpoints").mkdir()
    written(tmp_path / "a" / "checkpoints" / "checkpoint-2", RUN, 0.5)
    (tmp_path / "checkpoints").mkdir()
    written(tmp_path / "checkpoints" / "b", RUN, 0.5)
    for below in (tmp_path, tmp_path / "checkpoints"):
        assert "b" in [run.folder.name for run in find_runs(below)]
    assert find_runs(tmp_path / "a" / "checkpoints") == []


@pytest.mark.parametrize("said", ["[]", "{}", '{"method": "ppo"}', "null"])
@pytest.mark.parametrize("file", ["run.json", "__job__/identity.json"])
def test_a_file_of_another_program_under_the_name_of_a_record_is_named(tmp_path, file, said):
    """With what it lacks, and what to do."""
    path = tmp_path / "a" / file
    path.parent.mkdir(parents=True)
    path.write_text(said)
    with pytest.raises(DataError, match=r"is no record of a run: it has no .* \(name a folder") as error:
        find_runs(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["[red]", "x[/a]", ":smile:", "\x1b[2J"])
def test_the_name_of_a_run_is_printed_as_it_is(tmp_path, monkeypatch, name):
    """It is no markup, and no control character in it acts."""
    (tmp_path / "runs" / name).parent.mkdir(parents=True)
    written(tmp_path / "runs" / name, RUN | {"config": {"seed": name}}, 0.5)
    monkeypatch.chdir(tmp_path / "runs")
    shown = name.replace("\x1b", "\\x1b")
    for command in (["list", "."], ["show", name]):
        assert shown in CliRunner().invoke(app, ["runs", *command]).output


def test_the_keys_of_a_run_are_whole_however_narrow_the_output(tmp_path, monkeypatch):
    """Several of a reward begin with the same letters, and a pipe has 80 columns."""
    keys = [f"on_failure_and_the_like_of_it_{part}" for part in ("policy", "value")]
    written(
        tmp_path / "run", RUN | {"config": {"composition": {"rewards": {"politeness": dict.fromkeys(keys, 1)}}}}, 0.5
    )
    monkeypatch.setenv("COLUMNS", "80")
    said = CliRunner().invoke(app, ["runs", "show", str(tmp_path / "run")]).output
    assert all(f"config.composition.rewards.politeness.{key} " in said for key in keys), said


def test_a_difference_has_the_error_of_both():
    """As of independent samples."""
    found = difference(SampleMean(1.0, 0.3, 9), SampleMean(2.0, 0.4, 16))
    assert (found.mean, found.n) == (1.0, 9)
    assert math.isclose(found.standard_error, 0.5)


def test_a_folder_to_look_in_that_is_not_there_is_refused(tmp_path):
    """It is no folder without runs; nor is a file."""
    (tmp_path / "file").touch()
    for below in ("nowhere", "file"):
        with pytest.raises(DataError, match=f"{below}: there is no such folder"):
            find_runs(tmp_path / below)
