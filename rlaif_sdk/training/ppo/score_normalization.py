"""Scores brought to mean 0 and deviation 1 before they become rewards, over a rollout or over all of training. B rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from rlaif_sdk.composer.normalizers import GroupZScore, Normalizer, Passthrough, ZScore
from rlaif_sdk.exceptions import StateError

ScoreNormalization = Literal["none", "batch", "running"]
_NORMALIZERS: Mapping[str, type[Normalizer]] = {"none": Passthrough, "batch": GroupZScore, "running": ZScore}


class ScoreNormalizer:
    """Shifts and scales composed scores; the composer's own normalizers have done their work before.

    Args:
        kind: ``none``; ``batch``, by the rollout's own mean and deviation; or ``running``, by those of all training
            scores so far, these included.
        gather: Concatenates a (B,) tensor of each rank along its rows, in the order of ranks.
        rank: This process's place among them.
    """

    def __init__(
        self, kind: ScoreNormalization, *, gather: Callable[[Tensor], Tensor] = lambda x: x, rank: int = 0
    ) -> None:
        self.kind = kind
        self._normalizer = _NORMALIZERS[kind]()
        self._gather = gather
        self._rank = rank

    def normalize(
        self, scores_B: Tensor, on_tokens_BT: Tensor | None, *, training: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The scores on the common scale, and what of them falls on single tokens, scaled as they are.

        Args:
            scores_B: NaN where there is none, which stays NaN and counts in no statistic.
            on_tokens_BT: See `rlaif_sdk.training.ppo.gae.token_rewards`; or None.
            training: Whether running statistics learn from the scores.
        """
        if self.kind == "none":
            return scores_B, on_tokens_BT
        all_N = self._gather(scores_B).cpu().double().numpy()
        own = slice(self._rank * len(scores_B), (self._rank + 1) * len(scores_B))
        if training:
            self._normalizer.update(all_N, None)
        normalized_B = torch.from_numpy(self._normalizer.normalize(all_N, None)[own]).to(scores_B)
        if on_tokens_BT is not None:
            scale_B = torch.from_numpy(self._normalizer.scale(all_N, None)[own]).to(scores_B)
            on_tokens_BT = on_tokens_BT * scale_B[:, None]
        return normalized_B, on_tokens_BT

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart; JSON values."""
        return {"kind": self.kind, **self._normalizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            StateError: It was saved with another kind of normalization.
        """
        if state.get("kind") != self.kind:
            raise StateError(
                f"the checkpoint was made with score_normalization {state.get('kind')!r}, and this run has {self.kind!r}",
                hint="resume with the setting that it was made with",
            )
        self._normalizer.load_state_dict({name: value for name, value in state.items() if name != "kind"})
