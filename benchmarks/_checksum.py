"""Rewards that tell a text from every other of a run, alone or in its group; and one that takes as long as a small model."""

import hashlib
import zlib


def checksum(completions):
    return [zlib.crc32(text.encode()) / 2**32 for text in completions]


def toil(completions):
    """About 0.2 ms of a core a row, outside of Python's lock, as a linear model in ONNX takes."""
    return [hashlib.pbkdf2_hmac("sha256", text.encode(), b"", 500)[0] / 256 for text in completions]


def of_group(text, texts):
    """A number that only a text among exactly these has."""
    return zlib.crc32("\0".join([text, *sorted(texts)]).encode()) / 2**32


class ChecksumOfGroups:
    """Each text's number among those of its group."""

    scope = "group"

    def score(self, batch):
        texts = {}
        for label, text in zip(batch.group, batch.completion_texts, strict=True):
            texts.setdefault(label, []).append(text)
        return [of_group(text, texts[label]) for label, text in zip(batch.group, batch.completion_texts, strict=True)]
