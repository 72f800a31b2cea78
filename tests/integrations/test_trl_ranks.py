"""TRL on two processes: each scores its own rows, and the composer is one."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.two_processes import run_two

pytest.importorskip("trl")

WORKER = """
    import json, os, sys
    from pathlib import Path

    import torch
    from tests.integrations.conftest import build_prompts, build_trainer

    from rlaif_sdk import Composer, ConfigError
    from rlaif_sdk.composer import Component, Constraint
    from rlaif_sdk.composer.normalizers import ZScore

    def length(completions):
        return [float(len(text.split())) for text in completions]

    torch.set_num_threads(1)
    kind, folder = sys.argv[1], Path(sys.argv[2])
    seen = []

    def composer():
        rewards = {"length": Component(length, normalizer=ZScore())}
        return Composer(rewards, constraints=[Constraint("length", max=2, step_size=0.5)], observers=[seen.append])

    def trainer(composer, **settings):
        reward = composer.for_trl()
        return build_trainer(
            kind, reward, folder, rollout_func=reward.overlapped() if "overlapped" in sys.argv else None, max_steps=4, save_strategy="steps", save_steps=2,
            eval_dataset=build_prompts(4), eval_strategy="steps", eval_steps=1, **settings
        )

    whole, rest, torn = composer(), composer(), composer()
    training = trainer(whole)
    training.train()
    answer = {"log": [entry for entry in training.state.log_history if "reward" in entry]}
    answer["batches"] = [
        {"training": c.batch.training, "group": c.batch.group, "prompts": c.batch.prompts,
         "raw": c.rewards["length"].raw.tolist()}
        for c in seen
    ]
    trainer(rest).train(resume_from_checkpoint=str(folder / "run" / "checkpoint-2"))
    answer |= {"whole": whole.state_dict(), "rest": rest.state_dict()}
    try:
        trainer(torn, num_generations=16).train()
    except ConfigError as error:
        answer["torn"] = str(error)
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(answer))
    for used in (whole, rest, torn):
        used.close()
    torch.distributed.destroy_process_group()
"""


def run(folder: Path, kind: str, *options: str) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    script = folder / "worker.py"
    script.write_text(textwrap.dedent(WORKER), encoding="utf-8")
    return run_two(script, kind, str(folder), *options, folder=folder, TRL_EXPERIMENTAL_SILENCE="1")


@pytest.mark.parametrize("kind", ["grpo", pytest.param("rloo", marks=pytest.mark.slow)])
def test_two_processes_learn_as_one(tmp_path: Path, kind: str) -> None:
    """Each scores its own prompts in whole groups; statistics, multiplier and what is resumed are of all rows.

    Where a prompt's completions would be on both, so that each compares half a group with itself, both say so, and none
    waits for the other.
    """
    first, second = run(tmp_path, kind)
    training = [[batch for batch in rank["batches"] if batch["training"]] for rank in (first, second)]
    assert [len(batches) for batches in training] == [4, 4]
    for one, other in zip(*training, strict=True):
        assert one["group"] == other["group"] == [0] * 4 + [1] * 4
        assert not set(one["prompts"]) & set(other["prompts"])
    raw = [value for batches in training for batch in batches for value in batch["raw"]]
    state = first["whole"]["rewards"]["length"]["state"]
    assert state["count"] == len(raw) == 64
    assert state["mean"] == pytest.approx(sum(raw) / len(raw))
    assert first["whole"] == second["whole"] == first["rest"] == second["rest"]
    means = [sum(one["raw"] + other["raw"]) / 16 for one, other in zip(*training, strict=True)]
    assert [entry["reward/length/raw_mean"] for entry in first["log"]] == pytest.approx(means)

    for rank in (first, second):
        assert "each process scores 8 completions at a time, and a prompt has 16" in rank["torn"]


@pytest.mark.slow
def test_two_processes_learn_as_one_while_they_generate(tmp_path: Path) -> None:
    """Micro-batches are brought together in their order on both, and a checkpoint resumes them."""
    first, second = run(tmp_path, "grpo", "overlapped")
    assert [len(batch["prompts"]) for batch in first["batches"] if batch["training"]] == [4] * 8
    assert first["whole"]["rewards"]["length"]["state"]["count"] == 64
    assert first["whole"] == second["whole"] == first["rest"] == second["rest"]
