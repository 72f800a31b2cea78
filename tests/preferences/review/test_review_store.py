"""The queue, and a file of verdicts that loses none."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.exceptions import ConfigError, DataError, StateError
from rlaif_sdk.preferences.review import ReviewStore, read_review_pairs, review_estimates
from rlaif_sdk.preferences.review.pairs import (
    AILabel,
    ReviewPair,
    audit_draw,
    disagreement,
    left_response,
    priority,
    uncertainty,
)
from tests.preferences.review.conftest import labelled, write_jsonl


def order(store: ReviewStore, reviewer: str = "ana", verdict: Any = "1") -> list[str]:
    """The prompts as one reviewer gets them."""
    seen = []
    while pair := store.claim(reviewer):
        seen.append(pair.prompt)
        store.judge(reviewer, pair.id, verdict)
    return seen


def test_the_most_uncertain_pairs_come_first(store: ReviewStore) -> None:
    """Labels near 0.5 before sure ones."""
    assert order(store) == [f"question {row}" for row in range(6)]


def test_pairs_on_which_opinions_differ_come_before_agreed_ones(tmp_path: Path) -> None:
    """A judge whose orders disagree, and two judges who contradict each other, go before one unsure judge."""
    rows = [
        labelled(0, 0.4),
        labelled(1, 0.65, prob_1_when_first=0.9, prob_1_when_second=0.4, flipped=True),
        labelled(2, 0.05),
    ]
    one = write_jsonl(tmp_path / "one.jsonl", rows)
    other = write_jsonl(tmp_path / "other.jsonl", [labelled(2, 0.98, judge="another")])
    store = ReviewStore(tmp_path / "r.sqlite", audit=0)
    assert store.add([one, other]) == 3
    assert order(store) == ["question 2", "question 1", "question 0"]
    labels = next(pair for pair, _ in store.results() if pair.prompt == "question 2").labels
    assert [round(label.prob_1, 2) for label in labels] == [0.05, 0.98]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_uncertainty_and_disagreement_are_shares(probs: list[float]) -> None:
    """Both stay in [0, 1]; turning the pair round changes neither."""
    labels = [AILabel(prob) for prob in probs]
    turned = [label.swapped() for label in labels]
    assert 0 <= disagreement(labels) <= 1
    assert disagreement(turned) == pytest.approx(disagreement(labels))
    assert 0 <= uncertainty(probs[0]) <= 1
    assert priority(1 - probs[0], turned) == pytest.approx(priority(probs[0], labels))


def test_the_random_sample_is_reviewed_in_between_at_its_share(tmp_path: Path) -> None:
    """With a share of 0.2 every fifth pair or so is of the sample, whatever the judge's certainty."""
    rows = [labelled(row, 0.5 + row / 1000) for row in range(400)]
    store = ReviewStore(tmp_path / "r.sqlite", audit=0.2)
    store.add([write_jsonl(tmp_path / "l.jsonl", rows)])
    first = []
    for _ in range(50):
        pair = store.claim("ana")
        first.append(audit_draw(pair.id))
        store.judge("ana", pair.id, "1")
    sampled = [draw for draw in first if draw < 0.2]
    assert len(sampled) == 10
    assert sampled == sorted(sampled)
    assert not any(set(first[start : start + 10]) & set(sampled) == set() for start in range(0, 50, 10))


def test_two_reviewers_never_hold_the_same_pair(store: ReviewStore) -> None:
    """A pair is kept for who has it, and a reload shows it again."""
    ana, bo = store.claim("ana"), store.claim("bo")
    assert ana.id != bo.id
    assert store.claim("ana").id == ana.id
    assert len({order(store, "ana")[0], *order(store, "bo")}) <= 6
    assert store.progress().verdicts == 6


def test_with_overlap_every_pair_goes_to_as_many_reviewers(tmp_path: Path, labels: Path) -> None:
    """Each pair gets two verdicts of different people, and a third reviewer gets none."""
    store = ReviewStore(tmp_path / "r.sqlite", overlap=2, audit=0)
    store.add([labels])
    assert sorted(order(store, "ana")) == sorted(order(store, "bo", "2"))
    assert store.claim("cy") is None
    assert store.progress("bo").complete == 6
    assert store.progress("bo").mine == 6
    (found,) = review_estimates(store).reviewers.values()
    assert (found.items, found.accuracy.value) == (6, 0)


