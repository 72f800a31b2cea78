"""Serves the review page until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable

from rlaif_sdk.exceptions import ConfigError, needs_extra
from rlaif_sdk.preferences.review.export import EVERYTHING, ExportOptions
from rlaif_sdk.preferences.review.store import ReviewStore


def serve_review(
    store: ReviewStore,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    blind: bool = False,
    options: ExportOptions = EVERYTHING,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the page of a review; returns when the process is told to stop.

    Args:
        store: The review.
        host: The address to listen at; 127.0.0.1 is only this machine.
        port: 0 takes a free one.
        blind: Show what the judges said only after the verdict.
        options: Of the export button.
        ready: Called with the page's address, whose fragment has the token, when it can be opened.

    Raises:
        ConfigError: The address cannot be used.
        MissingExtraError: fastapi or uvicorn is not installed.
    """
    with needs_extra("review", "fastapi or uvicorn, which serve the review page,"):
        from rlaif_sdk.io.http_server import run_server
        from rlaif_sdk.preferences.review.app import create_app
    token = store.token()
    app = create_app(store, token=token, blind=blind, options=options)
    with _listening(host, port) as listener:
        ready(f"http://{_reachable(host)}:{listener.getsockname()[1]}/#token={token}")
        run_server(app, sockets=[listener], log_level="warning", access_log=False)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen at {host}, port {port}: {error}", key="port", hint="choose another --port or --host"
        ) from error


def _reachable(host: str) -> str:
    """What a browser is given for an address: a name where the address stands for all of this machine's."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
