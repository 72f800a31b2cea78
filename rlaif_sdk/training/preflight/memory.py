"""An estimate of the memory that training takes, by a stated formula.

The peak is what is always held (``process + rewards + weights + reference + critic + optimizer + buckets + vllm``) and the
larger of what an update and what sampling add to it for a while. What follows from counts of numbers (weights, gradients,
Adam's state) is sure; what lives for a moment (activations, logits, the cache of keys and values) is a count of the large
arrays only. ``benchmarks/memory_estimate.py`` holds it to what a device was seen to hold.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.conversations.templates import chat_ids
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.training.methods import Method, Task
from rlaif_sdk.training.preflight.rows import ANSWERS, conversations_of
from rlaif_sdk.training.ranks import sharded_by

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedConfig

    from rlaif_sdk.training.config import ModelSettings


@dataclass(frozen=True, slots=True)
class ModelDims:
    """How big a transformer is. Counts of numbers, not of bytes.

    Attributes:
        parameters: Of the whole model, shared ones counted once, an adapter included.
        trainable: Those that training changes.
        layers: Blocks, of encoder and decoder together.
        hidden: Width of the residual stream.
        intermediate: Width inside a feed-forward block.
        keys: Width of the keys of a layer, all heads together; the values are as wide.
        vocabulary: Rows of the embedding.
        head: Numbers of a language-model head that are not the embedding's.
        adapter_inputs: Widths of what the layers with an adapter read, added up over the model.
    """

    parameters: int
    trainable: int
    layers: int
    hidden: int
    intermediate: int
    keys: int
    vocabulary: int
    head: int = 0
    adapter_inputs: int = 0

    @property
    def backbone(self) -> ModelDims:
        """Without adapter and language-model head, every weight of it trained: what a separate critic is."""
        frozen = self.parameters - self.trainable
        parameters = (frozen or self.parameters) - self.head
        return replace(self, parameters=parameters, trainable=parameters, head=0, adapter_inputs=0)


def read_config(name: str, revision: str | None) -> PreTrainedConfig:
    """The config of a model, in transformers' form; of a model on the hub, this one file is downloaded.

    Raises:
        ConfigError: There is none, or it is of an unknown kind.
    """
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"its config cannot be read: {error}") from error
    return config


def model_dims(config: PreTrainedConfig, task: Task, adapter: Any = None) -> ModelDims:
    """The dims of a model.

    Args:
        config: The model's config.
        task: What kind of head it has, as PEFT names it.
        adapter: A `peft.LoraConfig`, or None to train every weight.

    Raises:
        ConfigError: transformers has no such model with such a head; or the adapter does not fit it.
    """
    import torch
    import transformers

    head = {
        "CAUSAL_LM": transformers.AutoModelForCausalLM,
        "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
        "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    }[task]
    try:
        with torch.device("meta"):
            model: Any = head.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError(f"is no model for this kind of training: {error}") from error
    inputs = 0
    if adapter is not None:
        from peft import get_peft_model
        from peft.tuners.lora import LoraLayer

        try:
            model = get_peft_model(model, adapter, low_cpu_mem_usage=True)
        except ValueError as error:
            raise ConfigError(f"the adapter does not fit: {error}", key="model.lora.target_modules") from error
        inputs = sum(layer.in_features or 0 for layer in model.modules() if isinstance(layer, LoraLayer))
    text: Any = config.get_text_config()
    hidden = int(text.hidden_size)
    heads = int(text.num_attention_heads)
    keys = (getattr(text, "num_key_value_heads", None) or heads) * (getattr(text, "head_dim", None) or hidden // heads)
    inner = getattr(text, "intermediate_size", None) or getattr(text, "d_ff", None) or getattr(text, "n_inner", None)
    return ModelDims(
        parameters=sum(weight.numel() for weight in model.parameters()),
        trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        layers=int(text.num_hidden_layers) + int(getattr(text, "num_decoder_layers", None) or 0),
        hidden=hidden,
        intermediate=int(inner or 4 * hidden),
        keys=int(keys),
        vocabulary=int(text.vocab_size),
        head=_head_of_its_own(model),
        adapter_inputs=inputs,
    )


def _head_of_its_own(model: Any) -> int:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return 0 if head is None or head.weight is embedding.weight else int(head.weight.numel())


_STATES = {"sgd": 0, "adafactor": 0, "lion": 1, "rmsprop": 1, "adagrad": 1}
"""Numbers that an optimiser keeps for each trained one, by the start of its name; Adam and unknown ones keep two."""

FUSED_TILE = (4096, 32_768)
"""Tokens and entries of the vocabulary of one tile of TRL's fused head (`trl.kernels.chunked_logprob`)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What training does at once.

    Attributes:
        rows: Sequences in one backward pass.
        length: Tokens of the longest of them.
        logit_tokens: Tokens of each whose logits are computed; 0 for a model without a language-model head.
        logit_copies: How many arrays of the logits' size there are at once.
        logits_at_once: Of how many numbers the logits are at once, where PPO makes them a part after another; None where
            they are made as a whole.
        fused_head: Whether logits are made in tiles and not kept, as TRL's trainers do.
        generated_rows: Sequences sampled at once; 0 if none are.
        generated_length: Tokens of the longest of them, prompt included.
        prompt_length: Those of its prompt.
        scored_tokens: Tokens whose log-probabilities are computed at once without gradients, padding among them.
        checkpointing: Whether activations are computed anew in the backward pass.
        accumulates: Whether several backward passes make a step, so that there are gradients already while one runs.
        weight_bytes: Bytes of one number of the weights.
        compute_bytes: Bytes of one number in between.
        adapter_bytes: Bytes of one number of what an adapter reads.
        optimizer: transformers' name of the optimiser.
        references: How many frozen copies of the policy are held.
        critic: What is trained beside it in float32: a critic, or a critic's adapter; or None.
        buckets: Whether gradients are held a second time to be averaged over processes, as data parallelism does.
        weight_parts: Over how many processes the weights are in parts.
        gradient_parts: The gradients.
        optimizer_parts: The optimiser's state.
        vllm: Bytes that vLLM takes of the device; it samples then.
    """

    rows: int
    length: int
    logit_tokens: int = 0
    logit_copies: int = 2
    logits_at_once: int | None = None
    fused_head: bool = False
    generated_rows: int = 0
    generated_length: int = 0
    prompt_length: int = 0
    scored_tokens: int = 0
    checkpointing: bool = False
    accumulates: bool = False
    weight_bytes: float = 4
    compute_bytes: int = 4
    adapter_bytes: int = 4
    optimizer: str = "adamw_torch"
    references: int = 0
    critic: ModelDims | None = None
    buckets: bool = False
    weight_parts: int = 1
    gradient_parts: int = 1
    optimizer_parts: int = 1
    vllm: int = 0

    @property
    def mixed(self) -> bool:
        """Whether weights are cast to what is computed in."""
        return self.compute_bytes < self.weight_bytes

    @property
    def residual_bytes(self) -> int:
        """Bytes of one number of the states that layers add to, which autocast leaves in the weights' type."""
        return int(max(self.weight_bytes, self.compute_bytes))


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes by what they are for.

    Attributes:
        process: Python and the libraries.
        rewards: The models of the rewards.
        weights: The policy and its adapter.
        reference: Frozen copies of the policy.
        critic: A critic's weights.
        gradients: One number for each that is trained.
        optimizer: The optimiser's state.
        buckets: Gradients on their way between processes.
        vllm: vLLM's share of the device.
        copies: Weights cast for mixed precision, or gathered from their parts, while a pass runs.
        activations: What the backward pass needs of the layers.
        logits: The logits and what is computed of them.
        generation: Keys and values, what the pass over the prompts takes, and the logits of one step, while sampling.
        passing: The most that an update or sampling adds for a while, of the gradients and the four before.
    """

    process: int
    rewards: int
    weights: int
    reference: int
    critic: int
    gradients: int
    optimizer: int
    buckets: int
    vllm: int
    copies: int
    activations: int
    logits: int
    generation: int
    passing: int

    @property
    def sure(self) -> int:
        """What training cannot do without, whatever the batch: a machine with less cannot run it."""
        return self._held + self.gradients

    @property
    def peak(self) -> int:
        """The most that is held at once."""
        return self.process + self.rewards + self._held + self.passing

    @property
    def _held(self) -> int:
        return self.weights + self.reference + self.critic + self.optimizer + self.buckets + self.vllm

    def to_dict(self) -> dict[str, int]:
        """The parts and the peak, JSON-ready."""
        return {**asdict(self), "peak": self.peak}


def estimate_memory(dims: ModelDims, work: Workload, *, rewards: int = 0, process: int = 0) -> MemoryEstimate:
    """The memory that a model's training takes.

    Args:
        dims: The policy, with its adapter.
        work: What is done with it.
        rewards: Bytes of the models of the rewards.
        process: Bytes that the process holds before anything is loaded.
    """
    frozen = dims.parameters - dims.trainable
    trained_bytes = 4 if frozen else work.weight_bytes  # PEFT keeps adapters in float32
    critic = work.critic.parameters * 4 if work.critic else 0
    trained = int(dims.trainable * trained_bytes) + critic
    states = next((count for name, count in _STATES.items() if work.optimizer.startswith(name)), 2)
    state_bytes = trained // 4 if "8bit" in work.optimizer else trained
    gradients = trained // work.gradient_parts
    kept, of_a_layer = activation_bytes(dims, work), backward_bytes(dims, work)
    if work.critic:
        kept += activation_bytes(work.critic, work if work.critic.adapter_inputs else replace(work, weight_bytes=4))
    copies, logits, generation = copied_bytes(dims, work), logit_bytes(dims, work), generation_bytes(dims, work)
    update = copies + kept + max(logits, of_a_layer)  # the head's gradient is done before the first layer's begins
    sampling = generation + (copies if not frozen and not work.vllm else 0)
    scoring = copies + scoring_bytes(dims, work)
    return MemoryEstimate(
        process=process,
        rewards=rewards,
        weights=int(frozen * work.weight_bytes + dims.trainable * trained_bytes) // work.weight_parts,
        reference=int(work.references * (frozen or dims.parameters) * work.weight_bytes) // work.weight_parts,
        critic=critic // work.weight_parts,
        gradients=gradients,
        optimizer=states * state_bytes // work.optimizer_parts,
        buckets=trained if work.buckets else 0,
        vllm=work.vllm,
        copies=copies,
        activations=kept + of_a_layer,
        logits=logits,
        generation=generation,
        passing=max(update + gradients if work.accumulates else update, gradients, sampling, scoring),
    )


def copied_bytes(dims: ModelDims, work: Workload) -> int:
    """The weights in the type that is computed in, as autocast makes them anew for each pass and the gradient needs them.

    The head's are made twice: for the head itself, and for the log-probabilities. Of a model in less than float32 these are
    an adapter's. Weights in parts are gathered to be sampled from, all of them.
    """
    if not work.mixed and work.weight_parts == 1:
        in_float32 = dims.trainable if dims.trainable < dims.parameters and work.adapter_bytes < 4 else 0
        return in_float32 * work.adapter_bytes
    critic = work.critic.parameters if work.critic else 0
    twice = (dims.head or dims.vocabulary * dims.hidden) if work.mixed and work.logits_at_once else 0
    return (dims.parameters + critic + twice) * work.compute_bytes


def activation_bytes(dims: ModelDims, work: Workload) -> int:
    """What a transformer's layers keep for the backward pass.

    The count is that of Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1), for a gated feed-forward block and
    attention that keeps no matrix of scores, as autograd was seen to keep it. Per token and layer, in the type of the
    states that layers add to: what each of the two norms reads and what it has scaled. In the type that is computed in:
    what the queries, keys, values, gate and its other half read (five casts under autocast; what the two norms say
    otherwise), queries and output of attention, keys and values, and four arrays of the feed-forward width. Rows of
    different lengths have a mask, for which keys and values are repeated for each head of the queries. With checkpointing, one state a
    layer.

    Under an adapter in less than float32 each adapted layer keeps a copy of its input in the adapter's type, and no
    frozen layer keeps its own: that leaves two arrays for the norms, in float32, queries, the output of attention, keys
    and values, and three arrays of the feed-forward width.
    """
    layer = dims.hidden * work.residual_bytes if work.checkpointing else _layer_bytes(dims, work)
    return work.rows * work.length * dims.layers * layer


def backward_bytes(dims: ModelDims, work: Workload) -> int:
    """What the backward pass of one layer takes: gradients of its arrays, and with checkpointing the arrays, made anew."""
    gradients = 3 * dims.intermediate * work.compute_bytes + 2 * dims.hidden * work.residual_bytes
    return work.rows * work.length * (gradients + (_layer_bytes(dims, work) if work.checkpointing else 0))


def _layer_bytes(dims: ModelDims, work: Workload) -> int:
    """What one layer keeps of one token; see `activation_bytes`."""
    hidden, inner, width = dims.hidden, dims.intermediate, work.compute_bytes
    keys = dims.keys + 2 * hidden if work.rows > 1 and dims.keys < hidden else 2 * dims.keys
    if dims.adapter_inputs and width < 4:
        copies = dims.adapter_inputs * work.adapter_bytes // dims.layers
        return 2 * hidden * 4 + (2 * hidden + keys + 3 * inner) * width + copies
    return 4 * hidden * work.residual_bytes + ((7 if work.mixed else 4) * hidden + keys + 4 * inner) * width


def logit_bytes(dims: ModelDims, work: Workload) -> int:
    """The logits in float32 with what is computed of them, and for a fused head the gradient of its own weight.

    PPO makes them a part after another: a part in float32, its probabilities, and its gradient in the type that is
    computed in.
    """
    tokens, width = work.rows * work.logit_tokens, dims.vocabulary
    if work.logits_at_once is not None:
        numbers = min(tokens * width, max(tokens, work.logits_at_once))
        return numbers * (8 + (work.compute_bytes if work.compute_bytes < 4 else 0))
    if not tokens or not work.fused_head:
        return work.logit_copies * tokens * width * 4
    tile = min(tokens, FUSED_TILE[0]) * min(width, FUSED_TILE[1])
    return (work.logit_copies * tile + width * dims.hidden) * 4


def generation_bytes(dims: ModelDims, work: Workload) -> int:
    """What sampling takes at its end, or in the pass over the prompts, whichever is more; nothing of it where vLLM samples.

    Keys and values of every token of every sequence: rotated keys are of the type of the states that layers add to. At the
    end also one layer's repeated for each head of the queries, and four arrays of the logits of one step in float32. The
    pass over the prompts has three arrays of the feed-forward width, and the states; an adapter reads one of the three in
    float32, and casts it.
    """
    if work.vllm or not work.generated_rows:
        return 0
    hidden, width, residual = dims.hidden, work.compute_bytes, work.residual_bytes
    cached = dims.layers * dims.keys * (residual + width)
    repeated = hidden * (residual + width) + (hidden * width if work.mixed else 0)
    end = work.generated_length * (cached + repeated) + 4 * dims.vocabulary * 4
    inner = 3 * width + (4 + width if dims.adapter_inputs and width < 4 else 0)  # bytes of the feed-forward width
    prompt = work.prompt_length * (cached + inner * dims.intermediate + hidden * (2 * residual + width))
    return work.generated_rows * max(end, prompt)


def scoring_bytes(dims: ModelDims, work: Workload) -> int:
    """What a pass without gradients takes, whose states are those of one layer: as `generation_bytes` counts them."""
    width, residual = work.compute_bytes, work.residual_bytes
    of_a_token = 3 * width * dims.intermediate + dims.hidden * (2 * residual + width)
    if work.logits_at_once is None:
        return work.scored_tokens * (of_a_token + 8 * dims.vocabulary)
    made = max(work.scored_tokens, work.logits_at_once)
    return work.scored_tokens * of_a_token + 8 * min(work.scored_tokens * dims.vocabulary, made)


SAMPLED_ROWS = 500
"""So many rows are tokenized to learn how long they are."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "8bit": 1, "4bit": 0.5}
_CPU_TILES = 6
"""Arrays of a tile's size that TRL's fused head holds without Triton, counted on two runs."""


