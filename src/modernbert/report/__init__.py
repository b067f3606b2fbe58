"""What a run has to show: its figures, read back from its log, and plots of them."""

from modernbert.report.baseline import Baseline, count_tokens, unigram_baseline
from modernbert.report.metrics import Curve, read_curve, read_rows
from modernbert.report.plots import plot_losses

__all__ = [
    "Baseline",
    "Curve",
    "count_tokens",
    "plot_losses",
    "read_curve",
    "read_rows",
    "unigram_baseline",
]
