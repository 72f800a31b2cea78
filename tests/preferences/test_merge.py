"""Labels of several sources merged into one table, and sources mixed in proportions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlaif_sdk import ConfigError, DataError
from rlaif_sdk.cli.main import app
from rlaif_sdk.preferences.merge import MergeConfig, merge_preferences, mixed_probability
from rlaif_sdk.preferences.pipeline import load_make_job
from tests.preferences.making import rows_of, write_rows

Row = dict[str, Any]


def row(prompt: str, chosen: Any, rejected: Any, prob: float | None = None, **extra: Any) -> Row:
    label = {} if prob is None else {"chosen_prob": prob}
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **label, **extra}


@pytest.fixture
def merge(tmp_path: Path) -> Any:
    """A function that merges tables given as rows, by name."""

    def run(tables: dict[str, list[Row]], sources: dict[str, Row] | None = None, **settings: Any) -> Any:
        for name, rows in tables.items():
            write_rows(tmp_path / f"{name}.jsonl", rows)
        listed = {name: {"file": f"{name}.jsonl", **(sources or {}).get(name, {})} for name in tables}
        (tmp_path / "merge.yaml").write_text(yaml.safe_dump({"sources": listed, **settings}, sort_keys=False))
        return merge_preferences(load_make_job(MergeConfig, tmp_path / "merge.yaml"))

    return run


def test_people_take_precedence_over_a_model(merge: Any) -> None:
    """The first source's label stands, in whatever order the other shows the responses; conflicts are counted."""
    human = [row("q1", "a", "b", note="h"), row("q2", "a", "b")]
    model = [row("q1", "b", "a", 0.9), row("q2", "a", "b", 0.7), row("q3", "x", "y", 0.6)]
    result = merge({"human": human, "model": model})
    first, second, third = rows_of(result.pairs)
    assert (first["chosen"], first["chosen_prob"], first["note"]) == ("a", 1.0, "h")
    assert first["sources"] == ["human", "model"]
    assert first["source_probs"] == pytest.approx([1.0, 0.1])
    assert (first["conflict"], second["conflict"], third["conflict"]) == (True, False, False)
    assert (third["chosen"], third["chosen_prob"]) == ("x", 0.6)
    assert result.counts["conflicts_between_sources"] == 1
    assert result.counts["pairs_labelled_twice"] == 2
    assert (result.counts["pairs/human"], result.counts["pairs/model"]) == (2, 1)


def test_the_order_of_the_sources_is_the_precedence(merge: Any) -> None:
    """The same tables the other way round: the model's label stands."""
    result = merge({"model": [row("q", "b", "a", 0.9)], "human": [row("q", "a", "b")]})
    [merged] = rows_of(result.pairs)
    assert (merged["chosen"], merged["chosen_prob"]) == ("b", 0.9)


def test_a_mixture_averages_by_weight(merge: Any) -> None:
    """Three parts sure of a, one part of b at 0.8: 0.8 for a."""
    tables = {"human": [row("q", "a", "b")], "model": [row("q", "b", "a", 0.8)]}
    [merged] = rows_of(merge(tables, {"human": {"weight": 3}}, rule="mixture").pairs)
    assert (merged["chosen"], merged["chosen_prob"]) == ("a", pytest.approx(0.8))
    [merged] = rows_of(merge(tables, {"model": {"weight": 9}}, rule="mixture").pairs)
    assert (merged["chosen"], merged["rejected"], merged["chosen_prob"]) == ("b", "a", pytest.approx(0.72))
    assert merged["source_probs"] == pytest.approx([0.0, 0.8])


def test_several_people_of_one_source_are_averaged(merge: Any) -> None:
    """Two of three prefer a; a disagreement within a source is counted apart."""
    result = merge({"human": [row("q", "a", "b"), row("q", "b", "a"), row("q", "a", "b")]})
    [merged] = rows_of(result.pairs)
    assert (merged["chosen"], merged["chosen_prob"]) == ("a", pytest.approx(2 / 3))
    assert (result.counts["conflicts_within_source"], result.counts["conflicts_between_sources"]) == (1, 0)


def test_a_margin_is_turned_with_its_pair(merge: Any) -> None:
    """A label below one half turns the pair round, and with it the margin's sign and the number of the chosen one."""
    [merged] = rows_of(merge({"model": [row("q", "a", "b", 0.2, margin=0.5, chosen_response=1)]}).pairs)
    assert (merged["chosen"], merged["chosen_prob"], merged["margin"]) == ("b", 0.8, -0.5)
    assert merged["chosen_response"] == 2


def test_text_and_a_message_are_the_same_response(merge: Any) -> None:
    """A source in messages and one in text meet."""
    turn = [{"role": "assistant", "content": "a"}]
    result = merge({"one": [row("q", turn, "b")], "two": [row("q", "a", "b")]})
    assert result.counts["pairs"] == 1


