"""Judges that run here: any causal language model that transformers loads."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlaif_sdk.conversations.templates import ChatEncoder
from rlaif_sdk.exceptions import ConfigError, ConversationError, JudgeResponseError, needs_extra
from rlaif_sdk.io.devices import own_device
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.token_batches import token_batches
from rlaif_sdk.judges.backends import GeneratedText, LabelLogprobs, RowError
from rlaif_sdk.judges.backends.label_tree import LabelTree
from rlaif_sdk.judges.backends.shared_prefix import SharedPrefix, can_share_prefix
from rlaif_sdk.judges.usage import Usage
from rlaif_sdk.types import Conversation

if TYPE_CHECKING:
    import torch

_ROWS = 16_384
"""Vocabulary entries converted at a time: a whole output layer in float32 would take a gigabyte."""
T = TypeVar("T")
ReplyT = TypeVar("ReplyT", bound=LabelLogprobs | GeneratedText | RowError)


def load_model(source: str, device: str, dtype: str, options: Mapping[str, Any]) -> Any:
    """A causal language model from a folder or the hub.

    Raises:
        ConfigError: It cannot be loaded.
        MissingExtraError: transformers or torch is not installed.
    """
    with needs_extra("models", "a local judge's library, transformers with torch,"):
        from transformers import AutoModelForCausalLM
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the judge's model {source!r} cannot be loaded: {error}",
            hint="give a local folder or a hub name of a causal language model",
        ) from error
    return model.to(own_device(None if device == "auto" else device))


def load_tokenizer(source: str, options: Mapping[str, Any]) -> Any:
    """The tokenizer beside a model.

    Raises:
        ConfigError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the tokenizer of the judge's model {source!r} cannot be loaded: {error}",
            hint="save it beside the model: AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained(FOLDER)",
        ) from error


def fingerprint(source: str) -> str:
    """What stands for a model in an identity: a hub name, or a digest of a folder's files by size and time."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return json_digest([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])


_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()


def lock_of(model: Any) -> threading.RLock:
    """The lock of a model that several hold: a judge and the trainer whose policy it is.

    Either puts the model into its own mode for a forward pass, with its own hooks, so only one may pass at a time. An
    adapter has the lock of the model that it is on.
    """
    return _locks.setdefault(model.get_base_model() if hasattr(model, "get_base_model") else model, threading.RLock())


def padded(
    sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids and the mask of N sequences, each (N, T)."""
    import torch

    width = max(map(len, sequences))
    ids_NT = torch.full((len(sequences), width), pad_id)
    mask_NT = torch.zeros_like(ids_NT)
    for row, ids in enumerate(sequences):
        where = slice(width - len(ids), width) if left else slice(0, len(ids))
        ids_NT[row, where] = torch.tensor(ids)
        mask_NT[row, where] = 1
    return ids_NT.to(device), mask_NT.to(device)


@contextmanager
def float32_logits(model: Any) -> Iterator[None]:
    """Inside, the output layer of a half-precision model computes in float32.

    In bfloat16 a logit of 20 has steps of 1/8, by which two labels that a judge is torn between often come out equal. A
    model whose output layer is not a plain linear one, or lies outside memory, is left as it is.
    """
    import torch

    head = model.get_output_embeddings()
    half = isinstance(head, torch.nn.Linear) and head.weight.dtype in (torch.bfloat16, torch.float16)
    if not half or head.weight.is_meta:
        yield
        return
    handle = head.register_forward_hook(_computed_in_float32)
    try:
        yield
    finally:
        handle.remove()


def _computed_in_float32(
    head: torch.nn.Linear, hidden: tuple[torch.Tensor, ...], _rounded: torch.Tensor
) -> torch.Tensor:
    """The logits (..., V) of hidden states (..., D)."""
    import torch

    states = hidden[0].float()
    logits = torch.cat([states @ weight_RD.float().T for weight_RD in torch.split(head.weight, _ROWS)], dim=-1)
    return logits if head.bias is None else logits + head.bias.float()


