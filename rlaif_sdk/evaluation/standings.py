"""Several policies compared pair by pair, and what comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.evaluation.label_table import LabelTable, read_labels
from rlaif_sdk.exceptions import DataError
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import Estimate, wilson
from rlaif_sdk.statistics.ranking import ELO_PER_NAT, PRIOR, bradley_terry_intervals, mean_elo

POLICY_COLUMNS = ("policy_1", "policy_2")
"""The columns that say whose the responses are."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One policy in a ranking.

    Attributes:
        policy: Its name.
        games: Pairs that it was in.
        win_rate: Over all its pairs, ties half; Wilson's interval.
        strength: Bradley and Terry's log-strength in nats, the mean of all policies 0; bootstrap over prompts.
        elo: Its mean Elo rating over random orders of the games.
        elo_spread: The standard deviation of that rating between orders.
    """

    policy: str
    games: int
    win_rate: Estimate
    strength: Estimate
    elo: float
    elo_spread: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Policies from the strongest to the weakest.

    Attributes:
        standings: One a policy.
        wins_PP: How often the policy of the row beat that of the column, ties half, in the same order.
        prompts: How many prompts the pairs were about.
    """

    standings: tuple[Standing, ...]
    wins_PP: Array
    prompts: int

    def record(self) -> dict[str, Any]:
        """The ranking as a JSON-ready mapping."""
        return {
            "prompts": self.prompts,
            "standings": [
                {
                    "policy": each.policy,
                    "games": each.games,
                    "win_rate": each.win_rate.record(),
                    "strength": each.strength.record(),
                    "strength_in_elo_points": each.strength.value * ELO_PER_NAT,
                    "elo": each.elo,
                    "elo_spread_between_orders": each.elo_spread,
                }
                for each in self.standings
            ],
            "wins": self.wins_PP.tolist(),
        }

    def win_rates(self) -> list[list[float]]:
        """The share of games between two that the row's policy won; NaN where they never met."""
        games_PP = self.wins_PP + self.wins_PP.T
        return [
            [won / games if games else math.nan for won, games in zip(own, all_own, strict=True)]
            for own, all_own in zip(self.wins_PP.tolist(), games_PP.tolist(), strict=True)
        ]


def rank_policies(
    labels: str | Path,
    *,
    columns: tuple[str, str] = POLICY_COLUMNS,
    prior: float = PRIOR,
    confidence: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """Rank policies by the labels of pairs of their responses.

    Args:
        labels: What `rlaif label` wrote for pairs whose table says whose the responses are, or `rlaif review` exported
            of it; people's decisions then count before the judge's.
        columns: The columns with the policies' names, of response 1 and of response 2.
        prior: See `rlaif_sdk.statistics.ranking.bradley_terry`.
        confidence: Of the intervals.
        seed: Of the bootstrap, and of the orders of Elo's games.

    Raises:
        DataError: A row is no label, a policy has no name or plays against itself, or there is one policy alone.
    """
    table = read_labels(labels, columns=columns)
    players_N2, names = _players(table, columns, labels)
    outcomes_N = table.outcomes_N
    prompts, policies = int(table.prompts_N.max()) + 1, len(names)
    wins_GPP = np.zeros((prompts, policies, policies))
    first_N, second_N = players_N2.T
    np.add.at(wins_GPP, (table.prompts_N, first_N, second_N), outcomes_N)
    np.add.at(wins_GPP, (table.prompts_N, second_N, first_N), 1 - outcomes_N)
    strengths = bradley_terry_intervals(wins_GPP, prior=prior, confidence=confidence, seed=seed)
    elo_P, spread_P = mean_elo(players_N2, outcomes_N, policies, seed=seed)
    wins_PP = wins_GPP.sum(axis=0)
    standings = [
        Standing(
            name,
            strength.n,
            wilson(float(wins_PP[player].sum()), strength.n, confidence),
            strength,
            float(elo_P[player]),
            float(spread_P[player]),
        )
        for player, (name, strength) in enumerate(zip(names, strengths, strict=True))
    ]
    order = sorted(range(policies), key=lambda player: -standings[player].strength.value)
    return Ranking(tuple(standings[player] for player in order), wins_PP[np.ix_(order, order)], prompts)


def _players(table: LabelTable, columns: tuple[str, str], path: str | Path) -> tuple[Any, list[str]]:
    numbers: dict[str, int] = {}
    players = []
    for row, *pair in zip(table.rows_N.tolist(), *(table.columns[name] for name in columns), strict=True):
        if not all(isinstance(name, str) and name for name in pair):
            raise DataError(f"a policy's name is text, not {tuple(pair)}", file=str(path), row=row)
        if pair[0] == pair[1]:
            raise DataError(f"{pair[0]!r} plays against itself", file=str(path), row=row)
        players.append([numbers.setdefault(name, len(numbers)) for name in pair])
    return np.array(players, dtype=np.int64), list(numbers)
