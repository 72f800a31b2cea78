"""An alarm that watches training batches: what it finds, what it does, what it refuses."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif_sdk import Composer, ConfigError, Progress, Reward, RewardBatch
from rlaif_sdk.composer import Component, Constraint
from rlaif_sdk.composer.asking import Ask
from rlaif_sdk.composer.conditions import ColumnCondition
from rlaif_sdk.composer.gates import Gate
from rlaif_sdk.composer.weights import Crossing, Linear, Schedule
from rlaif_sdk.config import AlarmConfig
from rlaif_sdk.evaluation.best_of import check_witness
from rlaif_sdk.exceptions import AlarmError, StateError
from rlaif_sdk.statistics.sequential import upper_limit
from tests.composer.test_ranks import Ranks

PROMPTS, COMPLETIONS = 8, 4
WITNESS = {"witness": "people"}


class Column(Reward):
    """Gives what stands in the column of its name, in [0, 1]."""

    range = (0.0, 1.0)

    def __init__(self, name: str, *, higher_is_better: bool = True) -> None:
        self.name, self.columns, self.higher_is_better = name, (name,), higher_is_better

    def score(self, batch: RewardBatch) -> list[float | None]:
        return list(batch.column(self.name))


def alarm(*watch: Mapping[str, Any], **settings: Any) -> AlarmConfig:
    return AlarmConfig.model_validate({"watch": list(watch), "reference": 40, "cooldown": 40, **settings})


def composer(config: AlarmConfig | None, *, people: Any = None, **settings: Any) -> Composer:
    rewards = {
        "judge": Component(Column("judge")),
        "rule": Component(Column("rule"), weight=0.5),
        "spare": Component(Column("rule"), weight=0.0),
        "people": Component(people or Column("people"), weight=0.0),
    }
    return Composer(rewards, alarm=config, **settings)


def batch(step: int, *, hack: float = 0.0, people: float = 0.6, training: bool = True, seed: int = 0) -> RewardBatch:
    """With a hack the judge pays for length, and people find it worse."""
    rng = np.random.default_rng((seed, step))
    rows = PROMPTS * COMPLETIONS
    words = rng.integers(5, 60, rows)
    said = {
        "judge": (0.2 + 0.7 * hack * words / 60 + rng.normal(0, 0.03, rows)).clip(0, 1).tolist(),
        "rule": rng.normal(0.5, 0.05, rows).clip(0, 1).tolist(),
        "people": (people - 0.3 * hack + rng.normal(0, 0.1, rows)).clip(0, 1).tolist(),
    }
    return RewardBatch(
        prompts=[f"prompt {row // COMPLETIONS}" for row in range(rows)],
        completions=["word " * int(count) for count in words],
        columns=said,
        group=[row // COMPLETIONS for row in range(rows)],
        progress=Progress(step),
        training=training,
    )


def train(composed: Composer, *, start: int = 0, end: int = 40, hack_from: int = 15) -> list[Any]:
    return [composed.compose(batch(step, hack=float(step >= hack_from))) for step in range(start, end)]


def test_a_witness_that_falls_while_the_training_reward_does_not_raises_an_alarm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It names the reward that pays for it, when all was well, and rows with an answer that the witness finds better."""
    with composer(alarm(WITNESS)) as composed, caplog.at_level(logging.WARNING, logger="rlaif_sdk"):
        compositions = train(composed)
        (first, *_) = composed.alarm.raised
    assert first.watch == "witness_people"
    assert 15 <= first.step <= 22
    assert first.good in {9, 14}
    assert first.log_e >= math.log(20)
    assert str(first) in caplog.text
    assert first.found.startswith("'people' went from 0.59")
    assert compositions[14].metrics()["alarm/witness_people/e_value"] < 20
    row = first.examples[0].record()
    assert row["chosen"] != row["rejected"]
    assert row["prompt"].startswith("prompt ")


def test_nothing_is_raised_where_nothing_happens_or_the_witness_is_merely_better() -> None:
    """Clean runs, and those in which people like the policy more and more."""
    for gain in (0.0, 0.008):
        with composer(alarm(WITNESS, {"pressure": "length"}, {"rise": "length"}, {"rise": "refusal"})) as composed:
            for step in range(60):
                composed.compose(batch(step, people=0.4 + gain * step))
            assert composed.alarm.raised == []


