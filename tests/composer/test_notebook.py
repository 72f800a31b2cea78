"""What a notebook shows of a composer, a composition and an explanation."""

from __future__ import annotations

import asyncio

from rlaif_sdk import Composer, RewardBatch, Score

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J"


def polite(completion_texts):
    return [Score(float("please" in text), reason=text) for text in completion_texts]


def test_whatever_others_wrote_is_escaped_in_a_notebook() -> None:
    """A reason quotes a completion, and a completion may be a script."""
    with Composer({"<b>polite</b>": polite}) as composer:
        composition = composer.compose(RewardBatch(["p"], [HOSTILE]))
    for shown in (composer, composition, composition.explain(0)):
        page = shown._repr_html_()
        assert page.startswith("<table>")
        assert "<img" not in page
        assert "<b>" not in page
        assert "\x1b" not in page
        assert len(repr(shown)) < 100


def test_all_of_it_works_in_a_running_event_loop() -> None:
    """As in a notebook's cell."""

    async def cell() -> list[dict]:
        with Composer({"polite": polite}) as composer:
            chat = [{"role": "assistant", "content": "Yes, please"}]
            composition = composer.compose(RewardBatch([[{"role": "user", "content": "Tea?"}]], [chat]))
            frame = composition.to_pandas()
            assert frame["polite/raw"].tolist() == [1.0]
            return composition.to_records()

    assert asyncio.run(cell())[0]["total"] == 1.0
