"""A sweep over weights: which points there are, what is measured at each, and how it resumes after a kill."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from rlaif_sdk import ConfigError  # noqa: E402
from rlaif_sdk.cli import app  # noqa: E402
from rlaif_sdk.training import sweep as sweep_run  # noqa: E402
from rlaif_sdk.training.sweep import (  # noqa: E402
    PointResult,
    SweepConfig,
    SweepResult,
    best_rows,
    candidates,
    check_sweep,
    load_sweep,
    run_sweep,
)

REWARDS = """\
from rlaif_sdk import reward


def low(completions):
    return [sum(int(word[1:]) < 14 for word in text.split() if word[1:].isdigit()) / 8 for text in completions]


def high(completions):
    return [sum(int(word[1:]) >= 14 for word in text.split() if word[1:].isdigit()) / 8 for text in completions]


@reward(higher_is_better=False)
def length(completions):
    return [float(len(text.split())) for text in completions]
"""


@pytest.fixture
def config(tmp_path: Path, llama: Any, tokenizer: Any) -> dict[str, Any]:
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(REWARDS)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"w{row}"}) + "\n" for row in range(12)))
    rewards = {name: {"use": f"{tmp_path}/rewards.py:{name}"} for name in ("low", "high", "length")}
    run = {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "prompts.jsonl"), "held_out_rows": 6},
        "composition": {"rewards": {**rewards, "length": {**rewards["length"], "weight": 0}}},
        "ppo": {
            "max_steps": 1,
            "per_device_train_batch_size": 4,
            "steps_per_generation": 1,
            "per_device_eval_batch_size": 8,
            "max_completion_length": 6,
            "use_cpu": True,
        },
    }
    return {
        "run": run,
        "weights": {"low": [0, 1], "high": [0.5, 1]},
        "seeds": [0, 1],
        "output": str(tmp_path / "sweep"),
    }


def test_a_grid_has_every_combination_once():
    """In order, duplicates left out."""
    config = SweepConfig(run="r", weights={"a": [0, 1, 1], "b": [2]})
    assert config.combinations() == [{"a": 0, "b": 2}, {"a": 1, "b": 2}]


def test_a_random_search_is_reproducible_and_can_be_made_longer():
    """More points keep the first ones, so that what is measured is not lost."""
    ranges = {"a": {"min": -1, "max": 1}, "b": [1, 2, 3]}
    first = SweepConfig(run="r", weights=ranges, search="random", points=4).combinations()
    longer = SweepConfig(run="r", weights=ranges, search="random", points=9).combinations()
    assert longer[:4] == first
    assert all(-1 <= point["a"] <= 1 and point["b"] in {1, 2, 3} for point in longer)
    assert SweepConfig(run="r", weights=ranges, search="random", search_seed=1).combinations()[:4] != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"lo": [1]}}, r"weights: the run has no reward 'lo' \(its rewards: low, high, length\)"),
        ({"objectives": ["low", "hi"]}, "objectives: the run has no reward 'hi'"),
        ({"weights": {"low": {"min": 0, "max": 1}}}, "a grid needs lists of weights, and 'low' has a range"),
        ({"weights": {"low": {"min": 2, "max": 1}}, "search": "random"}, "'min' is greater than 'max'"),
        ({"weights": {"low": []}}, "no weights of 'low' to try"),
        ({"weights": {"low": [0], "high": [0]}}, "every weight is 0"),
        ({"seeds": [0, 0]}, "a seed stands twice"),
        ({"seed": [0]}, r"seed: unknown key \(did you mean 'seeds'\?\)"),
        ({"completions": "c.jsonl"}, "'completions' go with method best_of"),
        ({"reference": {"low": 0}}, "reference: has no value for the objective 'high'"),
    ],
)
def test_a_sweep_is_checked_before_anything_runs(config, change, message):
    """Every point's composition too."""
    with pytest.raises(ConfigError, match=message):
        load_sweep(config | change)


def test_a_check_tells_a_wrong_setting_beside_a_missing_file(config):
    """All at once, and before a reward is called that may cost."""
    config["run"]["ppo"]["max_stepss"] = 3
    config["run"]["data"]["train"] = "nowhere.jsonl"
    setting, file = check_sweep(load_sweep(config)).problems
    assert "max_stepss" in str(setting)
    assert "nowhere.jsonl" in str(file)


def result_of(points: dict[str, list[tuple[float, float]]], **options: Any) -> SweepResult:
    """Points by name, each with its (helpful, harm) by seed; harm is a cost."""
    made = [
        PointResult({"w": index}, {"helpful": [h for h, _ in values], "harm": [c for _, c in values]})
        for index, values in enumerate(points.values())
    ]
    return SweepResult({"helpful": True, "harm": False}, made, [0, 1], **options)