def test_a_witness_that_rises_before_it_falls_is_found() -> None:
    """It is compared with the best that it was, not with how training began."""
    with composer(alarm(WITNESS)) as composed:
        for step in range(60):
            composed.compose(batch(step, people=min(0.3 + 0.02 * step, 0.8), hack=float(step >= 35)))
        raised = composed.alarm.raised
    assert 35 <= raised[0].step <= 50
    assert raised[0].good >= 24


def test_a_witness_that_falls_with_the_training_reward_is_no_hack() -> None:
    """A run that fails is not one whose reward is gamed."""
    with composer(alarm(WITNESS)) as composed:
        for step in range(40):
            worse = batch(step, people=0.6 if step < 15 else 0.3)
            if step >= 15:
                worse.columns["judge"][:] = [0.05] * len(worse)
            composed.compose(worse)
        assert composed.alarm.raised == []


def test_the_training_reward_is_what_training_is_given_and_not_only_what_was_asked() -> None:
    """A hack by which hardly any row meets a condition raises the training reward, though the few scores are low."""
    rewards = {
        "judge": Component(Column("judge"), when=[ColumnCondition("asked", in_=[1])], otherwise=1.0),
        "people": Component(Column("people"), weight=0.0),
    }
    rows = PROMPTS * COMPLETIONS
    with Composer(rewards, alarm=alarm(WITNESS)) as composed:
        for step in range(40):
            hacked = step >= 15
            asked = [int(row % COMPLETIONS < (1 if hacked else 3)) for row in range(rows)]
            said = {
                "asked": asked,
                "judge": [0.3 if hacked else 0.6] * rows,
                "people": [0.3 if hacked else 0.6] * rows,
            }
            composed.compose(replace(batch(step), columns=said))
        (first, *_) = composed.alarm.raised
    assert 15 <= first.step <= 25


def test_an_asking_reward_learns_nothing_of_a_witness() -> None:
    """Training does not see a witness by what is imputed: whatever it says, the same is asked and taken."""
    compositions = []
    for seed in (0, 1):
        rewards = {
            "judge": Component(Column("judge"), weight=0.1, ask=Ask()),
            "rule": Component(Column("rule")),
            "people": Component(Column("people"), weight=0.0),
        }
        with Composer(rewards, alarm=alarm(WITNESS)) as composed:
            for step in range(8):
                given = batch(step)
                said = given.columns["judge"] if seed else given.columns["people"]
                compositions.append(composed.compose(replace(given, columns={**given.columns, "people": said})))
    first, second = compositions[7], compositions[15]
    assert first.rewards["judge"].imputed == second.rewards["judge"].imputed
    assert len(first.rewards["judge"].imputed) > 0
    assert first.to_list() == second.to_list()
    with pytest.raises(ConfigError, match="there is no other reward"):
        Composer({"judge": rewards["judge"], "people": rewards["people"]}, alarm=alarm(WITNESS))


def test_more_of_what_has_a_negative_weight_is_a_training_reward_that_falls() -> None:
    """The witness falls with it, and nobody games anything; less of it would be an alarm."""
    for later, is_hack in ((0.95, False), (0.05, True)):
        rewards = {
            "judge": Component(Column("judge"), weight=-1.0),
            "people": Component(Column("people"), weight=0.0),
        }
        with Composer(rewards, alarm=alarm(WITNESS)) as composed:
            for step in range(30):
                said = batch(step, people=0.6 if step < 15 else 0.3)
                said.columns["judge"][:] = [0.5 if step < 15 else later] * len(said)
                composed.compose(said)
            assert bool(composed.alarm.raised) == is_hack


def test_a_total_that_orders_completions_by_length_raises_an_alarm_at_once() -> None:
    """No reference is needed: what is tested is the pressure, before the policy has moved."""
    with composer(alarm({"pressure": "length"})) as composed:
        train(composed, end=9, hack_from=0)
        (first,) = composed.alarm.raised
    assert first.step <= 8
    assert first.reward == "judge"


def test_rising_refusals_raise_an_alarm() -> None:
    """A share is compared with that of the reference."""
    with composer(alarm({"rise": "refusal"})) as composed:
        for step in range(24):
            said = batch(step)
            if step >= 10:
                said.completions[::3] = ["I'm sorry, I can't help with that."] * len(said.completions[::3])
            composed.compose(said)
        (first, *_) = composed.alarm.raised
    assert 10 <= first.step <= 21
    assert first.found.startswith("refusal rose from 0 to 0.")
    assert "sorry" in first.examples[0].completion


