"""Compose reward plugins for reinforcement learning from AI feedback, and train language models on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_sdk.composer import Composer, Composition, Gate
    from rlaif_sdk.composer.aggregators import Aggregator
    from rlaif_sdk.composer.normalizers import Normalizer, Standardizer
    from rlaif_sdk.config.documents import load_document
    from rlaif_sdk.conversations import ToolCall, Turn, read, split_thinking, view
    from rlaif_sdk.exceptions import (
        BatchError,
        ConfigError,
        ConversationError,
        DataError,
        JudgeConnectionError,
        JudgeError,
        JudgeResponseError,
        MissingExtraError,
        PluginError,
        RewardError,
        RlaifError,
        StateError,
    )
    from rlaif_sdk.io.processors import processor_count
    from rlaif_sdk.judges import (
        Criterion,
        CriterionVerdict,
        JudgePrompt,
        ListwiseJudge,
        Pair,
        PairLabel,
        PairwiseLabeler,
        PairwisePrompt,
        PointwiseJudge,
        ResponseList,
        ResponseRanking,
        RubricJudge,
        RubricVerdicts,
        Usage,
        load_judge,
        load_labeler,
        load_listwise_judge,
        load_rubric_judge,
    )
    from rlaif_sdk.judges.backends import GeneratedText, JudgeBackend, LabelLogprobs
    from rlaif_sdk.judges.params import JudgeModelParams
    from rlaif_sdk.models.classifier import Classifier, label_index, label_log_odds, label_probabilities
    from rlaif_sdk.models.export import export_classifier
    from rlaif_sdk.models.loader import load_classifier
    from rlaif_sdk.models.scorer import OnnxScorer
    from rlaif_sdk.plugins import AggregatorSpec, JudgeBackendSpec, NormalizerSpec, Registry, RewardSpec, hookimpl
    from rlaif_sdk.rewards import Params, Reward, ViewParams, reward
    from rlaif_sdk.statistics.ranking import bradley_terry, compared_sets, informative_games
    from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer
    from rlaif_sdk.types import Conversation, Credit, CreditSpan, Message, Progress, RewardBatch, Score, SubScore

__version__ = "0.1.0"
__all__ = [
    "Aggregator",
    "AggregatorSpec",
    "BatchError",
    "Classifier",
    "Composer",
    "Composition",
    "ConfigError",
    "Conversation",
    "ConversationError",
    "Credit",
    "CreditSpan",
    "Criterion",
    "CriterionVerdict",
    "DataError",
    "Gate",
    "GeneratedText",
    "JudgeBackend",
    "JudgeBackendSpec",
    "JudgeConnectionError",
    "JudgeError",
    "JudgeModelParams",
    "JudgePrompt",
    "JudgeResponseError",
    "LabelLogprobs",
    "ListwiseJudge",
    "Message",
    "MissingExtraError",
    "Normalizer",
    "NormalizerSpec",
    "OnnxScorer",
    "PPOConfig",
    "PPOTrainer",
    "Pair",
    "PairLabel",
    "PairwiseLabeler",
    "PairwisePrompt",
    "Params",
    "PluginError",
    "PointwiseJudge",
    "Progress",
    "Registry",
    "ResponseList",
    "ResponseRanking",
    "Reward",
    "RewardBatch",
    "RewardError",
    "RewardSpec",
    "RlaifError",
    "RubricJudge",
    "RubricVerdicts",
    "Score",
    "Standardizer",
    "StateError",
    "SubScore",
    "ToolCall",
    "Turn",
    "Usage",
    "ViewParams",
    "bradley_terry",
    "compared_sets",
    "export_classifier",
    "hookimpl",
    "informative_games",
    "label_index",
    "label_log_odds",
    "label_probabilities",
    "load_classifier",
    "load_document",
    "load_judge",
    "load_labeler",
    "load_listwise_judge",
    "load_rubric_judge",
    "processor_count",
    "read",
    "reward",
    "split_thinking",
    "view",
]

if not TYPE_CHECKING:  # or a type checker would believe any name to be here
    _HOMES = {
        "rlaif_sdk.composer": ("Composer", "Composition", "Gate"),
        "rlaif_sdk.composer.aggregators": ("Aggregator",),
        "rlaif_sdk.composer.normalizers": ("Normalizer", "Standardizer"),
        "rlaif_sdk.config.documents": ("load_document",),
        "rlaif_sdk.conversations": ("ToolCall", "Turn", "read", "split_thinking", "view"),
        "rlaif_sdk.exceptions": (
            "BatchError",
            "ConfigError",
            "ConversationError",
            "DataError",
            "JudgeConnectionError",
            "JudgeError",
            "JudgeResponseError",
            "MissingExtraError",
            "PluginError",
            "RewardError",
            "RlaifError",
            "StateError",
        ),
        "rlaif_sdk.io.processors": ("processor_count",),
        "rlaif_sdk.judges": (
            "Criterion",
            "CriterionVerdict",
            "JudgePrompt",
            "ListwiseJudge",
            "Pair",
            "PairLabel",
            "PairwiseLabeler",
            "PairwisePrompt",
            "PointwiseJudge",
            "ResponseRanking",
            "ResponseList",
            "RubricJudge",
            "RubricVerdicts",
            "Usage",
            "load_judge",
            "load_labeler",
            "load_listwise_judge",
            "load_rubric_judge",
        ),
        "rlaif_sdk.judges.backends": ("GeneratedText", "JudgeBackend", "LabelLogprobs"),
        "rlaif_sdk.judges.params": ("JudgeModelParams",),
        "rlaif_sdk.models.classifier": ("Classifier", "label_index", "label_log_odds", "label_probabilities"),
        "rlaif_sdk.models.export": ("export_classifier",),
        "rlaif_sdk.models.loader": ("load_classifier",),
        "rlaif_sdk.models.scorer": ("OnnxScorer",),
        "rlaif_sdk.plugins": (
            "AggregatorSpec",
            "JudgeBackendSpec",
            "NormalizerSpec",
            "Registry",
            "RewardSpec",
            "hookimpl",
        ),
        "rlaif_sdk.rewards": ("Params", "Reward", "ViewParams", "reward"),
        "rlaif_sdk.statistics.ranking": ("bradley_terry", "compared_sets", "informative_games"),
        "rlaif_sdk.training.ppo": ("PPOConfig", "PPOTrainer"),
        "rlaif_sdk.types": (
            "Conversation",
            "Credit",
            "CreditSpan",
            "Message",
            "Progress",
            "RewardBatch",
            "Score",
            "SubScore",
        ),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _HOME_OF:
            value = getattr(import_module(_HOME_OF[name]), name)
            globals()[name] = value
            return value
        if home := _defined_in(name):
            raise ImportError(f"{name} is not a name of {__name__}: import it from {home}", name=__name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]

    def _defined_in(name: str) -> str | None:
        """Where the package offers a class or function that is not public here, so that a wrong import says it."""
        import re
        from pathlib import Path

        root = Path(__file__).parent
        if name.startswith("_") or (root / name).exists() or (root / f"{name}.py").exists():
            return None
        defines = re.compile(rf"^(?:class|def) {re.escape(name)}\b", re.MULTILINE)
        for path in sorted(root.rglob("*.py")):
            if defines.search(path.read_text(encoding="utf-8")):
                offers = [parent for parent in path.parents if root in parent.parents]
                rooms = [room for room in offers if f'"{name}"' in (room / "__init__.py").read_text(encoding="utf-8")]
                home = rooms[-1] if rooms else path.with_suffix("")
                return ".".join(home.relative_to(root.parent).parts)
        return None
