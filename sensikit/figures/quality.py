"""Quality of several systems: what each gains over the first, and quality against the masking ratio (Figure 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter
from scipy.special import ndtri, stdtrit

from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import FEWEST, LEVEL, spread
from sensikit.evaluation.scoring import ALL
from sensikit.figures import outcomes
from sensikit.figures.frames import blank, of_metric
from sensikit.figures.panels import canvas, legend_below, listed, panels, ruled
from sensikit.figures.style import COLOURS, COLUMN, FULL, INK, MUTED, TIERS, Drawn, Line, styled
from sensikit.figures.words import captioned, joined, scale_of

LOOKS = {ALL: Line("all languages", INK, "-", "o", 1.6), **TIERS}


def gains(significance: pd.DataFrame, metric: str = "") -> pd.DataFrame:
    """Return the differences to the first system, by tier: one row for each (direction, system_b, tier)."""
    rows = of_metric(significance, metric)
    rows = rows[blank(rows["group"])]
    first = rows.groupby("direction", sort=False)["system_a"].transform("first")
    return rows[(rows["system_a"] == first) & rows["tier"].isin((*TIERS, ALL))].reset_index(drop=True)


def gains_of_seeds(rows: pd.DataFrame, tiers: pd.DataFrame, recipes: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return what each seed of a recipe gains: rows of `gains` with its name in `seed`, and no interval."""
    of_metric = tiers[tiers["metric"] == rows["metric"].iloc[0]]
    values = of_metric.set_index(["direction", "system", "tier"])["value"]
    found = [
        (row["direction"], row["system_a"], row["system_b"], row["tier"], row["metric"], seed,
         values[row["direction"], seed, row["tier"]] - values[row["direction"], row["system_a"], row["tier"]])
        for _, row in rows.iterrows()
        for seed in recipes.get(row["system_b"], ())
    ]  # fmt: skip
    return pd.DataFrame(found, columns=["direction", "system_a", "system_b", "tier", "metric", "seed", "difference"])


@styled
def quality_gains(
    significance: pd.DataFrame,
    metric: str = "",
    *,
    tiers: pd.DataFrame | None = None,
    recipes: Mapping[str, Sequence[str]] | None = None,
    width: float = FULL,
) -> Drawn:
    """Return the difference of each system to the first with its paired interval: a panel for each resource level.

    Where all languages are of one level there is one panel. Filled marks are differences whose p, after Holm, is below
    0.05; small ones the seeds of a recipe. All panels share one scale. The rows are those of significance.csv, of one
    direction and, where there are recipes (by name, the systems that are training seeds of it), of tiers.csv.
    """
    rows = gains(significance, metric)
    shown = [tier for tier in (*TIERS, ALL) if tier in set(rows["tier"])]
    shown = [ALL] if len(shown) == 2 else shown  # a single level is all languages
    rows = rows[rows["tier"].isin(shown)].reset_index(drop=True)
    seeds = rows[:0].assign(seed="") if tiers is None else gains_of_seeds(rows, tiers, recipes or {})
    metric, first = rows[["metric", "system_a"]].iloc[0]
    systems = list(dict.fromkeys(rows["system_b"]))
    figure = canvas(width, 0.75 + 0.2 * len(systems))
    axes = panels(figure, len(shown), len(shown), sharex=True, sharey=True)
    for ax, tier in zip(axes, shown, strict=True):
        of_tier = rows[rows["tier"] == tier].set_index("system_b").reindex(systems)
        ax.axvline(0, color=MUTED, linewidth=0.6)
        places = np.arange(len(systems))
        ax.hlines(places, of_tier["difference_low"], of_tier["difference_high"], color=COLOURS[0], linewidth=1.2)
        single = seeds[seeds["tier"] == tier]
        ax.plot(
            single["difference"], single["system_b"].map(systems.index), linestyle="", marker="|", markersize=5,
            color=MUTED, gid="seeds",
        )  # fmt: skip
        sure = (of_tier["p_holm"] < LEVEL).to_numpy()
        for chosen, fill in ((sure, COLOURS[0]), (~sure, "white")):
            ax.plot(
                of_tier["difference"][chosen], places[chosen], linestyle="", marker="o", markersize=4.2,
                markerfacecolor=fill, markeredgecolor=COLOURS[0], markeredgewidth=1.0,
            )  # fmt: skip
        ax.set_title(LOOKS[tier].name)
        ruled(ax, "x")
        listed(ax, systems)
    figure.supxlabel(f"change in {scale_of(metric)} from {first}", fontsize=7)
    lower = "" if METRICS[metric].higher else ": below 0, the system is better"
    alone = rows[(rows["seeds_a"] == 1) & (rows["seeds_b"] == 1)]
    over = "the test sentences" if len(alone) == len(rows) else "training seeds and test sentences"
    few = f"Under {FEWEST} test sentences nothing is filled: no test of so few is to be trusted."
    some = 0 < len(alone) < len(rows)
    whose = f" of {joined(alone['system_b'].unique())}" if some else ""
    caption = captioned(
        f"{METRICS[metric].label} of each system minus that of {first}{lower}, mean over the languages"
        f"{' of each resource level' if len(shown) > 1 else ''}, with 95% intervals over {over}",
        f"Filled where p < {LEVEL:g} after Holm over all tests.",
        "Strokes are single seeds." if len(seeds) else "",
        few if (rows["segments"] < FEWEST).any() else "",
        f"One training run{whose} against one: nothing there speaks of other training seeds." if len(alone) else "",
        result=outcomes.gained(rows[rows["tier"] == ALL]),
    )
    return Drawn(figure, pd.concat([rows, seeds], ignore_index=True) if len(seeds) else rows, caption)


