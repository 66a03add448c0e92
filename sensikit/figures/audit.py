"""Is the Taylor estimate right? The estimate against exact ablation, parameter by parameter (Eq. 1 and 2)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sensikit.figures import conclusions
from sensikit.figures.frames import Groups, of_run, of_task, runs
from sensikit.figures.panels import canvas, panels, power_of_ten
from sensikit.figures.spread import placed
from sensikit.figures.style import COLOURS, FULL, MUTED, Drawn, styled
from sensikit.figures.words import captioned, joined, span
from sensikit.sensitivity.strata import FEWEST

STATISTICS = {"spearman": "Spearman", "pearson": "Pearson", "top10_agreement": "top 10%"}
MANY = 2000  # points of a panel beyond which a vector file would be too large


@styled
def audit_scatter(
    frame: pd.DataFrame, summary: pd.DataFrame, groups: Groups, *, task: str = "", width: float = FULL
) -> Drawn:
    """Return exact |ΔL| against the Taylor estimate on logarithmic axes: a panel for each group, on one scale.

    `frame` has the rows of audit.csv, and `summary` those of audit-summary.csv of the same runs.
    """
    frame, summary = of_task(frame, task), of_task(summary, task)
    keys = placed(frame, groups)
    shown = [(label, key) for label in runs(frame) for key in keys]
    columns = min(4, len(keys)) if len(keys) > 1 else min(4, max(2, len(shown)))
    side = width / max(columns, 2)
    figure = canvas(width, -(-len(shown) // columns) * min(side, 3.0) + 0.25)
    ends = _ends(frame)
    axes = panels(figure, len(shown), columns, sharex=True, sharey=True)
    for ax, (label, key) in zip(axes, shown, strict=True):
        _scatter(ax, of_run(frame[frame["group"] == key], label), ends)
        agreement = _agreement(of_run(summary[summary["group"] == key], label))
        ax.text(0.99, 0.03, agreement, transform=ax.transAxes, ha="right", va="bottom", fontsize=5.2, linespacing=1.35)
        ax.set_title(" · ".join(part for part in (label, key) if part))
        ax.label_outer()
    figure.supxlabel("Taylor estimate |θ·∇L|, nats", fontsize=7)
    figure.supylabel("exact |ΔL| without the parameter, nats", fontsize=7)
    return Drawn(figure, frame, _caption(frame, summary))


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


def _agreement(rows: pd.DataFrame) -> str:
    rows = rows.set_index("statistic")
    lines = []
    for name, words in STATISTICS.items():
        if name not in rows.index:
            continue
        value, low, high = rows.loc[[name], ["value", "value_low", "value_high"]].to_numpy(dtype=float)[0]
        show = "{:.0%}".format if name == "top10_agreement" else lambda each: f"{each:.3f}".replace("0.", ".", 1)
        bounds = "" if np.isnan(low) or np.isnan(high) else f" ({show(low)}–{show(high)})"
        lines.append(f"{words} {show(value)}{bounds}")
    return "\n".join(lines)


def _caption(frame: pd.DataFrame, summary: pd.DataFrame) -> str:
    sampled = sorted(summary["sampled"].dropna().astype(int).unique())
    batches = sorted(summary["batches"].dropna().astype(int).unique())
    text = "The statistics weight each stratum by its size; "
    ends = summary[summary["value_low"].notna()]["statistic"].map(STATISTICS).unique()
    text += f"intervals are 95%, of {joined(ends)}" if len(ends) else "none has an interval"
    if "Pearson" not in ends:
        text += f" (one of fewer than {FEWEST} parameters would not hold, and Pearson's is decided by a few of them)"
    zero = int(((frame["taylor"] <= 0) | (frame["exact"] <= 0)).sum())
    return captioned(
        "The sensitivity of a parameter as its gradient estimates it (Eq. 2) against the change of the loss when it is "
        "set to zero (Eq. 1), mean of the absolute values over the same batches, in double precision",
        f"Each point is a parameter; on the line the two are equal. Of each language, {span(sampled, ',d')} parameters "
        f"were sampled; batches: {span(batches, ',d')}. {text}.",
        f"Not drawn: {zero} with a value of 0." if zero else "",
        result=conclusions.agreement(summary),
    )
