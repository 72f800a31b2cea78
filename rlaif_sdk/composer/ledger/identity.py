"""What identifies a reward's scores: its name, version and parameters, and its code where no version vouches for it."""

from __future__ import annotations

import functools
import inspect
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlaif_sdk.composer.component import Component
from rlaif_sdk.composer.ledger.keys import KEY_BYTES, digest
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
        return digest(asdict(self))


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
        self._params = digest(_plain(recipe.params if recipe else _made_of(target), _as_json))
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


def _plain(value: Any, default: Callable[[Any], Any]) -> Any:
    try:
        return json.loads(json.dumps(value, sort_keys=True, default=default))
    except (TypeError, ValueError, RecursionError) as error:
        raise UnidentifiedError(str(error)) from None


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"it is made of a {type(value).__name__}, which has no JSON form")


def source_digest(named: Any) -> str:
    """A digest of the file in which a class or function is defined, or of its compiled code where there is no file.

    Of a `functools.partial` it is one of the function's and of what is bound to it. It is the same in every process, and
    empty where nothing that is the same identifies the code.
    """
    if isinstance(named, functools.partial):
        return _partial_digest(named)
    try:
        file = inspect.getsourcefile(inspect.unwrap(named))
        source = Path(file).read_bytes() if file else b""
    except (TypeError, OSError):
        source = b""
    code = source or _compiled(named) or _builtin(named)
    return blake2b(code, digest_size=KEY_BYTES).hexdigest() if code else ""


def _partial_digest(bound: functools.partial[Any]) -> str:
    function = source_digest(bound.func)
    try:
        return digest(_plain([function, bound.args, bound.keywords], _as_json_or_code)) if function else ""
    except UnidentifiedError:
        return ""


def _as_json_or_code(value: Any) -> Any:
    """What a partial binds: a callable counts by its name and code."""
    if callable(value) and not isinstance(value, BaseModel) and (code := source_digest(value)):
        return [getattr(value, "__qualname__", type(value).__qualname__), code]
    return _as_json(value)


def _compiled(named: Any) -> bytes:
    codes = [_code_bytes(value.__code__) for value in [named, *_methods(named)] if hasattr(value, "__code__")]
    return b"".join(codes)


def _builtin(named: Any) -> bytes:
    """The place of a class or function that is written in C."""
    of_module = inspect.isbuiltin(named) and inspect.ismodule(named.__self__)
    return f"{named.__module__}:{named.__qualname__}".encode() if of_module or isinstance(named, type) else b""


def _methods(named: Any) -> list[Any]:
    kinds = named.__mro__ if isinstance(named, type) else type(named).__mro__
    return [value for kind in kinds for value in vars(kind).values() if inspect.isfunction(value)]


def _code_bytes(code: types.CodeType) -> bytes:
    constants = [_constant(value) for value in code.co_consts]
    return repr((code.co_code, constants, code.co_names, code.co_freevars)).encode()


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return _code_bytes(value).hex()
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)  # a set's order is the process's
