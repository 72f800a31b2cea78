"""Credit: where in a completion its total comes from, by token, by turn and in its text.

K turns of the policy and T tokens of a row. The parts of a reward's credit are multiplied by what a unit of its score adds to
the total, and so never shifted; a part falls where it ends. What the parts leave over of a row's total falls on its end:
scores without credit, the shifts of normalizers, constraints, what a gate adds. Where a gate is closed all of it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from rlaif_sdk.conversations import Thinking, Turn, policy_turns, read
from rlaif_sdk.conversations.offsets import Decodes, Piece, TurnTokens, view_pieces
from rlaif_sdk.exceptions import BatchError
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.types import Credit, CreditSpan, RewardBatch


class PlacedRow:
    """A row of a batch, and where in it credit falls.

    Args:
        batch: The batch.
        row: The row.
        tokenizer: What the row's tokens are decoded with, to find spans of text in them; None if there are none.
    """

    def __init__(self, batch: RewardBatch, row: int, tokenizer: Decodes | None = None) -> None:
        self.batch = batch
        self.row = row
        self.tokenizer = tokenizer
        self._tokens: dict[int, TurnTokens] = {}

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The completion's messages."""
        return read(self.batch.completions[self.row])

    @cached_property
    def policy_turns(self) -> list[tuple[int, int]]:
        """Where among them each turn of the policy begins and ends."""
        return policy_turns(self.turns)

    @cached_property
    def ids(self) -> Sequence[int]:
        """The completion's tokens."""
        if self.batch.completion_ids is None:
            raise BatchError("credit falls on tokens, and the batch has no completion_ids")
        return self.batch.completion_ids[self.row]

    @cached_property
    def token_spans(self) -> Sequence[tuple[int, int]]:
        """Where in the tokens each turn of the policy stands.

        Raises:
            BatchError: That is not known.
        """
        size, turns = len(self.ids), len(self.policy_turns)
        if self.batch.turn_spans is None:
            if turns <= 1:
                return [(0, size)] * turns
            raise BatchError(
                f"the completion of row {self.row} has {turns} turns of the policy, and the batch does not say which "
                "tokens are whose",
                hint="give the batch turn_spans; rlaif_sdk.conversations.offsets.mask_spans makes a row's from a mask",
            )
        spans = self.batch.turn_spans[self.row]
        if len(spans) != turns:
            raise BatchError(f"row {self.row} has {turns} turns of the policy, and turn_spans has {len(spans)} for it")
        if any(not 0 <= start <= end <= size for start, end in spans):
            raise BatchError(f"turn_spans of row {self.row} goes beyond its {size} tokens: {[*spans]}")
        return spans

    @property
    def last_token(self) -> int:
        """The token that the end of the completion falls on: the policy's last one."""
        if self.batch.turn_spans is None or not self.policy_turns:
            return len(self.ids) - 1
        return max(self.token_spans[-1][1] - 1, 0)

    def token_rewards(self, parts: Sequence[Credit], total: float) -> Array | None:
        """(T,) what falls on each token, which sums to the total; None without tokens.

        Raises:
            BatchError: Where the tokens of turns or spans are is not known.
        """
        size = len(self.ids)
        if not size:
            return None
        values_T = np.zeros(size)
        for credit in parts:
            if credit.tokens is not None:
                values_T += credit.tokens
            if credit.turns is not None:
                for (_, end), value in zip(self.token_spans, credit.turns, strict=True):
                    values_T[max(end - 1, 0)] += value
            for span, token in zip(credit.spans, map(self._token_of, credit.spans, self._views(credit)), strict=True):
                values_T[token] += span.value
        values_T[self.last_token] += total - values_T.sum()
        return values_T

    def turn_rewards(self, parts: Sequence[Credit], total: float) -> Array | None:
        """(K,) what falls on each turn of the policy, which sums to the total; None where it has no turn.

        Raises:
            BatchError: There is credit by token, and which tokens are whose is not known.
        """
        turns = len(self.policy_turns)
        if not turns:
            return None
        values_K = np.zeros(turns)
        for credit in parts:
            if credit.tokens is not None:
                ends = np.array([end for _, end in self.token_spans])
                turn_of_T = np.minimum(np.searchsorted(ends, np.arange(len(credit.tokens)), side="right"), turns - 1)
                np.add.at(values_K, turn_of_T, credit.tokens)
            if credit.turns is not None:
                values_K += credit.turns
            for span, pieces in zip(credit.spans, self._views(credit), strict=True):
                values_K[self._turn_of(pieces[-1][0].turn)] += span.value
        values_K[-1] += total - values_K.sum()
        return values_K

    def in_text(self, parts: Sequence[Credit]) -> list[tuple[str, float]]:
        """The completion's transcript, stretch by stretch, each with the credit of the turns and spans that it is in."""
        intervals: list[tuple[int, float, float, float]] = []
        for credit in parts:
            for (first, after), value in zip(self.policy_turns, credit.turns or (), strict=False):
                intervals += [(turn, -math.inf, math.inf, value) for turn in range(first, after)]
            for span, pieces in zip(credit.spans, self._views(credit), strict=True):
                intervals += [
                    (piece.turn, piece.offset + begin, piece.offset + end, span.value)
                    for piece, begin, end in pieces
                    if piece.offset is not None
                ]
        thinking: Thinking = "keep" if any(credit.thinking == "keep" for credit in parts) else "drop"
        found: list[tuple[str, float]] = []
        for piece in view_pieces(self.batch.completions[self.row], "transcript", thinking):
            found += _cut(piece, [each[1:] for each in intervals if each[0] == piece.turn and each[3]])
        return found

    def _views(self, credit: Credit) -> list[list[tuple[Piece, int, int]]]:
        """For each span the pieces of its view that it is in, each with where in the piece it begins and ends."""
        if not credit.spans:
            return []
        pieces = view_pieces(self.batch.completions[self.row], credit.view, credit.thinking)
        return [_within(pieces, span) for span in credit.spans]

    def _turn_of(self, index: int) -> int:
        """Which turn of the policy a message is in, or follows."""
        return max(sum(start <= index for start, _ in self.policy_turns) - 1, 0)

    def _token_of(self, span: CreditSpan, pieces: list[tuple[Piece, int, int]]) -> int:
        """The token that a span ends on; the last of its turn where its last words are nothing that the policy wrote."""
        if not self.policy_turns:
            return self.last_token
        piece, _, end = pieces[-1]
        turn = self._turn_of(piece.turn)
        first, after = self.policy_turns[turn]
        begin, past = self.token_spans[turn]
        if piece.offset is not None and first <= piece.turn < after and begin < past:
            if self.tokenizer is None:
                raise BatchError(
                    f"credit falls on the characters {span.start} to {span.end} of row {self.row}, and there is no "
                    "tokenizer to find them in its tokens",
                    hint="give token_rewards the tokenizer",
                )
            if turn not in self._tokens:
                self._tokens[turn] = TurnTokens(self.turns[first:after], self.ids[begin:past], self.tokenizer)
            found = self._tokens[turn].token_at(piece.turn - first, piece.offset + end)
            if found is not None:
                return begin + found
        return max(past - 1, 0)


def _cut(piece: Piece, intervals: Sequence[tuple[float, float, float]]) -> Iterator[tuple[str, float]]:
    """A piece, cut where intervals of its turn's content begin and end, each part with the sum of those that it is in."""
    if piece.offset is None:
        of_turn = math.fsum(value for begin, _, value in intervals if begin == -math.inf)
        yield piece.text, of_turn if piece.is_said else 0.0
        return
    first, after = piece.offset, piece.offset + len(piece.text)
    inner = {int(edge) for begin, end, _ in intervals for edge in (begin, end) if first < edge < after}
    edges = [first, *sorted(inner), after]
    for begin, end in pairwise(edges):
        value = math.fsum(value for low, high, value in intervals if low <= begin and end <= high)
        yield piece.text[begin - first : end - first], value


def _within(pieces: Sequence[Piece], span: CreditSpan) -> list[tuple[Piece, int, int]]:
    """The pieces that a span is in, each with where in it the span begins and ends."""
    found = []
    start = 0
    for piece in pieces:
        size = len(piece.text)
        begin, end = max(span.start - start, 0), min(span.end - start, size)
        if begin < end:
            found.append((piece, begin, end))
        start += size
    return found
