"""Defaults of options, from ``rlaif.toml`` and from environment variables.

The command line counts before the environment, the environment before the file, and the file before an option's own default.

```toml
[defaults]                # options of every command that has them
quiet = true
config = "rewards.yaml"   # only of those that need a composition; a path is relative to this file

[score]                   # options of one command
batch_rows = 20_000

[train.ppo]
set = ["ppo.seed=1", "ppo.num_train_epochs=2"]
```

The same of one command, in the environment: ``RLAIF_SCORE_BATCH_ROWS=20000``, ``RLAIF_TRAIN_PPO_SET="ppo.seed=1"``.
"""

from __future__ import annotations

import os
import re
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from rlaif_sdk.cli.options import COMPOSITION
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.files import config_text

FILE_NAME = "rlaif.toml"
FOR_ALL = "defaults"
"""The table of options of every command."""

Words = tuple[str, ...]
"""A command as it is typed, such as ``("train", "ppo")``, or a key in the file."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a file gives, and which options there are to give.

    Attributes:
        file: The file, or None where there is none.
        text: What it holds.
        commands: Every command that does something, with its options by name: ``batch_rows`` of ``--batch-rows``.
    """

    file: Path | None
    text: str
    commands: Mapping[Words, Command]

    @classmethod
    def find(cls, program: Any) -> Defaults:
        """Those of the working folder, or of the nearest parent with a file."""
        file = find_file()
        return cls(file, "" if file is None else config_text(file), dict(_commands(program, ())))

    def apply(self, ctx: typer.Context) -> None:
        """Give the options of all commands their variables, and their values in the file.

        Raises:
            ConfigError: The file is no TOML, or has a key that is no option.
        """
        for words, command in self.commands.items():
            for name, option in command.options.items():
                option.envvar, option.show_envvar = f"{_prefix(words)}{name.upper()}", False
            if words[0] == ctx.invoked_subcommand:
                _warn_of_unknown_variables(words, command)
        ctx.default_map = self._default_map()

    def _default_map(self) -> dict[str, Any]:
        """The file as click takes it, a mapping by the words of a command and the parameters of its function."""
        if self.file is None:
            return {}
        import tomllib

        try:
            tables = tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"is no TOML: {error}", file=str(self.file)) from error
        self._check(tables)
        found: dict[str, Any] = {}
        for words, command in self.commands.items():
            if given := self._given(tables, words, command):
                place = found
                for word in words[:-1]:
                    place = place.setdefault(word, {})
                place[words[-1]] = given
        return found

    def _given(self, tables: Any, words: Words, command: Command) -> dict[str, Any]:
        """The values for one command, by the parameters of its function."""
        own, for_all = tables, dict(tables.get(FOR_ALL, {}))
        for word in words:
            own = own.get(word, {})
        if not command.needs_composition:
            for_all.pop("config", None)
        given = {}
        for name, option in command.options.items():
            table, above = (own, words) if name in own else (for_all, (FOR_ALL,))
            if name in table:
                given[option.name] = self._value((*above, name), table[name], option, command)
        return given

    def _check(self, tables: Any, above: Words = ()) -> None:
        """Refuse a key that is neither a command nor one of its options."""
        known = {words[len(above)] for words in self.commands if words[: len(above)] == above and words != above}
        if not above:
            known.add(FOR_ALL)
        elif above == (FOR_ALL,):
            known = {name for command in self.commands.values() for name in command.options}
        elif above in self.commands:
            known = {*self.commands[above].options}
        holds_options = above == (FOR_ALL,) or above in self.commands
        for name, value in tables.items():
            key = (*above, name)
            if name not in known:
                what = "option" if holds_options else "command"
                close = get_close_matches(name.replace("-", "_") if holds_options else name, known, n=1)
                listed = f"there are {', '.join(sorted(known))}"
                raise self._error(key, f"there is no such {what}", f"did you mean {close[0]!r}?" if close else listed)
            if not holds_options:
                if not isinstance(value, dict):
                    raise self._error(
                        key, "is a value, where the table of a command is wanted", f"write [{'.'.join(key)}]"
                    )
                self._check(value, key)

    def _value(self, key: Words, value: Any, option: Any, command: Command) -> Any:
        is_list = option.multiple or option.nargs != 1
        if isinstance(value, dict) or isinstance(value, list) != is_list:
            raise self._error(key, f"{'a list' if is_list else 'one value'} is wanted, not {value!r}")
        if not command.is_path(option) or value == "-":
            return value
        assert self.file is not None
        return [str(self.file.parent / each) for each in value] if is_list else str(self.file.parent / str(value))

    def _error(self, key: Words, problem: str, hint: str | None = None) -> ConfigError:
        return ConfigError(problem, file=str(self.file), line=_line(self.text, key), key=".".join(key), hint=hint)

    def blame(self, error: typer.BadParameter) -> ConfigError | None:
        """The error for a value of the file or of a variable; None for one of the command line."""
        ctx: Any = error.ctx
        option: Any = error.param
        source = None if ctx is None or option is None else ctx.get_parameter_source(option.name)
        if source is None or source.name not in {"ENVIRONMENT", "DEFAULT_MAP"}:
            return None
        if source.name == "ENVIRONMENT":
            return ConfigError(error.message, key=option.envvar, hint="an environment variable")
        key: Words = (_name(option),)
        while ctx.parent is not None:
            key, ctx = (ctx.info_name, *key), ctx.parent
        return self._error(key if _line(self.text, key) else (FOR_ALL, key[-1]), error.message)


