"""Runs to report, made of stated scores by a real composer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_sdk import Composer, Composition, Progress, Reward, RewardBatch, Score
from rlaif_sdk.composer import Component

HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"


class Stated(Reward):
    """Gives what stands in the column of its name."""

    def __init__(self, name: str, declared: tuple[float, float] | None = None, *, cost: bool = False) -> None:
        self.columns = (name,)
        self.range = declared
        self.higher_is_better = not cost

    def score(self, batch: RewardBatch) -> list[Score | float | None]:
        return list(batch.column(self.columns[0]))


def compose(
    rewards: Mapping[str, Any],
    steps: Sequence[Mapping[str, Sequence[Any]]],
    *,
    texts: Sequence[str] | None = None,
    group: int = 0,
    training: bool = True,
    **options: Any,
) -> Iterator[Composition]:
    """Compose one batch a step, of the columns that stand for it; ``group`` rows answer one prompt."""
    with Composer(rewards, **options) as composer:
        for step, columns in enumerate(steps):
            rows = len(next(iter(columns.values())))
            yield composer.compose(
                RewardBatch(
                    prompts=[f"prompt {row} {HOSTILE}" for row in range(rows)],
                    completions=list(texts) if texts else [f"{'word ' * row}{HOSTILE}" for row in range(rows)],
                    columns=columns,
                    group=[row // group for row in range(rows)] if group else None,
                    progress=Progress(step, len(steps)),
                    training=training,
                )
            )


def hacked_run(steps: int = 24, rows: int = 16) -> Iterator[Composition]:
    """The total rises, the held-out judge falls, one reward fails now and then; every text is hostile."""
    generator = np.random.default_rng(0)

    def columns(step: int) -> dict[str, list[Any]]:
        helpful = np.clip(0.3 + 0.02 * step + 0.1 * generator.normal(size=rows), 0, 1).tolist()
        scored = [Score(value, reason=f"because {HOSTILE}") for value in helpful]
        scored[step % rows] = Score.failed(f"the server said {HOSTILE}")
        judge = 4 - 0.1 * step + generator.normal(size=rows)
        return {"helpful": scored, "<b>": generator.random(rows).tolist(), "judge": judge.tolist()}

    rewards = {
        "helpful": Component(Stated("helpful", (0.0, 1.0))),
        "<b>": Component(Stated("<b>"), weight=0.1),
        "judge": Component(Stated("judge"), weight=0.0),
    }
    return compose(rewards, [columns(step) for step in range(steps)], group=4)