def test_the_frontier_knows_that_less_of_a_cost_is_better():
    """The middle point is dominated; a point without a score is on no frontier."""
    result = result_of({"a": [(3, 3), (3, 3)], "b": [(1, 3), (3, 3)], "c": [(1, 1)], "d": [(math.nan, 0)]})
    assert result.frontier == [True, False, True, False]
    assert result.points[1].interval("helpful") == (2.0, pytest.approx(12.706, abs=1e-3))
    assert math.isnan(result.points[2].interval("helpful")[1])


def test_the_hypervolume_is_measured_from_a_stated_point():
    """In the rewards' own units: two rectangles that overlap, by hand."""
    result = result_of({"a": [(3, 3)], "c": [(1, 1)]}, reference={"helpful": 0, "harm": 4})
    assert result.hypervolume() == (5.0, {"helpful": 0, "harm": 4})
    volume, reference = result_of({"a": [(3, 3)], "c": [(1, 1)]}).hypervolume()
    assert (volume, reference) == (0.0, {"helpful": 1, "harm": 3})


def test_the_best_answer_of_each_prompt_is_chosen():
    """The first of equals; unscored answers never, and a prompt without a score has none."""
    import numpy as np

    totals = np.array([1.0, np.nan, 2.0, 2.0, np.nan, -1.0])
    assert list(best_rows(totals, [0, 0, 0, 0, 1, 2])) == [2, 5]


def test_trained_points_are_measured_compared_and_kept(config, monkeypatch):
    """A model and a manifest with its own weights at each point, a table for people and one for programs."""
    config |= {"weights": {"low": [0, 1]}, "objectives": ["low", "high", "length"], "seeds": [0]}
    lines: list[str] = []
    result = run_sweep(config, report=lines.append)
    folder = Path(config["output"])
    assert [point.weights for point in result.points] == [{"low": 0}, {"low": 1}]
    assert result.objectives == {"low": True, "high": True, "length": False}
    at_one = folder / "points" / "low=1" / "seed-0"
    assert (at_one / "model" / "config.json").is_file()
    manifest = json.loads((at_one / "run.json").read_text())
    assert manifest["config"]["composition"]["rewards"]["low"]["weight"] == 1
    samples = [json.loads(line) for line in (at_one / "samples.jsonl").read_text().splitlines()]
    scores = [sample["after"]["rewards"]["low"]["raw"] for sample in samples]
    assert result.points[1].by_seed["low"] == [pytest.approx(sum(scores) / 6)]
    with (folder / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["weight/low"] for row in rows] == ["0.0", "1.0"]
    assert float(rows[1]["low"]) == pytest.approx(result.points[1].by_seed["low"][0])
    written = json.loads((folder / "sweep.json").read_text())
    assert [point["frontier"] for point in written["points"]] == result.frontier

    monkeypatch.setattr(sweep_run, "train", lambda *_, **__: pytest.fail("a point was measured again"))
    again = run_sweep(config, report=lines.append)
    assert again.points == result.points
    assert lines[-1] == "point 2 of 2: low=1, seed 0 (done)"


