"""Rewards that code can check: answers, forms, schemas, instructions, tool calls, languages, lengths.

Each abstains on a row that has nothing to check, and gives 0, never an abstention, to an answer that does not pass.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from rlaif_sdk import Reward, RewardSpec, hookimpl
from rlaif_verifiable.answers import ExactMatchParams, TokenF1Params
from rlaif_verifiable.choices import MultipleChoiceParams
from rlaif_verifiable.format import FormatParams
from rlaif_verifiable.instruction.params import InstructionParams
from rlaif_verifiable.json_schema import JsonSchemaParams
from rlaif_verifiable.language import LanguageParams
from rlaif_verifiable.length import LengthParams, OverlongParams
from rlaif_verifiable.mathematics import MathParams
from rlaif_verifiable.overlap import OverlapParams
from rlaif_verifiable.repetition import RepetitionParams
from rlaif_verifiable.tool_calls import ToolCallsParams

__all__ = [
    "ExactMatchParams",
    "FormatParams",
    "InstructionParams",
    "JsonSchemaParams",
    "LanguageParams",
    "LengthParams",
    "MathParams",
    "MultipleChoiceParams",
    "OverlapParams",
    "OverlongParams",
    "RepetitionParams",
    "TokenF1Params",
    "ToolCallsParams",
    "rlaif_rewards",
]

rlaif_api_version = 1


def _build(module: str, name: str) -> Callable[[Any], Reward]:
    def build(params: Any) -> Reward:
        reward: Reward = getattr(import_module(f"rlaif_verifiable.{module}"), name)(params)
        return reward

    return build


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Offer the rewards."""
    unit = (0.0, 1.0)
    return [
        RewardSpec(
            name="math",
            factory=_build("mathematics", "MathReward"),
            params=MathParams,
            description="Whether an answer is the right one, as mathematics: LaTeX, numbers, sets, matrices (math-verify).",
            range=unit,
            ends=("wrong", "right"),
            example={"weight": 1.0, "params": {"column": "answer"}},
        ),
        RewardSpec(
            name="exact_match",
            factory=_build("answers", "ExactMatchReward"),
            params=ExactMatchParams,
            description="Whether an answer is one of the right ones, up to case, punctuation and articles.",
            range=unit,
            ends=("another answer", "the answer"),
            example={"weight": 1.0, "params": {"column": "answer", "place": "tag"}},
        ),
        RewardSpec(
            name="token_f1",
            factory=_build("answers", "TokenF1Reward"),
            params=TokenF1Params,
            description="How many words an answer and the right one share, as SQuAD measures it.",
            range=unit,
            ends=("other words", "the same words"),
            example={"weight": 1.0, "params": {"column": "answer"}},
        ),
        RewardSpec(
            name="multiple_choice",
            factory=_build("choices", "MultipleChoiceReward"),
            params=MultipleChoiceParams,
            description="Whether an answer picks the right letter, and no other.",
            range=unit,
            ends=("another choice", "the right choice"),
            example={"weight": 1.0, "params": {"column": "answer"}},
        ),
        RewardSpec(
            name="format",
            factory=_build("format", "FormatReward"),
            params=FormatParams,
            description="Whether a completion has the form asked for: think and answer tags, or one's own pattern.",
            range=unit,
            ends=("another form", "the form"),
            example={"weight": 0.2, "params": {"form": "think_answer"}},
        ),
        RewardSpec(
            name="json_schema",
            factory=_build("json_schema", "JsonSchemaReward"),
            params=JsonSchemaParams,
            description="Whether an answer is JSON that fits a schema.",
            range=unit,
            ends=("does not fit", "fits"),
            example={
                "weight": 1.0,
                "params": {"json_schema": {"type": "object", "required": ["name"]}},
            },
        ),
        RewardSpec(
            name="instruction",
            factory=_build("instruction.reward", "InstructionReward"),
            params=InstructionParams,
            description="Whether an answer follows its row's instructions, as IFEval and IFBench check them.",
            range=unit,
            ends=("not followed", "followed"),
            example={"weight": 1.0, "params": {"mode": "loose"}},
        ),
        RewardSpec(
            name="tool_calls",
            factory=_build("tool_calls", "ToolCallsReward"),
            params=ToolCallsParams,
            description="Whether a completion calls the expected tools with the expected arguments, and no others.",
            range=unit,
            ends=("other calls", "the calls"),
            example={"weight": 1.0, "params": {"column": "tool_calls", "scoring": "f1"}},
        ),
        RewardSpec(
            name="overlap",
            factory=_build("overlap", "OverlapReward"),
            params=OverlapParams,
            description="How much an answer and its references share: ROUGE, BLEU or chrF.",
            range=unit,
            ends=("nothing shared", "the same"),
            example={"weight": 0.5, "params": {"column": "reference", "metric": "rougeL"}},
        ),
        RewardSpec(
            name="language",
            factory=_build("language", "LanguageReward"),
            params=LanguageParams,
            description="Whether an answer is written in the language asked for (py3langid).",
            range=unit,
            ends=("another language", "the language"),
            example={"weight": 0.5, "params": {"language": "de"}},
        ),
        RewardSpec(
            name="overlong",
            factory=_build("length", "OverlongReward"),
            params=OverlongParams,
            description="0 for a completion that fits, falling to -1 as its tokens near the greatest length (DAPO).",
            ends=("too long", "fits"),
            example={"weight": 1.0, "params": {"max_tokens": 1024, "buffer": 256}},
        ),
        RewardSpec(
            name="length",
            factory=_build("length", "LengthReward"),
            params=LengthParams,
            description="What the length of a completion is worth: along a cosine, by its distance from a target, or beside its group.",
            ends=("unwanted length", "wanted length"),
            example={"weight": 0.5, "params": {"shape": "cosine", "max_length": 1024}},
        ),
        RewardSpec(
            name="repetition",
            factory=_build("repetition", "RepetitionReward"),
            params=RepetitionParams,
            description="Minus the share of a completion's runs of words or tokens that it has had before.",
            range=(-1.0, 0.0),
            ends=("repetitive", "varied"),
            example={"weight": 0.5, "params": {"ngram": 3}},
        ),
    ]
