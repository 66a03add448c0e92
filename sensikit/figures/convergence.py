"""How soon a sensitivity stops changing as batches are added: were there enough of them?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter, NullLocator
from scipy.special import expit, logit

from sensikit.figures import conclusions
from sensikit.figures.frames import Groups, of_run, of_task, present, runs
from sensikit.figures.panels import canvas, legend_below, plain, ruled
from sensikit.figures.style import FULL, NO_TIER, TIERS, Drawn, styled
from sensikit.figures.words import SUBSETS, captioned

TICKS = (0.01, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
COUNTS = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 5))


@styled
def convergence_curves(frame: pd.DataFrame, groups: Groups, *, task: str = "", width: float = FULL) -> Drawn:
    """Return the PCC between S of two disjoint sets of batches (convergence.csv) against their number, by group.

    A column for each subset and a row for each run, all on one scale; a band is the 95% interval.
    """
    frame = of_task(frame, task)
    subsets, labels = [subset for subset in SUBSETS if subset in set(frame["subset"])], runs(frame)
    figure = canvas(width, len(labels) * min(2.3, width / len(subsets)) + 0.35)
    grid = figure.subplots(len(labels), len(subsets), sharex=True, sharey=True, squeeze=False)
    for row, label in zip(grid, labels, strict=True):
        for ax, subset in zip(row, subsets, strict=True):
            _lines(ax, of_run(frame[frame["subset"] == subset], label), groups)
            ax.set_title(SUBSETS[subset] if label == labels[0] else "")
            ax.set_xlabel("batches in each of two disjoint sets")
            ax.set_ylabel("\n".join(part for part in (label, "PCC between the two") if part))
            ruled(ax, "y")
            ax.label_outer()
    _scales(grid[0][0], frame)
    for ax in grid.ravel():  # once the scale that they share is known
        _names(ax)
    legend_below(figure, list(grid.ravel()), list(TIERS))
    return Drawn(figure, frame, _caption(frame, groups))


def _scales(ax: Axes, frame: pd.DataFrame) -> None:
    """Set axes on which r/(1 − r) in proportion to the batches, as Spearman and Brown have it, is a straight line."""
    drawn = frame["reliability"].where(frame["reliability"] > 0).clip(1e-3, 1 - 1e-6)
    low, high = (0.5, 0.99) if drawn.isna().all() else (drawn.min(), drawn.max())
    ax.set_yscale("logit", nonpositive="mask")
    ax.set_ylim(low / (low + 1.3 * (1 - low)), 1 - (1 - high) / 1.5)
    ax.set_yticks([tick for tick in TICKS if low <= tick <= high] or [low])
    ax.yaxis.set_major_formatter(plain)
    ax.yaxis.set_minor_locator(NullLocator())
    least, most = frame["batches"].min(), frame["batches"].max()
    ax.set_xscale("log")
    ax.set_xticks([tick for tick in COUNTS if least <= tick <= most] or [least])
    ax.xaxis.set_major_formatter(plain)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(least * 0.9, most * 1.75)  # room for the names


def _lines(ax: Axes, frame: pd.DataFrame, groups: Groups) -> None:
    for key in present(groups, frame["group"]):
        points = frame[frame["group"] == key].sort_values("batches")
        look = TIERS.get(groups[key]["tier"], NO_TIER)
        ax.plot(
            points["batches"], points["reliability"], color=look.colour, linestyle=look.dashes, linewidth=1.0, gid=key,
            label=look.name,
        )  # fmt: skip
        bounds = points["reliability_low"], points["reliability_high"]
        ax.fill_between(points["batches"], *bounds, color=look.colour, alpha=0.10, linewidth=0)


def _names(ax: Axes) -> None:
    """Write the name of each group at the end of its line, pushed apart where lines end close to each other."""
    low, high = logit(np.asarray(ax.get_ylim()))
    points = [(np.asarray(line.get_ydata(), float)[-1], np.asarray(line.get_xdata(), float)[-1]) for line in ax.lines]
    ends = sorted((logit(y), x, index) for index, (y, x) in enumerate(points) if 0 < y < 1)
    room = (high - low) * 0.058  # between two names, on the logit scale that the axis has
    below: dict[float, float] = {}
    places = []
    for y, x, _ in ends:  # lines that end at one place compete for it
        below[x] = max(y, below.get(x, low) + room)
        places.append(below[x])
    for place, (_, x, index) in zip(places, ends, strict=True):
        beyond = max(0.0, below[x] - (high - room / 2))  # what goes over the top takes the others down with it
        line = ax.lines[index]
        ax.annotate(
            str(line.get_gid()), (x, expit(place - beyond)), xytext=(3, 0), textcoords="offset points", va="center",
            fontsize=5.5, color=line.get_color(), path_effects=[withStroke(linewidth=1.5, foreground="white")],
        ).set_in_layout(False)  # fmt: skip


def _caption(frame: pd.DataFrame, groups: Groups) -> str:
    return captioned(
        "PCC between the sensitivities of one language from two disjoint sets of batches, against the number of "
        "batches in each",
        "A line ends at half of what batches there are. On these axes reliability that grows as with independent "
        "batches (Spearman–Brown) is a straight line.",
        "Lines by resource level." if any(of["tier"] in TIERS for of in groups.values()) else "",
        "Bands are 95% intervals." if frame["reliability_low"].notna().any() else "",
        result=conclusions.enough(frame),
    )