def test_a_killed_sweep_resumes_at_the_point_where_it_was(config, monkeypatch):
    """A point is resumed from its checkpoint, though its model is saved; without one it begins anew."""
    config |= {"weights": {"low": [0, 1]}, "seeds": [0], "keep_models": False}
    config["run"]["ppo"] |= {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    real = sweep_run.train
    resumed: list[bool] = []

    def killed(method: str, run: Any, **options: Any) -> Any:
        result = real(method, run, **options)
        if run.weights == {"low": 1.0}:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(sweep_run, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config)
    left = Path(config["output"]) / "points" / "low=1" / "seed-0"
    assert (left / "model").is_dir()
    assert not (left.parents[1] / "low=0" / "seed-0" / "model").exists(), "keep_models is false"

    def counted(method: str, run: Any, **options: Any) -> Any:
        assert run.weights == {"low": 1.0}
        resumed.append(options["resume"])
        return real(method, run, **options)

    monkeypatch.setattr(sweep_run, "train", counted)
    first = run_sweep(config)
    assert resumed == [True], "a model without a measurement"
    (left / "measured.json").unlink()
    assert run_sweep(config).points == first.points
    assert resumed == [True, True], "a checkpoint without a model"
    (left / "measured.json").unlink()
    shutil.rmtree(left / "checkpoints")
    assert run_sweep(config).points == first.points
    assert resumed == [True, True, False]


def test_a_folder_with_points_of_another_run_is_refused(config):
    """What differs is named; more weights, seeds and objectives are welcome."""
    config |= {"method": "best_of", "candidates": 2, "seeds": [0]}
    run_sweep(config)
    wider = config | {"weights": {"low": [0, 1, 2], "high": [0.5, 1]}, "seeds": [0, 1], "objectives": ["low", "length"]}
    assert len(run_sweep(wider).points) == 6
    config["run"]["ppo"]["max_completion_length"] = 4
    with pytest.raises(ConfigError, match=r"another sweep:\n  run\.ppo\.max_completion_length: 6 → 4"):
        run_sweep(config)


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("prompts.jsonl", '"w11"', '"w12"', r"held-out prompts: \w{8}… → \w{8}…"),
        ("rewards.py", "< 14", "< 15", r"code\..*rewards\.py: \w{8}… → \w{8}…"),
    ],
)
def test_points_of_other_rows_or_code_are_not_mixed_in_unless_told(config, tmp_path, file, old, new, named):
    """The config is the same and what it names is not: it is named, or noted where the sweep is told to resume."""
    config |= {"method": "best_of", "candidates": 2, "seeds": [0]}
    run_sweep(config)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=rf"(?s)another sweep:\n  {named}.*--allow-changed"):
        run_sweep(config)
    kept = (tmp_path / "sweep" / "points" / "high=1,low=1" / "seed-0" / "measured.json").read_text()
    run_sweep(dataclasses.replace(load_sweep(config), allow_changed=True))
    assert (tmp_path / "sweep" / "points" / "high=1,low=1" / "seed-0" / "measured.json").read_text() == kept
    (noted,) = json.loads((tmp_path / "sweep" / "__job__" / "identity.json").read_text())["changed"]
    assert re.match(named, noted[0])
    run_sweep(config)


def test_new_points_choose_among_answers_to_the_prompts_that_there_are(config, tmp_path):
    """Told to resume with other held-out prompts, or other sampling, a sweep answers anew and keeps the old answers."""
    config |= {"method": "best_of", "candidates": 2, "seeds": [0]}
    run_sweep(config)
    (old,) = (tmp_path / "sweep").glob("candidates-seed0-*.jsonl")
    kept = old.read_text()
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(prompts.read_text().replace('"w11"', '"w12"'))
    wider = config | {"weights": {"low": [0, 1, 2], "high": [0.5, 1]}}
    run_sweep(dataclasses.replace(load_sweep(wider), allow_changed=True))
    (new,) = {*(tmp_path / "sweep").glob("candidates-seed0-*.jsonl")} - {old}
    assert old.read_text() == kept
    asked = [{json.loads(line)["prompt"] for line in file.read_text().splitlines()} for file in (old, new)]
    assert asked[0] ^ asked[1] == {"w11", "w12"}
    wider["run"]["ppo"]["max_completion_length"] = 4
    wider["weights"]["low"].append(3)
    run_sweep(dataclasses.replace(load_sweep(wider), allow_changed=True))
    assert len([*(tmp_path / "sweep").glob("candidates-seed0-*.jsonl")]) == 3


def test_choosing_among_answers_goes_by_what_it_reads(config, tmp_path):
    """Neither the training prompts nor the rewards of an evaluation: they may change."""
    config |= {"method": "best_of", "candidates": 2, "seeds": [0]}
    (tmp_path / "judges.py").write_text(REWARDS)
    config["run"]["evaluation"] = {"rewards": {"low": {"use": f"{tmp_path}/judges.py:low"}}}
    first = run_sweep(config)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(prompts.read_text().replace('"w2"', '"w3"'))
    (tmp_path / "judges.py").write_text(REWARDS.replace("< 14", "< 15"))
    assert run_sweep(config).points == first.points
    config["run"]["evaluation"]["rewards"]["low"]["weight"] = 2
    assert run_sweep(config).points == first.points
    del config["run"]["evaluation"]
    assert run_sweep(config).points == first.points


def test_trained_points_of_other_training_prompts_are_not_mixed_in(config, tmp_path):
    """A trained policy follows from them."""
    config |= {"weights": {"low": [1]}, "objectives": ["low", "high"], "seeds": [0]}
    run_sweep(config)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(prompts.read_text().replace('"w2"', '"w3"'))
    with pytest.raises(ConfigError, match=r"another sweep:\n  training prompts: \w{8}… → \w{8}…"):
        run_sweep(config)


