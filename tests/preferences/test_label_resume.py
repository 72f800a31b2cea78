"""A labelling job that was stopped, killed or changed goes on, begins anew or is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from rlaif_sdk import ConfigError, DataError
from rlaif_sdk.preferences import run_labeling
from tests.preferences.conftest import prefers_good
from tests.preferences.making import kill_when, label, rows_of, slow_down


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
    journal = config.parent / "labels" / "__job__" / "journal.jsonl"
    kept = [line for line in journal.read_bytes().splitlines(keepends=True) if json.loads(line)["row"] != 2]
    journal.write_bytes(b"".join(kept) + torn)
    pair_server.requests.clear()
    assert rows_of(label(config).labels) == rows
    assert len(pair_server.requests) == 3
    assert all("question 2" in str(request) for request in pair_server.requests[1:])


def test_a_line_that_cannot_be_read_is_labelled_again(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """Damage in the middle costs only that pair, and is reported."""
    write_pairs(4)
    rows = rows_of(label(config).labels)
    journal = config.parent / "labels" / "__job__" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"\x00damaged\n" + b'{"row": 99, "prob_1": 1}\n' + b"".join(lines[2:]))
    pair_server.requests.clear()
    with pytest.warns(UserWarning, match="2 lines cannot be read"):
        assert rows_of(label(config).labels) == rows
    assert len(pair_server.requests) == 3


def test_a_killed_job_sends_only_what_is_missing(config: Path, write_pairs: Any, pair_server: Any) -> None:
    """kill -9 in the middle: the next run asks about the pairs whose answers had not come, and no other."""
    write_pairs(60)
    answered = slow_down(pair_server, lambda sent, _: sent["messages"][0]["content"])
    program = f"from rlaif_sdk.preferences import run_labeling; run_labeling({str(config)!r})"
    done = {line["row"] for line in kill_when(program, config.parent / "labels" / "__job__" / "journal.jsonl", 10)}
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
    with pytest.raises(
        (ConfigError, DataError), match=f"(?s)another labelling job:.*{named}: " if named else "three different"
    ):
        label(config, override)
    assert not pair_server.requests


def test_changed_pairs_are_refused(config: Path, write_pairs: Any) -> None:
    """Another file under the same name is another job; settings that change no label are free."""
    write_pairs(2)
    label(config)
    label(config, "judge.concurrency=9", "max_failed_share=0.5", "calls_at_once=1")
    write_pairs(3)
    with pytest.raises(ConfigError, match="pairs file: "):
        label(config)


def test_a_changed_job_that_is_allowed_begins_anew_and_loses_nothing(config: Path, write_pairs: Any) -> None:
    """What the folder held is moved aside, each time to a folder of its own; the same job goes on with what is there."""
    write_pairs(2)
    folder = label(config).labels.parent
    kept = (folder / "__job__" / "identity.json").read_text()
    for rows, aside in ((3, 1), (4, 2)):
        write_pairs(rows)
        assert run_labeling(config, allow_changed=True).asked == rows
        earlier = folder / "__job__" / f"earlier-{aside}"
        assert (earlier / "__job__" / "journal.jsonl").read_text().count("\n") == rows - 1
        assert (earlier / "labels.jsonl").exists()
    assert (folder / "__job__" / "earlier-1" / "__job__" / "identity.json").read_text() == kept
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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_not_told_as_another_process(
    config: Path, write_pairs: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The refusal names the file and what the system says, and what to do."""
    write_pairs(3)
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(DataError, match=f"lock: cannot be locked: .*{os.strerror(number)}.*local disk"):
        run_labeling(config)


def test_a_full_disk_stops_the_job_cleanly(config: Path, write_pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed error with the next step; the half line is dropped when the job goes on."""
    from rlaif_sdk.preferences import resumable_job

    write_pairs(6)
    opened = resumable_job.JobJournal._repaired

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
        patch.setattr(resumable_job.JobJournal, "_repaired", lambda self: Full(opened(self)))
        with pytest.raises(DataError, match="No space left"):
            label(config)
    assert label(config).summary.labelled == 6
