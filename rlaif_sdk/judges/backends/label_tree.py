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
        variants_K: For each label the token sequences that spell it; more than one where a tokenizer may put a space
            before it.

    Raises:
        ConfigError: A label has no tokens, or two have the same.
    """

    def __init__(self, labels_K: Sequence[str], variants_K: Sequence[Sequence[Sequence[int]]]) -> None:
        self._variants_K = [[tuple(tokens) for tokens in variants] for variants in variants_K]
        seen: dict[Tokens, str] = {}
        for label, variants in zip(labels_K, self._variants_K, strict=True):
            if not all(variants):
                raise ConfigError(f"the judge's tokenizer has no tokens for the label {label!r}")
            if same := seen.keys() & variants:
                raise ConfigError(
                    f"the judge's tokenizer does not tell the labels {seen[min(same)]!r} and {label!r} apart",
                    hint="choose other labels",
                )
            seen |= dict.fromkeys(variants, label)
        self._all = list(seen)
        self.steps: dict[Tokens, list[int]] = {}
        for tokens in self._all:
            for length in range(len(tokens)):
                following = self.steps.setdefault(tokens[:length], [])
                if tokens[length] not in following:
                    following.append(tokens[length])

    @property
    def depth(self) -> int:
        """The number of tokens of the longest label."""
        return max(map(len, self._all))

    def label_logprobs(self, step_logprobs: Mapping[Tokens, Mapping[int, float]]) -> tuple[float, ...]:
        """Disjoint log-probabilities of the K labels.

        A label that others extend ("1" beside "10") keeps what is left when their probability is taken away.

        Args:
            step_logprobs: For each prefix in `steps`, the log-probability of each token that may follow.
        """
        whole = {
            tokens: math.fsum(step_logprobs[tokens[:i]][tokens[i]] for i in range(len(tokens))) for tokens in self._all
        }
        disjoint: dict[Tokens, float] = {}
        for tokens in sorted(whole, key=len, reverse=True):
            longer = math.fsum(math.exp(disjoint[t]) for t in disjoint if t[: len(tokens)] == tokens)
            left = math.exp(whole[tokens]) - longer
            disjoint[tokens] = whole[tokens] if not longer else (math.log(left) if left > 0 else -math.inf)
        return tuple(_log_sum([disjoint[tokens] for tokens in variants]) for variants in self._variants_K)


def _log_sum(logprobs: Sequence[float]) -> float:
    greatest = max(logprobs)
    if greatest == -math.inf:
        return greatest
    return min(greatest + math.log(math.fsum(math.exp(value - greatest) for value in logprobs)), 0.0)
