"""The review page in a real browser, driven by keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk.preferences.review import ReviewStore
from rlaif_sdk.preferences.review.pairs import ReviewPair
from rlaif_sdk.preferences.review.store import Annotation
from tests.preferences.review.conftest import Page, labelled, write_jsonl

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ATTACK = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, as installed on this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens the page as a reviewer with a browser profile of their own; no error may be logged."""
    contexts, errors = [], []

    def open_page(page: Page, reviewer: str, errors: list[str] = errors) -> Any:
        context = browser.new_context(accept_downloads=True)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(15_000)
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(page.address)
        tab.fill("#name", reviewer)
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#pair:not([hidden])")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def press(tab: Any, key: str) -> None:
    """Press a key that judges, and wait for the server's answer to be shown."""
    with tab.expect_response(lambda response: "/api/" in response.url):
        tab.keyboard.press(key)
    tab.wait_for_selector("body:not([aria-busy])")


def kept(store: ReviewStore) -> list[tuple[ReviewPair, list[Annotation]]]:
    return list(store.results(judged_only=True))


@pytest.fixture
def sure(serve: Any, tmp_path: Path) -> Page:
    """Four pairs whose first response is preferred by the judge."""
    store = ReviewStore(tmp_path / "sure.sqlite", audit=0)
    store.add([write_jsonl(tmp_path / "sure.jsonl", [labelled(row, 0.6 + row / 10) for row in range(4)])])
    return serve(store)


def test_approve_flip_tie_and_skip_by_key(sure: Page, visit: Any) -> None:
    """Each key keeps its verdict in terms of the responses, whichever side they stand on, and brings the next pair."""
    tab = visit(sure, "ana")
    for key in "afts":
        press(tab, key)
    tab.wait_for_selector("#done:not([hidden])")
    assert [annotations[0].choice for _, annotations in kept(sure.store)] == ["1", "2", "tie", "skip"]
    assert "3 of 4 judged, 3 by you" in tab.text_content("#counts")


def test_arrows_and_digits_choose_a_side(sure: Page, visit: Any) -> None:
    """What stands on that side is kept as better."""
    tab = visit(sure, "ana")
    shown = []
    for key, side in (("ArrowLeft", "left"), ("ArrowRight", "right"), ("1", "left"), ("2", "right")):
        shown.append(tab.text_content(f"#{side} .turn"))
        press(tab, key)
    better = [
        pair.response_1 if annotations[0].choice == "1" else pair.response_2 for pair, annotations in kept(sure.store)
    ]
    assert better == shown


def test_undo_by_key_brings_the_pair_back(sure: Page, visit: Any) -> None:
    """The verdict is gone, and the same texts are on the same sides."""
    tab = visit(sure, "ana")
    before = tab.text_content("#left"), tab.text_content("#prompt")
    press(tab, "a")
    assert tab.text_content("#prompt") != before[1]
    press(tab, "u")
    assert (tab.text_content("#left"), tab.text_content("#prompt")) == before
    assert kept(sure.store) == []


def test_an_edited_response_and_a_comment_are_kept(sure: Page, visit: Any) -> None:
    """Letters typed into a text are no commands; Ctrl+Enter keeps the edit, and the verdict is still to come."""
    tab = visit(sure, "ana")
    tab.keyboard.press("e")
    tab.wait_for_selector("#edit-dialog[open]")
    assert tab.input_value("#edit-text") == "answer 0 one"
    tab.keyboard.press("End")
    tab.keyboard.type(" after staff edits")
    press(tab, "Control+Enter")
    assert tab.text_content("#edit-list") == "answer 0 one after staff edits"
    tab.keyboard.press("c")
    tab.keyboard.type("fast facts")
    tab.keyboard.press("Escape")
    press(tab, "a")
    ((_, (edit, verdict)),) = kept(sure.store)
    assert (edit.choice, edit.text, edit.based_on) == ("edit", "answer 0 one after staff edits", 1)
    assert (verdict.choice, verdict.comment) == ("1", "fast facts")


def test_long_rationales_leave_the_responses_in_view(serve: Any, tmp_path: Path, visit: Any) -> None:
    """What the judge wrote scrolls by itself above them."""
    store = ReviewStore(tmp_path / "r.sqlite", audit=0)
    row = labelled(0, 0.8, rationales=["Because so it is. " * 40] * 4)
    store.add([write_jsonl(tmp_path / "l.jsonl", [row])])
    tab = visit(serve(store), "ana")
    assert tab.locator("#left").bounding_box()["y"] < tab.locator("footer").bounding_box()["y"]


