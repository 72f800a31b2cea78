"""A composition behind a server is the composition in-process: every number, place and word that an adapter can ask for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlaif_sdk import Composer, Composition, Credit, CreditSpan, Score, SubScore, reward
from rlaif_sdk.composer.explain import Explanation
from rlaif_sdk.integrations import Host, RewardServer, Sample, Scored
from rlaif_sdk.integrations.samples import batch_of
from tests.serving.loopback import serving


def steps(completions):
    """Credit by turn, and what the score is made of."""
    return [
        Score(
            0.75,
            "two turns",
            credit=Credit(turns=[0.25, 0.5]),
            subscores={"plan": SubScore(0.25, weight=1.0, reason="short", evidence=("Let",)), "end": SubScore(None)},
        )
        if len(said) > 2
        else Score(None, "one turn")
        for said in completions
    ]


def loud(completion_texts):
    """A cost with credit by span."""
    return [
        Score(
            float(text.count("!")),
            credit=Credit(
                spans=tuple(CreditSpan(at, at + 1, 1.0, "shouts") for at, sign in enumerate(text) if sign == "!")
            ),
        )
        for text in completion_texts
    ]


loud.higher_is_better = False


def tokens(completion_ids):
    """Credit by token."""
    return [Score.of_tokens([0.1 * (token % 3) for token in ids]) for ids in completion_ids]


def frail(completion_texts):
    return [Score.failed("too loud") if "!!" in text else 1.0 for text in completion_texts]


def rare(completion_texts):
    return [float(len(text)) for text in completion_texts]


def spare(completion_texts):
    return [0.5 if "!!!" not in text else None for text in completion_texts]


def right(completion_texts):
    return [float("42" in text) for text in completion_texts]


@reward(range=(0, 1))
def brief(completion_texts):
    return [1 / (1 + len(text) / 40) for text in completion_texts]


def use(name: str, **settings: Any) -> dict[str, Any]:
    return {"use": f"{__name__}:{name}", **settings}


EVERYTHING = {
    "rewards": {
        "steps": use("steps", weight=2.0),
        "loud": use("loud", weight=0.3),
        "tokens": use("tokens", weight=0.5),
        "ranked": use("loud", weight=0.1, normalize="rank"),
        "spared": use("frail", fallback="spare", weight=0.2),
        "stated": use("frail", on_failure={"policy": "default", "value": 0.25, "mask_group": "never"}, weight=0.2),
        "frail": use("frail", weight=0.2),
        "rare": use("rare", weight=0.01, when={"reward": "loud", "max": 0.5}, otherwise="abstain"),
    },
    "fallbacks": {"spare": use("spare")},
    "groups": {"style": {"members": ["tokens", "rare"], "weight": 0.7}},
    "gates": [
        {"reward": "rare", "max": 60, "floor": -1.0, "on_missing": "pass"},
        {"reward": "loud", "max": 2.5, "floor": 0.1},
    ],
    "constraints": [{"reward": "loud", "max": 0.2, "initial": 0.5}],
}
DROPPED = {"rewards": {"frail": use("frail", on_failure="drop"), "rare": use("rare")}}
NO_SUM = {"rewards": {"loud": use("loud"), "rare": use("rare")}, "aggregate": "minimum"}
LEXICOGRAPHIC = {
    **DROPPED,
    "gate_order": "lexicographic",
    "gates": [
        {"reward": "rare", "max": 20, "floor": -2},
        {"reward": "rare", "max": 8, "floor": 1, "on_missing": "floor"},
    ],
}


def said(*words: str) -> list[dict[str, str]]:
    """The policy's turns, each answered by a tool but the last."""
    turns = [{"role": "assistant", "content": words[0]}]
    for each in words[1:]:
        turns += [{"role": "tool", "content": "10:02"}, {"role": "assistant", "content": each}]
    return turns


TALKS = [
    said("Let me look.", "It is ten!"),
    said("Look!! There", "Ten."),
    said("Ten, I should think, if the clock on the wall there is right at all."),
    said("Ten! Ten!! Ten!!!", "So."),
    said("Wait", "Well"),
    said("Ten."),
]


def samples(group: Sequence[Any]) -> list[Sample]:
    return [
        Sample(
            "How late is it?",
            talk,
            {"label": f"row {row}"},
            group[row],
            completion_ids=list(range(3, 15)),
            turn_spans=[(0, 5), (8, 12)] if len(talk) > 2 else [(0, 12)],
        )
        for row, talk in enumerate(TALKS)
    ]


