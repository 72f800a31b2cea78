"""Asking a reward server: connections that are kept, retries, and what must not be believed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from rlaif_sdk.exceptions import ConfigError, MissingExtraError, RewardError, RewardOutputError
from rlaif_sdk.io.forks import leave_to_parent, on_fork
from rlaif_sdk.scoring.retry import backoff, retry_after

if TYPE_CHECKING:
    from types import ModuleType

    from httpx import AsyncClient, Response

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_ANSWER = 64_000_000
_MAX_PROBLEM = 16_384


class _PassingError(Exception):
    """Worth another try.

    Attributes:
        delay: Seconds that the server asks to wait, or None.
    """

    def __init__(self, message: str, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class _Session:
    """A client, its limit of requests in flight, and what closes it with its loop."""

    client: AsyncClient
    in_flight: asyncio.Semaphore
    lifetime: AsyncGenerator[None, None]


class RemoteClient:
    """Posts JSON to one address and reads JSON.

    There is a client for each event loop of each process, so none crosses a fork. Redirects are not followed, so the
    key stays with the server that it is for.

    Args:
        url: Where to post.
        api_key_env: The environment variable with the key; None for a server without one.
        timeout: Seconds for one attempt, from connecting to the last byte.
        attempts: The most attempts for one request.
        max_retry_after: The most seconds to wait where the server says how long.
        concurrency: The most requests in flight.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str | None = None,
        timeout: float = 120.0,
        attempts: int = 4,
        max_retry_after: float = 60.0,
        concurrency: int = 8,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"{url!r} is no address", key="params.url", hint="http://host:port or https://host")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("an address is shown in messages", key="params.url", hint="put the key into api_key_env")
        self._url = url
        self._api_key_env = api_key_env
        self._timeout = timeout
        self._attempts = attempts
        self._max_retry_after = max_retry_after
        self._concurrency = concurrency
        self._open: dict[asyncio.AbstractEventLoop, _Session] = {}
        on_fork(self._leave_to_parent)

    def check(self) -> None:
        """Check the key and the library; no request is sent.

        Raises:
            ConfigError: The key is missing or no key.
            MissingExtraError: httpx is not installed.
        """
        self._headers()
        _import_httpx()

    async def post(self, body: Any) -> Any:
        """The answer to a body.

        Raises:
            ConfigError: The server refuses the key, or sends us elsewhere.
            RewardError: There is no usable answer after all attempts, or the server refuses the body.
        """
        try:
            # What is no Unicode, a lone surrogate, becomes a question mark: servers refuse the whole request else.
            data = json.dumps(body, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")
        except (TypeError, ValueError) as error:
            raise RewardError(
                f"a row cannot be sent as JSON: {error}", hint="name the columns to send: params.columns"
            ) from None
        session = await self._session()
        problem = _PassingError("")
        for attempt in range(1, self._attempts + 1):
            try:
                async with session.in_flight:
                    return await self._attempt(session.client, data)
            except _PassingError as error:
                problem = error
            if attempt < self._attempts:
                asked = problem.delay
                await asyncio.sleep(backoff(attempt, 0.5, 30.0) if asked is None else min(asked, self._max_retry_after))
        raise RewardError(
            f"no usable answer from {self._url} in {self._attempts} attempts; the last time: {problem}",
            hint="check that the server is up and allows this many requests",
        )

    async def _attempt(self, client: AsyncClient, data: bytes) -> Any:
        import httpx

        try:
            async with (
                asyncio.timeout(self._timeout),
                client.stream("POST", self._url, content=data, headers=self._headers()) as response,
            ):
                if not response.is_success:
                    self._refuse(response, await _read(response, _MAX_PROBLEM, cut=True))
                return self._parsed(await _read(response, _MAX_ANSWER))
        except TimeoutError:
            raise _PassingError(f"no whole answer within {self._timeout:g} s") from None
        except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
            raise _PassingError(f"the connection failed: {type(error).__name__}: {error}") from None

    def _parsed(self, body: bytes) -> Any:
        try:
            return json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            start = self._redacted(body.decode("utf-8", "replace"))[:80]
            raise _PassingError(f"the answer is no JSON: {start!r}") from None

    def _refuse(self, response: Response, said: bytes) -> NoReturn:
        status = response.status_code
        where = f"{self._url} answered HTTP {status}: {self._redacted(said.decode('utf-8', 'replace'))[:300]}"
        if status in _RETRIED:
            raise _PassingError(where, retry_after(response.headers.get("retry-after", "")))
        if status in {401, 403}:
            raise ConfigError(where, key="params.api_key_env", hint="check the key in the variable that it names")
        if response.is_redirect:
            target = self._redacted(response.headers.get("location", "").split("?")[0])
            raise ConfigError(
                f"{self._url} redirects to {target!r}; neither the key nor the texts follow",
                key="params.url",
                hint="give the address that it redirects to, if you trust it",
            )
        raise RewardError(where)

    async def _session(self) -> _Session:
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            for stale in [other for other in self._open if other.is_closed()]:
                del self._open[stale]
            httpx = _import_httpx()
            limits = httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
            client = httpx.AsyncClient(timeout=self._timeout, limits=limits, follow_redirects=False)
            lifetime = self._lifetime(client, loop)
            await anext(lifetime)
            self._open[loop] = _Session(client, asyncio.Semaphore(self._concurrency), lifetime)
        return self._open[loop]

    def _leave_to_parent(self) -> None:
        """In a forked child: no connection crosses."""
        leave_to_parent(self._open)
        self._open = {}

    async def _lifetime(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        # A loop that shuts down finishes its asynchronous generators while connections can still be closed.
        try:
            yield
        finally:
            self._open.pop(loop, None)
            await client.aclose()

    def close(self) -> None:
        """Close the connections that belong to loops still running; the others closed with their loops."""
        for loop, session in list(self._open.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(session.lifetime.aclose(), loop)

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def _key(self) -> str:
        if self._api_key_env is None:
            return ""
        key = os.environ.get(self._api_key_env, "").strip()
        if not key or not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"the environment variable {self._api_key_env} has no usable key for the reward server",
                key="params.api_key_env",
                hint=f"export {self._api_key_env}=..., or leave api_key_env out for a server without keys",
            )
        return key

    def _redacted(self, text: str) -> str:
        key = self._key()
        return text.replace(key, "[key]") if key else text


async def _read(response: Response, most: int, *, cut: bool = False) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > most:
            if not cut:
                raise RewardOutputError(f"the reward server's answer is longer than {most} bytes")
            break
    return bytes(body[:most])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _import_httpx() -> ModuleType:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError("the client for reward servers, httpx,", extra="serve") from error
    return httpx
