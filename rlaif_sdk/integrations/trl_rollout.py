"""Scoring completions while the next are generated, in TRL's GRPO.

``rollout_func`` is TRL's one door to generation. It is given the prompts of a batch, not the dataset's columns, which are
looked up by prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias

from rlaif_sdk.exceptions import ConfigError, TrainingError
from rlaif_sdk.integrations.trl_call import Call
from rlaif_sdk.integrations.trl_checks import generations
from rlaif_sdk.types import RewardBatch, TextOrConversation

if TYPE_CHECKING:
    from rlaif_sdk.composer.combiner import BatchComposer
    from rlaif_sdk.composer.composition import Composition
    from rlaif_sdk.integrations.trl import Scoring

Generate: TypeAlias = Callable[[list[TextOrConversation], Any], Mapping[str, Any]]
"""A ``rollout_func``: of B prompts and the trainer, ``prompt_ids``, ``completion_ids``, ``logprobs`` and other fields."""

_REQUIRED = ("prompt_ids", "completion_ids", "logprobs")
_NO_COLUMNS = {"prompt", "completion", "completion_ids"}
"""What TRL leaves out of the columns that it passes to rewards."""


def generate_as_trainer(prompts: list[TextOrConversation], trainer: Any) -> dict[str, Any]:
    """Generate as the trainer does without a ``rollout_func``: with transformers or vLLM, as its settings say.

    Raises:
        ConfigError: A prompt has an image, which a ``rollout_func`` cannot hand back.
    """
    prompt_ids, images, fields = trainer._tokenize_prompts(prompts)  # noqa: SLF001 - TRL has no public way; see the contract
    if images is not None:
        raise ConfigError("a prompt has an image", key="rollout_func", hint="train without 'rollout_func'")
    size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    completion_ids, logprobs = trainer._generate_single_turn(prompt_ids, images, fields, size)  # noqa: SLF001
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": logprobs}


class OverlappingRollout:
    """A ``rollout_func`` that generates micro-batches and submits each to the composer before it generates the next.

    `rlaif_sdk.integrations.trl.TRLReward.overlapped` makes it.
    """

    def __init__(self, scoring: Scoring, generate: Generate, micro_batch: int) -> None:
        if micro_batch < 1:
            raise ConfigError(f"a micro-batch has at least 1 prompt, not {micro_batch}", key="micro_batch")
        self._scoring = scoring
        self._generate = generate
        self._micro_batch = micro_batch
        self._trainer: Any = None
        self._columns: Columns | None = None

    def __call__(self, prompts: list[TextOrConversation], trainer: Any) -> dict[str, Any]:
        """Generate the completions of B prompts, each of which stands there once for each completion.

        Raises:
            BatchError: A reward misses a column.
            ConfigError: See `rlaif_sdk.integrations.trl.TRLReward.overlapped`.
        """
        if not trainer.model.training:
            return dict(self._generate(prompts, trainer))
        if self._columns is None or trainer is not self._trainer:
            _check(trainer)
            self._columns, self._trainer = Columns(trainer.train_dataset), trainer
        self._scoring.prepare(trainer)
        rows = self._micro_batch * generations(len(prompts), trainer, training=True)
        under_way = self._scoring.under_way
        under_way.cancel()
        parts = []
        try:
            for start in range(0, len(prompts), rows):
                some = prompts[start : start + rows]
                part = _by_row(self._generate(some, trainer), len(some))
                under_way.submit(_call(some, part, self._columns, trainer).batch(trainer))
                parts.append(part)
        except BaseException:
            under_way.cancel()
            raise
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}


class UnderWay:
    """The micro-batches of a rollout that are being scored, in order."""

    def __init__(self, composer: BatchComposer) -> None:
        self._composer = composer
        self._batches: list[tuple[RewardBatch, Future[Composition]]] = []

    def submit(self, batch: RewardBatch) -> None:
        """Begin to score one more."""
        self._batches.append((batch, self._composer.submit(batch)))

    def take(self, call: Call) -> list[Composition]:
        """Wait for those that are under way, none after that; empty when there were none.

        Raises:
            TrainingError: The call is about other prompts or completions.
        """
        batches = [batch for batch, _ in self._batches]
        try:
            for name in ("prompts", "completions") if batches else ():
                if [value for batch in batches for value in getattr(batch, name)] != list(getattr(call, name)):
                    raise TrainingError(
                        f"TRL asks to score other {name} than those that were generated",
                        hint="train without 'rollout_func'",
                    )
            return [future.result() for _, future in self._batches]
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Give up what is not finished."""
        for _, future in self._batches:
            future.cancel()
        self._batches = []


