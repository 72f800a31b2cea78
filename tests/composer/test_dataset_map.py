"""A composer over data sets: the numbers of `rlaif score`, kept where `datasets` keeps what it mapped."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner

from rlaif_sdk import (
    BatchError,
    Composer,
    ConfigError,
    DataError,
    Gate,
    Normalizer,
    Reward,
    RewardBatch,
    Score,
    SubScore,
    reward,
)
from rlaif_sdk.cli.main import app
from rlaif_sdk.composer import ColumnCondition, Component, Constraint, FailurePolicy, Schedule
from rlaif_sdk.composer.normalizers import GroupZScore, Limited, LimitParams, Quantile, QuantileParams, ZScore
from rlaif_sdk.composer.weights import Linear
from rlaif_sdk.io.tables import open_dataset, write_table
from rlaif_sdk.statistics.arrays import Array, Labels
from tests.typed_rewards import as_record

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"p{row // 2}",
        "completion": "word " * (1 + row % 5),
        "id": row // 2,
        "tests": {f"t{row}": row},
    }
    for row in range(10)
]
asked: list[int] = []


@pytest.fixture(autouse=True)
def no_rows_asked() -> None:
    asked.clear()


def words(completion_texts: list[str], *, each: float = 1.0) -> list[float]:
    """How many words there are; notes how many rows it was asked."""
    asked.append(len(completion_texts))
    return [each * len(text.split()) for text in completion_texts]


def never_long(completion_texts: list[str]) -> list[Any]:
    """Fails on long rows, for which nobody else is to blame."""
    asked.append(len(completion_texts))
    return [Score.failed("too long") if len(text) > 20 else 1.0 for text in completion_texts]


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[datasets.Dataset]:
    """A data set with files of its own, beside which `datasets` keeps results."""
    open_dataset(ROWS).save_to_disk(tmp_path / "rows")
    yield datasets.load_from_disk(tmp_path / "rows")
    shutil.rmtree(tmp_path / "rows")


def mapped(
    dataset: Any, rewards: dict[str, Any] | None = None, how: dict[str, Any] | None = None, **options: Any
) -> Any:
    with Composer(rewards or {"words": words}, **options) as composer:
        return composer.map(dataset, **how or {})


def test_the_column_is_what_score_writes(tmp_path: Path) -> None:
    """Number for number, with statistics that learn on the way, and the other columns as they were."""
    config = {
        "rewards": {
            "words": {"use": f"{__file__}:words", "normalize": "zscore"},
            "long": {"use": f"{__file__}:never_long"},
        },
        "groups": {"both": {"members": ["words", "long"], "aggregate": "panel"}},
        "gates": [{"reward": "words", "max": 4, "floor": -1}],
    }
    (tmp_path / "rewards.json").write_text(json.dumps(config))
    write_table(ROWS, tmp_path / "rows.jsonl")
    paths = [str(tmp_path / "rows.jsonl"), "--config", str(tmp_path / "rewards.json")]
    result = CliRunner().invoke(app, ["score", *paths, "--output", str(tmp_path / "scored.jsonl"), "--chunk", "4"])
    written = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert len(written) == len(ROWS), result.output
    with Composer.from_config(config) as composer:
        scored = composer.map(open_dataset(ROWS), batch_size=4)
    assert scored.remove_columns("reward").to_list() == ROWS
    assert [as_record(row) for row in scored["reward"]] == [row["reward"] for row in written]


def by_law(completion_texts: list[str]) -> list[Any]:
    """Two criteria of every row, and one of some rows by themselves; the first row fails, with what is known of it."""
    cites = SubScore(1.0, weight=2.0, reason="see \u00a7 12", evidence=("by section 12", "and 13"))
    parts = {"cites": cites, "brief": SubScore(None)}
    own = {"own": SubScore(0.5, per_row=True)}
    known = [parts | own if row % 2 else parts for row in range(len(completion_texts))]
    return [
        Score(0.5, subscores=said) if row else Score(None, error="out", subscores=said)
        for row, said in enumerate(known)
    ]


def test_what_a_score_is_made_of_is_in_the_column() -> None:
    """As a list, since each row may have other parts and a column has one type."""
    rewards = {"law": Component(by_law, failure=FailurePolicy(mask_group="never")), "words": words}
    scored = mapped(open_dataset(ROWS), rewards, {"batch_size": 4})
    with Composer(rewards) as composer:
        composed = composer.compose(RewardBatch.from_records(ROWS[:4]))
    assert [as_record(row) for row in scored["reward"][:4]] == composed.to_records()
    parts = scored["reward"][1]["rewards"]["law"]["subscores"]
    assert [(part["name"], part["value"], part["per_row"]) for part in parts] == [
        ("cites", 1.0, None),
        ("brief", None, None),
        ("own", 0.5, True),
    ]


def test_an_unscored_row_is_null_with_its_reason() -> None:
    """And the others have a total."""
    scored = mapped(open_dataset(ROWS), {"long": Component(never_long, failure=FailurePolicy(mask_group="never"))})
    entry = scored["reward"][4]
    assert entry["total"] is None
    assert entry["rewards"]["long"] == {
        "raw": None,
        "normalized": None,
        "weighted": None,
        "status": "failed",
        "reason": "too long",
        "subscores": [],
    }
    assert scored["reward"][0]["total"] == 1


def test_equal_rows_and_an_equal_composition_are_scored_once(on_disk: datasets.Dataset) -> None:
    """By another composer too; the data set is told apart by what it was made of."""
    first = mapped(on_disk)
    assert asked == [10]
    again = mapped(on_disk)
    assert asked == [10]
    assert again.to_list() == first.to_list()
    mapped(on_disk.select(range(5)))
    assert asked == [10, 5]


CHANGES: dict[str, list[Callable[[], dict[str, Any]]]] = {
    "the weight": [lambda: of(words), lambda: of(words, weight=2.0)],
    "its schedule": [
        lambda: of(words, weight=Schedule(Linear(0.0, 1.0, 9.0))),
        lambda: of(words, weight=Schedule(Linear(0.0, 1.0, 8.0))),
    ],
    "the normalizer": [lambda: of(words), lambda: of(words, normalizer=ZScore())],
    "what it is made of": [lambda: of(words, normalizer=Times(2.0)), lambda: of(words, normalizer=Times(3.0))],
    "its code, within limits": [lambda: of(words, normalizer=limited(1)), lambda: of(words, normalizer=limited(2))],
    "a parameter": [lambda: of(words), lambda: of(twice_each())],
    "the code": [lambda: of(words), lambda: of(by_other_code())],
    "the failure policy": [lambda: of(words), lambda: of(words, failure=FailurePolicy("drop"))],
    "a condition": [lambda: asked_where("x" * 100), lambda: asked_where("x" * 101)],
    "what it gets that is not asked": [lambda: asked_where("x", 1.0), lambda: asked_where("x", 2.0)],
    "a gate": [lambda: of(words), lambda: {**of(words), "gates": [Gate("words", floor=0, max=2)]}],
    "a constraint": [
        lambda: {**of(words), "constraints": [Constraint("words", max=1, step_size=1)]},
        lambda: {**of(words), "constraints": [Constraint("words", max=1, step_size=2)]},
    ],
    "how rows are cut": [lambda: of(words), lambda: {**of(words), "how": {"batch_size": 4}}],
}


def of(function: Any, **options: Any) -> dict[str, Any]:
    return {"rewards": {"words": Component(function, **options)}}


def asked_where(value: str, otherwise: float | None = None) -> dict[str, Any]:
    return of(words, when=[ColumnCondition("id", not_in=(value,))], otherwise=otherwise)


def twice_each() -> Any:
    return reward(words).configured({"each": 2.0})


def by_other_code() -> Any:
    written: dict[str, Any] = {"asked": asked}
    exec("def words(completion_texts):\n    asked.append(1)\n    return [0.0] * len(completion_texts)\n", written)
    return written["words"]


class Times(Normalizer):
    """Multiplies scores."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def normalize(self, values_B: Array, group_B: Labels | None) -> Array:
        return self.factor * values_B


