"""What a server that learns has learned, in a file: taken up at the start, and written while it changes and at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from rlaif_sdk.exceptions import StateError
from rlaif_sdk.integrations.host import load_state
from rlaif_sdk.io.files import write_json

SAVE_EVERY = 10.0
"""Seconds between two looks at whether something has been learned: so much of it is lost at most."""

_log = logging.getLogger(__name__)


def learned_in(file: Path) -> tuple[dict[str, Any] | None, int]:
    """A composer's state and the number of groups behind it, as a server left them; None and 0 where it left nothing.

    Raises:
        StateError: The file holds something else.
    """
    if not file.exists():
        return None, 0
    state = load_state(file)
    groups = state.get("groups_scored", 0)
    if not isinstance(groups, int) or groups < 0:
        raise StateError(f"{str(file)!r} says that {groups!r} groups were scored", hint="give what a server wrote")
    return state, groups


@contextlib.asynccontextmanager
async def kept_in(file: Path, learned: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Keep what is learned in a file while this is entered.

    The file is whole whenever the process is killed. One that cannot be written is logged while the server runs.

    Args:
        file: The file, which `rlaif_sdk.integrations.load_state` reads too.
        learned: What is to be kept.

    Raises:
        OSError: It cannot be written at the end.
    """
    written = ""
    lock = threading.Lock()  # a save that is under way at the end must not come after the last one

    def save() -> None:
        nonlocal written
        with lock:
            state = learned()
            text = json.dumps(state)
            if text != written:
                write_json(file, state, indent=None)
                written = text

    async def keep() -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY)
            try:
                await asyncio.to_thread(save)
            except OSError as error:
                _log.error("%s: what was learned is not saved: %s", file, error.strerror)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await asyncio.to_thread(save)
