"""Which languages share their most specific parameters: Jaccard overlap of the top of D(θ,l)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sensikit.figures.grids import SEQUENTIAL, colour_bar, language_map
from sensikit.figures.style import FULL, canvas, joined, of_run, order, percent, runs, styled


@styled
def overlap_heatmaps(
    frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]], *, task: str = "mt", width: float = FULL
) -> Figure:
    """Return heat maps of the Jaccard overlap of the languages' most specific parameters, all on one scale.

    A column for each run and a row for each share; a single run has its shares side by side. The diagonal is empty.

    Args:
        frame: the rows of overlap.csv, with a column `run` where there are several runs.
        languages: code → {family, tier, sizes}.
        task: mt, denoise or lm.
        width: of the figure, in inches.
    """
    frame = frame[frame["task"] == task]
    labels, shares = runs(frame), sorted(frame["share"].unique())
    codes = [code for code in order(languages) if code in set(frame["group_a"]) | set(frame["group_b"])]
    panels = [(share, label) for share in shares for label in labels]
    columns = min(len(labels) if len(labels) > 1 else len(shares), 3)
    rows = -(-len(panels) // columns)
    room = max(columns, 2)  # a single panel need not fill the page
    side = (width - 0.75) / room
    figure = canvas(width * columns / room, rows * side + 0.2)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    limits = scale(frame)
    for ax, (share, label) in zip(axes, panels, strict=False):
        found = of_run(frame[frame["share"] == share], label)
        values = matrix(found, codes)
        language_map(ax, values, values.map(written(found)), limits, languages, side, SEQUENTIAL)
        expected = f"top {percent(share)} by D (by chance {found['expected'].mean():.2f})"
        ax.set_title(f"{label} · {expected}" if label else expected, pad=4)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    colour_bar(figure, axes[: len(panels)], limits, "vertical", "Jaccard overlap")
    return figure


def matrix(frame: pd.DataFrame, codes: list[str]) -> pd.DataFrame:
    """Return (n, n) of the overlap, whichever of the two orders of a pair the table has; the diagonal is empty."""
    mirrored = frame.rename(columns={"group_a": "group_b", "group_b": "group_a"})
    both = pd.concat([frame, mirrored]).drop_duplicates(["group_a", "group_b"])
    wide = both.pivot(index="group_a", columns="group_b", values="jaccard").reindex(index=codes, columns=codes)
    values = wide.to_numpy(dtype=float).copy()
    np.fill_diagonal(values, math.nan)
    return pd.DataFrame(values, index=codes, columns=codes)


def scale(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the colour scale: from 0 to the largest overlap, rounded up to 0.05."""
    values = frame.loc[frame["group_a"] != frame["group_b"], "jaccard"]
    return 0.0, min(1.0, max(0.05, round(math.ceil(round(values.max() / 0.05, 6)) * 0.05, 2)))


def written(frame: pd.DataFrame) -> Callable[[float], str]:
    """Return how to print an overlap: with three digits where all are small."""
    small = frame.loc[frame["group_a"] != frame["group_b"], "jaccard"].max() < 0.1
    return lambda value: "" if math.isnan(value) else f"{value:.3f}"[1:] if small else f"{value:.2f}"


def caption(frame: pd.DataFrame, *, task: str = "mt") -> str:
    """Return what the heat maps show, and which overlap there is by chance."""
    shares = sorted(frame.loc[frame["task"] == task, "share"].unique())
    return (
        f"Jaccard overlap, |A ∩ B| ÷ |A ∪ B|, of the {joined(map(percent, shares))} of the parameters that are most "
        "specific to each of two languages, D(θ,l) at its largest. By chance: two sets of that size, drawn "
        "independently."
    )
