"""What a run has to show: its figures, read back from its log, and a page and plots of them."""

from modernbert.report.baseline import Baseline, count_tokens, unigram_baseline
from modernbert.report.history import Curve, RunHistory
from modernbert.report.run_report import ReportWriter, write_report

__all__ = [
    "Baseline",
    "Curve",
    "ReportWriter",
    "RunHistory",
    "count_tokens",
    "unigram_baseline",
    "write_report",
]
