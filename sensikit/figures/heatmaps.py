"""Pearson correlation between sensitivities of languages: heat maps with their noise ceiling (Figures 2, 6, 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from sensikit.errors import OptionError
from sensikit.figures.style import FULL, INK, MUTED, canvas, families, joined, of_run, order, runs, styled

GROUPS = {
    "high": "10% high-sensitive parameters",
    "low": "90% low-sensitive parameters",
    "all": "all parameters",
}
PALETTE = "YlGnBu"  # one hue direction, dark for alike: readable in grey print and with any colour blindness
BAR = 0.75  # inches beside a row of panels for its colour scale
STEP = 0.05  # the ends of a colour scale are multiples of it


def marked(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `frame` with one column more, `at_ceiling`.

    A pair is at its ceiling when the 95% interval of its PCC reaches √(r_l·r_l′): what separates the two languages
    may then be noise. It is not decided (NA) where the interval or the ceiling is missing, nor of a language with
    itself.
    """
    known = frame["pcc_high"].notna() & frame["ceiling"].notna() & (frame["language_a"] != frame["language_b"])
    return frame.assign(at_ceiling=(frame["pcc_high"] >= frame["ceiling"]).astype("boolean").where(known))


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the ordered pairs of different languages, with `at_ceiling`."""
    return marked(frame[frame["language_a"] != frame["language_b"]])


def measured(frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return those of `languages` that a pair in `frame` names."""
    named = {*frame["language_a"], *frame["language_b"]}
    return {code: language for code, language in languages.items() if code in named}


def matrix(frame: pd.DataFrame, codes: list[str], column: str = "pcc") -> pd.DataFrame:
    """Return (n, n) of `column` in the order of `codes`, NaN where there is no such pair.

    The diagonal is the reliability of each language: the PCC between the halves of its own batches. The trivial 1
    of a language with itself says nothing, while a pair cannot be expected to exceed the reliabilities around it.
    """
    wide = frame.pivot(index="language_a", columns="language_b", values=column).reindex(index=codes, columns=codes)
    own = frame[frame["language_a"] == frame["language_b"]].set_index("language_a")["ceiling"].reindex(codes)
    values = wide.to_numpy(dtype=float, na_value=np.nan).copy()
    np.fill_diagonal(values, own.to_numpy(dtype=float))
    return pd.DataFrame(values, index=list(codes), columns=list(codes))


def colour_range(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the colour scale of a row of panels: its PCC and reliabilities, rounded outwards to 0.05."""
    values = shown(frame)
    if values.empty:
        return 0.0, 1.0
    low = math.floor(round(values.min() / STEP, 6)) * STEP
    high = min(1.0, math.ceil(round(values.max() / STEP, 6)) * STEP)
    return (round(low, 2), round(high, 2)) if low < high else (round(low - STEP, 2), round(high, 2))


def digits(frame: pd.DataFrame) -> int:
    """Return how many decimals to print in a row of panels: two, or three where two would round something up to 1.00.

    A reliability of 0.999 and a pair at 0.99 are far apart, measured by what is missing to 1.
    """
    return 3 if shown(frame).max() >= 0.995 else 2


def shown(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return every number of a row of panels: the PCC of pairs and the reliability of languages."""
    own = frame["language_a"] == frame["language_b"]
    return frame["pcc"].where(~own, frame["ceiling"]).dropna()


@styled
def correlation_heatmaps(
    frame: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    groups: Sequence[str] = tuple(GROUPS),
    *,
    task: str = "mt",
    width: float = FULL,
) -> Figure:
    """Return the heat maps of PCC between languages: a row for each group and a column for each run (Figure 2).

    All panels of a group share one colour scale; the groups, whose ranges differ widely, have one each. A single
    run has its groups side by side. On the diagonal, framed, stands the reliability of each language, the noise
    ceiling of what is around it; a dot marks a pair that is at its ceiling.

    Args:
        frame: the rows of correlation.csv, with a column `run` where there are several runs.
        languages: code → {family, tier, sizes}, which give the order and the lines between families.
        groups: which of high, low and all, in this order.
        task: mt or denoise.
        width: of the figure, in inches.

    Raises:
        OptionError: if the frame has none of the groups for the task.
    """
    frame = frame[frame["task"] == task]
    groups = [group for group in groups if (frame["group"] == group).any()]
    if not groups:
        raise OptionError(f"task {task}", "has no correlation in the table", "choose a task and groups that it has")
    labels, languages = runs(frame), measured(frame, languages)
    codes = order(languages)
    single = len(labels) == 1
    columns = min(len(groups), 3 if len(codes) <= 10 else 2) if single else len(labels)
    rows = -(-len(groups) // columns) if single else len(groups)
    side = width / columns if single else (width - BAR) / columns
    figure = canvas(width, rows * (side + 0.62) if single else rows * (side - 0.05) + 0.2)
    grid = figure.subplots(rows, columns, squeeze=False)
    for ax in grid.ravel()[len(groups) :] if single else ():
        ax.set_axis_off()
    for row, group in enumerate(groups):
        of_group = frame[frame["group"] == group]
        limits = colour_range(of_group)
        panels = [grid.ravel()[row]] if single else list(grid[row])
        for ax, label in zip(panels, labels, strict=True):
            panel(ax, of_run(of_group, label), languages, codes, limits, side, digits(of_group))
            ax.set_title(GROUPS.get(group, group) if single else label if row == 0 else "", pad=4)
        if not single:
            panels[0].set_ylabel(GROUPS.get(group, group), fontsize=7.5, labelpad=4)
        colour_bar(figure, panels, limits, "horizontal" if single else "vertical")
    return figure


def colour_bar(figure: Figure, panels: Sequence[Axes], limits: tuple[float, float], orientation: str) -> None:
    """Draw the scale of a row of panels, its ends labelled; the ticks are evenly apart where a round step allows it."""
    bar = figure.colorbar(
        panels[-1].collections[0], ax=panels, orientation=orientation, shrink=0.8, aspect=28, pad=0.02, label="PCC"
    )
    ticks = bar_ticks(*limits)
    bar.set_ticks(ticks, labels=[f"{tick:.2f}" for tick in ticks])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)


def bar_ticks(low: float, high: float) -> list[float]:
    """Return at most seven ticks from `low` to `high`, which are whole multiples of 0.05."""
    hundredths = round(100 * (high - low))
    step = next((each for each in (1, 2, 5, 10, 20) if hundredths % each == 0 and hundredths <= 6 * each), 0)
    if step:
        return [round(low + each / 100, 2) for each in range(0, hundredths + 1, step)]
    room = 0.12 * (high - low)
    inner = [float(tick) for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)]
    return [low, *(tick for tick in inner if low + room < tick < high - room), high]


