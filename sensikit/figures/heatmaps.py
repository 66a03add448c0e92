"""Pearson correlation between sensitivities of languages: heat maps with their noise ceiling (Figures 2, 6, 8).

Two runs stand side by side, and beside them what the second one changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sensikit.errors import OptionError
from sensikit.figures import differences
from sensikit.figures.grids import SEQUENTIAL, colour_bar, dark, dots, language_map, places
from sensikit.figures.style import FULL, INK, canvas, families, joined, of_run, order, runs, styled

SUBSETS = {
    "high": "10% high-sensitive parameters",
    "low": "90% low-sensitive parameters",
    "all": "all parameters",
}
VALUES = {"pcc": "PCC", "disattenuated": "PCC ÷ ceiling"}
BAR = 0.75  # inches beside a row of panels for its colour scale
STEP = 0.05  # the ends of a colour scale are multiples of it


def marked(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `frame` with one column more, `at_ceiling`.

    A pair is at its ceiling when the 95% interval of its PCC reaches √(r_l·r_l′): what separates the two languages
    may then be noise. It is not decided (NA) where the interval or the ceiling is missing, nor of a language with
    itself.
    """
    known = frame["pcc_high"].notna() & frame["ceiling"].notna() & (frame["group_a"] != frame["group_b"])
    return frame.assign(at_ceiling=(frame["pcc_high"] >= frame["ceiling"]).astype("boolean").where(known))


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the ordered pairs of different languages, with `at_ceiling`."""
    return marked(frame[frame["group_a"] != frame["group_b"]])


def measured(frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return those of `languages` that a pair in `frame` names."""
    named = {*frame["group_a"], *frame["group_b"]}
    return {code: language for code, language in languages.items() if code in named}


def matrix(frame: pd.DataFrame, codes: list[str], column: str = "pcc") -> pd.DataFrame:
    """Return (n, n) of `column` in the order of `codes`, NaN where there is no such pair.

    On the diagonal of `pcc` is the reliability of each language, the PCC between the halves of its own batches: the
    trivial 1 of a language with itself says nothing, while a pair cannot be expected to exceed the reliabilities
    around it. Other columns have an empty diagonal.
    """
    wide = frame.pivot(index="group_a", columns="group_b", values=column).reindex(index=codes, columns=codes)
    own = frame[frame["group_a"] == frame["group_b"]].set_index("group_a")["ceiling"].reindex(codes)
    values = wide.to_numpy(dtype=float, na_value=np.nan).copy()
    np.fill_diagonal(values, own.to_numpy(dtype=float) if column == "pcc" else np.nan)
    return pd.DataFrame(values, index=list(codes), columns=list(codes))


def colour_range(frame: pd.DataFrame, column: str = "pcc") -> tuple[float, float]:
    """Return the ends of the colour scale of a row of panels: all that is in it, rounded outwards to 0.05."""
    values = shown(frame, column)
    if values.empty:
        return 0.0, 1.0
    low = math.floor(round(values.min() / STEP, 6)) * STEP
    high = math.ceil(round(values.max() / STEP, 6)) * STEP
    high = min(1.0, high) if column == "pcc" else high
    return (round(low, 2), round(high, 2)) if low < high else (round(low - STEP, 2), round(high, 2))


def digits(frame: pd.DataFrame, column: str = "pcc") -> int:
    """Return how many decimals to print in a row of panels: two, or three where two would round something up to 1.00.

    A reliability of 0.999 and a pair at 0.99 are far apart, measured by what is missing to 1.
    """
    return 3 if column == "pcc" and shown(frame).max() >= 0.995 else 2


def shown(frame: pd.DataFrame, column: str = "pcc") -> pd.Series[Any]:
    """Return every number of a row of panels: those of pairs, and with PCC the reliability of languages."""
    own = frame["group_a"] == frame["group_b"]
    return frame[column].where(~own, frame["ceiling"] if column == "pcc" else np.nan).dropna()


