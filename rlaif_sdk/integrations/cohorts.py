"""Groups that are gathered: each completion to a prompt is asked for by itself, and they are scored together.

A stack that calls for one completion at a time says of each which group it is of and how many that group has, as
``Sample(..., group=uid, group_size=8, member=3)``; `Cohorts.score` answers when the whole group is there and scored. An
adapter need not call it: `rlaif_sdk.integrations.Host.ascore_one` does so for a sample that has a ``group_size``, and so does
the server that ``rlaif serve --cohort`` starts for each row.

The rules, all by this process's own clock from the first member's arrival, whatever the callers' clocks say:

- **Whole.** When as many members are there as the group has, they are scored in one batch, ordered by ``member``, so that
  the order of arrival changes nothing. Everyone is told how many were `Scored.gathered`.
- **Missing.** At the deadline those who came are scored as a smaller group, and told so. Where none of their callers waits
  any longer nothing is scored.
- **Late.** Who comes after that is unscored with the reason, never scored in another group, for as long as the deadline is;
  then the label is free again.
- **Twice.** A member that is asked for again with the same prompt and completion gets the same answer, while the group is
  gathered or scored, and for one deadline after, of the last 1024 groups and until another of its label has been gathered.
  With other texts it is refused while the group gathers. Without ``member`` nothing tells the two apart, and each call is a
  member of its own.
- **Two groups of one label.** Members with another prompt, size, or columns than the group that gathers are refused. Once
  a group is whole the next member begins another of the same label: samples of a prompt that is in a step twice, or again in
  the next step, make groups as they come.
- **Leaving.** The place of a named member whose caller leaves stays taken: the others' scores must not depend on a
  connection, and the caller may ask again. A nameless one is withdrawn while the group gathers. What is being scored is
  finished whoever leaves.
- **Failing.** An error of the whole batch reaches all who wait, and the group is forgotten, so that all may ask again.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rlaif_sdk.exceptions import BatchError
from rlaif_sdk.integrations.coalescing import Coalescer
from rlaif_sdk.integrations.samples import Sample, Scored, failed
from rlaif_sdk.types import Progress, TextOrConversation

DEADLINE = 300.0
"""Seconds that a group is waited for: about as long as the completions to one prompt may be apart."""

KEPT = 1024
"""Groups whose answers are kept at most, the last ones."""

Outcome = Literal["whole", "short", "left", "late", "again", "refused"]
"""What became of a group (whole, scored short, left by all), or of a member (late, asked for again, refused)."""


@dataclass(eq=False, slots=True)
class _Member:
    """One of a group, those who wait for its score, and that score once it is there."""

    sample: Sample
    callers: list[asyncio.Future[Scored]]
    scored: Scored | None = None

    @property
    def place(self) -> tuple[bool, str, str | int]:
        """Where it stands in its group, whenever it came; nameless ones stand last, as they came."""
        name = self.sample.member
        return (True, "", 0) if name is None else (False, type(name).__name__, name)


@dataclass(eq=False, slots=True)
class _Group:
    """A group that is gathered, or was.

    Attributes:
        sample: The first that came, with what all must have alike.
        timer: Ends the gathering; then forgets that there was one.
        members: Those who came, by name, or by their own call where they have none.
    """

    sample: Sample
    training: bool
    timer: asyncio.TimerHandle = field(init=False)
    progress: Progress = field(default_factory=Progress)
    members: dict[Hashable, _Member] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        return len(self.members) == self.sample.group_size

    def known(self, sample: Sample) -> _Member | None:
        """The member that a sample is again, by name and texts."""
        member = None if sample.member is None else self.members.get(sample.member)
        return member if member and _texts(member.sample) == _texts(sample) else None

    def misfit(self, sample: Sample, *, training: bool) -> str | None:
        """Why a sample is none of this group; None where it fits."""
        first = self.sample
        if sample.prompt != first.prompt:
            return "it gathers for another prompt"
        if sample.group_size != first.group_size:
            return f"it gathers {first.group_size} members, not {sample.group_size}"
        if sample.columns.keys() != first.columns.keys():
            return "its rows must have the same columns"
        if training != self.training:
            return "some of it is for training and some is not"
        if sample.member is not None and sample.member in self.members:
            return f"it has a member {sample.member!r} already, with another completion"
        return None


def _texts(sample: Sample) -> tuple[TextOrConversation, TextOrConversation]:
    return sample.prompt, sample.completion


class Cohorts:
    """Gathers groups on one event loop, see this module's rules, and scores each as a whole.

    Args:
        coalescer: Scores what is gathered; groups that are whole at the same time are in one batch.
        rewards: The names of the composer's rewards, of which each has failed on a late member.
        deadline: Seconds that a group is waited for from its first member, and that its answers are kept.
        alone: Whether a group that running statistics learn from is a batch of its own, so that what they learn depends on
            the groups alone and not on which of them came together.
        count: Called with each outcome.
    """

    def __init__(
        self,
        coalescer: Coalescer,
        rewards: Sequence[str],
        *,
        deadline: float = DEADLINE,
        alone: bool = True,
        count: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._coalescer = coalescer
        self._rewards = rewards
        self._deadline = deadline
        self._alone = alone
        self._count = count
        self._gathering: dict[Hashable, _Group] = {}
        self._gathered: dict[Hashable, _Group] = {}
        self._serial = 0

    def __len__(self) -> int:
        """Groups that are not whole yet."""
        return len(self._gathering)

    def score(
        self, sample: Sample, *, progress: Progress | None = None, training: bool = False
    ) -> asyncio.Future[Scored]:
        """Begin to score a sample with the others of its group; see this module's rules.

        Args:
            sample: One that has ``group`` and ``group_size``.
            progress: How far training is. A group is at the greatest step that its members tell.
            training: Whether running statistics learn from its group.

        Raises:
            BatchError: The sample lacks its group or size, or does not fit the group that gathers under its label.
        """
        if sample.group is None or not sample.group_size or sample.group_size < 1:
            raise BatchError(
                f"a group that is gathered has a label and a size of at least 1, not {sample.group!r} and {sample.group_size!r}",
                hint="give each row 'group' and 'group_size'",
            )
        caller: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        label = sample.group
        group, before = self._gathering.get(label), self._gathered.get(label)
        again = next((known for latest in (group, before) if latest and (known := latest.known(sample))), None)
        if again is not None:
            self._count("again")
            again.callers.append(caller)
            if again.scored is not None:
                caller.set_result(again.scored)
        elif group is None and before is not None and not before.is_whole:
            self._count("late")
            caller.set_result(replace(failed(sample, self._rewards, self._late(before)), gathered=0))
        else:
            group = group or self._open(label, sample, training=training)
            if problem := group.misfit(sample, training=training):
                self._count("refused")
                raise BatchError(f"group {label!r}: {problem}", hint="a label belongs to one prompt at a time")
            self._add(label, group, sample, caller, progress or Progress())
        return caller

    def _late(self, group: _Group) -> str:
        came, size = len(group.members), group.sample.group_size
        return f"too late: its group was scored with {came} of {size} after waiting {self._deadline:g} s"

    def _open(self, label: Hashable, sample: Sample, *, training: bool) -> _Group:
        group = self._gathering[label] = _Group(sample, training)
        group.timer = asyncio.get_running_loop().call_later(self._deadline, self._close, label, group)
        return group

    def _add(
        self, label: Hashable, group: _Group, sample: Sample, caller: asyncio.Future[Scored], progress: Progress
    ) -> None:
        group.progress = max(group.progress, progress, key=lambda told: told.step)
        if sample.member is None:
            group.members[caller] = _Member(sample, [caller])
            caller.add_done_callback(functools.partial(self._withdraw, label, group))
        else:
            group.members[sample.member] = _Member(sample, [caller])
        if group.is_whole:
            self._close(label, group)

    def _withdraw(self, label: Hashable, group: _Group, caller: asyncio.Future[Scored]) -> None:
        """Take back a nameless member whose caller leaves before its group is gathered."""
        if caller.cancelled() and self._gathering.get(label) is group:
            del group.members[caller]
            if not group.members:
                self._close(label, group)

    def _close(self, label: Hashable, group: _Group) -> None:
        """Score those who came, unless nobody waits for that."""
        group.timer.cancel()
        del self._gathering[label]
        members = sorted(group.members.values(), key=lambda member: member.place)
        if all(caller.done() for member in members for caller in member.callers):
            self._count("left")
            return
        self._count("whole" if group.is_whole else "short")
        self._keep(label, group)
        self._serial += 1
        samples = [replace(member.sample, group=(self._serial, label)) for member in members]
        asked = self._coalescer.score(
            samples, progress=group.progress, training=group.training, alone=self._alone and group.training
        )
        asked.add_done_callback(functools.partial(self._answer, label, group, members))

    def _keep(self, label: Hashable, group: _Group) -> None:
        """Remember a group that somebody may still ask for."""
        self._gathered.pop(label, None)
        if group.is_whole and all(member.sample.member is None for member in group.members.values()):
            return
        self._gathered[label] = group
        if len(self._gathered) > KEPT:
            del self._gathered[next(iter(self._gathered))]

    def _answer(
        self, label: Hashable, group: _Group, members: Sequence[_Member], asked: asyncio.Future[list[Scored]]
    ) -> None:
        if error := asked.exception():
            for caller in [caller for member in members for caller in member.callers if not caller.done()]:
                caller.set_exception(error)
            self._forget(label, group)
            return
        for member, scored in zip(members, asked.result(), strict=True):
            member.scored = answer = Scored(scored.composition, scored.row, len(members))
            for caller in member.callers:
                if not caller.done():
                    caller.set_result(answer)
        if self._gathered.get(label) is group:
            group.timer = asyncio.get_running_loop().call_later(self._deadline, self._forget, label, group)

    def _forget(self, label: Hashable, group: _Group) -> None:
        if self._gathered.get(label) is group:
            del self._gathered[label]