def test_the_bar_of_keys_does_not_cover_the_comment(sure: Page, visit: Any) -> None:
    """A window that ends where the comment does is scrolled until it is seen."""
    tab = visit(sure, "ana")
    tab.keyboard.press("c")
    box = tab.locator("#comment").bounding_box()
    tab.keyboard.press("Escape")
    tab.set_viewport_size({"width": 1280, "height": int(box["y"] + box["height"]) + 5})
    tab.evaluate("scrollTo(0, 0)")
    tab.keyboard.press("c")
    box = tab.locator("#comment").bounding_box()
    assert box["y"] + box["height"] <= tab.locator("footer").bounding_box()["y"]


def test_two_reviewers_at_once_get_different_pairs_and_both_count(sure: Page, visit: Any) -> None:
    """Two browsers in turn until nothing is left: four verdicts, no pair twice."""
    ana, bo = visit(sure, "ana"), visit(sure, "bo")
    for _ in range(2):
        assert ana.text_content("#prompt") != bo.text_content("#prompt")
        press(ana, "a")
        press(bo, "f")
    for tab in (ana, bo):
        tab.wait_for_selector("#done:not([hidden])")
    annotations = [annotation for _, found in kept(sure.store) for annotation in found]
    assert len({annotation.pair for annotation in annotations}) == len(annotations) == 4
    assert [annotation.reviewer for annotation in annotations].count("bo") == 2


def test_markup_in_a_candidate_stays_text(serve: Any, tmp_path: Path, visit: Any) -> None:
    """Prompt, responses, rationale and reviewer's name are shown letter by letter, and run nothing."""
    talk = [{"role": ATTACK, "content": ATTACK}]
    row = labelled(0, 0.8, prompt=talk, chosen=ATTACK, rejected=f"{ATTACK} 2", rationales=[ATTACK])
    store = ReviewStore(tmp_path / "r.sqlite", audit=0)
    store.add([write_jsonl(tmp_path / "l.jsonl", [row])])
    tab = visit(serve(store), "<b>ana</b>")
    assert tab.text_content("#prompt") == ATTACK * 2
    assert ATTACK in tab.text_content("#rationales")
    assert tab.text_content("#who") == "<b>ana</b>"
    tab.keyboard.press("e")
    tab.fill("#edit-text", f"{ATTACK} better")
    press(tab, "Control+Enter")
    assert tab.text_content("#edit-list") == f"{ATTACK} better"
    markup = "main img, main script, main b, header b, dialog b, #notice b"
    assert tab.locator(markup).count() == 0
    press(tab, "a")
    press(tab, "g")
    tab.wait_for_selector("#estimates-dialog[open]")
    assert "judge and <b>ana</b>" in tab.text_content("#estimates")
    assert tab.locator(markup).count() == 0
    assert tab.title() == "Review labels"


def test_the_page_is_under_a_policy_that_forbids_inline_code(sure: Page, visit: Any) -> None:
    """Were markup ever to get into the page, its code would not run."""
    logged: list[str] = []
    tab = visit(sure, "ana", logged)
    with tab.expect_console_message(lambda message: "Content Security Policy" in message.text):
        tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    tab.wait_for_timeout(200)
    assert tab.title() == "Review labels"
    assert logged


def test_blind_review_hides_the_judge_until_the_verdict(serve: Any, store: ReviewStore, visit: Any) -> None:
    """No preference is on the page, approving is off, and the verdict is answered with what the judge said."""
    tab = visit(serve(store, blind=True), "ana")
    assert tab.is_hidden("#ai")
    assert tab.is_disabled("button[data-key=a]")
    press(tab, "ArrowLeft")
    assert "the judge: tie" in tab.text_content("#notice")


def test_the_export_button_downloads_the_labels(sure: Page, visit: Any) -> None:
    """As a file of JSON lines."""
    tab = visit(sure, "ana")
    press(tab, "f")
    with tab.expect_download() as download:
        tab.click("#export-button")
    rows = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert [row["source"] for row in rows] == ["human", "ai", "ai", "ai"]


def test_a_key_held_down_judges_one_pair(sure: Page, visit: Any) -> None:
    """Repeated key events are no verdicts."""
    tab = visit(sure, "ana")
    for repeat in (False, True, True):
        tab.evaluate(
            "repeat => document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', repeat, bubbles: true}))",
            repeat,
        )
    tab.wait_for_timeout(400)
    assert sure.store.progress().verdicts == 1
