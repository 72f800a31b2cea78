"""Rubrics written by a model from questions and answers that are known to be good, and checked before anybody is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import PositiveInt

from rlaif_sdk.exceptions import JudgeResponseError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.judges.backends import GeneratedText, RowError, one_each, usage_of, whole_text, with_usage_of
from rlaif_sdk.judges.prompts import free_tag
from rlaif_sdk.judges.rubric import Criterion, RubricJudge, RubricVerdicts, json_objects
from rlaif_sdk.preferences.card import Card
from rlaif_sdk.preferences.pipeline import (
    JobSource,
    MakeJob,
    MakeResult,
    RowResult,
    SamplingConfig,
    SamplingPipeline,
    Task,
    make,
)
from rlaif_sdk.preferences.policy import PolicyConfig
from rlaif_sdk.preferences.resumable_job import JobProgress
from rlaif_sdk.preferences.tables import check_text
from rlaif_sdk.types import Conversation, Message, RewardBatch, Score

CATEGORIES = ("Essential", "Important", "Optional", "Pitfall")

_WRITE = """Write a rubric by which answers to the question below are judged. An answer that is known to be good is given.

Each criterion is one thing that a reader of an answer finds true or false of it. It names what it asks for, so that it is \
understood without the good answer, and no two ask for the same. Write at most {most}, the weightiest first.

The weight is "Essential" (an answer without it is wrong or unsafe), "Important", "Optional", or "Pitfall" (a mistake that answers \
make; written as what a good answer does: "Does not ...").

{texts}

Reply with a JSON list and nothing else:
[{{"title": "2 to 4 words", "description": "one sentence", "weight": "Essential"}}]"""
_REVIEW = """Below are a question and the criteria by which answers to it are to be judged. For each criterion say whether a reader \
can find it true or false by reading the question and an answer, without knowing more ("answerable"), and which earlier criterion \
already asks for the same ("same_as": its number, or null).

{texts}

The criteria:
{criteria}

