"""An estimate of the memory that training takes, by a stated formula.

The peak is ``process + rewards + weights + reference + critic + optimizer + max(gradients + backward, generation)``,
each part in bytes. What follows from counts of numbers (weights, gradients, Adam's state) is sure; what lives for a
moment (activations, logits, the cache of keys and values) is a count of the large arrays alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rlaif_sdk.training.preflight.anatomy import Anatomy

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
        fused_head: Whether logits are made in tiles and not kept, as TRL's trainers do.
        generated_rows: Sequences sampled at once; 0 if none are.
        generated_length: Tokens of the longest of them, prompt included.
        checkpointing: Whether activations are computed anew in the backward pass.
        weight_bytes: Bytes of one number of the weights.
        compute_bytes: Bytes of one number in between.
        adapter_bytes: Bytes of one number of what an adapter reads.
        optimizer: transformers' name of the optimiser.
        references: How many frozen copies of the policy are held.
        critic: Whether a critic of the policy's size is trained beside it.
    """

    rows: int
    length: int
    logit_tokens: int = 0
    logit_copies: int = 2
    fused_head: bool = False
    generated_rows: int = 0
    generated_length: int = 0
    checkpointing: bool = False
    weight_bytes: float = 4
    compute_bytes: int = 4
    adapter_bytes: int = 4
    optimizer: str = "adamw_torch"
    references: int = 0
    critic: bool = False


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes by what they are for.

    Attributes:
        process: Python and the libraries.
        rewards: The models of the rewards.
        weights: The policy, its adapter, and copies for mixed precision.
        reference: Frozen copies of the policy.
        critic: A critic's weights.
        gradients: One number for each that is trained.
        optimizer: The optimiser's state.
        activations: What the backward pass needs of the layers.
        logits: The logits and their gradient.
        generation: Keys and values, and the logits of one step, while sampling.
    """

    process: int
    rewards: int
    weights: int
    reference: int
    critic: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    generation: int

    @property
    def sure(self) -> int:
        """What training cannot do without, whatever the batch: a machine with less cannot run it."""
        return self.weights + self.reference + self.critic + self.gradients + self.optimizer

    @property
    def peak(self) -> int:
        """The most that is held at once."""
        passing = max(self.gradients + self.activations + self.logits, self.generation)
        return self.process + self.rewards + self.sure - self.gradients + passing

    def to_dict(self) -> dict[str, int]:
        """The parts and the peak, JSON-ready."""
        return {**asdict(self), "peak": self.peak}


def estimate_memory(anatomy: Anatomy, work: Workload, *, rewards: int = 0, process: int = 0) -> MemoryEstimate:
    """The memory that a model's training takes.

    Args:
        anatomy: The policy, with its adapter.
        work: What is done with it.
        rewards: Bytes of the models of the rewards.
        process: Bytes that the process holds before anything is loaded.
    """
    frozen = anatomy.parameters - anatomy.trainable
    trained_bytes = 4 if frozen else work.weight_bytes  # PEFT keeps adapters in float32
    critic = frozen or anatomy.parameters  # as large as the policy without its adapter
    trained = int(anatomy.trainable * trained_bytes) + (critic * 4 if work.critic else 0)
    weights = int(frozen * work.weight_bytes + anatomy.trainable * trained_bytes)
    if work.compute_bytes < work.weight_bytes:
        weights += anatomy.parameters * work.compute_bytes
    states = next((count for name, count in _STATES.items() if work.optimizer.startswith(name)), 2)
    state_bytes = trained // 4 if "8bit" in work.optimizer else trained
    return MemoryEstimate(
        process=process,
        rewards=rewards,
        weights=weights,
        reference=int(work.references * critic * work.weight_bytes),
        critic=critic * 4 if work.critic else 0,
        gradients=trained,
        optimizer=states * state_bytes,
        activations=activation_bytes(anatomy, work) * (2 if work.critic else 1),
        logits=logit_bytes(anatomy, work),
        generation=generation_bytes(anatomy, work),
    )


def activation_bytes(anatomy: Anatomy, work: Workload) -> int:
    """What a transformer's layers keep for the backward pass.

    Per token and layer: three arrays of the hidden width for each of the two norms, three for attention (queries,
    its output, and that output rearranged), keys and values, and four of the feed-forward width. It is the count of
    Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1) for a gated feed-forward block and attention that keeps no
    matrix of scores. With checkpointing, one hidden state a layer, and the arrays of one layer.

    Under an adapter in less than float32 each adapted layer keeps a copy of its input in the adapter's type, and no
    frozen layer keeps its own: that leaves, of each layer, two arrays of the hidden width for the norms, in float32,
    queries, the output of attention, keys and values, and three arrays of the feed-forward width.
    """
    hidden, keys, inner = anatomy.hidden, anatomy.keys, anatomy.intermediate
    layer = (9 * hidden + 2 * keys + 4 * inner) * work.compute_bytes
    if anatomy.adapter_inputs and work.compute_bytes < 4:
        copies = anatomy.adapter_inputs * work.adapter_bytes // anatomy.layers
        layer = 2 * hidden * 4 + (2 * hidden + 2 * keys + 3 * inner) * work.compute_bytes + copies
    kept = anatomy.layers * hidden * work.compute_bytes + layer if work.checkpointing else anatomy.layers * layer
    return work.rows * work.length * kept


def logit_bytes(anatomy: Anatomy, work: Workload) -> int:
    """The logits in float32 with what is computed of them, and for a fused head the gradient of its own weight."""
    tokens, width = work.rows * work.logit_tokens, anatomy.vocabulary
    if not tokens or not work.fused_head:
        return work.logit_copies * tokens * width * 4
    tile = min(tokens, FUSED_TILE[0]) * min(width, FUSED_TILE[1])
    return (work.logit_copies * tile + width * anatomy.hidden) * 4


def generation_bytes(anatomy: Anatomy, work: Workload) -> int:
    """Keys and values of every token of every sequence, and four arrays of the logits of one step in float32."""
    cache = 2 * anatomy.layers * anatomy.keys * work.generated_length * work.compute_bytes
    return work.generated_rows * (cache + 4 * anatomy.vocabulary * 4)
