"""A policy answers prompts: how it samples, several completions a prompt, and what rewards and plain measures say."""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from pydantic import Field, PositiveInt

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.io.devices import own_device
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.training.config import Run
from rlaif_sdk.training.models import check_prompts_fit, load_policy, prompt_ids
from rlaif_sdk.types import Progress, RewardBatch

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlaif_sdk.composer import Composer, Composition

    Policy: TypeAlias = AbstractContextManager[tuple[PreTrainedModel, PreTrainedTokenizerBase]]

TOLD_EVERY = 5.0
"""Seconds between two lines on how far the answering is."""


class GenerationSettings(ConfigModel):
    """How completions are sampled."""

    batch_size: PositiveInt = 32
    """Completions that are generated at once."""
    max_completion_length: PositiveInt = 256
    """The most tokens of a completion."""
    temperature: float = Field(default=1.0, gt=0)
    """Above 0; lower is less varied."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that have this probability together."""
    top_k: int = Field(default=0, ge=0)
    """Sample from this many of the likeliest tokens; 0 from all."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Sample from tokens at least so likely, relative to the likeliest."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1 makes tokens rarer that are there already."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the tokenizer's chat template."""

    def sampling(self, seed: int) -> Sampling:
        """As `answer_prompts` takes them."""
        return Sampling.of(self, seed=seed, per_device_eval_batch_size=self.batch_size, generation_kwargs=None)


@dataclass(frozen=True, slots=True)
class Sampling:
    """What `answer_prompts` reads of a trainer's settings; see `GenerationSettings`."""

    seed: int
    per_device_eval_batch_size: int
    max_completion_length: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    chat_template_kwargs: Mapping[str, Any] | None = None
    generation_kwargs: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, settings: Any, **others: Any) -> Self:
        """Those of a trainer's settings, with others in the place of some."""
        names = [item.name for item in dataclasses.fields(cls) if item.name not in others]
        return cls(**{name: getattr(settings, name) for name in names}, **others)


_SAMPLED = ("completions", "completion_ids", "truncated")


@dataclass(frozen=True, slots=True)
class Answers:
    """B answers of a policy.

    Attributes:
        prompts: B prompts, text or messages.
        completions: B completions, of the prompts' kind.
        completion_ids: B lists of token ids, the end token included where it was reached.
        truncated: B flags: True where the greatest length was reached before an end token.
        columns: The data set's other columns, each of length B.
    """

    prompts: Sequence[Any]
    completions: Sequence[Any]
    completion_ids: Sequence[list[int]]
    truncated: Sequence[bool]
    columns: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, prompts: Dataset, sampled: Mapping[str, Any]) -> Self:
        """The answers to B rows, of what `record` keeps of them."""
        columns = {name: list(prompts[name]) for name in prompts.column_names if name != "prompt"}
        return cls(prompts=list(prompts["prompt"]), columns=columns, **{name: sampled[name] for name in _SAMPLED})

    @classmethod
    def joined(cls, prompts: Dataset, parts: Sequence[Answers]) -> Self:
        """The answers to B rows, of which each part has some, in their order."""
        return cls.of(prompts, {name: [row for part in parts for row in getattr(part, name)] for name in _SAMPLED})

    def record(self) -> dict[str, Any]:
        """What was sampled, JSON-ready; `of` reads it with the prompts."""
        return {name: list(getattr(self, name)) for name in _SAMPLED}

    def batch(self, progress: Progress, *, group: Sequence[int] | None = None, training: bool = False) -> RewardBatch:
        """The answers as rewards take them; running statistics change only where ``training`` is True."""
        return RewardBatch(
            prompts=self.prompts,
            completions=self.completions,
            completion_ids=self.completion_ids,
            columns=self.columns,
            group=group,
            progress=progress,
            training=training,
        )


