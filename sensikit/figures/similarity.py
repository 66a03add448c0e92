"""How alike the sensitivities of two tasks are in each language (Figure 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sensikit.figures.heatmaps import SUBSETS
from sensikit.figures.style import FULL, MUTED, canvas, legend_below, of_run, order, run_line, runs, styled


@styled
def task_similarity(frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]], *, width: float = FULL) -> Figure:
    """Return the PCC between two tasks for each language: a panel for each subset, a mark for each run, one scale.

    A bar is the 95% interval over batches, a short grey line the noise ceiling.

    Args:
        frame: the rows of similarity.csv, with a column `run` where there are several runs.
        languages: code → {family, tier, sizes}.
        width: of the figure, in inches.
    """
    subsets = [subset for subset in SUBSETS if subset in set(frame["subset"])]
    codes = [code for code in order(languages) if code in set(frame["group"])]
    figure = canvas(width, 0.95 + 0.21 * len(codes))
    axes = list(figure.subplots(1, len(subsets), sharex=True, sharey=True, squeeze=False)[0])
    for ax, subset in zip(axes, subsets, strict=True):
        for index, label in enumerate(runs(frame)):
            of_group = of_run(frame[frame["subset"] == subset], label)
            _marks(ax, of_group.set_index("group").reindex(codes), index, len(runs(frame)), label)
        ax.set_title(SUBSETS[subset])
        ax.set_xlabel("PCC between the tasks")
        ax.grid(axis="x")
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(codes)), codes)
    axes[0].set_ylim(len(codes) - 0.45, -0.55)
    axes[0].set_xlim(right=1.0)
    legend_below(figure, axes)
    return figure


def _marks(ax: Axes, rows: pd.DataFrame, index: int, count: int, label: str) -> None:
    line = run_line(index, label)
    places = [place - 0.35 + 0.7 / count * (index + 0.5) for place in range(len(rows))]
    for place, ceiling in zip(places, rows["ceiling"], strict=True):
        ax.plot([ceiling, ceiling], [place - 0.3 / count, place + 0.3 / count], color=MUTED, linewidth=1.0)
    ax.hlines(places, rows["pcc_low"], rows["pcc_high"], color=line.colour, linewidth=1.1)
    ax.plot(rows["pcc"], places, linestyle="", marker=line.marker, color=line.colour, label=label, markersize=3.6)


def caption(frame: pd.DataFrame) -> str:
    """Return what the figure shows, with the names of the tasks."""
    names = {"mt": "translation", "denoise": "denoising"}
    tasks = " and ".join(names.get(str(frame[side].iloc[0]), str(frame[side].iloc[0])) for side in ("task_a", "task_b"))
    text = f"PCC between the sensitivities for {tasks} of the same language; higher means that they share parameters. "
    if frame["pcc_low"].notna().any():
        text += "Bars are 95% intervals over batches. "
    if frame["ceiling"].notna().any():
        text += "The short grey line is the noise ceiling: no PCC can be expected beyond it."
    return text.strip()
