"""What `rlaif init plugin` writes: each kind of plugin, tested and used at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from rlaif_sdk import Composer, ConfigError, Registry, RewardBatch
from rlaif_sdk.composer import builtin
from rlaif_sdk.judges.loading import load_backend
from rlaif_sdk.plugins.scaffold import PluginKind, write_plugin


@pytest.fixture(params=get_args(PluginKind))
def kind(request: pytest.FixtureRequest) -> PluginKind:
    return request.param


def registered(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Registry:
    monkeypatch.syspath_prepend(str(folder))
    registry = Registry()
    registry.register(builtin, name="builtin")
    registry.register(__import__(f"rlaif_{name}"), name=name)
    return registry


def test_each_kind_of_plugin_passes_its_own_contract_test(tmp_path: Path, kind: PluginKind) -> None:
    """A person begins with a package whose test is green."""
    folder = write_plugin(f"my-{kind}", tmp_path, kind=kind)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_each_kind_of_plugin_uses_public_names_only(tmp_path: Path, kind: PluginKind) -> None:
    """Whatever hook the SDK offers, a stranger fills it with `rlaif_sdk` and `rlaif_sdk.testing`."""
    folder = write_plugin("mine", tmp_path, kind=kind)
    for file in folder.rglob("*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if "import" in line and "rlaif_sdk" in line:
                assert line.startswith(("from rlaif_sdk import", "from rlaif_sdk.testing import")), line


def test_a_written_normalizer_and_aggregator_are_used_by_a_config(tmp_path: Path, monkeypatch) -> None:
    """The example of the package's README composes."""
    batch = RewardBatch(prompts=["p", "p"], completions=["one two", "one"])
    rewards = {"words": {"use": "./words.py:words", "normalize": {"kind": "squash", "temperature": 2.0}}}
    (tmp_path / "words.py").write_text(
        "def words(completions):\n    return [float(len(c.split())) for c in completions]\n"
    )
    registry = registered(write_plugin("squash", tmp_path, kind="normalizer"), monkeypatch, "squash")
    monkeypatch.chdir(tmp_path)
    with Composer.from_config({"rewards": rewards}, registry=registry) as composer:
        assert composer.compose(batch).to_list() == pytest.approx([0.7616, 0.4621], abs=1e-4)
    registry = registered(write_plugin("average", tmp_path, kind="aggregator"), monkeypatch, "average")
    rewards = {"words": {"use": "./words.py:words", "weight": 4.0}}
    with Composer.from_config({"rewards": rewards, "aggregate": "average"}, registry=registry) as composer:
        assert composer.compose(batch).to_list() == pytest.approx([2.0, 1.0])


def test_a_written_judge_backend_is_found_by_name(tmp_path: Path, monkeypatch) -> None:
    """`backend:` of a judge takes a stranger's name, and its parameters are checked."""
    registry = registered(write_plugin("oracle", tmp_path, kind="judge"), monkeypatch, "oracle")
    backend = load_backend("oracle", {"favourite": 1}, registry.judge_backends())
    assert backend.identity == 'oracle/1 {"model":"oracle","favourite":1}'
    with pytest.raises(ConfigError, match="favorite"):
        load_backend("oracle", {"favorite": 1}, registry.judge_backends())


def test_a_kind_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """The refusal lists the kinds, and nothing is written."""
    with pytest.raises(ConfigError, match=r"no kind of plugin.*reward, normalizer, aggregator, judge"):
        write_plugin("mine", tmp_path, kind="judges")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
