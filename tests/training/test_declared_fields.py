"""The names and types of a trainer's settings are read in the source, and are those of the dataclass."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("trl")

from docs.make_reference import setting_type
from rlaif_sdk.training.arguments import declared_fields
from rlaif_sdk.training.methods import METHODS, get_method, resolve


@pytest.mark.parametrize("name", METHODS)
def test_the_fields_are_those_of_the_dataclass_in_its_types(name: str) -> None:
    """With all that it inherits from TRL and transformers, and without what is no argument.

    A type that takes a class of these libraries is any: the dataclass itself refuses what is none of it.
    """
    place = get_method(name).settings
    kind = resolve(place)
    declared = declared_fields(place)
    assert declared is not None
    assert {*declared} == {field.name for field in dataclasses.fields(kind) if field.init}
    others = {}
    for field, declaration in declared.items():
        if (stated := setting_type(kind, field)) != declaration.resolve():
            others[field] = (declaration.resolve(), str(stated))
    assert {found for found, _ in others.values()} <= {Any}
    assert all("transformers." in stated or "accelerate." in stated for _, stated in others.values())
    assert len(declared) - len(others) > 100


SOURCE = """
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from .base import Base as Parent, Choice

@dataclass
class Own(Parent):
    kept: int = 0
    known: ClassVar[int] = 1
    made: int = field(init=False, default=2)
    given: list = field(default_factory=list)
    chosen: Choice | None = None

class Lost(Unknown):
    kept: int = 0
"""


def test_bases_are_followed_and_what_is_not_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name too; a base without source leaves the names unknown."""
    (tmp_path / "declared").mkdir()
    (tmp_path / "declared" / "__init__.py").write_text("if TYPE_CHECKING:\n    from .own import Own\n")
    (tmp_path / "declared" / "own.py").write_text(SOURCE)
    (tmp_path / "declared" / "base.py").write_text("class Base:\n    inherited: int = 0\nChoice = Literal['a', 'b']\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = declared_fields("declared:Own")
    assert found == declared_fields("declared.own:Own")
    assert found is not None
    types = {name: declaration.resolve() for name, declaration in found.items()}
    assert types == {"inherited": int, "kept": int, "given": list, "chosen": Literal["a", "b"] | None}
    assert declared_fields("declared.own:Lost") is None
    assert declared_fields("nowhere.at.all:Own") is None
