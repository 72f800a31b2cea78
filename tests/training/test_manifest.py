"""``run.json``: written before anything loads, completed at the end, and compared on resuming."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from rlaif_sdk import ConfigError, RewardError  # noqa: E402
from rlaif_sdk.cli.main import app  # noqa: E402
from rlaif_sdk.composer import Ledger  # noqa: E402
from rlaif_sdk.exceptions import DataError  # noqa: E402
from rlaif_sdk.io.jobs import locked  # noqa: E402
from rlaif_sdk.training.methods import (  # noqa: E402
    load_run,
    train,
)
from rlaif_sdk.training.run_folder import can_resume  # noqa: E402

REWARDS = "def wanted(completions):\n    return [{score}] * len(completions)\n"


@pytest.fixture
def config(tmp_path: Path, llama: Any, tokenizer: Any) -> dict[str, Any]:
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(REWARDS.format(score="1.0"))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"w{row}"}) + "\n" for row in range(8)))
    (tmp_path / "composition.yaml").write_text("rewards:\n  wanted: {use: 'rewards.py:wanted'}\n")
    settings = {"per_device_train_batch_size": 4, "steps_per_generation": 1}
    settings |= {"per_device_eval_batch_size": 4, "max_completion_length": 4}
    return {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out_rows": 4},
        "composition": str(tmp_path / "composition.yaml"),
        "ppo": {**settings, "max_steps": 1, "save_strategy": "steps", "save_steps": 1, "use_cpu": True},
        "output": str(tmp_path / "out"),
        "seed": 7,
    }


def manifest_of(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(config["output"]) / "run.json").read_text())
    return found


def test_a_finished_run_says_what_it_was_made_of(config):
    """Status, seed, config with defaults and the composition in full, digests, models, versions, hardware, memory."""
    train("ppo", config)
    manifest = manifest_of(config)
    assert (manifest["status"], manifest["method"], manifest["seed"]) == ("finished", "ppo", 7)
    assert manifest["config"]["composition"]["rewards"]["wanted"]["weight"] == 1.0
    assert manifest["config"]["model"]["dtype"] == "auto"
    assert manifest["data"]["train"]["rows"] == 4
    assert manifest["code"].keys() == {"rewards.py"}
    assert [model["role"] for model in manifest["models"]] == ["policy"]
    assert manifest["versions"].keys() >= {"python", "rlaif_sdk", "torch", "transformers", "trl"}
    assert manifest["hardware"]["ram_gib"] > 0
    # Linux counts pages by the batch in each thread, so a peak may lag behind by some.
    assert manifest["peak_memory_bytes"] > 0.99 * manifest["memory_estimate_bytes"]["process"] > 0
    assert manifest["results"]["steps"] == 1
    assert manifest["started"] <= manifest["ended"]


def test_a_run_that_fails_says_why(config, tmp_path):
    """The manifest is there from the start, and has the error at the end."""
    (tmp_path / "composition.yaml").write_text("rewards:\n  wanted: {use: 'rewards.py:wanted', on_failure: raise}\n")
    (tmp_path / "rewards.py").write_text("def wanted(completions):\n    raise RuntimeError('out of luck')\n")
    with pytest.raises(Exception, match="out of luck"):
        train("ppo", config)
    manifest = manifest_of(config)
    assert manifest["status"] == "failed"
    assert "out of luck" in manifest["error"]


def test_a_resumed_run_must_be_the_same_and_every_change_is_named(config, tmp_path):
    """Settings, weights in the composition's own file, rows, a reward's code, and the number of processes.

    The output's name may differ.
    """
    (tmp_path / "evaluation.yaml").write_text("rewards:\n  wanted: {use: 'rewards.py:wanted'}\n")
    config["evaluation"] = str(tmp_path / "evaluation.yaml")
    train("ppo", config).model_folder.rename(tmp_path / "early")
    (tmp_path / "out").rename(tmp_path / "moved")
    config["output"] = str(tmp_path / "moved")
    manifest = json.loads((tmp_path / "moved" / "run.json").read_text())
    (tmp_path / "moved" / "run.json").write_text(json.dumps({**manifest, "processes": 2}))
    config["ppo"] |= {"max_steps": 2, "gamma": 0.9}
    del config["ppo"]["max_completion_length"]
    (tmp_path / "composition.yaml").write_text("rewards:\n  wanted: {use: 'rewards.py:wanted', weight: 2}\n")
    (tmp_path / "evaluation.yaml").write_text("rewards:\n  wanted: {use: 'rewards.py:wanted', weight: 3}\n")
    (tmp_path / "rewards.py").write_text(REWARDS.format(score="2.0"))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"w{row}"}) + "\n" for row in range(9)))
    with pytest.raises(ConfigError) as caught:
        train("ppo", config, resume=True)
    changed = [line.strip() for line in caught.value.message.splitlines()[1:]]
    text = "\n".join(changed)
    for expected in (
        "composition.rewards.wanted.weight: 1.0 → 2.0",
        "evaluation.rewards.wanted.weight: 1.0 → 3.0",
        "ppo.max_completion_length: 4 → unset",
        "ppo.max_steps: 1 → 2",
        "ppo.gamma: unset → 0.9",
        "data.train: other rows, 4 rows ",
        "code.rewards.py: other code, ",
        "code.evaluation rewards.py: other code, ",
        "processes: 2 → 1, which draw other prompts",
    ):
        assert expected in text
    assert "output" not in text
    assert len(changed) == 10, "and the held-out rows, no more"


def test_a_changed_run_resumes_when_told_and_says_so(config, tmp_path):
    """The manifest keeps the earlier start and what was changed."""
    train("ppo", config).model_folder.rename(tmp_path / "early")
    config["ppo"]["max_steps"] = 2
    train("ppo", dataclasses.replace(load_run("ppo", config), allow_changed=True), resume=True)
    manifest = manifest_of(config)
    (earlier,) = manifest["resumed"]
    assert earlier["changed"] == ["ppo.max_steps: 1 → 2"]
    assert manifest["results"]["steps"] == 2


def test_a_checkpoint_without_manifest_is_resumed_under_a_warning(config, tmp_path):
    """Of a folder that another program left behind, nothing can be compared."""
    train("ppo", config).model_folder.rename(tmp_path / "early")
    for manifest in (tmp_path / "out").rglob("run.json"):
        manifest.unlink()
    config["ppo"]["max_steps"] = 2
    with pytest.warns(UserWarning, match=r"run\.json is missing"):
        train("ppo", config, resume=True)


def test_an_unfinished_run_is_not_begun_over_unasked(config, tmp_path):
    """Nor a failed or an interrupted one with a checkpoint."""
    train("ppo", config).model_folder.rename(tmp_path / "early")
    for status in ("running", "failed", "interrupted"):
        (tmp_path / "out" / "run.json").write_text(json.dumps(manifest_of(config) | {"status": status}))
        with pytest.raises(ConfigError, match=r"holds an unfinished run .*--resume"):
            train("ppo", config)


def test_checkpoints_without_a_manifest_are_not_begun_over_either(config, tmp_path):
    """A later ``--resume`` would take another run's checkpoint for one of the new run."""
    train("ppo", config).model_folder.rename(tmp_path / "early")
    (tmp_path / "out" / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"holds an unfinished run .*--resume"):
        train("ppo", config)


