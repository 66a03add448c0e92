"""How sensitivity is spread over the parameters: violins with their standard deviation (Figure 10)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sensikit.figures.distributions import placed, wide
from sensikit.figures.style import FULL, INK, Line, canvas, legend_below, of_run, run_line, runs, span, styled

STATISTICS = ("mean_below_top1", "std_below_top1", "cv_below_top1")


@styled
def sensitivity_violins(
    frame: pd.DataFrame,
    statistics: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    *,
    task: str = "mt",
    width: float = FULL,
) -> Figure:
    """Return violins of S(θ,B_l) without its top 1%, with its standard deviation on a second axis.

    Below the two stands the deviation over the mean, which does not move with the scale of the loss. All violins are
    of one area; two runs share a violin, the first on its left side.

    Args:
        frame: the rows of distribution.csv, with a column `run` where there are several runs.
        statistics: the rows of balance.csv of the same runs.
        languages: code → {family, tier, sizes}.
        task: mt, denoise or lm.
        width: of the figure, in inches.
    """
    frame, table = frame[frame["task"] == task], wide(statistics, task)
    codes, labels = placed(frame, languages), runs(frame)
    figure = canvas(width, 3.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    second = upper.twinx()
    power = 10.0 ** math.floor(math.log10(frame["high"].max()))
    shapes = densities(frame)
    widest = float(shapes["density"].max())
    for index, label in enumerate(labels):
        line = run_line(index, label)
        for place, code in enumerate(codes):
            shape = shapes[(shapes["run"] == label) & (shapes["group"] == code)]
            _violin(upper, shape, place + _centre(index, len(labels)), _sides(index, len(labels)), widest, power, line)
        found = of_run(table, label).set_index("group").reindex(codes)
        places = [place + _offset(index, len(labels)) for place in range(len(codes))]
        second.plot(
            places, found["std_below_top1"] / power, linestyle="", marker=line.marker, markerfacecolor="white",
            markeredgecolor=line.colour, markeredgewidth=1.0, markersize=4, zorder=4,
        )  # fmt: skip
        lower.plot(
            places, found["cv_below_top1"], linestyle="", marker=line.marker, color=line.colour, markersize=4,
            label=label,
        )  # fmt: skip
    exponent = str(round(math.log10(power))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    upper.set_ylabel(f"sensitivity, 10{exponent} nats")
    second.set_ylabel(f"standard deviation\n(open marks), 10{exponent} nats")
    lower.set_ylabel("standard deviation\n÷ mean")
    lower.set_xticks(range(len(codes)), codes)
    lower.grid(axis="y")
    lower.set_axisbelow(True)
    upper.set_ylim(bottom=0)
    second.set_ylim(0, 1.15 * table["std_below_top1"].max() / power)
    lower.margins(y=0.25)
    second.spines["right"].set_visible(True)
    for ax in (upper, second, lower):
        ax.tick_params(axis="x", length=0)
    legend_below(figure, [lower])
    return figure


def densities(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the histogram as a density over S (run, language, low, high, density), of area 1 for each violin."""
    frame = frame if "run" in frame else frame.assign(run="")
    total = frame.groupby(["run", "group"])["count"].transform("sum")
    density = frame["count"] / total / (frame["high"] - frame["low"])
    return frame[["run", "group", "low", "high"]].assign(density=density)


def _sides(index: int, runs_: int) -> tuple[float, float]:
    """Return how far a violin reaches to the left and to the right of its place, in places."""
    if runs_ == 2:
        return (0.42, 0.0) if index == 0 else (0.0, 0.42)
    return 0.42 / runs_, 0.42 / runs_


def _centre(index: int, runs_: int) -> float:
    """Return where a violin stands among those of its language; two share a place."""
    return 0.0 if runs_ == 2 else (index - (runs_ - 1) / 2) * 0.84 / runs_


def _offset(index: int, runs_: int) -> float:
    """Return where a mark stands: beside the violin."""
    return (-0.16, 0.16)[index] if runs_ == 2 else _centre(index, runs_) + 0.2 / runs_


def _violin(
    ax: Axes, shape: pd.DataFrame, place: float, sides: tuple[float, float], widest: float, power: float, line: Line
) -> None:
    if shape.empty:
        return
    shape = shape.sort_values("low")
    heights = (shape["low"] + shape["high"]).to_numpy() / 2 / power
    half = shape["density"].to_numpy() / widest
    ax.fill_betweenx(
        heights, place - sides[0] * half, place + sides[1] * half, color=line.colour, alpha=0.55, linewidth=0
    )
    outline = [place + (sides[1] if sides[1] else -sides[0]) * half]
    outline += [place - sides[0] * half] if all(sides) else []
    for edge in outline:
        ax.plot(edge, heights, color=line.colour, linewidth=0.6)
    ax.plot([place, place], [heights[0], heights[-1]], color=INK, linewidth=0.3)


def caption(statistics: pd.DataFrame, *, task: str = "mt") -> str:
    """Return what the violins show, with the span of their coefficient of variation."""
    table = wide(statistics, task)
    text = (
        "Distribution of the sensitivities S(θ,B_l) over the parameters, the top 1% removed; all violins have the same "
        "area"
    )
    text += ", the first run on the left side. " if table["run"].nunique() == 2 else ". "
    text += (
        "Open marks: standard deviation, on the right axis. It moves with the scale of the loss, so below it stands "
        "its ratio to the mean, where lower means more balanced"
    )
    spans = [
        f"{label} {span(rows, '.2f')}".strip()
        for label in runs(table)
        for rows in [of_run(table, label)["cv_below_top1"]]
    ]
    return f"{text}: {', '.join(spans)}."
