"""``rlaif report``: one HTML file about the rewards of a run."""

from rlaif_sdk.reporting.run_report.replay import recorded_compositions
from rlaif_sdk.reporting.run_report.report import write_log_report, write_report

__all__ = ["recorded_compositions", "write_log_report", "write_report"]
