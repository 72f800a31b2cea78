"""Special tokens: what ends a text that a model wrote, and texts encoded so that none of theirs acts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

BREAK = "\ufdd0"
"""Where an inert text is cut before it is encoded: a code point that Unicode keeps out of texts."""

_SHAPES = (
    r"<[|｜](?![^<>|｜]*(?:tool|call|think))[^<>|｜]{1,64}[|｜]>",  # <|im_end|>, <｜end▁of▁sentence｜>, <|eot_id|>
    r"\[\|[^\[\]|]{1,64}\|\]",  # [|endofturn|]
    r"</?s>|</?(?:bos|eos|pad|eod|eot|eom|sep|cls)>",
    r"<(?:end|start|begin)_of_\w{1,32}>",  # <end_of_turn>
    r"<turn\|>|<\|turn>",
    r"<(?:reserved|unused|extra_id)_?\d{1,4}>",
    r"\[(?:BOS|EOS|PAD|SEP|CLS|EOT)\]",
)
_SPECIAL = re.compile("|".join(_SHAPES))
_LEADING = re.compile(rf"\s*(?:{_SPECIAL.pattern})")
_PLAIN_WORD = re.compile(r"[\w\s\u2581'\u2019.-]*")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_NEVER_KNOWN = "\U0010fffd"
_SIGNS = ("\n", "\u241e", "|")


def without_end(text: str) -> str:
    """A completion without the special tokens that end it, of whatever family, and the white space after them.

    They are known by their shape: ``<|im_end|>``, ``<｜end▁of▁sentence｜>``, ``<end_of_turn>``, ``</s>``,
    ``[|endofturn|]``, ``<pad>``. What closes a tool call or thinking stays. A text without any is returned as it is.
    """
    while (bare := text.rstrip()).endswith((">", "]")):
        at = max(bare.rfind("<"), bare.rfind("["))
        if at < 0 or not _SPECIAL.fullmatch(bare, at):
            break
        text = bare[:at]
    return text


def starts(text: str) -> list[int]:
    """Where a text may be said to begin: at 0, and after each special token that stands before anything else."""
    places, at = [0], 0
    while found := _LEADING.match(text, at):
        at = found.end()
        places.append(at)
    return places


class SpecialTokens:
    """The tokens of one tokenizer that act where they are read, and texts in which none of them is.

    A token acts if it was added to the tokenizer's vocabulary, unless it is white space or a plain word: a domain's words
    are added too, and mean what they say.

    Args:
        encode: Text to ids, with nothing added and with special tokens recognised.
        added: The added tokens by id, each with ``content`` and ``special``.
        normalize: What the tokenizer makes of a text before it looks for tokens, where that is known; a text is then
            encoded only if a token may be in it.
    """

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        added: Mapping[int, Any],
        *,
        normalize: Callable[[str], str] | None = None,
    ) -> None:
        self._encode = encode
        self._normalize = normalize
        acting = {
            number: token.content
            for number, token in added.items()
            if token.content and (token.special or not _PLAIN_WORD.fullmatch(token.content))
        }
        self._ids = frozenset(acting)
        unknown = self._ids.intersection(encode(_NEVER_KNOWN))
        unknown |= {number for number, content in acting.items() if _BYTE.fullmatch(content)}
        self._unknown = {number: _folded(acting[number]) for number in unknown}
        self._spelled = _any_of(acting.values())
        known = {normalize(content).strip() for content in acting.values()} if normalize else set()
        self._known = _any_of({*known, *acting.values()} - {""})

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialTokens:
        """Those of a tokenizer, of transformers or of the package tokenizers; a copy of the latter is kept."""
        if hasattr(tokenizer, "get_added_tokens_decoder"):
            return cls._of_backend(tokenizer)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            return cls._of_backend(backend)

        def encode(text: str) -> Sequence[int]:
            ids: Sequence[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids

        return cls(encode, tokenizer.added_tokens_decoder)

    @classmethod
    def _of_backend(cls, backend: Any) -> SpecialTokens:
        copy = type(backend).from_str(backend.to_str())
        copy.encode_special_tokens = False
        copy.no_padding()
        copy.no_truncation()

        def encode(text: str) -> Sequence[int]:
            ids: Sequence[int] = copy.encode(text, add_special_tokens=False).ids
            return ids

        normalizer = copy.normalizer
        return cls(
            encode,
            copy.get_added_tokens_decoder(),
            normalize=normalizer.normalize_str if normalizer is not None else str,
        )

    def inert(self, text: str) -> str:
        """The text with a `BREAK` wherever it must be cut, so that no part, encoded alone, has a token that acts."""
        text = text.replace(BREAK, "")
        return BREAK.join(self._parts(text)) if self._may_hold(text) else text

    def _parts(self, text: str) -> list[str]:
        """The text cut until no part holds a token; a single character that is one becomes U+FFFD, or is left out."""
        clean: list[str] = []
        todo = [text]
        while todo:
            part = todo.pop()
            if not self._holds(part):
                clean.append(part)
            elif len(part) == 1:
                clean += [instead for instead in ("\ufffd",) if not self._holds(instead)]
            else:
                at = self._cut(part)
                todo += [part[at:], part[:at]]
        return [part for part in clean if part]

    def _cut(self, part: str) -> int:
        """Where to cut: within a token that is spelled out, or in the middle if it is spelled in another way."""
        found = self._spelled.search(part) if self._spelled else None
        at = found.start() + 1 if found else len(part) // 2
        return at if at < len(part) else found.start() if found and found.start() else len(part) // 2

    def _may_hold(self, text: str) -> bool:
        if self._known is None:
            return False
        if self._normalize is None:
            return True
        if self._known.search(text):
            return True
        normalized = self._normalize(text)
        return normalized != text and self._known.search(normalized) is not None

    def _holds(self, text: str) -> bool:
        found = self._ids.intersection(self._encode(text))
        # The tokens for what is unknown, and for its bytes, stand for many texts: only spelled out they are meant.
        return any(number not in self._unknown or self._unknown[number] in _folded(text) for number in found)


class InertEncoder:
    """Encodes texts in which only a chat template's own special tokens act, as token ids of a transformers tokenizer.

    A tokenizer that puts a space before every text that it is given (Llama 2's) does so at the beginning alone, as it
    would with the whole.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.special = SpecialTokens.of(tokenizer)
        first = tokenizer.convert_ids_to_tokens(self._plain("a")[:1])
        self.adds_space = bool(first) and first[0].startswith(("\u2581", "\u0120"))

    def encode(self, text: str) -> list[int]:
        """The ids of a text that begins, cut at each `BREAK`; other special tokens act, and none is added."""
        first, *others = text.split(BREAK)
        ids = self._plain(first)
        for part in others:
            ids += self._continued(part) if ids else self._plain(part)
        return ids

    def encode_inert(self, text: str) -> list[int]:
        """The ids of a text that goes on after other text, in which no special token acts."""
        return [token for part in self.special.inert(text).split(BREAK) for token in self._continued(part)]

    def _continued(self, text: str) -> list[int]:
        """The ids of text that other text goes before: encoded after a sign that merges with nothing, then cut."""
        if not self.adds_space:
            return self._plain(text)
        for sign in _SIGNS:
            before, ids = self._plain(sign), self._plain(sign + text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._plain(text)

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _any_of(contents: Collection[str]) -> re.Pattern[str] | None:
    longest_first = sorted(set(contents), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
