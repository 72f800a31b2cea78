"""The reward ``tournament``: the completions to one prompt are compared with one another."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rlaif_judge.params import TournamentParams
from rlaif_sdk import (
    ListwiseJudge,
    Pair,
    PairLabel,
    PairwiseLabeler,
    PairwisePrompt,
    ResponseList,
    Reward,
    RewardBatch,
    Score,
    Usage,
    bradley_terry,
    compared_sets,
    informative_games,
    load_labeler,
    load_listwise_judge,
)

_Array: TypeAlias = npt.NDArray[np.float64]
_Game: TypeAlias = tuple[int, int]
"""Two players, the one whose text sorts first before the other."""


@dataclass(slots=True)
class _Group:
    """The completions to one prompt, and the games of their tournament.

    A player is a text: equal completions are one player, and a reference is one that is nobody's completion.

    Attributes:
        rows: The completions' rows in the batch.
        prompt: What they answer, and ``prompt_text`` that as text.
        players: The different texts, sorted.
        shown: Of each player a completion as its row has it.
        player_of: The player of each row.
        anchor_of: The player that each row is compared with, for those that have one.
        wins_PP: (P, P) how often the row's player beat the column's: each game adds 1 to both together.
        contentless: The players without content, who lose without the judge being asked.
        errors: Why a comparison of a player failed, the first that did.
        flags: What was found in the comparisons of each player.
        usage: What they took, all together.
    """

    rows: Sequence[int]
    prompt: Any
    prompt_text: str
    players: Sequence[str]
    shown: Sequence[Any]
    player_of: dict[int, int]
    anchor_of: dict[int, int]
    wins_PP: _Array = field(init=False)
    contentless: set[int] = field(default_factory=set)
    errors: dict[int, str] = field(default_factory=dict)
    flags: dict[int, set[str]] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        self.wins_PP = np.zeros((len(self.players), len(self.players)))

    def compared(self) -> set[int]:
        """The players whose places compare: the largest set that games tie together which the judge was asked about.

        There are none where two sets are as large, since neither is the group. Players without content stand below any.
        """
        judged = [player for player in range(len(self.players)) if player not in self.contentless]
        if len(judged) <= 1:
            return set(range(len(self.players)))
        sets = compared_sets(self.wins_PP[np.ix_(judged, judged)])
        sizes = sorted(map(len, sets), reverse=True)
        if sizes[0] == 1 or sizes[:1] == sizes[1:2]:
            return set()
        largest = next(places for places in sets if len(places) == sizes[0])
        return {judged[place] for place in largest} | self.contentless

    @property
    def games_PP(self) -> _Array:
        """(P, P) how often two players met."""
        games_PP: _Array = self.wins_PP + self.wins_PP.T
        return games_PP

    def key(self, players: Iterable[int]) -> list[str]:
        """What a comparison of players depends on, beside the judge."""
        return [self.prompt_text, *(self.players[player] for player in players)]

    def flag(self, players: Iterable[int], flags: Iterable[str]) -> None:
        """Note what was found in a comparison of players."""
        found = set(flags)
        for player in players:
            self.flags.setdefault(player, set()).update(found)


class Tournament(Reward):
    """See `TournamentParams`.

    Comparisons that fail are left out. A completion without any is unscored, and so are those that the failures cut off from
    the largest part of their group: places compare only where games tie them together.

    Raises:
        ConfigError: A setting is refused, or the backend does not know it.
    """

    name = "tournament"
    range = (-1.0, 1.0)
    ends = ("worse than the others", "better than the others")
    scope = "group"

    def __init__(self, params: TournamentParams) -> None:
        self.params = params
        self.inputs = self.columns = () if params.reference_column is None else (params.reference_column,)
        self._judge: ListwiseJudge | PairwiseLabeler
        backend = {"backend": params.backend} | params.backend_settings()
        if params.scheme == "listwise":
            judging = params.judge_settings() | {"orders": params.orders, "seed": params.seed}
            self._judge = load_listwise_judge(criteria=params.criteria, judging=judging, **backend)
        else:
            prompt = PairwisePrompt.of_criteria(params.criteria)
            self._judge = load_labeler(prompt=prompt, labeling=params.judge_settings(), **backend)
        how = (params.scheme, params.strength, params.rounds or params.comparisons, params.reference_column)
        self.version = f"1 {self._judge.fingerprint} {' '.join(map(str, how))}"

    def setup(self) -> None:
        self._judge.backend.setup()

    def close(self) -> None:
        self._judge.backend.close()

    def model_calls(self, rows: int) -> int:
        pairs = {
            "round_robin": rows * (rows - 1) // 2,
            "swiss": self._rounds(rows) * (rows // 2),
            "information": self._comparisons(rows),
            "anchor": rows - (self.params.reference_column is None),
        }
        return self.params.orders if self.params.scheme == "listwise" else 2 * pairs[self.params.scheme]

    def _rounds(self, players: int) -> int:
        return min(self.params.rounds or math.ceil(math.log2(max(2, players))), max(1, players - 1))

    def _comparisons(self, players: int) -> int:
        wanted = self.params.comparisons or self._rounds(players) * (players // 2)
        return min(max(wanted, players - 1), players * (players - 1) // 2)

    async def score(self, batch: RewardBatch) -> list[Score]:
        scores = [Score.no_words()] * len(batch)
        texts = batch.views(self.params.view, thinking=self.params.thinking)
        references = batch.references(self.params.reference_column)
        groups = []
        for rows in batch.groups():
            said = {row: text for row in rows if (text := texts[row]) is not None}
            for row in [*said]:
                if isinstance(unread := references[row], Score):
                    scores[row] = unread
                    del said[row]
            if len({batch.prompt_texts[row] for row in said}) > 1:
                scores_of = dict.fromkeys(said, Score.failed("the completions of its group answer different prompts"))
            elif len(said) == 1:
                scores_of = dict.fromkeys(said, Score(None, "no other completion of its group has words"))
            else:
                scores_of = {}
                groups += [self._group(batch, said, references)] if said else []
            for row, score in scores_of.items():
                scores[row] = score
        try:
            async with asyncio.TaskGroup() as playing:
                for some in self._together(groups):
                    playing.create_task(self._settle(some, scores))
                    await asyncio.sleep(0)  # so the first requests travel while the others are written
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return scores

    def _together(self, groups: Sequence[_Group]) -> Sequence[Sequence[_Group]]:
        """The groups that play at the same pace: all, where the judge is asked fastest in large batches.

        A server is asked about each prompt by itself, so that none waits for the slowest answer about another. Groups of one
        prompt stay together, since they may have pairs in common.
        """
        if getattr(self._judge.backend, "concurrency", None) is None:
            return [groups]
        by_prompt: dict[str, list[_Group]] = {}
        for group in groups:
            by_prompt.setdefault(group.prompt_text, []).append(group)
        return [*by_prompt.values()]

    async def _settle(self, groups: Sequence[_Group], scores: list[Score]) -> None:
        """Compare the completions of groups, and write down the scores of their rows."""
        if self.params.scheme == "listwise":
            await self._compare_lists(groups)
        else:
            await self._play(groups)
        for group in groups:
            for row, score in zip(group.rows, self._scores(group), strict=True):
                scores[row] = score

    def _group(self, batch: RewardBatch, said: dict[int, str], gold: Sequence[str | Score | None]) -> _Group:
        references = {row: text for row in said if isinstance(text := gold[row], str)}
        shown = {text: text for text in references.values()} | {
            text: batch.completions[row] for row, text in said.items()
        }
        players = sorted(shown)
        player_of = {row: players.index(text) for row, text in said.items()}
        anchor_of = {row: players.index(text) for row, text in references.items()}
        if self.params.scheme == "anchor" and self.params.reference_column is None:
            by_length = sorted(player_of.values(), key=lambda player: (len(players[player]), player))
            anchor_of = dict.fromkeys(said, by_length[(len(said) - 1) // 2])
        first = next(iter(said))
        asked = batch.prompts[first], batch.prompt_texts[first]
        return _Group(list(said), *asked, players, [shown[text] for text in players], player_of, anchor_of)

    async def _play(self, groups: Sequence[_Group]) -> None:
        """Have pairs compared, a round of all groups at a time."""
        rounds = [self._rounds_of(group) for group in groups]
        while games := [(group, game) for group, own in zip(groups, rounds, strict=True) for game in next(own, ())]:
            await self._compare_pairs(games)

    def _rounds_of(self, group: _Group) -> Iterator[list[_Game]]:
        """The games of each round of a group; only Swiss and the most informative ones come in several."""
        players = range(len(group.players))
        if self.params.scheme == "swiss":
            yield from _swiss(group, self._rounds(len(players)))
        elif self.params.scheme == "information":
            yield from _informative(group, self._comparisons(len(players)))
        elif self.params.scheme == "anchor":
            met = {(group.player_of[row], anchor) for row, anchor in group.anchor_of.items()}
            yield sorted({(min(game), max(game)) for game in met if game[0] != game[1]})
        else:
            yield [(one, other) for one in players for other in players if one < other]

    async def _compare_pairs(self, games: Sequence[tuple[_Group, _Game]]) -> None:
        """Play games: each pair is asked about once, in both orders, and not at all if it is remembered."""
        judge = self._judge
        assert isinstance(judge, PairwiseLabeler)
        keys = [group.key(game) for group, game in games]
        known = await self._remembered(keys)
        unknown: dict[tuple[str, ...], tuple[_Group, Pair]] = {}
        for key, (group, (one, other)), score in zip(keys, games, known, strict=True):
            if score is None:
                unknown.setdefault(tuple(key), (group, Pair(group.prompt, group.shown[one], group.shown[other])))
        labels = await judge.label([pair for _, pair in unknown.values()]) if unknown else []
        verdicts: dict[tuple[str, ...], Score] = {}
        for (key_, (group, _)), label in zip(unknown.items(), labels, strict=True):
            group.usage += label.usage
            verdicts[key_] = _verdict(label)
        await self._remember(verdicts.items())
        for key, (group, game), score in zip(keys, games, known, strict=True):
            _play(group, game, score or verdicts[tuple(key)])

    async def _compare_lists(self, groups: Sequence[_Group]) -> None:
        """Have the players of each group compared all at once, unless the ranking is remembered."""
        judge = self._judge
        assert isinstance(judge, ListwiseJudge)
        keys = [group.key(range(len(group.players))) for group in groups]
        known = await self._remembered(keys)
        unknown = [place for place, score in enumerate(known) if score is None]
        lists = [ResponseList(groups[place].prompt, groups[place].shown) for place in unknown]
        found = dict(zip(unknown, await judge.rank(lists) if lists else (), strict=True))
        complete = []
        for place, (group, remembered) in enumerate(zip(groups, known, strict=True)):
            score = remembered
            if score is None:
                ranking = found[place]
                group.usage += ranking.usage
                group.errors.update(ranking.errors)
                details = {
                    "wins": ranking.wins_AA.tolist(),
                    "contentless": sorted(ranking.contentless),
                    "flags": list(ranking.flags),
                }
                score = Score(0.0, details=details)
                if not ranking.errors:
                    complete.append((keys[place], score))
            wins_PP = np.array(score.details["wins"], dtype=np.float64)
            group.wins_PP = np.where(np.isnan(wins_PP) | np.eye(len(wins_PP), dtype=bool), 0.0, wins_PP)
            group.contentless.update(score.details.get("contentless", ()))
            group.flag(range(len(group.players)), score.details.get("flags", ()))
        await self._remember(complete)

    async def _remembered(self, keys: Sequence[Any]) -> list[Score | None]:
        if self.memory is Reward.memory:  # which knows nothing: no thread is needed to say so
            return [None] * len(keys)
        return await asyncio.to_thread(self.memory.get, keys)

    async def _remember(self, findings: Collection[tuple[Any, Score]]) -> None:
        if findings and self.memory is not Reward.memory:
            await asyncio.to_thread(self.memory.put, findings)

    def _scores(self, group: _Group) -> list[Score]:
        """The scores of a group's rows; what all its games took is in the details of the first."""
        with_reference = self.params.reference_column is not None
        by_share = with_reference or self.params.strength == "win_share"
        strengths_P = None if by_share else bradley_terry(group.wins_PP)
        compared = set() if with_reference else group.compared()
        games_P, won_P = group.games_PP.sum(axis=1), group.wins_PP.sum(axis=1)
        scores = []
        for row in group.rows:
            player = group.player_of[row]
            details: dict[str, Any] = {"flags": sorted(group.flags.get(player, ()))}
            if row == group.rows[0]:
                details["usage"] = group.usage.record()
            games, won = float(games_P[player]), float(won_P[player])
            if with_reference:
                scores.append(self._against_reference(group, row, details))
            elif len(group.players) == 1:
                scores.append(Score(0.0, "equal to all others of its group", details))
            elif player not in compared:
                cut_off = "its comparisons tie it to too few of its group: others failed, or there were too few rounds"
                scores.append(Score.failed(group.errors.get(player, cut_off), **details))
            else:
                details |= {"won": won, "games": games}
                share = 2 * won / games - 1
                value = share if strengths_P is None else math.tanh(strengths_P[player] / 2)
                scores.append(Score(value, f"won {won:.3g} of {games:g} comparisons", details))
        return scores

    def _against_reference(self, group: _Group, row: int, details: dict[str, Any]) -> Score:
        player, anchor = group.player_of[row], group.anchor_of.get(row)
        if anchor is None:
            return Score(None, f"its {self.params.reference_column!r} holds no text to compare it with", details)
        if player == anchor:
            return Score(0.0, "equal to its reference", details)
        if not group.games_PP[player, anchor]:
            return Score.failed(group.errors.get(player, "its comparison failed"), **details)
        chance = float(group.wins_PP[player, anchor])
        return Score(2 * chance - 1, f"better than its reference with a probability of {chance:.3g}", details)


