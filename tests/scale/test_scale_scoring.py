"""Shards scored one after another in this process, beside the whole table scored at once."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlaif_sdk import Composer, ConfigError, DataError, RlaifError
from rlaif_sdk.cli.main import app
from rlaif_sdk.composer.tables import Moments, Summary, TableLayout, score_records
from rlaif_sdk.io.jobs import locked
from rlaif_sdk.io.tables import read_rows, survey, write_table
from rlaif_sdk.scale import score_job, shards
from rlaif_sdk.scale.cluster import Workers
from rlaif_sdk.scale.score_job import (
    ScoreTask,
    ShardScorer,
    merge_summaries,
    summary_of_record,
    summary_record,
    summary_report,
)
from rlaif_sdk.scale.shards import Plan, Shard
from tests.little_room import little_room
from tests.scale.conftest import REWARDS
from tests.typed_rewards import as_record


class InThisProcess:
    """Stands for Ray: looks over and scores in this process, and counts the shards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from contextlib import nullcontext

        self.scored: list[int] = []
        monkeypatch.setattr(score_job, "connected", lambda workers: nullcontext(1))
        monkeypatch.setattr(score_job, "import_ray", lambda: None)
        monkeypatch.setattr(score_job, "_quiet_data", nullcontext)
        monkeypatch.setattr(score_job, "_inspect", self.inspect)
        monkeypatch.setattr(score_job, "_scored", self.score)

    def inspect(self, plan: Plan, layout: TableLayout) -> Any:
        return score_job.merge_findings((score_job.inspect_shard(plan.file, s, layout) for s in plan.shards), plan.file)

    def score(self, task: ScoreTask, keys: Any, actors: int, workers: Workers | None) -> Any:
        scorer = ShardScorer(task)
        for shard, key in reversed(keys.items()):
            yield shard.number, scorer.score(shard, key)
            self.scored.append(shard.number)
        scorer.close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> InThisProcess:
    """No Ray."""
    return InThisProcess(monkeypatch)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("part-*.parquet")) for row in read_rows(file)]


def plain(file: Path, composition: Path, layout: TableLayout) -> list[dict[str, Any]]:
    """What one machine says of each row."""
    with Composer.from_config(composition) as composer:
        scored = score_records(composer.compose, read_rows(file), layout, columns=survey(file).columns, chunk=8)
        return [reward for _, composed in scored for reward in composed.to_records()]


@pytest.mark.parametrize("name", ["table.jsonl", "table.parquet"])
@pytest.mark.parametrize("group", [None, "g"])
def test_the_numbers_and_their_order_are_those_of_one_machine(here, table, composition, tmp_path, name, group):
    """Every value, status and reason of every row, whichever shard is scored first."""
    file, layout = table(50, name), TableLayout(group=group)
    result = score_job.score_table(file, composition, tmp_path / "out", layout=layout, batch_rows=7, chunk=4)
    rows = rows_of(result.output)
    rewards = [row.pop("reward") for row in rows]
    expected = plain(file, composition, layout)
    assert [*map(as_record, rewards)] == expected
    assert [row["completion"] for row in rows] == [row["completion"] for row in read_rows(file)]
    statuses = {reward["rewards"]["picky"]["status"] for reward in rewards}
    assert {"scored", "abstained", "failed"} <= statuses
    assert result.summary.columns["picky"].failed == sum(
        "7" in row["completion"] and "3" not in row["completion"] for row in rows
    )
    assert result.summary.rows == 50


@pytest.mark.parametrize("form", ["json", "jsonl.gz", "arrow"])
def test_a_table_of_any_form_is_cut_too(here, table, composition, tmp_path, form):
    """By a copy in the job's folder, which a second start finds; the folder stays a plain data set."""
    rows = [*read_rows(table(20))]
    write_table(rows, tmp_path / f"t.{form}")
    result = score_job.score_table(tmp_path / f"t.{form}", composition, tmp_path / "out", batch_rows=7)
    found = rows_of(result.output)
    rewards = [as_record(row.pop("reward")) for row in found]
    assert rewards == plain(table(20), composition, TableLayout())
    assert [row["completion"] for row in found] == [row["completion"] for row in rows]
    again = score_job.score_table(tmp_path / f"t.{form}", composition, tmp_path / "out", batch_rows=7)
    assert (again.resumed, again.shards) == (3, 3)
    assert len([*read_rows(tmp_path / "out")]) == 20


