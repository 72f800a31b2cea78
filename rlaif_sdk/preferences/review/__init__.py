"""Review by people of pairs that a judge has labelled: a queue, a file of verdicts, a local page, estimates of agreement, export."""

from rlaif_sdk.preferences.review.estimates import Agreement, ReviewEstimates, agreement, review_estimates
from rlaif_sdk.preferences.review.export import ExportOptions, export_review
from rlaif_sdk.preferences.review.pairs import AILabel, ReviewPair, read_review_pairs
from rlaif_sdk.preferences.review.server import serve_review
from rlaif_sdk.preferences.review.store import Annotation, ReviewProgress, ReviewStore

__all__ = [
    "AILabel",
    "Agreement",
    "Annotation",
    "ExportOptions",
    "ReviewEstimates",
    "ReviewPair",
    "ReviewProgress",
    "ReviewStore",
    "agreement",
    "export_review",
    "read_review_pairs",
    "review_estimates",
    "serve_review",
]
