"""The config file of a closed loop, and where its rounds are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from rlaif_sdk.config import ConfigModel
from rlaif_sdk.config.base import Finite, refused
from rlaif_sdk.config.documents import load_document, validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.preferences.best import BestSettings
from rlaif_sdk.preferences.pairs import Choice, Ties
from rlaif_sdk.training.config import POLICY, ComposedRun, ComposedRunConfig, Composition, has_placeholder
from rlaif_sdk.training.generation import GenerationSettings, loaded_policy
from rlaif_sdk.training.methods import get_method
from rlaif_sdk.training.run_folder import MODEL_FOLDER

if TYPE_CHECKING:
    from rlaif_sdk.training.generation import Policy


LoopMethod = Literal["dpo", "sft", "ppo", "grpo", "rloo"]
"""The methods that a round may train by. Those that learn from prompts generate for themselves, the others get scored
candidates."""
_SETTINGS_OF = {"pairs": ("pairs", "label"), "completions": ("best",), "prompts": ()}
"""The settings of what is made of the candidates, by what a method learns from."""

TRAINING_FOLDER = "training"
"""Of a round, for the run that trains it."""

NonNegative = Annotated[Finite, Field(ge=0)]


class CandidateSettings(GenerationSettings):
    """The completions that each round makes, with the policy as it stands."""

    prompts: PositiveInt = 64
    """How many training prompts a round takes: the next ones, in an order that is drawn anew when all were taken."""
    completions: int = Field(default=4, ge=2)
    """How many completions of each prompt."""


class PairSettings(ConfigModel):
    """How scored completions make pairs for DPO; see `rlaif_sdk.preferences.make_pairs`."""

    choose: Choice = "best_worst"
    """``best_worst`` makes a pair a prompt; ``all`` every pair; ``threshold`` those across a threshold."""
    threshold: Finite | None = None
    """For ``threshold``, in units of the composed reward."""
    min_gap: NonNegative = 0.0
    """Leave out pairs whose rewards differ by less."""
    temperature: Annotated[Finite, Field(gt=0)] | None = 1.0
    """A pair's label is the logistic of its rewards' difference over this; null makes hard labels."""
    ties: Ties = "drop"
    """What becomes of equal rewards: ``drop`` leaves the pair out, ``half`` labels it 0.5."""


class StopSettings(ConfigModel):
    """When the loop ends. Only these may be changed when it is resumed."""

    rounds: PositiveInt = 3
    """The most rounds."""
    patience: PositiveInt | None = None
    """End after so many rounds in a row without improvement; null never does."""
    min_improvement: NonNegative = 0.0
    """A round improves if its composed reward exceeds the best one by more than this."""
    target: Finite | None = None
    """End when the composed reward reaches this."""
    max_kl: Annotated[Finite, Field(gt=0)] | None = None
    """End when the policy is further from the starting model than this, in nats an answer; such a round is never the
    best."""
    max_regression: dict[str, NonNegative] = Field(default_factory=dict)
    """End when a reward, by name, is worse than the starting model's by more than this, in its own units; such a round
    is never the best."""


class IterateRunConfig(ComposedRunConfig):
    """Everything about a closed loop."""

    method: LoopMethod = "dpo"
    """How a round trains: ``dpo`` on pairs of its completions, ``sft`` on the best of them, or online."""
    evaluation: Composition | None = None
    """What judges every round on the held-out prompts, always with the same eyes: ``$policy`` in it is the starting
    model. Null takes ``composition``."""
    start_from: Literal["previous", "best", "start"] = "previous"
    """Which model a round starts from: that of the round before, the best one so far, or always the first."""
    candidates: CandidateSettings = CandidateSettings()
    """What a round generates; the held-out prompts are answered in the same way, once each."""
    pairs: PairSettings = PairSettings()
    """For ``dpo``."""
    label: dict[str, Any] | None = None
    """For ``dpo``: a judge that compares the answers of each pair and labels it, in the place of the rewards'
    difference. What a labelling job takes without ``pairs`` and ``output``; ``$policy`` stands for the policy."""
    best: BestSettings = BestSettings()
    """For ``sft``."""
    stop: StopSettings = StopSettings()
    """When the loop ends."""
    dpo: dict[str, Any] = Field(default_factory=dict)
    """Settings of a round's trainer, as in a run of its own; so are the next ones."""
    sft: dict[str, Any] = Field(default_factory=dict)
    """See ``dpo``."""
    ppo: dict[str, Any] = Field(default_factory=dict)
    """See ``dpo``."""
    grpo: dict[str, Any] = Field(default_factory=dict)
    """See ``dpo``."""
    rloo: dict[str, Any] = Field(default_factory=dict)
    """See ``dpo``."""

    @model_validator(mode="after")
    def _only_settings_in_use(self) -> Self:
        for method in get_args(LoopMethod):
            for key in (method, *_SETTINGS_OF[get_method(method).learns_from]):
                if key in self.model_fields_set and method != self.method:
                    raise refused(f"is for method: {method}, and the method is {self.method}", key)
        return self


@dataclass(frozen=True, slots=True)
class IterateRun(ComposedRun):
    """A loop's config and the document it was read from."""

    config: IterateRunConfig

    def with_model(self, name: str) -> Self:
        """The same run from another model."""
        settings = self.config.model
        if name != self.model_name:
            settings = settings.model_copy(update={"name": name, "revision": None})
        return replace(self, config=self.config.model_copy(update={"model": settings}))

    def round_folder(self, number: int) -> Path:
        """The folder of a round; 0 is the starting model's."""
        return self.output / f"round-{number:03}"

    def model_of(self, number: int) -> str:
        """The model that came of a round: a folder, or the name of the starting model."""
        return (
            str((self.round_folder(number) / TRAINING_FOLDER / MODEL_FOLDER).resolve()) if number else self.model_name
        )

    def policy_of(self, number: int) -> Policy:
        """The model that came of a round, held while it is used."""
        return loaded_policy(self.with_model(self.model_of(number)))

    @property
    def needs_candidates(self) -> bool:
        """Whether rounds generate completions before they train."""
        return get_method(self.config.method).learns_from != "prompts" or self.config.data.curriculum is not None

    @property
    def judge_moves(self) -> bool:
        """Whether ``$policy`` stands in the composition, which is then another one each round.

        Raises:
            ConfigError: The composition's file cannot be read.
        """
        named = self.config.composition
        data = load_document(self.folder / named).data if isinstance(named, str) else self.document.data["composition"]
        return has_placeholder(data, POLICY)


def load_iterate_run(source: str | Path | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> IterateRun:
    """Read and check a loop's config; see `rlaif_sdk.training.methods.load_run`.

    Raises:
        ConfigError: The config or an override is refused; the message has file, line and key.
    """
    document = overridden(source, overrides)
    return IterateRun(validate(IterateRunConfig, document), document)
