"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

AllowChanged = Annotated[
    bool,
    typer.Option(
        "--allow-changed",
        help="Go on with what is there though config, data or the rewards' code have changed; train, iterate and distill "
        "need --resume too.",
    ),
]