def limited(factor: int) -> Limited:
    """A normalizer of somebody's, which the composition limits."""
    written = {"Normalizer": Normalizer}
    exec(
        f"class Own(Normalizer):\n    def normalize(self, scores, group):\n        return {factor} * scores\n", written
    )
    return Limited(written["Own"](), LimitParams(clip=9.0))


@pytest.mark.parametrize("change", CHANGES)
def test_another_composition_is_another_result(on_disk: datasets.Dataset, change: str) -> None:
    """Whatever of it the numbers depend on."""
    for made in CHANGES[change]:
        before = len(asked)
        mapped(on_disk, **made())
        assert len(asked) > before


def test_what_was_learned_is_told_apart_and_put_back(on_disk: datasets.Dataset) -> None:
    """The state of a composer before the call belongs to the result, and the call leaves it as it was."""
    rewards = {"words": Component(words, normalizer=ZScore())}
    fresh = mapped(on_disk, rewards)
    with Composer({"words": Component(words, normalizer=ZScore())}) as composer:
        state = composer.state_dict()
        composer.map(on_disk)
        assert asked == [10]
        composer.map(open_dataset(ROWS))
        assert asked == [10, 10]
        assert composer.state_dict() == state
        composer.compose(RewardBatch(["p"] * 3, ["a", "a b c d e f g h", "c d"]))
        learned = composer.map(on_disk)
    assert asked == [10, 10, 3, 10]
    assert learned["reward"] != fresh["reward"]