@styled
def correlation_heatmaps(
    frame: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    subsets: Sequence[str] = tuple(SUBSETS),
    *,
    task: str = "mt",
    value: str = "pcc",
    difference: pd.DataFrame | None = None,
    width: float = FULL,
) -> Figure:
    """Return the heat maps of PCC between languages: a row for each subset and a column for each run (Figure 2).

    All panels of a subset share one colour scale; the subsets, whose ranges differ widely, have one each. A single
    run has its subsets side by side. On the diagonal, framed, stands the reliability of each language, the noise
    ceiling of what is around it; a dot marks a pair that is at its ceiling.

    Args:
        frame: the rows of correlation.csv, with a column `run` where there are several runs.
        languages: code → {family, tier, sizes}, which give the order and the lines between families.
        subsets: which of high, low and all, in this order.
        task: mt, denoise or lm.
        value: pcc, or disattenuated: the PCC divided by its ceiling.
        difference: the second run minus the first, for each pair (task, subset, language_a, language_b, difference,
            difference_low, difference_high): one column of panels more, where a turned corner marks a pair whose
            interval excludes 0.
        width: of the figure, in inches.

    Raises:
        OptionError: if the frame has none of the subsets for the task.
    """
    frame = frame[frame["task"] == task]
    subsets = [subset for subset in subsets if (frame["subset"] == subset).any()]
    if not subsets:
        raise OptionError(f"task {task}", "has no correlation in the table", "choose a task and subsets that it has")
    labels, languages = runs(frame), measured(frame, languages)
    if len(labels) == 1:
        return _side_by_side(frame, languages, subsets, value, width)
    changed = difference if difference is None else difference[difference["task"] == task]
    columns = len(labels) + (changed is not None)
    side = (width - BAR * (1 + (changed is not None))) / columns
    figure = canvas(width, len(subsets) * (side - 0.05) + 0.2)
    grid = figure.subplots(len(subsets), columns, squeeze=False)
    for row, subset in enumerate(subsets):
        of_group = frame[frame["subset"] == subset]
        panels, limits = list(grid[row][: len(labels)]), colour_range(of_group, value)
        for ax, label in zip(panels, labels, strict=True):
            panel(ax, of_run(of_group, label), languages, limits, side, digits(of_group, value), value)
            ax.set_title(label if row == 0 else "", pad=4)
        name = SUBSETS.get(subset, subset)
        if side < 1.7:  # inches: the name is longer than the panel is high
            name = name.replace(" parameters", "\nparameters")
        panels[0].set_ylabel(name, fontsize=7.5, labelpad=4)
        colour_bar(figure, panels, limits, "vertical", VALUES[value])
        if changed is not None:
            of_change = changed[changed["subset"] == subset]
            differences.panel(grid[row][-1], of_change, order(languages), languages, side)
            grid[row][-1].set_title(f"{labels[1]} − {labels[0]}" if row == 0 else "", pad=4)
            colour_bar(figure, [grid[row][-1]], differences.limits(of_change), "vertical", "difference")
    return figure


def _side_by_side(
    frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]], subsets: list[str], value: str, width: float
) -> Figure:
    columns = min(len(subsets), 3 if len(languages) <= 10 else 2)
    rows, side = -(-len(subsets) // columns), width / columns
    figure = canvas(width, rows * (side + 0.62))
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes[len(subsets) :]:
        ax.set_axis_off()
    for ax, subset in zip(axes, subsets, strict=False):
        of_group = frame[frame["subset"] == subset]
        limits = colour_range(of_group, value)
        panel(ax, of_group, languages, limits, side, digits(of_group, value), value)
        ax.set_title(SUBSETS.get(subset, subset), pad=4)
        colour_bar(figure, [ax], limits, "horizontal", VALUES[value])
    return figure


def panel(
    ax: Axes,
    frame: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    limits: tuple[float, float],
    side: float,
    decimals: int,
    value: str = "pcc",
) -> None:
    """Draw the PCC of one subset in one run: `side` is the room for it in inches."""
    codes = order(languages)
    values = matrix(frame, codes, value)
    short = len(codes) > 10 or decimals > 2
    written = values.map(lambda each: number(each, decimals, short))
    size = language_map(ax, values, written, limits, languages, side)
    if value == "pcc":
        for at in range(len(codes)):
            ax.add_patch(Rectangle((at, at), 1, 1, fill=False, edgecolor=INK, linewidth=0.8, clip_on=False, zorder=5))
    found = pairs(frame)
    found = found[found["at_ceiling"].fillna(False)]
    dots(ax, places(found, codes), dark(found[value], limits, SEQUENTIAL).tolist(), size, "at-ceiling")


def number(value: float, decimals: int, short: bool) -> str:
    """Return a correlation as text, never rounded up to 1; `short` leaves out the leading zero."""
    if math.isnan(value):
        return ""
    text = f"{min(value, 1 - 10**-decimals) if value < 1 else value:.{decimals}f}"
    return text.replace("0.", ".", 1) if short else text


def caption(
    frame: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    subsets: Sequence[str] = tuple(SUBSETS),
    *,
    task: str = "mt",
    value: str = "pcc",
    difference: pd.DataFrame | None = None,
) -> str:
    """Return what the heat maps show, with the range of each colour scale and the order of the languages."""
    frame = frame[frame["task"] == task]
    ranges = []
    for subset in subsets:
        if (frame["subset"] == subset).any():
            low, high = colour_range(frame[frame["subset"] == subset], value)
            ranges.append(f"{low:.2f} to {high:.2f} for {SUBSETS.get(subset, subset)}")
    text = (
        "PCC between the lists of parameter sensitivity of every two languages; lower means that the two disagree more "
        "on which parameters matter. "
    )
    if value == "disattenuated":
        text = (
            "PCC between two languages divided by its noise ceiling √(r·r′): what it would be without the noise of "
            "finite batches, as far as that can be told; it may exceed 1. "
        )
    text += (
        f"Colour runs from {'; '.join(ranges)}{', the same for all runs' if len(runs(frame)) > 1 else ''}: do not "
        "compare colours between subsets. "
    )
    text += _noise(frame) if value == "pcc" else ""
    if pairs(frame)["at_ceiling"].notna().any():
        text += "A dot marks a pair whose 95% interval reaches its ceiling: what is missing to it may be noise. "
    if difference is not None:
        text += differences.caption(difference[difference["task"] == task])
    kin = [f"{family} ({', '.join(members)})" for family, members in families(measured(frame, languages))]
    return text + f"Languages by family: {joined(kin)}."


def _noise(frame: pd.DataFrame) -> str:
    if frame["ceiling"].notna().any():
        return (
            "Framed, on the diagonal: the reliability r of each language, the correlation between two halves of its "
            "own batches (Spearman–Brown corrected); √(r·r′) is the noise ceiling of a pair. "
        )
    return "No noise ceiling was measured: the diagonal is left empty. "