COMPARING = """
from rlaif_sdk import reward

def length(prompts, completions, **columns):
    return [len(c) for c in completions]

@reward(scope="group")
def share(completions):
    return [len(c) / max(map(len, completions)) for c in completions]
"""


@pytest.mark.parametrize(
    ("used", "said"), [("rewards.py:length, normalize: group_zscore", "GroupZScore"), ("rewards.py:share", "'length'")]
)
def test_group_statistics_are_those_of_whole_groups(here, table, write, tmp_path, used, said):
    """What compares the completions of a group gives what it gives on one machine; without groups it is refused."""
    write("rewards.py", COMPARING)
    config = write("c.yaml", f"rewards: {{length: {{use: {used}}}}}")
    file, layout = table(40), TableLayout(group="g")
    result = score_job.score_table(file, config, tmp_path / "out", layout=layout, batch_rows=4, chunk=2)
    rewards = [row["reward"]["total"] for row in rows_of(result.output)]
    assert rewards == [reward["total"] for reward in plain(file, config, layout)]
    with pytest.raises(ConfigError, match=rf"{said}.*--group-column"):
        score_job.score_table(file, config, tmp_path / "other")


def test_statistics_that_are_learned_are_frozen_or_refused(here, table, write, tmp_path):
    """A running normalizer is taken with a saved state alone, and does not go on learning."""
    from rlaif_sdk.integrations.host import save_state

    write("rewards.py", "def length(prompts, completions, **columns):\n    return [len(c) for c in completions]\n")
    config = write("c.yaml", 'rewards: {length: {use: "rewards.py:length", normalize: zscore}}')
    file, layout = table(40), TableLayout()
    with pytest.raises(ConfigError, match=r"learns only from training batches.*state=FILE"):
        score_job.score_table(file, config, tmp_path / "out")
    with Composer.from_config(config) as composer:
        for _ in score_records(composer.compose, read_rows(file), layout, columns=survey(file).columns):
            pass
        save_state(composer, tmp_path / "state.json")
        frozen = score_records(composer.compose, read_rows(file), layout, columns=survey(file).columns, training=False)
        expected = [total for _, composed in frozen for total in composed.to_list()]
    result = score_job.score_table(file, config, tmp_path / "out", batch_rows=9, state=tmp_path / "state.json")
    assert [row["reward"]["total"] for row in rows_of(result.output)] == expected


def test_a_second_run_does_what_is_missing_alone(here, table, composition, tmp_path):
    """Finished parts are recognised by their content; a missing, torn or foreign one is done again."""

    def run() -> Any:
        return score_job.score_table(table(50), composition, tmp_path / "out", batch_rows=10)

    first = run()
    whole = rows_of(first.output)
    assert sorted(here.scored) == [0, 1, 2, 3, 4]
    here.scored.clear()
    assert run().resumed == 5
    assert here.scored == []
    files = sorted(first.output.glob("part-*.parquet"))
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-9])
    files[3].write_bytes(files[0].read_bytes())
    again = run()
    assert sorted(here.scored) == [1, 2, 3]
    assert again.resumed == 2
    assert rows_of(first.output) == whole
    assert summary_report(again.summary) == summary_report(first.summary)
    assert {path.name for path in first.output.iterdir()} == {"__job__", *(file.name for file in files)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda folder: (folder / "rewards.py").write_text("def length(prompts, completions, **c): ..."),
            "rewards' code",
        ),
        (lambda folder: (folder / "table.jsonl").write_text('{"prompt": "p", "completion": "c"}\n'), "table"),
    ],
)
def test_a_folder_belongs_to_one_job(here, table, composition, tmp_path, change, named):
    """With another table, config or code the job is refused and says what differs."""
    file = table(20)
    score_job.score_table(file, composition, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"another scoring job:\n  batch_rows: "):
        score_job.score_table(file, composition, tmp_path / "out", batch_rows=3)
    change(tmp_path)
    with pytest.raises(ConfigError, match=f"(?s)another scoring job:.*{named}: .*name another output"):
        score_job.score_table(file, composition, tmp_path / "out")


