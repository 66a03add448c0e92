"""What pruning for one language does to the others: the cross matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sensikit.figures.curves import UNPRUNED, line_of
from sensikit.figures.grids import SEQUENTIAL, colour_bar, language_map
from sensikit.figures.style import FULL, INK, canvas, joined, of_run, order, percent, runs, span, styled


def bleu_kept(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the share of its unpruned BLEU that each language keeps: the pruned rows with one column more, `kept`.

    Args:
        frame: the rows of pruning-cross.csv, with a column `run` where there are several runs.
    """
    start = frame[frame["order"] == UNPRUNED].rename(columns={"bleu": "whole"})
    key = ["run", "evaluated"] if "run" in frame else ["evaluated"]
    cells = frame[frame["order"] != UNPRUNED].merge(start[[*key, "whole"]], on=key, how="left")
    return cells.assign(kept=(cells["bleu"] / cells["whole"]).where(cells["whole"] > 0))


@styled
def cross_matrix(
    cells: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    *,
    name: str = "specificity",
    ratios: Sequence[float] = (),
    width: float = FULL,
) -> Figure:
    """Return heat maps of the share of BLEU kept: pruned for the language of a row, evaluated on that of a column.

    A row of panels for each ratio and a column for each run (a single run has its ratios side by side), one scale.

    Args:
        cells: what `bleu_kept` returns.
        languages: code → {family, tier, sizes}.
        name: of the order.
        ratios: which, at most three; by default the ones that tell most (see `telling`).
        width: of the figure, in inches.
    """
    cells = cells[cells["order"] == name]
    labels, chosen = runs(cells), list(ratios) or telling(cells)
    codes = [code for code in order(languages) if code in set(cells["group"]) | set(cells["evaluated"])]
    panels = [(ratio, label) for ratio in chosen for label in labels]
    columns = min(3, len(labels) if len(labels) > 1 else len(chosen))
    rows, room = -(-len(panels) // columns), max(2, columns)
    width *= columns / room
    side = (width - 0.75) / columns
    figure = canvas(width, rows * side + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    limits = (0.0, max(1.0, math.ceil(cells["kept"].max() * 10) / 10))
    for ax, (ratio, label) in zip(axes, panels, strict=False):
        of_panel = of_run(cells[cells["ratio"] == ratio], label)
        wide = of_panel.pivot_table(index="group", columns="evaluated", values="kept", sort=False)
        values = wide.reindex(index=codes, columns=codes).astype(float)
        language_map(ax, values, values.map(_written), limits, languages, side, SEQUENTIAL)
        for at in range(len(codes)):
            ax.add_patch(Rectangle((at, at), 1, 1, fill=False, edgecolor=INK, linewidth=0.8, clip_on=False, zorder=5))
        ax.set_title(" · ".join(part for part in (label, f"{percent(ratio)} pruned") if part), pad=4)
        ax.set_xlabel("evaluated on")
        ax.set_ylabel("pruned for")
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    colour_bar(figure, axes[: len(panels)], limits, "vertical", "share of BLEU kept", "{:.0%}".format)
    return figure


def telling(cells: pd.DataFrame, most: int = 3) -> list[float]:
    """Return the ratios at which the language pruned for and the others differ most, at most `most`, ascending."""
    own = cells["group"] == cells["evaluated"]
    gap = cells[own].groupby("ratio")["kept"].mean() - cells[~own].groupby("ratio")["kept"].mean()
    found: list[float] = sorted(gap.dropna().abs().sort_values(ascending=False, kind="stable").index[:most])
    return found or sorted(cells["ratio"].unique())[:most]


def _written(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.0f}"


def caption(cells: pd.DataFrame, *, name: str = "specificity") -> str:
    """Return what the matrix shows, and how much a language keeps of its own and of the others."""
    cells = cells[cells["order"] == name]
    sentences = sorted(cells["sentences"].astype(int).unique())
    text = (
        f"Per cent of its unpruned BLEU that the language of a column keeps when the model is pruned for the language "
        f"of a row ({line_of(name).name}, by the row's sensitivities); framed, on the diagonal: the language itself. "
    )
    own = cells["group"] == cells["evaluated"]
    means = [
        f"{percent(ratio)} pruned, {cells.loc[at & own, 'kept'].mean():.0%} by the language itself and "
        f"{cells.loc[at & ~own, 'kept'].mean():.0%} by the others"
        for ratio in telling(cells)
        for at in [cells["ratio"] == ratio]
    ]
    text += f"Kept on average: {joined(means)}. " if means else ""
    return text + f"{span(sentences, 'd')} test sentences a language, one training run."