def workload(
    method: Method,
    settings: Any,
    tokenizer: Any,
    tables: Mapping[str, Dataset],
    *,
    config: Any,
    model: ModelSettings,
    critic: ModelDims | None = None,
    card: int | None = None,
) -> Workload:
    """The workload of a run.

    Args:
        method: What trains it.
        settings: See `rlaif_sdk.training.preflight.check_run`; so for the tables.
        tokenizer: The policy's tokenizer.
        tables: The rows by name.
        config: The policy's config, in transformers' form.
        model: What the run says of it.
        critic: The critic that is trained beside the policy.
        card: Bytes of the CUDA device; None without one.
    """
    saved = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    upcast = model.dtype == "auto" and model.lora is None and method.task != "SEQ_CLS"
    dtype = "float32" if upcast else saved if model.dtype == "auto" else model.dtype
    weight_bytes = _BYTES.get(model.quantization or dtype, 4)
    mixed = bool(settings.bf16 or settings.fp16 or model.quantization)
    fused = method.fused_head
    on_cpu = settings.device.type == "cpu"
    common: dict[str, Any] = {
        "fused_head": fused,
        "logit_copies": (_CPU_TILES if on_cpu else 1) if fused else 2,
        "checkpointing": bool(settings.gradient_checkpointing),
        "weight_bytes": weight_bytes,
        "compute_bytes": 2 if mixed else int(weight_bytes),
        "adapter_bytes": 2 if settings.bf16 or settings.fp16 else 4,
        "optimizer": str(getattr(settings.optim, "value", settings.optim)),
        "references": int(method.keeps_reference(settings) and model.lora is None),
        "critic": critic,
        "accumulates": int(settings.gradient_accumulation_steps) > 1,
        "logits_at_once": _logits_at_once(on_cpu=on_cpu) if method.chunks_logits else None,
        **_parts(settings),
    }
    rows = int(settings.per_device_train_batch_size)
    new_tokens = getattr(settings, "max_completion_length", None)
    longest = _longest(tokenizer, tables, (*ANSWERS, "text") if new_tokens is None else ())
    if new_tokens is None:
        length = min(longest, getattr(settings, "max_length", None) or longest)
        logit_tokens = 0 if method.task == "SEQ_CLS" else length
        return Workload(
            rows=rows * (2 if method.learns_from == "pairs" else 1), length=length, logit_tokens=logit_tokens, **common
        )
    length = longest + int(new_tokens)
    rollout = int(settings.generation_batch_size or rows) // max(int(settings.world_size), 1)
    sampled = max(rollout, int(settings.per_device_eval_batch_size))
    by_vllm = bool(settings.use_vllm) and settings.vllm_mode == "colocate"
    return Workload(
        rows=rows,
        length=length,
        logit_tokens=length if fused else int(new_tokens),
        generated_rows=sampled,
        generated_length=length,
        prompt_length=longest,
        scored_tokens=max(getattr(settings, "logprob_batch_tokens", None) or 0, length),
        vllm=int((card or 0) * settings.vllm_gpu_memory_utilization) if by_vllm else 0,
        **common,
    )


