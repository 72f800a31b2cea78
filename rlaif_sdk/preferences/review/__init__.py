"""Review by people of pairs that a judge has labelled: a queue, a file of verdicts, a local page, figures, export."""

from rlaif_sdk.preferences.review.acts import Act
from rlaif_sdk.preferences.review.agreement import Agreement, agreement
from rlaif_sdk.preferences.review.export import ExportOptions, export_review
from rlaif_sdk.preferences.review.figures import ReviewFigures, review_figures
from rlaif_sdk.preferences.review.pairs import AILabel, ReviewPair, read_review_pairs
from rlaif_sdk.preferences.review.server import serve_review
from rlaif_sdk.preferences.review.store import Progress, ReviewStore

__all__ = [
    "AILabel",
    "Act",
    "Agreement",
    "ExportOptions",
    "Progress",
    "ReviewFigures",
    "ReviewPair",
    "ReviewStore",
    "agreement",
    "export_review",
    "read_review_pairs",
    "review_figures",
    "serve_review",
]
