"""GRPO and RLOO runs from a config: TRL trains, on composed rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rlaif_sdk.exceptions import RlaifError
from rlaif_sdk.training.config import ComposedRun, ComposedRunConfig
from rlaif_sdk.training.run import PolicyResult, train_policy

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from rlaif_sdk.composer import Composer

OnlineKind = Literal["grpo", "rloo"]


class GRPORunConfig(ComposedRunConfig):
    """Everything about a GRPO run."""

    grpo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.GRPOConfig`, which has those of `transformers.TrainingArguments` too."""


class RLOORunConfig(ComposedRunConfig):
    """Everything about an RLOO run."""

    rloo: dict[str, Any] = Field(default_factory=dict)
    """Fields of `trl.RLOOConfig`, which has those of `transformers.TrainingArguments` too."""


CONFIGS: dict[OnlineKind, type[ComposedRunConfig]] = {"grpo": GRPORunConfig, "rloo": RLOORunConfig}


GRPO_CHOICES: dict[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "luspo", "sapo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}
"""What TRL compares settings of GRPO with once it is training."""


@dataclass(frozen=True, slots=True)
class OnlineRun(ComposedRun):
    """A GRPO or RLOO run's config and the document it was read from."""

    kind: OnlineKind

    def trainer_config(self) -> Any:
        """The trainer's settings, a `trl.GRPOConfig` or `trl.RLOOConfig`.

        Raises:
            ConfigError: A key is unknown, belongs elsewhere, or its value is refused.
        """
        from trl.trainer.grpo_config import GRPOConfig
        from trl.trainer.rloo_config import RLOOConfig

        config = {"grpo": GRPOConfig, "rloo": RLOOConfig}[self.kind]
        revision = self.config.model.revision
        for name, known in GRPO_CHOICES.items() if self.kind == "grpo" else ():
            if (value := self.config.grpo.get(name, known[0])) not in known:
                raise self.document.error(f"is one of {', '.join(known)}, not {value!r}", (self.kind, name))
        if getattr(self.config, self.kind).get("label_smoothing_factor"):
            raise self.document.error("the loss has no labels to smooth", (self.kind, "label_smoothing_factor"))
        return self.trl_settings(
            config,
            self.kind,
            **self.in_order(),
            model_init_kwargs={"revision": revision} if revision else None,  # of the reference, which TRL loads anew
        )


def load_online_run(
    kind: OnlineKind, source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()
) -> OnlineRun:
    """Read and check a run's config; see `rlaif_sdk.training.config.load_run_config`.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    return OnlineRun.load(CONFIGS[kind], source, overrides, kind=kind)


def run_online(
    run: OnlineRun,
    *,
    display: TrainerCallback | None = None,
    report: Callable[[str], None] = lambda _: None,
    resume: bool = False,
) -> PolicyResult:
    """Train a language model by TRL's GRPO or RLOO on composed rewards, as a config says.

    The run is evaluated and leaves behind what `rlaif_sdk.training.run.run_ppo` does. With GRPO's
    ``multi_objective_aggregation: normalize_then_sum`` TRL gets the rewards one by one, with the composition's weights.

    Raises:
        RlaifError: As `run_ppo`; a data set's column of a reserved name is refused before anything is generated.
    """

    def make(composer: Composer, settings: Any, **kwargs: Any) -> Any:
        from trl.trainer.grpo_trainer import GRPOTrainer
        from trl.trainer.rloo_trainer import RLOOTrainer

        from rlaif_sdk.training.evaluation_means import over_rows

        if getattr(settings, "multi_objective_aggregation", None) == "normalize_then_sum":
            rewards, settings.reward_weights = composer.for_trl(separate=True)
        else:
            rewards = [composer.for_trl()]
        kind = over_rows({"grpo": GRPOTrainer, "rloo": RLOOTrainer}[run.kind])
        try:
            trainer = kind(reward_funcs=rewards, args=settings, **kwargs)
        except RlaifError:
            raise
        except (ImportError, ValueError) as error:
            raise run.document.error(f"TRL refuses this: {error}", (run.kind,)) from error
        rewards[0].check(trainer)
        return trainer

    return train_policy(run, run.kind.upper(), run.trainer_config, make, display=display, report=report, resume=resume)
