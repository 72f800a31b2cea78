"""The config file of distilled RLAIF, and the config of each stage made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PositiveInt, model_validator

from rlaif_sdk.config.base import refused
from rlaif_sdk.config.documents import Document, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.preferences import LabelJob
from rlaif_sdk.preferences.label_job import LabelConfig
from rlaif_sdk.training.config import (
    ComposedRun,
    ComposedRunConfig,
    Composition,
    ModelSettings,
    Run,
    with_model,
    with_policy,
)
from rlaif_sdk.training.iterate.config import CandidateSettings, leaves
from rlaif_sdk.training.methods import get_method, run_of

REWARD_MODEL = "$reward_model"
"""Stands in a composition for the folder of the reward model that the run trains."""

DEFAULT_COMPOSITION = {"rewards": {"reward_model": {"normalize": "zscore", "params": {"model": REWARD_MODEL}}}}
"""A reward model's scores have no scale of their own, and the price of divergence has: hence the normalizer."""


class DistillCandidateSettings(CandidateSettings):
    """The completions that the judge compares, sampled with the policy as it stands before training."""

    prompts: PositiveInt = 512
    """How many training prompts, drawn at random."""
    completions: int = Field(default=2, ge=2)
    """How many completions of each; every two different ones make a pair."""
    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of these prompts whose pairs the reward model never trains on: they say how good it is."""


class DistillConfig(ComposedRunConfig):
    """Everything about a run of distilled RLAIF (Lee et al. 2023, arXiv:2309.00267)."""

    candidates: DistillCandidateSettings = DistillCandidateSettings()
    """What the judge compares."""
    label: dict[str, Any]
    """The judge and how it is asked: what a labelling job takes without ``pairs`` and ``output``. ``$policy`` stands for
    the model of the run."""
    reward_base: ModelSettings | None = None
    """The model that becomes the reward model, with a new head of one score; null takes the policy's, with an adapter
    like the policy's."""
    reward_model: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.RewardConfig`, as in a run of its own."""
    composition: Composition = Field(default=DEFAULT_COMPOSITION, validate_default=True)
    """The rewards: a composition, or the path of a file with one. ``$reward_model`` in it stands for the trained reward
    model, which is the only reward by default; ``$policy`` for the model of the run."""
    evaluation: Composition | None = None
    """Rewards for held-out prompts alone, which training never sees; a judge's score, say."""
    ppo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `rlaif_sdk.training.ppo.PPOConfig`, as in a run of its own."""

    @model_validator(mode="after")
    def _stages_name_their_own_files(self) -> Self:
        for key in ("pairs", "output"):
            if key in self.label:
                raise refused("is the run's own affair: leave it out", "label", key)
        return self


@dataclass(frozen=True, slots=True)
class DistilledPolicyRun(ComposedRun):
    """The PPO run whose composition speaks of a reward model that was just trained.

    Attributes:
        reward_model: Its folder.
    """

    reward_model: str = field(default="", kw_only=True)

    def composition_document(self, key: str = "composition", *, ledger: bool = True) -> Document:
        document = ComposedRun.composition_document(self, key, ledger=ledger)
        return replace(document, data=with_model(document.data, REWARD_MODEL, self.reward_model))


@dataclass(frozen=True, slots=True)
class DistillRun(ComposedRun):
    """The config of distilled RLAIF and the document it was read from."""

    config: DistillConfig

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.output / name

    def label_job(self, pairs: Path, output: Path) -> LabelJob:
        """The job that labels ``response_1`` and ``response_2`` of a file.

        Raises:
            ConfigError: The settings under ``label`` are refused.
        """
        settings = self.document.at("label")
        label = with_policy(settings.data, self.model_name)
        document = replace(
            settings, data={**label, "pairs": {"file": str(pairs.resolve())}, "output": str(output.resolve())}
        )
        return LabelJob(validate(LabelConfig, document), document)

    def reward_model_run(self, train: Path, held_out: Path, rows: int) -> Run:
        """The run that trains the reward model.

        Args:
            train: The file of labelled pairs to train on.
            held_out: That of the pairs to evaluate on.
            rows: How many those are.

        Raises:
            ConfigError: A setting is refused.
        """
        model = self.config.reward_base or self.config.model.model_copy(update={"quantization": None})
        if model.dtype == "auto" and model.lora is None:
            model = model.model_copy(update={"dtype": "float32"})
        document = replace(
            self.document,
            data={
                "model": model.model_dump(),
                "data": {"train": str(train.resolve()), "held_out": str(held_out.resolve()), "held_out_rows": rows},
                "reward_model": self.config.reward_model,
                "output": str(self.stage("reward_model").resolve()),
                "seed": self.config.seed,
            },
        )
        run: Run = run_of("reward_model", document, allow_changed=self.allow_changed)
        return run

    def ppo_run(self, reward_model: str) -> DistilledPolicyRun:
        """The run that trains the policy.

        Args:
            reward_model: The folder of the trained reward model.

        Raises:
            ConfigError: A setting is refused.
        """
        keys = ("model", "data", "composition", "evaluation", "ppo", "seed")
        data = {key: self.document.data[key] for key in keys if key in self.document.data}
        document = replace(self.document, data={**data, "output": str(self.stage("policy").resolve())})
        return DistilledPolicyRun(
            validate(get_method("ppo").config, document),
            document,
            method="ppo",
            reward_model=reward_model,
            allow_changed=self.allow_changed,
        )

    @property
    def uses_reward_model(self) -> bool:
        """Whether ``$reward_model`` stands in the composition.

        Raises:
            ConfigError: The composition's file cannot be read.
        """
        return REWARD_MODEL in leaves(self.composition_document().data)


def load_distill_run(source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> DistillRun:
    """Read and check the config of distilled RLAIF; see `rlaif_sdk.training.methods.load_run`.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    document = overridden(source, overrides)
    if isinstance(document.data, Mapping):
        document = replace(document, data={"composition": DEFAULT_COMPOSITION, **document.data})
    run = DistillRun(validate(DistillConfig, document), document)
    if not run.uses_reward_model:
        raise run.document.error(
            f"rewards nothing by {REWARD_MODEL}, the reward model that the run trains",
            ("composition", "rewards"),
            f"add reward_model: {{params: {{model: {REWARD_MODEL}}}}}, or train with rlaif train ppo",
        )
    return run