def by_ratio(tiers: pd.DataFrame, systems: Mapping[str, Mapping[str, Any]], metric: str = "") -> pd.DataFrame:
    """Return the rows of tiers.csv with `mask_ratio`, `method` and `design` of their system.

    Only systems that differ in the masking ratio alone say what it does: the rows are those of each direction and
    design (all that a system was trained with but the ratio, numbered) that has at least two ratios. Systems that agree
    in the ratio too are training seeds: `mean`, `low` and `high` are of all of them (t over seeds and test sentences),
    `seeds` says how many.
    """
    rows = of_metric(tiers, metric)
    rows = rows[rows["system"].isin(list(systems))]
    designs = {name: _design(of) for name, of in systems.items()}
    numbers = {design: number for number, design in enumerate(dict.fromkeys(designs.values()))}
    ratio = rows["system"].map(lambda name: systems[name].get("mask_ratio"))
    rows = rows.assign(
        mask_ratio=pd.to_numeric(ratio, errors="coerce"),
        method=rows["system"].map(lambda name: systems[name].get("method") or ""),
        design=rows["system"].map(lambda name: numbers[designs[name]]),
    )
    rows = rows.dropna(subset="mask_ratio")
    alike = rows.groupby(["direction", "design", "mask_ratio", "tier"])
    for name, column in zip(("mean", "low", "high", "seeds"), _over_seeds(alike), strict=True):
        rows[name] = column
    several = rows.groupby(["direction", "design"])["mask_ratio"].transform("nunique") > 1
    return rows[several].sort_values(["direction", "design", "mask_ratio"], kind="stable", ignore_index=True)


def _over_seeds(alike: Any) -> tuple[Any, Any, Any, Any]:
    """Return, for each row, the mean of the systems that are like its own, with its interval, and their number."""
    mean, seeds = alike["value"].transform("mean"), alike["value"].transform("size")
    low, high = alike["value_low"].transform("mean"), alike["value_high"].transform("mean")
    variances = alike["value"].transform("var") / seeds
    for row in seeds.index[seeds > 1]:
        # the draws are not in the table, but their variance is in the width of the interval
        of_segments = ((high[row] - low[row]) / 2 / ndtri(1 - LEVEL / 2)) ** 2
        deviation, freedom = spread(of_segments, [(variances[row], seeds[row] - 1)])
        half = stdtrit(freedom, 1 - LEVEL / 2) * deviation
        low[row], high[row] = mean[row] - half, mean[row] + half
    return mean, low, high, seeds


def _design(system: Mapping[str, Any]) -> str:
    own = ("checkpoint", "sha256", "mask_ratio", "updates")  # training that stops early does so where it likes
    return repr(sorted((name, value) for name, value in system.items() if name not in own))


@styled
def masking_ratio(rows: pd.DataFrame, *, width: float = COLUMN) -> Drawn:
    """Return quality against the masking ratio, a line for each resource level and one for all languages (Figure 11).

    `rows` are those of one metric, direction and design from `by_ratio`.
    """
    metric = rows["metric"].iloc[0]
    figure = canvas(width, width * 0.78)
    ax = figure.subplots()
    for tier in (tier for tier in LOOKS if tier in set(rows["tier"])):
        points, look = rows[rows["tier"] == tier], LOOKS[tier]
        line = points.drop_duplicates("mask_ratio")
        ax.fill_between(line["mask_ratio"], line["low"], line["high"], color=look.colour, alpha=0.12, linewidth=0)
        single = points[points["seeds"] > 1]
        ax.plot(single["mask_ratio"], single["value"], color=look.colour, ls="", marker="_", markersize=5, gid="seeds")
        ax.plot(
            line["mask_ratio"], line["mean"], color=look.colour, marker=look.marker, linestyle=look.dashes,
            linewidth=look.width, label=look.name,
        )  # fmt: skip
    ax.set_xlabel("masking ratio")
    ax.set_ylabel(scale_of(metric))
    ax.set_xticks(sorted(rows["mask_ratio"].unique()))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    if METRICS[metric].higher:
        ax.set_ylim(bottom=0)
    ruled(ax, "y")
    legend_below(figure, [ax])
    several = f"Points of several training seeds (up to {rows['seeds'].max()}) are their mean, with a stroke for each, "
    alone = "Between points of one training run each, part of the difference is the seed."
    caption = captioned(
        f"{METRICS[metric].label} of {rows['method'].iloc[0] or 'one method'} trained with "
        f"{rows['mask_ratio'].nunique()} masking ratios, mean over the languages of each resource level",
        "Shaded: 95% intervals over the test sentences.",
        f"{several}and their intervals are over seeds too." if (rows["seeds"] > 1).any() else "",
        alone if (rows["seeds"] == 1).any() else "",
        result=outcomes.best(rows[rows["tier"] == ALL]),
        paper="Figure 11",
    )
    return Drawn(figure, rows, caption)