class Words:
    """A tokenizer of which each token is two characters."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "ab" * len(ids)


def without_working(explanation: Explanation) -> str:
    """An explanation without how normalizers came by their numbers, which stays at the server."""
    return str(replace(explanation, steps=tuple(replace(step, normalizer="") for step in explanation.steps)))


def exposed(composition: Composition, scored: Sequence[Scored]) -> dict[str, Any]:
    """All that a composition says, but how its normalizers work and how long its rewards took."""
    rows = range(len(composition))

    def metrics() -> dict[str, float]:
        return {name: value for name, value in composition.metrics().items() if not name.endswith("/seconds")}

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        placed = [None if turn_K is None else turn_K.tolist() for turn_K in composition.turn_rewards()]
        on_tokens = [None if one is None else one.tolist() for one in composition.token_rewards(Words())]
    return {
        "records": composition.to_records(),
        "list": composition.to_list(),
        "credits": [composition.credits(row) for row in rows],
        "turns": placed,
        "tokens": on_tokens,
        "warned": sorted({str(one.message) for one in told}),
        "explained": [without_working(composition.explain(row)) for row in rows],
        "metrics": {name: None if np.isnan(value) else value for name, value in metrics().items()},
        "spreads": {name: [*map(str, values)] for name, values in composition.spreads().items()},
        "frame": composition.to_pandas().astype(str).to_dict(),
        "no_variance": {
            name: composition.no_variance(name).tolist()
            for name in (None, *composition.rewards)
            if composition.batch.group
        },
        "of rows": [
            {
                "total": one.total,
                "rewards": one.rewards,
                "reason": one.reason,
                "parts": one.parts(),
                "logged": one.logged_scores(),
                "known": one.known_scores(),
                "no variance": one.no_variance(),
                "means": [one.group_mean(name) for name in (None, *composition.rewards)],
                "tokens": one.token_rewards(Words()),
            }
            for one in scored
        ],
    }


@pytest.fixture(params=["by itself", "in groups"])
def rows(request) -> list[Sample]:
    return samples([0, 0, 0, 1, 1, 1] if request.param == "in groups" else [None] * 6)


@pytest.mark.filterwarnings("ignore:the credit of:UserWarning")
@pytest.mark.parametrize(
    "config", [EVERYTHING, DROPPED, NO_SUM, LEXICOGRAPHIC], ids=["all", "drop", "minimum", "order"]
)
def test_a_server_tells_of_a_composition_whatever_an_adapter_may_ask(config, rows):
    """Totals, parts, gates, penalties, credit by token and turn, sub-scores, metrics, explanations: as in-process."""
    if config is EVERYTHING and rows[0].group is None:
        config = {**config, "rewards": {name: part for name, part in config["rewards"].items() if name != "ranked"}}
    with Composer.from_config(config) as composer:
        composition = composer.compose(batch_of(rows))
    expected = exposed(composition, [Scored(composition, row) for row in range(len(rows))])
    with serving(config, cohort=True) as server:
        scored = Host(RewardServer(server.url, training=False), "a test", grouped=True).score(rows)
    found = exposed(scored[0].composition, scored)
    for what, value in expected.items():
        assert found[what] == value, what


def test_a_server_tells_what_is_imputed():
    """With how far off that may be, and why the costly reward was not asked."""
    config = {"rewards": {"right": use("right"), "brief": use("brief", weight=0.2, ask="advantage")}}

    def groups(first: int, count: int) -> list[Sample]:
        texts = [f"{'It is' if n % 3 else 'After some thought I say'} {43 - n % 2}, {'so' * n}" for n in range(8)]
        return [Sample(f"Question {first + group}?", text, {}, group) for group in range(count) for text in texts]

    with serving(config, cohort=True) as server:
        host = Host(RewardServer(server.url), "a test", grouped=True)
        host.score(groups(0, 64))
        composition = host.score(groups(64, 8))[0].composition
    column = composition.rewards["brief"]
    assert column.imputed
    row, imputed = next(iter(column.imputed.items()))
    assert column.status(row) == "imputed"
    assert 0 < imputed.half_width < 1
    assert imputed.reason.startswith(f"{imputed.value:.4g} ± {imputed.half_width:.2g}, not asked: cannot change")
    assert imputed.reason in str(composition.explain(row))
    assert composition.metrics()["reward/brief/imputed_share"] == len(column.imputed) / len(composition)
    assert composition.metrics()["reward/brief/flipped_share"] >= 0
