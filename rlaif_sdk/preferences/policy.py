"""Models whose answers are collected: what they answer, and how likely given answers are to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from rlaif_sdk.exceptions import ConfigError, JudgeResponseError
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.token_batches import token_batches
from rlaif_sdk.judges.backends import GeneratedText, JudgeBackend, RowError
from rlaif_sdk.judges.backends.local import TransformersBackend, padded
from rlaif_sdk.judges.builtin import BACKENDS, TransformersParams
from rlaif_sdk.judges.loading import load_backend
from rlaif_sdk.plugins import JudgeBackendSpec, Registry
from rlaif_sdk.types import Conversation, Message, TextOrConversation

if TYPE_CHECKING:
    import threading


class PolicyConfig(BaseModel):
    """A model that answers; whatever its backend takes stands beside ``model``."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    model: str
    """A hub name or a local folder, or the model's name at a server."""
    backend: str | None = None
    """``transformers``, ``openai``, or one that a plugin offers; by default ``openai`` if there is a ``base_url``."""

    def options(self) -> dict[str, Any]:
        """The parameters of the backend."""
        return {"model": self.model, **(self.model_extra or {})}


class LocalPolicyParams(TransformersParams):
    """A local model that answers."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that have this probability together."""
    top_k: int = Field(default=0, ge=0)
    """Sample from the so many likeliest tokens; 0 from all."""


