"""A reward for configs of these tests."""

from rlaif_sdk.conversations import shown


def length(completions):
    return [float(len(shown(completion))) for completion in completions]
