"""Judges, labelers and their backends from plain settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from rlaif_sdk.config.documents import Document, Location, from_validation_error
from rlaif_sdk.conversations import Thinking, View
from rlaif_sdk.exceptions import ConfigError, UnknownPluginError
from rlaif_sdk.io.run_async import run_async
from rlaif_sdk.judges.backends import JudgeBackend
from rlaif_sdk.judges.builtin import BACKENDS
from rlaif_sdk.judges.listwise import ListwiseJudge, ResponseList, ResponseRanking
from rlaif_sdk.judges.pairwise import Pair, PairLabel, PairwiseLabeler
from rlaif_sdk.judges.pointwise import Labels, Mode, PointwiseJudge
from rlaif_sdk.judges.prompts import (
    PREAMBLE,
    TEMPLATE,
    Detail,
    JudgePrompt,
    ListwisePrompt,
    PairwisePrompt,
    Scale,
    Task,
)
from rlaif_sdk.judges.rubric import RubricJudge
from rlaif_sdk.judges.screening import Overlong
from rlaif_sdk.plugins import JudgeBackendSpec, Registry


def load_judge(
    *,
    criteria: str = "helpfulness",
    preamble: str = PREAMBLE,
    template: str = TEMPLATE,
    mode: Mode = "likelihood",
    scale: tuple[int, int] | None = None,
    labels: Labels = "letters",
    max_chars: int = 24_000,
    overlong: Overlong = "error",
    max_new_tokens: int = 256,
    blame: bool = False,
    view: View = "assistant",
    thinking: Thinking = "drop",
    reference_column: str | None = None,
    name: str = "judge",
    backend: str | None = None,
    backends: Mapping[str, JudgeBackendSpec] | None = None,
    **backend_options: Any,
) -> PointwiseJudge:
    """A judge of single answers: ``load_judge(model="Qwen/Qwen2.5-7B-Instruct", criteria="harmlessness")``.

    Nothing is loaded and no request is sent before the first use.

    Example:
        >>> from rlaif_sdk import load_judge
        >>> judge = load_judge(model="Qwen/Qwen3-4B", criteria="harmlessness", name="harmless")
        >>> judge.name, judge.range
        ('harmless', (-1.0, 1.0))

    Args:
        criteria: See `JudgePrompt`, as for ``preamble`` and ``template``.
        preamble: What the judge is told first.
        template: The whole prompt, with placeholders.
        mode: See `PointwiseJudge`, as for what follows up to ``name``.
        scale: The least and greatest score.
        labels: How the scores are named in likelihood mode.
        max_chars: The most characters of a prompt, and of an answer.
        overlong: What becomes of a longer one.
        max_new_tokens: The longest reply in rating mode.
        blame: Let the judge name the turn that takes most from the rating.
        view: What of a completion is judged.
        thinking: Whether the policy's thinking is judged too.
        reference_column: The column with a row's reference answer, which the judge sees.
        name: The reward's name.
        backend: The backend's name; by default ``openai`` when there is a ``base_url``, else ``transformers``.
        backends: The backends by name; by default those of the installed plugins.
        **backend_options: The backend's parameters (see `rlaif_sdk.judges.builtin`): ``model`` and more.

    Raises:
        ConfigError: A setting is refused.
        UnknownPluginError: There is no backend of that name.
    """
    return PointwiseJudge(
        load_backend(backend, backend_options, backends),
        JudgePrompt(criteria, preamble, template),
        mode=mode,
        scale=Scale(*scale) if scale else None,
        labels=labels,
        max_chars=max_chars,
        overlong=overlong,
        max_new_tokens=max_new_tokens,
        blame=blame,
        view=view,
        thinking=thinking,
        reference_column=reference_column,
        name=name,
    )


def load_rubric_judge(
    *,
    backend: str | None = None,
    backends: Mapping[str, JudgeBackendSpec] | None = None,
    judging: Mapping[str, Any] | None = None,
    **backend_options: Any,
) -> RubricJudge:
    """A judge that holds answers against rubrics: ``load_rubric_judge(model="Qwen/Qwen2.5-7B-Instruct")``.

    Nothing is loaded and no request is sent before the first use.

    Example:
        >>> from rlaif_sdk import load_rubric_judge
        >>> load_rubric_judge(model="Qwen/Qwen3-4B", judging={"mode": "verdict", "criteria_per_call": 5}).mode
        'verdict'

    Args:
        backend: See `rlaif_sdk.load_judge`, as for ``backends``.
        backends: The backends by name.
        judging: Keyword arguments of `RubricJudge`.
        **backend_options: The backend's parameters: ``model`` and more.

    Raises:
        ConfigError: A setting is refused.
        UnknownPluginError: There is no backend of that name.
    """
    return RubricJudge(load_backend(backend, backend_options, backends), **(judging or {}))


def load_backend(
    name: str | None,
    options: Mapping[str, Any],
    backends: Mapping[str, JudgeBackendSpec] | None = None,
    *,
    document: Document | None = None,
    at: Location = (),
) -> JudgeBackend:
    """A judge backend by name, from its parameters.

    Args:
        name: The backend's; None takes the one that the parameters are of.
        options: Its parameters.
        backends: The backends by name; by default those of the installed plugins.
        document: The config that they are from, for errors.
        at: Where they stand in it.

    Raises:
        ConfigError: A parameter is refused.
        UnknownPluginError: There is no backend of that name.
    """
    name = name or ("openai" if "base_url" in options else "transformers")
    own = {spec.name: spec for spec in BACKENDS}
    offered = backends if backends is not None else own if name in own else Registry.default().judge_backends()
    if name not in offered:
        raise UnknownPluginError(
            f"no judge backend is called {name!r}", hint=f"there are {', '.join(sorted(offered)) or 'none'}"
        )
    try:
        backend: JudgeBackend = offered[name].build(options)
    except ValidationError as error:
        refused = from_validation_error(error, offered[name].params, document or Document(dict(options)), at=at)
        if document is None:
            refused.add_note(f"of the judge backend {name!r}")
        raise refused from None
    return backend


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
        return run_async(asked.label(list(pairs)))
    finally:
        if labeler is None:
            asked.backend.close()


def load_listwise_judge(
    *,
    criteria: str = "helpfulness",
    backend: str | None = None,
    backends: Mapping[str, JudgeBackendSpec] | None = None,
    judging: Mapping[str, Any] | None = None,
    **backend_options: Any,
) -> ListwiseJudge:
    """A judge of all responses to a prompt: ``load_listwise_judge(model="Qwen/Qwen2.5-7B-Instruct")``.

    Nothing is loaded and no request is sent before the first use.

    Example:
        >>> from rlaif_sdk import load_listwise_judge
        >>> load_listwise_judge(model="Qwen/Qwen3-4B", criteria="harmlessness", judging={"orders": 4}).orders
        4

    Args:
        criteria: See `ListwisePrompt`.
        backend: See `rlaif_sdk.load_judge`, as for ``backends``.
        backends: The backends by name.
        judging: Keyword arguments of `ListwiseJudge`.
        **backend_options: The backend's parameters: ``model`` and more.

    Raises:
        ConfigError: A setting is refused.
        UnknownPluginError: There is no backend of that name.
    """
    loaded = load_backend(backend, backend_options, backends)
    return ListwiseJudge(loaded, ListwisePrompt(criteria), **(judging or {}))


def rank_responses(lists: Iterable[ResponseList], judge: ListwiseJudge) -> list[ResponseRanking]:
    """Rank responses from plain code, all lists at once.

    Raises:
        JudgeError: See `ListwiseJudge.rank`.
    """
    return run_async(judge.rank(list(lists)))
