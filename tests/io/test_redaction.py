"""What is told to nobody: values under the names of secrets, and a key in whatever spelling."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_sdk.io.redaction import Redactor, is_secret, without_secrets

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)


@pytest.mark.parametrize(
    "name",
    ["api_key", "apikey", "X-API-Key", "OPENAI_API_KEY", "hf_token", "hub_token", "token", "wandb_token", "Authorization",
     "dsn", "sentry_dsn", "password", "db_passwd", "client_secret", "secret_key", "aws_secret_access_key", "cookie",
     "credentials", "private_key", "api_keys", "clientSecret", "apiToken", "accessKey", "aws_access_key", "AccountKey", "jwt",
     "db_pwd", "connection_string", "connectionString", "slack_webhook_url", "ssh_key", "signing_key"],
)  # fmt: skip
def test_what_stands_under_the_name_of_a_secret_is_hidden(name: str) -> None:
    """At any depth, alone or in a list; the rest stays."""
    assert is_secret(name)
    hidden = without_secrets({"judge": [{name: "s3cret", "model": "m"}], name: ["s3cret"]})
    assert "s3cret" not in json.dumps(hidden)
    assert hidden["judge"][0]["model"] == "m"


@pytest.mark.parametrize(
    "name", ["api_key_env", "max_new_tokens", "tokens", "pad_token", "eos_token", "decoder_start_token", "image_token",
             "keys", "secretary", "fortunecookie", "token_type", "author", "padToken", "sort_key", "cache_key", "accessKeyId"],
)  # fmt: skip
def test_other_names_are_no_secrets(name: str) -> None:
    """The variable that has a key is told, and so are the words of a vocabulary and numbers of tokens."""
    assert not is_secret(name)
    assert without_secrets({name: "told"}) == {name: "told"}


def test_the_user_and_password_of_an_address_are_hidden() -> None:
    """Whatever the name that it stands under."""
    told = {"store": "postgres://me:s3cret@db:5432/runs", "page": "https://host/path?x=a:b@c"}
    assert without_secrets({"code": "ssh://git@host/repo", "api_key": None}) == {
        "code": "ssh://git@host/repo",
        "api_key": None,
    }
    assert without_secrets(told) == {"store": "postgres://(hidden)@db:5432/runs", "page": "https://host/path?x=a:b@c"}


@pytest.mark.parametrize("name", ["api_key", "access_token", "apiKey", "key", "sig", "X-Amz-Signature"])
def test_a_key_among_the_parameters_of_an_address_is_hidden(name: str) -> None:
    """As in signed addresses of stores; the other parameters stay."""
    told = without_secrets({"data": f"https://host/a?part=1&{name}=s3cret%3D&v=2#end"})
    assert told == {"data": f"https://host/a?part=1&{name}=(hidden)&v=2#end"}


@given(key=KEYS, before=st.text(max_size=5), after=st.text(max_size=5))
def test_a_key_is_found_in_every_spelling(key: str, before: str, after: str) -> None:
    """As it is, escaped once or twice as JSON or as a URL, as in Python, as HTML, as UTF-16 read as UTF-8."""
    redactor = Redactor(key)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    utf_16 = key.encode("utf-16-le").decode("utf-8")
    url = "".join(f"%{ord(letter):02X}" for letter in key)
    html = [
        "".join(shape.format(ord(letter)) for letter in key)
        for shape in ("&#{};", "&#{:04};", "&#x{:x};", "&#x{:04X};")
    ]
    json_spellings = (
        json.dumps(key)[1:-1],
        escaped,
        escaped.replace("\\", "\\\\"),
        "".join(f"\\x{ord(letter):02x}" for letter in key),
    )
    for spelling in (key, *json_spellings, quote(key, safe=""), quote(url), *html, utf_16):
        assert "[key]" in redactor.text(f"{before}{spelling}{after}")
    assert redactor.value({key: [key, 1, None]}) == {"[key]": ["[key]", 1, None]}


SPELLINGS_OF_A_CHARACTER = [
    lambda sign: sign,
    lambda sign: f"\\{sign}",
    lambda sign: f"\\u{ord(sign):04x}",
    lambda sign: f"\\\\u{ord(sign):04X}",
    lambda sign: f"\\u{{{ord(sign):x}}}",
    lambda sign: f"\\x{ord(sign):02x}",
    lambda sign: f"%{ord(sign):02x}",
    lambda sign: f"%25{ord(sign):02X}",
    lambda sign: f"&#{ord(sign)};",
    lambda sign: f"&#x{ord(sign):X};",
    lambda sign: f"{sign}\0",
]
ENCODINGS_OF_A_KEY = [
    lambda data: data.hex(),
    lambda data: data.hex().upper(),
    lambda data: data.hex(":"),
    lambda data: data.hex(" "),
    lambda data: base64.b64encode(data).decode(),
    lambda data: base64.urlsafe_b64encode(data).decode(),
    lambda data: base64.b64encode(data).decode().rstrip("="),
    lambda data: json.dumps(base64.b64encode(data).decode()).replace("/", "\\/"),
]


@given(key=KEYS, data=st.data(), before=st.text(max_size=3), after=st.text(max_size=3))
def test_a_key_is_found_however_its_characters_are_spelled(
    key: str, data: st.DataObject, before: str, after: str
) -> None:
    """Each in a way of its own: proxies escape what a server has escaped, and some characters only."""
    spells = data.draw(st.lists(st.sampled_from(SPELLINGS_OF_A_CHARACTER), min_size=len(key), max_size=len(key)))
    spelling = "".join(spell(sign) for spell, sign in zip(spells, key, strict=True))
    assert "[key]" in Redactor(key).text(f"{before}{spelling}{after}")


@given(
    key=KEYS.filter(lambda key: len(key) >= 12),
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
    encode=st.sampled_from(ENCODINGS_OF_A_KEY),
)
def test_a_key_is_found_in_every_encoding_of_bytes_that_hold_it(
    key: str, before: bytes, after: bytes, encode: Callable[[bytes], str]
) -> None:
    """Headers, dumps and tokens carry it between other bytes."""
    said = encode(before + key.encode() + after)
    kept = Redactor(key).text(said)
    assert "[key]" in kept
    assert key not in kept


@pytest.mark.parametrize("piece", ["\\\\", "%25", "s", "&#0", "s\0"])
def test_no_answer_takes_long_to_be_looked_through(piece: str) -> None:
    """A server that repeats the beginning of an escape does not keep the client busy."""
    began = time.process_time()
    Redactor("sk-0123456789").text(piece * 200_000)
    assert time.process_time() - began < 10


def test_without_a_key_nothing_is_changed() -> None:
    """Servers without keys are heard as they are."""
    assert Redactor("").value({"a": ["b"]}) == {"a": ["b"]}
    assert Redactor("long-enough").text("short") == "short"


@pytest.mark.parametrize("before", ["", ":", "ab", "Bearer ", "user:"])
@pytest.mark.parametrize("after", ["", "\n", "; x", " and more"])
def test_a_key_within_base64_is_found_whatever_stands_around_it(before: str, after: str) -> None:
    """A header of basic authentication holds the key in one of three forms, by the bytes before it."""
    key = "sk-abcdefgh12345678"
    said = base64.b64encode(f"{before}{key}{after}".encode()).decode()

    assert "[key]" in Redactor(key).text(f"sent {said}")


@pytest.mark.parametrize(
    "spell", [lambda key: key.encode().hex(), lambda key: "".join(f"\\u{{{ord(sign):x}}}" for sign in key)]
)
def test_a_key_in_code_points_or_hexadecimal_is_found(spell: Callable[[str], str]) -> None:
    """Dumps of bytes and escapes with braces spell a key too."""
    assert Redactor("sk-abcdefgh12345678").text(f"<{spell('sk-abcdefgh12345678')}>") == "<[key]>"


def test_a_short_key_hides_no_text_that_is_like_its_base64() -> None:
    """A few characters of base64 occur by chance."""
    assert Redactor("key").text("a2V5 and a2V5") == "a2V5 and a2V5"


def test_a_key_as_the_only_user_of_a_web_address_is_hidden() -> None:
    """A key needs no password beside it to be one."""
    assert without_secrets("https://host?at=me@home") == "https://host?at=me@home"
    assert without_secrets({"base_url": "https://sk-abc123@host/v1"}) == {"base_url": "https://(hidden)@host/v1"}
