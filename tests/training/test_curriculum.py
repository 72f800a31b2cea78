"""Curricula: difficulty from measured rewards, and which prompts are trained on in what order."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.training.config import DataSettings
from rlaif_sdk.training.curriculum import CurriculumSettings, arrange, difficulties, mean_and_spread, priorities

NAN = math.nan
rewards = st.floats(-100, 100, width=16)


def settings(**options: Any) -> CurriculumSettings:
    return CurriculumSettings(**options)


def arranged(means: list[float], spreads: list[float] | None = None, *, seed: int = 0, **options: Any) -> list[int]:
    return arrange(np.array(means), np.array(spreads or [1.0] * len(means)), settings(**options), seed=seed)


@given(st.lists(rewards | st.just(NAN), max_size=8))
def test_mean_and_spread_are_of_the_scored_answers(values: list[float]) -> None:
    """Unscored answers are left out; without any the mean is unknown, and with one the spread."""
    present = [value for value in values if not math.isnan(value)]
    mean, spread, scored = mean_and_spread(values)
    assert scored == len(present)
    assert mean == pytest.approx(sum(present) / len(present)) if present else math.isnan(mean)
    if len(present) < 2:
        assert math.isnan(spread)
    else:
        average = sum(present) / len(present)
        assert spread == pytest.approx(math.sqrt(sum((x - average) ** 2 for x in present) / len(present)), abs=1e-9)


@given(st.lists(rewards | st.just(NAN), max_size=12))
def test_difficulty_is_the_share_of_other_prompts_that_are_easier(means: list[float]) -> None:
    """Ties count half, unmeasured prompts have none, and neither scale nor offset of the reward matters."""
    found = difficulties(np.array(means))
    others = [mean for mean in means if not math.isnan(mean)]
    for mean, difficulty in zip(means, found, strict=True):
        if math.isnan(mean):
            assert math.isnan(difficulty)
        elif len(others) == 1:
            assert difficulty == 0.5
        else:
            easier = sum(other > mean for other in others) + (others.count(mean) - 1) / 2
            assert difficulty == pytest.approx(easier / (len(others) - 1))
    assert np.array_equal(difficulties(np.array(means) * 4 - 8), found, equal_nan=True)


@given(
    st.lists(st.tuples(rewards | st.just(NAN), st.floats(0, 10) | st.just(NAN)), max_size=12),
    st.sampled_from(["middling", "easy", "hard", "spread"]),
    st.floats(0, 1),
)
def test_priorities_lie_between_0_and_1(rows: list[tuple[float, float]], by: Any, target: float) -> None:
    """Whatever a curriculum goes by; NaN says that it is not known."""
    means, spreads = np.array(rows).reshape(-1, 2).T
    found = priorities(means, spreads, settings(by=by, target=target))
    assert np.all(np.isnan(found) | ((found >= -1e-12) & (found <= 1)))


def test_each_order_puts_its_own_prompts_first() -> None:
    """Middling difficulty first by default; easy, hard and widely spread ones on demand."""
    means, spreads = [0.9, 0.1, 0.5, 0.7, 0.3], [0.1, 0.5, 0.3, 0.2, 0.4]
    assert arranged(means, spreads)[0] == 2
    assert set(arranged(means, spreads)[-2:]) == {0, 1}
    assert arranged(means, spreads, by="easy") == [0, 3, 2, 4, 1]
    assert arranged(means, spreads, by="hard") == [1, 4, 2, 3, 0]
    assert arranged(means, spreads, by="spread") == [1, 4, 2, 3, 0]
    assert arranged(means, spreads, target=0.25)[0] == 3


def test_filters_leave_out_what_is_too_hard_learnt_or_all_alike() -> None:
    """By mean and by spread, the bounds included; a prompt whose spread is unknown does not pass a least spread."""
    means, spreads = [0.0, 0.5, 1.0, 0.6], [0.2, 0.0, 0.2, NAN]
    assert sorted(arranged(means, spreads, min_mean=0.5)) == [1, 2, 3]
    assert sorted(arranged(means, spreads, max_mean=0.5)) == [0, 1]
    assert sorted(arranged(means, spreads, min_spread=0.2)) == [0, 2]
    assert sorted(arranged(means, spreads, min_spread=0)) == [0, 1, 2]


def test_a_prompt_that_nobody_scored_is_left_out() -> None:
    """An outage of the rewards makes no prompt hard."""
    assert sorted(arranged([0.1, NAN, 0.2], [1.0, NAN, 1.0], by="hard")) == [0, 2]


def test_prompts_of_equal_priority_keep_their_order() -> None:
    """Where nothing tells prompts apart, sorting changes nothing."""
    assert arranged([0.5] * 6) == [*range(6)]
    assert arranged([1.0, 2.0, 3.0], [0.0] * 3, by="spread") == [0, 1, 2]


def test_a_weighted_order_draws_in_proportion_to_priority() -> None:
    """The first prompt is one of priority 1 twice as often as one of priority 1/2; one of priority 0 never leads."""
    first = Counter(
        arranged([0.0, 0.0, 0.0], [2.0, 1.0, 0.0], by="spread", order="weighted", seed=seed)[0] for seed in range(3000)
    )
    assert first[0] / first[1] == pytest.approx(2, rel=0.15)
    assert first[2] == 0
    orders = [arranged([*range(9)], order="weighted", seed=seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == [*range(9)]


def test_only_the_first_rows_are_kept_if_so_told() -> None:
    """After ordering."""
    assert arranged([3.0, 1.0, 2.0], by="easy", rows=2) == [0, 2]


def test_difficulty_is_measured_by_answering_as_training_would(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    """`rlaif difficulty` writes a table that takes the place of the run's training data."""
    from typer.testing import CliRunner

    from rlaif_sdk.cli.main import app
    from rlaif_sdk.training.data import load_prompts

    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(
        "def wanted(completions, skipped):\n"
        "    return [None if skip else text.count('w1') for text, skip in zip(completions, skipped)]\n"
    )
    lines = [json.dumps({"prompt": f"w{row} w3", "skipped": row == 2}) for row in range(6)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    run = {
        "model": {"name": "start"},
        "data": {"train": "prompts.jsonl", "held_out_rows": 2},
        "composition": {"rewards": {"wanted": {"use": "./rewards.py:wanted"}}},
        "grpo": {"max_completion_length": 8, "per_device_eval_batch_size": 6, "per_device_train_batch_size": 8},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    arguments = ["difficulty", "--config", str(tmp_path / "run.json"), "--output", str(tmp_path / "measured.jsonl")]
    overrides = ["--set", "grpo.use_cpu=true"]
    done = CliRunner().invoke(app, [*arguments, "--completions", "3", *overrides], catch_exceptions=False)
    assert "measured 3 prompts" in done.output
    assert "1 of 4 prompts are unmeasured; first: row 3" in done.stderr
    assert done.exit_code == 3
    rows = [json.loads(line) for line in (tmp_path / "measured.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [f"w{row} w3" for row in range(6)]
    assert [row["reward_scored"] for row in rows] == [3, 3, 0, 3, None, None]
    assert rows[2]["reward_mean"] is None
    assert all(math.isclose(row["reward_mean"] * 3 % 1, 0, abs_tol=1e-6) for row in rows if row["reward_scored"])
    data = DataSettings(train="measured.jsonl", held_out_rows=2, curriculum=settings(by="hard"))
    train, held_out = load_prompts(data, tmp_path)
    assert sorted(train["prompt"]) == ["w0 w3", "w1 w3", "w3 w3"]
    assert list(train["reward_mean"]) == sorted(train["reward_mean"])
    assert list(held_out["prompt"]) == ["w4 w3", "w5 w3"]


def test_prompts_are_answered_as_training_renders_them(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    """A reward sees chat messages whatever shape the table has, which stays; a prompt that the template refuses is named."""
    from rlaif_sdk.exceptions import DataError
    from rlaif_sdk.training.difficulty import load_measured_run, measure_difficulty

    llama.save_pretrained(tmp_path / "start")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'critic' %}{{ raise_exception('no critic') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(
        "def plain(prompts, completions):\n"
        "    return [float(prompt == [{'role': 'user', 'content': 'w1'}]) for prompt in prompts]\n"
    )
    blocks = [{"role": "user", "content": [{"type": "text", "text": "w1"}]}]
    run: dict[str, Any] = {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out_rows": 1},
        "composition": {"rewards": {"plain": {"use": str(tmp_path / "rewards.py") + ":plain"}}},
        "grpo": {"max_completion_length": 4, "per_device_eval_batch_size": 4, "use_cpu": True},
    }
    lines = [json.dumps({"prompt": blocks})] * 3
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    rows = [*measure_difficulty(load_measured_run(run), completions=2)]
    assert [row["prompt"] for row in rows] == [blocks] * 3
    assert [row["reward_mean"] for row in rows] == [1.0, 1.0, None]
    lines[1] = json.dumps({"prompt": [{"role": "critic", "content": "w1"}]})
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"the prompts:2: .*no critic"):
        next(measure_difficulty(load_measured_run(run), completions=2))


def prompts_file(tmp_path: Path, **columns: list[Any]) -> DataSettings:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    lines = [json.dumps({"prompt": f"w{index}", **row}) for index, row in enumerate(rows)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    return DataSettings(train="prompts.jsonl", held_out_rows=1, curriculum=settings(by="easy", max_mean=0.8))


def test_a_data_setting_arranges_the_prompts_to_train_on(tmp_path: Path) -> None:
    """The held-out prompts stay what they are, measured or not."""
    pytest.importorskip("datasets")
    from rlaif_sdk.training.data import load_prompts

    data = prompts_file(tmp_path, reward_mean=[0.2, 0.9, 0.6, None, None], reward_spread=[0.1, 0.1, None, 0.1, None])
    train, held_out = load_prompts(data, tmp_path)
    assert list(train["prompt"]) == ["w2", "w0"]
    assert list(held_out["prompt"]) == ["w4"]


def test_prompts_that_were_not_measured_are_refused(tmp_path: Path) -> None:
    """The message names the command that measures them."""
    pytest.importorskip("datasets")
    from rlaif_sdk.training.data import load_prompts

    with pytest.raises(DataError, match=r"'reward_mean'.*rlaif difficulty"):
        load_prompts(prompts_file(tmp_path, other=[1, 2, 3]), tmp_path)


def test_a_curriculum_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    """Before any model loads."""
    pytest.importorskip("datasets")
    from rlaif_sdk.training.data import load_prompts

    with pytest.raises(ConfigError, match="none of 2 prompts"):
        load_prompts(prompts_file(tmp_path, reward_mean=[0.9] * 3, reward_spread=[0.1] * 3), tmp_path)
