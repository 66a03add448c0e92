"""Quality of several systems: what each gains over the first, and quality against the masking ratio (Figure 11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.ticker import PercentFormatter

from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.scoring import ALL
from sensikit.figures.frames import blank, of_metric
from sensikit.figures.panels import canvas, legend_below, listed, panels, ruled
from sensikit.figures.style import COLOURS, COLUMN, FULL, INK, MUTED, TIERS, Drawn, styled
from sensikit.figures.words import scale_of

LOOKS = {
    ALL: (INK, "o", "-", 1.6), **{tier: (line.colour, line.marker, line.dashes, 1.0) for tier, line in TIERS.items()},
}  # fmt: skip


def gains(significance: pd.DataFrame, metric: str = "") -> pd.DataFrame:
    """Return the differences to the first system, by tier: one row for each (direction, system_b, tier)."""
    rows = of_metric(significance, metric)
    rows = rows[blank(rows["group"])]
    first = rows.groupby("direction", sort=False)["system_a"].transform("first")
    return rows[(rows["system_a"] == first) & rows["tier"].isin((*TIERS, ALL))].reset_index(drop=True)


@styled
def quality_gains(significance: pd.DataFrame, metric: str = "", *, width: float = FULL) -> Drawn:
    """Return the difference of each system to the first with its paired interval: a panel for each resource level.

    Filled marks are differences whose p is below 0.05. All panels share one scale.

    Args:
        significance: the rows of significance.csv, of one direction.
        metric: by default BLEU, or the first that the table has.
        width: of the figure, in inches.
    """
    rows = gains(significance, metric)
    metric, first = rows[["metric", "system_a"]].iloc[0]
    tiers = [tier for tier in (*TIERS, ALL) if tier in set(rows["tier"])]
    systems = list(dict.fromkeys(rows["system_b"]))
    figure = canvas(width, 0.75 + 0.2 * len(systems))
    axes = panels(figure, len(tiers), len(tiers), sharex=True, sharey=True)
    for ax, tier in zip(axes, tiers, strict=True):
        of_tier = rows[rows["tier"] == tier].set_index("system_b").reindex(systems)
        ax.axvline(0, color=MUTED, linewidth=0.6)
        places = list(range(len(systems)))
        ax.hlines(places, of_tier["difference_low"], of_tier["difference_high"], color=COLOURS[0], linewidth=1.2)
        sure = (of_tier["p"] < 0.05).to_numpy()
        for chosen, fill in ((sure, COLOURS[0]), (~sure, "white")):
            at = [place for place, kept in zip(places, chosen, strict=True) if kept]
            ax.plot(
                of_tier["difference"].to_numpy()[chosen], at, linestyle="", marker="o", markersize=4.2,
                markerfacecolor=fill, markeredgecolor=COLOURS[0], markeredgewidth=1.0,
            )  # fmt: skip
        ax.set_title("all languages" if tier == ALL else tier)
        ruled(ax, "x")
        listed(ax, systems)
    figure.supxlabel(f"change in {scale_of(metric)} from {first}", fontsize=7)
    lower = "" if METRICS[metric].higher else ": below 0, the system is better"
    caption = (
        f"{METRICS[metric].label} of each system minus that of {first}{lower}, mean over the languages of each "
        "resource level, with 95% intervals of a paired bootstrap over the test sentences; filled where p < 0.05, not "
        "corrected for their number. One training run each: nothing here speaks of other training seeds."
    )
    return Drawn(figure, rows, caption)


def by_ratio(tiers: pd.DataFrame, systems: Mapping[str, Mapping[str, Any]], metric: str = "") -> pd.DataFrame:
    """Return the rows of tiers.csv with `mask_ratio`, `method` and `design` of their system.

    Only systems that differ in the masking ratio alone say what it does: of each direction and design (all that a
    system was trained with but the ratio, numbered) that has at least two ratios, one row for each ratio and tier. Of
    systems that agree in the ratio too, the first is taken.
    """
    rows = of_metric(tiers, metric)
    designs = {name: _design(of) for name, of in systems.items()}
    numbers = {design: number for number, design in enumerate(dict.fromkeys(designs.values()))}
    ratio = rows["system"].map(lambda name: systems[name].get("mask_ratio"))
    rows = rows.assign(
        mask_ratio=pd.to_numeric(ratio, errors="coerce"),
        method=rows["system"].map(lambda name: systems[name].get("method") or ""),
        design=rows["system"].map(lambda name: numbers[designs[name]]),
    )
    rows = rows.dropna(subset="mask_ratio").drop_duplicates(["direction", "design", "mask_ratio", "tier"])
    several = rows.groupby(["direction", "design"])["mask_ratio"].transform("nunique") > 1
    return rows[several].sort_values(["direction", "design", "mask_ratio"], kind="stable", ignore_index=True)


def _design(system: Mapping[str, Any]) -> str:
    own = ("checkpoint", "sha256", "mask_ratio", "updates")  # training that stops early does so where it likes
    return repr(sorted((name, value) for name, value in system.items() if name not in own))


@styled
def masking_ratio(rows: pd.DataFrame, *, width: float = COLUMN) -> Drawn:
    """Return quality against the masking ratio, a line for each resource level and one for all languages (Figure 11).

    Args:
        rows: those of one metric, direction and design from `by_ratio`.
        width: of the figure, in inches.
    """
    metric = rows["metric"].iloc[0]
    figure = canvas(width, width * 0.78)
    ax = figure.subplots()
    for tier in (tier for tier in LOOKS if tier in set(rows["tier"])):
        points, (colour, marker, dashes, size) = rows[rows["tier"] == tier], LOOKS[tier]
        bounds = points["value_low"], points["value_high"]
        ax.fill_between(points["mask_ratio"], *bounds, color=colour, alpha=0.12, linewidth=0)
        ax.plot(
            points["mask_ratio"], points["value"], color=colour, marker=marker, linestyle=dashes, linewidth=size,
            label="all languages" if tier == ALL else tier,
        )  # fmt: skip
    ax.set_xlabel("masking ratio")
    ax.set_ylabel(scale_of(metric))
    ax.set_xticks(sorted(rows["mask_ratio"].unique()))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    if METRICS[metric].higher:
        ax.set_ylim(bottom=0)
    ruled(ax, "y")
    legend_below(figure, [ax])
    caption = (
        f"{METRICS[metric].label} of {rows['method'].iloc[0] or 'one method'} trained with "
        f"{rows['mask_ratio'].nunique()} masking ratios, mean over the languages of each resource level; shaded: 95% "
        "bootstrap bounds over the test sentences. One training run for each point: part of the difference between "
        "them is the seed."
    )
    return Drawn(figure, rows, caption)
