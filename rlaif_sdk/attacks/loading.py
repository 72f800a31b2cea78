"""The judge that a config file describes: of pairs in a labelling job, of answers in a composition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rlaif_sdk.composer import Composer
from rlaif_sdk.config.documents import Document, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.judges.pairwise import PairwiseLabeler
from rlaif_sdk.judges.pointwise import PointwiseJudge
from rlaif_sdk.preferences import LabelConfig, LabelJob


def load_attacked(
    path: str | Path, *, reward: str | None = None, overrides: Sequence[str] = ()
) -> PointwiseJudge | PairwiseLabeler:
    """The judge of a config; nothing is loaded yet.

    Args:
        path: A labelling job (its ``pairs`` may be left out), or a composition with a reward that is a judge.
        reward: Which reward of the composition; may be left out where one alone is a judge.
        overrides: ``key=value`` each, as after ``--set``.

    Raises:
        ConfigError: The config is refused, or has no such judge; the message has file and line.
    """
    document = overridden(path, overrides)
    data = document.data if isinstance(document.data, dict) else {}
    if "rewards" in data:
        return _judge_of(document, reward)
    if "judge" not in data:
        problem = "has neither a judge, as a labelling job has, nor rewards"
        raise document.error(problem, hint="give the config of rlaif label, or a composition with a judge")
    job = replace(document, data={"pairs": {"file": "none.jsonl"}, **data})
    return LabelJob(validate(LabelConfig, job), job).labeler()


def _judge_of(document: Document, reward: str | None) -> PointwiseJudge:
    components = Composer.from_config(document).components
    judges = {name: part.reward for name, part in components.items() if isinstance(part.reward, PointwiseJudge)}
    names = ", ".join(judges)
    if not judges:
        raise document.error("none of them is a judge", ("rewards",), "add the reward judge, or attack another config")
    if reward is None and len(judges) > 1:
        raise document.error(f"{len(judges)} of them are judges: {names}", ("rewards",), "choose with --reward")
    if reward is not None and reward not in judges:
        raise document.error(f"{reward!r} is no judge", ("rewards", reward), f"judges: {names}")
    return judges[reward or next(iter(judges))]
