"""The composer's state in TRL's checkpoints."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from rlaif_sdk import Composer
from rlaif_sdk.composer import Component, Constraint
from rlaif_sdk.composer.normalizers import ZScore
from rlaif_sdk.exceptions import StateError
from rlaif_sdk.integrations.trl import STATE_KEY


def length(completions: list[str]) -> list[float]:
    return [float(len(text.split())) for text in completions]


def build(weight: float = 1.0) -> Composer:
    """Running statistics and a multiplier."""
    rewards = {"length": Component(length, weight=weight, normalizer=ZScore())}
    return Composer(rewards, constraints=[Constraint("length", max=2, step_size=0.5)])


SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    make_trainer: Callable[..., Any], kind: str, tmp_path: Path
) -> None:
    """Resumed from anywhere, in a new process' place, with a fresh composer: the same statistics and multiplier."""
    whole = build()
    make_trainer(kind, whole.for_trl(), **SAVING).train()
    (tmp_path / "run" / "checkpoint-2").rename(tmp_path / "kept")
    rest = build()
    trainer = make_trainer(kind, rest.for_trl(), **SAVING)
    trainer.train(resume_from_checkpoint=str(tmp_path / "kept"))
    assert rest.state_dict()["rewards"]["length"]["state"]["count"] == 32
    assert rest.state_dict() == whole.state_dict()


def test_a_checkpoint_holds_the_state_of_its_own_step(
    make_trainer: Callable[..., Any], kind: str, tmp_path: Path
) -> None:
    """Each checkpoint has what was learned until then, and evaluation in between changes nothing."""
    make_trainer(kind, build().for_trl(), **SAVING).train()
    counts = []
    for step in (2, 4):
        state = json.loads((tmp_path / "run" / f"checkpoint-{step}" / "trainer_state.json").read_text())
        counts.append(state["stateful_callbacks"][STATE_KEY]["attributes"]["rewards"]["length"]["state"]["count"])
    assert counts == [16, 32]


def test_transformers_own_restoring_of_callbacks_does_not_mind(
    make_trainer: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """``restore_callback_states_from_checkpoint`` finds a state that is no callback's, and leaves it."""
    make_trainer("grpo", build().for_trl(), **SAVING).train()
    rest = build()
    trainer = make_trainer("grpo", rest.for_trl(), restore_callback_states_from_checkpoint=True, **SAVING)
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert rest.state_dict()["rewards"]["length"]["state"]["count"] == 32


def test_the_state_of_another_composition_is_refused(make_trainer: Callable[..., Any], tmp_path: Path) -> None:
    """What was learned with other weights is not gone on with."""
    make_trainer("grpo", build().for_trl(), **SAVING).train()
    trainer = make_trainer("grpo", build(weight=2.0).for_trl(), **SAVING)
    with pytest.raises(StateError, match="weight"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_a_checkpoint_without_the_composer_is_warned_of(
    make_trainer: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that began with other rewards may go on with a composer; that its statistics are fresh is said."""

    def plain(completions: list[str], **_: Any) -> list[float]:
        return length(completions)

    make_trainer("grpo", plain, **SAVING).train()
    composer = build()
    trainer = make_trainer("grpo", composer.for_trl(), **SAVING)
    with caplog.at_level(logging.WARNING, logger="rlaif_sdk"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert "holds no state of the composer" in caplog.text
    assert composer.state_dict()["rewards"]["length"]["state"]["count"] == 16


def test_a_second_training_goes_on(make_trainer: Callable[..., Any]) -> None:
    """Without a checkpoint to resume from, the composer keeps what it knows."""
    composer = build()
    trainer = make_trainer("grpo", composer.for_trl())
    trainer.train()
    trainer.train()
    assert composer.state_dict()["rewards"]["length"]["state"]["count"] == 32


def test_going_back_to_a_checkpoint_goes_back_for_the_composer_too(
    make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    """The same trainer, resumed at an earlier step, has the statistics of that step."""
    composer = build()
    trainer = make_trainer("grpo", composer.for_trl(), **SAVING)
    trainer.train()
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert composer.state_dict()["rewards"]["length"]["state"]["count"] == 32
