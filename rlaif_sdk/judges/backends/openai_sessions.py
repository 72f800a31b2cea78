"""Clients of an OpenAI-compatible server: those of each event loop of each process are its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import JudgeAuthError, JudgeConnectionError, MissingExtraError
from rlaif_sdk.io.forks import leave_to_parent, on_fork
from rlaif_sdk.judges.backends.openai_replies import status_error

if TYPE_CHECKING:
    from types import ModuleType

_MAX_ERROR_BODY = 16_384


@dataclass(frozen=True, slots=True)
class Client:
    """Connections to the server.

    openai makes the HTTP client, the one that it has for many requests at once, and the headers. Requests go to the HTTP
    client itself: what openai does for each of them (its types, its options, its own way to try again) takes as much of
    the processor as all the rest.

    Attributes:
        http: The HTTP client, which sends key, organisation and the like with every request.
        url: Where chat completions are, parsed once.
        failed: The errors of an exchange, in the libraries that openai brings.
    """

    http: Any
    url: Any
    failed: tuple[type[Exception], ...]

    def request(self, body: Mapping[str, Any]) -> Any:
        """A request, ready to be sent."""
        return self.http.build_request("POST", self.url, json=body)


@dataclass(eq=False, slots=True)
class Session:
    """What the requests of one event loop share.

    Attributes:
        in_flight: The limit of all requests in flight.
        turn: The queue of requests that wait for a limit a minute.
    """

    in_flight: asyncio.Semaphore
    turn: asyncio.Lock
    _client: Client | None

    @property
    def client(self) -> Client:
        """The connections.

        Raises:
            JudgeConnectionError: The session is closed, for instance while the request waited for another attempt.
        """
        if self._client is None:
            raise JudgeConnectionError("the judge was closed before its server answered", hint="ask before closing it")
        return self._client

    async def close(self) -> None:
        """Close all connections, for good."""
        client, self._client = self._client, None
        if client is not None:
            await client.http.aclose()


class Sessions:
    """Makes a session where there is none yet for the running loop, and closes it when that loop shuts down.

    No client crosses a fork or serves two loops. Redirects are not followed, so the key never travels on. A status
    other than 2xx becomes an SDK error (see `status_error`) before more than the start of its body is read.
    """

    def __init__(self, base_url: str, *, api_key_env: str | None, concurrency: int) -> None:
        self._base_url = base_url
        self._api_key_env = api_key_env
        self._concurrency = concurrency
        self._open: dict[asyncio.AbstractEventLoop, tuple[Session, AsyncGenerator[None, None]]] = {}
        on_fork(self._leave_to_parent)

    def check(self) -> None:
        """Check the key and the libraries.

        Raises:
            JudgeAuthError: The key is missing or no key.
            MissingExtraError: openai, aiohttp or stamina is not installed.
        """
        self._api_key()
        import_openai()

    async def current(self) -> Session:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            for stale in [other for other in self._open if other.is_closed()]:
                del self._open[stale]
            session = Session(asyncio.Semaphore(self._concurrency), asyncio.Lock(), self._new_client())
            lifetime = self._lifetime(session, loop)
            await anext(lifetime)
            self._open[loop] = session, lifetime
        return self._open[loop][0]

    def close(self) -> None:
        """Close the clients of loops that are still running elsewhere."""
        for loop, (_, lifetime) in list(self._open.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(lifetime.aclose(), loop)

    def redacted(self, text: bytes) -> bytes:
        """What a server said, without the key."""
        key = self._api_key()
        return text.replace(key.encode(), b"[key]") if key else text

    def _leave_to_parent(self) -> None:
        """In a forked child: no connection crosses."""
        leave_to_parent(self._open)
        self._open = {}

    async def _lifetime(self, session: Session, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        # A loop that shuts down finishes its asynchronous generators while connections can still be closed.
        try:
            yield
        finally:
            self._open.pop(loop, None)
            await session.close()

    def _new_client(self) -> Client:
        openai = import_openai()
        import aiohttp

        async_client = next(base for base in openai.DefaultAioHttpClient.__mro__ if base.__name__ == "AsyncClient")
        library = import_module(async_client.__module__.partition(".")[0])
        http = openai.DefaultAioHttpClient(
            timeout=None,  # whoever sends has a limit for the whole exchange
            limits=library.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency),
            follow_redirects=False,
            event_hooks={"response": [self._refuse_failure]},
        )
        # Without a key of our own, openai would send the one in OPENAI_API_KEY, whatever the server.
        client = openai.AsyncOpenAI(api_key=self._api_key() or "none", base_url=self._base_url, http_client=http)
        stated = {**client.default_headers, **client.auth_headers}
        http.headers.update(
            {name: value for name, value in stated.items() if isinstance(value, str)}
        )  # what is omitted is no text
        url = library.URL(f"{str(client.base_url).rstrip('/')}/chat/completions")
        return Client(http, url, (library.HTTPError, aiohttp.ClientError))

    async def _refuse_failure(self, response: Any) -> None:
        if response.is_success:
            return
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MAX_ERROR_BODY:
                break
        headers = {name.lower(): self.redacted(value.encode()).decode() for name, value in response.headers.items()}
        raise status_error(response.status_code, headers, self.redacted(body[:_MAX_ERROR_BODY]))

    def _api_key(self) -> str:
        if self._api_key_env is None:
            return ""
        key = os.environ.get(self._api_key_env, "").strip()
        if not key or not (key.isascii() and key.isprintable()):
            raise JudgeAuthError(
                f"the environment variable {self._api_key_env} has no usable key for the judge's server",
                hint=f"export {self._api_key_env}=..., or leave api_key_env out for a server without keys",
            )
        return key


def import_openai() -> ModuleType:
    """The openai package, with what goes with it.

    Raises:
        MissingExtraError: It is not installed, or without what its client for many requests sends with.
    """
    try:
        import aiohttp  # noqa: F401 - openai's client sends with it
        import openai
        import stamina  # noqa: F401 - the backend needs it as well

        # Without httpx-aiohttp some versions have a class in its place that raises once it is made; this one is not used.
        openai.DefaultAioHttpClient(verify=False, trust_env=False)
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError(
            "the client for judge servers, openai with aiohttp and stamina,", extra="openai"
        ) from error
    return openai
