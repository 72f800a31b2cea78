"""A command answers before it imports what its work needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FIRST_ERRORS = """
score none.jsonl -c c.yaml
score in.jsonl -c none.yaml
explain none.jsonl -c c.yaml
label none.yaml
review none.jsonl
make candidates none.yaml
make pairs none.yaml
make merge none.yaml
eval labels none.jsonl
eval win-rate none.jsonl
eval rank none.jsonl
eval answers none.jsonl -c c.yaml
eval reward none.jsonl -c c.yaml
eval reward in.jsonl -c none.yaml
eval benchmark pairs none.jsonl
report none
cache list none
what-if none -c c.yaml
serve -c none.yaml
sweep none.yaml
iterate -c none.yaml
distill none.yaml
difficulty -c none.yaml -o out.jsonl
attack judge none.yaml
attack rewards none.jsonl -c c.yaml
judge probe none.yaml
quickstart -c none.yaml
train ppo -c none.yaml
""".strip().splitlines()
HELP = ["--help", "--version", *(f"{line.split()[0]} --help" for line in FIRST_ERRORS)]
HEAVY = {
    *("numpy", "pyarrow", "pandas", "datasets", "torch", "transformers", "trl", "onnxruntime", "ray", "stamina"),
    *("openai", "aiohttp", "fastapi", "asyncio", "rlaif_sdk.composer", "rlaif_sdk.plugins"),
}
"""The process that runs a test has them all."""
PROGRAM = """
import json, sys
from typer.testing import CliRunner
from rlaif_sdk.cli.main import app
from rlaif_sdk.exceptions import RlaifError

for line in json.loads(sys.argv[1]):
    before = {*sys.modules}
    ended = CliRunner().invoke(app, line.split())
    told = str(ended.exception) if isinstance(ended.exception, RlaifError) else ended.output
    print(json.dumps([line, told, sorted({*sys.modules} - before)]))
"""


def answers(lines: list[str], folder: Path) -> dict[str, tuple[str, list[str]]]:
    """What each command line says in one new process, and the modules that it imported first."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(lines)], cwd=folder, capture_output=True, text=True, check=True
    )
    return {line: (told, modules) for line, told, modules in map(json.loads, done.stdout.splitlines())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rewards.py").write_text("def words(completion_texts):\n    return [1.0 for _ in completion_texts]\n")
    (tmp_path / "c.yaml").write_text("rewards:\n  words: {use: 'rewards.py:words'}\n")
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "completion": "a"}\n')
    (tmp_path / "run.yaml").write_text("model: {name: none}\ndata: {train: in.jsonl}\ncomposition: c.yaml\n")
    return tmp_path


def test_help_and_what_is_not_there_are_told_at_once(folder: Path) -> None:
    """Of every command: its help, its version, and that a file which it is given is not there."""
    found = answers([*HELP, *FIRST_ERRORS], folder)
    assert {line for line in FIRST_ERRORS if "there is no such" not in found[line][0]} == set()
    assert {line: HEAVY & set(modules) for line, (_, modules) in found.items() if HEAVY & set(modules)} == {}


@pytest.mark.parametrize("command", ["score in.jsonl", "explain in.jsonl", "eval answers in.jsonl", "serve"])
def test_a_wrong_key_of_a_composition_is_told_before_the_composer_is_imported(folder: Path, command: str) -> None:
    """With its line."""
    (folder / "wrong.yaml").write_text("rewards:\n  words: {us: 'rewards.py:words'}\n")
    ((told, modules),) = answers([f"{command} -c wrong.yaml"], folder).values()
    assert told.startswith("wrong.yaml:2: rewards.words.us: unknown key")
    assert HEAVY & set(modules) == set()


def test_pairs_of_nothing_are_refused_at_once(folder: Path) -> None:
    """Before what makes them is imported."""
    ((told, modules),) = answers(["make pairs"], folder).values()
    assert "give the config of a job" in told
    assert HEAVY & set(modules) == set()


def test_rewards_are_listed_without_what_they_need(folder: Path) -> None:
    """Registering a reward imports its parameters, not the composer, a judge, a client or a model's library."""
    ((told, modules),) = answers(["rewards list"], folder).values()
    assert "execution" in told
    libraries = {
        "torch",
        "transformers",
        "trl",
        "datasets",
        "pandas",
        "scipy",
        "onnxruntime",
        "aiohttp",
        "yaml",
        "rich",
    }
    own = {"scoring", "config", "composer.composer", "judges.loading", "integrations.host", "integrations.remote"}
    assert (libraries | {f"rlaif_sdk.{name}" for name in own}) & set(modules) == set()
    assert {"rlaif_verifiable.instruction.ifbench", "rlaif_verifiable.instruction.ifeval"} & set(modules) == set()