def test_other_answers_under_the_same_name_are_noticed_by_the_command(config, tmp_path):
    """Their points are other ones; --allow-changed resumes all the same."""
    table = tmp_path / "answers.jsonl"
    config |= {"seeds": [0], "method": "best_of", "completions": str(table)}
    (tmp_path / "sweep.yaml").write_text(json.dumps(config))
    runs = []
    for texts, options in (("w1 w20", []), ("w2 w20", []), ("w2 w20", ["--allow-changed"])):
        answers = [json.dumps({"prompt": "p", "completion": text}) for text in texts.split()]
        table.write_text("\n".join(answers))
        runs.append(CliRunner().invoke(app, ["sweep", str(tmp_path / "sweep.yaml"), *options]))
    assert [done.exit_code for done in runs] == [0, 1, 0]
    assert isinstance(runs[1].exception, ConfigError)
    assert "completions: " in str(runs[1].exception)


def test_best_of_n_chooses_what_the_weights_ask_for(config):
    """The greater the weight of a reward, the more of it the chosen answers have; answers are sampled once a seed."""
    config |= {"method": "best_of", "candidates": 6, "weights": {"low": [0, 1], "high": [0, 1]}}
    config["weights"] = {"low": [0.001, 1], "high": [0.001, 1]}
    result = run_sweep(config)
    mean = {(p.weights["low"], p.weights["high"]): p for p in result.points}
    for_low, for_high = mean[1, 0.001], mean[0.001, 1]
    assert for_low.interval("low")[0] > for_high.interval("low")[0]
    assert for_high.interval("high")[0] > for_low.interval("high")[0]
    folder = Path(config["output"])
    (file,) = folder.glob("candidates-seed0-*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 6 * 6
    chosen = {}
    for row in rows:
        value = sum(int(w[1:]) < 14 for w in row["completion"].split() if w[1:].isdigit()) / 8
        chosen[row["prompt"]] = max(chosen.get(row["prompt"], 0), value)
    assert for_low.by_seed["low"][0] == pytest.approx(sum(chosen.values()) / 6, abs=0.03)


def test_the_command_ranks_ready_answers_without_a_model(config, tmp_path):
    """``--score-only`` takes a table; the frontier is printed, written and drawn."""
    answers = [("p", "w1 w2 w3"), ("p", "w20 w21 w22"), ("p", "w1 w20"), ("q", "w1 w1 w1 w1"), ("q", "w25")]
    table = tmp_path / "answers.jsonl"
    table.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in answers))
    config["run"]["model"]["name"] = "no/such-model"
    config |= {"seeds": [0], "weights": {"low": [0.1, 1], "high": [0.1, 1]}}
    (tmp_path / "sweep.yaml").write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["sweep", str(tmp_path / "sweep.yaml"), "--score-only", str(table)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "low=1, high=0.1" in done.output
    assert "Hypervolume" in done.output
    folder = tmp_path / "sweep"
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")
    points = json.loads((folder / "sweep.json").read_text())["points"]
    means = {tuple(point["weights"].values()): point["rewards"] for point in points}
    assert means[1, 0.1]["low"]["mean"] == pytest.approx((3 / 8 + 4 / 8) / 2)
    assert means[0.1, 1]["high"]["mean"] == pytest.approx((3 / 8 + 1 / 8) / 2)


def test_answers_whose_group_is_null_share_it_with_no_other(config, tmp_path):
    """Named groups and prompts without the column stay together, an explicit null stands alone."""
    named = [
        {"prompt": "w1", "completion": f"w{row}", "rlaif_prompt": group} for row, group in enumerate([None, None, 1, 1])
    ]
    plain = [{"prompt": "w2", "completion": f"w{row}"} for row in range(2)]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*named, *plain]))
    config |= {"method": "best_of", "completions": str(file), "seeds": [0]}
    del config["run"]["data"]["held_out_rows"]
    pool = candidates(load_sweep(config), 0, lambda _: None)
    assert len(set(pool.group)) == 4
    assert pool.group[0] != pool.group[1]
    assert pool.group[2] == pool.group[3]
    assert pool.group[4] == pool.group[5]


def test_a_composition_in_its_own_file_is_varied_too(config, tmp_path):
    """Its paths stay relative to that file, and the file is left as it was."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "rewards.py").rename(tmp_path / "parts" / "rewards.py")
    text = "rewards:\n  low: {use: 'rewards.py:low', weight: 5}\n  high: {use: 'rewards.py:high'}\n"
    (tmp_path / "parts" / "c.yaml").write_text(text)
    config["run"]["composition"] = str(tmp_path / "parts" / "c.yaml")
    sweep = load_sweep(config)
    with sweep.run_of({"low": 0.5}, 0, tmp_path / "p").composer() as composer:
        assert composer.weights == {"low": 0.5, "high": 1.0}
    assert (tmp_path / "parts" / "c.yaml").read_text() == text
