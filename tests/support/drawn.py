"""What a figure shows, read back from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.support import synthetic_run

LANGUAGES = synthetic_run.LANGUAGES
ORDER = ["nso", "ind", "msa", "tgl", "nob", "fao", "cat", "fur"]  # by family as in Table 7, then tier


def two(make: Callable[[int], pd.DataFrame]) -> pd.DataFrame:
    """Return two runs whose names do not stand in alphabetical order."""
    return pd.concat([make(0).assign(run="regular"), make(1).assign(run="distilled")], ignore_index=True)


def panels(figure: Figure) -> list[Axes]:
    return [
        ax for ax in figure.axes if any(isinstance(mesh, QuadMesh) for mesh in ax.collections) and ax.get_yticks().size
    ]


def maps(figure: Figure) -> list[Axes]:
    return [ax for ax in panels(figure) if ax.get_label() != "<colorbar>"]


def cells(ax: Axes) -> np.ndarray:
    """The values of a heat map, (rows, columns)."""
    (mesh,) = (each for each in ax.collections if isinstance(each, QuadMesh))
    values = np.asarray(np.ma.filled(mesh.get_array(), np.nan), dtype=float)
    return values.reshape(len(ax.get_yticks()), -1)


def numbers(figure: Figure) -> list[str]:
    return [text.get_text() for ax in maps(figure) for text in ax.texts]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def lines(ax: Axes) -> dict[str, list[tuple[float, float]]]:
    """The points of each curve, by its name in the legend."""
    return {
        str(line.get_label()): list(zip(*line.get_data(), strict=True))
        for line in ax.lines
        if len(line.get_xdata()) > 2
    }
