"""One way to ask a server over HTTP: through which proxy, at what addresses, and what its refusals mean."""

from __future__ import annotations

import pytest

from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.io.http import HttpError, JsonClient, plain_address, proxy_for, retry_after

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("HTTPS_PROXY", PROXY)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "127.8.9.1",
        "localhost:8000",
        "[::1]:8000",
        "judge.localhost",
        "0.0.0.0:8000",
        "localhost.:8000",
    ],
)
def test_this_machine_is_not_asked_through_a_proxy(host: str) -> None:
    """A proxy elsewhere would ask itself, and see the key and the texts."""
    assert proxy_for(f"http://{host}/v1") is None
    assert proxy_for(f"https://{host}/v1") is None


def test_other_machines_are_asked_through_the_proxy_unless_it_is_bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NO_PROXY` takes hosts, ports and domains out, and ``ALL_PROXY`` stands in for a scheme without one."""
    assert proxy_for("https://api.example.com/v1") == PROXY
    assert proxy_for("http://10.0.0.2:8000/v1") == PROXY
    monkeypatch.setenv("NO_PROXY", "10.0.0.2,.example.com")
    assert proxy_for("http://10.0.0.2:8000/v1") is None
    assert proxy_for("https://api.example.com/v1") is None
    monkeypatch.setenv("NO_PROXY", "10.0.0.2:8000")
    assert proxy_for("http://10.0.0.2:8000/v1") is None
    assert proxy_for("http://10.0.0.2:9000/v1") == PROXY
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv("ALL_PROXY", "http://other:1")
    assert proxy_for("https://elsewhere.test") == "http://other:1"


@pytest.mark.parametrize(
    "url", ["host:8000", "ftp://host", "http://", "http://u:p4ss@host", "http://t0ken@host", "https://host?key=s3cret"]
)
def test_an_address_has_nothing_that_must_not_be_shown(url: str) -> None:
    """Users, passwords and queries are refused, in words that do not repeat them."""
    with pytest.raises(ConfigError, match="address") as refused:
        plain_address(url)
    assert "p4ss" not in str(refused.value)
    assert "t0ken" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        ({"code": 429, "message": "slow"}, "passing"),
        ({"code": "503"}, "passing"),
        ({"type": "overloaded_error", "message": "busy"}, "passing"),
        ({"message": "something"}, "passing"),
        ({"code": 200, "message": "something"}, "passing"),
        ({"message": "rate limit of this api key"}, "passing"),
        ({"message": "you exceeded your quota"}, "quota"),
        ("too many requests", "passing"),
        (["odd"], "passing"),
        ({"code": 429, "type": "insufficient_quota"}, "quota"),
        ({"code": "billing_hard_limit_reached"}, "quota"),
        ({"status": 401}, "key"),
        ({"code": "401"}, "key"),
        ({"code": "invalid_api_key", "type": "invalid_request_error"}, "key"),
        ({"code": "model_not_found"}, "address"),
        ({"code": "context_length_exceeded"}, "refused"),
        ({"type": "invalid_request_error"}, "refused"),
        ({"code": 400, "message": "rate limit of words"}, "refused"),
    ],
)
def test_an_error_in_an_answer_means_what_its_status_would(error: object, problem: str) -> None:
    """By its number where it has one, else by its name or its words; what nobody knows may pass."""
    with pytest.raises(HttpError) as refused:
        make_client().refuse(error)
    assert refused.value.problem == problem


def test_what_a_server_says_cannot_steer_a_terminal() -> None:
    """An error is one line, without control characters."""
    with pytest.raises(HttpError) as refused:
        make_client().refuse({"message": "no\n\x1b[31m model"})
    assert str(refused.value).endswith("no \\x1b[31m model")


def make_client() -> JsonClient:
    return JsonClient(
        url="http://host",
        server="the server",
        extra="serve",
        api_key_env=None,
        timeout=1,
        attempts=1,
        max_retry_after=1,
        concurrency=1,
        max_body_bytes=1000,
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), (" 0.5 ", 0.5), ("soon", None), ("-1", None), ("٣", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
     ("Wed, 21 Oct 2015 07:28:00 -0000", None)],
)  # fmt: skip
def test_how_long_to_wait_is_a_number_of_seconds_or_nothing(value: str, seconds: float | None) -> None:
    """Nonsense is no wait of its own; the usual one is taken."""
    assert retry_after(value) == seconds
