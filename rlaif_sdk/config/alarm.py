"""The config of an alarm: what it watches for during training, and what it does."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from rlaif_sdk.config.base import ConfigModel, Finite, named

_Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
_Groups = Annotated[int, Field(strict=True, ge=20)]
TextMeasure: TypeAlias = Literal["length", "repetition", "refusal", "markup"]


class PlainActionConfig(ConfigModel):
    """An action that needs nothing said: ``warn``, ``pause`` or ``stop``."""

    kind: Literal["warn", "pause", "stop"]
    """``warn`` logs; ``pause`` saves a checkpoint and ends the run, which resumes from it once people have looked at the rows;
    ``stop`` ends it, and the last checkpoint at which nothing was amiss is kept."""


class LowerWeightConfig(ConfigModel):
    """Multiply a reward's weight."""

    kind: Literal["lower_weight"]
    reward: str | None = None
    """The reward; null takes the one that pays most for what is watched."""
    factor: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.5
    """What its weight is multiplied by, at each alarm."""
    floor: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0
    """The least share of its configured weight that is left."""


class TightenConfig(ConfigModel):
    """Move a constraint's bound."""

    kind: Literal["tighten"]
    constraint: str
    """The constraint, as its metrics name it: ``NAME/max`` or ``NAME/min``."""
    by: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    """How far the bound moves at each alarm, in the units of its reward: down if it is a ``max``, up if it is a ``min``."""
    limit: Finite
    """The bound that it does not go beyond."""


class SwapConfig(ConfigModel):
    """Let another reward of the composition take a reward's place and weight, such as the same rubric with other criteria."""

    kind: Literal["swap"]
    reward: str
    """The reward whose weight becomes 0."""
    to: str
    """The one that takes its weight. It has weight 0 until then, is asked all the same, and so its normalizer knows its
    scale."""


ActionConfig: TypeAlias = Annotated[
    Annotated[PlainActionConfig | LowerWeightConfig | TightenConfig | SwapConfig, Field(discriminator="kind")],
    named("kind", PlainActionConfig),
]
"""What an alarm does."""


class _WatchConfig(ConfigModel):
    action: ActionConfig | None = None
    """What is done on this alarm; null does what ``alarm.action`` says."""


class WitnessConfig(_WatchConfig):
    """A witness falls while the training reward does not."""

    witness: str
    """A reward of weight 0 that training never sees: another judge, people's verdicts, a benchmark's check."""
    tolerance: _Share = 0.02
    """How far below its mean in the reference it may lie, as a share of its range. The reference is the best so far."""


class PressureConfig(_WatchConfig):
    """The total pays for a property of the text: it orders the completions to a prompt as that does."""

    pressure: TextMeasure
    """``length``, ``repetition``, ``refusal`` or ``markup``."""
    max: _Share = 0.5
    """The greatest mean of Kendall's tau, in [0, 1)."""


class RiseConfig(_WatchConfig):
    """A property of the text is above what it was in the reference."""

    rise: TextMeasure
    """``length``, ``repetition``, ``refusal`` or ``markup``."""
    tolerance: _Share = 0.1
    """How far above its mean in the reference it may lie, as a share of its range. The range of the length goes to twice the
    longest mean of a prompt in the reference, that of the others from 0 to 1."""


class VarianceShareConfig(_WatchConfig):
    """A reward has nearly all of the total's variance, so that the others go unheard."""

    variance_share: str
    """A reward with a weight."""
    max: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.9
    """The greatest mean share of the variance within a prompt's completions."""


_KEYS = ("witness", "pressure", "rise", "variance_share")


def _which(value: Any) -> str:
    """The key by which a watch is told from others."""
    given = value.model_dump() if isinstance(value, ConfigModel) else value if isinstance(value, dict) else {}
    return f"{next((key for key in _KEYS if key in given), _KEYS[0])}[]"


WatchConfig: TypeAlias = Annotated[
    Annotated[WitnessConfig, Tag("witness[]")]
    | Annotated[PressureConfig, Tag("pressure[]")]
    | Annotated[RiseConfig, Tag("rise[]")]
    | Annotated[VarianceShareConfig, Tag("variance_share[]")],
    Discriminator(_which),
]
"""Something that is watched for."""


class AlarmConfig(ConfigModel):
    """Tests that are looked at after every training batch, and what is done when one rejects."""

    watch: tuple[WatchConfig, ...]
    """What is watched for."""
    action: ActionConfig = PlainActionConfig(kind="warn")
    """What is done on an alarm that states no action of its own: ``warn``, ``pause``, ``stop``, or ``lower_weight``,
    ``tighten`` or ``swap`` with what they need."""
    alpha: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.05
    """The chance of any false alarm in a run, all watches together, however long it is."""
    reference: _Groups = 200
    """The first so many prompts of training, each with its completions, that later ones are compared with."""
    cooldown: _Groups = 200
    """After so many prompts a watch whose alarm went off is tested anew, so that an action has time to tell."""
