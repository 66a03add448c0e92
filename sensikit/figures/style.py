"""What every figure shares: what it returns, widths, colours, lines, and how it becomes files."""

from __future__ import annotations

import base64
import contextlib
import functools
import html
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sensikit.files import replacing, write_text
from sensikit.tables import csv_of

Arguments = ParamSpec("Arguments")

COLUMN, FULL = 3.3, 6.9
"""Widths in inches: one column, and both columns, of a two-column page."""

INK, MUTED, RULE = "#1a1a1a", "#6b6b6b", "#d9d9d9"
# Okabe and Ito (2008), told apart with every common colour blindness
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

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


TIERS = {
    # dark to bright, none of them a colour of a run; each can be read as text on white
    "High": Line("High", "#2d1160", "-", "s"),
    "Low": Line("Low", "#8c2981", (0, (4, 1.5)), "^"),
    "Very Low": Line("Very Low", "#c92f5c", (0, (1, 1)), "v"),
}
NO_TIER = Line("no level", MUTED, "-", "o")
"""Where it is not known how much text a group has."""


def contrast(one: Any, other: Any) -> Any:
    """Return the contrast ratio of two colours (or of arrays of RGB, (..., 3)), 1 to 21, as WCAG 2.1 defines it.

    >>> float(contrast("white", "black"))
    21.0
    """
    levels = [_luminance(colour) + 0.05 for colour in (one, other)]
    return np.maximum(*levels) / np.minimum(*levels)


def _luminance(colour: Any) -> Any:
    parts = np.asarray(to_rgb(colour) if isinstance(colour, str) else colour)[..., :3]
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def run_line(index: int, label: str) -> Line:
    """Return how to draw the run at `index`: it looks the same in every figure."""
    styles = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
    return Line(label, COLOURS[index % len(COLOURS)], styles[index % 4], "os^vDP"[index % 6], 1.5)


HOLLOW: Any = {"linestyle": "", "markerfacecolor": "none", "markersize": 2.4, "markeredgewidth": 0.5, "alpha": 0.7}
"""How a single training seed is marked, in the colour of its recipe."""
SEEDS = "Hollow: single training seeds, beside the mean of their recipe and its 95% interval over them. "


class Captioned(Figure):
    """A figure of matplotlib's with the caption that says how to read it; a notebook shows both."""

    caption = ""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the figure over its caption, as a notebook shows it."""
        image = io.BytesIO()
        with matplotlib.rc_context(RC), quiet():
            self.savefig(image, format="svg", metadata={"Date": None})
        source = f"data:image/svg+xml;base64,{base64.b64encode(image.getvalue()).decode('ascii')}"
        caption = html.escape(self.caption)
        shown = f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
        return {"text/html": shown, "text/plain": self.caption}


class Drawn(NamedTuple):
    """A figure, the tidy frame that it shows, and the caption that says how to read it."""

    figure: Captioned
    data: pd.DataFrame
    caption: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the figure over its caption, as a notebook shows it."""
        return self.figure._repr_mimebundle_()


def styled(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Return `draw` under the figures' settings; the caller's own settings stay as they are."""

    @functools.wraps(draw)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Drawn:
        with matplotlib.rc_context(RC), quiet():
            drawn = draw(*args, **kwargs)
            drawn.figure.caption = drawn.caption
            drawn.figure.draw_without_rendering()  # ticks are made when first drawn: here, not under other settings
            drawn.figure.set_layout_engine("none")  # the layout stays, and is not computed again for each file
            vars(drawn.figure)["_layout_engine"] = None  # with any engine, each file is drawn twice
        return drawn

    return wrapped


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Do not warn of characters that the font lacks: they are drawn as boxes, and the data hold them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


KINDS = ("svg", "png", "pdf")


def save(drawn: Drawn, stem: Path, *, title: str = "", note: str = "", kinds: Sequence[str] = ()) -> list[Path]:
    """Write `stem`.svg, .png and .pdf, and the data as `stem`.csv, each in one step; return their paths.

    The same figure gives the same bytes: no date, and identifiers that depend on the content alone. The title and the
    note (signatures and commands) are kept inside the files; `kinds` are some of `KINDS`, all by default.

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
    write_text(written[-1], csv_of(drawn.data))
    return written
