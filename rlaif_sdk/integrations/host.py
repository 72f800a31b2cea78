"""A composer inside a process that belongs to another training stack."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import json
import re
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from rlaif_sdk.composer import Composer, Composition
from rlaif_sdk.composer.normalizers import Normalizer, Rank
from rlaif_sdk.composer.weights import Schedule, Weight
from rlaif_sdk.exceptions import ConfigError, StateError
from rlaif_sdk.integrations.coalescing import Coalescer
from rlaif_sdk.integrations.cohorts import DEADLINE, Cohorts
from rlaif_sdk.integrations.reward_server import RewardServer
from rlaif_sdk.integrations.samples import Sample, Scored, alike, batch_of, in_order, same_columns
from rlaif_sdk.io.files import other_kind, write_json
from rlaif_sdk.io.forks import on_fork
from rlaif_sdk.types import Progress, RewardBatch

if TYPE_CHECKING:
    from rlaif_sdk.config import CompositionConfig
    from rlaif_sdk.config.documents import Document

_SAVED = "give state=FILE, saved with rlaif_sdk.integrations.save_state, and its statistics stay as they are there"
_GROUPS = "give each sample the group that the completions to its prompt share"


def learns(composer: Composer) -> bool:
    """Whether what a composer says depends on the training batches before: statistics, multipliers, triggers, an alarm."""
    problems = _problems(composer, grouped=True, stepped=True, restored=False)
    return (
        composer.alarm is not None
        or any(problems)
        or any(
            isinstance(weight, Schedule) and (weight.trigger is not None or weight.by == "episode")
            for weight in _weights(composer).values()
        )
    )


def follows_steps(composer: Composer) -> bool:
    """Whether a weight follows the training step, which somebody has to tell."""
    return any(isinstance(weight, Schedule) and weight.by == "step" for weight in _weights(composer).values())


def _weights(composer: Composer) -> dict[str, Weight]:
    """Every weight, by its key in a config."""
    return {
        **{f"rewards.{name}.weight": weight for name, weight in composer.weights.items()},
        **{f"groups.{name}.weight": group.weight for name, group in composer.combiner.groups.items()},
    }


def check_rowwise(composer: Composer, stack: str, *, grouped: bool, stepped: bool, restored: bool) -> None:
    """Refuse what a stack cannot give its due.

    Args:
        composer: The composer.
        stack: What the stack calls the place it is used in, for the message.
        grouped: Whether the completions to one prompt are scored together and known as such.
        stepped: Whether the training step is known.
        restored: Whether the composer resumes from a saved state.

    Raises:
        ConfigError: A number would depend on how the stack happens to cut its calls.
    """
    for key, problem, hint in _problems(composer, grouped=grouped, stepped=stepped, restored=restored):
        raise ConfigError(f"{problem}, which {stack} does not tell", key=key, hint=hint)


def refuse_alarm(composer: Composer, stack: str) -> None:
    """Refuse an alarm where nothing tells training batches from others: it would never go off.

    Raises:
        ConfigError: There is one.
    """
    if composer.alarm is not None:
        raise ConfigError(
            f"an alarm watches training batches, which {stack} does not tell from others",
            key="alarm",
            hint="score by a server that learns, `rlaif serve --cohort`, or leave the alarm out",
        )


def _comparisons(composer: Composer) -> Iterator[tuple[str, str, str]]:
    """What compares the completions to one prompt: its key, what it does, and the next step where groups are unknown."""
    for name, component in composer.components.items():
        normalizer, compares = component.normalizer, "compares the completions to one prompt"
        if normalizer.within_groups or isinstance(normalizer, Rank):
            kind = type(normalizer).__name__
            yield f"rewards.{name}.normalize", f"{kind} {compares}", "let the trainer normalise, or use minmax"
        if component.ask is not None:
            yield f"rewards.{name}.ask", f"'ask' {compares}", "leave 'ask' out"
        if component.reward.scope == "group":
            yield f"rewards.{name}", f"{name!r} {compares}", "use a reward that scores each completion by itself"


def _problems(composer: Composer, *, grouped: bool, stepped: bool, restored: bool) -> Iterator[tuple[str, str, str]]:
    if not grouped:
        yield from _comparisons(composer)
    for name, component in composer.components.items():
        normalizer = component.normalizer
        if type(normalizer).update is not Normalizer.update and not restored:
            kind = type(normalizer).__name__
            yield f"rewards.{name}.normalize", f"{kind} learns only from training batches", _SAVED
        if component.ask is not None and not restored:
            yield (
                f"rewards.{name}.ask",
                "'ask' saves calls of training batches alone",
                "leave 'ask' out, or serve --cohort",
            )
    for key, weight in _weights(composer).items():
        if isinstance(weight, Schedule) and not stepped:
            yield key, "a schedule follows the training step", "give the weight a number"
    if composer.combiner.multipliers and not restored:
        yield "constraints", "a constraint's multiplier learns only from training batches", _SAVED


_HOST_AND_PORT = re.compile(r"(?:[\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}(?:/.*)?")


def is_address(config: str) -> bool:
    """Whether what stands for a config file is the address of a reward server.

    Raises:
        ConfigError: It looks like one, without its scheme, and there is no such file.
    """
    if config.startswith(("http://", "https://")):
        return True
    if _HOST_AND_PORT.fullmatch(config) and not Path(config).exists():
        raise ConfigError(
            f"there is no file {config!r}, which looks like an address without its scheme",
            key="rewards",
            hint=f"for a reward server give http://{config}, or https://",
        )
    return False


Config: TypeAlias = "str | Path | Mapping[str, Any] | CompositionConfig | Document"
"""A file with a composition, a mapping, or one that is read already."""


class Host:
    """Scores samples for another training stack.

    It is made anew in each process, so that an adapter can be pickled to a worker or live through a fork; the composer
    is built at the first sample, and closed when the process ends unless it was given ready-made.

    Args:
        rewards: A config (a file, a mapping, a `rlaif_sdk.config.CompositionConfig`); a `rlaif_sdk.Composer`, which stays
            the caller's to close; or a reward server, by its address or as a `RewardServer`, which has the composition.
        stack: Where it is used, for messages.
        state: A file that `save_state` wrote: running statistics and multipliers, which stay as they are there.
        grouped: Whether the stack tells which completions answer the same prompt. Samples that all come without a
            group are refused all the same where the composition compares them.
        group_hint: How the stack is made to tell, for that message.
        stepped: Whether it tells the training step.
        deadline: Seconds that a group is waited for whose samples are asked for one by one.
    """

    def __init__(
        self,
        rewards: Composer | Config | RewardServer,
        stack: str,
        *,
        state: str | Path | None = None,
        grouped: bool = False,
        group_hint: str = _GROUPS,
        stepped: bool = False,
        deadline: float = DEADLINE,
    ) -> None:
        if isinstance(rewards, str) and is_address(rewards):
            rewards = RewardServer(rewards)
        self._rewards = rewards
        self._stack = stack
        self._state = state
        self._grouped = grouped
        self._group_hint = group_hint
        self._stepped = stepped
        self._deadline = deadline
        self._begin()
        if self._server is not None and state is not None:
            raise ConfigError(
                "a reward server keeps what it learns", key="state", hint="rlaif serve --cohort --state FILE"
            )
        if isinstance(rewards, Composer):
            self._check(rewards)

    def _begin(self) -> None:
        self._server = self._rewards if isinstance(self._rewards, RewardServer) else None
        self._composer: Composer | None = None
        self._comparison: tuple[str, str, str] | None = None
        self._labels = itertools.count()
        self._begin_anew()
        on_fork(self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._loops: MutableMapping[asyncio.AbstractEventLoop, tuple[Coalescer, Cohorts]] = WeakKeyDictionary()
        if not isinstance(self._rewards, Composer):
            self._composer = None

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self._rewards, Composer):
            raise TypeError(f"a composer cannot be sent to another process: give {self._stack} the config's path")
        settings = ("_rewards", "_stack", "_state", "_grouped", "_group_hint", "_stepped", "_deadline")
        return {name: getattr(self, name) for name in settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def composer(self) -> Composer:
        """The composer of this process.

        Raises:
            ConfigError: The config is refused, or asks for what the stack does not tell; or a server has it.
            StateError: The saved state is of another composition.
        """
        with self._lock:
            if self._composer is None:
                self._composer = self._build()
            return self._composer

    def _build(self) -> Composer:
        if isinstance(self._rewards, Composer):
            composer = self._rewards
        elif isinstance(self._rewards, RewardServer):
            raise ConfigError(f"the composition is at {self._rewards}", key="rewards", hint="score samples instead")
        else:
            composer = Composer.from_config(self._rewards)
            atexit.register(composer.close)
            self._check(composer)
        if self._state is not None:
            composer.load_state_dict(load_state(self._state))
        return composer

    def _check(self, composer: Composer) -> None:
        refuse_alarm(composer, self._stack)
        check_rowwise(
            composer, self._stack, grouped=self._grouped, stepped=self._stepped, restored=self._state is not None
        )
        self._comparison = next(_comparisons(composer), None)

    @property
    def is_served(self) -> bool:
        """Whether a reward server has the composition."""
        return self._server is not None

    @property
    def compares(self) -> bool:
        """Whether the composition compares the completions to one prompt, as that of a server may."""
        if self._server is not None:
            return True
        self.composer  # noqa: B018 - it is known once the composer is
        return self._comparison is not None

    def _composer_for(self, samples: Sequence[Sample]) -> Composer:
        """The composer, if the samples come with what it needs.

        Raises:
            ConfigError: It compares the completions to one prompt, and nothing is known of groups.
        """
        composer = self.composer
        if self._comparison and samples and all(sample.group is None for sample in samples):
            key, problem, _ = self._comparison
            raise ConfigError(
                f"{problem}, and {self._stack} was given them without their groups", key=key, hint=self._group_hint
            )
        return composer

    def compose(self, samples: Sequence[Sample]) -> Composition:
        """Score samples that have the same columns, as one batch."""
        if self._server is not None:
            return self._server.submit(samples).result()[0].composition
        return self._composer_for(samples).compose(batch_of(samples))

    def score(self, samples: Sequence[Sample], *, progress: Progress | None = None) -> list[Scored]:
        """Score samples, those with the same columns together, and return them in the order given."""
        if self._server is not None:
            return self._server.submit(samples, progress).result()
        composer, parts = self._composer_for(samples), alike(samples)
        return in_order(parts, [composer.compose(_part(samples, places, progress)) for places in parts])

    async def ascore(self, samples: Sequence[Sample], *, progress: Progress | None = None) -> list[Scored]:
        """`score` for use within a running event loop."""
        if self._server is not None:
            return await asyncio.wrap_future(self._server.submit(samples, progress))
        composer, parts = self._composer_for(samples), alike(samples)
        return in_order(
            parts, await asyncio.gather(*(composer.acompose(_part(samples, places, progress)) for places in parts))
        )

    async def ascore_group(self, samples: Sequence[Sample]) -> list[Scored]:
        """Score the completions to one prompt, together with what else is asked for meanwhile on this event loop.

        Args:
            samples: All of them; a column that one of them lacks is None there.
        """
        if not samples:
            return []
        label = next(self._labels)
        group = [replace(sample, group=label) for sample in same_columns(samples)]
        if self._server is not None:
            return await self.ascore(group)
        coalescer, _ = self._of_loop()
        return await coalescer.score(group)

    async def ascore_one(self, sample: Sample) -> Scored:
        """Score one sample, together with the others that are asked for meanwhile on this event loop.

        One that has a ``group_size`` is scored when its group is whole, see `rlaif_sdk.integrations.cohorts`.

        Raises:
            BatchError: It does not fit the group that is gathered under its label.
        """
        if self._server is not None:
            (scored,) = await asyncio.wrap_future(self._server.submit([sample]))
            return scored
        coalescer, cohorts = self._of_loop()
        if self._comparison:
            self._composer_for([sample])
        if sample.group_size is not None:
            return await cohorts.score(sample)
        (scored,) = await coalescer.score([sample])
        return scored

    def _of_loop(self) -> tuple[Coalescer, Cohorts]:
        """What gathers samples on the running loop."""
        loop = asyncio.get_running_loop()
        if found := self._loops.get(loop):
            return found
        composer = self.composer
        with self._lock:
            if loop not in self._loops:
                for closed in [other for other in self._loops if other.is_closed()]:
                    del self._loops[closed]  # its timers keep it alive
                coalescer = Coalescer(composer.submit)
                cohorts = Cohorts(coalescer, tuple(composer.components), deadline=self._deadline)
                self._loops[loop] = coalescer, cohorts
            return self._loops[loop]


def _part(samples: Sequence[Sample], places: Sequence[int], progress: Progress | None) -> RewardBatch:
    return batch_of([samples[place] for place in places], progress or Progress())


Rewards: TypeAlias = "Composer | Config | RewardServer | Host"
"""What an adapter scores with."""


def host(
    rewards: Rewards,
    stack: str,
    *,
    state: str | Path | None = None,
    grouped: bool = False,
    group_hint: str = _GROUPS,
    stepped: bool = False,
    deadline: float = DEADLINE,
) -> Host:
    """A `Host` of rewards, unless they are in one."""
    if isinstance(rewards, Host):
        return rewards
    return Host(rewards, stack, state=state, grouped=grouped, group_hint=group_hint, stepped=stepped, deadline=deadline)


def save_state(composer: Composer, file: str | Path) -> None:
    """Write what a composer has learned to a JSON file, for ``state=`` of the adapters.

    The file is whole or not there, whenever the process is killed.
    """
    write_json(file, composer.state_dict(), indent=None)


_STATE = "give the file that save_state of a composer's host wrote"


def load_state(file: str | Path) -> dict[str, Any]:
    """What `save_state` wrote.

    Raises:
        ConfigError: There is no such file.
        StateError: It holds no state.
    """
    path = Path(file)
    kind = other_kind(path.stat().st_mode) if path.exists() else None
    if kind is not None:
        raise StateError(f"{str(path)!r} is {kind}", hint=_STATE)
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "there is no such file", file=str(path), hint="give what save_state wrote, or begin without a state"
        ) from None
    except OSError as error:
        raise StateError(f"{str(path)!r} cannot be read: {error.strerror}", hint=_STATE) from error
    except (ValueError, RecursionError) as error:
        raise StateError(f"{str(path)!r} is no JSON: {error}", hint=_STATE) from error
    if not isinstance(state, dict):
        raise StateError(f"{str(path)!r} holds no state of a composer", hint=_STATE)
    return state
