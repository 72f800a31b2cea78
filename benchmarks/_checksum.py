"""A reward that tells a text from every other of a run."""

import zlib


def checksum(completions):
    return [zlib.crc32(text.encode()) / 2**32 for text in completions]
