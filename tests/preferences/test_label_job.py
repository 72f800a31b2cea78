"""A file of pairs is labelled once, whatever fails on the way."""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import DataError, JudgeError
from rlaif_sdk.exceptions import JudgeAuthError, JudgeQuotaError, JudgeResponseError
from rlaif_sdk.io import arrow
from rlaif_sdk.io.jsonl import as_json
from rlaif_sdk.io.tables import write_table
from rlaif_sdk.judges import PairwiseLabeler
from rlaif_sdk.preferences import load_label_job, run_labeling
from rlaif_sdk.preferences.resumable_job import open_job
from rlaif_sdk.testing import ScriptedJudge
from tests.preferences.conftest import prefers_good
from tests.preferences.making import label, rows_of


def test_every_pair_gets_a_soft_label_in_order(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """The likelier better response is chosen, with its probability, how each order voted, who judged, and the cost."""
    write_pairs(4, human="a")
    result = label(config)
    rows = rows_of(result.labels)
    assert [row["prompt"] for row in rows] == [f"question {row}" for row in range(4)]
    assert all("good" in row["chosen"] and "bad" in row["rejected"] for row in rows)
    assert [row["chosen_response"] for row in rows] == [1, 2, 1, 2]
    assert [row["chosen_prob"] for row in rows] == pytest.approx([0.8] * 4)
    assert (rows[0]["prob_1"], rows[1]["prob_1"]) == (pytest.approx(0.8), pytest.approx(0.2))
    assert (rows[0]["prob_1_when_first"], rows[0]["prob_1_when_second"]) == (pytest.approx(0.9), pytest.approx(0.7))
    first = rows[0]
    assert (first["flipped"], first["tie"], first["label_kind"], first["human"]) == (False, False, "soft", "a")
    assert (first["usage"]["calls"], first["usage"]["tokens"]) == (2, 102)
    assert len({row["judge"] for row in rows}) == 1
    assert len(pair_server.requests) == 9
    assert (result.summary.labelled, result.summary.flip_rate, result.failures) == (4, 0.0, None)
    assert result.summary.usage.cost == pytest.approx(4 * 2 * 52e-6)
    written = json.loads((config.parent / "labels" / "__job__" / "summary.json").read_text())
    assert written["cost_per_label"] == pytest.approx(2 * 52e-6)
    assert written["position_bias"] == {"first": 0.0, "second": 0.0}


def test_labels_train_as_they_are(config: Path, write_pairs: Any) -> None:
    """Every row is what the trainers of preferences take, in JSONL and in Parquet alike."""
    pytest.importorskip("datasets")
    from datasets import Dataset

    from rlaif_sdk.training.data import checked_preferences

    write_pairs(5)
    lines = rows_of(label(config).labels)
    table = rows_of(label(config, "format=parquet").labels)
    assert [{name: row[name] for name in ("chosen", "rejected", "chosen_prob")} for row in lines] == [
        {name: row[name] for name in ("chosen", "rejected", "chosen_prob")} for row in table
    ]
    for rows in (lines, table):
        assert len(checked_preferences(Dataset.from_list(rows), "train")) == 5


def test_flips_and_position_bias_are_counted(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """A judge that says 1 whatever stands there flips every pair, and the first place is named."""
    pair_server.answer = lambda number, sent: prefers_good(
        number, {"messages": [{"content": "<response_1>good<response_2>"}]}
    )
    write_pairs(6)
    result = label(config)
    assert result.summary.flip_rate == 1.0
    assert (result.summary.first_wins, result.summary.second_wins, result.summary.ties) == (6, 0, 6)
    assert all(row["tie"] and row["chosen_prob"] == pytest.approx(0.5) for row in rows_of(result.labels))
    assert rows_of(label(config, "ties=drop").labels) == []
    [warning] = result.summary.warnings
    assert "changes with the order in 100% of 6 pairs (the first place wins in 6, the second in 0)" in warning
    folder = result.labels.parent
    assert warning in " ".join((folder / "README.md").read_text().split("## Counts")[0].split())
    assert json.loads((folder / "__job__" / "summary.json").read_text())["warnings"] == [warning]


@pytest.mark.parametrize(
    ("first", "second", "warnings"),
    [
        ({"1": 0.2, "2": 0.1}, {"1": 0.1, "2": 0.2}, ["on average the labels 1 and 2 have 0.3 of the probability"]),
        ({"1": 0.9, "2": 0.1}, {"1": 0.1, "2": 0.9}, []),
        ({"1": 0.1, "2": 0.9}, {"1": 0.1, "2": 0.9}, ["the first place wins in 0, the second in 4"]),
        ({"1": 0.2, "2": 0.1}, {"1": 0.2, "2": 0.1}, ["wins in 4, the second in 0", "0.3 of the probability"]),
    ],
)
def test_labels_to_doubt_are_warned_of_in_words(
    tmp_path: Path, write_pairs: Any, first: dict[str, float], second: dict[str, float], warnings: list[str]
) -> None:
    """A judge that follows the place, and one that would hardly begin with a label; a good one is not warned of."""
    write_pairs(4)
    judge = ScriptedJudge(lambda text: first if re.search(r"<response_1>\s*a good", text) else second)
    config = {
        "pairs": {"file": str(tmp_path / "pairs.jsonl")},
        "judge": {"model": "m"},
        "output": str(tmp_path / "out"),
    }
    summary = run_labeling(config, labeler=PairwiseLabeler(judge)).summary
    assert len(summary.warnings) == len(warnings)
    assert all(told in warning for told, warning in zip(warnings, summary.warnings, strict=True))
    assert summary.mean_mass == pytest.approx(sum(first.values()))
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(f"- {warning}" in card for warning in summary.warnings)
    assert ("## Warnings" in card) == bool(warnings)
    assert f'"mean": {summary.mean_mass}' in (tmp_path / "out" / "__job__" / "summary.json").read_text()


def test_failures_are_kept_apart_and_asked_about_again(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """A pair that fails is no label; it is named with its error, and the next run asks about it alone."""
    write_pairs(20)
    pair_server.answer = lambda number, sent: (
        (400, {}, {"error": {"message": "too long"}}) if "question 7\n" in str(sent["messages"][0]["content"]) else prefers_good(number, sent)
    )  # fmt: skip
    result = label(config)
    assert (result.summary.labelled, result.summary.failed) == (19, 1)
    [failure] = rows_of(result.failures)
    assert (failure["row"], failure["prompt"], failure["kind"]) == (8, "question 7", "JudgeResponseError")
    assert "too long" in failure["error"]
    assert label(config).summary.failed == 1  # one of twenty is still allowed, though all that was asked failed
    pair_server.answer = prefers_good
    pair_server.requests.clear()
    again = label(config)
    assert (again.summary.labelled, again.failures) == (20, None)
    assert len(pair_server.requests) == 3
    assert not (config.parent / "labels" / "__job__" / "failures.jsonl").exists()


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_folder_of_a_job_is_its_table_to_other_libraries(
    form: str, config: Path, write_pairs: Any, pair_server: Any
) -> None:
    """Journal, summary, failures and what an earlier job left are no rows for datasets and pyarrow."""
    datasets = pytest.importorskip("datasets")
    from pyarrow import dataset

    write_pairs(3)
    label(config, f"format={form}")
    write_pairs(20)
    pair_server.answer = lambda number, sent: (
        (400, {}, {"error": {"message": "too long"}}) if "question 7\n" in str(sent["messages"][0]["content"]) else prefers_good(number, sent)
    )  # fmt: skip
    job = load_label_job(config, overrides=[f"format={form}"])
    result = run_labeling(job, allow_changed=True)
    assert result.failures is not None
    assert sorted(path.name for path in result.labels.parent.iterdir()) == ["README.md", "__job__", f"labels.{form}"]
    read = datasets.load_dataset(str(result.labels.parent), cache_dir=config.parent / "cache")
    assert read["train"]["prompt"] == [f"question {row}" for row in range(20) if row != 7]
    if form == "parquet":
        table = dataset.dataset(result.labels.parent, format=form, exclude_invalid_files=True)
        assert table.count_rows() == 19


def test_a_job_stops_when_too_much_fails_and_goes_on_later(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """Beyond the stated share nothing more is sent; what was labelled is kept."""
    write_pairs(200)
    pair_server.answer = lambda number, sent: (
        (400, {}, {"error": {"message": "broken"}}) if number > 60 else prefers_good(number, sent)
    )
    with pytest.raises(JudgeError, match=r"max_failed_share \(0.1\).*broken"):
        label(config)
    assert len(pair_server.requests) < 120
    assert not (config.parent / "labels" / "labels.jsonl").exists()
    pair_server.answer = prefers_good
    pair_server.requests.clear()
    assert label(config).summary.labelled == 200
    assert len(pair_server.requests) <= 2 * 175 + 1


def test_a_few_pairs_that_all_fail_are_no_success(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """The share counts at the end, however few there are."""
    write_pairs(2)
    pair_server.answer = lambda number, sent: prefers_good(number, sent) if "smaller" in str(sent) else (400, {}, {})
    with pytest.raises(JudgeError, match="2 of 2"):
        label(config)


def test_a_refused_key_an_empty_account_or_missing_log_probabilities_end_the_job(
    config: Path, write_pairs: Any, pair_server: Any
) -> None:
    """One question at the start finds out, before a pair is sent; what is refused later stops a job that can go on."""
    from tests.judges.conftest import completion

    write_pairs(50)
    pair_server.answer = lambda *_: (200, {}, completion("1"))
    with pytest.raises(JudgeError, match="gave none"):
        label(config)
    assert len(pair_server.requests) == 1
    pair_server.answer = lambda number, sent: prefers_good(number, sent) if number < 20 else (401, {}, {})
    with pytest.raises(JudgeAuthError):
        label(config)
    pair_server.requests.clear()
    pair_server.answer = lambda number, sent: prefers_good(number, sent) if number < 20 else (402, {}, {})
    with pytest.raises(JudgeQuotaError):
        label(config)
    pair_server.answer = prefers_good
    assert label(config).summary.labelled == 50


def test_a_server_that_falls_over_for_a_moment_does_no_harm(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """Retries are counted, and every pair is labelled once."""
    write_pairs(30)
    seen: set[str] = set()

    def once_down(number: int, sent: Any) -> Any:
        text = sent["messages"][0]["content"]
        fresh = text not in seen
        seen.add(text)
        return (503, {}, {}) if fresh else prefers_good(number, sent)

    pair_server.answer = once_down
    result = label(config)
    assert result.summary.labelled == 30
    assert (result.summary.usage.calls, result.summary.usage.retries) == (120, 60)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pairs(config: Path, write_pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the pairs, 1.5 MB of text more, take no more than a few bytes each beyond.

    A first job imports what is needed and is not compared; all are long enough to have as many calls in progress as
    there may be.
    """
    monkeypatch.setattr(arrow, "CHUNK", 64)
    labeler = PairwiseLabeler(ScriptedJudge(lambda _: {"1": 0.5, "2": 0.25}))
    labeler.backend.requests = Forgetful()  # type: ignore[attr-defined]
    peaks = {}
    for rows in (10, 1250, 2500):
        write_pairs(rows, padding="x" * 1000)
        job = load_label_job(config, overrides=[f"output=labels-{rows}", "format=parquet"])
        tracemalloc.start()
        assert run_labeling(job, labeler=labeler).summary.labelled == rows
        peaks[rows] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[2500] - peaks[1250] < 100_000


class Forgetful(list[Any]):
    def append(self, item: Any) -> None:
        pass


def test_a_local_model_is_asked_in_batches(config: Path, write_pairs: Any) -> None:
    """A backend without concurrency of its own gets many pairs in one call, one call after another."""
    sizes: list[int] = []

    class Batches(ScriptedJudge):
        async def label_logprobs(self, requests: Any, labels: Any) -> Any:
            sizes.append(len(requests))
            return await super().label_logprobs(requests, labels)

    write_pairs(150)
    labeler = PairwiseLabeler(Batches(lambda _: {"1": 0.6, "2": 0.4}))
    assert label(config, labeler=labeler).summary.labelled == 150
    assert sizes == [1, 128, 128, 44]


@pytest.mark.parametrize("way", [{"mode": "verdict"}, {"chain_of_thought": True}])
def test_a_local_model_that_writes_gets_few_pairs_at_once(config: Path, write_pairs: Any, way: Any) -> None:
    """A kill loses the call in hand, and writing is slow."""
    sizes: list[int] = []

    class Batches(ScriptedJudge):
        async def generate(self, requests: Any, **options: Any) -> Any:
            sizes.append(len(requests))
            return await super().generate(requests, **options)

    def script(text: str) -> Any:
        return {"1": 0.6, "2": 0.4} if text.endswith("nothing else.") else "So.\nPreferred: 1"

    write_pairs(20)
    assert label(config, labeler=PairwiseLabeler(Batches(script), **way)).summary.labelled == 20
    assert sizes == [16, 16, 8]


def test_an_error_in_one_call_loses_no_answer_of_another(config: Path, write_pairs: Any) -> None:
    """Answers that came together with a fatal error are in the journal when the job stops."""
    import asyncio

    class Broken(ScriptedJudge):
        concurrency = 8

        async def label_logprobs(self, requests: Any, labels: Any) -> Any:
            await asyncio.sleep(0)
            if "question 5\n" in str(requests[0][0]["content"]):
                raise JudgeError("gone")
            return await super().label_logprobs(requests, labels)

    write_pairs(8)
    labeler = PairwiseLabeler(Broken(lambda _: {"1": 0.6, "2": 0.4}))
    with pytest.raises(JudgeError, match="gone"):
        label(config, labeler=labeler)
    journal = (config.parent / "labels" / "__job__" / "journal.jsonl").read_text().splitlines()
    assert {json.loads(line)["row"] for line in journal} >= {0, 1, 2, 3, 4}


def test_calls_that_fail_together_are_told_once(
    config: Path, write_pairs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An exhausted account ends all calls in progress at one time: one error, and no traceback of each beside it."""

    class Exhausted(ScriptedJudge):
        concurrency = 8

        async def label_logprobs(self, requests: Any, labels: Any) -> Any:
            if "question" in str(requests[0][0]["content"]):
                raise JudgeQuotaError("pay")
            return await super().label_logprobs(requests, labels)

    write_pairs(20)
    with pytest.raises(JudgeQuotaError, match="pay"):
        label(config, labeler=PairwiseLabeler(Exhausted(lambda _: {"1": 0.6, "2": 0.4})))
    gc.collect()
    assert [record.name for record in caplog.records if record.name == "asyncio"] == []


def test_a_row_error_of_every_kind_is_a_failure(config: Path, write_pairs: Any) -> None:
    """Refusals in a local judge are failures as well, with their words."""
    write_pairs(20)
    labeler = PairwiseLabeler(
        ScriptedJudge(lambda text: JudgeResponseError("refused") if "question 3\n" in text else {"1": 0.6, "2": 0.4})
    )
    result = label(config, labeler=labeler)
    assert [row["error"] for row in rows_of(result.failures)] == ["refused"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_words_that_a_model_cut_within_a_character_are_replaced_and_flagged(
    tmp_path: Path, write_pairs: Any, suffix: str
) -> None:
    """A rationale, the error of a pair, and a pair of its own: the job ends, and its files can be read."""
    broken = "so \ud83d"

    def answer(text: str) -> Any:
        if "question 1" in text:
            return JudgeResponseError(broken)
        if "better response" in text.lower() and "rationale" in text.lower():
            return broken
        return {"1": 0.7, "2": 0.3}

    write_pairs(3)
    config = {
        "pairs": {"file": str(tmp_path / "pairs.jsonl")},
        "judge": {"model": "m"},
        "output": str(tmp_path / "labels"),
        "format": suffix,
        "max_failed_share": 0.5,
    }
    labeler = PairwiseLabeler(ScriptedJudge(answer))
    result = run_labeling(config, labeler=labeler)
    journal = (tmp_path / "labels" / "__job__" / "journal.jsonl").read_bytes().decode()
    failed = next(line for line in map(json.loads, journal.splitlines()) if "error" in line)
    assert failed["error"] == "so \ufffd"
    assert "surrogates" in failed["flags"]
    assert [row["prompt"] for row in rows_of(result.labels)] == ["question 0", "question 2"]
    assert run_labeling(config, labeler=labeler).asked == 1


def test_a_journal_keeps_whatever_text_it_is_given(tmp_path: Path) -> None:
    """Lone surrogates anywhere in an entry are replaced, and only such an entry is flagged."""
    entries = [
        {"prob_1": 0.5, "rationales": ["a \udc00"], "flags": ["truncated"]},
        {"text": "\ud800"},
        {"\ud800": ("x", "ü 😀")},
        {"prob_1": 0.5, "rationales": ("whole 😀",), "flags": []},
    ]
    with open_job(tmp_path, {"a": "1"}, len(entries), kind="labelling") as journal:
        for row, entry in enumerate(entries):
            journal.append(row, entry)
    with open_job(tmp_path, {"a": "1"}, len(entries), kind="labelling") as journal:
        assert [*journal.records()] == [
            {"row": 0, "prob_1": 0.5, "rationales": ["a \ufffd"], "flags": ["truncated", "surrogates"]},
            {"row": 1, "text": "\ufffd", "flags": ["surrogates"]},
            {"row": 2, "\ufffd": ["x", "ü 😀"], "flags": ["surrogates"]},
            {"row": 3, "prob_1": 0.5, "rationales": ["whole 😀"], "flags": []},
        ]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "value", [date(2024, 1, 2), timedelta(seconds=1), Decimal("1.5"), b"x", float("nan")], ids=repr
)
def test_a_column_that_is_no_json_is_carried(config: Path, pair_server: Any, form: str, value: Any) -> None:
    """The judge never sees it; the labels' file has it as its form can, and nothing is asked twice."""
    pytest.importorskip("pyarrow")
    pairs = [{"prompt": "q", "response_1": "good", "response_2": "bad", "when": value}] * 2
    write_table(pairs, config.parent / "pairs.parquet")
    result = label(config, "pairs.file=pairs.parquet", f"format={form}")
    found = [row["when"] for row in rows_of(result.labels)]
    wanted = value if form == "parquet" else json.loads(as_json(value))
    assert found == [wanted] * 2 or (value != value and form == "parquet")
    asked = len(pair_server.requests)
    label(config, "pairs.file=pairs.parquet", f"format={form}")
    assert len(pair_server.requests) == asked


def test_what_the_labels_cannot_hold_is_refused_before_anything_is_asked(config: Path, pair_server: Any) -> None:
    """The row is named, and nothing was paid for."""
    row = {"prompt": "q", "response_1": "good", "response_2": "bad", "n": 1}
    lines = [json.dumps(row), json.dumps({**row, "n": float("inf")})]
    (config.parent / "pairs.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="'n' holds an infinite number") as caught:
        label(config)
    assert (caught.value.file, caught.value.row) == (str(config.parent / "pairs.jsonl"), 2)
    assert not pair_server.requests
