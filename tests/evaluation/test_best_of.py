"""Best of n by a composition, with a witness: exact over subsets, unbiased, and turning where it is over-optimised."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlaif_sdk import Composer, reward
from rlaif_sdk.cli.main import app
from rlaif_sdk.composer import Component
from rlaif_sdk.evaluation import evaluate_best_of
from rlaif_sdk.evaluation.best_of import best_of_kl, best_of_probabilities
from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.tables import write_table

CODE = "def pays(completions, pays):\n    return pays\n\n\ndef worth(completions, worth):\n    return worth\n"


def read(column: str) -> Any:
    def read_column(completions: list[str], **columns: list[float]) -> list[float]:
        return columns[column]

    return read_column


def composer(**settings: Any) -> Composer:
    """The total is the column ``pays``, the witness the column ``worth``."""
    return Composer({"pays": read("pays"), "worth": Component(read("worth"), weight=0)}, **settings)


def rows(pays: Any, worth: Any, *, per_prompt: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"p{place // per_prompt}", "completion": f"c{place}", "pays": pay, "worth": value}
        for place, (pay, value) in enumerate(zip(pays, worth, strict=True))
    ]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7), st.data())
def test_a_completion_is_chosen_as_often_as_over_all_subsets(totals: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(totals)))
    counts = np.zeros(len(totals))
    subsets = [*itertools.combinations(range(len(totals)), n)]
    for subset in subsets:
        best = [place for place in subset if totals[place] == max(totals[other] for other in subset)]
        counts[best] += 1 / len(best)
    found = best_of_probabilities(np.array(totals, dtype=float), n)
    assert found.sum() == pytest.approx(1)
    # ties within a subset are shared; over all subsets equal totals are chosen equally often
    assert found == pytest.approx(counts / len(subsets))


def test_the_divergence_is_that_of_choosing_among_n_different_answers() -> None:
    """The policy draws from 2,000 answers that are all different: best of n has the density n (rank / size)^(n - 1)."""
    assert best_of_kl(1) == 0.0
    size, n = 2000, 8
    ranks = np.arange(1, size + 1) / size
    density = ranks**n - (ranks - 1 / size) ** n
    assert (density * np.log(density * size)).sum() == pytest.approx(best_of_kl(n), abs=0.01)


def test_the_total_rises_and_a_witness_that_it_overpays_turns() -> None:
    """What is worth most is paid in the middle: the witness peaks and falls, the total rises throughout."""
    draw = np.random.default_rng(0)
    pays = draw.normal(size=64 * 40)
    table = rows(pays, -((pays - 1) ** 2), per_prompt=64)
    with composer() as made:
        curve = evaluate_best_of(made, table, witness="worth")
    assert [point.n for point in curve.points] == [1, 2, 4, 8, 16, 32, 64]
    totals = [point.total.value for point in curve.points]
    assert totals == sorted(totals)
    # the mean of the highest of n standard normal values
    assert totals[3] == pytest.approx(1.4236, abs=0.1)
    assert curve.peak.n in (4, 8)
    assert curve.loss is not None
    assert curve.loss.low > 0
    assert curve.points[-1].witness is not None
    assert curve.loss.value == pytest.approx(curve.peak.witness.value - curve.points[-1].witness.value, abs=0.2)


def test_a_witness_that_agrees_loses_nothing() -> None:
    draw = np.random.default_rng(1)
    worth = draw.normal(size=16 * 40)
    with composer() as made:
        curve = evaluate_best_of(made, rows(worth + draw.normal(size=640), worth, per_prompt=16), witness="worth")
    assert curve.loss is not None
    assert curve.peak.n == 16
    assert curve.loss.value == pytest.approx(0, abs=0.05)


def test_a_cost_that_is_the_witness_is_better_where_it_is_lower() -> None:
    cost = Component(reward(higher_is_better=False)(read("worth")), weight=0)
    with Composer({"pays": read("pays"), "worth": cost}) as made:
        curve = evaluate_best_of(made, rows([1, 2, 1, 2], [5, 3, 5, 3], per_prompt=2), witness="worth")
    assert [point.witness.value for point in curve.points if point.witness] == [-4, -3]


def test_prompts_with_too_few_completions_are_left_out_and_counted() -> None:
    table = rows([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], per_prompt=4)
    with composer() as made:
        assert evaluate_best_of(made, table).points[-1].n == 2
        curve = evaluate_best_of(made, table, most=4)
    assert (curve.prompts, curve.skipped, curve.points[-1].total.value, curve.loss) == (1, 1, 4.0, None)


def test_completions_of_one_prompt_are_those_of_a_group_where_there_is_one() -> None:
    table = [
        {**row, "prompt": "p", "group": place // 2}
        for place, row in enumerate(rows([1, 2, 3, 4], [0] * 4, per_prompt=4))
    ]
    with composer() as made:
        assert evaluate_best_of(made, table).prompts == 2


def test_an_unscored_completion_is_none_of_them() -> None:
    with composer() as made:
        curve = evaluate_best_of(made, rows([1, 2, 3, 9], [1, 2, 3, math.nan], per_prompt=4), witness="worth")
    assert (curve.unscored, curve.rows, curve.points[-1].n, curve.points[-1].total.value) == (1, 4, 3, 3.0)
    assert curve.reason


@pytest.mark.parametrize(
    ("witness", "said"),
    [("pays", "the total depends on 'pays'"), ("other", "there is no reward 'other'")],
)
def test_a_witness_that_is_none_is_refused(witness: str, said: str) -> None:
    with composer() as made, pytest.raises(ConfigError, match=said):
        evaluate_best_of(made, rows([1, 2], [1, 2], per_prompt=2), witness=witness)


@pytest.mark.parametrize(
    "looks",
    [
        {"gates": [{"reward": "worth", "floor": -1.0, "min": 0.0}]},
        {"constraints": [{"reward": "worth", "min": 0.0}]},
        {"when": {"reward": "worth", "min": 0.0}, "otherwise": 0.0},
    ],
)
def test_a_witness_that_the_composition_looks_at_is_none(tmp_path: Path, looks: dict[str, Any]) -> None:
    """Its weight of 0 is not all that there is to it."""
    (tmp_path / "r.py").write_text(CODE)
    own, whole = (looks, {}) if "when" in looks else ({}, looks)
    rewards = {"pays": {"use": "./r.py:pays", **own}, "worth": {"use": "./r.py:worth", "weight": 0}}
    (tmp_path / "c.yaml").write_text(json.dumps({"rewards": rewards, **whole}))
    with Composer.from_config(tmp_path / "c.yaml") as made, pytest.raises(ConfigError, match="the total depends"):
        evaluate_best_of(made, rows([1, 2], [1, 2], per_prompt=2), witness="worth")


@pytest.mark.parametrize(
    ("table", "most", "said"),
    [
        ([], None, "has no rows"),
        (rows([1, 2], [1, 2], per_prompt=1), None, "no prompt has 2 scored completions"),
        (rows([1, 2], [1, 2], per_prompt=2), 8, "no prompt has 8 scored completions; the most that one has is 2"),
        ([{"prompt": "p", "pays": 1, "worth": 1}], None, "completion"),
    ],
)
def test_a_table_that_shows_nothing_is_refused(table: list[dict[str, Any]], most: int | None, said: str) -> None:
    with composer() as made, pytest.raises(DataError, match=said):
        evaluate_best_of(made, table, most=most)


def test_the_command_prints_the_curve_and_writes_a_page(tmp_path) -> None:
    (tmp_path / "r.py").write_text(CODE)
    (tmp_path / "c.yaml").write_text(
        "rewards:\n  pays: {use: './r.py:pays'}\n  worth: {use: './r.py:worth', weight: 0}\n"
    )
    draw = np.random.default_rng(0)
    pays = draw.normal(size=16 * 20)
    write_table(rows(pays.tolist(), (-pays).tolist(), per_prompt=16), tmp_path / "candidates.jsonl")
    arguments = ["eval", "best-of", str(tmp_path / "candidates.jsonl"), "--config", str(tmp_path / "c.yaml")]
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, [*arguments, "--witness", "worth", "--report", str(page)])
    assert result.exit_code == 0, result.output
    assert "the total is over-optimised" in " ".join(result.stdout.split())
    assert "Best of n" in page.read_text()
    found = json.loads(CliRunner().invoke(app, [*arguments, "--witness", "worth", "--json"]).stdout)
    assert [point["n"] for point in found["points"]] == [1, 2, 4, 8, 16]
    assert found["peak"] == 1


def test_the_command_exits_with_3_where_some_are_unscored(tmp_path) -> None:
    (tmp_path / "r.py").write_text(
        "def r(completions):\n    return [None if c == 'x' else float(len(c)) for c in completions]\n"
    )
    (tmp_path / "c.yaml").write_text("rewards:\n  r: {use: './r.py:r'}\n")
    answers = ("a", "bb", "x")
    write_table([{"prompt": "p", "completion": answer} for answer in answers], tmp_path / "candidates.jsonl")
    arguments = ["eval", "best-of", str(tmp_path / "candidates.jsonl"), "--config", str(tmp_path / "c.yaml")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    assert "1 of 3 rows are unscored" in result.stderr


def test_a_reward_that_is_asked_where_it_matters_leaves_the_witness_one(tmp_path) -> None:
    """An evaluation asks about every row, so the total depends on no reward without a weight."""
    (tmp_path / "r.py").write_text(
        "from rlaif_sdk import reward\n"
        "def pays(completions):\n    return [float(len(c)) for c in completions]\n"
        "@reward(range=(0, 1))\ndef costly(completions):\n    return [len(c) % 2 for c in completions]\n"
        "def worth(completions):\n    return [-float(len(c)) for c in completions]\n"
    )
    rewards = {"pays": {}, "costly": {"weight": 0.1, "ask": "advantage"}, "worth": {"weight": 0}}
    config = {"rewards": {name: {"use": f"{tmp_path / 'r.py'}:{name}", **part} for name, part in rewards.items()}}
    table = [{"prompt": "p", "completion": "a" * size} for size in range(1, 5)]
    with Composer.from_config(config) as made:
        curve = evaluate_best_of(made, table, witness="worth")
    assert [point.total.value for point in curve.points][-1] == pytest.approx(4.0)
    assert [point.witness.value for point in curve.points][-1] == -4.0  # type: ignore[union-attr]
