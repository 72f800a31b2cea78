"""The architecture page is the house as it stands."""

import re
import tomllib

from tests.docs.names import PACKAGE, ROOT

PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
ROOMS = re.compile(r"^\| ((?:`rlaif_sdk/[\w./]+`(?:, )?)+) \| (.*) \|$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")


def test_every_room_of_the_package_has_a_line_in_the_table():
    """A folder of the package that the page leaves out, or one that is gone, is found by its name."""
    shown = [name for rooms, _ in ROOMS.findall(PAGE) for name in CODE.findall(rooms)]
    assert [name for name in shown if not (ROOT / name).exists()] == []
    rooms = {f"rlaif_sdk/{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    files = {f"rlaif_sdk/{path.name}" for path in PACKAGE.glob("*.py")}
    assert (rooms | files) - set(shown) == set()


def test_every_word_of_a_rooms_line_that_is_code_is_something_in_that_room():
    """A module that is renamed, or a class that moves, makes the page wrong; this test says where."""
    wrong = []
    for rooms, text in ROOMS.findall(PAGE):
        folders = [ROOT / name for name in CODE.findall(rooms)]
        source = "\n".join(
            file.read_text(encoding="utf-8")
            for folder in folders
            for file in (sorted(folder.rglob("*.py")) if folder.is_dir() else [folder])
        )
        for word in CODE.findall(text):
            is_module = any((folder / f"{word}.py").exists() or (folder / word).is_dir() for folder in folders)
            is_name = re.search(rf"\b(class|def) {re.escape(word.lstrip('@'))}\b|[\"']{re.escape(word)}[\"']", source)
            if not is_module and not is_name and not word.startswith("--"):
                wrong.append(f"{rooms}: {word}")
    assert not wrong


def test_every_module_is_named_in_its_rooms_line():
    """A new module gets its words; rooms of one module a command, a report or a stack say so instead."""
    lines = [(CODE.findall(rooms), text) for rooms, text in ROOMS.findall(PAGE)]
    unnamed = []
    for file in PACKAGE.rglob("*.py"):
        of_room = [text for names, text in lines if f"{file.parent.relative_to(ROOT).as_posix()}/" in names]
        text = " ".join(of_room)
        if file.stem == "__init__" or not of_room or re.search(r"one module (a|each)\b", text):
            continue
        alone = any(file.relative_to(ROOT).as_posix() in names for names, _ in lines)
        if not alone and file.stem not in CODE.findall(text):
            unnamed.append(file.relative_to(ROOT).as_posix())
    assert sorted(unnamed) == []


def test_the_order_of_imports_is_the_one_that_is_checked():
    """The page's order is import-linter's, line by line."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (each for each in config["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    ordered = [re.sub(r"[()]", "", layer) for layer in contract["layers"]]  # parentheses: the room may be missing
    shown = re.search(r"<!-- layers -->\n\n```text\n(.*?)```", PAGE, re.DOTALL)[1]
    assert shown.splitlines() == ordered
