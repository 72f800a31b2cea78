"""JSON posted to one address over connections that are kept, and tried again where that may help.

Judges behind a server and the reward ``remote`` both ask through `JsonClient`: what they ask and what they make of an answer
is theirs, everything between is here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rlaif_sdk.exceptions import ConfigError, needs_extra
from rlaif_sdk.io.addresses import is_loopback
from rlaif_sdk.io.forks import leave_to_parent, on_fork
from rlaif_sdk.io.redaction import Redactor, without_secrets
from rlaif_sdk.io.retries import retry_context
from rlaif_sdk.io.text import printable

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, TCPConnector
    from aiohttp.connector import Connection

T = TypeVar("T")
Problem = Literal["passing", "closed", "key", "quota", "address", "redirect", "refused", "answer"]
"""What is wrong: it may pass, the client was closed, the key or the account is refused, nothing is at the address or it
sends elsewhere, the body is refused, or its answer is longer than is read."""

_BACKOFF = {"wait_initial": 0.5, "wait_max": 30.0}
_MOST_OF_AN_ERROR = 16_384
_PASSING = frozenset({408, 409, 425, 429})
_MOST_NESTED = 100
_STATUS = re.compile("[45][0-9]{2}")
_STATUS_OF_WORDS = (
    (re.compile(r"quota|billing|credit|payment", re.IGNORECASE), 402),
    (re.compile(r"rate.?limit|too.?many|overloaded|throttl", re.IGNORECASE), 429),
    (re.compile(r"auth|api.?key|permission|forbidden", re.IGNORECASE), 401),
    (re.compile(r"not.?found", re.IGNORECASE), 404),
    (re.compile(r"invalid|unsupported|bad.?request|context.?length", re.IGNORECASE), 400),
)
"""The status that the name of an error stands for, where it has no number; the first that fits."""
_NO_HEADERS: Mapping[str, str] = {}


class HttpError(Exception):
    """Why a server gave no answer; never with the key.

    Attributes:
        problem: What is wrong.
        hint: The next step for the user, or None.
        delay: Seconds that the server asks to wait, or None.
    """

    def __init__(self, problem: Problem, message: str, *, hint: str | None = None, delay: float | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.hint = hint
        self.delay = delay


@dataclass(eq=False, slots=True)
class Session:
    """What the requests of one event loop share.

    Attributes:
        in_flight: The limit of all requests in flight.
        turn: For what only one request may do at a time, such as waiting for a limit a minute.
        redactor: Takes the key out of answers.
    """

    in_flight: asyncio.Semaphore
    turn: asyncio.Lock
    redactor: Redactor
    proxy: str | None = field(repr=False)
    _http: ClientSession | None

    @property
    def http(self) -> ClientSession:
        """The connections.

        Raises:
            HttpError: They are closed, for instance while a request waited for another attempt.
        """
        if self._http is None:
            raise HttpError("closed", "it was closed before its server answered", hint="ask before closing it")
        return self._http

    async def close(self) -> None:
        """Close all connections, for good."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()


