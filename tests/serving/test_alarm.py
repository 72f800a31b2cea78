"""An alarm behind a server: only one that learns watches, and once it has stopped the run it scores no more for training."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from rlaif_sdk import Composer, ConfigError
from rlaif_sdk.composer import Component
from rlaif_sdk.config import AlarmConfig
from rlaif_sdk.integrations import Host
from rlaif_sdk.serving.app import create_app
from rlaif_sdk.serving.settings import ServeSettings


def length(completion_texts: list[str]) -> list[float]:
    return [len(text) / 100 for text in completion_texts]


def other(completion_texts: list[str]) -> list[float]:
    return [0.5 for _ in completion_texts]


def composer() -> Composer:
    alarm = AlarmConfig.model_validate({"watch": [{"pressure": "length"}], "action": "pause"})
    return Composer({"length": length, "other": Component(other, weight=0.0)}, alarm=alarm)


def test_a_server_that_gathers_groups_ends_training_and_goes_on_from_its_state() -> None:
    """The error has the evidence; a server that starts anew with what was learned scores again."""
    with (
        composer() as composed,
        TestClient(create_app(composed, ServeSettings(cohort=True, groups_per_step=1))) as client,
    ):

        def score(step: int) -> tuple[int, str]:
            said = [{"prompt": "p", "completion": "w" * (row + 1), "member": row} for row in range(4)]
            rows = [{**one, "group": f"g{step}", "group_size": 4} for one in said]
            answer = client.post("/v1/score", json={"rows": rows})
            return answer.status_code, answer.text

        answers = [score(step) for step in range(40)]
        assert answers[0][0] == 200
        assert answers[-1][0] == 500
        assert "alarm pressure_length" in answers[-1][1]
        state = composed.state_dict()
        composed.load_state_dict(state)
        assert score(99)[0] == 200


def test_a_stack_that_does_not_tell_training_from_evaluation_takes_no_alarm() -> None:
    """It would never go off; the hint names the server that learns."""
    with composer() as composed:
        with pytest.raises(ConfigError, match="which slime does not tell from others") as caught:
            Host(composed, "slime")
        assert "--cohort" in caught.value.hint
        with pytest.raises(ConfigError, match="alarm"):
            create_app(composed, ServeSettings())
