"""Pairs from contrasting prompts (RLCD), with the self-rewarding score of DLMA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import model_validator

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.config.documents import load_document, parse_document, validate
from rlaif_sdk.conversations import USER, Turn, chat_messages, read
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import table_digest
from rlaif_sdk.judges.backends import RowError
from rlaif_sdk.preferences.card import Card, model_facts
from rlaif_sdk.preferences.make_config import JobSource, MakeJob, SamplingConfig, as_make_job
from rlaif_sdk.preferences.make_job import MakeResult, Progress, run_maker
from rlaif_sdk.preferences.maker import Made, Task, reply_record
from rlaif_sdk.preferences.policy import PolicyConfig, answers, derived_seed, require_answer_logprobs
from rlaif_sdk.preferences.self_reward import MarginConfig, contrasting_logprobs, self_rewarding_margin
from rlaif_sdk.types import Message, TextOrConversation

POSITIVE, NEGATIVE, SCORE = range(3)


class Side(ConfigModel):
    """What is put around a prompt to ask for a virtue, or for its opposite."""

    before: str = ""
    """Text before the prompt, or before the last message of the user."""
    after: str = ""
    """Text after it: the beginning of an answer, say, where the prompt is text."""
    system: str | None = None
    """A message of the system before a conversation; not for prompts in text."""

    def around(self, prompt: TextOrConversation) -> TextOrConversation:
        """The prompt with this around it.

        Raises:
            ConfigError: There is a system message and the prompt is text.
        """
        if isinstance(prompt, str):
            if self.system is not None:
                raise ConfigError("a prompt in text has no place for a system message", key="system", hint="use before")
            return f"{self.before}{prompt}{self.after}"
        turns = list(read(prompt, role=USER))
        last = max((place for place, turn in enumerate(turns) if turn.role == USER), default=len(turns) - 1)
        turns[last] = replace(turns[last], content=f"{self.before}{turns[last].content}{self.after}")
        asked = turns if self.system is None else [Turn("system", self.system), *turns]
        messages: TextOrConversation = chat_messages(asked)  # type: ignore[assignment]  # chat messages are messages
        return messages


class Contrast(ConfigModel):
    """A file that says how two contrasting prompts are made of one."""

    description: str = ""
    """What the contrast is, in a line."""
    positive: Side
    """Asks for the virtue."""
    negative: Side
    """Asks for its opposite."""

    @model_validator(mode="after")
    def _contrasting(self) -> Contrast:
        if self.positive == self.negative:
            raise ValueError("positive and negative are the same")
        return self

    @classmethod
    def named(cls, name: str) -> Contrast:
        """One of the contrasts that come with the SDK: ``harmlessness`` or ``helpfulness``.

        Raises:
            ConfigError: There is no such contrast.
        """
        folder = files("rlaif_sdk.preferences").joinpath("contrasts")
        known = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())
        if name not in known:
            raise ConfigError(f"there is no contrast {name!r}", hint=f"there are {', '.join(known)}, or name a file")
        file = folder.joinpath(f"{name}.yaml")
        return validate(cls, parse_document(file.read_text(encoding="utf-8"), file=file.name))

    @classmethod
    def from_file(cls, path: str | Path) -> Contrast:
        """The contrast of a YAML or JSON file.

        Raises:
            ConfigError: The file is refused; names the line.
        """
        return validate(cls, load_document(path))


class ContrastiveConfig(SamplingConfig):
    """Pairs from contrasting prompts: one asks for a virtue, the other for its opposite."""

    policy: PolicyConfig
    """The model that answers both."""
    contrast: str = "harmlessness"
    """``harmlessness``, ``helpfulness``, or a YAML file of your own with ``positive`` and ``negative``."""
    margin: MarginConfig | None = None
    """Add DLMA's self-rewarding score and the margin that DPO takes from it; ``{}`` for the defaults. It needs a local
    model. Without it the label is which prompt made the answer, as in RLCD."""


class ContrastiveMaker:
    """Makes pairs from contrasting prompts: the positive answer, the negative one, and the score."""

    tables: Mapping[str, str] = {
        "pairs": "prompt, chosen (asked for the virtue), rejected (asked for its opposite), chosen_prob, margin"
    }
    chained = True

    def __init__(self, job: MakeJob[ContrastiveConfig]) -> None:
        self._job = job
        self._config = job.config
        self._contrast = self._load_contrast()
        self._policy = job.policy(job.config.policy, "policy")
        self.concurrency: int | None = getattr(self._policy, "concurrency", None)
        self.steps = 2 if job.config.margin is None else 3
        if job.config.margin is not None:
            try:
                require_answer_logprobs(self._policy)
            except ConfigError as error:
                raise job.document.error(error.message, ("margin",), error.hint) from error

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Maker.settings`."""
        config = self._config
        return {
            "prompts file": [table_digest(self._job.folder / config.prompts.file), config.prompts.model_dump()],
            "contrast": self._contrast.model_dump(),
            "policy": self._policy.identity,
            "sampling": [config.temperature, config.max_new_tokens, config.seed],
            "way of labelling": self.steps,
        }

    def items(self) -> Iterator[Row]:
        """The rows with prompts."""
        return self._job.prompt_rows(self._config.prompts)

    async def take(self, step: int, tasks: Sequence[Task]) -> Sequence[Mapping[str, Any] | RowError]:
        """One answer of each prompt, or the log-probabilities of both."""
        if step == SCORE:
            return await self._scores(tasks)
        config = self._config
        replies = await answers(
            self._policy,
            [self._sides(task.item)[step] for task in tasks],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=derived_seed(config.seed, step, [task.number for task in tasks]),
        )
        return [reply_record(reply) for reply in replies]

    def made(self, task: Task) -> Made:
        """The pair, unless an answer is empty or both are the same."""
        item, results = task.item, task.results
        prompt = item[self._config.prompts.prompt]
        chosen, rejected = results[POSITIVE]["text"], results[NEGATIVE]["text"]
        if not chosen.strip() or not rejected.strip():
            return Made({}, left_out={"an answer is empty": 1})
        if chosen == rejected:
            return Made({}, left_out={"both answers are the same": 1})
        row: Row = {
            "prompt": prompt,
            "chosen": like(prompt, chosen),
            "rejected": like(prompt, rejected),
            "chosen_prob": 1.0,
            "chosen_truncated": results[POSITIVE]["truncated"],
            "rejected_truncated": results[NEGATIVE]["truncated"],
        }
        noted = {}
        if self._config.margin is not None:
            score = results[SCORE]["score"]
            row |= {"margin": self_rewarding_margin(score, self._config.margin), "self_reward": score}
            row |= {"logprobs": results[SCORE]["logprobs"]}
            noted = {"scores below 0": int(score < 0)}
        carried = {name: value for name, value in item.items() if name != self._config.prompts.prompt}
        return Made({"pairs": [{**carried, **row, "source": "contrastive"}]}, noted=noted)

    def card(self) -> Card:
        """How the pairs were made."""
        config = self._config
        scored = (
            " The margin is the self-rewarding score R = log [pi(a1|p+) / pi(a1|p-)] - log [pi(a2|p+) / pi(a2|p-)] "
            "clipped and scaled (Liu et al. 2024, arXiv 2402.11907)."
        )
        return Card(
            title="Preference pairs from contrasting prompts",
            method="A model answers each prompt twice: asked for a virtue, and asked for its opposite. The label is which "
            "of the two made the answer; no judge was asked (Yang et al. 2023, arXiv 2307.12950)."
            + (scored if config.margin else ""),
            files={},
            models={"policy": model_facts(self._policy, config.policy.options())},
            inputs={
                config.prompts.file: table_digest(self._job.folder / config.prompts.file),
                "contrast": json_digest(self._contrast.model_dump()),
            },
            settings={
                "contrast": config.contrast,
                "temperature": config.temperature,
                "max_new_tokens": config.max_new_tokens,
                "seed": config.seed,
                "margin": config.margin.model_dump() if config.margin else None,
            },
        )

    def close(self) -> None:
        """Release the model."""
        self._policy.close()

    def _load_contrast(self) -> Contrast:
        name = self._config.contrast
        if Path(name).suffix in {".yaml", ".yml", ".json"}:
            return Contrast.from_file(self._job.folder / name)
        try:
            return Contrast.named(name)
        except ConfigError as error:
            raise self._job.document.error(error.message, ("contrast",), error.hint) from error

    def _sides(self, item: Row) -> tuple[TextOrConversation, TextOrConversation]:
        prompt = item[self._config.prompts.prompt]
        return self._contrast.positive.around(prompt), self._contrast.negative.around(prompt)

    async def _scores(self, tasks: Sequence[Task]) -> list[Mapping[str, Any] | RowError]:
        texts = [(task.results[POSITIVE]["text"], task.results[NEGATIVE]["text"]) for task in tasks]
        pairs = [(*self._sides(task.item), first, second) for task, (first, second) in zip(tasks, texts, strict=True)]
        found = await contrasting_logprobs(require_answer_logprobs(self._policy), pairs)
        return [one if isinstance(one, RowError) else {"score": one.score, "logprobs": one.record()} for one in found]


def make_contrastive(source: JobSource[ContrastiveConfig], *, progress: Progress = lambda *_: None) -> MakeResult:
    """Make pairs from contrasting prompts; see `ContrastiveConfig` and `run_maker`."""
    job = as_make_job(ContrastiveConfig, source)
    return run_maker(job, ContrastiveMaker(job), progress=progress)


def like(prompt: TextOrConversation, answer: str) -> TextOrConversation:
    """An answer in the kind of its prompt: text, or a message."""
    return answer if isinstance(prompt, str) else [Message(role="assistant", content=answer)]
