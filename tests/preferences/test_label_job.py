"""A file of pairs is labelled once, whatever happens on the way."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif_sdk import ConfigError, DataError, JudgeError, MissingExtraError, parquet
from rlaif_sdk.exceptions import JudgeAuthError, JudgeQuotaError, JudgeResponseError
from rlaif_sdk.judges import PairwiseLabeler
from rlaif_sdk.preferences import load_label_job, run_labeling
from rlaif_sdk.records import read_records
from rlaif_sdk.testing import ScriptedJudge
from tests.preferences.conftest import prefers_good


@pytest.fixture
def config(tmp_path: Path, pair_server: Any) -> Path:
    """A job with a server, beside the pairs that a test writes."""
    judge = {"model": "tiny", "base_url": pair_server.url, "concurrency": 4, "input_price": 1, "output_price": 2}
    path = tmp_path / "label.yaml"
    path.write_text(yaml.safe_dump({"pairs": {"file": "pairs.jsonl"}, "judge": judge, "output": "labels"}))
    return path


def label(config: Path, *overrides: str, **options: Any) -> Any:
    return run_labeling(load_label_job(config, overrides=overrides), **options)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(read_records(path))


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
    written = json.loads((config.parent / "labels" / "summary.json").read_text())
    assert written["cost_per_label"] == pytest.approx(2 * 52e-6)
    assert written["position_bias"] == {"first": 0.0, "second": 0.0}


def test_labels_train_as_they_are(config: Path, write_pairs: Any) -> None:
    """Every row is what the trainers of preferences take, in JSONL and in Parquet alike."""
    pytest.importorskip("datasets")
    from datasets import Dataset

    from rlaif_sdk.training.preference_data import checked_preferences

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


def test_a_finished_job_asks_nothing_more(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """Starting it again writes the same results."""
    write_pairs(3)
    first = label(config)
    rows, asked = rows_of(first.labels), len(pair_server.requests)
    again = label(config)
    assert (rows_of(again.labels), len(pair_server.requests), again.asked) == (rows, asked, 0)
    assert again.summary == first.summary


@pytest.mark.parametrize("torn", [b"", b'{"row": 2, "prob_1": 0', b'{"row": 2, "prob_1": 0.5}', b"\xff\xfe"])
def test_a_torn_last_line_is_dropped_and_done_again(
    config: Path, write_pairs: Any, pair_server: Any, torn: bytes
) -> None:
    """A line without its end does not count, and the file goes on behind the last whole one."""
    write_pairs(4)
    rows = rows_of(label(config).labels)
    journal = config.parent / "labels" / "journal.jsonl"
    kept = [line for line in journal.read_bytes().splitlines(keepends=True) if json.loads(line)["row"] != 2]
    journal.write_bytes(b"".join(kept) + torn)
    pair_server.requests.clear()
    assert rows_of(label(config).labels) == rows
    assert len(pair_server.requests) == 3
    assert all("question 2" in str(request) for request in pair_server.requests[1:])


def test_a_line_that_cannot_be_read_is_labelled_again(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """Damage in the middle costs that pair alone, and is told."""
    write_pairs(4)
    rows = rows_of(label(config).labels)
    journal = config.parent / "labels" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"\x00damaged\n" + b'{"row": 99, "prob_1": 1}\n' + b"".join(lines[2:]))
    pair_server.requests.clear()
    with pytest.warns(UserWarning, match="2 lines cannot be read"):
        assert rows_of(label(config).labels) == rows
    assert len(pair_server.requests) == 3


def test_a_killed_job_sends_only_what_is_missing(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """kill -9 in the middle: the next run asks about the pairs whose answers had not come, and no other."""
    write_pairs(60)
    answered: list[str] = []
    lock = threading.Lock()

    def slowly(number: int, sent: Any) -> Any:
        time.sleep(0.01)
        with lock:
            answered.append(sent["messages"][0]["content"])
        return prefers_good(number, sent)

    pair_server.answer = slowly
    program = f"from rlaif_sdk.preferences import run_labeling; run_labeling({str(config)!r})"
    journal = config.parent / "labels" / "journal.jsonl"
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "NO_PROXY": "*"})
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 10):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes()
    done = {json.loads(line)["row"] for line in kept[: kept.rindex(b"\n")].splitlines()}
    assert 10 <= len(done) < 60
    time.sleep(0.1)
    answered.clear()
    result = label(config)
    asked = {int(text.rpartition("question ")[2].split()[0]) for text in answered if "question" in text}
    assert asked == set(range(60)) - done
    assert len(answered) == 2 * len(asked) + 1
    rows = rows_of(result.labels)
    assert [row["prompt"] for row in rows] == [f"question {row}" for row in range(60)]
    assert result.summary.usage.calls == 2 * 60


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("prompt.task=harmlessness", "prompt"),
        ("judge.model=other", "model"),
        ("mode=verdict", "mode"),
        ("orders=given", "orders"),
        ("max_chars=99", "limits"),
        ("pairs.response_1=response_2", None),
    ],
)
def test_a_changed_setting_is_refused_by_name(
    config: Path, write_pairs: Any, pair_server: Any, override: str, named: str | None
) -> None:
    """Labels of two settings do not mix; what differs is said, and nothing is asked."""
    write_pairs(2)
    label(config)
    pair_server.requests.clear()
    with pytest.raises((ConfigError, DataError), match=f"another {named}" if named else "three different"):
        label(config, override)
    assert not pair_server.requests


def test_changed_pairs_are_refused(config: Path, write_pairs: Any) -> None:
    """Another file under the same name is another job; settings that change no label are free."""
    write_pairs(2)
    label(config)
    label(config, "judge.concurrency=9", "max_failed_share=0.5", "calls_at_once=1")
    write_pairs(3)
    with pytest.raises(ConfigError, match="another pairs file"):
        label(config)


def test_a_changed_job_that_is_allowed_begins_anew_and_loses_nothing(config: Path, write_pairs: Any) -> None:
    """What the folder held is moved aside, each time to a folder of its own; the same job goes on with what is there."""
    write_pairs(2)
    folder = label(config).labels.parent
    kept = (folder / "job.json").read_text()
    for rows, aside in ((3, 1), (4, 2)):
        write_pairs(rows)
        assert run_labeling(config, allow_changed=True).asked == rows
        assert (folder / f"earlier-{aside}" / "journal.jsonl").read_text().count("\n") == rows - 1
    assert (folder / "earlier-1" / "job.json").read_text() == kept
    assert run_labeling(config, allow_changed=True).asked == 0


def test_two_processes_do_not_share_a_folder(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """The second is refused at once, and the first is not disturbed."""
    write_pairs(3)
    refused: list[BaseException] = []

    def second(number: int, sent: Any) -> Any:
        if not refused:
            try:
                label(config)
            except DataError as error:
                refused.append(error)
        return prefers_good(number, sent)

    pair_server.answer = second
    assert label(config).summary.labelled == 3
    assert "another process" in str(refused[0])


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
    assert not (config.parent / "labels" / "failures.jsonl").exists()


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


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "p", "response_1": "a"}', r"pairs.jsonl:2.*response_2"),
        ('{"prompt": "p", "response_1": "a", "response_2": 3}', r"pairs.jsonl:2.*text or messages"),
        ('{"prompt": "p", "response_1": "a", "response_2": "b", "chosen_prob": 1}', "which the labels have too"),
        ("not json", r"pairs.jsonl:2.*JSON"),
    ],
)
def test_a_bad_pair_is_named_before_anything_is_sent(
    config: Path, write_pairs: Any, pair_server: Any, line: str, problem: str
) -> None:
    """The whole file is read first, so a bad row costs nothing."""
    path = write_pairs(1)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=problem):
        label(config)
    assert not pair_server.requests


def test_columns_of_any_name_are_labelled(config: Path, tmp_path: Path) -> None:
    """Human preferences in chosen and rejected become response 1 and 2; conversations stay conversations."""
    turn = [{"role": "user", "content": "q"}]
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"ask": turn, "chosen": "bad", "rejected": "good"}) + "\n")
    [row] = rows_of(label(config, "pairs.prompt=ask", "pairs.response_1=chosen", "pairs.response_2=rejected").labels)
    assert row["chosen"] == [{"role": "assistant", "content": "good"}]
    assert (row["prompt"], row["chosen_response"]) == (turn, 2)


def test_a_full_disk_stops_the_job_cleanly(config: Path, write_pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed error with the next step; the half line is dropped when the job goes on."""
    from rlaif_sdk.preferences import label_journal

    write_pairs(6)
    opened = label_journal.LabelJournal._repaired

    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file
            self._left = 900

        def write(self, line: bytes) -> int:
            if self._left < len(line):
                self._file.write(line[: self._left])
                raise OSError(28, "No space left on device")
            self._left -= len(line)
            return self._file.write(line)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    with monkeypatch.context() as patch:
        patch.setattr(label_journal.LabelJournal, "_repaired", lambda self: Full(opened(self)))
        with pytest.raises(DataError, match="No space left"):
            label(config)
    assert label(config).summary.labelled == 6


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("judge: {model: m}", "pairs"),
        ("pairs: {file: p}", "judge"),
        ("pairs: {file: p}\njudge: {model: m, batchsize: 3}", r"label.yaml:2.*batchsize"),
        ("pairs: {file: p}\njudge: {model: m, backend: telepathy}", r"label.yaml:2.*telepathy"),
        ("pairs: {file: p}\njudge: {model: m}\nmode: guess", r"label.yaml:3.*mode"),
        ("pairs: {file: p}\njudge: {model: m}\nsamples: 4", r"label.yaml:3: samples: .*temperature"),
        (
            "pairs: {file: p}\njudge: {model: m}\nchain_of_thought: true\nmode: verdict",
            r"label.yaml:3: chain_of_thought: ",
        ),
        ("pairs: {file: p}\njudge: {model: m}\nprompt: {task: x}", "task"),
        ("pairs: {file: p}\njudge: {model: m}\nprompt: {file: x.yaml, task: helpfulness}", "leave them out"),
        ("pairs: {file: p}\njudge: {model: m}\nprompt: {exemplars: none.jsonl}", "none.jsonl"),
        ("pairs: {file: p}\njudge: {model: m}\nmax_failed_share: 2", "max_failed_share"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_its_line(write: Any, text: str, problem: str) -> None:
    """Before any pair is read or any model loaded."""
    with pytest.raises((ConfigError, DataError), match=f"(?s){problem}"):
        load_label_job(write("label.yaml", text)).labeler()


def test_exemplars_and_a_prompt_of_ones_own_come_from_files(
    config: Path, write: Any, write_pairs: Any, pair_server: Any
) -> None:
    """Both stand in what the judge is asked; a wrong exemplar is named by its row."""
    write_pairs(1)
    write("own.yaml", "preamble: MY RULES")
    write("shown.jsonl", '{"prompt": "p", "response_1": "x good", "response_2": "y", "preferred": "1"}\n')
    config.write_text(config.read_text() + "prompt: {file: own.yaml, exemplars: shown.jsonl}\n")
    label(config)
    asked = pair_server.requests[1]["messages"][0]["content"]
    assert asked.startswith("MY RULES")
    assert "x good" in asked
    write("shown.jsonl", '{"prompt": "p", "response_1": "x", "response_2": "y", "preferred": 1}\n')
    with pytest.raises(DataError, match=r"shown.jsonl:1.*preferred"):
        label(config)


def test_parquet_without_pyarrow_is_refused_before_any_call_is_paid_for(
    config: Path, write_pairs: Any, pair_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing package is no surprise at the end of a night."""
    write_pairs(3)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow"):
        label(config, "format=parquet")
    assert pair_server.requests == []


def test_a_column_that_the_first_pair_lacks_reaches_parquet(config: Path, write_pairs: Any) -> None:
    """Every column of the pairs is carried along, whichever row begins it."""
    pairs = write_pairs(3)
    first, *others = [json.loads(line) for line in pairs.read_text().splitlines()]
    rows = [first, *({**row, "human": "a"} for row in others)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["human"] for row in rows_of(label(config, "format=parquet").labels)] == [None, "a", "a"]


def test_columns_that_parquet_cannot_hold_are_refused_before_any_call_is_paid_for(
    config: Path, write_pairs: Any, pair_server: Any
) -> None:
    """A column of 1, 2 and "tie", say; what hides deeper is a typed error at the end, and JSONL then costs nothing."""
    pairs = write_pairs(3)
    plain = [json.loads(line) for line in pairs.read_text().splitlines()]

    def with_column(values: list[Any]) -> None:
        rows = [{**row, "human": value} for row, value in zip(plain, values, strict=True)]
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))

    with_column([1, "tie", None])
    with pytest.raises(DataError, match=r"'human' is text in row 2 and something else in row 1.*format: jsonl"):
        label(config, "format=parquet")
    assert pair_server.requests == []
    with_column([{"by": "ana"}, {"by": 7}, None])
    with pytest.raises(DataError, match=r"Parquet cannot hold the rows.*jsonl"):
        label(config, "format=parquet")
    asked = len(pair_server.requests)
    assert [row["human"] for row in rows_of(label(config).labels)] == [{"by": "ana"}, {"by": 7}, None]
    assert len(pair_server.requests) == asked


def test_memory_does_not_grow_with_the_pairs(config: Path, write_pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the pairs, 1.5 MB of text more, take no more than a few bytes each beyond.

    A first job imports what is needed and is not compared; all are long enough to have as many calls in progress as
    there may be.
    """
    monkeypatch.setattr(parquet, "_CHUNK", 64)
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
    journal = (config.parent / "labels" / "journal.jsonl").read_text().splitlines()
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