def test_two_processes_cannot_write_into_one_folder(tmp_path):
    """The second is told so."""
    with locked(tmp_path), pytest.raises(DataError, match="another process"), locked(tmp_path):
        pass


def test_a_reward_that_must_not_fail_ends_the_run_and_what_is_done_stays(here, table, composition, tmp_path):
    """The policy ``raise`` holds; the next run, with the cause mended, does what is missing."""
    composition.write_text(composition.read_text().replace("weight: 0.5", "on_failure: raise"))
    with pytest.raises(RlaifError, match="picky"):
        score_job.score_table(table(70), composition, tmp_path / "out", batch_rows=10)
    assert not (tmp_path / "out" / "__job__" / "summary.json").exists()
    assert not list((tmp_path / "out").glob(".*.partial"))


def test_rows_that_end_their_worker_again_and_again_are_named(tmp_path, table, composition, here):
    """The fourth attempt is refused with the rows, so that no job goes round for ever."""
    from rlaif_sdk.scale.shards import plan_shards

    shard = plan_shards(table(30), rows=10).shards[1]
    for _ in range(shards.MOST_ATTEMPTS):
        shards.count_attempt(tmp_path, shard)
    with pytest.raises(RlaifError, match="rows 11 to 20 ended their worker 3 times"):
        shards.count_attempt(tmp_path, shard)
    shards.forget_attempts(tmp_path)
    shards.count_attempt(tmp_path, shard)


def test_a_full_disk_ends_the_run_cleanly_and_it_can_go_on(here, table, composition, tmp_path):
    """The part that does not fit is named and is not there; with room again the same command finishes the table."""
    file = table(300)
    with little_room(1500), pytest.raises(DataError, match=r"part-00000\d.parquet.*make room.*finished parts are kept"):
        score_job.score_table(file, composition, tmp_path / "out", batch_rows=100)
    assert not list(tmp_path.glob("out/*part-*.p*"))
    assert score_job.score_table(file, composition, tmp_path / "out", batch_rows=100).summary.rows == 300


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_full_disk_ends_the_local_engine_in_a_line(table, composition, tmp_path, suffix):
    """As for any other error: what is wrong, where, and what to do; no table of that name is left."""
    command = ["score", str(table(300)), "--config", str(composition), "--output", str(tmp_path / f"out.{suffix}")]
    command += ["--set", "ledger=false"]  # which is as long
    with little_room(2000):
        ended = CliRunner().invoke(app, command)
    assert isinstance(ended.exception, DataError)
    assert "cannot be written" in str(ended.exception)
    assert not (tmp_path / f"out.{suffix}").exists()
    [note] = ended.exception.__notes__
    left = [file for file in tmp_path.iterdir() if file.name.startswith(f".out.{suffix}.")]
    assert left
    assert all(str(file) in note for file in left)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_error_of_another_file_is_not_the_output_s(table, composition, tmp_path, suffix, monkeypatch):
    """A network disk that goes away under a reward is told as what it is, by the local engine."""
    monkeypatch.setattr(Composer, "compose", _gone)
    command = ["score", str(table(30)), "--config", str(composition), "--output", str(tmp_path / f"out.{suffix}")]
    ended = CliRunner().invoke(app, command)
    assert type(ended.exception) is OSError
    assert ended.exception.errno == errno.EIO


def test_an_error_of_another_file_is_not_the_part_s(tmp_path):
    """Nor by a worker; the part that was begun is removed."""
    shard = Shard(number=0, first_row=1, rows=3, line=1, offset=0)

    def rows():
        yield [{"a": 1}]
        _gone()

    with pytest.raises(OSError, match="gone"):
        shards.write_part(tmp_path, shard, "key", schema=pa.schema([("a", pa.int64())]), rows=rows(), summary={})
    assert list(tmp_path.iterdir()) == []


