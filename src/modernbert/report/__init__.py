"""Reports: the page and the plots of a run, made from its log."""

from modernbert.report.history import Baseline, Curve, RunHistory, count_tokens, unigram_baseline
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