@dataclass(frozen=True, slots=True)
class Command:
    """A command's options by name, and the function that has them as parameters."""

    options: Mapping[str, Any]
    function: Any = field(repr=False)

    @property
    def needs_composition(self) -> bool:
        """Whether it has a composition, and cannot do without."""
        config = self.options.get("config")
        return config is not None and config.required and config.metavar == COMPOSITION

    def is_path(self, option: Any) -> bool:
        """Whether an option is a path, or several."""
        hint = typing.get_type_hints(self.function)[option.name]
        return Path in {hint, *typing.get_args(hint)}


def find_file() -> Path | None:
    """``rlaif.toml`` in the working folder or the nearest parent that has one, as a path from the working folder.

    One that belongs to somebody else than the working folder and the system is not read: whoever writes it may name
    a composition, and so code.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("the working folder was removed", hint="change to another folder") from error
    owners = {here.stat().st_uid, Path(here.anchor).stat().st_uid}
    for folder in (here, *here.parents):
        file = folder / FILE_NAME
        if file.is_file():
            shown = Path(os.path.relpath(file, here))
            if file.stat().st_uid in owners:
                return shown
            warnings.warn(f"{shown} belongs to another user and is not read", stacklevel=2)
            return None
    return None


def _commands(command: Any, words: Words) -> Iterator[tuple[Words, Command]]:
    """Every command below one that does something."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*words, name))
    else:
        options = {_name(one): one for one in command.params if one.param_type_name == "option"}
        yield words, Command(options, command.callback)


def _name(option: Any) -> str:
    return str(max(option.opts, key=len)).lstrip("-").replace("-", "_")


def _prefix(words: Words) -> str:
    return f"RLAIF_{'_'.join(words)}_".upper().replace("-", "_")


def _warn_of_unknown_variables(words: Words, command: Command) -> None:
    known = {name.upper() for name in command.options}
    for variable in os.environ:
        name = variable.removeprefix(_prefix(words))
        if name != variable and name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" (did you mean {_prefix(words)}{close[0]}?)" if close else ""
            problem = f"{variable} is no option of `rlaif {' '.join(words)}` and counts nowhere{hint}"
            warnings.warn(problem, stacklevel=2)


def _line(text: str, key: Words) -> int | None:
    """The line of a key or of a table's heading, as far as a reader of single lines finds it."""
    table: Words = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if heading := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = _parts(heading[1])
            if table == key:
                return number
        elif (assigned := re.match(r"\s*([\w\"'. -]+?)\s*=", line)) and (*table, *_parts(assigned[1])) == key:
            return number
    return None


def _parts(dotted: str) -> Words:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
