"""Sampled completions with their rewards: in a file, and for any callback that asks for them.

A callback gets them through a method of its own beside those of `transformers.TrainerCallback`::

    def on_samples(self, args, state, control, *, split, samples, **kwargs): ...

``split`` is ``train`` or ``eval``; ``samples`` are JSON-ready mappings, see `sample_records`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from rlaif_sdk.io.files import atomic_path
from rlaif_sdk.training.ppo.scoring import Scored

SAMPLES_FILE = "rollouts.jsonl"
Sample = dict[str, Any]


def sample_records(
    prompts: Sequence[Any], completions: Sequence[Any], composition: Scored, kl_B: Tensor | None, cut_short_B: Tensor
) -> Iterator[Sample]:
    """The B rows of a rollout, one at a time.

    ``prompt``, ``completion``, whether it was ``cut_short``, its divergence ``kl`` from the reference in nats (None
    without a reference), and what `rlaif_sdk.Composition.records` has: ``total``, ``rewards`` and so on. Of a
    composition without that method the total and the raw scores.
    """
    records = getattr(composition, "records", None)
    scored: Iterator[Mapping[str, Any]] = records() if callable(records) else _raw_records(composition)
    divergences = [None] * len(prompts) if kl_B is None else kl_B.tolist()
    rows = zip(prompts, completions, cut_short_B.tolist(), divergences, scored, strict=True)
    for prompt, completion, cut_short, kl, record in rows:
        yield {"prompt": prompt, "completion": completion, "cut_short": cut_short, "kl": kl, **record}


def _raw_records(composition: Scored) -> Iterator[Sample]:
    columns = {name: column.raw.tolist() for name, column in composition.rewards.items()}
    for row, total in enumerate(composition.totals.tolist()):
        yield {"total": _number(total), "rewards": {name: {"raw": _number(raw[row])} for name, raw in columns.items()}}


def _number(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124 - NaN is what differs from itself


def show_samples(handler: CallbackHandler, args: Any, state: Any, control: Any, *, split: str, records: Any) -> None:
    """Hand the first ``args.log_samples`` records to every callback that has ``on_samples``."""
    listeners = [callback for callback in handler.callbacks if callable(getattr(callback, "on_samples", None))]
    samples = list(islice(records, args.log_samples)) if listeners and state.is_world_process_zero else []
    for listener in listeners if samples else []:
        listener.on_samples(args, state, control, split=split, samples=samples)


class SampleFile(TrainerCallback):
    """Appends samples to a JSONL file, each with ``step`` and ``split``.

    A resumed run replaces what followed its checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget samples of steps that will be made again."""
        del args, control, kwargs
        if not (state.global_step and state.is_world_process_zero and self.path.is_file()):
            return
        with (
            atomic_path(self.path) as partial,
            self.path.open(encoding="utf-8") as old,
            partial.open("w", encoding="utf-8") as kept,
        ):
            kept.writelines(line for line in old if _came_before(line, state.global_step))

    def on_samples(self, args: Any, state: Any, control: Any, *, split: str, samples: Sequence[Sample]) -> None:
        """Called after each rollout and each batch of evaluation."""
        del args, control
        lines = [json.dumps({"step": state.global_step, "split": split, **sample}) + "\n" for sample in samples]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)


def _came_before(line: str, step: int) -> bool:
    """Whether a line was written before the checkpoint of a step; evaluation comes before saving."""
    try:
        sample = json.loads(line)
    except ValueError:  # cut off when the run was killed
        return False
    return bool(sample["step"] < step or (sample["step"] == step and sample["split"] == "eval"))