def test_a_reward_that_takes_over_raises_an_alarm() -> None:
    """Its share of the variance within prompts is above the limit."""
    with composer(alarm({"variance_share": "judge", "max": 0.7})) as composed:
        train(composed, end=12, hack_from=0)
        assert composed.alarm.raised[0].reward == "judge"


def test_lowering_a_weight_finds_the_reward_that_pays_and_stops_at_the_floor() -> None:
    """The weight in force is logged; each alarm after the cooldown lowers it again."""
    action = {"kind": "lower_weight", "factor": 0.5, "floor": 0.4}
    with composer(alarm({"pressure": "length"}, action=action)) as composed:
        compositions = train(composed, end=40, hack_from=0)
        raised = composed.alarm.raised
    weights = [one.metrics()["reward/judge/weight"] for one in compositions]
    assert sorted(set(weights), reverse=True) == [1.0, 0.5, 0.4]
    assert raised[0].done == "the weight of 'judge' is lowered to 0.5 of what is configured"
    assert weights[raised[0].step : raised[0].step + 2] == [1.0, 0.5]


def test_tightening_moves_a_bound_to_its_limit() -> None:
    """The multiplier follows the bound that is in force."""
    rule = Constraint("rule", max=0.9, step_size=1.0)
    action = {"kind": "tighten", "constraint": "rule/max", "by": 0.3, "limit": 0.4}
    with composer(alarm({"pressure": "length"}, action=action), constraints=[rule]) as composed:
        compositions = train(composed, end=40, hack_from=0)
    bounds = dict.fromkeys(one.constraints[0].constraint.max for one in compositions)
    assert [*bounds] == pytest.approx([0.9, 0.6, 0.4])
    assert compositions[-1].constraints[0].multiplier > 0


def test_swapping_gives_a_reward_of_weight_0_the_place_of_another() -> None:
    """From the next batch on; the old one is only recorded."""
    action = {"kind": "swap", "reward": "judge", "to": "spare"}
    with composer(alarm({"pressure": "length"}, action=action)) as composed:
        last = train(composed, end=20, hack_from=0)[-1]
    assert (last.rewards["judge"].weight, last.rewards["spare"].weight) == (0.0, 1.0)


def test_a_reward_that_was_swapped_in_has_all_weights_it_took_and_can_be_lowered() -> None:
    """Two swaps to one reward add their weights, and a lower weight of it counts."""
    with composer(alarm({"pressure": "length"})) as composed:
        did = {"swapped": {"judge": "spare", "rule": "spare"}, "factors": {"spare": 0.5, "rule": 0.4}}
        composed.alarm.load_state_dict({**composed.alarm.state_dict(), **did})
        rewards = composed.compose(batch(0)).rewards
    assert {name: column.weight for name, column in rewards.items()} == pytest.approx(
        {"judge": 0.0, "rule": 0.0, "spare": 0.5 * (1.0 + 0.4 * 0.5), "people": 0.0}
    )


def test_an_alarm_that_went_off_leaves_the_last_good_step_where_it_was() -> None:
    """The checkpoint of a pause is not one at which nothing was amiss."""
    with composer(alarm({**WITNESS, "action": "pause"})) as composed:
        composed.alarm.trainer_stops = True
        step = 0
        while not composed.alarm.raised:
            composed.compose(batch(step, hack=float(step >= 15)))
            step += 1
        assert composed.alarm.good == composed.alarm.raised[0].good < 15


def test_a_weight_that_was_swapped_in_is_lowered_and_takes_over_from_several() -> None:
    """The factor of the reward in place holds, beside that of the one that it replaces."""
    swaps = [
        {"pressure": "length", "action": {"kind": "swap", "reward": "judge", "to": "spare"}},
        {"rise": "length", "action": {"kind": "swap", "reward": "rule", "to": "spare"}},
    ]
    with composer(alarm(*swaps)) as composed:
        state = composed.state_dict()
        saved = state["alarms"]["alarm"]["state"]
        saved["swapped"], saved["factors"] = {"judge": "spare", "rule": "spare"}, {"judge": 0.5, "spare": 0.25}
        composed.load_state_dict(state)
        weights = {name: column.weight for name, column in composed.compose(batch(0)).rewards.items()}
    assert weights == {"judge": 0.0, "rule": 0.0, "spare": 0.25 * (0.5 + 0.5), "people": 0.0}


