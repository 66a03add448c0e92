"""What was there to learn from? Languages and their data (Figure 5 and Table 7)."""

from __future__ import annotations

from collections.abc import Iterator

from sensikit.figures import sizes
from sensikit.report import tables
from sensikit.report.exhibits.base import MANIFEST, WIDE, Exhibit
from sensikit.report.material import Material


def exhibits(material: Material) -> Iterator[Exhibit]:
    """Yield how much data each language has."""
    known = material.languages
    content = (sizes.data_statistics(known, width=WIDE), sizes.sizes(known))
    yield Exhibit("languages", "Training data", sizes.caption(known), MANIFEST, content)
    caption = "Sentence pairs with English in each split."
    yield Exhibit("languages", "Languages", caption, MANIFEST, tables.languages(known))
