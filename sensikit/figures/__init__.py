"""Figures: pure functions from tidy frames to a figure, the data that it shows, and its caption.

No function here touches pyplot, a window or the caller's rcParams, so they serve a notebook and a report alike. They
share most arguments: `frame`, the rows of the table that the docstring names, with a column `run` where there are
several runs, and `recipe` where some of these are training seeds of one; `groups`, key → {name, family, tier, sizes} as
in a manifest; `task` and `metric`, by default the first of the table, BLEU before others; `width`, in inches.
"""

from sensikit.figures.audit import audit_scatter
from sensikit.figures.components import component_correlation, component_heatmaps, specificity_by_component
from sensikit.figures.convergence import convergence_curves
from sensikit.figures.correlation import correlation_heatmaps, task_similarity
from sensikit.figures.cross import cross_matrix
from sensikit.figures.curves import pruning_comparison, pruning_curves, pruning_curves_by_group
from sensikit.figures.data import data_statistics, token_layout
from sensikit.figures.dendrogram import dendrogram
from sensikit.figures.frames import order
from sensikit.figures.overlap import overlap_heatmaps
from sensikit.figures.points import curve
from sensikit.figures.quality import masking_ratio, quality_gains
from sensikit.figures.spread import balance, sensitivity_violins, specificity
from sensikit.figures.style import COLUMN, FULL, Drawn, save

__all__ = [
    "COLUMN",
    "FULL",
    "Drawn",
    "audit_scatter",
    "balance",
    "component_correlation",
    "component_heatmaps",
    "convergence_curves",
    "correlation_heatmaps",
    "cross_matrix",
    "curve",
    "data_statistics",
    "dendrogram",
    "masking_ratio",
    "order",
    "overlap_heatmaps",
    "pruning_comparison",
    "pruning_curves",
    "pruning_curves_by_group",
    "quality_gains",
    "save",
    "sensitivity_violins",
    "specificity",
    "specificity_by_component",
    "task_similarity",
    "token_layout",
]