def test_an_earlier_state_has_its_bounds_again() -> None:
    """A composer that goes back to the last good checkpoint holds the constraint as it was there."""
    action = {"kind": "tighten", "constraint": "rule/max", "by": 0.3, "limit": 0.4}
    rule = Constraint("rule", max=0.9, step_size=1.0)
    with composer(alarm({"pressure": "length"}, action=action), constraints=[rule]) as composed:
        good = composed.state_dict()
        assert train(composed, end=40, hack_from=0)[-1].constraints[0].constraint.max < 0.9
        composed.load_state_dict(good)
        assert composed.compose(batch(0)).constraints[0].constraint.max == 0.9


def test_a_training_reward_that_is_silent_in_the_reference_hides_nothing() -> None:
    """What it was then is unknown, and the witness is heard all the same."""
    with composer(alarm(WITNESS)) as composed:
        for step in range(40):
            said = batch(step, hack=float(step >= 15))
            if step < 10:
                said.columns["judge"][:] = said.columns["rule"][:] = [None] * len(said)
            composed.compose(said)
        json.dumps(composed.state_dict(), allow_nan=False)
        assert [one.watch for one in composed.alarm.raised][:1] == ["witness_people"]


def test_a_witness_that_a_schedule_follows_is_refused() -> None:
    """The weight of a training reward then hangs on it."""
    rising = Schedule(Linear(0, 1, end=5), trigger=Crossing("people", above=0.5))
    rewards = {
        "judge": Component(Column("judge")),
        "rule": Component(Column("rule"), weight=rising),
        "people": Component(Column("people"), weight=0.0),
    }
    with pytest.raises(ConfigError, match="training sees 'people' by its schedule of a weight"):
        Composer(rewards, alarm=alarm(WITNESS))
    with Composer(rewards) as composed, pytest.raises(ConfigError, match="the total depends on 'people'"):
        check_witness(composed, "people")


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_a_halted_composer_takes_no_more_training_batches_until_its_state_is_loaded(action: str) -> None:
    """Stacks that cannot be stopped otherwise fail loudly; evaluation goes on."""
    with composer(alarm({"pressure": "length"}, action=action)) as composed:
        with pytest.raises(AlarmError, match=f"alarm pressure_length at step .*training {action[:4]}") as caught:
            train(composed, hack_from=0)
        composed.compose(batch(99, training=False))
        saved = json.loads(json.dumps(composed.state_dict()))
    assert "look at the rows" in str(caught.value)
    with composer(alarm({"pressure": "length"}, action=action)) as resumed:
        resumed.load_state_dict(saved)
        resumed.compose(batch(99))


def test_a_resumed_alarm_goes_on_exactly() -> None:
    """The state is JSON; what follows from it is the same as without the break."""
    watch = [WITNESS, {"pressure": "length"}, {"rise": "repetition"}, {"variance_share": "judge", "max": 0.95}]
    with composer(alarm(*watch)) as whole, composer(alarm(*watch)) as first, composer(alarm(*watch)) as second:
        train(whole)
        train(first, end=17)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        train(second, start=17)
        assert json.dumps(second.state_dict()) == json.dumps(whole.state_dict())
        raised = [(one.watch, one.step, one.found) for one in [*first.alarm.raised, *second.alarm.raised]]
        assert raised == [(one.watch, one.step, one.found) for one in whole.alarm.raised]
        with composer(alarm(WITNESS)) as other, pytest.raises(StateError, match="watch"):
            other.load_state_dict(whole.state_dict())


def test_several_ranks_decide_as_one_process_would() -> None:
    """What all have seen is brought together before anything is tested."""
    exchange = Ranks(2)
    action = {"kind": "lower_weight", "factor": 0.5}

    def work(rank: int) -> str:
        with composer(
            alarm(WITNESS, {"pressure": "length"}, action=action), all_gather=exchange.all_gather(rank)
        ) as part:
            for step in range(30):
                rows = range(16 * rank, 16 * rank + 16)
                part.compose(batch(step, hack=float(step >= 15)).select(rows))
            return json.dumps(part.state_dict())

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, range(2))
    with composer(alarm(WITNESS, {"pressure": "length"}, action=action)) as alone:
        train(alone, end=30)
        assert first == second
        ours, theirs = alone.state_dict()["alarms"]["alarm"]["state"], json.loads(first)["alarms"]["alarm"]["state"]
        assert ours["factors"] == theirs["factors"] != {}