@pytest.mark.parametrize(
    "made",
    [
        ZScore,
        lambda: Quantile(QuantileParams()),
        lambda: Limited(ZScore(), LimitParams(winsorize=(0.1, 0.9))),
    ],
)
def test_a_composer_that_has_learned_finds_its_own_result_again(on_disk: datasets.Dataset, made: Any) -> None:
    """Since it is put back, whatever its normalizer notes while it learns."""
    with Composer({"words": Component(words, normalizer=made())}) as composer:
        first, again = composer.map(on_disk), composer.map(on_disk)
    assert asked == [10]
    assert first["reward"][:] == again["reward"][:]


def test_an_outage_is_not_kept(on_disk: datasets.Dataset, tmp_path: Path) -> None:
    """A result with a failure is scored again, and then kept."""
    outage, calls = tmp_path / "outage", tmp_path / "calls"
    outage.touch()
    params = {"outage": str(outage), "calls": str(calls)}
    config = {"rewards": {"flaky": {"use": f"{__file__}:Flaky", "params": params}}}

    def totals() -> list[float | None]:
        with Composer.from_config(config) as composer:
            return [row["total"] for row in composer.map(on_disk)["reward"]]

    assert None in totals()
    outage.unlink()
    assert None not in totals()
    assert None not in totals()
    assert calls.read_text() == "10\n10\n"


class Flaky:
    """Fails on its second row while a file is there."""

    def __init__(self, outage: str, calls: str) -> None:
        self.outage, self.calls = Path(outage), Path(calls)

    def score(self, batch: Any) -> list[Any]:
        with self.calls.open("a") as file:
            file.write(f"{len(batch)}\n")
        there = self.outage.exists()
        return [Score.failed("down") if there and row == 1 else 1.0 for row in range(len(batch))]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_groups_are_composed_together_however_large_a_batch_is(batch_size: int) -> None:
    """The numbers of one batch with all rows."""
    rewards = {"words": Component(words, normalizer=GroupZScore())}
    found = mapped(open_dataset(ROWS), rewards, {"group": "id", "batch_size": batch_size})
    whole = mapped(open_dataset(ROWS), rewards, {"group": "id"})
    assert found["reward"][:] == whole["reward"][:]
    assert any(row["total"] for row in whole["reward"])


def test_a_group_in_two_places_is_refused_before_anything_is_scored() -> None:
    """With its row and what to do."""
    apart = open_dataset([*ROWS[:8], *ROWS[:1]])
    with pytest.raises(DataError, match=r"the Dataset:9: is of a group \('id'\).*sort the table by 'id'"):
        mapped(apart, how={"group": "id", "batch_size": 2})
    assert asked == []


