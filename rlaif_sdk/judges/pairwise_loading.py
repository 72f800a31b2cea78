"""Labelers of pairs from plain settings, and labels in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.judges.loading import load_backend
from rlaif_sdk.judges.pairwise import PairwiseLabeler
from rlaif_sdk.judges.pairwise_labels import Pair, PairLabel
from rlaif_sdk.judges.pairwise_prompt import Detail, PairwisePrompt, Task
from rlaif_sdk.plugins import JudgeBackendSpec


def load_labeler(
    *,
    task: Task = "helpfulness",
    detail: Detail = "detailed",
    prompt: PairwisePrompt | None = None,
    backend: str | None = None,
    backends: Mapping[str, JudgeBackendSpec] | None = None,
    labeling: Mapping[str, Any] | None = None,
    **backend_options: Any,
) -> PairwiseLabeler:
    """A labeler of pairs: ``load_labeler(model="Qwen/Qwen2.5-7B-Instruct", task="summarisation")``.

    Nothing is loaded and no request is sent before the first use.

    Example:
        >>> from rlaif_sdk import load_labeler
        >>> labeler = load_labeler(model="Qwen/Qwen3-4B", task="helpfulness", labeling={"tie_margin": 0.1})
        >>> labeler.settings["orders"]
        'both'

    Args:
        task: See `PairwisePrompt.named`, as for ``detail``.
        detail: ``base`` or ``detailed``.
        prompt: A prompt in the place of the named one.
        backend: See `rlaif_sdk.load_judge`, as for ``backends``.
        backends: The backends by name.
        labeling: Keyword arguments of `PairwiseLabeler`.
        **backend_options: The backend's parameters: ``model`` and more.

    Raises:
        ConfigError: A setting is refused.
        UnknownPluginError: There is no backend of that name.
    """
    return PairwiseLabeler(
        load_backend(backend, backend_options, backends),
        prompt or PairwisePrompt.named(task, detail),
        **(labeling or {}),
    )


def label_pairs(pairs: Iterable[Pair], labeler: PairwiseLabeler | None = None, **settings: Any) -> list[PairLabel]:
    """Label pairs from plain code, all at once; for many, see `rlaif_sdk.preferences.run_labeling`.

    Args:
        pairs: What to label.
        labeler: Who labels; by default made of the settings.
        **settings: See `load_labeler`.

    Raises:
        ConfigError: A setting is refused.
        JudgeError: See `PairwiseLabeler.label`.
    """
    if labeler is not None and settings:
        raise ConfigError("a labeler and settings for one were given", hint="give one of them")
    asked = labeler or load_labeler(**settings)
    try:
        return asyncio.run(asked.label(list(pairs)))
    finally:
        if labeler is None:
            asked.backend.close()