LENGTH, OTHERS = {"pressure": "length"}, [{"rise": name} for name in ("refusal", "markup", "repetition")]


@pytest.mark.parametrize(
    ("watch", "hack", "people", "share"),
    [
        ([LENGTH, *OTHERS], 0.26, 0.6, 1 / 4 * 1 / 2),
        ([WITNESS], 0.11, 0.6, 1 / 2 * 3 / 4),
        ([WITNESS], 0.11, 0.3, 1 / 12 * 3 / 4),
    ],
    ids=["one of four", "the first reference", "the third reference"],
)
def test_an_alarm_goes_off_at_its_share_of_alpha(watch: list[Any], hack: float, people: float, share: float) -> None:
    """The watches share it; each has a half of its own for its first test, a sixth, a twelfth; with a reference less a quarter."""
    highest = 0.0
    with composer(alarm(*watch)) as composed:
        for step in range(60):
            liked = (people if step < 9 else 0.6) - 0.18 * (step >= 25) + 0.3 * hack
            e_values = composed.compose(batch(step, hack=hack, people=liked)).e_values
            if composed.alarm.raised:
                break
            highest = max(highest, next(iter(e_values.values())))
        (raised,) = composed.alarm.raised
    needed = 1 / (0.05 * share)
    assert needed / 2 < highest < needed <= math.exp(raised.log_e)


def test_all_tests_of_a_run_err_no_more_often_than_alpha() -> None:
    """The test after an alarm has less of it than the one before, so that the shares of all, however many, add up to it."""
    with composer(alarm({"variance_share": "judge", "max": 0.7}, cooldown=20)) as composed:
        thresholds: list[float] = []
        for step in range(60):
            now = composed.compose(batch(step, hack=0.9)).metrics().get("alarm/variance_share_judge/threshold")
            thresholds += [now] if now is not None and now not in thresholds else []
        raised = composed.alarm.raised
    assert len(raised) >= 2
    assert 1 / np.array(thresholds) == pytest.approx([0.05 / (k * (k + 1)) for k in range(1, len(thresholds) + 1)])
    assert all(math.exp(alarm.log_e) >= threshold for alarm, threshold in zip(raised, thresholds, strict=False))


def test_a_reference_is_compared_with_by_its_upper_limit() -> None:
    """At a quarter of what the first test has of the watch's alpha, plus the tolerance, on a range of twice the longest mean of a prompt."""
    with composer(alarm({"rise": "length", "tolerance": 0.07})) as composed:
        train(composed, end=5)
        saved = composed.state_dict()["alarms"]["alarm"]["state"]["watches"]["rise_length"]
    lengths = np.array(saved["reference"]["text/length"])
    assert len(lengths) == 40
    fraction = lengths / (2 * lengths.max())
    assert saved["test"]["bound"] == pytest.approx(upper_limit(fraction, 0.05 / 2 / 4) + 0.07)


def test_evaluation_and_tables_teach_the_alarm_nothing() -> None:
    """Only what is composed in training is looked at."""
    datasets = pytest.importorskip("datasets")
    with composer(alarm({"pressure": "length"}, action="stop")) as composed:
        before = json.dumps(composed.state_dict())
        for step in range(12):
            composed.compose(batch(step, hack=1.0, training=False))
        hacked = batch(0, hack=1.0)
        table = {"prompt": list(hacked.prompts) * 8, "completion": list(hacked.completions) * 8}
        table |= {name: list(values) * 8 for name, values in hacked.columns.items()}
        composed.map(datasets.Dataset.from_dict(table), batch_size=32)
        assert json.dumps(composed.state_dict()) == before
        composed.disarm()
        train(composed, hack_from=0)
        assert composed.alarm.raised == []


def test_without_groups_neighbours_are_compared() -> None:
    """PPO samples one completion a prompt."""
    with composer(alarm({"pressure": "length"}, WITNESS)) as composed:
        for step in range(30):
            said = batch(step, hack=float(step >= 10))
            composed.compose(RewardBatch(said.prompts, said.completions, columns=said.columns, progress=said.progress))
        assert {one.watch for one in composed.alarm.raised} == {"pressure_length", "witness_people"}