def _gone(*_args, **_options):
    raise OSError(errno.EIO, "gone")


def test_an_output_that_cannot_be_begun_is_told_in_a_line(table, composition, tmp_path):
    """A file where a folder is wanted, say."""
    (tmp_path / "file").write_text("")
    command = ["score", str(table(30)), "--config", str(composition), "--output", str(tmp_path / "file" / "out.jsonl")]
    ended = CliRunner().invoke(app, command)
    assert isinstance(ended.exception, DataError)
    assert "a part of the path is a file" in str(ended.exception)


def test_a_table_with_the_reward_column_is_refused(here, table, composition, tmp_path):
    """As on one machine."""
    with pytest.raises(DataError, match="already has a column 'n'"):
        score_job.score_table(table(9), composition, tmp_path / "out", reward_column="n")


@pytest.mark.parametrize("resumed", [False, True])
def test_the_first_unscored_row_of_the_whole_table_is_told_with_its_reason(here, table, write, tmp_path, resumed):
    """As on one machine, whichever shard was scored first, and when all parts were there before."""
    config = write("one.yaml", "rewards: {picky: {use: 'rewards.py:picky'}}")
    write("rewards.py", REWARDS)
    command = ["score", str(table(10)), "--config", str(config), "--engine", "ray", "--batch-rows", "2"]
    for _ in range(1 + resumed):
        ended = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "out")])
    assert ended.exit_code == 3, ended.output
    assert "2 of 10 rows are unscored; first: row 4: picky abstained; each row's status" in ended.output


@given(st.lists(st.lists(st.one_of(st.just(math.nan), st.floats(-1e3, 1e3)), max_size=20), max_size=6))
def test_merged_figures_are_those_of_the_whole(pieces):
    """However the rows are cut, and through JSON."""
    whole, merged = Moments(), Summary()
    for piece in pieces:
        whole.add(piece)
        first = next(((row, "why") for row, value in enumerate(piece, start=1) if math.isnan(value)), None)
        own = Summary(
            len(piece), sum(map(math.isnan, piece)), {"total": Moments(seconds=0.5, first_failed=first)}, first
        )
        own.columns["total"].add(piece)
        own.ends["toxicity"] = ("toxic", "harmless")
        merge_summaries(merged, summary_of_record(summary_record(own)))
    assert merged.rows == sum(map(len, pieces))
    flat = [value for piece in pieces for value in piece]
    assert merged.first_unscored == next(
        ((row, "why") for row, value in enumerate(flat, start=1) if math.isnan(value)), None
    )
    found = merged.columns.get("total", Moments())
    assert found.first_failed == merged.first_unscored
    assert (found.count, found.low, found.high) == (whole.count, whole.low, whole.high)
    assert found.mean == pytest.approx(whole.mean, abs=1e-9)
    assert found.m2 == pytest.approx(whole.m2, abs=1e-6)
    assert found.seconds == 0.5 * len(pieces)
    assert merged.ends == ({"toxicity": ("toxic", "harmless")} if pieces else {})


@pytest.mark.parametrize("wrong", [{"actors": 0}, {"gpus": -1}, {"gpus": math.nan}])
def test_workers_that_cannot_be_are_refused(wrong):
    """Before Ray is started."""
    with pytest.raises(ConfigError, match="must be"):
        Workers(**wrong)


def test_workers_fill_the_cluster():
    """One actor for each core, or for each share of a GPU."""
    assert Workers().count({"CPU": 6.0}) == 6
    assert Workers(gpus=0.5).count({"CPU": 6.0, "GPU": 2.0}) == 4
    assert Workers(actors=3).count({"CPU": 6.0}) == 3
    with pytest.raises(ConfigError, match="GPUs"):
        Workers(gpus=1).count({"CPU": 6.0})
