"""Rewards of other libraries, offered by name through the hook that any plugin uses; imports nothing heavy."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rlaif_sdk.hookspecs import hookimpl
from rlaif_sdk.rewards import Params, Reward, RewardSpec, ViewParams

rlaif_api_version = 1


class TextClassificationParams(ViewParams):
    """A text classifier, as a Hugging Face pipeline would run it."""

    model: str
    """Hub name or local folder of a sequence classifier; a folder with an ONNX file takes onnxruntime."""
    label: str | None = None
    """The label whose score counts; not needed where there is one."""
    output: Literal["probability", "log_odds", "logit"] = "probability"
    """The label's probability, its log-odds, or its raw logit. A reward model's number is its logit."""
    pair: bool = False
    """Give the prompt and the completion as a pair, as cross-encoders want it; otherwise the completion alone."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:1``; null takes a CUDA device when one works."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens; longer ones are cut. By default what the model takes."""
    higher_is_better: bool = True
    """False where the label is something to avoid."""


class RewardModelParams(Params):
    """A reward model, such as ``rlaif train reward-model`` and ``rlaif distill`` leave."""

    model: str
    """Local folder or hub name of a sequence classifier with one label."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:1``; null takes a CUDA device when one works."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest input in tokens; longer ones are cut. By default what the model takes."""


class VerifiersParams(Params):
    """A reward function of the verifiers library."""

    function: str
    """``package.module:function`` or ``path/to/file.py:function``, which takes any of prompt, completion, answer, state,
    info and the columns."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments, such as a parser's settings."""


class RemoteParams(Params):
    """A reward server: one of ``rlaif serve``, or one that speaks OpenRLHF's protocol."""

    url: str
    """``http://host:port`` of ``rlaif serve``; with ``openrlhf`` the whole address, as ``--reward.remote_url`` has it."""
    protocol: Literal["native", "openrlhf"] = "native"
    """``native`` sends prompts, completions and columns; ``openrlhf`` sends them as one text, with a label."""
    api_key_env: str | None = None
    """The environment variable with the server's key; null for a server without one."""
    columns: tuple[str, ...] | None = None
    """The columns to send; null sends all."""
    label_column: str | None = None
    """With ``openrlhf``: the column that is sent as the labels; null sends none."""
    batch_size: int = Field(default=64, ge=1)
    """Rows in a request at most; the completions of one group stay together and may be more."""
    concurrency: int = Field(default=8, ge=1)
    """Requests in flight at most."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds for one attempt, from connecting to the last byte."""
    attempts: int = Field(default=4, ge=1)
    """Attempts for one request at most: a full queue, a broken connection or an unreadable answer is tried again."""
    max_retry_after: float = Field(default=60.0, ge=0)
    """The most seconds to wait where the server says how long."""
    higher_is_better: bool = True
    """False where the server's number is a cost."""
    revision: str | None = None
    """What the server serves now. A ledger keeps its scores only where this is said: it cannot see them change."""


def _text_classification(params: TextClassificationParams) -> Reward:
    from rlaif_sdk.integrations.classification import TextClassification

    return TextClassification(params)


def _reward_model(params: RewardModelParams) -> Reward:
    from rlaif_sdk.integrations.reward_model import RewardModel

    return RewardModel(params)


def _verifiers(params: VerifiersParams) -> Reward:
    from rlaif_sdk.integrations.verifiers_function import VerifiersFunction

    return VerifiersFunction(params)


def _remote(params: RemoteParams) -> Reward:
    from rlaif_sdk.integrations.remote import Remote

    return Remote(params)


@hookimpl
def rlaif_rewards() -> list[RewardSpec]:
    """Classifiers, functions in verifiers' convention, and reward servers. TRL's need no name: ``reward: trl.rewards:NAME``."""
    return [
        RewardSpec(
            name="text_classification",
            factory=_text_classification,
            params=TextClassificationParams,
            description="A label's score by any text classifier, as a Hugging Face pipeline gives it.",
            example={"params": {"model": "lvwerra/distilbert-imdb", "label": "POSITIVE"}},
        ),
        RewardSpec(
            name="reward_model",
            factory=_reward_model,
            params=RewardModelParams,
            description="A reward model's score of prompt and completion, read as the model was trained to.",
            example={"normalize": "zscore", "params": {"model": "reward/model"}},
        ),
        RewardSpec(
            name="verifiers",
            factory=_verifiers,
            params=VerifiersParams,
            description="A reward function written for the verifiers library.",
            example={"params": {"function": "my_environment:correct_answer"}},
        ),
        RewardSpec(
            name="remote",
            factory=_remote,
            params=RemoteParams,
            description="What a reward server says: one of `rlaif serve`, or one for OpenRLHF.",
            example={"params": {"url": "http://127.0.0.1:8000"}},
        ),
    ]
