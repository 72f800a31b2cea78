"""Which compositions say the same of a completion whatever is scored beside it, before it, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlaif_sdk.composer.normalizers import Normalizer, Rank
from rlaif_sdk.composer.weights import Schedule
from rlaif_sdk.exceptions import ConfigError

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composer

_SAVED = "give state=FILE, saved with rlaif_sdk.integrations.save_state, and its statistics stay as they are there"


def check_rowwise(composer: Composer, stack: str, *, grouped: bool, stepped: bool, restored: bool) -> None:
    """Refuse what a stack cannot give its due.

    Args:
        composer: The composer.
        stack: What the stack calls the place it is used in, for the message.
        grouped: Whether the completions to one prompt are scored together and known as such.
        stepped: Whether the training step is known.
        restored: Whether the composer resumes from a saved state.

    Raises:
        ConfigError: A number would depend on how the stack happens to cut its calls.
    """
    for key, problem, hint in _problems(composer, grouped=grouped, stepped=stepped, restored=restored):
        raise ConfigError(f"{problem}, which {stack} does not tell", key=key, hint=hint)


def _problems(composer: Composer, *, grouped: bool, stepped: bool, restored: bool) -> Iterator[tuple[str, str, str]]:
    for name, component in composer.components.items():
        key, normalizer = f"rewards.{name}.normalize", component.normalizer
        kind = type(normalizer).__name__
        if (normalizer.within_groups or isinstance(normalizer, Rank)) and not grouped:
            yield key, f"{kind} compares the completions to one prompt", "let the trainer normalise, or use minmax"
        if type(normalizer).update is not Normalizer.update and not restored:
            yield key, f"{kind} learns only from training batches", _SAVED
    schedules = {
        **{f"rewards.{name}.weight": weight for name, weight in composer.weights.items()},
        **{f"groups.{name}.weight": group.weight for name, group in composer.combiner.groups.items()},
    }
    for key, weight in schedules.items():
        if isinstance(weight, Schedule) and not stepped:
            yield key, "a schedule follows the training step", "give the weight a number"
    if composer.combiner.multipliers and not restored:
        yield "constraints", "a constraint's multiplier learns only from training batches", _SAVED
