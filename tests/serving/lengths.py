"""A reward for configs of these tests."""

from rlaif_sdk.types import as_text


def length(completions):
    return [float(len(as_text(completion))) for completion in completions]
