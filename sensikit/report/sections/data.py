"""What was there to learn from? Languages, their data, and what denoising makes of it (Figures 4, 5 and Table 7)."""

from __future__ import annotations

from collections.abc import Iterator

from sensikit.figures import sizes, tokens
from sensikit.report import tables
from sensikit.report.inputs import Material
from sensikit.report.sections.base import MANIFEST, WIDE, Exhibit
from sensikit.sensitivity.analysis import LAYOUT


def exhibits(material: Material) -> Iterator[Exhibit]:
    """Yield how much data each language has, and one sentence under concurrent denoising."""
    known = material.languages
    content = (sizes.data_statistics(known, width=WIDE), sizes.sizes(known))
    yield Exhibit("groups", "Training data", sizes.caption(known), MANIFEST, content)
    caption = "Sentence pairs with English in each split."
    yield Exhibit("groups", "Languages", caption, MANIFEST, tables.languages(known))
    if LAYOUT.name in material.tables:
        rows = tokens.sentence(material.tables[LAYOUT.name])
        title = "Concurrent denoising, token by token"
        yield Exhibit("layout", title, tokens.caption(rows), LAYOUT.name, (tokens.token_layout(rows), rows))
