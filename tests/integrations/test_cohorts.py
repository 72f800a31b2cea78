"""Groups that are gathered one member at a time: whole, short, late, twice, crossed, left by those who asked."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from rlaif_sdk import BatchError, Composer, RewardBatch, RewardError
from rlaif_sdk.composer import Component, FailurePolicy
from rlaif_sdk.composer.normalizers import GroupZScore
from rlaif_sdk.integrations import Host, Sample
from rlaif_sdk.integrations import cohorts as kept
from rlaif_sdk.integrations.coalescing import Coalescer
from rlaif_sdk.integrations.cohorts import Cohorts
from rlaif_sdk.types import Progress

LONG = 60.0
SHORT = 0.05


def length(completions):
    return [float(len(text)) for text in completions]


class Seen:
    """A reward that compares within groups, and the groups that it was asked about."""

    name = "seen"
    scope = "group"

    def __init__(self) -> None:
        self.groups: list[list[str]] = []

    def score(self, batch: RewardBatch) -> list[float]:
        groups: dict[Any, list[str]] = {}
        for label, text in zip(batch.group, batch.completions, strict=True):
            groups.setdefault(label, []).append(text)
        self.groups += groups.values()
        return [float(len(groups[label])) for label in batch.group]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def composer(seen: Seen) -> Iterator[Composer]:
    with Composer({"seen": seen}) as made:
        yield made


def of(text: str, *, group: str = "g", size: int = 3, prompt: str = "?", member: int | None = None, **columns: Any):
    return Sample(prompt, text, columns, group=group, group_size=size, member=member)


def gathering(composer: Composer, ask: Callable[[Cohorts], Awaitable[Any]], *, deadline: float = LONG, **more: Any):
    """What a coroutine that asks cohorts gives, on a loop of its own."""

    async def run() -> Any:
        return await ask(Cohorts(Coalescer(composer.submit), tuple(composer.components), deadline=deadline, **more))

    return asyncio.run(run())


def test_a_group_is_scored_once_it_is_whole(composer, seen):
    """Nobody is answered before the last member has come; then all are, of one batch, in the order of their names."""

    async def ask(cohorts):
        early = [cohorts.score(of(text, member=name)) for name, text in ((2, "c"), (0, "a"))]
        await asyncio.sleep(SHORT)
        assert not any(one.done() for one in early)
        assert len(cohorts) == 1
        return await asyncio.gather(*early, cohorts.score(of("b", member=1)))

    scored = gathering(composer, ask)
    assert seen.groups == [["a", "b", "c"]]
    assert [(one.total, one.gathered) for one in scored] == [(3.0, 3)] * 3


def test_the_order_of_arrival_changes_nothing():
    """Many groups whose members come in random order: each gets what the composer gives for the whole groups."""
    texts = {f"{group}": ["x" * ((group * 7 + member * 3) % 11) for member in range(4)] for group in range(30)}
    samples = [
        of(text, group=group, size=4, prompt=group, member=member)
        for group, answers in texts.items()
        for member, text in enumerate(answers)
    ]
    with Composer({"length": Component(length, normalizer=GroupZScore())}) as composer:
        for seed in range(3):
            order = random.Random(seed).sample(samples, len(samples))

            async def ask(cohorts, order=order):
                return await asyncio.gather(*map(cohorts.score, order))

            for sample, one in zip(order, gathering(composer, ask), strict=True):
                group = texts[sample.group]
                batch = RewardBatch([sample.group] * 4, group, group=[sample.group] * 4, training=False)
                assert one.total == composer.compose(batch).totals[sample.member]


def test_a_group_that_never_comes_true_is_scored_as_it_is_at_the_deadline(composer, seen):
    """Those who came are a smaller group, and are told how many they were."""
    outcomes = []

    async def ask(cohorts):
        return await asyncio.gather(*(cohorts.score(of(text, size=8)) for text in "ab"))

    scored = gathering(composer, ask, deadline=SHORT, count=outcomes.append)
    assert [(one.total, one.gathered) for one in scored] == [(2.0, 2)] * 2
    assert seen.groups == [["a", "b"]]
    assert outcomes == ["short"]


def test_a_late_member_is_unscored_and_never_a_group_of_its_own(composer, seen):
    """It is told why, no reward is asked, and the label is free again after another deadline."""

    async def ask(cohorts):
        await asyncio.gather(*(cohorts.score(of(text, member=name)) for name, text in enumerate("ab")))
        late = await cohorts.score(of("c", member=2))
        await asyncio.sleep(3 * SHORT)
        return late, await asyncio.gather(*(cohorts.score(of(text, member=name)) for name, text in enumerate("def")))

    late, again = gathering(composer, ask, deadline=SHORT)
    assert (late.total, late.gathered) == (None, 0)
    assert "too late: its group was scored with 2 of 3" in late.reason
    assert late.scores().keys() == {"seen", "unscored"}
    assert seen.groups == [["a", "b"], ["d", "e", "f"]]
    assert [one.gathered for one in again] == [3] * 3


def test_a_member_that_is_asked_for_twice_gets_one_answer(composer, seen):
    """While its group gathers, while it is scored, and after: a client that tries again changes nothing."""

    async def ask(cohorts):
        asked = [cohorts.score(of("a", member=0)), cohorts.score(of("a", member=0))]
        asked += [cohorts.score(of(text, member=name)) for name, text in ((1, "b"), (2, "c"))]
        asked += [cohorts.score(of("b", member=1))]
        scored = await asyncio.gather(*asked)
        return [*scored, await cohorts.score(of("c", member=2))]

    scored = gathering(composer, ask)
    assert seen.groups == [["a", "b", "c"]]
    assert [one.row for one in scored] == [0, 0, 1, 2, 1, 2]


def test_the_answers_of_the_last_groups_are_kept_and_of_those_alone_that_may_be_asked_for_again(
    composer, seen, monkeypatch
):
    """With room for one: nameless members need none, and the next group with names takes it."""
    monkeypatch.setattr(kept, "KEPT", 1)

    async def ask(cohorts):
        for group, named in (("g", True), ("h", False)):
            members = (of(text, group=group, size=2, member=text if named else None) for text in "ab")
            await asyncio.gather(*map(cohorts.score, members))
        known = await cohorts.score(of("a", group="g", size=2, member="a"))
        await asyncio.gather(*(cohorts.score(of(text, group="i", size=2, member=text)) for text in "cd"))
        await asyncio.gather(*(cohorts.score(of(text, group="g", size=2, member=text)) for text in "ab"))
        return known

    assert gathering(composer, ask).gathered == 2
    assert seen.groups == [["a", "b"], ["a", "b"], ["c", "d"], ["a", "b"]]


def test_a_member_that_is_asked_for_again_while_the_next_group_of_its_label_gathers_is_none_of_that(composer, seen):
    """A prompt that a step has twice, of whose first group an answer was lost: nobody is counted twice."""

    async def ask(cohorts):
        await asyncio.gather(*(cohorts.score(of(text, member=text)) for text in "abc"))
        begun = cohorts.score(of("d", member="d"))
        again = await cohorts.score(of("b", member="b"))
        return again, await asyncio.gather(begun, *(cohorts.score(of(text, member=text)) for text in "ef"))

    again, following = gathering(composer, ask)
    assert seen.groups == [["a", "b", "c"], ["d", "e", "f"]]
    assert (again.row, again.gathered) == (1, 3)
    assert [one.gathered for one in following] == [3] * 3


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (of("z", member=0), "a member 0 already, with another completion"),
        (of("z", member=1, prompt="another"), "for another prompt"),
        (of("z", member=1, size=4), "3 members, not 4"),
        (of("z", member=1, x=1), "the same columns"),
    ],
)
def test_what_does_not_fit_a_group_is_refused_and_leaves_it_alone(composer, seen, other, said):
    """A member with other texts, and two groups of one label at the same time."""

    async def ask(cohorts):
        first = cohorts.score(of("a", member=0))
        with pytest.raises(BatchError, match=said):
            cohorts.score(other)
        return await asyncio.gather(
            first, *(cohorts.score(of(text, member=name)) for name, text in ((1, "b"), (2, "c")))
        )

    assert [one.total for one in gathering(composer, ask)] == [3.0] * 3
    assert seen.groups == [["a", "b", "c"]]


def test_training_and_evaluation_are_not_one_group(composer):
    """Running statistics learn from a whole group or from none of it."""

    async def ask(cohorts):
        cohorts.score(of("a", member=0), training=True)
        with pytest.raises(BatchError, match="some of it is for training"):
            cohorts.score(of("b", member=1))

    gathering(composer, ask)


def test_a_label_begins_anew_once_its_group_is_whole(composer, seen):
    """Nameless samples of a prompt that a step has twice make two groups, though none has been answered."""

    async def ask(cohorts):
        return await asyncio.gather(*(cohorts.score(of(text, size=2)) for text in "abcd"))

    assert [one.gathered for one in gathering(composer, ask)] == [2] * 4
    assert seen.groups == [["a", "b"], ["c", "d"]]


def test_a_caller_that_leaves_takes_a_nameless_member_along_and_no_named_one(composer, seen):
    """A named one may be asked for again, by whom it belongs to; a nameless one would count twice."""

    async def ask(cohorts):
        nameless = cohorts.score(of("gone"))
        named = cohorts.score(of("kept", member=7))
        await asyncio.sleep(0)
        nameless.cancel()
        named.cancel()
        await asyncio.sleep(0)
        both = [cohorts.score(of(text)) for text in "ab"]
        again = cohorts.score(of("kept", member=7))
        return await asyncio.gather(*both, again)

    assert [one.total for one in gathering(composer, ask)] == [3.0] * 3
    assert seen.groups == [["kept", "a", "b"]]


def test_a_group_that_nobody_waits_for_is_not_scored(composer, seen):
    """Nothing is paid for and nothing is learned, whether or not its members have names."""
    outcomes: Counter[str] = Counter()

    async def ask(cohorts):
        for name in (None, 1):
            asked = cohorts.score(of("a", group=str(name), member=name))
            await asyncio.sleep(0)
            asked.cancel()
            await asyncio.sleep(0)
            assert len(cohorts) == (0 if name is None else 1)  # a named one may be asked for again
        await asyncio.sleep(3 * SHORT)
        return len(cohorts)

    assert gathering(composer, ask, deadline=SHORT, count=lambda outcome: outcomes.update([outcome])) == 0
    assert seen.groups == []
    assert outcomes == {"left": 2}


def test_an_error_reaches_the_whole_group_and_is_not_kept():
    """Who asks again afterwards gathers anew."""
    broken = [True]

    def fragile(completions):
        if broken[0]:
            raise ValueError("not now")
        return [1.0] * len(completions)

    async def ask(cohorts):
        said = await asyncio.gather(*(cohorts.score(of(t, size=2, member=t)) for t in "ab"), return_exceptions=True)
        assert [type(one) for one in said] == [RewardError] * 2
        broken[0] = False
        return await asyncio.gather(*(cohorts.score(of(t, size=2, member=t)) for t in "ab"))

    with Composer({"fragile": Component(fragile, failure=FailurePolicy(policy="raise"))}) as composer:
        assert [one.total for one in gathering(composer, ask)] == [1.0, 1.0]


@pytest.mark.parametrize("wrong", [of("a", size=0), Sample("?", "a", {}, group_size=2)])
def test_a_group_needs_a_label_and_a_size(composer, wrong):
    """What cannot be gathered is refused at once."""

    async def ask(cohorts):
        with pytest.raises(BatchError, match="a label and a size"):
            cohorts.score(wrong)

    gathering(composer, ask)


def test_groups_of_training_are_learned_from_one_by_one_at_their_greatest_step():
    """What is learned depends on the groups and their order, not on which were whole in the same moment."""
    batches = []

    def submit(batch: RewardBatch) -> Any:
        batches.append((len(batch), batch.training, batch.progress.step))
        return composer.submit(batch)

    async def ask():
        cohorts = Cohorts(Coalescer(submit), ("length",))
        steps = {"g": (4, 6, 3), "h": (6, 6, 6), "e": (6, 6, 6), "f": (6, 6, 6)}
        asked = [
            cohorts.score(of("a", group=group, member=name), progress=Progress(step), training=group in "gh")
            for group, told in steps.items()
            for name, step in enumerate(told)
        ]
        await asyncio.gather(*asked)

    with Composer({"length": length}) as composer:
        asyncio.run(ask())
    assert batches == [(3, True, 6), (3, True, 6), (6, False, 6)]


def test_a_host_gathers_what_has_a_group_size():
    """An adapter hands over samples one by one; those of a group are compared, the others are scored as they come."""
    config = {"rewards": {"length": {"use": f"{__name__}:length", "normalize": "group_zscore"}}}
    hosted = Host(config, "a test", grouped=True, deadline=SHORT)

    async def ask():
        return await asyncio.gather(*(hosted.ascore_one(of(text, size=2)) for text in ("a", "abc")))

    for _ in range(2):  # each on a loop of its own
        assert [one.total for one in asyncio.run(ask())] == pytest.approx([-1.0, 1.0], abs=1e-3)
