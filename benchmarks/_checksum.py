"""A reward that tells a text from every other of a run."""

import zlib

from rlaif_sdk import reward


def checksum(completions):
    return [zlib.crc32(text.encode()) / 2**32 for text in completions]


def of_group(text, texts):
    """A number that only a text among exactly these has."""
    return zlib.crc32("\0".join([text, *sorted(texts)]).encode()) / 2**32


@reward(scope="group")
def checksum_of_groups(completions, group):
    texts = {}
    for label, text in zip(group, completions, strict=True):
        texts.setdefault(label, []).append(text)
    return [of_group(text, texts[label]) for label, text in zip(group, completions, strict=True)]
