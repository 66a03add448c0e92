"""Figures: pure functions from tidy frames to matplotlib figures; one file for each kind of figure.

No function here touches pyplot, a window or the caller's rcParams, so they serve a notebook and a report alike.
"""

from sensikit.figures.curves import curve, pruning_comparison, pruning_curves, pruning_curves_by_language
from sensikit.figures.distributions import balance, specificity
from sensikit.figures.heatmaps import correlation_heatmaps
from sensikit.figures.sizes import data_statistics
from sensikit.figures.style import COLUMN, FULL, order, save

__all__ = [
    "COLUMN",
    "FULL",
    "balance",
    "correlation_heatmaps",
    "curve",
    "data_statistics",
    "order",
    "pruning_comparison",
    "pruning_curves",
    "pruning_curves_by_language",
    "save",
    "specificity",
]
