"""Policies compared pair by pair: a judge's labels of their responses, win rates, and a ranking."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_sdk.config.documents import validate
from rlaif_sdk.config.overrides import overridden
from rlaif_sdk.evaluation.labels import LabelTable, read_labels
from rlaif_sdk.evaluation.length_control import MIN_OVERLAP, length_controlled, length_overlap
from rlaif_sdk.exceptions import ConfigError, DataError
from rlaif_sdk.io.jsonl import Row
from rlaif_sdk.io.tables import TableName, TableSource, read_rows, write_rows
from rlaif_sdk.preferences import LabelConfig, LabelJob, LabelResult, run_labeling
from rlaif_sdk.preferences.resumable_job import JobProgress
from rlaif_sdk.preferences.tables import check_text
from rlaif_sdk.statistics.arrays import Array
from rlaif_sdk.statistics.estimates import Estimate, bootstrap_mean, share_over_groups, wilson
from rlaif_sdk.statistics.ranking import ELO_PER_NAT, PRIOR, bradley_terry_intervals, compared_sets, mean_elo
from rlaif_sdk.types import TextOrConversation

PAIRS_FILE = "pairs.jsonl"

POLICY_COLUMNS = ("policy_1", "policy_2")
"""The columns that say whose the responses are."""


def policy_names(files: Sequence[TableName], names: Sequence[str] = ()) -> list[str]:
    """What the policies are called: as told, or like their files; with the folder where file names are equal.

    Raises:
        ConfigError: There are not as many names as files, or two are equal.
    """
    tables = [TableSource.of(file) for file in files]
    found = list(names) or [table.name for table in tables]
    if len(set(found)) < len(found) and not names:
        found = [f"{table.path.resolve().parent.name}/{table.name}" for table in tables]
    if len(found) != len(files) or len(set(found)) < len(found):
        raise ConfigError(
            f"{len(files)} policies need as many different names, not {', '.join(found)}",
            hint="give --name once for each file, in their order",
        )
    return found


def judge_policies(
    files: Sequence[TableName],
    judge: Path | Mapping[str, Any],
    output: Path,
    *,
    names: Sequence[str] = (),
    prompt_column: str = "prompt",
    completion_column: str = "completion",
    overrides: Sequence[str] = (),
    progress: JobProgress = lambda *_: None,
) -> LabelResult:
    """Let a judge compare every two policies on every prompt.

    The pairs and the labels are kept in a folder: a job that was stopped resumes when it is started again.

    Args:
        files: A table of prompts and completions for each policy; all of the same prompts.
        judge: The config of a labelling job; its ``pairs`` and ``output`` are not used and may be omitted.
        output: The folder.
        names: What the policies are called; by default like their files.
        prompt_column: The tables' column of prompts.
        completion_column: Their column of completions.
        overrides: ``key=value`` each, for the judge's config.
        progress: Called with the pairs labelled so far and all pairs.

    Raises:
        ConfigError: The config is refused.
        DataError: The tables have different prompts, or lack a column.
        JudgeError: As `rlaif_sdk.preferences.run_labeling`.
    """
    named = policy_names(files, names)
    completions = [_by_prompt(path, prompt_column, completion_column) for path in files]
    pairs = output.resolve() / PAIRS_FILE
    _check_same_prompts(files, completions)
    job = _label_job(judge, pairs, output.resolve() / "labels", overrides)
    with write_rows(pairs) as writer:
        for pair in _policy_pairs(named, completions):
            writer.write(pair)
    return run_labeling(job, progress=progress)


def _label_job(judge: Path | Mapping[str, Any], pairs: Path, output: Path, overrides: Sequence[str]) -> LabelJob:
    document = overridden(judge, overrides)
    if not isinstance(document.data, dict):
        raise document.error("is no mapping with a judge")
    data = {**document.data, "pairs": {"file": str(pairs)}, "output": str(output), "ties": "keep"}
    document = replace(document, data={**data, "format": "jsonl"})
    return LabelJob(validate(LabelConfig, document), document)


def _by_prompt(path: TableName, prompt: str, completion: str) -> dict[tuple[str, int], Row]:
    """The rows by prompt, and by how often it came before."""
    found: dict[tuple[str, int], Row] = {}
    seen: dict[str, int] = {}
    for row, record in enumerate(read_rows(path), start=1):
        for column in (prompt, completion):
            check_text(record, column, path, row, named="with --prompt-column and --completion-column")
        key = json.dumps(record[prompt], sort_keys=True)
        seen[key] = seen.get(key, -1) + 1
        found[key, seen[key]] = {"prompt": record[prompt], "completion": record[completion]}
    if not found:
        raise DataError("has no rows", file=str(path))
    return found


def _check_same_prompts(files: Sequence[TableName], completions: Sequence[Mapping[tuple[str, int], Row]]) -> None:
    first = completions[0]
    for path, own in zip(files, completions, strict=True):
        if odd := first.keys() ^ own.keys():
            prompt, times = min(odd)
            where = files[0] if (prompt, times) in first else path
            stands = f"is only in {where}" if times == 0 else f"is more often in {where}"
            problem = f"the prompt {prompt[:80]} {stands}"
            raise DataError(
                f"{files[0]} and {path} have different prompts: {problem}", hint="let both answer the same ones"
            )


def _policy_pairs(
    names: Sequence[str], completions: Sequence[Mapping[tuple[str, int], Row]]
) -> Iterator[dict[str, TextOrConversation]]:
    first = completions[0]
    for key in first:
        for one, other in itertools.combinations(range(len(names)), 2):
            yield {
                "prompt": first[key]["prompt"],
                "response_1": completions[one][key]["completion"],
                "response_2": completions[other][key]["completion"],
                POLICY_COLUMNS[0]: names[one],
                POLICY_COLUMNS[1]: names[other],
            }


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often the responses of one policy are preferred to those of another.

    Attributes:
        policies: The two, the one first whose wins are counted.
        wins: Pairs that it won.
        losses: Pairs that it lost.
        ties: Pairs with no winner; each counts half.
        rate: The win rate with Wilson's interval.
        rate_over_prompts: The same with a bootstrap over prompts, no narrower than Wilson's interval over them: for
            several pairs a prompt.
        probability: The mean probability that its response is the better one; bootstrap over prompts.
        length_controlled: The win rate at equal length, by AlpacaEval 2's regression on the difference of lengths; NaN
            where they overlap too little.
        length_controlled_by_ratio: The same by the regression on their ratio.
        length_overlap: The smaller of the shares of pairs in which either response is at least as long as the other.
        mean_lengths: The mean length of both policies' responses in characters.
        flip_rate: The share of pairs whose winner changes with the order, by the judge; None where one was asked.
    """

    policies: tuple[str, str]
    wins: int
    losses: int
    ties: int
    rate: Estimate
    rate_over_prompts: Estimate
    probability: Estimate
    length_controlled: Estimate
    length_controlled_by_ratio: Estimate
    length_overlap: float
    mean_lengths: tuple[float, float]
    flip_rate: Estimate | None

    @property
    def lengths_overlap(self) -> bool:
        """Whether there is a win rate at equal length: both policies have responses that are the longer ones."""
        return self.length_overlap >= MIN_OVERLAP

    def record(self) -> dict[str, Any]:
        """The estimates as a JSON-ready mapping."""
        estimates = ("rate", "rate_over_prompts", "probability", "length_controlled", "length_controlled_by_ratio")
        return {
            "policies": list(self.policies),
            "wins": self.wins,
            "losses": self.losses,
            "ties": self.ties,
            **{name: getattr(self, name).record() for name in estimates},
            "length_overlap": self.length_overlap,
            "mean_lengths": list(self.mean_lengths),
            "flip_rate": self.flip_rate.record() if self.flip_rate else None,
        }


