"""What every figure shares: sizes, colours, the order of the languages, and how a figure becomes files."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sensikit.files import replacing

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


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Return `draw` under the figures' settings; the caller's own settings stay as they are."""

    @functools.wraps(draw)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(RC), quiet():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made when first drawn: here, not under other settings
            figure.set_layout_engine("none")  # what was laid out stays so, and is not worked out for each file anew
        return figure

    return wrapped


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of signs that the font lacks: they are drawn as boxes, and the table beside the figure has them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of `width` × `height` inches that belongs to no window."""
    return Figure(figsize=(width, height), layout="constrained")


def order(languages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the codes by family, within it by tier, then by training pairs (largest first), then by code."""
    tiers = list(TIERS)

    def place(code: str) -> tuple[Any, ...]:
        language = languages[code]
        tier = tiers.index(language["tier"]) if language["tier"] in tiers else len(tiers)
        return language["family"], tier, -language["sizes"].get("train", 0), code

    return sorted(languages, key=place)


def families(languages: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return each family with its codes, in the order of `order`."""
    grouped: dict[str, list[str]] = {}
    for code in order(languages):
        grouped.setdefault(languages[code]["family"], []).append(code)
    return list(grouped.items())


def runs(frame: pd.DataFrame) -> list[str]:
    """Return the labels of the runs in `frame`, in order of appearance; one empty label where it has no run column."""
    return list(dict.fromkeys(frame["run"].astype(str))) if "run" in frame else [""]


def of_run(frame: pd.DataFrame, run: str) -> pd.DataFrame:
    """Return the rows of one run; all of them where `frame` has no run column."""
    return frame[frame["run"].astype(str) == run] if "run" in frame else frame


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend for all panels under them, where there is more than one line to tell apart."""
    found = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    if len(found) > 1:
        columns = min(len(found), max(1, int(figure.get_figwidth() / 1.3)))
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)


def plain(value: float, _: float = 0) -> str:
    """Return a tick as plain text, without a power of ten that a reader must work out: −1, 0.01, 20K, 1M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:g}{sign}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def blank(column: pd.Series[Any]) -> pd.Series[bool]:
    """Return which cells of a column of text are empty, read from a file or made."""
    return column.isna() | column.eq("")


def percent(share: float) -> str:
    """Return a share as text, 0.125 as 12.5%."""
    return f"{100 * share:.4g}%"


def span(values: Iterable[float], shown: str) -> str:
    """Return the least and the most of some numbers as text, "0.96 to 0.98"; one where they look the same.

    Args:
        values: at least one that is a number.
        shown: how one is printed, as `format` takes it.
    """
    found = [value for value in values if value == value]
    ends = format(min(found), shown), format(max(found), shown)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def joined(words: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


KINDS = ("svg", "png", "pdf")


def save(figure: Figure, stem: Path, *, title: str = "", note: str = "", kinds: Sequence[str] = KINDS) -> list[Path]:
    """Write `stem`.svg, .png and .pdf, each in one step; return their paths.

    The same figure gives the same bytes: no date, and identifiers that depend on the content alone.

    Args:
        figure: what to write.
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
    written = []
    with matplotlib.rc_context(RC), quiet():
        for kind in KINDS if kinds is None else kinds:
            path = stem.with_name(f"{stem.name}.{kind}")
            with replacing(path) as partial:
                figure.savefig(partial, format=kind, metadata=metadata[kind])
            written.append(path)
    return written
