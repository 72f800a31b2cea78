"""The rounds of a loop: the folder, model and policy of each, round 0 being the starting model's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_sdk.io.files import atomic_symlink
from rlaif_sdk.training.iterate.config import IterateRun

if TYPE_CHECKING:
    from rlaif_sdk.training.iterate.policy import Policy

MODEL_LINK = "model"


@dataclass(frozen=True, slots=True)
class Rounds:
    """Where the rounds of a run are.

    Attributes:
        run: The loop's config.
    """

    run: IterateRun

    def folder(self, number: int) -> Path:
        """The folder of a round."""
        return self.run.output / f"round-{number:03}"

    def model(self, number: int) -> str:
        """The model that came of a round: a folder, or the name of the starting model."""
        return str((self.folder(number) / "training" / "model").resolve()) if number else self.run.model_name

    def policy(self, number: int) -> Policy:
        """The model that came of a round, held while it is used."""
        from rlaif_sdk.training.iterate.policy import held_policy

        return held_policy(self.run.with_model(self.model(number)))

    def link(self, best: int) -> None:
        """Point ``model`` at the best round's; there is none while the starting model is the best."""
        link = self.run.output / MODEL_LINK
        if best == 0:
            link.unlink(missing_ok=True)
            return
        atomic_symlink(link, os.path.relpath(self.model(best), self.run.output.resolve()))