def win_rate(labels: TableName | LabelTable, policies: Sequence[str] = ("policy 1", "policy 2")) -> WinRate:
    """The win rate of the policy that wrote every response 1 over the one that wrote every response 2.

    Args:
        labels: What `rlaif label` wrote, what `rlaif review` exported (people's decisions then count before the
            judge's), or a table already read.
        policies: Their names.

    Raises:
        DataError: A row is no label; names the row.
    """
    table = labels if isinstance(labels, LabelTable) else read_labels(labels)
    outcomes_N, prompts_N, lengths_N2 = table.outcomes_N, table.prompts_N, table.lengths_N2
    asked_N = ~np.isnan(table.when_first_N) & ~np.isnan(table.when_second_N)
    flipped_N = (table.when_first_N[asked_N] - 0.5) * (table.when_second_N[asked_N] - 0.5) < 0
    one, other = policies
    first_length, second_length = lengths_N2.mean(axis=0).tolist()
    return WinRate(
        policies=(one, other),
        wins=int((outcomes_N == 1).sum()),
        losses=int((outcomes_N == 0).sum()),
        ties=int((outcomes_N == 0.5).sum()),
        rate=wilson(float(outcomes_N.sum()), len(table)),
        rate_over_prompts=share_over_groups(outcomes_N, prompts_N),
        probability=bootstrap_mean(table.decided_prob_1_N, prompts_N),
        length_controlled=length_controlled(
            table.decided_prob_1_N, lengths_N2, prompts_N, difficulty_N=table.difficulty_N
        ),
        length_controlled_by_ratio=length_controlled(table.decided_prob_1_N, lengths_N2, prompts_N, feature="ratio"),
        length_overlap=length_overlap(lengths_N2),
        mean_lengths=(first_length, second_length),
        flip_rate=wilson(int(flipped_N.sum()), int(asked_N.sum())) if asked_N.any() else None,
    )