def test_sources_are_mixed_in_proportion(merge: Any) -> None:
    """A quarter harmlessness by a model, the rest helpfulness by people; the seed draws, and shuffles."""
    tables = {
        "helpful": [row(f"h{n}", "a", "b") for n in range(90)],
        "harmless": [row(f"s{n}", "a", "b", 0.7) for n in range(20)],
    }
    shares = {"helpful": {"share": 0.75}, "harmless": {"share": 0.25}}
    result = merge(tables, shares)
    rows = rows_of(result.pairs)
    assert (result.counts["pairs/helpful"], result.counts["pairs/harmless"]) == (60, 20)
    assert rows == rows_of(merge(tables, shares).pairs) != rows_of(merge(tables, shares, seed=1).pairs)
    assert len({one["prompt"][0] for one in rows[:30]}) == 2
    assert [merge(tables, shares, rows=10).counts[f"pairs/{name}"] for name in tables] == [8, 2]
    with pytest.raises(DataError, match=r"'harmless' is to give 25 of 100 rows and has 20"):
        merge(tables, shares, rows=100)


@given(st.dictionaries(st.sampled_from("abcde"), st.tuples(st.floats(0, 1), st.floats(0.01, 100)), min_size=1))
def test_a_mixture_lies_between_its_parts(labels: dict[str, tuple[float, float]]) -> None:
    """Never beyond the surest source, and the same for the other response: P(b) = 1 - P(a)."""
    probs = {name: prob for name, (prob, _) in labels.items()}
    weights = {name: weight for name, (_, weight) in labels.items()}
    mixed = mixed_probability(probs, weights)
    assert min(probs.values()) - 1e-9 <= mixed <= max(probs.values()) + 1e-9
    turned = mixed_probability({name: 1 - prob for name, prob in probs.items()}, weights)
    assert mixed + turned == pytest.approx(1)


@given(
    st.lists(
        st.tuples(st.sampled_from("pq"), st.sampled_from(["ab", "ba", "ac", "ca"]), st.floats(0, 1)),
        min_size=1,
        max_size=12,
    )
)
def test_a_pair_turned_round_with_its_label_changes_nothing(tmp_path_factory: Any, labels: Any) -> None:
    """(a, b) at p and (b, a) at 1 - p are one label: the merged probabilities are equal."""

    def merged(turned: bool) -> dict[tuple[str, frozenset[str]], tuple[str, float]]:
        folder = tmp_path_factory.mktemp("merge")
        rows = [
            row(prompt, pair[1], pair[0], 1 - prob) if turned else row(prompt, pair[0], pair[1], prob)
            for prompt, pair, prob in labels
        ]
        half = len(rows) // 2
        for name, part in (("one", rows[:half]), ("two", rows[half:])):
            write_rows(folder / f"{name}.jsonl", part)
        sources = {name: {"file": str(folder / f"{name}.jsonl")} for name in ("one", "two")}
        job = {"sources": sources, "rule": "mixture", "output": str(folder / "out")}
        found = rows_of(merge_preferences(load_make_job(MergeConfig, job)).pairs)
        return {
            (one["prompt"], frozenset((one["chosen"], one["rejected"]))): (
                one["chosen_prob"] if one["chosen"] < one["rejected"] else 1 - one["chosen_prob"]
            )
            for one in found
        }

    straight, turned = merged(turned=False), merged(turned=True)
    assert straight.keys() == turned.keys()
    assert all(value == pytest.approx(turned[key]) for key, value in straight.items())


@pytest.mark.parametrize(
    ("sources", "settings", "problem"),
    [
        ({"one": {"share": 0.5}}, {}, "some have none"),
        ({"one": {"share": 0.5}, "two": {"share": 0.4}}, {}, "add up to 0.9"),
        ({}, {"rows": 5}, "rows goes with shares"),
        ({"one": {"weight": 0}}, {}, "weight"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(merge: Any, sources: Any, settings: Any, problem: str) -> None:
    """Before a table is read."""
    with pytest.raises(ConfigError, match=problem):
        merge({"one": [row("q", "a", "b")], "two": [row("q", "a", "b")]}, sources, **settings)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"prompt": "q", "chosen": "a"}, "no column 'rejected'"),
        (row("q", "a", "b", 1.5), "must be a probability"),
        (row("q", "a", "a"), "both responses are the same"),
    ],
)
def test_a_bad_row_is_named(merge: Any, bad: Row, problem: str) -> None:
    """The file and the row."""
    with pytest.raises(DataError, match=rf"one.jsonl:2.*{problem}"):
        merge({"one": [row("q", "a", "b"), bad]})


def test_rlaif_make_merge_prints_the_conflicts_and_writes_a_card(merge: Any, tmp_path: Path) -> None:
    """Counts on the screen and in summary.json; rule, digests and shares in the card; Parquet on demand."""
    merge({"human": [row("q", "a", "b")], "model": [row("q", "b", "a", 0.9)]})
    arguments = ["make", "merge", str(tmp_path / "merge.yaml"), "--set", "format=parquet"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "conflicts_between_sources" in done.output
    assert json.loads((tmp_path / "merged" / "__job__" / "summary.json").read_text())["conflicts_between_sources"] == 1
    assert "human: human.jsonl" in (tmp_path / "merged" / "README.md").read_text()
    assert rows_of(tmp_path / "merged" / "pairs.parquet")[0]["chosen"] == "a"
