"""What happens when parameters are removed? Pruning curves and the cross matrix (Figures 3 and 9)."""

from __future__ import annotations

from collections.abc import Iterator

from sensikit.figures import cross, curves
from sensikit.figures.curves import CHOSEN, UNPRUNED, banded, curve, curve_by_language
from sensikit.figures.style import FULL, runs
from sensikit.report import tables
from sensikit.report.inputs import Material
from sensikit.report.sections.base import WIDE, Exhibit

SOURCE, CROSS = "pruning.csv", "pruning-cross.csv"


def exhibits(material: Material) -> Iterator[Exhibit]:
    """Yield the pruning curves: all orders, the change in BLEU, by language, in numbers, and across languages."""
    yield from _curves(material)
    frame = material.tables.get(CROSS)
    if frame is None or (frame["order"] == UNPRUNED).all():
        return
    cells = cross.bleu_kept(frame)
    for name in dict.fromkeys(cells["order"]):
        content = (cross.cross_matrix(cells, material.languages, name=name), cells[cells["order"] == name])
        title = f"Pruned for one language, evaluated on all: {curves.line_of(name).name}"
        yield Exhibit(f"pruning-cross-{name}", title, cross.caption(cells, name=name), CROSS, content)


def _curves(material: Material) -> Iterator[Exhibit]:
    frame = material.tables.get(SOURCE)
    if frame is None or (frame["order"] == UNPRUNED).all():
        return
    several, bands, tests = len(runs(frame)) > 1, material.curves.bands, material.curves.tests
    figure = curves.pruning_curves(frame, bands=bands, tests=tests, width=FULL if several else WIDE)
    content = (figure, banded(curve(frame), bands))
    caption = curves.caption(frame, bands=bands, tests=tests)
    yield Exhibit("pruning", "Pruning curves", caption, SOURCE, content)
    change = banded(curve(frame, change=True), bands, change=True)
    if (change["order"] == CHOSEN).any():
        figure = curves.pruning_comparison(frame, bands=bands, tests=tests, width=WIDE)
        title = "Change in BLEU, least language-specific parameters first"
        caption = curves.caption(frame, change=True, alone=CHOSEN, bands=bands, tests=tests)
        yield Exhibit("pruning-change", title, caption, SOURCE, (figure, change))
    content = (curves.pruning_curves_by_language(frame, material.languages), curve_by_language(frame))
    caption = "BLEU of each language against the share of the prunable parameters that is set to zero, on one scale."
    if several:
        caption += " The least specific first."
    yield Exhibit("pruning-by-language", "Pruning curves by language", caption, SOURCE, content)
    caption = "BLEU, mean over languages, at each share of the prunable parameters that is set to zero."
    yield Exhibit("pruning", "Pruning curves in numbers", caption, SOURCE, tables.pruning(frame))
    if tests is not None and len(tests):
        caption = (
            "Mean BLEU of the second curve minus that of the first at each ratio, with a 95% interval and the p of a "
            "paired bootstrap over the test sentences; each test by itself, and of one training run each. Between two "
            "runs, Change is the difference in what pruning has taken from each."
        )
        table = tables.curve_tests(tests)
        yield Exhibit("pruning-tests", "Pruning curves against each other", caption, SOURCE, table)
