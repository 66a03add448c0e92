"""The drawing that every heat map shares: cells with their numbers, marks in a corner, lines between families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import MaxNLocator

from sensikit.figures.frames import Groups, families
from sensikit.figures.style import INK, MUTED, contrast

SEQUENTIAL = "YlGnBu"  # one hue direction, dark for much: readable in grey print and with any colour blindness
DIVERGING = "RdBu_r"  # blue below, red above: told apart with any of the common colour blindnesses
UNMEASURED = "#eeeeee"
SMALLEST = 3.5  # points of a number that can still be read in print


def heat_map(
    ax: Axes, values: pd.DataFrame, written: pd.DataFrame, limits: tuple[float, float], cell: float, palette: str
) -> float:
    """Draw a cell for each of `values` with its number in it, where that can be read; return the size of the numbers.

    `written` holds the numbers as text, `limits` the ends of the colour scale, and a cell is `cell` points wide. NaN
    leaves a cell grey.
    """
    longest = max((len(text) for text in written.to_numpy().ravel()), default=1)
    size = min(7.0, cell / (0.64 * max(longest, 3)))
    seaborn.heatmap(
        values, ax=ax, vmin=limits[0], vmax=limits[1], cmap=palette, cbar=False,
        annot=written.to_numpy() if size >= SMALLEST else False, fmt="", annot_kws={"size": size},
        linewidths=0.4, linecolor="white", xticklabels=True, yticklabels=True,
    )  # fmt: skip
    shown = values.to_numpy(dtype=float)
    pale = light_on(shown[~np.isnan(shown)], limits, palette)
    for text, light in zip(ax.texts, pale, strict=bool(ax.texts)):
        text.set_color("white" if light else "black")  # one of the two has a contrast of 4.5 with any colour
        text.set_in_layout(False)  # they stand inside the panel, and there are many
    ax.set_facecolor(UNMEASURED)
    ax.tick_params(length=0, pad=1.5, labelsize=min(6.5, max(cell * 0.62, SMALLEST)))
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="", ylabel="")
    return size


def group_map(
    ax: Axes,
    values: pd.DataFrame,
    written: pd.DataFrame,
    limits: tuple[float, float],
    groups: Groups,
    side: float,
    palette: str = SEQUENTIAL,
) -> float:
    """Draw a square heat map of groups against groups, with lines between families; see `heat_map`.

    `side` is the room for the panel, in inches.
    """
    keys = list(values.index)
    cell = (side - 0.45) / len(keys) * 72
    size = heat_map(ax, values, written, limits, cell, palette)
    ax.set_aspect("equal")
    ax.tick_params(axis="x", rotation=0 if cell >= 4 * max(map(len, keys)) else 90)  # a letter is 4 points wide
    edges = np.cumsum([len(members) for _, members in families({key: groups[key] for key in keys})])[:-1]
    ax.hlines(edges, 0, len(keys), color=MUTED, linewidth=0.9)
    ax.vlines(edges, 0, len(keys), color=MUTED, linewidth=0.9)
    return size


def framed(ax: Axes, count: int) -> None:
    """Frame the diagonal of a square heat map."""
    for at in range(count):
        ax.add_patch(Rectangle((at, at), 1, 1, fill=False, edgecolor=INK, linewidth=0.8, clip_on=False, zorder=5))


def places(frame: pd.DataFrame, keys: Sequence[str]) -> list[tuple[int, int]]:
    """Return the (column, row) of each pair of groups in a heat map."""
    place = {key: index for index, key in enumerate(keys)}
    return [(place[b], place[a]) for a, b in zip(frame["group_a"], frame["group_b"], strict=True)]


def light_on(values: Any, limits: tuple[float, float], palette: str) -> Any:
    """Return of which values (n,) the cell is so dark that white stands out from it more than black does."""
    place = (np.asarray(values, dtype=float) - limits[0]) / (limits[1] - limits[0])
    colours = colormaps[palette](np.clip(place, 0, 1))
    return contrast(colours, "white") > contrast(colours, "black")


def dots(ax: Axes, places: Sequence[tuple[int, int]], light: Sequence[bool], size: float) -> None:
    """Put a dot into the upper right corner of cells, `places` being (column, row)."""
    ax.scatter(
        [x + 0.86 for x, _ in places], [y + 0.16 for _, y in places], s=max(1.0, (size / 3) ** 2),
        c=np.where(light, "white", INK), linewidths=0, gid="at-ceiling",
    )  # fmt: skip


def corners(ax: Axes, places: Sequence[tuple[int, int]], light: Sequence[bool]) -> None:
    """Turn down the upper right corner of cells, `places` being (column, row)."""
    for (x, y), pale in zip(places, light, strict=True):
        triangle = [(x + 0.72, y + 0.03), (x + 0.97, y + 0.03), (x + 0.97, y + 0.28)]
        ax.add_patch(Polygon(triangle, color="white" if pale else INK, linewidth=0, gid="significant", zorder=4))


def colour_bar(
    figure: Figure,
    panels: Sequence[Axes],
    limits: tuple[float, float],
    orientation: str,
    label: str,
    written: Callable[[float], str] = "{:.2f}".format,
) -> None:
    """Draw the scale of a row of panels, its ends labelled; the ticks are evenly apart where a round step allows it."""
    bar = figure.colorbar(
        panels[-1].collections[0], ax=panels, orientation=orientation, shrink=0.8, aspect=28, pad=0.02, label=label
    )
    ticks = bar_ticks(*limits)
    bar.set_ticks(ticks, labels=[written(tick).replace("-", "−") for tick in ticks])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)


def bar_ticks(low: float, high: float) -> list[float]:
    """Return at most six ticks from `low` to `high`, whole hundredths; 0 is among them if it lies between."""
    hundredths, below = round(100 * (high - low)), round(-100 * low) if low < 0 < high else 0
    steps = (1, 2, 3, 5, 10, 20) if below else (1, 2, 5, 10, 20)
    fits = (each for each in steps if hundredths % each == 0 and below % each == 0 and hundredths <= 5 * each)
    step = next(fits, 0)
    if step:
        return [round(low + each / 100, 2) for each in range(0, hundredths + 1, step)]
    room = 0.12 * (high - low)
    inner = [float(tick) for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)]
    return [low, *(tick for tick in inner if low + room < tick < high - room), high]
