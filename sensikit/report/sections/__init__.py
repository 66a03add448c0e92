"""What a report shows, chapter by chapter: one file for each question that the material may answer.

A new figure is a file in `sensikit/figures/` and a few lines in the chapter that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sensikit.report.inputs import Material
from sensikit.report.sections import balance, correlation, data, pruning, quality, specificity, trust
from sensikit.report.sections.base import MANIFEST, Exhibit

CHAPTERS: tuple[tuple[str, Callable[[Material], Iterator[Exhibit]]], ...] = (
    ("Translation quality", quality.exhibits),
    ("Correlation", correlation.exhibits),
    ("Specificity", specificity.exhibits),
    ("Pruning", pruning.exhibits),
    ("Balance", balance.exhibits),
    ("Can the numbers be trusted?", trust.exhibits),
    ("Data", data.exhibits),
)

__all__ = ["CHAPTERS", "MANIFEST", "Exhibit"]
