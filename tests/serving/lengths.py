"""Rewards for configs of these tests."""

from rlaif_sdk import reward
from rlaif_sdk.conversations import shown


def length(completions):
    return [float(len(shown(completion))) for completion in completions]


@reward(scope="group")
def share_of_the_longest(completions):
    lengths = length(completions)
    return [each / max(lengths) for each in lengths]
