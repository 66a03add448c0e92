"""How well do the systems translate (Tables 1 to 6, Figure 11)?"""

from __future__ import annotations

from collections.abc import Iterator

from sensikit.evaluation import tables as quality_tables
from sensikit.figures import quality
from sensikit.report import tables
from sensikit.report.inputs import Evaluated, Material
from sensikit.report.sections.base import WIDE, Exhibit

SOURCE = "pruning.csv"


def exhibits(material: Material) -> Iterator[Exhibit]:
    """Yield each evaluation; without any, the quality of the unpruned models."""
    directions = [each.manifest["direction"] for each in material.evaluations]
    for number, each in enumerate(material.evaluations, start=1):
        direction = each.manifest["direction"]
        alone = directions.count(direction) == 1
        name = direction if alone else f"{direction}-{number}"
        title = direction.replace("-", "→") if alone else f"{direction.replace('-', '→')}, {each.label}"
        yield from _evaluation(each, name, title)
    if not material.evaluations:
        yield from _unpruned(material)


def _evaluation(each: Evaluated, name: str, title: str) -> Iterator[Exhibit]:
    notes = " ".join(quality_tables.notes(each.manifest, each.tables)[:2])
    for stem, (what, table) in quality_tables.tables(each.tables).items():
        yield Exhibit(f"{stem}-{name}", f"{what}, {title}", notes, "tiers.csv", table, evaluation=each)
    table = tables.systems(each.manifest["systems"])
    caption = (
        "What each system was trained on, in the notation of Table 4: L′ is the mean over the K passes of "
        "intra-distillation, and α weighs its divergence."
    )
    yield Exhibit(f"systems-{name}", f"Systems, {title}", caption, "manifest.json", table, evaluation=each)
    tests = each.tables.get("significance.csv")
    if tests is not None:
        content = (quality.quality_gains(tests), quality.gains(tests))
        what = f"What each system gains, {title}"
        yield Exhibit(f"gains-{name}", what, quality.gains_caption(tests), "significance.csv", content, evaluation=each)
    ratios = quality.by_ratio(each.tables["tiers.csv"], each.manifest["systems"])
    for design in dict.fromkeys(ratios["design"]):
        rows = ratios[ratios["design"] == design]
        method = rows["method"].iloc[0]
        again = f"-{design}" if ratios.loc[ratios["method"] == method, "design"].nunique() > 1 else ""
        content = (quality.masking_ratio(rows, width=WIDE), rows)
        what = f"Effect of the masking ratio on {method or 'the system'}, {title}"
        stem = "-".join(part for part in ("masking", method, name) if part) + again
        yield Exhibit(stem, what, quality.masking_caption(rows), "tiers.csv", content, evaluation=each)


def _unpruned(material: Material) -> Iterator[Exhibit]:
    frame = material.tables.get(SOURCE)
    if frame is None:
        return
    caption = "Mean over the languages of each resource level, and over all languages; nothing pruned."
    content = tables.quality_by_tier(frame, material.languages)
    yield Exhibit("quality", "Translation quality by resource level", caption, SOURCE, content)
    caption = "Nothing pruned; the interval is a 95% bootstrap over the test sentences."
    content = tables.quality_by_language(frame, material.languages)
    yield Exhibit("quality-by-language", "Translation quality by language", caption, SOURCE, content)
