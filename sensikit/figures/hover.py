"""Where in a figure its numbers stand and what they are, for a page that tells them under the pointer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

Spot = tuple[int, int, int, int, str]
"""Left, top, width and height in thousandths of the figure, and what stands there; a point has no width."""


def spots(figure: Figure) -> list[Spot]:
    """Return the cells of the heat maps of a figure and the marked points of its lines, each with its numbers."""
    width, height = figure.bbox.size
    found: dict[tuple[int, ...], str] = {}
    for ax in figure.axes:
        for (x0, y0), (x1, y1), text in (*_cells(ax), *_points(ax)):
            (left, bottom), (right, top) = ax.transData.transform([(x0, y0), (x1, y1)])
            place = (min(left, right) / width, 1 - max(bottom, top) / height, abs(right - left) / width,
                     abs(top - bottom) / height)  # fmt: skip
            if all(math.isfinite(each) and 0 <= each <= 1 for each in place):
                found.setdefault(tuple(round(1000 * each) for each in place), text)  # what is drawn twice is told once
    return [(*place, text) for place, text in found.items()]  # type: ignore[misc]


Piece = tuple[tuple[float, float], tuple[float, float], str]
"""Two opposite corners, in the units of the axes, and what stands between them."""


def _cells(ax: Axes) -> Iterator[Piece]:
    for mesh in ax.collections:
        if isinstance(mesh, QuadMesh) and ax.get_label() != "<colorbar>":
            values: Any = mesh.get_array()
            for (row, column), value in np.ndenumerate(np.ma.filled(values, np.nan)):
                if not math.isnan(value):
                    told = f"{_told(ax.yaxis, row + 0.5)} · {_told(ax.xaxis, column + 0.5)}: {_number(value)}"
                    yield (column, row), (column + 1, row + 1), told


def _points(ax: Axes) -> Iterator[Piece]:
    for line in ax.lines:
        if line.get_marker() not in ("", "None", None):
            label = str(line.get_label())
            name = "" if label.startswith("_") or not label else f"{label}: "
            for x, y in np.asarray(line.get_xydata(), dtype=float):
                if math.isfinite(x + y):
                    yield (x, y), (x, y), f"{name}{_told(ax.xaxis, x)}, {_told(ax.yaxis, y)}"


def _told(axis: Axis, value: float) -> str:
    """Return a place on an axis as text: the name that is listed nearest to it, or the number."""
    written, ticks = axis.get_major_formatter(), axis.get_majorticklocs()
    names = written.format_ticks(list(ticks))
    if any(name[:1].isalpha() for name in names):
        return str(names[np.abs(ticks - value).argmin()])
    return str(written(value)) if isinstance(written, PercentFormatter) else _number(value)


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
