"""What a notebook shows of a composer, a composition and an explanation."""

from __future__ import annotations

import asyncio

from rlaif_sdk import Composer, Credit, PairwiseLabeler, PointwiseJudge, RewardBatch, Score
from rlaif_sdk.testing import ScriptedJudge

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


def test_whatever_is_shown_by_itself_is_one_short_line() -> None:
    """However many rewards, rows and words there are; a cell that ends with an object shows no data."""
    names = {f"reward_{number}\n": polite for number in range(40)}
    long = "please " * 400
    with Composer(names) as composer:
        batch = RewardBatch([long] * 50, [long] * 50, columns={name: [long] * 50 for name in "abcdef"})
        composition = composer.compose(batch)
    judge = PointwiseJudge(ScriptedJudge(lambda request: {"A": 1.0}), name=long)
    shown = [
        batch,
        composer,
        composition,
        composition.explain(0),
        *composition.rewards.values(),
        Score(0.5, long, {"text": long}, Credit([0.0] * 500)),
        Score.failed(long),
        judge,
        PairwiseLabeler(judge.backend),
    ]
    for each in shown:
        assert len(repr(each)) < 120
        assert "\n" not in repr(each)
        assert repr(each).startswith("<")
        assert repr(each).endswith(">")
    assert repr(Score(0.5, "half of it", credit=Credit([0.25, 0.25]))) == "<Score 0.5 of 2 tokens: half of it>"
    assert repr(Score.failed("timed out")) == "<Score failed: timed out>"
    assert repr(Score(None)) == "<Score None>"
    assert repr(PairwiseLabeler(judge.backend)) == "<PairwiseLabeler by ScriptedJudge, likelihood, orders both>"


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