class TransformersBackend:
    """A causal language model in this process.

    The model is loaded once, when first needed, and works in a thread of its own, so that the event loop stays free.
    A cancelled call stops after the batch in hand.

    Args:
        model: A hub name, a local folder, or a model that is already loaded (the policy itself, say).
        tokenizer: Its tokenizer; needed with a loaded model, else found beside the model.
        revision: Branch, tag or commit on the hub.
        dtype: ``auto`` (as saved) or the name of a torch type such as ``bfloat16``.
        device: ``auto`` (CUDA where there is one), or a torch device; ``cuda`` is the process's own under a launcher.
        batch_size: The most sequences in one padded forward pass.
        max_batch_tokens: The most tokens, with padding, in one forward pass.
        max_length: The most tokens of a prompt with its answer; by default what the model allows. A longer request
            fails, it is never cut.
        share_prefix: Compute what prompts begin with in common once (see `rlaif_sdk.judges.backends.shared_prefix`),
            where the model's attention allows it. The probabilities are the same to numerical tolerance.
        trust_remote_code: Run Python code that comes with the model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 16,
        max_batch_tokens: int = 16_384,
        max_length: int | None = None,
        share_prefix: bool = True,
        trust_remote_code: bool = False,
    ) -> None:
        if not isinstance(model, str) and tokenizer is None:
            raise ConfigError("a judge from a loaded model needs its tokenizer", hint="pass tokenizer=")
        self._source = model
        self._tokenizer = tokenizer
        self._load_options = {"revision": revision, "trust_remote_code": trust_remote_code}
        self._dtype = dtype
        self._device = device
        self._batch_size = batch_size
        self._max_batch_tokens = max_batch_tokens
        self._max_length = max_length
        self._wants_sharing = share_prefix
        self._shared: SharedPrefix | None = None
        self._model: Any = None if isinstance(model, str) else model
        self._ready = False
        self._lock = threading.Lock()
        self._own_identity = uuid.uuid4().hex

    @property
    def identity(self) -> str:
        """Model, revision and number type; a local folder counts by its files' sizes and times.

        A model passed in as an object has an identity that no other run shares. Training it on changes its answers
        and not its identity, so do not cache them.
        """
        if not isinstance(self._source, str):
            return f"transformers:object:{self._own_identity}"
        return f"transformers:{fingerprint(self._source)}:{self._load_options['revision']}:{self._dtype}"

    def setup(self) -> None:
        with self._lock:
            self._load()

    def close(self) -> None:
        with self._lock:
            if isinstance(self._source, str):
                self._model = None
                self._ready = False
            self._shared = None

    async def label_logprobs(
        self, requests: Sequence[Conversation], labels: Sequence[str]
    ) -> Sequence[LabelLogprobs | RowError]:
        return await self._in_thread(lambda stop: self._label_logprobs(requests, labels, stop))

    async def generate(
        self, requests: Sequence[Conversation], *, max_new_tokens: int, temperature: float = 0.0
    ) -> Sequence[GeneratedText | RowError]:
        return await self._in_thread(lambda stop: self._generate(requests, max_new_tokens, temperature, stop))

    async def _in_thread(self, work: Callable[[threading.Event], T]) -> T:
        stop = threading.Event()

        def locked() -> T:
            with self._lock:
                self._load()
                with _evaluating(self._model):
                    return work(stop)

        try:
            return await asyncio.to_thread(locked)
        finally:
            stop.set()

    def _label_logprobs(
        self, requests: Sequence[Conversation], labels: Sequence[str], stop: threading.Event
    ) -> list[LabelLogprobs | RowError]:
        if requests and self._encoder.opens_thinking(requests[0]):
            raise ConfigError(
                "the judge's chat template has it think before it answers, so its reply does not begin with a label",
                hint="name a model whose template can leave thinking out, or ask for the verdict in words",
            )
        tree = LabelTree(labels, [self._encoder.spellings(label) for label in labels])
        prompts = [self._encode(request, room=tree.depth) for request in requests]
        asked = [
            (row, prefix, ids + list(prefix))
            for row, ids in enumerate(prompts)
            if isinstance(ids, list)
            for prefix in tree.steps
        ]
        sequences = [ids for _, _, ids in asked]
        steps: dict[int, dict[tuple[int, ...], dict[int, float]]] = {}
        with float32_logits(self._model):
            for index, logprobs_V in self._next_logprobs(sequences, stop):
                row, prefix, _ = asked[index]
                tokens = tree.steps[prefix]
                picked = logprobs_V[tokens].tolist()
                steps.setdefault(row, {})[prefix] = dict(zip(tokens, picked, strict=True))
        return [
            _answered(_checked(tree, steps.get(row, {})), ids) if isinstance(ids, list) else ids
            for row, ids in enumerate(prompts)
        ]

    def _next_logprobs(self, sequences: Sequence[list[int]], stop: threading.Event) -> Iterator[tuple[int, Any]]:
        """The index and the log-probabilities (V,) of the token after each sequence, until told to stop."""
        if self._shared is not None and sequences:
            yield from self._shared.next_logprobs(sequences, stop.is_set).items()
            if not isinstance(self._source, str):  # a model that others hold may be trained before the next call
                self._shared.forget()
            return
        for batch in token_batches([len(ids) for ids in sequences], self._max_batch_tokens, max_rows=self._batch_size):
            if stop.is_set():
                break
            yield from zip(batch, self._batch_logprobs([sequences[i] for i in batch]), strict=True)

    def _batch_logprobs(self, sequences: Sequence[Sequence[int]]) -> Any:
        """The log-probabilities of the token after each of N sequences, (N, V) in float32.

        Padding stands to the right, where a causal model cannot see it: no position or mask depends on it.
        """
        import torch

        ids_NT, mask_NT = padded(sequences, self._pad_id, self._model.device, left=False)
        last_N = mask_NT.sum(-1) - 1
        options: dict[str, Any] = {}
        kept = torch.arange(ids_NT.shape[1], device=ids_NT.device)
        if "logits_to_keep" in inspect.signature(self._model.forward).parameters:
            kept = torch.unique(last_N)
            options["logits_to_keep"] = kept
        logits_NKV = self._model(input_ids=ids_NT, attention_mask=mask_NT, use_cache=False, **options).logits
        position_N = torch.searchsorted(kept, last_N)
        rows_N = torch.arange(len(sequences), device=logits_NKV.device)
        return logits_NKV[rows_N, position_N.to(logits_NKV.device)].float().log_softmax(-1).cpu()

    def _generate(
        self, requests: Sequence[Conversation], max_new_tokens: int, temperature: float, stop: threading.Event
    ) -> list[GeneratedText | RowError]:
        prompts = [self._encode(request, room=max_new_tokens) for request in requests]
        results: list[GeneratedText | RowError] = [
            JudgeResponseError("cancelled") if isinstance(ids, list) else ids for ids in prompts
        ]
        asked = [(row, ids) for row, ids in enumerate(prompts) if isinstance(ids, list)]
        sampling = self._sampling(temperature)
        lengths = [len(ids) + max_new_tokens for _, ids in asked]
        for batch in token_batches(lengths, self._max_batch_tokens, max_rows=self._batch_size):
            if stop.is_set():
                break
            ids_NT, mask_NT = padded([asked[i][1] for i in batch], self._pad_id, self._model.device, left=True)
            output_NT = self._model.generate(
                input_ids=ids_NT,
                attention_mask=mask_NT,
                max_new_tokens=max_new_tokens,
                pad_token_id=self._pad_id,
                **sampling,
            )
            for index, answer in zip(batch, output_NT[:, ids_NT.shape[1] :].tolist(), strict=True):
                ended = any(token in self._end_ids for token in answer)
                text = self._tokenizer.decode(answer, skip_special_tokens=True)
                reply = GeneratedText(text, truncated=not ended)
                row, ids = asked[index]
                results[row] = _answered(reply, ids, self._written(answer))
        return results

    def _sampling(self, temperature: float) -> dict[str, Any]:
        return {"temperature": temperature, "do_sample": True} if temperature > 0 else {"do_sample": False}

    def _written(self, answer: Sequence[int]) -> int:
        """How many tokens an answer has up to its end, without the padding after it."""
        ends = (place for place, token in enumerate(answer, start=1) if token in self._end_ids)
        return next(ends, len(answer))

    def _encode(self, request: Conversation, *, room: int) -> list[int] | RowError:
        try:
            ids = self._encoder(request)
        except ConversationError as error:
            return JudgeResponseError(f"the judge cannot be asked: {error.message}", hint=error.hint)
        limit = self._max_length or getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) + room > limit:
            return JudgeResponseError(
                f"the judge's prompt has {len(ids)} tokens and needs room for {room} more; its limit is {limit}",
                hint="lower max_chars of the judge, or take a model with a longer context",
            )
        return ids

    def _load(self) -> None:
        if self._ready:
            return
        if self._model is None:
            self._model = load_model(self._source, self._device, self._dtype, self._load_options)
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._source, self._load_options)
        self._encoder = ChatEncoder(self._tokenizer)
        configured = getattr(self._model.generation_config, "eos_token_id", None)
        self._end_ids = {configured} if isinstance(configured, int) else set(configured or ())
        candidates = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id, *self._end_ids, 0)
        self._pad_id: int = next(token for token in candidates if token is not None)
        with _evaluating(self._model):
            if self._wants_sharing and can_share_prefix(self._model):
                self._shared = SharedPrefix(self._model, self._max_batch_tokens)
        self._ready = True


def _answered(reply: ReplyT, prompt: Sequence[int], written: int = 0) -> ReplyT:
    """The reply, or the error in its place, with what it took."""
    usage = Usage(calls=1, input_tokens=len(prompt), output_tokens=written)
    if isinstance(reply, LabelLogprobs | GeneratedText):
        return replace(reply, usage=usage)
    reply.usage = usage
    return reply


def _checked(tree: LabelTree, steps: dict[tuple[int, ...], dict[int, float]]) -> LabelLogprobs | RowError:
    if len(steps) < len(tree.steps):
        return JudgeResponseError("cancelled")
    if any(math.isnan(value) for step in steps.values() for value in step.values()):
        return JudgeResponseError(
            "the judge's log-probabilities are not numbers", hint="load the model with another dtype, such as float32"
        )
    return LabelLogprobs(tree.label_logprobs(steps))


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without gradients or dropout; a model shared with a trainer is given back in the mode it was in."""
    import torch

    with lock_of(model):
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            model.train(training)
