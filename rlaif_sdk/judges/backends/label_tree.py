"""Labels as token sequences: which next-token distributions give their probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rlaif_sdk.exceptions import ConfigError

Tokens = tuple[int, ...]


class LabelTree:
    """The tree of K labels' tokens.

    The probability of a label is the product of its tokens' along the tree. One distribution is needed for each
    distinct proper prefix of a label: one in all when every label is a single token, two for the numbers 1 to 10
    where "10" is the tokens of "1" and "0".

    Args:
        labels_K: The labels, for messages.
        tokens_K: The tokens of each label.

    Raises:
        ConfigError: A label has no tokens, or two have the same.
    """

    def __init__(self, labels_K: Sequence[str], tokens_K: Sequence[Sequence[int]]) -> None:
        self.tokens_K: list[Tokens] = [tuple(tokens) for tokens in tokens_K]
        seen: dict[Tokens, str] = {}
        for label, tokens in zip(labels_K, self.tokens_K, strict=True):
            if not tokens:
                raise ConfigError(f"the judge's tokenizer has no tokens for the label {label!r}")
            if tokens in seen:
                raise ConfigError(
                    f"the judge's tokenizer does not tell the labels {seen[tokens]!r} and {label!r} apart",
                    hint="choose other labels",
                )
            seen[tokens] = label
        self.steps: dict[Tokens, list[int]] = {}
        for tokens in self.tokens_K:
            for length in range(len(tokens)):
                following = self.steps.setdefault(tokens[:length], [])
                if tokens[length] not in following:
                    following.append(tokens[length])

    @property
    def depth(self) -> int:
        """The number of tokens of the longest label."""
        return max(len(tokens) for tokens in self.tokens_K)

    def label_logprobs(self, step_logprobs: Mapping[Tokens, Mapping[int, float]]) -> tuple[float, ...]:
        """Disjoint log-probabilities of the K labels.

        A label that others extend ("1" beside "10") keeps what is left when their probability is taken away.

        Args:
            step_logprobs: For each prefix in `steps`, the log-probability of each token that may follow.
        """
        whole = {
            tokens: math.fsum(step_logprobs[tokens[:i]][tokens[i]] for i in range(len(tokens)))
            for tokens in self.tokens_K
        }
        disjoint: dict[Tokens, float] = {}
        for tokens in sorted(whole, key=len, reverse=True):
            longer = math.fsum(math.exp(disjoint[t]) for t in disjoint if t[: len(tokens)] == tokens)
            left = math.exp(whole[tokens]) - longer
            disjoint[tokens] = whole[tokens] if not longer else (math.log(left) if left > 0 else -math.inf)
        return tuple(disjoint[tokens] for tokens in self.tokens_K)
