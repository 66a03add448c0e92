"""What a second model changed in the correlation between languages: the difference, and what of it is noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from sensikit.figures.grids import DIVERGING, corners, dark, language_map, places
from sensikit.figures.style import blank


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the ordered pairs of different languages, without the rows of their mean, which name none."""
    return frame[~blank(frame["group_a"]) & (frame["group_a"] != frame["group_b"])]


def means(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the mean over all pairs, one for each task and subset."""
    return frame[blank(frame["group_a"])]


def panel(
    ax: Axes, frame: pd.DataFrame, codes: list[str], languages: Mapping[str, Mapping[str, Any]], side: float
) -> None:
    """Draw the difference of two runs in one subset; a turned corner marks what its interval tells from 0."""
    frame = pairs(frame)
    frame = frame[frame["group_a"].isin(codes) & frame["group_b"].isin(codes)]
    wide = frame.pivot(index="group_a", columns="group_b", values="difference")
    values = wide.reindex(index=codes, columns=codes).astype(float)
    ends = limits(frame)
    decimals = 2 if ends[1] > 0.1 else 3
    written = values.map(lambda each: signed(each, decimals))
    language_map(ax, values, written, ends, languages, side, DIVERGING)
    found = frame[significant(frame)]
    corners(ax, places(found, codes), dark(found["difference"], ends, DIVERGING).tolist(), "significant")


def significant(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return which differences have a 95% interval that excludes 0; false where there is no interval."""
    return (frame["difference_low"] > 0) | (frame["difference_high"] < 0)


def limits(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the scale of differences, the same on both sides of 0, rounded outwards."""
    largest = float(pairs(frame)["difference"].abs().max())
    step = 0.05 if largest > 0.05 else 0.01
    end = round(math.ceil(round(largest / step, 6)) * step, 2) if largest > 0 else step
    return -end, end


def signed(value: float, decimals: int) -> str:
    """Return a difference as text, with its sign and without the leading zero; 0 has none."""
    if math.isnan(value):
        return ""
    text = f"{abs(value):.{decimals}f}".replace("0.", ".", 1)
    return text if not text.strip(".0") else f"{'−' if value < 0 else '+'}{text}"


def caption(frame: pd.DataFrame) -> str:
    """Return what the panels of differences show, and how many pairs moved by more than noise."""
    once = pairs(frame)
    once = once[once["group_a"] < once["group_b"]]
    text = "Right: the second run minus the first, on a scale of its own around 0. "
    if not once["difference_low"].notna().any():
        return text + "No interval was measured. "
    found = [
        f"{int(significant(of_group).sum())} of {len(of_group)} pairs ({subset})"
        for subset, of_group in once.groupby("subset", sort=False)
    ]
    same = " (the same in both runs)" if frame["paired"].all() else ""
    return text + (
        f"A turned corner marks a pair whose 95% interval over batches{same} excludes 0, each pair by itself: "
        f"{', '.join(found)}. "
    )