@dataclass(frozen=True, slots=True)
class ScoredAnswers:
    """Answers and what the rewards say of them.

    Attributes:
        answers: The answers.
        composition: What the rewards of training say.
        evaluation: What those of evaluation say, if there are any.
    """

    answers: Answers
    composition: Composition
    evaluation: Composition | None = None

    def evaluation_rewards(self) -> dict[str, Array]:
        """As `rewards`, of evaluation's own rewards; empty if there are none."""
        return {} if self.evaluation is None else ScoredAnswers(self.answers, self.evaluation).rewards()

    def rewards(self) -> dict[str, Array]:
        """(B,) raw scores by reward, and ``composed reward``, the totals; NaN where a row is unscored."""
        raw = {name: column.raw for name, column in self.composition.rewards.items()}
        return {**raw, "composed_reward": self.composition.totals}

    def health(self) -> dict[str, Array]:
        """(B,) measures that tell learning from collapse: length, truncation, repetition within an answer."""
        ids_B = self.answers.completion_ids
        return {
            "length_tokens": np.array([len(ids) for ids in ids_B], dtype=np.float64),
            "truncated_share": np.array(self.answers.truncated, dtype=np.float64),
            "repetition_share": np.array([repeated_ngrams(ids) for ids in ids_B]),
        }

    def records(self) -> Iterator[dict[str, Any]]:
        """One JSON-ready mapping a row: the completion, its length, and each reward's part in its total."""
        evaluations = self.evaluation.to_records() if self.evaluation else repeat(None)
        answers = zip(self.answers.completions, self.answers.completion_ids, strict=True)
        for (completion, ids), record, evaluation in zip(
            answers, self.composition.to_records(), evaluations, strict=False
        ):
            known = {"evaluation": evaluation} if evaluation else {}
            yield {"completion": completion, "tokens": len(ids), **record, **known}


def score_answers(
    answers: Answers, composer: Composer, progress: Progress, evaluation: Composer | None = None
) -> ScoredAnswers:
    """Score answers with the composer as it stands, and with evaluation's own if there is one."""
    batch = answers.batch(progress)
    return ScoredAnswers(answers, composer.compose(batch), evaluation.compose(batch) if evaluation else None)


def repeated_ngrams(ids: Sequence[int]) -> float:
    """Share of the trigrams of a text that occurred in it before, in [0, 1); 0 for a text of fewer than three tokens."""
    grams = [*zip(ids, ids[1:], ids[2:], strict=False)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def answer_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Dataset,
    settings: Sampling | Any,
    *,
    completions: int = 1,
    report: Callable[[str], None] = lambda _: None,
) -> Answers:
    """Sample K answers to each of N prompts, in the way that training samples: the same prompt tokens, the same distribution.

    Equal seeds answer the same, and the state of the random generators that training uses is left as it was.

    Args:
        model: The policy.
        tokenizer: Its tokenizer, with a chat template when prompts are conversations.
        prompts: N rows with a column ``prompt``.
        settings: A `Sampling`, or a trainer's settings.
        completions: K; the answers to one prompt stand together.
        report: Takes a line on what is done and the time left, every five seconds or more.

    Raises:
        DataError: A prompt is longer than the policy takes; the message has its row.
    """
    import torch

    from rlaif_sdk.training.ppo.inputs import contiguous_head_input, generating_in_one_row

    devices = [model.device] if model.device.type == "cuda" else []
    ends = _end_tokens(model, tokenizer)
    sampling = _sampling(settings, ends, tokenizer.pad_token_id)
    template_arguments = settings.chat_template_kwargs or {}
    check_prompts_fit(
        prompts["prompt"],
        tokenizer,
        model.config,
        new_tokens=int(settings.max_completion_length or 0),
        place="the prompts",
        template_arguments=template_arguments,
    )
    if completions > 1:
        prompts = prompts.select([row for row in range(len(prompts)) for _ in range(completions)])
    completion_ids: list[list[int]] = []
    tell = telling(len(prompts), report)
    policy: Any = model
    plain: Any = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    with (
        torch.random.fork_rng(devices=devices),
        _generating(model, tokenizer),
        contiguous_head_input(plain),
        generating_in_one_row(plain),
        _autocast(model, settings),
        torch.no_grad(),
    ):
        torch.manual_seed(settings.seed)
        for start in range(0, len(prompts), settings.per_device_eval_batch_size):
            rows = prompts[start : start + settings.per_device_eval_batch_size]["prompt"]
            ids = [prompt_ids(row, tokenizer, template_arguments) for row in rows]
            inputs = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
            output = policy.generate(**inputs, **sampling)
            completion_ids += [_until_end(ids, ends) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]
            tell(len(completion_ids))
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in completion_ids]
    conversational = [not isinstance(prompt, str) for prompt in prompts["prompt"]]
    sampled = {
        "completions": [
            [{"role": "assistant", "content": text}] if chat else text
            for text, chat in zip(texts, conversational, strict=True)
        ],
        "completion_ids": completion_ids,
        "truncated": [ids[-1] not in ends for ids in completion_ids],
    }
    return Answers.of(prompts, sampled)


