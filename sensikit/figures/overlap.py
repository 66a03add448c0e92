"""Which languages share their most specific parameters: Jaccard overlap of the top of D(θ,l)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from sensikit.figures import conclusions
from sensikit.figures.frames import Groups, of_run, of_task, present, runs
from sensikit.figures.grids import colour_bar, group_map
from sensikit.figures.panels import canvas, panels, rounded_up
from sensikit.figures.style import FULL, Drawn, styled
from sensikit.figures.words import captioned, joined, percent


@styled
def overlap_heatmaps(frame: pd.DataFrame, groups: Groups, *, task: str = "", width: float = FULL) -> Drawn:
    """Return heat maps of the Jaccard overlap of the groups' most specific parameters (overlap.csv), on one scale.

    A column for each run and a row for each share; a single run has its shares side by side. The diagonal is empty.
    """
    frame = of_task(frame, task)
    labels, shares = runs(frame), sorted(frame["share"].unique())
    keys = present(groups, frame["group_a"], frame["group_b"])
    shown = [(share, label) for share in shares for label in labels]
    columns = min(len(labels) if len(labels) > 1 else len(shares), 3)
    room = max(columns, 2)  # a single panel need not fill the page
    side = (width - 0.75) / room
    figure = canvas(width * columns / room, -(-len(shown) // columns) * side + 0.2)
    axes = panels(figure, len(shown), columns)
    largest = frame.loc[frame["group_a"] != frame["group_b"], "jaccard"].max()
    limits = 0.0, min(1.0, max(0.05, rounded_up(largest, 0.05))) if largest == largest else 1.0
    for ax, (share, label) in zip(axes, shown, strict=True):
        of_panel = of_run(frame[frame["share"] == share], label)
        values = matrix(of_panel, keys)
        chance = float(of_panel["expected"].mean())
        group_map(ax, values, values.map(lambda each, chance=chance: written(each, chance)), limits, groups, side)
        expected = f"top {percent(share)} by D (by chance {written(chance, chance)})"
        ax.set_title(f"{label} · {expected}" if label else expected, pad=4)
    colour_bar(figure, axes, limits, "vertical", "Jaccard overlap")
    caption = captioned(
        f"Jaccard overlap, |A ∩ B| ÷ |A ∪ B|, of the {joined(map(percent, shares))} of the parameters that are most "
        "specific to each of two languages, D(θ,l) at its largest",
        "By chance: two sets of that size, drawn independently.",
        result=conclusions.overlapping(frame, groups),
    )
    return Drawn(figure, frame, caption)


def matrix(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return (n, n) of the overlap, whichever of the two orders of a pair the table has; the diagonal is empty."""
    mirrored = frame.rename(columns={"group_a": "group_b", "group_b": "group_a"})
    both = pd.concat([frame, mirrored]).drop_duplicates(["group_a", "group_b"])
    wide = both.pivot(index="group_a", columns="group_b", values="jaccard").reindex(index=keys, columns=keys)
    values = wide.to_numpy(dtype=float).copy()
    np.fill_diagonal(values, math.nan)
    return pd.DataFrame(values, index=keys, columns=keys)


def written(value: float, chance: float) -> str:
    """Return an overlap as text, with as many decimals as give the one by chance two digits: .0003 where that is .0050.

    One that is smaller still is less than the last decimal; none at all is 0.
    """
    if math.isnan(value):
        return ""
    decimals = 1 - math.floor(math.log10(chance)) if 0 < chance < 1 else 2
    if 0 < value < 0.5 * 10**-decimals:
        return f"<{10**-decimals:.{decimals}f}".replace("0.", ".", 1)
    return f"{value:.{decimals}f}".replace("0.", ".", 1) if value else "0"