Reply with a JSON list and nothing else, one object for each criterion, in their order:
[{{"criterion": 1, "answerable": "yes", "same_as": null}}]"""
_WHY = ("unanswerable", "repeated", "contradicted", "unchecked")
WRITTEN, REVIEWED, HELD = range(3)


class RubricsConfig(SamplingConfig):
    """Rubrics that a model writes from questions and answers that are known to be good."""

    reference: str = "reference"
    """The column of the answers that are known to be good, text or messages."""
    writer: PolicyConfig
    """The model that writes."""
    judge: PolicyConfig | None = None
    """The model that checks what was written; null lets the writer do it."""
    most_criteria: PositiveInt = 12
    """The most criteria of a rubric."""
    max_new_tokens: PositiveInt = 2048
    """The longest reply."""


class RubricsPipeline(SamplingPipeline[RubricsConfig]):
    """Makes rubrics: written, then reviewed, then held against the answer that they were written from."""

    tables: Mapping[str, str] = {
        "rubrics": "prompt, the reference, and rubric: title, description and weight of each criterion",
        "dropped": f"row, the criterion, and why it was dropped: {', '.join(_WHY)}",
    }
    steps = 3

    def __init__(self, job: MakeJob[RubricsConfig]) -> None:
        config = job.config
        self._writer = job.policy(config.writer, "writer")
        self._checker = job.policy(config.judge, "judge") if config.judge else self._writer
        with job.errors_at("max_new_tokens"):
            self._judge = RubricJudge(self._checker, mode="verdict", max_new_tokens=config.max_new_tokens)
        policies = {"writer": (self._writer, config.writer)}
        super().__init__(job, {**policies, "judge": (self._checker, config.judge)} if config.judge else policies)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Pipeline.settings`."""
        config = self.config
        return {
            **super().settings,
            "rubrics": [config.reference, config.most_criteria, _WRITE, _REVIEW],
            "judge": self._judge.fingerprint,
        }

    def items(self) -> Iterator[Row]:
        """The rows with prompts and references."""
        file = self.config.prompts.source(self.job.folder)
        for row, record in enumerate(super().items(), start=1):
            check_text(record, self.config.reference, file, row)
            yield record

    async def run_step(self, step: int, tasks: Sequence[Task]) -> Sequence[Mapping[str, Any] | RowError]:
        """The rubrics, or what is found of their criteria."""
        batch = RewardBatch(
            [task.item[self.config.prompts.prompt] for task in tasks],
            [task.item[self.config.reference] for task in tasks],
        )
        if step == WRITTEN:
            return await self._write(batch, tasks)
        rubrics = [task.results[WRITTEN]["criteria"] for task in tasks]
        return await (self._review(batch, rubrics) if step == REVIEWED else self._hold(batch, rubrics))

    async def _write(self, batch: RewardBatch, tasks: Sequence[Task]) -> list[Mapping[str, Any] | RowError]:
        most = self.config.most_criteria
        asked = [
            _user(_WRITE.format(most=most, texts=_tagged(question=question, good_answer=answer)))
            for question, answer in zip(batch.prompt_texts, batch.completion_texts, strict=True)
        ]
        replies = await self.answers(self._writer, asked, "rubrics", [task.number for task in tasks])
        return [self._record(reply, lambda entries: {"criteria": _criteria(entries)[:most]}) for reply in replies]

    async def _review(self, batch: RewardBatch, rubrics: Sequence[Sequence[Row]]) -> list[Mapping[str, Any] | RowError]:
        asked = [
            _user(
                _REVIEW.format(
                    texts=_tagged(question=question),
                    criteria="\n".join(f"{n}. {one['description']}" for n, one in enumerate(rubric, start=1)),
                )
            )
            for question, rubric in zip(batch.prompt_texts, rubrics, strict=True)
        ]
        replies = one_each(await self._checker.generate(asked, max_new_tokens=self.config.max_new_tokens), asked)
        return [
            self._record(reply, lambda entries, rubric=rubric: {"problems": _problems(entries, len(rubric))})
            for reply, rubric in zip(replies, rubrics, strict=True)
        ]

    async def _hold(self, batch: RewardBatch, rubrics: Sequence[Sequence[Row]]) -> list[Mapping[str, Any] | RowError]:
        """Whether each criterion is true of the answer that it was written from."""
        criteria = [[Criterion(one["title"], one["description"]) for one in rubric] for rubric in rubrics]
        judged = await self._judge.judge(batch, criteria)
        return [_held(said) for said in judged]

    def _record(self, reply: GeneratedText | RowError, read: Any) -> Mapping[str, Any] | RowError:
        """What a reply comes to, with its usage; an error where it cannot be read."""
        if isinstance(reply, RowError):
            return reply
        try:
            entries = json_objects(whole_text(reply, self.config.max_new_tokens))
            return {**read(entries), "usage": usage_of(reply).record()}
        except JudgeResponseError as error:
            return with_usage_of(error, reply)

    def row_result(self, task: Task) -> RowResult:
        """The criteria that hold, and those that were dropped, with why."""
        prompts = self.config.prompts
        kept: list[Row] = []
        dropped: list[Row] = []
        criteria, problems, verdicts = (
            task.results[step][key] for step, key in enumerate(("criteria", "problems", "verdicts"))
        )
        for criterion, problem, verdict in zip(criteria, problems, verdicts, strict=True):
            why = problem or {True: None, False: "contradicted", None: "unchecked"}[verdict["met"]]
            if why is None:
                kept.append(criterion)
            else:
                reason = None if problem else verdict["reason"]
                dropped.append({"row": task.number + 1, **criterion, "why": why, "reason": reason})
        counts = {"criteria": len(kept), **{f"dropped/{why}": 0 for why in _WHY}}
        for one in dropped:
            counts[f"dropped/{one['why']}"] += 1
        if not kept:
            return RowResult({"dropped": dropped}, skipped={"no_criterion_left": 1}, counts=counts)
        carried = {name: value for name, value in task.item.items() if name != prompts.prompt}
        row = {**carried, "prompt": task.item[prompts.prompt], "rubric": kept}
        return RowResult({"rubrics": [row], "dropped": dropped}, counts=counts)

    def card(self) -> Card:
        """How the rubrics were made."""
        config = self.config
        return self.sampling_card(
            "Rubrics",
            "A model writes a rubric for each question from an answer that is known to be good, in the format of Rubrics as "
            "Rewards (Gunjal et al. 2025, arXiv 2507.17746). A criterion is dropped that a reader of an answer could not find "
            "true or false, that an earlier one already asks for, that is not true of the good answer itself, or that got no "
            "usable verdict on it; a model says so, and no person has read them.",
            reference=config.reference,
            most_criteria=config.most_criteria,
            checked_by="judge" if config.judge else "the writer itself",
        )


