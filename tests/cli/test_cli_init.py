"""What `rlaif init` writes works at once, as a program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlaif_sdk.cli.main import app
from rlaif_sdk.composer import Composer
from rlaif_sdk.plugins import Registry, RewardSpec, hookimpl
from rlaif_sdk.plugins.scaffold import write_composition, write_reward
from rlaif_sdk.rewards import Params
from rlaif_sdk.testing import FixedReward


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rlaif(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_a_written_reward_passes_its_test_and_is_composed_with_an_installed_one(folder: Path) -> None:
    """The commands that each of them prints come next: test it, compose it, explain, score text and chat rows."""
    written = rlaif("init", "reward", "brevity")
    assert "pytest test_brevity.py\n  rlaif init config ./brevity.py:brevity" in written
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_brevity.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout
    assert "rlaif explain rewards.yaml --prompt" in rlaif("init", "config", "./brevity.py:brevity", "conciseness")
    explained = json.loads(rlaif("explain", "rewards.yaml", "--prompt", "Why?", "--completion", "So.", "--json"))
    assert [*explained["rewards"]] == ["brevity", "conciseness"]
    prompt = [{"role": "user", "content": "Why?"}]
    rows = [{"prompt": "Why?", "completion": "So."}, {"prompt": prompt, "completion": "So."}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = (
        json.loads(line)["reward"]["total"]
        for line in rlaif("score", "rows.jsonl", "rewards.yaml", "-o", "-").splitlines()
    )
    assert first == second == explained["total"]


def test_a_composition_in_another_folder_finds_the_reward(folder: Path) -> None:
    """A reference is given from the working folder, and written from that of the composition."""
    write_reward("brevity", folder / "rewards")
    write_composition(["rewards/brevity.py:brevity"], folder / "configs" / "c.yaml")
    with Composer.from_config("configs/c.yaml") as composer:
        assert composer.weights == {"brevity": 1.0}


class NeedyParams(Params):
    model: str
    """Which."""
    level: int = 1
    """How much."""


class Plugin:
    """Two rewards, of which one has a parameter without a default."""

    @hookimpl
    def rlaif_rewards(self) -> list[RewardSpec]:
        example = {"weight": 0.5, "params": {"model": "some: model", "level": 2}}
        needy = RewardSpec(name="needy", factory=lambda _: FixedReward(1.0), params=NeedyParams, example=example)
        plain = RewardSpec(name="plain", factory=lambda _: FixedReward(1.0), range=(0, 1), ends=("bad", "good"))
        return [needy, plain]


def test_what_the_comments_offer_is_accepted(folder: Path) -> None:
    """Each commented line, without its mark, makes a composition that is accepted; parameters count where they are needed."""
    from rlaif_sdk.composer import builtin

    registry = Registry()
    registry.register(builtin, name="builtin")
    registry.register(Plugin(), name="mine")
    file = write_composition(["needy", "plain"], folder / "c.yaml", registry=registry)
    text = file.read_text()
    assert "params: {model: 'some: model', level: 2}" in text
    assert "# Scores: 0 bad … 1 good." in text
    head, _, body = text.partition("rewards:\n")
    offered = "".join(f"    {line}\n" for line in re.findall(r"^#   (.*)$", head, re.MULTILINE))
    uncommented = re.sub(r"^# ", "", body, flags=re.MULTILINE)
    file.write_text(f"rewards:\n{uncommented}".replace("  plain:\n", f"  plain:\n{offered}"))
    with Composer.from_config(file, registry=registry) as composer:
        assert composer.ledger is not None
        assert composer.weights == {"needy": 1.0, "plain": 1.0}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["config", "conciseness"], "rewards.yaml exists and is left as it is"),
        (["reward", "mine"], "mine.py exists and is left as it is"),
        (["reward", "tested"], "test_tested.py exists and is left as it is"),
        (["reward", "json"], "'json' is the name of a module, which json.py would hide"),
        (["reward", "My-Reward"], "'My-Reward' is no name for a function"),
        (["config", "-o", "new.yaml"], "no reward is named (installed: "),
        (["config", "concisenes", "-o", "new.yaml"], "; did you mean 'conciseness'?"),
        (
            ["config", "politeness", "-o", "new.yaml"],
            "rlaif init reward politeness, then name it as ./politeness.py:politeness; installed: ",
        ),
        (["config", "conciseness", "conciseness", "-o", "new.yaml"], "'conciseness' is named twice"),
        (["config", "./none.py:none", "-o", "new.yaml"], "there is no file"),
        (["config", "conciseness", "-o", "new.json"], "new.json: the composition is YAML"),
    ],
)
def test_nothing_is_overwritten_and_what_is_refused_writes_nothing(
    folder: Path, arguments: list[str], told: str
) -> None:
    """Each refusal says what is there, or what would do."""
    for name in ("rewards.yaml", "mine.py", "test_tested.py"):
        (folder / name).write_text("mine")
    done = CliRunner().invoke(app, ["init", *arguments])
    assert told in str(done.exception), done.output
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        ("rewards.yaml", "mine.py", "test_tested.py"), "mine"
    )
