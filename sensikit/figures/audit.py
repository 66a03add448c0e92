"""Is the Taylor estimate right? It against exact ablation, parameter by parameter (Eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sensikit.figures.style import COLOURS, FULL, MUTED, canvas, of_run, order, runs, span, styled

STATISTICS = {"spearman": "Spearman", "pearson": "Pearson", "top10_agreement": "top 10%"}
MANY = 2000  # points of a panel beyond which a vector file would be too large


@styled
def audit_scatter(
    frame: pd.DataFrame,
    summary: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    *,
    task: str = "mt",
    width: float = FULL,
) -> Figure:
    """Return exact |ΔL| against the Taylor estimate on logarithmic axes: a panel for each language, on one scale.

    Args:
        frame: the rows of audit.csv, with a column `run` where there are several runs.
        summary: the rows of audit-summary.csv of the same runs.
        languages: code → {family, tier, sizes}.
        task: mt, denoise or lm.
        width: of the figure, in inches.
    """
    frame, summary = frame[frame["task"] == task], summary[summary["task"] == task]
    codes = [code for code in order(languages) if code in set(frame["group"])]
    codes += [code for code in dict.fromkeys(frame["group"]) if code not in codes]
    panels = [(label, code) for label in runs(frame) for code in codes]
    columns = min(4, len(codes)) if len(codes) > 1 else min(4, max(2, len(panels)))
    rows = -(-len(panels) // columns)
    side = width / max(columns, 2)
    figure = canvas(width, rows * min(side, 3.0) + 0.25)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    ends = _ends(frame)
    for ax, (label, code) in zip(axes, panels, strict=False):
        points = of_run(frame[frame["group"] == code], label)
        found = of_run(summary[summary["group"] == code], label)
        _scatter(ax, points, ends)
        ax.text(
            0.99, 0.03, _said(found), transform=ax.transAxes, ha="right", va="bottom", fontsize=5.2, linespacing=1.35
        )
        ax.set_title(" · ".join(part for part in (label, code) if part))
        ax.label_outer()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.supxlabel("Taylor estimate |θ·∇L|, nats", fontsize=7)
    figure.supylabel("exact |ΔL| without the parameter, nats", fontsize=7)
    return figure


def _ends(frame: pd.DataFrame) -> tuple[float, float]:
    values = frame[["taylor", "exact"]].to_numpy(dtype=float)
    values = values[values > 0]
    if not values.size:
        return 1e-12, 1.0
    low, high = np.quantile(values, 0.001), values.max()
    return float(10 ** np.floor(np.log10(low))), float(10 ** np.ceil(np.log10(high)))


def _scatter(ax: Axes, points: pd.DataFrame, ends: tuple[float, float]) -> None:
    positive = points[(points["taylor"] > 0) & (points["exact"] > 0)]
    ax.plot(ends, ends, color=MUTED, linewidth=0.7, zorder=1)
    ax.scatter(
        positive["taylor"], positive["exact"], s=2.2, color=COLOURS[0], alpha=0.35, linewidths=0, zorder=2,
        rasterized=len(positive) > MANY, gid="audit",
    )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(ends)
    ax.set_ylim(ends)
    ax.set_aspect("equal")
    ticks = [10.0**power for power in range(round(np.log10(ends[0])), round(np.log10(ends[1])) + 1)]
    chosen = ticks[:: max(1, -(-len(ticks) // 5))]
    ax.set_xticks(chosen)
    ax.set_yticks(chosen)
    ax.xaxis.set_major_formatter(power_of_ten)
    ax.yaxis.set_major_formatter(power_of_ten)
    ax.minorticks_off()


def power_of_ten(value: float, _: float = 0) -> str:
    """Return a power of ten as plain text: 10⁻⁹."""
    return "10" + str(round(np.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _said(found: pd.DataFrame) -> str:
    rows = found.set_index("statistic")
    lines = []
    for name, words in STATISTICS.items():
        if name not in rows.index:
            continue
        value, low, high = rows.loc[[name], ["value", "value_low", "value_high"]].to_numpy(dtype=float)[0]
        show = "{:.0%}".format if name == "top10_agreement" else lambda each: f"{each:.3f}".replace("0.", ".", 1)
        bounds = "" if np.isnan(low) or np.isnan(high) else f" ({show(low)}–{show(high)})"
        lines.append(f"{words} {show(value)}{bounds}")
    return "\n".join(lines)


def caption(frame: pd.DataFrame, summary: pd.DataFrame, *, task: str = "mt") -> str:
    """Return what the points are, how many, and how well the two agree."""
    frame, summary = frame[frame["task"] == task], summary[summary["task"] == task]
    sampled = sorted(summary["sampled"].dropna().astype(int).unique())
    batches = sorted(summary["batches"].dropna().astype(int).unique())
    text = (
        "Each point is a parameter: the sensitivity that its gradient estimates (Eq. 2) against the change of the loss "
        "when it is set to zero (Eq. 1), mean of the absolute values over the same batches, in double precision; on "
        f"the line the two are equal. Of each language, {span(sampled, ',d')} parameters were sampled; batches: "
        f"{span(batches, ',d')}. The statistics weight each stratum by its size, intervals are 95%. "
    )
    zero = int(((frame["taylor"] <= 0) | (frame["exact"] <= 0)).sum())
    text += f"Not drawn: {zero} with a value of 0. " if zero else ""
    least = summary[summary["statistic"] == "spearman"]["value"]
    return text + (f"Spearman's correlation is {span(least, '.3f')}." if least.notna().any() else "")
