"""Do languages use the same parameters? Correlations of sensitivity (Figures 2, 6, 7 and 8)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from sensikit.figures import heatmaps, kinship, similarity
from sensikit.figures.style import FULL, runs
from sensikit.report import tables
from sensikit.report.inputs import Material
from sensikit.report.sections.base import WIDE, Exhibit, by_task, named

SOURCE, SIMILARITY = "correlation.csv", "similarity.csv"
TITLE = "Correlation of sensitivity between languages"


def exhibits(material: Material) -> Iterator[Exhibit]:
    """Yield heat maps of PCC and what a second run changed, their means, the tree of languages, and task similarity."""
    for task, frame in by_task(material, SOURCE):
        yield from _heatmaps(material, frame, task)
    if SOURCE in material.tables:
        caption = (
            "PCC over the pairs of different languages, each pair once: mean, least and most; Ceiling is the mean of "
            "the pairs' noise ceilings, At ceiling how many of them the 95% interval reaches."
        )
        yield Exhibit(
            "correlation", "Correlation by subset", caption, SOURCE, tables.correlation(material.tables[SOURCE])
        )
    yield from _differences(material)
    for task, frame in by_task(material, SOURCE):
        data = kinship.merges(frame, material.languages, "low", task)
        if len(data):
            figure = kinship.language_tree(frame, material.languages, task=task, width=_tree_width(frame))
            title = named("Languages by their correlations", task)
            yield Exhibit(f"tree-{task}", title, kinship.caption(material.languages), SOURCE, (figure, data), task)
    yield from _similarity(material)


def _heatmaps(material: Material, frame: pd.DataFrame, task: str) -> Iterator[Exhibit]:
    """Yield the heat maps of one task: with two runs, the difference between them stands beside them."""
    known = material.languages
    found = [(each.first, each.second, each.table) for each in material.comparisons if each.task == task]
    compared = [(first.label, second.label, table) for first, second, table in found if table is not None]
    beside = compared[0][2] if len(runs(frame)) == 2 and compared else None
    figure = heatmaps.correlation_heatmaps(frame, known, task=task, difference=beside)
    caption = heatmaps.caption(frame, known, task=task, difference=beside)
    data = heatmaps.marked(frame)
    yield Exhibit(f"correlation-{task}", named(TITLE, task), caption, SOURCE, (figure, data), task)
    for number, (first, second, table) in enumerate(compared, start=1) if beside is None else ():
        pair = frame[frame["run"].isin([first, second])]
        figure = heatmaps.correlation_heatmaps(pair, known, task=task, difference=table)
        title = named(f"{second} minus {first}", task)
        caption = heatmaps.caption(pair, known, task=task, difference=table)
        yield Exhibit(f"correlation-{task}-difference-{number}", title, caption, SOURCE, (figure, table), task)
    if frame["disattenuated"].notna().any():
        figure = heatmaps.correlation_heatmaps(frame, known, task=task, value="disattenuated")
        caption = heatmaps.caption(frame, known, task=task, value="disattenuated")
        title = named("Correlation corrected for noise", task)
        yield Exhibit(f"correlation-{task}-disattenuated", title, caption, SOURCE, (figure, data), task)


def _differences(material: Material) -> Iterator[Exhibit]:
    """Yield the mean difference of each later run to the first, with its interval, and every pair of languages."""
    frames = [
        each.table.assign(run=f"{each.second.label} − {each.first.label}")
        for each in material.comparisons
        if each.table is not None
    ]
    if frames:
        frame = pd.concat(frames, ignore_index=True)
        caption = (
            "Mean PCC over the pairs of languages in the second run minus that in the first, with a 95% interval over "
            "batches, and how many of the pairs moved down or up by more than theirs. It speaks of these two trained "
            "models; other training seeds would give others."
        )
        yield Exhibit("difference", "What the second run changed", caption, SOURCE, tables.differences(frame))


def _tree_width(frame: pd.DataFrame) -> float:
    return FULL if len(runs(frame)) > 1 else 2 * WIDE  # a single tree takes half of it


def _similarity(material: Material) -> Iterator[Exhibit]:
    frame = material.tables.get(SIMILARITY)
    if frame is not None:
        figure = similarity.task_similarity(frame, material.languages)
        title = "Similarity of translation and denoising, by language"
        yield Exhibit("similarity", title, similarity.caption(frame), SIMILARITY, (figure, frame))