@pytest.mark.parametrize("method", ["ppo", "grpo", "dpo", "sft", "reward_model"])
def test_a_sound_run_is_read_before_its_libraries_are_imported(folder: Path, method: str) -> None:
    """So that a wrong file or setting of a run is told in the time that it takes to read it."""
    composition = "composition: c.yaml\n" if method in {"ppo", "grpo"} else ""
    (folder / "run.yaml").write_text(f"model: {{name: none}}\ndata: {{train: in.jsonl}}\n{composition}")
    code = (
        "import sys; from rlaif_sdk.training.methods import check_settings, load_run\n"
        "check_settings(load_run(sys.argv[1], 'run.yaml')); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, method], cwd=folder, capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "trl", "datasets", "pandas", "asyncio"}
    own = {"rlaif_sdk.composer", "rlaif_sdk.scoring", "rlaif_sdk.training.preflight"}
    assert (heavy | own) & {*done.stdout.split()} == set()


@pytest.mark.parametrize("method", ["ppo", "reinforce", "grpo", "rloo"])
def test_a_misspelt_setting_is_told_before_the_trainer_s_libraries_are_imported(folder: Path, method: str) -> None:
    """They take seconds: in the check and in the run."""
    key = "ppo" if method == "reinforce" else method
    lines = [f"train {method} -c run.yaml --set {key}.learning_rat=1{check}" for check in ("", " --check")]
    for told, modules in answers(lines, folder).values():
        assert told == f"--set: {key}.learning_rat: unknown key (did you mean 'learning_rate'?)"
        assert {"torch", "transformers", "trl", "datasets"} & set(modules) == set()


@pytest.mark.parametrize("method", ["ppo", "grpo", "dpo", "sft", "reward_model"])
def test_a_setting_of_another_type_or_range_is_told_before_the_libraries_are_imported(
    folder: Path, method: str
) -> None:
    """As the trainer's own settings would tell it."""
    composition = "composition: c.yaml\n" if method in {"ppo", "grpo"} else ""
    (folder / "run.yaml").write_text(f"model: {{name: none}}\ndata: {{train: in.jsonl}}\n{composition}")
    line = f"train {method.replace('_', '-')} run.yaml --check --set {method}."
    found = answers([f"{line}max_steps=soon", f"{line}learning_rate=-1"], folder)
    (soon, modules), (below, _) = found.values()
    assert soon.startswith(f"--set: {method}.max_steps: 'soon' is refused: Input should be a valid integer")
    assert below == f"--set: {method}.learning_rate: learning_rate must be at least 0, not -1"
    assert TRAINERS & {*modules} == set()


TRAINERS = {"torch", "transformers", "trl", "peft", "datasets", "pandas", "pyarrow"}


def make_policy(folder: Path) -> None:
    """A run whose policy has files, with which nothing but loading it would find fault."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "more.jsonl").write_text('{"prompt": "p", "tests": [{"a": 1}]}\n' * 3)
    (folder / "run.yaml").write_text(
        "model: {name: model}\ndata: {train: more.jsonl, held_out: in.jsonl}\ncomposition: c.yaml\n"
    )


def test_rewards_score_a_row_and_what_is_wrong_is_told_before_the_libraries_are_imported(folder: Path) -> None:
    """A check that finds a fault in the rows, the rewards or the files has no use for torch."""
    make_policy(folder)
    with (folder / "rewards.py").open("a") as stream:
        stream.write("def broken(completion_texts):\n    return [1 / 0 for _ in completion_texts]\n")
    (folder / "c.yaml").write_text("rewards: {words: {use: 'rewards.py:words'}, broken: {use: 'rewards.py:broken'}}\n")
    ((told, modules),) = answers(["train ppo run.yaml --check"], folder).values()
    assert "words       1  scored" in told
    assert "'broken' fails on the first row of data.train: raised ZeroDivisionError" in told
    assert TRAINERS & {*modules} == set()


def test_the_check_says_so_before_it_imports_torch(folder: Path) -> None:
    """Where nothing is wrong without it, and the policy is looked at."""
    make_policy(folder)
    ((told, modules),) = answers(["train ppo run.yaml --check"], folder).values()
    assert "now torch and the trainer's libraries" in told
    assert "torch" in modules
