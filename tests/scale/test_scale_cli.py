"""The options of Ray, as a user types them, without a Ray."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from rlaif_sdk import ConfigError, MissingExtraError
from rlaif_sdk.cli.main import app
from rlaif_sdk.scale import Autoscaling, deploy, label_with_actors, score_table


def rlaif(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is not installed."""
    monkeypatch.setitem(sys.modules, "ray", None)


def test_without_ray_one_machine_works_and_the_engine_names_its_extra(without_ray, table, composition, tmp_path):
    """The default engine needs no Ray; each way to Ray says what to install."""
    assert rlaif("score", table(9), "--config", composition).exit_code == 0
    refused = rlaif("score", table(9), "--config", composition, "--engine", "ray")
    assert isinstance(refused.exception, MissingExtraError)
    served = rlaif("serve", "--config", composition, "--engine", "ray")
    assert isinstance(served.exception, MissingExtraError)
    assert "rlaif-sdk[ray]" in str(served.exception)
    for start in (
        lambda: score_table(table(9), composition, tmp_path / "out"),
        lambda: label_with_actors({"pairs": {"file": "p.jsonl"}, "judge": {"model": "m"}}),
        lambda: deploy(composition),
    ):
        with pytest.raises(MissingExtraError, match=r"rlaif-sdk\[ray\]"):
            start()
    assert not (tmp_path / "out").exists()


def test_options_of_ray_are_for_ray(table, composition):
    """They are not passed over in silence."""
    for option in (("--actors", 2), ("--actor-gpus", 1), ("--ray-address", "auto")):
        refused = rlaif("score", table(9), "--config", composition, *option)
        assert refused.exit_code == 2
        assert "need --engine ray" in refused.output
    assert "need --engine ray" in rlaif("label", composition, "--actors", 2).output
    for option in ("--min-replicas", "--max-replicas", "--replica-requests", "--replica-cores", "--replica-gpus"):
        assert "need --engine ray" in rlaif("serve", "--config", composition, option, 1).output
    assert "need --engine ray" in rlaif("serve", "--config", composition, "--ray-address", "auto").output
    assert rlaif("score", table(9), "--config", composition, "--engine", "spark").exit_code == 2


def test_the_output_of_ray_is_a_folder(table, composition, tmp_path):
    """A file's name is refused, since the output would be a folder of that name."""
    refused = rlaif(
        "score", table(9), "--config", composition, "--engine", "ray", "--output", tmp_path / "scored.parquet"
    )
    assert refused.exit_code == 2
    assert "the output is a folder" in refused.output


@pytest.mark.parametrize("wrong", [{"least": 3, "most": 2}, {"most": 0, "least": 0}, {"requests": 0}, {"gpus": -1}])
def test_replicas_that_cannot_be_are_refused(wrong):
    """Before Ray is asked."""
    with pytest.raises(ConfigError, match="autoscaling"):
        Autoscaling(**wrong)


def test_a_deployment_that_cannot_work_is_refused_before_ray_starts(composition, tmp_path):
    """As `rlaif serve` does without Ray: another address than loopback needs a key, files for TLS must be there."""
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="key"):
        deploy(composition, host="0.0.0.0")
    for arguments, problem in (
        (["--host", "0.0.0.0"], "without a key"),
        (["--ssl-certfile", tmp_path / "missing.pem"], "there is no file"),
        (["--ssl-keyfile", composition], "a key without a certificate"),
        (["--min-replicas", 3, "--max-replicas", 2], "autoscaling"),
        (["--state", tmp_path / "missing.json"], "there is no such file"),
    ):
        refused = rlaif("serve", "--config", composition, "--engine", "ray", *arguments)
        assert isinstance(refused.exception, ConfigError)
        assert problem in str(refused.exception)