def test_a_contested_pair_is_the_next_reviewers_first(tmp_path: Path, labels: Path) -> None:
    """Where a person contradicts the judge, the second opinion is asked for at once."""
    store = ReviewStore(tmp_path / "r.sqlite", overlap=2, audit=0)
    store.add([labels])
    surest = next(pair for pair, _ in store.results() if pair.prompt == "question 5")
    store.judge("ana", surest.id, "2")
    assert store.claim("bo").id == surest.id


def test_a_lease_that_ran_out_frees_the_pair_and_a_late_verdict_counts(tmp_path: Path, labels: Path) -> None:
    """Nobody waits for one who left, and who comes back loses nothing."""
    store = ReviewStore(tmp_path / "r.sqlite", audit=0, lease_seconds=-1)
    store.add([labels])
    late = store.claim("ana")
    assert store.claim("bo").id == late.id
    store.judge("bo", late.id, "1")
    store.judge("ana", late.id, "2")
    assert store.progress().verdicts == 2


def test_undo_takes_back_one_act_after_the_other_and_gives_the_pair_again(store: ReviewStore) -> None:
    """A verdict, then the edit before it; at the end there is nothing left."""
    first = store.claim("ana")
    store.edit("ana", first.id, "a better one", based_on=1)
    store.judge("ana", first.id, "2")
    second = store.claim("ana")
    assert store.undo("ana").choice == "2"
    assert store.claim("ana").id == first.id
    assert store.claim("bo").id == second.id
    assert store.undo("ana").choice == "edit"
    assert store.undo("ana") is None
    assert store.progress().verdicts == store.progress().edits == 0


def test_a_skipped_pair_goes_to_another_reviewer(store: ReviewStore) -> None:
    """Who skipped does not see it again; it still waits for a verdict."""
    pair = store.claim("ana")
    store.judge("ana", pair.id, "skip")
    assert store.claim("ana").id != pair.id
    assert store.claim("bo").id == pair.id
    assert store.progress().judged == 0


def test_a_second_verdict_of_one_reviewer_takes_the_place_of_the_first(store: ReviewStore) -> None:
    """A request that is sent twice counts once, the last one."""
    pair = store.claim("ana")
    store.judge("ana", pair.id, "1")
    store.judge("ana", pair.id, "2")
    (annotations,) = [annotations for _, annotations in store.results(judged_only=True)]
    assert [annotation.choice for annotation in annotations] == ["2"]


