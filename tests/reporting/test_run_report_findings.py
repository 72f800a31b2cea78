"""What the report warns of, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_sdk import Score
from rlaif_sdk.composer import Component
from rlaif_sdk.reporting.run_report.findings import measure, notes_of, warnings_of
from rlaif_sdk.reporting.run_report.observations import observe
from tests.reporting.recorded_runs import Stated, compose, hacked_run

ROWS = 64
generator = np.random.default_rng(0)
EVEN = generator.permutation(np.linspace(0, 1, ROWS)).tolist()
OTHER = generator.permutation(np.linspace(0, 1, ROWS)).tolist()


def warned(rewards, columns, **options) -> list[str]:
    seen = observe(compose(rewards, [columns], **{"texts": ["same"] * ROWS, **options}))
    return warnings_of(seen, measure(seen))


def test_healthy_rewards_get_no_warning():
    """Two independent rewards of like weight, spread over their range, that never fail."""
    rewards = {"a": Stated("a", (0.0, 1.0)), "b": Stated("b", (0.0, 1.0))}
    assert warned(rewards, {"a": EVEN, "b": OTHER}, group=4) == []


@pytest.mark.parametrize(
    ("values", "declared", "edge"),
    [
        ([1.0] * 60 + [0.2, 0.4, 0.1, 0.3], (0.0, 1.0), ", at the upper edge of its range"),
        ([0.0] * 60 + [0.2, 0.4, 0.1, 0.3], (0.0, 1.0), ", at the lower edge of its range"),
        ([0.5] * 60 + [0.2, 0.4, 0.1, 0.3], (0.0, 1.0), ""),
        ([1.0] * 60 + [0.2, 0.4, 0.1, 0.3], None, ""),
    ],
)
def test_a_reward_that_gives_one_score_is_saturated(values, declared, edge):
    """It says how many get that score, and whether it is an edge of the declared range."""
    found = warned({"a": Stated("a", declared), "b": Stated("b")}, {"a": values, "b": OTHER})
    assert f"'a' gives 94% of the completions the same score{edge}." in found


def test_a_binary_reward_is_not_called_saturated():
    """Half of its scores at each edge tell completions apart well."""
    found = warned({"a": Stated("a", (0.0, 1.0))}, {"a": [0.0, 1.0] * (ROWS // 2)})
    assert found == []


def test_groups_without_differences_are_warned_of():
    """Where most groups have one total, most prompts teach nothing."""
    found = warned({"a": Stated("a")}, {"a": [row // 4 for row in range(ROWS - 4)] + [0, 1, 2, 3]}, group=4)
    assert found == ["In 94% of the groups all completions have the same total: these prompts teach nothing."]


def test_a_reward_that_drowns_the_others_is_named_and_so_are_they():
    """Shares of the variance, not weights, tell who is heard."""
    found = warned(
        {"loud": Component(Stated("a"), weight=100.0), "quiet": Component(Stated("b"))}, {"a": EVEN, "b": OTHER}
    )
    assert "'loud' makes 100% of the variance of the total: the others have little say." in found
    assert any(text.startswith("'quiet' makes ") and text.endswith("it has little say.") for text in found)


def test_a_reward_that_works_against_the_total_is_named():
    """Its share in the total's variance is negative."""
    opposite = [-0.3 * value for value in EVEN]
    found = warned({"a": Stated("a"), "b": Stated("b")}, {"a": EVEN, "b": opposite})
    assert any(text.startswith("'b' moves against the total") for text in found)
    assert "'a' and 'b' say nearly the opposite: their correlation is -1.00." in found


def test_rewards_that_say_the_same_are_named():
    """A strong correlation between two rewards."""
    found = warned({"a": Stated("a"), "b": Stated("b")}, {"a": EVEN, "b": [3 * value + 1 for value in EVEN]})
    assert "'a' and 'b' say nearly the same: their correlation is +1.00." in found


def test_a_total_that_measures_length_is_warned_of_with_its_interval():
    """The whole interval has to lie beyond the limit, so that few rows give no alarm."""
    texts = ["x" * (1 + round(50 * value)) for value in EVEN]
    found = warned({"a": Stated("a")}, {"a": EVEN}, texts=texts)
    assert any(text.startswith("The total goes with longer completions: its correlation") for text in found)
    few = warned({"a": Stated("a")}, {"a": [0.0, 2.0, 1.0, 3.0]}, texts=["x", "xx", "xxx", "xxxx"])
    assert not any("longer" in text for text in few)


def test_a_failing_reward_is_named_with_its_share():
    """More than one row in a hundred."""
    failing = [Score.failed("outage") if row % 8 == 0 else value for row, value in enumerate(EVEN)]
    assert "'a' failed on 12.5% of the rows." in warned(
        {"a": Stated("a"), "b": Stated("b")}, {"a": failing, "b": OTHER}
    )


def drift_notes(rewards, **options):
    steps = [{"a": [float(step), step + 1.0], "judge": [-float(step), -step - 1.0]} for step in range(20)]
    seen = observe(compose(rewards, steps))
    measured = measure(seen, **options)
    return warnings_of(seen, measured), notes_of(seen, measured)


def test_a_cost_that_rises_with_the_total_is_reward_hacking():
    """The direction of a held-out reward is its own: a cost that falls is good news."""
    falls, _ = drift_notes({"a": Stated("a"), "judge": Component(Stated("judge"), weight=0.0)})
    cost, _ = drift_notes({"a": Stated("a"), "judge": Component(Stated("judge", cost=True), weight=0.0)})
    assert any(text.startswith("Reward hacking") for text in falls)
    assert not any(text.startswith("Reward hacking") for text in cost)


def test_a_named_reward_is_held_out_whatever_its_weight():
    """A reward that training sees a little of may be the one to trust."""
    rewards = {"a": Stated("a"), "judge": Component(Stated("judge"), weight=0.01)}
    unnamed, notes = drift_notes(rewards)
    named, _ = drift_notes(rewards, held_out=["judge"])
    assert not any(text.startswith("Reward hacking") for text in unnamed)
    assert any("No reward is held out" in note for note in notes)
    assert any(text.startswith("Reward hacking") for text in named)


def test_too_few_steps_are_said_to_be_too_few():
    """Silence about drift is never taken for its absence."""
    seen = observe(hacked_run(5))
    assert "Too few steps to look for drift: 5, and 16 are needed." in notes_of(seen, measure(seen))
