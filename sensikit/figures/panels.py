"""What panels are made of: a canvas, panels on it, what is listed or ruled in them, ticks, one legend for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sensikit.figures.style import Captioned


def canvas(width: float, height: float) -> Captioned:
    """Return an empty figure of `width` × `height` inches that belongs to no window."""
    return Captioned(figsize=(width, height), layout="constrained")


def panels(figure: Figure, count: int, columns: int, **shared: Any) -> list[Axes]:
    """Return `count` panels, row by row; the rest of the last row stays empty. `shared` is as for `subplots`."""
    axes: list[Axes] = figure.subplots(-(-count // columns), columns, squeeze=False, **shared).ravel().tolist()
    for ax in axes[count:]:
        ax.set_axis_off()
    return axes[:count]


def ruled(ax: Axes, axis: Literal["x", "y"]) -> None:
    """Rule a panel across one axis, behind what is drawn."""
    ax.grid(axis=axis)
    ax.set_axisbelow(True)


def listed(ax: Axes, names: Sequence[str]) -> None:
    """List names down a panel, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)


def beside(count: int, index: int, of: int) -> list[float]:
    """Return the places of the marks of one of several runs on `count` rows, so that the runs do not overlap."""
    return [place - 0.35 + 0.7 / of * (index + 0.5) for place in range(count)]


def legend_below(figure: Figure, axes: Sequence[Axes], first: Sequence[str] = ()) -> None:
    """Put one legend for all panels under them, where there is more than one line to tell apart; `first` come first."""
    lines = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    lines = {text: lines[text] for text in dict.fromkeys([*first, *lines]) if text in lines}
    if len(lines) > 1:
        columns = min(len(lines), max(1, int(figure.get_figwidth() / 1.3)))
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=columns)


def plain(value: float, _: float = 0) -> str:
    """Return a tick as plain text, without a power of ten that a reader must work out: −1, 0.01, 20K, 1M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers: powers of ten, on a short one 2 and 5 times those too."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(NullFormatter())  # its own would be an equation


def power_of_ten(value: float, _: float = 0) -> str:
    """Return a power of ten as plain text: 10⁻⁹."""
    return "10" + str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def rounded_up(value: float, step: float) -> float:
    """Return the next multiple of `step`, in whole hundredths: the end of a scale."""
    return round(math.ceil(round(value / step, 6)) * step, 2)