def test_many_reviewers_at_once_lose_nothing_and_share_nothing(tmp_path: Path) -> None:
    """Eight threads over two connections to one file: each of 60 pairs is judged once."""
    labels = write_jsonl(tmp_path / "l.jsonl", [labelled(row, 0.6) for row in range(60)])
    stores = [ReviewStore(tmp_path / "r.sqlite", audit=0.3) for _ in range(2)]
    for store in stores:
        store.add([labels])
    threads = [threading.Thread(target=order, args=(stores[each % 2], f"reviewer {each}")) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress = stores[0].progress()
    assert (progress.verdicts, progress.judged) == (60, 60)


def test_a_kill_loses_no_verdict_that_was_answered(tmp_path: Path, labels: Path) -> None:
    """A process is killed in the middle of judging: what it had reported is in the file, and the review goes on."""
    code = """
        import sys
        from rlaif_sdk.preferences.review import ReviewStore
        store = ReviewStore(sys.argv[1], audit=0)
        store.add([sys.argv[2]])
        while True:
            pair = store.claim("ana")
            for number in "12" * 500:
                store.judge("ana", pair.id, number, comment="kept")
                print(pair.id, number, flush=True)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), tmp_path / "r.sqlite", labels]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    told = [process.stdout.readline() for _ in range(40)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.read().splitlines()
    process.stdout.close()
    process.wait()
    store = ReviewStore(tmp_path / "r.sqlite", audit=0)
    assert store.add([labels]) == 6
    ((pair, annotations),) = store.results(judged_only=True)
    assert told[-1].split()[0] == pair.id
    assert annotations[0].comment == "kept"
    with sqlite3.connect(tmp_path / "r.sqlite") as file:
        ((kept,),) = file.execute("SELECT COUNT(*) FROM annotation")
    file.close()
    assert kept >= len([line for line in told if len(line.split()) == 2])


def test_the_same_files_are_taken_in_once_and_another_judges_file_may_join(tmp_path: Path, labels: Path) -> None:
    """Starting again adds nothing; a file that changed, or is left out, is refused with the next step."""
    store = ReviewStore(tmp_path / "r.sqlite")
    store.add([labels])
    assert store.add([labels]) == 6
    more = write_jsonl(tmp_path / "more.jsonl", [labelled(0, 0.1), labelled(77, 0.9)])
    assert store.add([labels, more]) == 7
    with pytest.raises(StateError, match="begin another review with --store"):
        store.add([labels])
    write_jsonl(labels, [labelled(1, 0.5)])
    with pytest.raises(StateError, match="has changed since"):
        store.add([labels, more])


def test_a_bad_row_is_named_and_nothing_is_taken_in(tmp_path: Path) -> None:
    """The error has file and row; the review stays empty."""
    bad = write_jsonl(tmp_path / "bad.jsonl", [labelled(0, 0.5), {"prompt": "q", "chosen": "a"}])
    store = ReviewStore(tmp_path / "r.sqlite")
    with pytest.raises(DataError, match=r"bad\.jsonl:2: has no column 'rejected'"):
        store.add([bad])
    assert store.progress().pairs == 0


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"response_1": "a", "response_2": 5}, "'response_2' cannot be read: 5 is neither"),
        ({"chosen": "a", "rejected": "b", "chosen_prob": 1.5}, "must be a probability"),
        ({"text": "a"}, "has no column 'response_1'"),
    ],
)
def test_a_row_that_is_no_pair_is_refused(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    """What is wrong with it is said."""
    with pytest.raises(DataError, match=problem):
        list(read_review_pairs(write_jsonl(tmp_path / "bad.jsonl", [row])))


def test_a_file_of_another_kind_is_not_touched(tmp_path: Path, labels: Path) -> None:
    """Neither another SQLite file nor text is taken for a review."""
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("CREATE TABLE precious (x)").connection.close()
    with pytest.raises(DataError, match="and no review"):
        ReviewStore(other)
    before = labels.read_bytes()
    with pytest.raises(DataError, match="and no review"):
        ReviewStore(labels)
    assert labels.read_bytes() == before


@pytest.mark.parametrize("options", [{"overlap": 0}, {"audit": 1.5}, {"audit": -0.1}])
def test_an_option_out_of_range_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """Before any file is made."""
    with pytest.raises(ConfigError):
        ReviewStore(tmp_path / "r.sqlite", **options)
    assert not (tmp_path / "r.sqlite").exists()


def test_the_sides_are_those_of_a_coin_for_each_reviewer(store: ReviewStore) -> None:
    """About half of the pairs have response 1 on the left, not the same ones for two reviewers, each time the same."""
    ids = [f"{number:032x}" for number in range(400)]
    ana, bo = ([left_response(each, name) for each in ids] for name in ("ana", "bo"))
    assert 160 < ana.count(1) < 240
    assert 160 < sum(one == other for one, other in zip(ana, bo, strict=True)) < 240
    assert ana == [left_response(each, "ana") for each in ids]


def test_what_is_kept_of_a_pair_is_what_was_read(tmp_path: Path) -> None:
    """Conversations, rationales with the order that they were written in, and other columns survive the file."""
    row = labelled(
        0,
        0.3,
        prompt=[{"role": "user", "content": "hi ✓"}],
        prob_1_when_first=0.4,
        prob_1_when_second=0.2,
        rationales=["first order", "second order"],
    )
    (pair,) = read_review_pairs(write_jsonl(tmp_path / "l.jsonl", [row]))
    assert ReviewPair.from_json(pair.to_json()) == pair
    assert [each.first for each in pair.labels[0].rationales] == [1, 2]
    assert pair.response_1 == "answer 0 one"
    assert pair.prob_1 == pytest.approx(0.3)
    assert json.loads(pair.to_json())["record"]["topic"] == "tests"


def test_a_row_that_nests_deep_is_reviewed_like_others(tmp_path: Path) -> None:
    """Its other columns are kept as they were written."""
    deep: list[Any] = []
    for _ in range(800):
        deep = [deep]
    write_jsonl(tmp_path / "labels.jsonl", [labelled(0, 0.6) | {"found": deep}])
    [pair] = read_review_pairs(tmp_path / "labels.jsonl")
    assert type(pair).from_json(pair.to_json()) == pair
    store = ReviewStore(tmp_path / "review.sqlite")
    assert store.add([tmp_path / "labels.jsonl"]) == 1
    store.close()
