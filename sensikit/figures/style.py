"""What every figure shares: what it returns, sizes, colours, lines, panels and ticks, and how it becomes files."""

from __future__ import annotations

import base64
import contextlib
import functools
import html
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, ParamSpec

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sensikit.files import replacing, write_text

Arguments = ParamSpec("Arguments")

COLUMN, FULL = 3.3, 6.9
"""Widths in inches: one column, and both columns, of a two-column page."""

INK, MUTED, RULE = "#1a1a1a", "#6b6b6b", "#d9d9d9"
# Okabe and Ito (2008), told apart with every common colour blindness
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
TIERS = {"High": "#1b4f72", "Low": "#5b9bc8", "Very Low": "#b9d6ea"}

RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same outlines on every machine
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titleweight": "normal",
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 300,
    "text.parse_math": False,  # a run called "a$b$" is not an equation
    "svg.fonttype": "path",  # looks the same in a page that may load nothing
    "svg.hashsalt": "sensikit",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Line:
    """How one line is drawn: told apart from others without its colour."""

    name: str
    colour: str
    dashes: Any
    marker: str
    width: float = 1.0


def run_line(index: int, label: str) -> Line:
    """Return how to draw the run at `index`: it looks the same in every figure."""
    styles = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
    return Line(label, COLOURS[index % len(COLOURS)], styles[index % 4], "os^vDP"[index % 6], 1.5)


class Drawn(NamedTuple):
    """A figure, the tidy frame that it shows, and the caption that says how to read it."""

    figure: Figure
    data: pd.DataFrame
    caption: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the figure over its caption, as a notebook shows it."""
        image = io.BytesIO()
        with matplotlib.rc_context(RC), quiet():
            self.figure.savefig(image, format="svg", metadata={"Date": None})
        source = f"data:image/svg+xml;base64,{base64.b64encode(image.getvalue()).decode('ascii')}"
        caption = html.escape(self.caption)
        shown = f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
        return {"text/html": shown, "text/plain": self.caption}


def styled(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Return `draw` under the figures' settings; the caller's own settings stay as they are."""

    @functools.wraps(draw)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Drawn:
        with matplotlib.rc_context(RC), quiet():
            drawn = draw(*args, **kwargs)
            drawn.figure.draw_without_rendering()  # ticks are made when first drawn: here, not under other settings
            drawn.figure.set_layout_engine("none")  # the layout stays, and is not computed again for each file
        return drawn

    return wrapped


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Do not warn of characters that the font lacks: they are drawn as boxes, and the data hold them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of `width` × `height` inches that belongs to no window."""
    return Figure(figsize=(width, height), layout="constrained")


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


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend for all panels under them, where there is more than one line to tell apart."""
    lines = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
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


KINDS = ("svg", "png", "pdf")


def save(drawn: Drawn, stem: Path, *, title: str = "", note: str = "", kinds: Sequence[str] = ()) -> list[Path]:
    """Write `stem`.svg, .png and .pdf, and the data as `stem`.csv, each in one step; return their paths.

    The same figure gives the same bytes: no date, and identifiers that depend on the content alone.

    Args:
        drawn: what to write.
        stem: the path without its ending.
        title: of the figure, kept inside the files.
        note: signatures and commands, kept inside the files.
        kinds: which of `KINDS`; all by default.

    Raises:
        SensikitError: if the place cannot be written or the disk is full.
    """
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Title": title, "Description": note, "Date": None},
        "png": {"Title": title, "Description": note},
        "pdf": {"Title": title, "Subject": note, "CreationDate": None},
    }
    written = [stem.with_name(f"{stem.name}.{kind}") for kind in (*(kinds or KINDS), "csv")]
    with matplotlib.rc_context(RC), quiet():
        for path in written[:-1]:
            kind = path.suffix[1:]
            with replacing(path) as partial:
                drawn.figure.savefig(partial, format=kind, metadata=metadata[kind])
    write_text(written[-1], drawn.data.to_csv(index=False))
    return written
