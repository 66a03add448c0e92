"""What every chapter of a report is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from sensikit.report.inputs import Evaluated, Material
from sensikit.tables import Table

WIDE = 4.6  # inches of a single panel on a page, wider than the column it would have in print
MANIFEST = "manifest.json"
TASKS = {"mt": "translation", "denoise": "denoising"}


@dataclass(frozen=True)
class Exhibit:
    """A figure with the data that it shows, or a table.

    Attributes:
        stem: the name of its own files.
        title: over it.
        caption: under it.
        source: the file of the run directory that it comes from.
        content: what is shown.
        task: whose numbers it shows, where it is of one task.
        evaluation: that it comes from, where it is no run.
    """

    stem: str
    title: str
    caption: str
    source: str
    content: tuple[Figure, pd.DataFrame] | Table
    task: str = ""
    evaluation: Evaluated | None = None


def by_task(material: Material, source: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each task of a tidy table with its rows; nothing where no run has the table."""
    frame = material.tables.get(source)
    if frame is not None:
        yield from ((task, frame[frame["task"] == task]) for task in dict.fromkeys(frame["task"]))


def named(title: str, task: str) -> str:
    """Return a title with its task."""
    return f"{title}, {TASKS.get(task, task)}"
