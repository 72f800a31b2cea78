"""The parameters of the reward ``instruction``, which registering it imports without its checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlaif_sdk import ViewParams

Verdicts = Literal["published", "corrected"]


class InstructionParams(ViewParams):
    """Where the instructions are, and how they count."""

    view: Literal["answer", "assistant", "transcript"] = "answer"
    """What of a completion is checked: ``answer``, the policy's last words; ``assistant``, all that it said."""

    column: str = Field(default="instruction_id_list", min_length=1)
    """The batch column with the ids of a row's instructions, a list or its JSON: ``["punctuation:no_comma"]``. A row with
    none abstains."""

    arguments_column: str = Field(default="kwargs", min_length=1)
    """The batch column with the arguments of each, a list of objects as long, or its JSON; a null argument is not given."""

    mode: Literal["strict", "loose"] = "strict"
    """``strict``: the response as it is; ``loose``: an instruction is followed where the response, or one without its first
    line, its last, both, or its asterisks, follows it."""

    score: Literal["all", "share"] = "all"
    """``all``: 1 where every instruction is followed, else 0; ``share``: the share of those that are."""

    verdicts: Verdicts = "published"
    """``published``: as the published checks judge; ``corrected``: without their known faults, which the README lists."""