def _swiss(group: _Group, rounds: int) -> Iterator[list[_Game]]:
    """Games of players who have won alike, between sets that no game ties together yet as long as there are such.

    So about log2 of the players are enough rounds to compare all. The first is drawn, of the texts. One who is left over sits
    the round out and is first to be paired in the next.
    """
    players = range(len(group.players))
    drawn = random.Random("\0".join(group.players)).sample(players, len(players))  # noqa: S311 - a reproducible draw
    met: set[_Game] = set()
    for _ in range(rounds):
        games_P, won_P = group.games_PP.sum(axis=1), group.wins_PP.sum(axis=1)
        waiting = sorted(drawn, key=lambda player: (games_P[player] > 0, -won_P[player] / max(games_P[player], 1)))
        set_of = {player: number for number, own in enumerate(compared_sets(group.wins_PP)) for player in own}
        games = []
        while waiting:
            one = waiting.pop(0)
            new = [other for other in waiting if (min(one, other), max(one, other)) not in met]
            untied = [other for other in new if set_of[other] != set_of[one]]
            if new:
                other = (untied or new)[0]
                waiting.remove(other)
                games.append((min(one, other), max(one, other)))
        met.update(games)
        yield games


def _informative(group: _Group, comparisons: int) -> Iterator[list[_Game]]:
    """The games that teach most of the strengths, as many a round as `_swiss` has, each given the verdicts of the rounds before."""
    size = len(group.players)
    open_PP = np.ones((size, size), dtype=bool)
    while comparisons > 0 and (
        games := informative_games(group.wins_PP, min(size // 2, comparisons), allowed_PP=open_PP)
    ):
        for one, other in games:
            open_PP[one, other] = False
        comparisons -= len(games)
        yield games


def _verdict(label: PairLabel) -> Score:
    """A label as a score: the probability that the first is better."""
    flags = [*label.flags, *(["flipped"] if label.flipped else [])]
    return Score(label.prob_1, details={"flags": flags}, error=label.error)


def _play(group: _Group, game: _Game, verdict: Score) -> None:
    """Take in what a game ended with."""
    one, other = game
    flags = verdict.details.get("flags", ())
    group.flag(game, flags)
    for name, player in zip(("response_1", "response_2"), game, strict=True):
        if f"{name}_contentless" in flags:
            group.contentless.add(player)
    if verdict.value is None:
        for player in game:
            group.errors.setdefault(player, str(verdict.error))
    else:
        group.wins_PP[one, other] += verdict.value
        group.wins_PP[other, one] += 1 - verdict.value