def _logits_at_once(*, on_cpu: bool) -> int | None:
    from rlaif_sdk.training.ppo.logprobs import MADE_ELEMENTS, MADE_ELEMENTS_CPU

    if sharded_by():
        return None
    return MADE_ELEMENTS_CPU if on_cpu else MADE_ELEMENTS


def _parts(settings: Any) -> dict[str, Any]:
    """Over how many processes weights, gradients and the optimiser's state are in parts, as the launcher has it."""
    processes = max(int(settings.world_size), 1)
    plugin = getattr(settings, "deepspeed_plugin", None)
    stage = int(plugin.zero_stage) if plugin else 3 if sharded_by() == "FSDP" else 0
    return {
        "buckets": processes > 1 and stage == 0,
        "weight_parts": processes if stage == 3 else 1,
        "gradient_parts": processes if stage >= 2 else 1,
        "optimizer_parts": processes if stage >= 1 else 1,
    }


def _longest(tokenizer: Any, tables: Mapping[str, Dataset], answers: Sequence[str]) -> int:
    """Tokens of the longest of the first rows: its prompt, and the longest of the answers that it has."""
    return max(_tokens(row, tokenizer, answers) for rows in tables.values() for row in islice(rows, SAMPLED_ROWS))


def _tokens(row: Mapping[str, Any], tokenizer: Any, answers: Sequence[str]) -> int:
    chats = [
        len(chat_ids(turns, tokenizer, add_generation_prompt=open_ended))
        for turns, open_ended in conversations_of(row, answers)
    ]
    if chats:
        return max(chats)
    texts = [len(tokenizer(row[name])["input_ids"]) for name in answers if row.get(name)]
    return max(texts, default=0) + (len(tokenizer(row["prompt"])["input_ids"]) if row.get("prompt") else 0)


GIB = 2**30

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's limit stands, in the second and the first version of control groups."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes.

    Attributes:
        ram: All memory that this process may ever have: the machine's, or its container's limit.
        ram_free: What of it is free now.
        cuda: The memory of the CUDA device that training uses; None for training on the CPU.
        cuda_free: What of it is free now.
        process: What this process holds already, its libraries above all.
    """

    ram: int
    ram_free: int
    cuda: int | None
    cuda_free: int | None
    process: int

    @classmethod
    def look(cls, device: Any = "cpu") -> Machine:
        """Look at this machine.

        Args:
            device: Where training will run, a `torch.device` or its name.
        """
        import psutil
        import torch

        memory = psutil.virtual_memory()
        process = psutil.Process().memory_info().rss
        limit = container_limit()
        ram = min(memory.total, limit or memory.total)
        free, total = torch.cuda.mem_get_info(device) if torch.device(device).type == "cuda" else (None, None)
        return cls(ram, min(memory.available, ram - process), total, free, process)


def container_limit(files: tuple[Path, ...] = _LIMITS) -> int | None:
    """The memory limit of the container that this process is in, in bytes; None if there is none."""
    for file in files:
        try:
            return int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None


def peak_memory() -> int:
    """The most memory that this process ever held, in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