def panel(
    ax: Axes,
    frame: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    codes: list[str],
    limits: tuple[float, float],
    side: float,
    decimals: int,
) -> None:
    """Draw the PCC of one group in one run: `side` is the room for it in inches."""
    values = matrix(frame, codes)
    short = len(codes) > 10 or decimals > 2
    cell = (side - 0.45) / len(codes) * 72  # points
    size = min(7.0, cell / (0.64 * (decimals + 2 - short)))
    written = values.map(lambda value: number(value, decimals, short))
    seaborn.heatmap(
        values, ax=ax, vmin=limits[0], vmax=limits[1], cmap=PALETTE, cbar=False, square=True,
        annot=written.to_numpy() if size >= 3.5 else False, fmt="", annot_kws={"size": size},
        linewidths=0.4, linecolor="white", xticklabels=True, yticklabels=True,
    )  # fmt: skip
    ax.set_facecolor("#eeeeee")  # a pair that was not measured
    ax.tick_params(length=0, pad=1.5, labelsize=min(6.5, cell * 0.62))
    ax.tick_params(axis="x", rotation=0 if cell >= 13 else 90)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="", ylabel="")
    for place in range(len(codes)):
        ax.add_patch(Rectangle((place, place), 1, 1, fill=False, edgecolor=INK, linewidth=0.8, clip_on=False, zorder=5))
    edges = np.cumsum([len(members) for _, members in families(languages)])[:-1]
    ax.hlines(edges, 0, len(codes), color=MUTED, linewidth=0.9)
    ax.vlines(edges, 0, len(codes), color=MUTED, linewidth=0.9)
    mark_ceiling(ax, frame, codes, limits, size)


def number(value: float, decimals: int, short: bool) -> str:
    """Return a correlation as text, never rounded up to 1; `short` leaves out the leading zero."""
    if math.isnan(value):
        return ""
    text = f"{min(value, 1 - 10**-decimals) if value < 1 else value:.{decimals}f}"
    return text.replace("0.", ".", 1) if short else text


def mark_ceiling(ax: Axes, frame: pd.DataFrame, codes: Sequence[str], limits: tuple[float, float], size: float) -> None:
    """Put a dot into the corner of every cell whose PCC is at its noise ceiling."""
    place = {code: index for index, code in enumerate(codes)}
    found = pairs(frame)
    found = found[found["at_ceiling"].fillna(False)]
    x = [place[code] + 0.86 for code in found["language_b"]]
    y = [place[code] + 0.16 for code in found["language_a"]]
    dark = (found["pcc"] - limits[0]) / (limits[1] - limits[0]) > 0.55
    ax.scatter(x, y, s=max(1.0, (size / 3) ** 2), c=np.where(dark, "white", INK), linewidths=0, gid="at-ceiling")


def caption(
    frame: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    groups: Sequence[str] = tuple(GROUPS),
    *,
    task: str = "mt",
) -> str:
    """Return what the heat maps show, with the range of each colour scale and the order of the languages."""
    frame = frame[frame["task"] == task]
    ranges = []
    for group in groups:
        if (frame["group"] == group).any():
            low, high = colour_range(frame[frame["group"] == group])
            ranges.append(f"{low:.2f} to {high:.2f} for {GROUPS.get(group, group)}")
    text = (
        "PCC between the lists of parameter sensitivity of every two languages; lower means that the two disagree more "
        f"on which parameters matter. Colour runs from {'; '.join(ranges)}"
        f"{', the same for all runs' if len(runs(frame)) > 1 else ''}: do not compare colours between groups. "
    )
    if frame["ceiling"].notna().any():
        text += (
            "Framed, on the diagonal: the reliability r of each language, the correlation between two halves of its "
            "own batches (Spearman–Brown corrected); √(r·r′) is the noise ceiling of a pair. "
        )
    else:
        text += "No noise ceiling was measured: the diagonal is left empty. "
    if pairs(frame)["at_ceiling"].notna().any():
        text += "A dot marks a pair whose 95% interval reaches its ceiling: what is missing to it may be noise. "
    kin = [f"{family} ({', '.join(members)})" for family, members in families(measured(frame, languages))]
    return text + f"Languages by family: {joined(kin)}."
