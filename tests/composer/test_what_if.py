"""What-if: recorded scores under another config give what that config would have given."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk import Composer, ConfigError, Progress, RewardBatch
from rlaif_sdk.composer import Ledger, what_if
from rlaif_sdk.composer.advantages import group_advantages
from rlaif_sdk.exceptions import LedgerError
from rlaif_sdk.statistics.correlation import rank_correlation, ranks

REWARDS = """
calls = []

def length(completions, *, scale: float = 1.0):
    calls.append("length")
    return [scale * len(text) for text in completions]

def vowels(completions):
    calls.append("vowels")
    return [None if "?" in text else float("nan") if "!" in text else sum(map(text.count, "aeiou")) for text in completions]

class Toxicity:
    higher_is_better = False
    range = (0.0, 1.0)

    def score(self, batch):
        return [min(1.0, text.count("x") / 4) for text in batch.completions]
"""
RECORDED = {
    "rewards": {
        "length": {"use": "./mine.py:length", "normalize": "zscore"},
        "vowels": {"use": "./mine.py:vowels", "weight": 0.5},
        "toxicity": {"use": "./mine.py:Toxicity", "weight": 0.25},
    },
    "ledger": {"path": "ledger.sqlite", "cache": False},
}
OTHERS = {
    "weights": {"rewards": {"length": {"weight": 0.1}, "vowels": {"weight": 2}, "toxicity": {"weight": 1}}},
    "normalisation": {"rewards": {"length": {"normalize": "group_zscore"}, "vowels": {"normalize": "zscore"}}},
    "gates": {
        "rewards": {"length": {}, "toxicity": {"weight": 0}},
        "gates": [{"reward": "toxicity", "max": 0.3, "floor": -5}],
    },
    "aggregation": {
        "rewards": {"length": {"normalize": "rank"}, "toxicity": {"normalize": "minmax"}},
        "aggregate": "minimum",
    },
    "constraint": {
        "rewards": {"length": {}, "toxicity": {"weight": 0}},
        "constraints": [{"reward": "toxicity", "max": 0.1}],
    },
    "policy": {"rewards": {"length": {}, "vowels": {"on_failure": {"policy": "default", "value": 3}}}},
    "schedule": {"rewards": {"length": {}, "vowels": {"weight": {"schedule": "linear", "from": 0, "to": 4, "end": 6}}}},
}


def batches():
    draw = np.random.default_rng(0)
    letters = list("abcdefghijx ?!aeiou")
    for step in range(8):
        texts = ["".join(draw.choice(letters, size=draw.integers(3, 12))) for _ in range(16)]
        yield RewardBatch(
            prompts=[f"prompt {row // 4}" for row in range(16)],
            completions=texts,
            group=[f"{step}-{row // 4}" for row in range(16)],
            progress=Progress(step, 8),
            training=step != 5,
        )


def run(config, folder):
    """The totals of each batch, scored for real."""
    with Composer.from_config(_written(folder, config)) as composer:
        return [composer.compose(batch) for batch in batches()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "mine.py").write_text(REWARDS)
    run(RECORDED, folder)
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_a_replay_gives_what_the_other_config_gives_when_everything_is_scored(folder, name):
    """Weights, gates, normalisers that learn, aggregation, constraints, policies and schedules, batch by batch."""
    other = {
        **OTHERS[name],
        "rewards": {
            k: {**RECORDED["rewards"][k], "weight": 1, "normalize": "none", **v}
            for k, v in OTHERS[name]["rewards"].items()
        },
    }
    expected = run(other, folder)
    result = what_if(folder, other)
    np.testing.assert_allclose(result.new_totals, np.concatenate([one.totals for one in expected]), atol=1e-12)
    before = run({**RECORDED, "ledger": None}, folder)
    np.testing.assert_array_equal(result.totals, np.concatenate([one.totals for one in before]))


def test_the_same_config_changes_nothing(folder):
    """Advantages agree to the last bit, no sign flips, and no row is listed as changed."""
    result = what_if(folder, {**RECORDED, "ledger": None})
    np.testing.assert_array_equal(result.new_advantages, result.advantages)
    summary = result.summary()
    assert (summary["flipped"], summary["lost"], summary["gained"]) == (0, 0, 0)
    assert summary["rank_correlation"] == pytest.approx(1)
    assert result.most_changed() == []
    assert not result.flipped.any()


def test_an_alarm_does_over_the_record_what_it_did_in_the_run(tmp_path):
    """A weight that it lowered is lowered in the replay, so the same config changes nothing."""
    (tmp_path / "mine.py").write_text(REWARDS)
    watch = {"pressure": "length", "max": 0.05, "action": {"kind": "lower_weight", "reward": "length", "factor": 0.1}}
    rewards = {"length": {"use": "./mine.py:length"}, "vowels": {"use": "./mine.py:vowels"}}
    config = {"rewards": rewards, "alarm": {"watch": [watch], "alpha": 0.5}, "ledger": "ledger.sqlite"}
    with Composer.from_config(_written(tmp_path, config)) as composer:
        for repeat in range(4):
            for batch in batches():
                composer.compose(replace(batch, progress=Progress(8 * repeat + batch.progress.step, 32)))
        assert composer.alarm.raised
    result = what_if(tmp_path, config)
    np.testing.assert_allclose(result.new_totals, result.totals, atol=1e-12)
    assert not np.allclose(what_if(tmp_path, {"rewards": rewards}).new_totals, result.totals)
    with Composer.from_config(tmp_path / "config.yaml") as composer:
        composer.disarm()
        for _ in range(4):
            for batch in batches():
                composer.compose(replace(batch, progress=Progress()))
    table = what_if(tmp_path, config)
    np.testing.assert_allclose(table.new_totals, table.totals, atol=1e-12)


def _written(folder, config):
    file = folder / "config.yaml"
    file.write_text(json.dumps(config))
    return file


def test_the_opposite_weights_flip_every_advantage_that_is_not_zero(tmp_path):
    """Flips are counted as they are by hand, whole and for each step."""
    with (
        Ledger(tmp_path / "l.sqlite") as ledger,
        Composer({"length": lambda completions: list(map(len, completions))}, ledger=ledger) as composer,
    ):
        for step, texts in enumerate((["a", "bb", "ccc", "ddd"], ["a", "a", "a", "a"])):
            batch = RewardBatch(["p"] * 4, texts, group=[0, 0, 1, 1], progress=Progress(step))
            composition = composer.compose(batch)
    result = what_if(tmp_path, {"rewards": {"length": {"weight": -1}}})
    assert result.flipped.tolist() == [True, True, False, False, False, False, False, False]
    assert [(entry["step"], entry["flipped"], entry["flipped_share"]) for entry in result.steps()] == [
        (0, 2, 0.5),
        (1, 0, 0.0),
    ]
    assert result.summary()["flipped_share"] == 0.25
    assert result.summary()["rank_correlation"] == pytest.approx(-1)
    first, second = result.most_changed(10)
    assert {(each["row"], each["completion"]) for each in (first, second)} == {(1, "a"), (2, "bb")}
    assert first["advantage"] == pytest.approx(-first["new_advantage"])
    assert what_if(composition, {"rewards": {"length": {"weight": -1}}}).new_totals.tolist() == [-1, -1, -1, -1]


def test_rows_that_become_scored_or_unscored_are_counted_apart(folder):
    """They have no sign to flip."""
    summary = what_if(folder, {"rewards": {"vowels": {"on_failure": "drop"}}}).summary()
    assert summary["lost"] > 0
    assert summary["compared"] == summary["rows"] - summary["lost"]
    assert summary["gained"] == 0


def test_nothing_is_scored_and_no_reward_is_made(folder):
    """The other config may name rewards whose code is gone."""
    other = {"rewards": {"length": {"use": "./mine.py:length"}, "toxicity": {"use": "./mine.py:Toxicity"}}}
    (folder / "mine.py").rename(folder / "gone.py")
    try:
        assert what_if(folder, other).summary()["rows"] == 128
    finally:
        (folder / "gone.py").rename(folder / "mine.py")


def test_a_reward_that_is_not_in_the_record_is_refused_with_its_place(folder, tmp_path):
    """The message has the line, and the rewards that there are."""
    file = tmp_path / "other.yaml"
    file.write_text("rewards:\n  length: {}\n  humour: {weight: 2}\n")
    with pytest.raises(
        ConfigError, match=r"other\.yaml:3: rewards\.humour: has no recorded scores .*length, vowels, toxicity"
    ):
        what_if(folder, file)


def test_other_params_are_said_to_play_no_part(folder):
    """Recorded scores are those of the recorded parameters; equal ones, or none, are no reason to warn."""
    with pytest.warns(UserWarning, match="'length' was recorded with other params"):
        what_if(folder, {"rewards": {"length": {"params": {"scale": 9}}}})


def test_a_run_is_chosen_by_number_and_the_last_is_the_default(tmp_path):
    """Each run is replayed from its own start."""
    with Ledger(tmp_path / "l.sqlite") as ledger:
        for size in (1, 2):
            with Composer({"r": lambda completions: [1.0] * len(completions)}, ledger=ledger) as composer:
                composer.compose(RewardBatch(["p"] * size, ["c"] * size))
        other = {"rewards": {"r": {"normalize": "zscore"}}}
        assert [len(what_if(ledger, other, runs=runs)) for runs in (None, [1], [2], [1, 2])] == [2, 1, 2, 3]
        with pytest.raises(LedgerError, match=r"no run 7 is recorded .*runs: 1, 2"):
            what_if(ledger, other, runs=[7])


def test_a_ledger_without_a_record_says_so(tmp_path):
    """There is nothing to replay."""
    with Ledger(tmp_path / "l.sqlite", record=False) as ledger:
        with Composer({"r": lambda completions: [1.0]}, ledger=ledger) as composer:
            composer.compose(RewardBatch(["p"], ["c"]))
        with pytest.raises(LedgerError, match=r"no run is recorded .*record: false"):
            what_if(ledger, {"rewards": {"r": {}}})


def test_conversations_groups_of_any_label_and_fallbacks_survive_the_record(tmp_path):
    """What was composed is read back as it was."""
    from rlaif_sdk.composer import Component

    def shaky(completions):
        return [float("nan"), 1.0]

    turns = [{"role": "user", "content": "hé \ud83d"}]
    batch = RewardBatch([turns, "p"], ["a", [{"role": "assistant", "content": "b"}]], group=[("x", 1), "y"])
    parts = {"shaky": Component(shaky, fallback="spare")}
    with Ledger(tmp_path / "l.sqlite") as ledger:
        with Composer(
            parts, ledger=ledger, fallbacks={"spare": lambda completions: [7.0] * len(completions)}
        ) as composer:
            composer.compose(batch)
        (entry,) = ledger.batches()
    assert entry.batch.prompts == [turns, "p"]
    assert entry.batch.completions == batch.completions
    assert entry.batch.group == [0, 1]
    assert entry.answers["shaky"].raw.tolist() == [7, 1]
    assert entry.answers["shaky"].fallback_reasons == {0: "fallback 'spare': returned nan"}


values = st.lists(
    st.floats(-100, 100).map(lambda value: round(value, 2)) | st.just(float("nan")), min_size=1, max_size=12
)


@given(values, st.data())
def test_advantages_are_those_of_the_formula_row_by_row(totals, data):
    """Against the plain loop: less the mean of the group's scored rows, over their deviation."""
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(totals), max_size=len(totals)))
    found = group_advantages(np.array(totals), np.array(groups))
    for row, total in enumerate(totals):
        peers = [other for other, group in zip(totals, groups, strict=True) if group == groups[row] and other == other]
        if total != total:
            assert np.isnan(found[row])
            continue
        deviation = np.std(peers, ddof=1) if len(peers) > 1 else 0.0
        assert found[row] == pytest.approx((total - np.mean(peers)) / (deviation + 1e-4), abs=1e-6)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_equal_values_share_the_mean_of_their_ranks(numbers):
    """Against counting."""
    expected = [1 + sum(other < value for other in numbers) + (numbers.count(value) - 1) / 2 for value in numbers]
    assert ranks(np.array(numbers, dtype=float)).tolist() == expected


def test_rank_correlation_sees_order_alone_and_leaves_gaps_out():
    """1 for any rising function, -1 for a falling one, NaN where there is no order."""
    x = np.array([1.0, 2.0, np.nan, 4.0, 3.0])
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert np.isnan(rank_correlation(x, np.ones(5)))
    assert np.isnan(rank_correlation(x[:0], x[:0]))