def telling(prompts: int, report: Callable[[str], None]) -> Callable[[int], None]:
    """What tells how far the answering of so many prompts is, of how many are answered; every five seconds or more."""
    began = told = time.monotonic()

    def tell(answered: int) -> None:
        nonlocal told
        now, left = time.monotonic(), prompts - answered
        if left and now - told >= TOLD_EVERY:
            told = now
            seconds = math.ceil((now - began) / answered * left)
            report(f"  {answered} of {prompts} answered, {seconds} s left")

    return tell


def _autocast(model: PreTrainedModel, settings: Any) -> AbstractContextManager[object]:
    """Mixed precision where training computes in it: the answers before it, and after it, are then of one arithmetic."""
    import torch

    bf16, fp16 = (getattr(settings, name, False) for name in ("bf16", "fp16"))
    if not (bf16 or fp16):
        return nullcontext()
    return torch.autocast(model.device.type, torch.bfloat16 if bf16 else torch.float16)


@contextmanager
def _generating(model: Any, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    was_training, padding_side = model.training, tokenizer.padding_side
    model.eval()
    tokenizer.padding_side = "left"
    try:
        yield
    finally:
        model.train(was_training)
        tokenizer.padding_side = padding_side


def _sampling(settings: Sampling, ends: set[int], pad_id: int | None) -> dict[str, Any]:
    """As TRL's trainers call ``generate``: what is set here wins over the model's own generation config."""
    chosen = {
        "do_sample": True,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "min_p": settings.min_p,
        "repetition_penalty": settings.repetition_penalty,
        "max_new_tokens": settings.max_completion_length,
        "eos_token_id": sorted(ends),
        "pad_token_id": pad_id,
        **(settings.generation_kwargs or {}),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    for index, token in enumerate(ids):
        if token in ends:
            return ids[: index + 1]
    return ids


@contextmanager
def loaded_policy(run: Run) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    """The model that a run starts from, with its tokenizer, on the GPU where there is one; let go of at the end.

    Raises:
        ConfigError: It cannot be loaded.
    """
    import torch

    model, tokenizer = load_policy(run)
    placed: Any = model
    placed.to(own_device())
    try:
        yield model, tokenizer
    finally:
        if not getattr(model, "is_quantized", False):  # such weights go nowhere
            placed.to("meta")  # whoever still holds it: another one may be loaded next
        del model, placed
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def answer_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Answers,
    *,
    temperature: float,
    batch_size: int,
    template_arguments: dict[str, Any],
) -> list[float]:
    """The log-probability of each of B answers, in nats, its tokens summed, at a temperature."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from rlaif_sdk.training.ppo.logprobs import token_logprobs

    sums: list[float] = []
    policy: Any = model
    policy.eval()
    for start in range(0, len(answers.prompts), batch_size):
        rows = range(start, min(start + batch_size, len(answers.prompts)))
        prompts = [prompt_ids(answers.prompts[row], tokenizer, template_arguments) for row in rows]
        texts = [[*prompt, *answers.completion_ids[row]] for prompt, row in zip(prompts, rows, strict=True)]
        lengths = [(len(prompt), len(text) - len(prompt)) for prompt, text in zip(prompts, texts, strict=True)]
        ids_BS, attention_BS, answered_BS = (
            pad_sequence([torch.tensor(row) for row in part], batch_first=True, padding_value=value).to(model.device)
            for part, value in (
                (texts, tokenizer.pad_token_id or 0),
                ([[1] * len(text) for text in texts], 0),
                ([[0] * asked + [1] * answered for asked, answered in lengths], 0),
            )
        )
        with torch.no_grad():
            logits_BSV = policy(input_ids=ids_BS, attention_mask=attention_BS).logits
        logprobs_BT, _ = token_logprobs(logits_BSV[:, :-1], ids_BS[:, 1:], temperature=temperature)
        sums += (logprobs_BT * answered_BS[:, 1:]).sum(dim=1).tolist()
    return sums
