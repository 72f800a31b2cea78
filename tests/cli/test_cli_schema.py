"""What ``rlaif schema`` says of the settings of trainers."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

pytest.importorskip("trl")
jsonschema = pytest.importorskip("jsonschema")

import yaml  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rlaif_sdk.cli.main import app  # noqa: E402
from rlaif_sdk.training.methods import METHODS  # noqa: E402

KINDS = sorted(name for name, entry in METHODS.items() if not entry.overrides)


def _schema(kind: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["schema", kind.replace("_", "-")])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_setting_that_the_trainer_lacks_is_refused(kind: str):
    """An editor marks a typo before the run does; what the trainer has, it takes."""
    settings = _schema(kind)["properties"][kind]
    jsonschema.validate({"learning_rate": 1e-5, "max_steps": 3}, settings)
    with pytest.raises(jsonschema.ValidationError, match="learning_rat"):
        jsonschema.validate({"learning_rat": 1e-5}, settings)


def test_the_config_of_the_quickstart_is_what_the_schema_describes():
    """Every key of a file that is trained with is in it."""
    text = (files("rlaif_sdk.quickstart") / "quickstart.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    jsonschema.validate(document["ppo"], _schema("ppo")["properties"]["ppo"])
    with pytest.raises(jsonschema.ValidationError, match="kl_coeff"):
        jsonschema.validate({**document["ppo"], "kl_coeff": 0.1}, _schema("ppo")["properties"]["ppo"])
