"""Clients of an OpenAI-compatible server: those of each event loop of each process are its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import JudgeAuthError, JudgeConnectionError, MissingExtraError
from rlaif_sdk.judges.backends.openai_replies import status_error

if TYPE_CHECKING:
    from types import ModuleType

_CONNECTIONS_OF_A_CLIENT = 16
_MAX_ERROR_BODY = 16_384


@dataclass(eq=False, slots=True)
class Client:
    """Connections to the server, with what every request carries.

    openai makes the HTTP client and the headers. Requests go to the HTTP client itself: what openai does for each of them
    (its types, its options, its own way to try again) takes as much of the processor as all the rest.

    Attributes:
        http: The HTTP client.
        url: Where chat completions are.
        headers: Key, organisation and the like.
        failed: The error of an exchange, in the HTTP library that openai brings: httpx or its successor.
        too_late: The one among them of time.
        in_flight: Requests in flight.
    """

    http: Any
    url: str
    headers: Mapping[str, str] = field(repr=False)  # with the key
    failed: type[Exception]
    too_late: type[Exception]
    in_flight: int = 0


@dataclass(eq=False, slots=True)
class Session:
    """What the requests of one event loop share.

    Attributes:
        new_client: Makes a client.
        in_flight: The limit of all requests in flight.
        turn: The queue of requests that wait for a limit a minute.
        clients: The clients. One looks at each of its connections for every request, so none has many.
        closed: Whether it serves no more.
    """

    new_client: Callable[[], Client]
    in_flight: asyncio.Semaphore
    turn: asyncio.Lock
    clients: list[Client] = field(default_factory=list)
    closed: bool = False

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client for one request: the one with the fewest in flight.

        Raises:
            JudgeConnectionError: The session is closed, for instance while the request waited for another attempt.
        """
        if self.closed:
            raise JudgeConnectionError("the judge was closed before its server answered", hint="ask before closing it")
        client = min(self.clients, key=attrgetter("in_flight"), default=None)
        if client is None or client.in_flight >= _CONNECTIONS_OF_A_CLIENT:
            client = self.new_client()
            self.clients.append(client)
        client.in_flight += 1
        try:
            yield client
        finally:
            client.in_flight -= 1

    async def close(self) -> None:
        """Close all connections, for good."""
        self.closed = True
        while self.clients:
            await self.clients.pop().http.aclose()


class Sessions:
    """Makes a session where there is none yet for the running loop, and closes it when that loop shuts down.

    No client crosses a fork or serves two loops. Redirects are not followed, so the key never travels on. A status
    other than 2xx becomes an SDK error (see `status_error`) before more than the start of its body is read.
    """

    def __init__(self, base_url: str, *, api_key_env: str | None, concurrency: int, timeout: float) -> None:
        self._base_url = base_url
        self._api_key_env = api_key_env
        self._concurrency = concurrency
        self._timeout = timeout
        self._open: dict[tuple[int, asyncio.AbstractEventLoop], tuple[Session, AsyncGenerator[None, None]]] = {}

    def check(self) -> None:
        """Check the key and the libraries.

        Raises:
            JudgeAuthError: The key is missing or no key.
            MissingExtraError: openai or stamina is not installed.
        """
        self._api_key()
        import_openai()

    async def current(self) -> Session:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        key = (os.getpid(), loop)
        if key not in self._open:
            for stale in [other for other in self._open if other[1].is_closed()]:
                del self._open[stale]
            session = Session(self._new_client, asyncio.Semaphore(self._concurrency), asyncio.Lock())
            lifetime = self._lifetime(session, key)
            await anext(lifetime)
            self._open[key] = session, lifetime
        return self._open[key][0]

    def close(self) -> None:
        """Close the clients of loops that are still running elsewhere."""
        for (process, loop), (_, lifetime) in list(self._open.items()):
            if process == os.getpid() and loop.is_running():
                asyncio.run_coroutine_threadsafe(lifetime.aclose(), loop)

    def redacted(self, text: bytes) -> bytes:
        """What a server said, without the key."""
        key = self._api_key()
        return text.replace(key.encode(), b"[key]") if key else text

    async def _lifetime(
        self, session: Session, key: tuple[int, asyncio.AbstractEventLoop]
    ) -> AsyncGenerator[None, None]:
        # A loop that shuts down finishes its asynchronous generators while connections can still be closed.
        try:
            yield
        finally:
            self._open.pop(key, None)
            await session.close()

    def _new_client(self) -> Client:
        openai = import_openai()
        http = openai.DefaultAsyncHttpxClient(
            timeout=self._timeout, follow_redirects=False, event_hooks={"response": [self._refuse_failure]}
        )
        # Without a key of our own, openai would send the one in OPENAI_API_KEY, whatever the server.
        client = openai.AsyncOpenAI(api_key=self._api_key() or "none", base_url=self._base_url, http_client=http)
        url = f"{str(client.base_url).rstrip('/')}/chat/completions"
        stated = {**client.default_headers, **client.auth_headers}
        headers = {name: value for name, value in stated.items() if isinstance(value, str)}  # not what is omitted
        names = [base.__module__.partition(".")[0] for base in type(http).__mro__]
        library = import_module(next(name for name in names if name != openai.__name__))
        return Client(http, url, headers, library.HTTPError, library.TimeoutException)

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
        MissingExtraError: It is not installed.
    """
    try:
        import openai
        import stamina  # noqa: F401 - the backend needs it as well
    except ImportError as error:
        raise MissingExtraError("the client for judge servers, openai with stamina,", extra="openai") from error
    return openai