def test_a_checkpoint_knows_the_run_that_made_it(config, tmp_path):
    """One that was copied into another run's folder is not finished, and recorded, as that run's."""
    train("ppo", config).model_folder.rename(tmp_path / "early")
    (checkpoint,) = (tmp_path / "out" / "checkpoints").glob("checkpoint-*")
    other = {**config, "output": str(tmp_path / "other"), "ppo": {**config["ppo"], "gamma": 0.5, "max_steps": 2}}
    train("ppo", other).model_folder.rename(tmp_path / "late")
    shutil.rmtree(tmp_path / "other" / "checkpoints")
    shutil.copytree(checkpoint, tmp_path / "other" / "checkpoints" / checkpoint.name)
    with pytest.raises(ConfigError, match=r"another one:\n  ppo.max_steps: 1 → 2\n  ppo.gamma: unset → 0.5 "):
        train("ppo", other, resume=True)
    train("ppo", dataclasses.replace(load_run("ppo", other), allow_changed=True), resume=True)
    assert manifest_of(other)["id"] == json.loads((checkpoint / "run.json").read_text())["id"]


def test_a_change_that_was_allowed_once_is_not_asked_about_again(config, tmp_path):
    """The run is interrupted before its next checkpoint; the last one is of the same run."""
    train("ppo", config).model_folder.rename(tmp_path / "early")
    config["ppo"]["max_steps"] = 2
    train("ppo", dataclasses.replace(load_run("ppo", config), allow_changed=True), resume=True)
    shutil.rmtree(tmp_path / "out" / "model")
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "checkpoint-2")
    train("ppo", config, resume=True)
    assert [start["changed"] for start in manifest_of(config)["resumed"]] == [["ppo.max_steps: 1 → 2"], []]


def test_resuming_past_a_torn_checkpoint_says_so(config, tmp_path):
    """The one before is taken."""
    config["ppo"]["max_steps"] = 2
    train("ppo", config).model_folder.rename(tmp_path / "early")
    torn = tmp_path / "out" / "checkpoints" / "checkpoint-2" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-8])
    with pytest.warns(UserWarning, match=r"checkpoint-2 is incomplete: training resumes from checkpoint-1"):
        assert train("ppo", config, resume=True).steps == 2


def test_two_processes_do_not_train_into_one_folder(config, tmp_path):
    """The second is refused before it loads a model."""
    with locked(tmp_path / "out"), pytest.raises(DataError, match="another process"):
        train("ppo", config)