def test_a_witness_that_hardly_ever_answers_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Without a reference nothing is tested, and silence would pass for good news."""
    with composer(alarm(WITNESS)) as composed, caplog.at_level(logging.WARNING, logger="rlaif_sdk"):
        for step in range(12):
            said = batch(step)
            said.columns["people"][:] = [None] * (len(said) - 4) + [0.5] * 4
            composed.compose(said)
    assert "of 80 prompts 10 have a value of 'people', and 40 are needed" in caplog.text


def test_a_witness_that_is_the_training_reward_is_refused_by_name(tmp_path: Path) -> None:
    """The same reward under another name sees what training sees; in a config the line is told."""
    (tmp_path / "mine.py").write_text("def judge(completion_texts):\n    return [1.0 for _ in completion_texts]\n")
    (tmp_path / "rewards.yaml").write_text(
        "rewards:\n  judge: {use: ./mine.py:judge}\n  people: {use: ./mine.py:judge, weight: 0}\n"
        "alarm:\n  watch:\n    - {witness: people}\n"
    )
    with pytest.raises(ConfigError, match="'people' is the training reward 'judge' by another name") as caught:
        Composer.from_config(tmp_path / "rewards.yaml")
    assert caught.value.line == 6
    judge = Column("judge")
    with pytest.raises(ConfigError, match="by another name"):
        Composer({"a": judge, "b": Component(judge, weight=0.0)}, alarm=alarm({"witness": "b"}))


def test_a_witness_that_asks_the_model_of_the_training_reward_is_warned_of() -> None:
    """It shares its blind spots."""
    rewards = {
        "judge": Component(Column("judge"), params={"model": "m", "question": "Good?"}),
        "people": Component(Column("people"), weight=0.0, params={"model": "m", "question": "True?"}),
    }
    with pytest.warns(UserWarning, match="asks the model of the training reward 'judge'"):
        Composer(rewards, alarm=alarm(WITNESS)).close()


@pytest.mark.parametrize(
    ("watch", "settings", "message"),
    [
        ([], {}, "nothing is watched for"),
        ([{"witness": "nobody"}], {}, "there is no reward 'nobody'"),
        ([{"witness": "rule"}], {}, "'rule' has a weight, so training sees it"),
        ([WITNESS], {"gates": [Gate("people", min=0.1, floor=0.0)]}, "training sees 'people' by its gate"),
        ([WITNESS], {"constraints": [Constraint("people", min=0.1)]}, "by its constraint"),
        ([WITNESS, WITNESS], {}, "watched twice"),
        ([{"variance_share": "people"}], {}, "'people' has no weight"),
        ([{**WITNESS, "action": {"kind": "lower_weight", "reward": "spare"}}], {}, "'spare' has no weight"),
        ([{**WITNESS, "action": {"kind": "swap", "reward": "judge", "to": "people"}}], {}, "action 'swap'"),
        ([{"rise": "length", "action": {"kind": "swap", "reward": "judge", "to": "rule"}}], {}, "a weight already"),
        (
            [{**WITNESS, "action": {"kind": "tighten", "constraint": "rule/max", "by": 1.0, "limit": 0.0}}],
            {},
            "no constraint 'rule/max'; there are none",
        ),
        (
            [{**WITNESS, "action": {"kind": "tighten", "constraint": "rule/max", "by": 1.0, "limit": 0.9}}],
            {"constraints": [Constraint("rule", max=0.5)]},
            "wider than mean rule <= 0.5",
        ),
    ],
)
def test_what_cannot_work_is_refused(watch: list[Any], settings: dict[str, Any], message: str) -> None:
    """Before any batch is scored."""
    with pytest.raises(ConfigError, match=message):
        composer(alarm(*watch), **settings)


def test_lowering_the_only_weight_is_refused() -> None:
    """A lower weight of the only reward changes no advantage."""
    rewards = {"judge": Column("judge"), "people": Component(Column("people"), weight=0.0)}
    with pytest.raises(ConfigError, match="changes no advantage"):
        Composer(rewards, alarm=alarm({**WITNESS, "action": {"kind": "lower_weight"}}))


def test_gdpo_takes_no_alarm_that_changes_weights() -> None:
    """TRL's weights are constant; one that only warns is fine."""
    for action, fits in (("warn", True), ({"kind": "lower_weight"}, False)):
        with composer(alarm(WITNESS, action=action)) as composed:
            if fits:
                composed.for_trl(separate=True)
            else:
                with pytest.raises(ConfigError, match="the alarm changes some"):
                    composed.for_trl(separate=True)