@dataclass(eq=False, kw_only=True)
class JsonClient:
    """Posts JSON to one address and reads JSON.

    There is a session for each event loop of each process, so that no connection crosses a fork. Redirects are not
    followed, so the key never travels on. The environment's proxies (``HTTPS_PROXY``, ``NO_PROXY``) are used, except to
    this machine. The key is taken out of whatever the server says, after it was decoded.

    Attributes:
        url: Where to post; see `plain_address`.
        server: What messages call the server.
        extra: The extra of the SDK that brings the libraries.
        api_key_env: The environment variable with the key; None for a server without one.
        timeout: Seconds for one attempt, from connecting to the last byte.
        attempts: The most attempts for one request.
        max_retry_after: The most seconds to wait where the server says how long.
        concurrency: The most requests in flight.
        max_body_bytes: The longest answer that is read.
        headers: Sent with the key.

    Raises:
        ConfigError: The address is none.
    """

    url: str
    server: str
    extra: str
    api_key_env: str | None
    timeout: float
    attempts: int
    max_retry_after: float
    concurrency: int
    max_body_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict)
    _open: dict[asyncio.AbstractEventLoop, tuple[Session, AsyncGenerator[None, None]]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        plain_address(self.url)
        on_fork(self._leave_to_parent)

    def check(self) -> None:
        """Check the key and the libraries; no request is sent.

        Raises:
            HttpError: The key is missing or no key.
            MissingExtraError: aiohttp or stamina is not installed.
        """
        self._api_key()
        with needs_extra(self.extra, f"the client for {self.server}, aiohttp with stamina,"):
            import aiohttp  # noqa: F401
            import stamina  # noqa: F401

    async def session(self) -> Session:
        """The session of the running loop, made where there is none yet; it is closed when that loop shuts down.

        Raises:
            HttpError: See `check`, as for the other error.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            for stale in [other for other in self._open if other.is_closed()]:
                del self._open[stale]
            session = self._new_session()
            lifetime = self._lifetime(session, loop)
            await anext(lifetime)
            self._open[loop] = session, lifetime
        return self._open[loop][0]

    async def tried(self, exchange: Callable[[], Awaitable[T]]) -> T:
        """What an exchange gives, which is begun again while it fails in a way that may pass.

        Args:
            exchange: Calls `post` and reads its answer.

        Raises:
            HttpError: It comes to nothing; ``passing`` after all attempts.
        """
        try:
            return await exchange()
        except HttpError as failure:
            if failure.problem != "passing":
                raise
            return await self._tried_again(failure, exchange)

    async def _tried_again(self, failure: HttpError, exchange: Callable[[], Awaitable[T]]) -> T:
        """What comes after a first attempt that failed. Most have none, and what retries costs as much as they do."""

        def worth_retrying(error: Exception) -> bool | float:
            if not isinstance(error, HttpError) or error.problem != "passing":
                return False
            return True if error.delay is None else min(error.delay, self.max_retry_after)

        try:
            async for attempt in retry_context(worth_retrying, attempts=self.attempts, timeout=None, **_BACKOFF):
                with attempt:
                    if attempt.num == 1:
                        raise failure
                    return await exchange()
        except HttpError as error:
            if error.problem != "passing":
                raise
            raise HttpError(
                "passing",
                f"no usable answer from {self.url} in {self.attempts} attempt{'s' * (self.attempts > 1)}; the last time: {error}",
                hint="check that the server is up and allows this many requests",
            ) from None
        raise AssertionError("the attempts end with an answer or an error")

    async def post(self, session: Session, body: Callable[[], bytes], headers: Mapping[str, str] | None = None) -> Any:
        """The JSON answer to JSON, in one attempt.

        Args:
            session: The loop's session.
            body: Writes the body, when its turn has come: so thousands that wait hold none, and none delays what is sent.
            headers: Sent with this request alone.

        Raises:
            HttpError: There is none, or it is an error, whatever its status.
        """
        async with session.in_flight:
            said = await self._exchange(session, body(), headers)
        try:
            answer = session.redactor.value(_read_json(said))
        except (ValueError, RecursionError):
            start = session.redactor.text(_decoded(said))[:80]
            raise HttpError("passing", f"{self.server} answered something that is no JSON: {start!r}") from None
        if error := _error_in(answer):
            self.refuse(error)
        return answer

    def refuse(self, error: Any) -> NoReturn:
        """Raise what an error in an answer stands for: the same as its status would, had the server sent it.

        Args:
            error: Text, or a mapping with ``code``, ``type``, ``status`` and ``message``, as far as they are there.

        Raises:
            HttpError: Always.
        """
        names = [error.get(name) for name in ("code", "status", "type")] if isinstance(error, Mapping) else [error]
        words = " ".join(name for name in names if isinstance(name, str)) or _said_in({"error": error})
        code = next((int(str(name)) for name in names if _STATUS.fullmatch(str(name))), 0)
        if not code or code == 429:
            code = next((status for shape, status in _STATUS_OF_WORDS if shape.search(words)), code or 500)
        said = _said_in({"error": error})
        raise self._error(code, f"{self.server} answered an error with status 200: {said}", _NO_HEADERS)

    async def _exchange(self, session: Session, data: bytes, headers: Mapping[str, str] | None) -> bytes:
        import aiohttp

        try:
            async with (
                asyncio.timeout(self.timeout),
                session.http.post(
                    self.url, data=data, headers=headers, allow_redirects=False, proxy=session.proxy
                ) as response,
            ):
                if not 200 <= response.status < 300:
                    raise self._status_error(session, response, await _read(response, _MOST_OF_AN_ERROR))
                body = await _read(response, self.max_body_bytes)
        except TimeoutError:
            raise HttpError("passing", f"no whole answer within {self.timeout:g} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            text = session.redactor.text(_why_unconnected(error) or str(error) or type(error).__name__)
            raise HttpError("passing", f"the connection failed: {text}") from None
        if len(body) > self.max_body_bytes:
            raise HttpError("answer", f"the answer of {self.server} is longer than {self.max_body_bytes} bytes")
        return body

    def _status_error(self, session: Session, response: ClientResponse, body: bytes) -> HttpError:
        if 300 <= response.status < 400:
            target = session.redactor.text(response.headers.get("location", "").split("?")[0])
            return HttpError(
                "redirect",
                f"{self.server} redirects to {target!r}; neither the key nor the texts follow",
                hint="give the address that it redirects to, if you trust it",
            )
        text = session.redactor.text(_decoded(body))
        try:
            said = _said_in(session.redactor.value(_read_json(body)))
        except (ValueError, RecursionError):
            said = _one_line(text)
        status = 402 if response.status == 429 and "insufficient_quota" in text else response.status
        where = f"{self.server} answered HTTP {response.status}{said and f': {said}'}"
        return self._error(status, where, response.headers)

    def _error(self, status: int, where: str, headers: Mapping[str, str]) -> HttpError:
        if status in (401, 403):
            return HttpError("key", where, hint="check the key in the variable that api_key_env names")
        if status == 402:
            return HttpError("quota", where, hint="top the account up, then start the run again")
        if status in _PASSING or status >= 500:
            return HttpError("passing", where, delay=retry_after(headers.get("retry-after", "")))
        if status in (404, 405):
            return HttpError("address", where, hint="check the address, and that the server has this route")
        return HttpError("refused", where)

    def close(self) -> None:
        """Close the connections that belong to loops still running; the others closed with their loops."""
        for loop, (_, lifetime) in list(self._open.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(lifetime.aclose(), loop)

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

    def _new_session(self) -> Session:
        self.check()
        import aiohttp

        key = self._api_key()
        stated = {"Authorization": f"Bearer {key}", **self.headers} if key else {}
        secure = urlsplit(self.url).scheme == "https"
        http = aiohttp.ClientSession(
            connector=_connector(limit=self.concurrency, ssl=ssl.create_default_context() if secure else False),
            headers={"Content-Type": "application/json", **stated},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # whoever sends has a limit for the whole exchange
        )
        return Session(asyncio.Semaphore(self.concurrency), asyncio.Lock(), Redactor(key), proxy_for(self.url), http)

    def _api_key(self) -> str:
        if self.api_key_env is None:
            return ""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key or not (key.isascii() and key.isprintable()):
            raise HttpError(
                "key",
                f"the environment variable {self.api_key_env} has no usable key for {self.server}",
                hint=f"export {self.api_key_env}=..., or leave api_key_env out for a server without keys",
            )
        return key


def plain_address(url: str) -> str:
    """An address of HTTP without anything that must not be shown; addresses stand in messages.

    Raises:
        ConfigError: It is none, or has a user, a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") and parts.port != 0 else None
    except ValueError:  # brackets that do not match, or a port that is no number up to 65535
        host = None
    if host and (parts.username is not None or parts.password is not None or "?" in url or "#" in url):
        raise ConfigError(
            f"the address at {host} has a user, a password, a query or a fragment, and addresses are shown in messages",
            hint="name the variable that has the key in api_key_env",
        )
    if not host or "\\" in url or not url.isprintable() or any(map(str.isspace, url)):
        shown = without_secrets(url.partition("?")[0])
        raise ConfigError(f"{shown!r} is no address", hint="http://host:port or https://host, and the path")
    return url


def proxy_for(url: str) -> str | None:
    """The environment's proxy for an address, or None; what is on this machine is never asked through one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if is_loopback(host) or host.endswith(".localhost") or host in ("0.0.0.0", "::"):  # noqa: S104 - asked, not bound
        return None
    if proxy_bypass(host if parts.port is None else f"{host}:{parts.port}"):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def json_body(value: Any, *, default: Callable[[Any], Any] | None = None) -> bytes:
    """A value as the body of a request: JSON without NaN; a lone surrogate becomes a question mark.

    Args:
        value: The value.
        default: What to take in place of an object that JSON does not know.

    Raises:
        TypeError: It holds what JSON does not.
        ValueError: It holds NaN or an infinity.
    """
    return json.dumps(value, allow_nan=False, ensure_ascii=False, default=default).encode("utf-8", "replace")


def retry_after(value: str) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait, as a number or a date (RFC 9110, 10.2.3); None for nonsense."""
    value = value.strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _why_unconnected(error: Exception) -> str | None:
    """Why there is no connection, without what aiohttp and asyncio say around it; None of other errors."""
    import ssl

    cause = getattr(error, "os_error", None)
    if cause is None:
        return None
    if isinstance(cause, ssl.SSLError):  # its number is OpenSSL's, not the system's
        return str(cause)
    return os.strerror(cause.errno) if (cause.errno or 0) > 0 else str(cause.strerror or cause)


async def _read(response: ClientResponse, most: int) -> bytes:
    """The body, or a little more than the most of it that is wanted."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            break
    return bytes(body)


def _connector(**options: Any) -> TCPConnector:
    """Connections that are kept until the server says something on them that nobody asked for."""
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        async def connect(self, *args: Any, **kwargs: Any) -> Connection:
            for _ in range(self.limit + 1):  # so many may be kept; the next is new
                connection = await super().connect(*args, **kwargs)
                try:
                    for _ in range(2 if _has_more(connection) else 0):  # it is read before anything is asked
                        await asyncio.sleep(0)
                except asyncio.CancelledError:
                    connection.close()
                    raise
                if connection.protocol is not None and not connection.protocol.should_close:
                    return connection
                connection.close()
            raise aiohttp.ClientConnectionError("the server answers before it is asked")

    return Connector(**options)


def _has_more(connection: Connection) -> bool:
    """Whether something may have arrived that nobody has read: asked of the system, which costs no turn of the loop."""
    socket = connection.transport.get_extra_info("socket") if connection.transport else None
    if socket is None or not hasattr(select, "poll"):  # Windows has none
        return True
    arrived = select.poll()
    arrived.register(socket, select.POLLIN)
    return bool(arrived.poll(0))


def _read_json(body: bytes) -> Any:
    """The value of JSON, nested no deeper than whatever reads it can follow.

    Raises:
        ValueError: It is none, or too deep.
        RecursionError: It is far too deep.
    """
    value = json.loads(body)
    if body.count(b"[") + body.count(b"{") > _MOST_NESTED:
        level = [value]
        for _ in range(_MOST_NESTED):
            level = [item for each in level for item in _items(each)]
        if level:
            raise ValueError("nested too deep")
    return value


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _error_in(answer: Any) -> Any:
    """What a server says went wrong, in an answer whose status says nothing of it; None where nothing did."""
    if isinstance(answer, list) and len(answer) == 1:
        [answer] = answer
    if not isinstance(answer, dict):
        return None
    if answer.get("error"):
        return answer["error"]
    if "error" in (answer.get("object"), answer.get("type"), answer.get("status")):
        return answer
    return (answer.get("errors") or answer) if answer.get("success") is False else None


def _decoded(body: bytes) -> str:
    return body.decode(json.detect_encoding(body), "replace")


def _said_in(body: Any) -> str:
    """What a server says in the JSON of an error."""
    said = body
    for name in ("error", "message", "detail"):
        if isinstance(said, Mapping) and said.get(name):
            said = said[name]
    return _one_line(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False) if said else "")


def _one_line(text: str) -> str:
    return printable(" ".join(text.split())[:300])
