"""What identifies a reward's scores: its name, version and parameters, and its code where no version vouches for it."""

from __future__ import annotations

import functools
import inspect
import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.ledger.keys import KEY_BYTES, digest
from rlaif_sdk.references import is_reference
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
        return digest(asdict(self))


class UnidentifiedError(Exception):
    """Nothing tells a reward from another of its class, so its scores cannot be kept."""


class Origin:
    """How a reward was made, known before its setup; what it states of itself may be known only after.

    Raises:
        UnidentifiedError: It was made in Python, of things that have no JSON form.
    """

    def __init__(self, component: Component) -> None:
        self.reward = component.reward
        target = unwrapped(component.reward)
        recipe = component.recipe
        self._is_plugin = recipe is not None and not is_reference(recipe.use)
        self._name = recipe.use if recipe else _home(target)
        self._params = digest(_plain(recipe.params if recipe else _made_of(target)))
        self._target = target

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
        return source_digest(_named(self._target))


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


def _plain(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, sort_keys=True, default=_as_json))
    except (TypeError, ValueError, RecursionError) as error:
        raise UnidentifiedError(str(error)) from None


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"it is made of a {type(value).__name__}, which has no JSON form")


def source_digest(named: Any) -> str:
    """A digest of the file in which a class or function is defined, or of its compiled code where there is no file."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(named))
        source = Path(file).read_bytes() if file else b""
    except (TypeError, OSError):
        source = b""
    return blake2b(source or _compiled(named), digest_size=KEY_BYTES).hexdigest()


def _compiled(named: Any) -> bytes:
    codes = [_code_bytes(value.__code__) for value in [named, *_methods(named)] if hasattr(value, "__code__")]
    return b"".join(codes) or repr(named).encode()


def _methods(named: Any) -> list[Any]:
    kinds = named.__mro__ if isinstance(named, type) else type(named).__mro__
    return [value for kind in kinds for value in vars(kind).values() if inspect.isfunction(value)]


def _code_bytes(code: types.CodeType) -> bytes:
    constants = [
        _code_bytes(value).hex() if isinstance(value, types.CodeType) else repr(value) for value in code.co_consts
    ]
    return repr((code.co_code, constants, code.co_names, code.co_freevars)).encode()
