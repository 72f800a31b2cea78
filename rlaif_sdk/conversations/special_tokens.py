"""Special tokens: what ends a text that a model wrote, and texts encoded so that none of theirs acts."""

from __future__ import annotations

import itertools
import json
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
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_FOLDING = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer", "StripAccents", "Strip"})
_SPACES = " \t\n\u2581"
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


def without_any(text: str) -> str:
    """A text without special tokens, of whatever family, wherever they stand; see `without_end` for how they are known."""
    return _SPECIAL.sub("", text)


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
        only_folds: Whether all that it makes of printable ASCII is small letters and other white space.
    """

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        added: Mapping[int, Any],
        *,
        normalize: Callable[[str], str] | None = None,
        only_folds: bool = False,
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
        self._only_folds = only_folds
        self._spelled = re.compile(f"(?={_any_of(acting.values()).pattern})")  # those within others too
        self._folded = _any_of({content.lower() for content in acting.values()})
        known = {normalize(content).strip(_SPACES) for content in acting.values()} if normalize else set()
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
            only_folds=normalizer is None or _only_folds(json.loads(normalizer.__getstate__())),
        )

    def inert(self, text: str) -> str:
        """The text with a `BREAK` wherever it must be cut, so that no part, encoded alone, has a token that acts."""
        text = text.replace(BREAK, "")
        return BREAK.join(self._parts(text)) if self._may_hold(text) else text

    def _parts(self, text: str) -> list[str]:
        """The text cut until no part holds a token; a single character that is one becomes U+FFFD, or is left out."""
        cuts = [0, *(found.start() + 1 for found in self._spelled.finditer(text)), len(text)]
        todo = [text[start:end] for start, end in itertools.pairwise(cuts)][::-1]
        clean: list[str] = []
        while todo:
            part = todo.pop()
            if not part or not self._holds(part):
                clean.append(part)
            elif len(part) == 1:
                clean.append("" if self._holds("\ufffd") else "\ufffd")
            else:  # spelled in another way, such as in full width: the halves are looked at
                middle = len(part) // 2
                todo += [part[middle:], part[:middle]]
        return list(filter(None, clean))

    def _may_hold(self, text: str) -> bool:
        if not self._ids:
            return False
        if self._normalize is None:
            return True
        if self._only_folds and text.isascii() and not _CONTROLS.search(text):
            return self._folded.search(text.lower()) is not None
        return self._known.search(text) is not None or self._known.search(self._normalize(text)) is not None

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


def _any_of(contents: Collection[str]) -> re.Pattern[str]:
    """Any of the texts; nothing if there are none."""
    longest_first = sorted(set(contents), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _only_folds(normalizer: Any) -> bool:
    """Whether a normaliser, as it is saved, changes nothing of printable ASCII but capitals and white space."""
    if normalizer is None:
        return True
    if normalizer["type"] == "Sequence":
        return all(map(_only_folds, normalizer["normalizers"]))
    if normalizer["type"] == "Prepend":
        return bool(normalizer["prepend"] == "\u2581")
    if normalizer["type"] == "Replace":
        return bool({*normalizer["pattern"].values(), normalizer["content"]} <= {" ", "\u2581"})
    return normalizer["type"] in _FOLDING


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