def make_rubrics(source: JobSource[RubricsConfig], *, progress: JobProgress = lambda *_: None) -> MakeResult:
    """Make rubrics; see `RubricsConfig` and `run_pipeline`."""
    return make(RubricsConfig, RubricsPipeline, source, progress)


def _held(judged: RubricVerdicts | Score) -> Mapping[str, Any] | RowError:
    """What is said of the good answer; an error where it could not be judged, or by no criterion."""
    problem = judged.error or judged.reason if isinstance(judged, Score) else judged.refused
    if isinstance(judged, Score) or problem:
        return JudgeResponseError(f"the reference cannot be judged: {problem}")
    if all(verdict.error for verdict in judged.verdicts):
        failed = JudgeResponseError(f"no criterion has a verdict on the reference: {judged.verdicts[0].error}")
        failed.usage = judged.usage
        return failed
    verdicts = [
        {"met": None if verdict.error else bool(verdict.value), "reason": verdict.error or verdict.reason}
        for verdict in judged.verdicts
    ]
    return {"verdicts": verdicts, "usage": judged.usage.record()}


def _user(content: str) -> Conversation:
    return [Message(role="user", content=content)]


def _tagged(**texts: str) -> str:
    """Texts under their names, between tags that stand in none of them."""
    tag = free_tag([*texts], texts.values())
    return "\n\n".join(f"<{name}{tag}>\n{text}\n</{name}{tag}>" for name, text in texts.items())


def _criteria(entries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What a writer's list comes to, with the weight as one of the categories.

    Raises:
        JudgeResponseError: There is none, two have one title, or one lacks something.
    """
    found: list[Row] = []
    for number, entry in enumerate(entries, start=1):
        title, description = (entry.get(name) for name in ("title", "description"))
        category = str(entry.get("weight")).strip().capitalize()
        if not all(isinstance(text, str) and text.strip() for text in (title, description)):
            raise JudgeResponseError(f"criterion {number} of the rubric lacks a title or a description")
        if category not in CATEGORIES:
            raise JudgeResponseError(
                f"criterion {number} of the rubric weighs {str(entry.get('weight'))[:40]!r}: not one of {', '.join(CATEGORIES)}"
            )
        found.append({"title": str(title).strip(), "description": str(description).strip(), "weight": category})
    titles = [one["title"] for one in found]
    if not found or len(set(titles)) < len(titles):
        raise JudgeResponseError(
            "the rubric has no criteria" if not found else "two criteria of the rubric have one title"
        )
    return found


def _problems(entries: Sequence[Mapping[str, Any]], count: int) -> list[str | None]:
    """Why each of the criteria is to be dropped, or None.

    Raises:
        JudgeResponseError: The review does not speak of each just once, or says what cannot be.
    """
    if [entry.get("criterion") for entry in entries] != list(range(1, count + 1)):
        raise JudgeResponseError(f"the review does not speak of each of {count} criteria once, in their order")
    problems: list[str | None] = []
    for number, entry in enumerate(entries, start=1):
        answerable, same = str(entry.get("answerable")).strip().casefold(), entry.get("same_as")
        if answerable not in ("yes", "no", "true", "false"):
            raise JudgeResponseError(
                f"the review calls criterion {number} {answerable[:40]!r}, which is neither yes nor no"
            )
        if same is not None and (not isinstance(same, int) or isinstance(same, bool) or not 1 <= same < number):
            raise JudgeResponseError(
                f"the review says that criterion {number} repeats {str(same)[:40]!r}, which is none before it"
            )
        problems.append("unanswerable" if answerable in ("no", "false") else "repeated" if same is not None else None)
    return problems