@dataclass(frozen=True, slots=True)
class RankedPolicy:
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
        policies: One entry each. An end of a strength's interval that the games leave open is infinite.
        wins_PP: How often the policy of the row beat that of the column, ties half, in the same order.
        prompts: How many prompts the pairs were about.
        compared_sets: The policies in sets between which there was no pair, so that strengths compare within a set
            only; one set where all can be compared.
    """

    policies: tuple[RankedPolicy, ...]
    wins_PP: Array
    prompts: int
    compared_sets: tuple[tuple[str, ...], ...]

    @property
    def undefeated(self) -> tuple[str, ...]:
        """The policies that never lost a pair: how much stronger than the others they are is unknown."""
        return tuple(each.policy for each in self.policies if each.win_rate.value == 1)

    @property
    def winless(self) -> tuple[str, ...]:
        """The policies that never won one."""
        return tuple(each.policy for each in self.policies if each.win_rate.value == 0)

    def record(self) -> dict[str, Any]:
        """The ranking as a JSON-ready mapping."""
        return {
            "prompts": self.prompts,
            "policies": [
                {
                    "policy": each.policy,
                    "games": each.games,
                    "win_rate": each.win_rate.record(),
                    "strength": each.strength.record(),
                    "strength_in_elo_points": each.strength.value * ELO_PER_NAT,
                    "elo": each.elo,
                    "elo_spread_between_orders": each.elo_spread,
                }
                for each in self.policies
            ],
            "wins": self.wins_PP.tolist(),
            "compared_sets": [list(names) for names in self.compared_sets],
            "undefeated": list(self.undefeated),
            "winless": list(self.winless),
        }

    def win_rates(self) -> list[list[float]]:
        """The share of games between two that the row's policy won; NaN where they never met."""
        games_PP = self.wins_PP + self.wins_PP.T
        return [
            [won / games if games else math.nan for won, games in zip(own, all_own, strict=True)]
            for own, all_own in zip(self.wins_PP.tolist(), games_PP.tolist(), strict=True)
        ]


def rank_policies(
    labels: TableName,
    *,
    columns: tuple[str, str] = POLICY_COLUMNS,
    prior: float = PRIOR,
    seed: int = 0,
) -> Ranking:
    """Rank policies by the labels of pairs of their responses.

    Args:
        labels: What `rlaif label` wrote for pairs whose table says whose the responses are, or `rlaif review` exported
            of it; people's decisions then count before the judge's.
        columns: The columns with the policies' names, of response 1 and of response 2.
        prior: See `rlaif_sdk.statistics.ranking.bradley_terry`.
        seed: Of the bootstrap, and of the orders of Elo's games.

    Raises:
        DataError: A row is no label, a policy has no name or plays against itself, or there is only one policy.
    """
    table = read_labels(labels, columns=columns)
    players_N2, names = _players(table, columns, labels)
    outcomes_N = table.outcomes_N
    prompts, policies = int(table.prompts_N.max()) + 1, len(names)
    wins_GPP = np.zeros((prompts, policies, policies))
    first_N, second_N = players_N2.T
    np.add.at(wins_GPP, (table.prompts_N, first_N, second_N), outcomes_N)
    np.add.at(wins_GPP, (table.prompts_N, second_N, first_N), 1 - outcomes_N)
    strengths = bradley_terry_intervals(wins_GPP, prior=prior, seed=seed)
    elo_P, spread_P = mean_elo(players_N2, outcomes_N, policies, seed=seed)
    wins_PP = wins_GPP.sum(axis=0)
    ranked = [
        RankedPolicy(
            name,
            strength.n,
            wilson(float(wins_PP[player].sum()), strength.n),
            strength,
            float(elo_P[player]),
            float(spread_P[player]),
        )
        for player, (name, strength) in enumerate(zip(names, strengths, strict=True))
    ]
    order = sorted(range(policies), key=lambda player: -ranked[player].strength.value)
    sets = tuple(tuple(names[player] for player in players) for players in compared_sets(wins_PP))
    return Ranking(tuple(ranked[player] for player in order), wins_PP[np.ix_(order, order)], prompts, sets)


def _players(table: LabelTable, columns: tuple[str, str], path: TableName) -> tuple[Any, list[str]]:
    numbers: dict[str, int] = {}
    players = []
    for row, *pair in zip(table.rows_N.tolist(), *(table.columns[name] for name in columns), strict=True):
        if not all(isinstance(name, str) and name for name in pair):
            raise DataError(f"a policy's name is text, not {tuple(pair)}", file=str(path), row=row)
        if pair[0] == pair[1]:
            raise DataError(f"{pair[0]!r} plays against itself", file=str(path), row=row)
        players.append([numbers.setdefault(name, len(numbers)) for name in pair])
    return np.array(players, dtype=np.int64), list(numbers)
