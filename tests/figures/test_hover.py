from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from sensikit.figures.hover import spots


def test_cells_and_marked_points_are_told_where_they_stand() -> None:
    figure = Figure(figsize=(2, 2))
    upper, lower = figure.add_axes((0, 0.5, 1, 0.5)), figure.add_axes((0, 0, 1, 0.5))
    upper.pcolormesh(np.array([[1.5, np.nan], [-0.25, 3.0]]))
    upper.set_xticks([0.5, 1.5], ["p", "q"])
    upper.set_yticks([0.5, 1.5], ["r", "s"])
    upper.set(xlim=(0, 2), ylim=(2, 0))
    lower.plot([0, 1, 9], [2, 4, 4], marker="o", label="x")
    lower.plot([0, 1], [2, 4], marker="v")  # again, for how it looks
    lower.plot([0, 1], [1, 1], label="no marks")
    lower.set(xlim=(0, 2), ylim=(0, 4))
    assert spots(figure) == [
        (0, 0, 500, 250, "r · p: 1.5"), (0, 250, 500, 250, "s · p: −0.25"), (500, 250, 500, 250, "s · q: 3"),
        (0, 750, 0, 0, "x: 0, 2"), (500, 500, 0, 0, "x: 1, 4"),
    ]  # fmt: skip
