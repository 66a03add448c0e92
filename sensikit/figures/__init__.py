"""Figures: pure functions from tidy frames to matplotlib figures; one file for each kind of figure.

No function here touches pyplot, a window or the caller's rcParams, so they serve a notebook and a report alike.
"""

from sensikit.figures.audit import audit_scatter
from sensikit.figures.components import component_correlation, component_heatmaps, specificity_by_component
from sensikit.figures.convergence import convergence_curves
from sensikit.figures.cross import bleu_kept, cross_matrix
from sensikit.figures.curves import curve, pruning_comparison, pruning_curves, pruning_curves_by_language
from sensikit.figures.distributions import balance, specificity
from sensikit.figures.heatmaps import correlation_heatmaps
from sensikit.figures.kinship import language_tree
from sensikit.figures.overlap import overlap_heatmaps
from sensikit.figures.quality import masking_ratio, quality_gains
from sensikit.figures.similarity import task_similarity
from sensikit.figures.sizes import data_statistics
from sensikit.figures.style import COLUMN, FULL, order, save
from sensikit.figures.tokens import sentence, token_layout
from sensikit.figures.violins import sensitivity_violins

__all__ = [
    "COLUMN",
    "FULL",
    "audit_scatter",
    "balance",
    "bleu_kept",
    "component_correlation",
    "component_heatmaps",
    "convergence_curves",
    "correlation_heatmaps",
    "cross_matrix",
    "curve",
    "data_statistics",
    "language_tree",
    "masking_ratio",
    "order",
    "overlap_heatmaps",
    "pruning_comparison",
    "pruning_curves",
    "pruning_curves_by_language",
    "quality_gains",
    "save",
    "sensitivity_violins",
    "sentence",
    "specificity",
    "specificity_by_component",
    "task_similarity",
    "token_layout",
]
