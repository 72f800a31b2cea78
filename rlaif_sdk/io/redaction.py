"""What is told to nobody: values that stand under the name of a secret, and a key in whatever spelling it comes back."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

_SECRET = re.compile(
    r"(?:^|[_.-])(?:(?:api|private|access|account|ssh|signing|encryption)[_-]?key|secret(?:[_-]?access)?(?:[_-]?key)?|passwd|pwd"
    r"|password|passphrase|credentials?|authorization|bearer|cookie|dsn|jwt|connection[_-]?string|webhook(?:[_-]?url)?)s?$"
    # Words of a vocabulary are no secrets: pad_token, eos_token, decoder_start_token.
    r"|(?:^|(?<!bos)(?<!cls)(?<!eos)(?<!eot)(?<!pad)(?<!sep)(?<!unk)(?<!end)(?<!mask)(?<!start)(?<!stop)(?<!image)[_-])token$",
    re.IGNORECASE,
)
_USER = re.compile(  # the only user of a web address is a token; that of ssh://git@host is a name
    r"(?<=://)[^/\s@]*:[^/\s@]*(?=@)|(?:(?<=http://)|(?<=https://))[^/?#\s@]+(?=@)", re.IGNORECASE
)
_PARAMETER = re.compile(r"(?<=[?&])([^=&#\s]+)=[^&#\s]+")
_SECRET_PARAMETERS = {"key", "sig", "signature", "x-amz-signature"}
_HUMP = re.compile("(?<=[a-z0-9])(?=[A-Z])")
_HIDDEN = "(hidden)"
_REDACTED = "[key]"
_LEAST_ENCODED = 12  # fewer characters of base64 or hexadecimal digits occur by chance


def is_secret(name: str) -> bool:
    """Whether what stands under this name is told to nobody: ``api_key`` is a secret, ``api_key_env`` is none."""
    return _SECRET.search(_HUMP.sub("_", name)) is not None


def without_secrets(value: Any, name: str = "") -> Any:
    """The same JSON value, with what stands under the name of a secret hidden, and an address's user, password and keys."""
    if isinstance(value, Mapping):
        return {str(key): without_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item, name) for item in value]
    if value is not None and is_secret(name):
        return _HIDDEN
    return _PARAMETER.sub(_parameter, _USER.sub(_HIDDEN, value)) if isinstance(value, str) else value


def _parameter(found: re.Match[str]) -> str:
    name = found[1]
    return f"{name}={_HIDDEN}" if is_secret(name) or name.lower() in _SECRET_PARAMETERS else found[0]


class Redactor:
    """Takes a key out of what a server says.

    The key is found as it is, and with any of its characters escaped as in JSON, a URL or HTML, or followed by zero bytes
    as in UTF-16; unless it is short, also in hexadecimal digits, with colons or blanks between them or without, and within base64, whatever stands around it there.

    Args:
        key: The key in ASCII; empty where there is none, and nothing is changed.
    """

    def __init__(self, key: str) -> None:
        self._shortest = len(key)
        self._key = re.compile("|".join(_forms(key)), re.IGNORECASE) if key else None

    def text(self, text: str) -> str:
        """Text without the key."""
        if self._key is None or len(text) < self._shortest:
            return text
        return self._key.sub(_REDACTED, text)

    def value(self, value: Any) -> Any:
        """A JSON value without the key in any text, at any depth."""
        if self._key is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.value(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value


def _forms(key: str) -> list[str]:
    forms = ["".join(map(_spellings, key))]
    if len(digits := key.encode().hex(" ")) >= _LEAST_ENCODED:
        forms.append(digits.replace(" ", "[ :-]?"))
    for before in range(3):  # three bytes are four characters, so the key has three forms
        encoded = base64.b64encode(b"\0" * before + key.encode()).decode().rstrip("=")
        first, shared = (0, 2, 3)[before], (before + len(key.encode())) % 3 != 0
        own = encoded[first : len(encoded) - shared]  # without characters that hold a neighbour's bits
        if len(own) >= _LEAST_ENCODED:
            forms.append(
                "".join({"+": "[+-]", "/": r"\\{0,4}[/_]"}.get(character, character) for character in own)
                + "[A-Z0-9+/_-]?={0,2}"
            )
    return forms


def _spellings(character: str) -> str:
    code = ord(character)
    return (  # each repetition has an end, so that no answer takes long to look through
        rf"(?:\\{{0,4}}{re.escape(character)}|\\{{1,4}}u00{code:02x}|\\{{1,4}}u\{{0{{0,4}}{code:x}\}}|\\{{1,4}}x{code:02x}"
        rf"|%(?:25){{0,2}}{code:02x}"
        rf"|&#(?:0{{0,4}}{code}|x0{{0,4}}{code:x});)\x00{{0,3}}"
    )