def test_each_split_begins_alike() -> None:
    """What one split teaches is not in the other's numbers; an empty one has the column too."""
    rows = open_dataset(ROWS)
    splits = datasets.DatasetDict(train=rows, test=rows.select(range(4)), empty=rows.select([]))
    scored = mapped(splits, {"words": Component(words, normalizer=ZScore())})
    alone = mapped(splits["test"], {"words": Component(words, normalizer=ZScore())})
    assert scored["test"]["reward"][:] == alone["reward"][:]
    assert scored["empty"].features == scored["train"].features


def test_what_cannot_be_pickled_or_told_apart_is_scored_each_time(on_disk: datasets.Dataset) -> None:
    """With a warning that says why nothing is kept."""
    lock = threading.Lock()

    def locked(completion_texts: list[str]) -> list[float]:
        with lock:
            return words(completion_texts)

    for _ in range(2):
        with pytest.warns(UserWarning, match="not kept for another call: nothing tells reward 'locked' from others"):
            mapped(on_disk, {"locked": locked})
    assert asked == [10, 10]


def test_a_reward_that_is_not_cacheable_is_asked_each_time(on_disk: datasets.Dataset) -> None:
    """Its score depends on more than the row."""
    for _ in range(2):
        with pytest.warns(UserWarning, match="reward 'words' is not to be cached"):
            mapped(on_disk, {"words": reward(cacheable=False)(words)})
    assert asked == [10, 10]


@pytest.mark.parametrize("kind", [None, "numpy", "pandas", "arrow"])
def test_formats_and_selections_stay(on_disk: datasets.Dataset, kind: str | None) -> None:
    """A data set that is shuffled, or formats its rows, is scored as what it holds."""
    shown = on_disk.remove_columns("tests").shuffle(seed=1).with_format(kind, columns=["prompt"])
    scored = mapped(shown)
    assert (scored.format["type"], scored.format["columns"]) == (kind, ["prompt", "reward"])
    plain = scored.with_format(None)
    assert [row["total"] for row in plain["reward"]] == [len(text.split()) for text in plain["completion"]]


def test_it_works_in_a_running_event_loop() -> None:
    """As in a notebook's cell, with a reward that is a coroutine."""

    async def slow(completion_texts: list[str]) -> list[float]:
        await asyncio.sleep(0)
        return words(completion_texts)

    async def cell() -> Any:
        return mapped(open_dataset(ROWS), {"slow": slow})

    assert asyncio.run(cell())["reward"][0]["total"] == 1


REFUSED = {
    "processes": ({"num_proc": 4}, ConfigError, "num_proc: a composer is not sent to other processes.*concurrency"),
    "no batch": ({"batch_size": 0}, ConfigError, "batch_size: must be at least 1"),
    "the column": ({"column": "id"}, DataError, "already has a column 'id'.*column="),
    "the group": ({"group": "prompt_id"}, DataError, "has no column 'prompt_id'.*columns: prompt, .*group="),
    "the prompt": ({"prompt": "question"}, DataError, "row 1: has no column 'question'.*columns: prompt, "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_why(case: str) -> None:
    """And the next step."""
    how, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        mapped(open_dataset(ROWS), how=how)


def test_a_missing_column_is_told_before_anything_is_loaded() -> None:
    """With the reward that needs it."""

    class Loads(Reward):
        columns = ("reference",)

        def setup(self) -> None:
            raise AssertionError

        def score(self, batch: RewardBatch) -> list[float]:
            raise AssertionError

    with pytest.raises(BatchError, match=r"reward 'loads' needs the column 'reference'.*columns present: id, tests"):
        mapped(open_dataset(ROWS), {"loads": Loads()})


@pytest.mark.parametrize("source", [ROWS, open_dataset(ROWS[:1]).remove_columns("tests").to_iterable_dataset()])
def test_what_is_no_data_set_is_refused(source: Any) -> None:
    """A stream has no end to wait for: its batches can be scored."""
    with pytest.raises(DataError, match=r"where a Dataset or DatasetDict is wanted.*(from_dataset|from_list)"):
        mapped(source)
