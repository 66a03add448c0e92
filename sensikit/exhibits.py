"""What a report shows, in order: one function for each kind of figure or table that the material supports.

A new figure is a file in `figures/` and a function here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from sensikit import tables
from sensikit.figures import curves, distributions, heatmaps, sizes
from sensikit.figures.style import FULL
from sensikit.material import Material
from sensikit.tables import Table

CORRELATION, SPECIFICITY, BALANCE, PRUNING = "correlation.csv", "specificity.csv", "balance.csv", "pruning.csv"
WIDE = 4.6  # inches of a single panel on a page, wider than the column it would have in print
MANIFEST = "manifest.json"
TASKS = {"mt": "translation", "denoise": "denoising"}


@dataclass(frozen=True)
class Exhibit:
    """A figure with the data that it shows, or a table.

    `source` is the file of the run directory that it comes from, `stem` the name of its own files.
    """

    stem: str
    title: str
    caption: str
    source: str
    content: tuple[Figure, pd.DataFrame] | Table


def correlation(material: Material) -> Iterator[Exhibit]:
    """Yield the heat maps of PCC, a figure for each task, and their means (Figures 2, 6 and 8)."""
    frame = material.tables.get(CORRELATION)
    if frame is None:
        return
    for task in dict.fromkeys(frame["task"]):
        figure = heatmaps.correlation_heatmaps(frame, material.languages, task=task)
        caption = heatmaps.caption(frame, material.languages, task=task)
        title = f"Correlation of sensitivity between languages, {TASKS.get(task, task)}"
        content = (figure, heatmaps.marked(frame[frame["task"] == task]))
        yield Exhibit(f"correlation-{task}", title, caption, CORRELATION, content)
    caption = (
        "PCC over the pairs of different languages, each pair once: mean, least and most; Ceiling is the mean of the "
        "pairs' noise ceilings, At ceiling how many of them the 95% interval reaches."
    )
    yield Exhibit("correlation", "Correlation by group", caption, CORRELATION, tables.correlation(frame))


def pruning(material: Material) -> Iterator[Exhibit]:
    """Yield the pruning curves: all orders, the change in BLEU, by language, and their numbers (Figures 3 and 9)."""
    frame = material.tables.get(PRUNING)
    if frame is None or (frame["order"] == curves.UNPRUNED).all():
        return
    several = "run" in frame and frame["run"].nunique() > 1
    figure = curves.pruning_curves(frame, width=FULL if several else WIDE)
    content = (figure, curves.curve(frame))
    yield Exhibit("pruning", "Pruning curves", curves.caption(frame), PRUNING, content)
    change = curves.curve(frame, change=True)
    if (change["order"] == "specificity").any():
        content = (curves.pruning_comparison(frame), change[change["order"] == "specificity"])
        title = "Change in BLEU, least language-specific parameters first"
        yield Exhibit(
            "pruning-change", title, curves.caption(frame, change=True, alone="specificity"), PRUNING, content
        )
    content = (curves.pruning_curves_by_language(frame, material.languages), curves.curve_by_language(frame))
    caption = "BLEU of each language against the share of the prunable parameters that is set to zero, on one scale."
    if several:
        caption += " The least specific first."
    yield Exhibit("pruning-by-language", "Pruning curves by language", caption, PRUNING, content)
    caption = "BLEU, mean over languages, at each share of the prunable parameters that is set to zero."
    yield Exhibit("pruning", "Pruning curves in numbers", caption, PRUNING, tables.pruning(frame))


def quality(material: Material) -> Iterator[Exhibit]:
    """Yield the quality of the unpruned models by tier and by language (Table 1)."""
    frame = material.tables.get(PRUNING)
    if frame is None:
        return
    caption = "Mean over the languages of each resource level, and over all languages; nothing pruned."
    content = tables.quality_by_tier(frame, material.languages)
    yield Exhibit("quality", "Translation quality by resource level", caption, PRUNING, content)
    caption = "Nothing pruned; the interval is a 95% bootstrap over the test sentences."
    content = tables.quality_by_language(frame, material.languages)
    yield Exhibit("quality-by-language", "Translation quality by language", caption, PRUNING, content)


def specificity(material: Material) -> Iterator[Exhibit]:
    """Yield how D(θ,l) is spread over the parameters."""
    frame = material.tables.get(SPECIFICITY)
    if frame is None:
        return
    for task in dict.fromkeys(frame["task"]):
        content = (distributions.specificity(frame, material.languages, task=task), distributions.wide(frame, task))
        title = f"Language specificity of the parameters, {TASKS.get(task, task)}"
        caption = distributions.specificity_caption(frame, task=task)
        yield Exhibit(f"specificity-{task}", title, caption, SPECIFICITY, content)
    caption = (
        "Quantiles of D over the parameters; the share with D > 0; with D = 0, which no order can tell apart; and with "
        " S_-l below 10σ, where σ rather than the other languages decides D."
    )
    table = tables.specificity(frame, material.languages)
    yield Exhibit("specificity", "Language specificity in numbers", caption, SPECIFICITY, table)


def balance(material: Material) -> Iterator[Exhibit]:
    """Yield how evenly sensitivity is spread over the parameters (Figure 10)."""
    frame = material.tables.get(BALANCE)
    if frame is None:
        return
    for task in dict.fromkeys(frame["task"]):
        data = distributions.relative(distributions.wide(frame, task))
        content = (distributions.balance(frame, material.languages, task=task), data)
        title = f"Balance of sensitivity, {TASKS.get(task, task)}"
        yield Exhibit(f"balance-{task}", title, distributions.balance_caption(frame, task=task), BALANCE, content)
    caption = "S(θ,B_l) over the parameters; a smaller deviation and share of the top 10% mean a more even spread."
    yield Exhibit("balance", "Balance in numbers", caption, BALANCE, tables.balance(frame, material.languages))


def data(material: Material) -> Iterator[Exhibit]:
    """Yield how much data each language has (Figure 5 and Table 7)."""
    known = material.languages
    content = (sizes.data_statistics(known, width=WIDE), sizes.sizes(known))
    yield Exhibit("languages", "Training data", sizes.caption(known), MANIFEST, content)
    caption = "Sentence pairs with English in each split."
    yield Exhibit("languages", "Languages", caption, MANIFEST, tables.languages(known))


EXHIBITS: tuple[Callable[[Material], Iterator[Exhibit]], ...] = (
    correlation,
    pruning,
    quality,
    specificity,
    balance,
    data,
)
