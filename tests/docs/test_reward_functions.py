"""The plain reward functions that the pages show score any shape of row."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import Composer, RewardBatch
from tests.docs.markdown_blocks import blocks

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
DATA = {"prompts", "completions", "prompt_texts", "completion_texts"}
LEFT_OUT = {
    "judge of keep-rewards-on-time",
    "looks_repetitive of keep-rewards-on-time",
    "careful of keep-a-ledger",
    "learnt of train-a-reward-model",
    "counts of read-conversations",
    "one_call of train-with-tools",
}
"""Functions that are shown for how they fail or how long they take, that need what their page has made before, or that read
what text does not hold: images and calls."""
ANSWER = "Yes, please: 4 Paris."
WANTED = "4 #### Paris"
"""In every column: a reference, a label, or a solution that ends as those of GSM8K do."""
SHAPES = {
    "text": ("Tea?", ANSWER),
    "chat": ([{"role": "user", "content": "Tea?"}], [{"role": "assistant", "content": ANSWER}]),
    "blocks": (
        [{"role": "user", "content": [{"type": "text", "text": "Tea?"}]}],
        [{"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}],
    ),
}


def shown() -> Iterator[tuple[str, ast.Module, str]]:
    """Each function of a page whose first parameters are data, with the functions of its block and what they import."""
    for page in PAGES:
        for block in blocks(page):
            if block.language != "python":
                continue
            body = ast.parse(block.code).body
            functions = [node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
            used = {node.id for function in functions for node in ast.walk(function) if isinstance(node, ast.Name)}
            needed = [node for node in body if node in functions or _binds(node, used)]
            for function in functions:
                names = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
                if names & DATA:
                    yield f"{function.name} of {page.stem}", ast.Module(needed, []), function.name


def _binds(node: ast.stmt, names: set[str]) -> bool:
    """Whether it imports one of the names; what a page imports for its trainer takes seconds."""
    imports = node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []
    return any((alias.asname or alias.name).split(".")[0] in names for alias in imports)


FUNCTIONS = {title: (module, name) for title, module, name in shown()}


def loaded(title: str) -> Callable[..., Any]:
    module, name = FUNCTIONS[title]
    names: dict[str, Any] = {}
    exec(compile(module, title, "exec"), names)
    function: Callable[..., Any] = names[name]
    return function


@pytest.mark.parametrize("title", [title for title in FUNCTIONS if title not in LEFT_OUT])
def test_a_documented_reward_scores_text_and_messages_alike(title: str) -> None:
    """Of the same words the same score, in one batch each."""
    function = loaded(title)
    wanted = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and name not in DATA and parameter.kind is not parameter.VAR_KEYWORD
    ]
    scores = {}
    for shape, (prompt, completion) in SHAPES.items():
        row = {"prompt": prompt, "completion": completion, "same": 1, **dict.fromkeys(wanted, WANTED)}
        with Composer({"shown": function}) as composer:
            scores[shape] = (
                composer.compose(RewardBatch.from_records([row, row], group="same")).rewards["shown"].raw.tolist()
            )
    assert scores["text"] == scores["chat"] == scores["blocks"]


def test_there_are_such_functions() -> None:
    """Those that are left out among them, lest the list be of pages that are gone."""
    assert len(FUNCTIONS) > 20
    assert FUNCTIONS.keys() >= LEFT_OUT