class LocalPolicy(TransformersBackend):
    """A local model as a policy: it also continues plain text, samples by a seed, and weighs given answers.

    Text is encoded as trainers encode a prompt in text: with the tokenizer's own special tokens and without a chat
    template. Conversations go through the template.

    Args:
        model: See `TransformersBackend`.
        tokenizer: See `TransformersBackend`.
        top_p: Sample from the likeliest tokens that have this probability together.
        top_k: Sample from the so many likeliest tokens; 0 from all.
        **options: Of `TransformersBackend`.
    """

    def __init__(
        self, model: Any, tokenizer: Any = None, *, top_p: float = 1.0, top_k: int = 0, **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self._nucleus = {"top_p": top_p, "top_k": top_k}

    @property
    def identity(self) -> str:
        """As a judge's, with the way of sampling."""
        return f"{super().identity}:{self._nucleus}"

    async def generate(
        self,
        requests: Sequence[TextOrConversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Sequence[GeneratedText | RowError]:
        """What the model answers to each of B prompts; see `JudgeBackend.generate`.

        Args:
            requests: Text to continue, or conversations.
            max_new_tokens: The longest answer.
            temperature: 0 is greedy.
            seed: Equal seeds sample equal answers to equal requests in equal batches; None continues with the process's
                own random numbers.
        """
        conversations = cast("Sequence[Conversation]", requests)

        def work(stop: threading.Event) -> list[GeneratedText | RowError]:
            with _seeded(seed, self._model.device):
                return self._generate(conversations, max_new_tokens, temperature, stop)

        return await self._in_thread(work)

    async def answer_logprobs(self, pairs: Sequence[tuple[TextOrConversation, str]]) -> Sequence[float | RowError]:
        """How likely each of B given answers is: log pi(answer | prompt), in nats.

        Summed over the answer's tokens, encoded as they continue the prompt; the end of the turn is not counted. An
        answer without a token has 0.

        Args:
            pairs: Prompt and answer each.

        Returns:
            B numbers, each at most 0; an error stands for a pair that is too long.
        """
        return await self._in_thread(lambda stop: self._answer_logprobs(pairs, stop))

    def _sampling(self, temperature: float) -> dict[str, Any]:
        return {**super()._sampling(temperature), **(self._nucleus if temperature > 0 else {})}

    def _encode(self, request: TextOrConversation, *, room: int) -> list[int] | RowError:
        if not isinstance(request, str):
            return super()._encode(request, room=room)
        ids: list[int] = list(self._tokenizer(request)["input_ids"])
        limit = self._max_length or getattr(self._model.config, "max_position_embeddings", None)
        if not ids:
            return JudgeResponseError("the prompt has no token to continue from")
        if limit is not None and len(ids) + room > limit:
            return JudgeResponseError(
                f"the prompt has {len(ids)} tokens and needs room for {room} more; the model's limit is {limit}"
            )
        return ids

    def _answer_logprobs(
        self, pairs: Sequence[tuple[TextOrConversation, str]], stop: threading.Event
    ) -> list[float | RowError]:
        answers = [self._encoder.encode_inert(answer) for _, answer in pairs]
        prompts = [self._encode(prompt, room=len(ids)) for (prompt, _), ids in zip(pairs, answers, strict=True)]
        found: list[float | RowError] = [
            (JudgeResponseError("cancelled") if ids else 0.0) if isinstance(prompt, list) else prompt
            for prompt, ids in zip(prompts, answers, strict=True)
        ]
        asked = [
            (row, prompt, answers[row])
            for row, prompt in enumerate(prompts)
            if isinstance(prompt, list) and answers[row]
        ]
        lengths = [len(prompt) + len(answer) for _, prompt, answer in asked]
        for batch in token_batches(lengths, self._max_batch_tokens, max_rows=self._batch_size):
            if stop.is_set():
                break
            chosen = [asked[index] for index in batch]
            sums = self._batch_sums([(prompt, answer) for _, prompt, answer in chosen])
            for (row, _, _), value in zip(chosen, sums, strict=True):
                finite = math.isfinite(value)
                found[row] = value if finite else JudgeResponseError("the log-probability is not finite")
        return found

    def _batch_sums(self, sequences: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """The summed log-probabilities of N answers' tokens, each after its prompt."""
        import torch

        joined = [prompt + answer for prompt, answer in sequences]
        ids_NT, mask_NT = padded(joined, self._pad_id, self._model.device, left=False)
        logits_NTV = self._model(input_ids=ids_NT, attention_mask=mask_NT, use_cache=False).logits
        sums = []  # on the device, which is waited for once
        for row, (prompt, answer) in enumerate(sequences):
            before, end = len(prompt) - 1, len(prompt) + len(answer) - 1
            logprobs_AV = logits_NTV[row, before:end].float().log_softmax(-1)
            tokens_A1 = ids_NT[row, before + 1 : end + 1, None]
            sums.append(logprobs_AV.gather(-1, tokens_A1).double().sum())
        found: list[float] = torch.stack(sums).tolist()
        return found


async def answers(
    policy: JudgeBackend,
    prompts: Sequence[TextOrConversation],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Sequence[GeneratedText | RowError]:
    """What a policy answers to each of B prompts; a server is asked about text as a user's message, and without seed."""
    if isinstance(policy, LocalPolicy):
        return await policy.generate(prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    return await policy.generate(
        [as_conversation(prompt) for prompt in prompts], max_new_tokens=max_new_tokens, temperature=temperature
    )


def as_conversation(prompt: TextOrConversation) -> Conversation:
    """A prompt as messages; text becomes a user's."""
    return [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt


def derived_seed(*parts: object) -> int:
    """A seed that depends on nothing but the parts, the same in every process."""
    return int(json_digest(parts)[:12], 16)


def load_policy(config: PolicyConfig) -> JudgeBackend:
    """The model that a config describes; nothing is loaded and no request is sent yet.

    Raises:
        ConfigError: A parameter is refused.
        UnknownPluginError: There is no backend of that name.
    """
    spec = JudgeBackendSpec(
        name="transformers",
        factory=lambda params: LocalPolicy(**dict(params)),
        params=LocalPolicyParams,
        description="A causal language model in this process",
    )
    own = {**{backend.name: backend for backend in BACKENDS}, "transformers": spec}
    known = config.backend is None or config.backend in own
    offered = own if known else {**Registry.default().judge_backends(), **own}
    return load_backend(config.backend, config.options(), offered)


def require_answer_logprobs(policy: JudgeBackend) -> LocalPolicy:
    """The policy, known to say how likely a given answer is.

    Raises:
        ConfigError: It is a server, which says so only of answers that it makes.
    """
    if not isinstance(policy, LocalPolicy):
        raise ConfigError(
            "a self-rewarding score needs the log-probabilities of given answers, which chat servers do not give",
            key="margin",
            hint="take a local model as the policy, or leave margin out",
        )
    return policy


@contextmanager
def _seeded(seed: int | None, device: Any) -> Iterator[None]:
    """Random numbers from a seed, within; those of the process are left as they were."""
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
