"""The parameters of the reward ``execution``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlaif_sdk import ViewParams


class ExecutionParams(ViewParams):
    """Where code and tests are, how passed tests become the score, and what a program may take."""

    view: Literal["answer", "assistant", "transcript"] = "answer"
    """Where code is looked for: ``answer``, the policy's last words; ``assistant``, all that it said; ``transcript``,
    everything, with the calls of tools and their results."""

    column: str = Field(default="tests", min_length=1)
    """The batch column with the tests of each row: cases as data (a list, or its JSON), or Python text with asserts."""

    entry_point: str | None = Field(default=None, min_length=1)
    """Name of the function that is tested; by default it stands in the column `entry_point_column`."""

    entry_point_column: str = Field(default="entry_point", min_length=1)
    """The batch column with the name of each row's function; rows of programs that read standard input need none."""

    code: Literal["block", "whole"] = "block"
    """What of an answer is its code: the fenced Python `block` that defines the function, with what it uses of the others,
    or the `whole` answer."""

    scoring: Literal["share", "all"] = "share"
    """`share`: the share of tests that pass; `all`: 1 when every test passes, else 0."""

    tolerance: float = Field(default=1e-6, ge=0, lt=1)
    """Difference, relative or absolute, up to which floats of a case count as equal; asserts decide for themselves."""

    test_seconds: float = Field(default=5.0, gt=0, le=3600)
    """Time limit of one test, and of loading the code, in seconds."""

    row_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Time limit of all tests of a row, in seconds."""

    memory_mb: int = Field(default=512, ge=64)
    """Memory limit of a program, in MiB of address space."""

    output_mb: float = Field(default=1.0, gt=0, le=64)
    """How much a program may write for one test, in MiB: what it prints, or the value that it returns."""

    sandbox_command: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=1)
    """The command that starts a container for a program and runs in it what follows, such as ``[podman, run, --rm, ...,
    IMAGE]``, instead of this machine's sandbox. It is tried before the first row as that is."""

    concurrency: int | None = Field(default=None, ge=1)
    """How many rows run at once; by default as many as this process, or its container's quota, may use cores."""