class Columns:
    """The columns of a dataset by prompt.

    Raises:
        ConfigError: A prompt stands in two rows that differ in a column, or the dataset has no rows to look up.
    """

    def __init__(self, dataset: Any) -> None:
        if not hasattr(dataset, "column_names") or not hasattr(dataset, "__getitem__"):
            raise ConfigError(
                "the columns of a streamed dataset cannot be looked up",
                key="rollout_func",
                hint="load the dataset, or train without 'rollout_func'",
            )
        self._dataset = dataset
        self._names = [name for name in dataset.column_names if name not in _NO_COLUMNS]
        self._row: dict[str, int] = {}
        if not self._names:
            return
        plain = dataset.with_format(None)
        for row, prompt in enumerate(plain["prompt"]):
            first = self._row.setdefault(_key(prompt), row)
            for name in self._names if first != row else ():
                if plain[first][name] != plain[row][name]:
                    raise ConfigError(
                        f"rows {first} and {row} have one prompt and differ in {name!r}, and TRL tells a rollout the "
                        "prompt alone",
                        key="rollout_func",
                        hint="remove the column or one of the rows, or train without 'rollout_func'",
                    )

    def of(self, prompts: Sequence[TextOrConversation]) -> dict[str, list[Any]]:
        """A value a prompt of each column.

        Raises:
            ConfigError: A prompt is not in the dataset.
        """
        if not self._names:
            return {}
        found = [self._row.get(_key(prompt)) for prompt in prompts]
        if None in found:
            raise ConfigError(
                f"a prompt is not in the train_dataset: {str(prompts[found.index(None)])[:80]!r}",
                key="rollout_func",
                hint="train without 'rollout_func'",
            )
        rows = {row: self._dataset[row] for row in set(found)}
        return {name: [rows[row][name] for row in found] for name in self._names}


def _key(prompt: TextOrConversation) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=repr)


def _check(trainer: Any) -> None:
    """Refuse a trainer whose completions are not what a rollout generated, read as text."""
    tokenizer = _tokenizer(trainer)
    for found, what in (
        (trainer.tools, "tools"),
        (trainer.environments is not None, "environments"),
        (getattr(tokenizer, "response_template", None), "a tokenizer that parses responses"),
        (getattr(tokenizer, "response_schema", None), "a tokenizer that parses responses"),
    ):
        if found:
            raise ConfigError(
                f"the trainer has {what}, which change completions after they were generated",
                key="rollout_func",
                hint="train without 'rollout_func'",
            )


def _tokenizer(trainer: Any) -> Any:
    return getattr(trainer.processing_class, "tokenizer", trainer.processing_class)


def _by_row(generated: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """What was generated, with a list of a value a row in each field; None stays, which says that there are none."""
    part = {
        key: value if value is None or isinstance(value, list) else [value] * rows for key, value in generated.items()
    }
    for key in _REQUIRED:
        if key not in part:
            raise TrainingError(f"'generate' returned no {key!r}", hint="return what TRL asks of a 'rollout_func'")
    for key, value in part.items():
        if value is not None and len(value) != rows:
            raise TrainingError(f"'generate' returned {len(value)} {key!r} for {rows} prompts")
    return part


def _call(prompts: list[TextOrConversation], part: Mapping[str, Any], columns: Columns, trainer: Any) -> Call:
    """What TRL will pass to the rewards for these rows."""
    texts: list[str] = trainer.processing_class.batch_decode(part["completion_ids"], skip_special_tokens=True)
    completions: list[TextOrConversation] = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    further = {key: value for key, value in part.items() if key not in {*_REQUIRED, "env_mask"} and value is not None}
    known = {**columns.of(prompts), **further}
    return Call(prompts, completions, part["completion_ids"], known, trainer.state, None, None)


def _joined(parts: Sequence[list[Any] | None]) -> list[Any] | None:
    return [value for part in parts if part is not None for value in part] if parts[0] is not None else None
