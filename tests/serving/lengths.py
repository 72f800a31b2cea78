"""A reward for configs of these tests."""


def length(completions):
    return [float(len(text)) for text in completions]
