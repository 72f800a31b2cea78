"""Whether reward hacking is found, and how often it is found where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_sdk import Composer, Progress, RewardBatch
from rlaif_sdk.composer import Component
from rlaif_sdk.composer.normalizers import ZScore
from rlaif_sdk.diagnostics import Change, Drift, drift_in_history, find_drift, find_drifts
from rlaif_sdk.diagnostics.drift import MIN_STEPS
from rlaif_sdk.statistics.estimates import student_t_quantile
from tests.composer.random_compositions import Reading

NAN = math.nan


def noise(generator: np.random.Generator, steps: int, persistence: float) -> np.ndarray:
    """An autoregressive series of standard deviation 1."""
    values = generator.normal(size=steps)
    for step in range(1, steps):
        values[step] = persistence * values[step - 1] + math.sqrt(1 - persistence**2) * values[step]
    return values


def found(total, held_out, **options) -> Drift:
    drift = find_drift(
        range(len(total)), np.asarray(total), np.asarray(held_out), names=("total", "quality"), **options
    )
    assert drift is not None
    return drift


def test_a_total_that_rises_while_the_held_out_reward_falls_is_found():
    """The drift names its windows, both changes with their errors, and says so in words."""
    generator = np.random.default_rng(1)
    ramp = np.linspace(0, 1, 40)
    drift = found(ramp + 0.1 * generator.normal(size=40), -ramp + 0.1 * generator.normal(size=40))
    assert drift.detected
    assert (drift.earlier, drift.later) == ((0, 9), (30, 39))
    assert drift.gain.value == pytest.approx(0.77, abs=0.1)
    assert drift.loss.value == pytest.approx(-0.77, abs=0.1)
    assert drift.statistic == pytest.approx(min(drift.gain.t, -drift.loss.t))
    assert "'quality' by -0.7" in str(drift)
    assert "the total rises at its cost" in str(drift)


def test_a_rise_before_the_fall_does_not_hide_it():
    """Gao et al. (2023): the held-out reward rises first, so that its first and last values are alike."""
    generator = np.random.default_rng(2)
    time = np.linspace(-1, 1, 80)
    drift = found(time + 0.1 * generator.normal(size=80), -(time**2) + 0.1 * generator.normal(size=80))
    assert drift.detected
    assert drift.earlier[0] > 0


@pytest.mark.parametrize(
    ("total", "held_out"),
    [(1.0, 1.0), (-1.0, -1.0), (-1.0, 1.0), (0.0, -1.0), (1.0, 0.0)],
    ids=["both rise", "both fall", "the total falls", "the total stays", "the held-out reward stays"],
)
def test_nothing_else_is_taken_for_reward_hacking(total, held_out):
    """Only a rise of the one with a fall of the other is."""
    generator = np.random.default_rng(3)
    ramp = np.linspace(0, 1, 60)
    drift = found(total * ramp + 0.2 * generator.normal(size=60), held_out * ramp + 0.2 * generator.normal(size=60))
    assert not drift.detected
    assert "no sign of reward hacking" in str(drift)


@pytest.mark.parametrize(("steps", "persistence"), [(16, 0.0), (40, 0.0), (40, 0.5), (100, 0.9)])
def test_chance_is_taken_for_drift_no_more_often_than_stated(steps, persistence):
    """A total that surely rises beside a held-out reward that only wavers, in 1% of runs at most."""
    generator = np.random.default_rng(4)
    ramp = np.linspace(0, 10, steps)
    alarms = sum(found(ramp, noise(generator, steps, persistence)).detected for _ in range(400))
    assert alarms / 400 <= 0.02  # 1% and two standard errors of 400 runs


def test_more_comparisons_and_a_lower_level_raise_the_bar():
    """Bonferroni: the level is shared among the rewards that are looked at."""
    ramp = np.linspace(0, 1, 40) + 0.1 * np.random.default_rng(5).normal(size=40)
    one = found(ramp, -ramp)
    assert found(ramp, -ramp, comparisons=5).critical == pytest.approx(found(ramp, -ramp, level=0.002).critical)
    assert found(ramp, -ramp, comparisons=5).critical > one.critical


def test_too_few_steps_say_nothing():
    """Steps where either mean is unknown are left out, and fewer than the least give no verdict."""
    ramp = np.linspace(0, 1, MIN_STEPS)
    assert find_drift(range(MIN_STEPS), ramp, -ramp, names=("total", "quality")) is not None
    held_out = -ramp
    held_out[3] = NAN
    assert find_drift(range(MIN_STEPS), ramp, held_out, names=("total", "quality")) is None


def test_constant_series_show_no_drift():
    """Without any spread there is no error, and no change either."""
    drift = found(np.ones(20), np.ones(20))
    assert drift.statistic == 0.0
    assert not drift.detected
    assert Change(1.0, 0.0).t == math.inf
    assert Change(-1.0, 0.0).t == -math.inf


@pytest.mark.parametrize(
    ("tail", "freedom", "value"),
    [(0.25, 1, 1.0), (0.05, 1, 6.3138), (0.01, 5, 3.3649), (0.001, 30, 3.3852), (0.025, 1e4, 1.9602), (0.5, 3, 0.0)],
)
def test_quantiles_of_student_s_distribution_are_those_of_the_tables(tail, freedom, value):
    """From the Cauchy distribution to nearly the normal one."""
    assert student_t_quantile(1 - 2 * tail, freedom) == pytest.approx(value, rel=1e-3, abs=1e-9)


def test_drift_is_read_off_a_training_log():
    """Entries of other kinds, and missing numbers, are passed over; each held-out reward is looked at."""
    generator = np.random.default_rng(6)
    history = [
        {
            "step": step,
            "reward/total/mean": 0.1 * step + generator.normal(),
            "held_out/quality": -0.1 * step + generator.normal(),
            "held_out/style": None if step % 7 == 0 else generator.normal(),
        }
        for step in range(60)
    ]
    drifts = drift_in_history([*history, {"train_runtime": 3.0}, {"step": 60, "eval_reward": 1.0}])
    assert {drift.held_out: drift.detected for drift in drifts} == {"quality": True, "style": False}
    assert drift_in_history(history[:5]) == []


def test_the_total_speaks_first_and_a_proxy_where_the_total_is_silent():
    """Each held-out reward gets one finding, named after the proxy that it is of."""
    ramp = np.linspace(0, 1, 40) + 0.1 * np.random.default_rng(7).normal(size=40)
    steady = np.random.default_rng(8).normal(size=40)
    both = find_drifts(range(40), {"total": ramp, "style": 5 * ramp}, {"quality": -ramp, "other": steady})
    assert [(drift.held_out, drift.detected) for drift in both] == [("quality", True), ("other", False)]
    assert both[0].proxy == "total"
    silent = find_drifts(range(40), {"total": steady, "style": ramp}, {"quality": -ramp})
    assert [(drift.proxy, drift.detected) for drift in silent] == [("style", True)]
    assert "'style' rises at its cost" in str(silent[0])


def test_a_normaliser_does_not_hide_that_a_reward_is_hacked():
    """Running statistics keep the mean total in place; the raw reward in it is looked at as well."""
    generator = np.random.default_rng(9)
    rewards = {
        "cost": Component(Reading("cost", cost=True), normalizer=ZScore()),
        "quality": Component(Reading("quality"), weight=0.0),
    }
    history = []
    with Composer(rewards) as composer:
        for step in range(40):
            columns = {
                "cost": (5 - 0.2 * step + generator.normal(size=16)).clip(-10, 10).tolist(),
                "quality": (5 - 0.2 * step + generator.normal(size=16)).clip(-10, 10).tolist(),
            }
            batch = RewardBatch(["p"] * 16, ["c"] * 16, columns=columns, progress=Progress(step))
            history.append({"step": step, **composer.compose(batch).metrics()})
    (drift,) = drift_in_history(history)
    assert drift.detected
    assert drift.proxy in {"total", "cost"}
    assert drift.gain.value > 0
    without = [{key: value for key, value in entry.items() if key != "proxy/cost"} for entry in history[20:]]
    assert not any(drift.detected for drift in drift_in_history(without))
