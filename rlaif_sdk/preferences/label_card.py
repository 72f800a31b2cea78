"""The card of a labelling job."""

from __future__ import annotations

from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.judges.pairwise import PairwiseLabeler
from rlaif_sdk.preferences.card import Card, model_facts
from rlaif_sdk.preferences.label_config import LabelJob
from rlaif_sdk.preferences.label_summary import LabelSummary
from rlaif_sdk.preferences.label_table import PairTable

_TOLD = ("mode", "chain_of_thought", "samples", "temperature", "orders", "tie_margin", "ties", "max_chars", "overlong")


def label_card(job: LabelJob, labeler: PairwiseLabeler, table: PairTable, summary: LabelSummary) -> Card:
    """Who labelled what, how it was asked, and how far to trust it."""
    config = job.config
    prompt = {name: value for name, value in config.prompt.model_dump().items() if value is not None}
    usage = {name: value for name, value in summary.usage.record().items() if value}
    figures = {name: value for name, value in summary.record().items() if name != "usage" and value is not None}
    return Card(
        title="Preferences labelled by a language model",
        method="A judge says which of two responses is better (Lee et al. 2023, arXiv 2309.00267). The flip rate is the "
        "share of pairs whose winner changes with the order in which the responses are shown.",
        files={f"labels.{config.format}": "prompt, chosen, rejected, chosen_prob, and how each label came about"},
        counts={**figures, **usage},
        models={"judge": model_facts(labeler.backend, config.judge.options())},
        inputs={config.pairs.file: table.digest, "prompt of the judge": json_digest(labeler.settings["prompt"])},
        settings={
            **{f"prompt.{name}": value for name, value in prompt.items()},
            **{name: getattr(config, name) for name in _TOLD},
            "judge": labeler.fingerprint,
        },
        licence=config.licence,
    )
