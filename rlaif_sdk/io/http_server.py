"""Running an application with uvicorn, with a limit of time for headers, until a signal asks for an end.

A client that closes its side of a connection has left, even if it would still read: what it asked for is given up.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uvicorn import Config, Server
from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    Protocol: Any
else:
    Protocol = AutoHTTPProtocol

HEADERS_WITHIN = 20.0
"""Seconds that a client has from its connection, or from the first byte of its next request, to the end of the headers."""


class PunctualProtocol(Protocol):  # type: ignore[misc]
    """uvicorn's protocol, which waits for the headers of a request for `HEADERS_WITHIN` and no longer."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._watch()
        else:
            self._stop()

    def _watch(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEADERS_WITHIN, self._give_up)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def run_server(app: Any, *, sockets: Sequence[socket.socket] | None = None, **settings: Any) -> None:
    """Serve an application until the process is told to end by SIGINT, SIGTERM or SIGHUP; requests are then finished.

    Args:
        app: An ASGI application.
        sockets: What to listen at, in place of an address.
        settings: Of `uvicorn.Config`.
    """
    server = Server(Config(app, http=PunctualProtocol, **settings))
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    on_main = threading.current_thread() is threading.main_thread()
    if hang_up is not None and on_main and signal.getsignal(hang_up) is signal.SIG_DFL:  # nohup ignores it
        signal.signal(hang_up, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=None if sockets is None else list(sockets))
