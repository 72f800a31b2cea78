"""What identifies a reward's scores: its name, version and parameters, and its code where no version vouches for it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlaif_sdk.composer.component import Component
from rlaif_sdk.io.digests import code_digest, json_digest
from rlaif_sdk.plugins.references import is_reference
from rlaif_sdk.rewards import FunctionReward, Reward, stated_by, unwrapped

UNVERSIONED = Reward.version


@dataclass(frozen=True, slots=True)
class Identity:
    """What a reward's scores depend on beside its input. Equal identities give equal scores.

    Attributes:
        name: The plugin's name for it, a reference, or where its class or function is defined.
        version: Its `rlaif_sdk.Reward.version`.
        revision: Its ``revision``, where it has one: that of the model that it loads.
        params: A digest of its parameters, which may hold a secret.
        code: A digest of its source, or empty where its version vouches for that.
    """

    name: str
    version: str
    revision: str
    params: str
    code: str

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits."""
        return json_digest(asdict(self))


class UnidentifiedError(Exception):
    """Nothing tells a reward from another of its class, so its scores cannot be kept."""


class Origin:
    """How a reward was made, known before its setup; what it states of itself may be known only after.

    Raises:
        UnidentifiedError: It was made in Python, of things that have no JSON form, or nothing identifies its code.
    """

    def __init__(self, component: Component) -> None:
        self.reward = component.reward
        target = unwrapped(component.reward)
        recipe = component.recipe
        self._is_plugin = recipe is not None and not is_reference(recipe.use)
        self._name = recipe.use if recipe else _home(target)
        self._params = _params_digest(recipe.params if recipe else _made_of(target))
        self._target = target
        if not self._is_plugin and not self._code:
            raise UnidentifiedError("its code has no digest")

    def identity(self, stated: Mapping[str, str] | None = None) -> Identity:
        """The reward's identity after its setup.

        Args:
            stated: What it states of itself where it runs in another process; see `rlaif_sdk.rewards.stated_by`.
        """
        stated = stated_by(self.reward) if stated is None else stated
        vouched = self._is_plugin and stated["version"] != UNVERSIONED
        return Identity(
            self._name, stated["version"], stated["revision"], self._params, code="" if vouched else self._code
        )

    @functools.cached_property
    def _code(self) -> str:
        return code_digest(_named(self._target))


def _named(target: Any) -> Any:
    """The class or function whose code a reward is."""
    return target.function if isinstance(target, FunctionReward) else type(target)


def _home(target: Any) -> str:
    named = _named(target)
    named = named if hasattr(named, "__qualname__") else type(named)
    return f"{named.__module__}:{named.__qualname__}"


def _made_of(target: Any) -> Any:
    """What tells an object that was made in Python from others of its class: its attributes, or a function's closure."""
    if not isinstance(target, FunctionReward):
        return vars(target) if hasattr(target, "__dict__") else repr(target)
    function = target.function
    owner = getattr(function, "__self__", function)
    closure = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
    owned = {} if inspect.isroutine(owner) or inspect.ismodule(owner) else vars(owner)
    return [target.values, dict(closure), owned]


def _params_digest(value: Any) -> str:
    try:
        return json_digest(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnidentifiedError(str(error)) from None