def test_a_run_keeps_a_ledger_of_every_batch(config, tmp_path):
    """What was composed in training and of the held-out answers; `ledger: false` keeps none, nor does a refused run."""
    refused = {**config, "output": str(tmp_path / "refused"), "model": {"name": str(tmp_path)}}
    with pytest.raises(ConfigError):
        train("ppo", refused)
    assert not (tmp_path / "refused").exists()
    result = train("ppo", config)
    with Ledger.find(result.output) as ledger:
        (run,) = ledger.runs()
        last = list(ledger.batches())[-1]
        assert (run.rows, run.batches) == (4 + 2 * 4, 3)
        assert last.composition(run.rewards).explain(0).total == result.after.composition.totals[0] == 1.0
        assert not ledger.cached_rewards(), "a plain function is asked again"
    with (tmp_path / "composition.yaml").open("a") as file:
        file.write("ledger: false\n")
    with load_run("ppo", config).composer(ledger=tmp_path / "none.sqlite") as composer:
        assert composer.ledger is None


INTERRUPTED = """
import pathlib
def wanted(completions):
    if not pathlib.Path({flag!r}).exists():
        raise {error}
    return [1.0] * len(completions)
"""


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew_only_when_told(config, tmp_path):
    """Refused, with what is there and what to do; another config is refused as from a checkpoint."""
    flag = tmp_path / "go"
    (tmp_path / "rewards.py").write_text(INTERRUPTED.format(flag=str(flag), error="KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        train("ppo", config)
    flag.touch()
    with pytest.raises(ConfigError, match="holds an unfinished run without a checkpoint") as caught:
        train("ppo", config)
    assert caught.value.hint == "--resume begins it anew, or name another folder"
    with pytest.raises(ConfigError, match="seed: 7 → 8"), pytest.warns(UserWarning, match="begins anew"):
        train("ppo", {**config, "seed": 8}, resume=True)
    begun = manifest_of(config)["id"]
    with pytest.warns(UserWarning, match="holds no complete checkpoint: the run begins anew"):
        train("ppo", config, resume=True)
    manifest = manifest_of(config)
    assert (manifest["id"], manifest["status"], manifest["results"]["steps"]) == (begun, "finished", 1)
    assert [start["status"] for start in manifest["resumed"]] == ["interrupted"]


STOPPED = """
import pathlib
def wanted(completions):
    calls = pathlib.Path({calls!r})
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    if calls.read_text() == "....":
        raise KeyboardInterrupt
    return [float(len(calls.read_text()))] * len(completions)
"""


def test_explain_and_report_read_the_whole_of_a_resumed_run(config, tmp_path):
    """Interrupted in step 4 of 5 with a checkpoint after 2: steps 1 and 2, and 3 to 5 of the resumed part."""
    (tmp_path / "rewards.py").write_text(STOPPED.format(calls=str(tmp_path / "calls")))
    config["ppo"] |= {"max_steps": 5, "save_steps": 2}
    with pytest.raises(KeyboardInterrupt):
        train("ppo", config)
    manifest = manifest_of(config)
    assert (manifest["status"], manifest["results"]) == ("interrupted", {"steps": 3})
    train("ppo", config, resume=True)

    def rlaif(*arguments: object) -> str:
        done = CliRunner().invoke(app, [*map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.output

    out = tmp_path / "out"
    rows = [json.loads(rlaif("explain", out, "--row", row, "--json")) for row in range(1, 4 * 5 + 1, 4)]
    assert [row["total"] for row in rows] == [1.0, 2.0, 5.0, 6.0, 7.0]
    assert "runs 1 and 2, each resumed by the next" in rows[0]["source"]
    assert json.loads(rlaif("explain", out, "--run", 2, "--json"))["total"] == 5.0
    assert "runs 1 and 2, each resumed by the next" in rlaif("report", out)


def test_a_run_that_failed_before_its_first_checkpoint_says_that_it_begins_anew(config, tmp_path):
    """The cause may be mended at once, and what was there is told."""
    flag = tmp_path / "go"
    (tmp_path / "rewards.py").write_text(INTERRUPTED.format(flag=str(flag), error="NameError('oops')"))
    with pytest.raises(RewardError):
        train("ppo", config)
    flag.touch()
    with pytest.warns(UserWarning, match="holds a run that failed before its first checkpoint: it begins anew"):
        train("ppo", config)
    assert manifest_of(config)["status"] == "finished"


def test_a_part_of_a_loop_that_begins_anew_keeps_its_ledger(tmp_path):
    """What was paid for is not paid for again; all else of it is removed."""
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "run.json", "model/config.json", "checkpoints/checkpoint-1/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert not can_resume(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.sqlite", "ledger.sqlite-wal"]
    assert not can_resume(tmp_path / "nowhere")


@pytest.mark.parametrize("asked", [KeyboardInterrupt(), SystemExit(141)], ids=["Ctrl-C", "nobody reads its output"])
def test_a_run_is_finished_when_its_report_is_written(config, asked):
    """Ended before that, it is resumed and reported."""

    def ended(_):
        raise asked

    with pytest.raises(type(asked)):
        train("ppo", config, on_result=ended)
    assert manifest_of(config)["status"] == "interrupted"
    reported = []
    result = train("ppo", config, on_result=reported.append, resume=True)
    assert reported == [result]
    assert manifest_of(config)["status"] == "finished"
    with pytest.raises(ConfigError, match="already holds a trained model"):
        train("ppo", config, resume=True)
