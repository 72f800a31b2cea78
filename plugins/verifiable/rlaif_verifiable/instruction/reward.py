"""The reward ``instruction``: whether a response follows the instructions of its row."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif_sdk import MissingExtraError, Reward, RewardBatch, Score
from rlaif_verifiable.checks import is_missing, nothing_to_check, plain
from rlaif_verifiable.instruction import ifbench, ifeval
from rlaif_verifiable.instruction.params import InstructionParams
from rlaif_verifiable.instruction.registry import ArgumentError, Instruction
from rlaif_verifiable.instruction.text import LIBRARIES, Text

MOST_CHARACTERS = 100_000
"""A longer response follows nothing and is not read: more than answers have, and the worst of it costs seconds."""

INSTRUCTIONS = ifeval.INSTRUCTIONS | ifbench.INSTRUCTIONS
"""Every type by its id."""


class InstructionReward(Reward):
    """1 where a response follows all the instructions of its row, else 0, or the share that it follows.

    The reason names the ones that are not followed and why; the details have the verdict on each. A row with an unknown id,
    or with arguments that are missing or of the wrong type, fails and names it.
    """

    name = "instruction"
    version = "1"
    range = (0.0, 1.0)
    ends = ("not followed", "followed")

    def __init__(self, params: InstructionParams) -> None:
        self.params = params
        self.columns = (params.column, params.arguments_column)
        self.inputs = self.columns

    def setup(self) -> None:
        """See that the libraries are there.

        Raises:
            MissingExtraError: One is not installed.
        """
        for library in LIBRARIES:
            if importlib.util.find_spec(library) is None:
                raise MissingExtraError(library, extra="instruction", package="rlaif-verifiable")

    def score(self, batch: RewardBatch) -> list[Score]:
        """Score a batch of B rows."""
        params = self.params
        ids, arguments = (map(plain, batch.column(column)) for column in self.columns)
        return [self._row(*row) for row in zip(params.texts(batch), ids, arguments, strict=True)]

    def _row(self, text: str | None, ids: Any, arguments: Any) -> Score:
        if is_missing(ids):
            return nothing_to_check(self.params.column)
        try:
            instructions = _read(ids, arguments)
            if not instructions:
                return nothing_to_check(self.params.column)
            return Score.no_words() if text is None else self._judge(text, instructions)
        except ArgumentError as error:
            return Score.failed(str(error))

    def _judge(self, response: str, instructions: Sequence[tuple[Instruction, Mapping[str, Any]]]) -> Score:
        texts = [Text(value) for value in (variants(response) if self.params.mode == "loose" else [response])]
        verdicts = []
        for instruction, arguments in instructions:
            problem = self._problem(texts, instruction, arguments)
            verdicts.append({"id": instruction.id, "followed": problem is None, "reason": problem})
        missed = [f"{verdict['id']} ({verdict['reason']})" for verdict in verdicts if not verdict["followed"]]
        followed = len(verdicts) - len(missed)
        value = followed / len(verdicts) if self.params.score == "share" else float(not missed)
        reason = f"follows {followed} of {len(verdicts)}" + (f", not {'; '.join(missed)}" if missed else "")
        return Score(value, reason=reason, details={"instructions": verdicts})

    def _problem(self, texts: Sequence[Text], instruction: Instruction, arguments: Mapping[str, Any]) -> str | None:
        """What the response as it is misses, None if it or a variant misses nothing."""
        if len(texts[0].value) > MOST_CHARACTERS:
            return f"the response has more than {MOST_CHARACTERS} characters"
        try:
            problems = (instruction.missed(text, arguments, self.params.verdicts) for text in texts)
            first = next(problems)
            return None if first is None or any(problem is None for problem in problems) else first
        except ArgumentError as error:
            raise ArgumentError(f"{instruction.id}: {error}") from None


def variants(value: str) -> list[str]:
    """A response, and what loose verdicts also look at: without first line, last, both, and each without asterisks."""
    lines = value.split("\n")
    kept = [value, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*kept, *(text.replace("*", "") for text in kept)]))


def _read(ids: Any, arguments: Any) -> list[tuple[Instruction, Mapping[str, Any]]]:
    """The instructions of a row, each with its arguments.

    Raises:
        ArgumentError: An id is unknown, or arguments are not what the instruction takes.
    """
    names = _listed(ids)
    given = [None] * len(names) if is_missing(arguments) else _listed(arguments)
    if len(given) != len(names):
        raise ArgumentError(f"{len(names)} instructions, but arguments of {len(given)}")
    instructions: list[tuple[Instruction, Mapping[str, Any]]] = []
    for name, values in zip(names, given, strict=True):
        instruction = INSTRUCTIONS.get(name) if isinstance(name, str) else None
        if instruction is None:
            raise ArgumentError(f"{name!r:.80} is no instruction; there are those of IFEval and IFBench")
        if not isinstance(values, Mapping | None):
            raise ArgumentError(f"{name}: its arguments must be an object, not {type(values).__name__}")
        try:
            instructions.append((instruction, instruction.arguments(values or {})))
        except ArgumentError as error:
            raise ArgumentError(f"{name}: {error}") from None
    return instructions


def _listed(value: Any) -> list[Any]:
    """A list as a column holds it: as it is, or as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{value!r:.80} is no list, nor the JSON of one: {error}") from None
    if not isinstance(value, list | tuple):
        raise ArgumentError(f"{value!r:.80} is no list")
    return list(value)
