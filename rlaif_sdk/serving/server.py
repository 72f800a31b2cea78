"""Running the application with uvicorn."""

from __future__ import annotations

import contextlib
import gc
import ssl
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from rlaif_sdk.composer import Composer
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations.host import Config
from rlaif_sdk.io.addresses import is_loopback
from rlaif_sdk.io.files import write_json
from rlaif_sdk.io.http_server import run_server
from rlaif_sdk.serving.app import create_app
from rlaif_sdk.serving.protocol import json_response
from rlaif_sdk.serving.settings import ServeSettings, check_exposure

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept, longer than a trainer's step between two calls often is."""


class LocalOnly:
    """Lets requests pass that are made to this machine's loopback address, by a page of it or by no page.

    A web page elsewhere may have its name lead to this machine (DNS rebinding); its requests then carry that name in
    ``Host``, and its address in ``Origin``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            said = [(name, value) for name, value in scope["headers"] if name in _TELLS_WHOM]
            hosts = [value for name, value in said if name == b"host"] or [b""]
            strange = [("Host", host) for host in hosts if not _is_local(b"//" + host)]
            strange += [("Origin", value) for name, value in said if name == b"origin" and not _is_local(value)]
            if strange:
                header, value = strange[0]
                shown = value[:200].decode("latin-1")
                detail = f"without a key the server answers its own machine, and {header} is {shown!r}"
                await json_response({"detail": detail}, status=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


_TELLS_WHOM = frozenset({b"host", b"origin"})


@lru_cache
def _is_local(address: bytes) -> bool:
    try:
        host = urlsplit(address.decode("latin-1")).hostname or ""
        return is_loopback(host)
    except ValueError:
        return False


def serve(
    rewards: Composer | Config,
    settings: ServeSettings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    ssl_certfile: Path | None = None,
    ssl_keyfile: Path | None = None,
    state: Path | None = None,
    access_log: bool = False,
) -> None:
    """Answer with a composed reward until the process is told to end; what is being scored is then finished.

    Args:
        rewards: As for `create_app`.
        settings: Its limits and its key.
        host: The address to bind to; another than loopback needs a key.
        port: The port; 0 takes a free one, which is logged.
        ssl_certfile: The certificate, for TLS.
        ssl_keyfile: Its key, where the certificate's file has none.
        state: As for `create_app`.
        access_log: Log a line a request: its address and status, never its body.

    Raises:
        ConfigError: The config is refused, a file is missing, or the server would answer other machines without a key.
        RlaifError: A reward did not become ready: its model is missing, say.
        OSError: The file for what is learned cannot be written.
    """
    settings = settings or ServeSettings()
    check_exposure(host, settings)
    check_tls(ssl_certfile, ssl_keyfile)
    app = create_app(rewards, settings, state=state)
    if settings.api_key is None:
        app.add_middleware(LocalOnly)
    composer: Composer = app.state.service.composer
    try:
        # here, where what is missing is an error of ours and not a traceback in uvicorn's log
        composer.set_up()
        gc.collect()
        gc.freeze()  # the garbage collector need not look at what is there for good again and again while requests come
        if state is not None and settings.cohort:
            write_json(state, app.state.service.learned(), indent=None)
    except BaseException:
        if composer is not rewards:
            composer.close()
        raise
    with contextlib.suppress(KeyboardInterrupt):
        run_server(
            app,
            host=host,
            port=port,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            access_log=access_log,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(settings.timeout)),
            server_header=False,
        )


def check_tls(certfile: Path | None, keyfile: Path | None) -> None:
    """Refuse files for TLS that cannot be used, or a key alone.

    Raises:
        ConfigError: A file is missing or holds nothing usable, they do not belong together, the key has a pass phrase, or
            there is a key without a certificate.
    """
    for key, file in (("ssl_certfile", certfile), ("ssl_keyfile", keyfile)):
        if file is not None and not file.is_file():
            raise ConfigError(f"there is no file {str(file)!r}", key=key)
    if keyfile is not None and certfile is None:
        raise ConfigError("a key without a certificate", key="ssl_certfile", hint="give both, or neither")
    if certfile is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password=lambda: "")
        except OSError as error:  # which an SSLError is
            files = " and ".join(repr(str(file)) for file in (certfile, keyfile) if file is not None)
            raise ConfigError(
                f"{files} cannot be used for TLS: {error}",
                key="ssl_certfile",
                hint="a certificate and the key that belongs to it, both PEM, the key without a pass phrase",
            ) from error
