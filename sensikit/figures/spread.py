"""How sensitivity and specificity are spread over the parameters: boxes and violins (Figure 10)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from sensikit.figures import conclusions
from sensikit.figures.frames import Groups, averaged, of_run, of_task, present, runs, seeds_of, titles, with_seeds
from sensikit.figures.panels import beside, canvas, legend_below, listed, log_ticks, plain, power_of_ten, ruled
from sensikit.figures.style import FULL, HOLLOW, INK, MUTED, Captioned, Drawn, Line, run_line, styled
from sensikit.figures.words import captioned, span
from sensikit.run import MIXED
from sensikit.statistics.specificity import LEVELS

BOXES = "Boxes hold 25 to 75% of the parameters with the median across, thick lines 10 to 90%, thin lines 1 to 99%."


def wide(frame: pd.DataFrame, task: str = "") -> pd.DataFrame:
    """Return one row for each (run, group) with a column for each statistic of specificity.csv or balance.csv."""
    frame = of_task(frame, task)
    tables = [  # one by one: a pivot of all would sort the runs by name
        of_run(frame, run).pivot(index="group", columns="statistic", values="value").reset_index().assign(run=run)
        for run in runs(frame)
    ]
    found = pd.concat(tables, ignore_index=True).rename_axis(columns=None)
    if "recipe" in frame:
        found["recipe"] = found["run"].map(dict(zip(frame["run"], frame["recipe"], strict=True)))
    return found


def placed(table: pd.DataFrame, groups: Groups) -> list[str]:
    """Return the groups of `table` in order, followed by what is no group (all of them mixed)."""
    named = list(dict.fromkeys(table["group"]))
    return [*present(groups, named), *(name for name in named if name not in groups)]


def shown(key: str) -> str:
    """Return what a group is called where it is listed: all of them mixed are `all`."""
    return "all" if key == MIXED else key


@styled
def specificity(frame: pd.DataFrame, groups: Groups, *, task: str = "", width: float = FULL) -> Drawn:
    """Return the spread of D(θ,l) of each group (Eq. 4; specificity.csv): boxes of quantiles, and the share of D > 0.

    The axis is linear between −1, the least that D can be, and 1, and logarithmic beyond.
    """
    table = wide(frame, task)
    figure, left = _boxes_and_shares(table, placed(table, groups), "share_positive", "parameters with D > 0", width)
    left.axvline(0, color=MUTED, linewidth=0.6, zorder=0)
    left.set_xscale("symlog", linthresh=1, linscale=1)
    top = float(table[list(LEVELS)].to_numpy(dtype=float).max())
    beyond = [2.0, 5.0, 10.0] if top < 20 else [10.0**power for power in range(1, 12)]
    left.set_xticks([tick for tick in (-1.0, -0.5, 0.0, 0.5, 1.0, *beyond) if tick <= max(top, 1)], minor=False)
    left.xaxis.set_major_formatter(plain)
    left.set_xlabel("D(θ,l)")
    small, means, seeds = "share_small_denominator", averaged(table, ["group"]), seeds_of(table)
    caption = captioned(
        "Language specificity D(θ,l) = (S_l − S_-l)/(S_-l + σ) over all parameters",
        f"The axis is linear from −1 to 1, logarithmic beyond. {BOXES} Right: the share of parameters that matter more "
        "to the language than to the rest.",
        f"At most {table[small].max():.2%} of the parameters have S_-l below 10σ." if small in table else "",
        OF_SEEDS if len(seeds) else "",
        result=conclusions.specific(means),
    )
    return Drawn(figure, with_seeds(means, seeds), caption)


@styled
def balance(frame: pd.DataFrame, groups: Groups, *, task: str = "", width: float = FULL) -> Drawn:
    """Return how evenly S is spread (balance.csv): boxes of S over its mean, and the share that the top 10% hold."""
    table = wide(frame, task)
    for name in set(LEVELS) & set(table.columns):
        table[name] = table[name] / table["mean"]  # so that groups can be compared
    shared = "share of all sensitivity\nheld by the top 10%"
    figure, left = _boxes_and_shares(table, placed(table, groups), "share_top10", shared, width)
    left.set_xscale("log")
    log_ticks(left.xaxis)
    left.set_xlabel("sensitivity ÷ its mean")
    means, seeds = averaged(table, ["group"]), seeds_of(table)
    caption = captioned(
        "How evenly sensitivity is spread over the parameters, each language relative to its own mean",
        f"{BOXES} Right: the share of a language's total sensitivity that its top 10% of parameters hold; less is more "
        "even.",
        f"Standard deviation ÷ mean of all parameters: {span(table['cv'], '.2f')}." if "cv" in table else "",
        OF_SEEDS if len(seeds) else "",
        result=conclusions.even(_apart(means), "share_top10", "share held by the top 10%", ".0%"),
    )
    return Drawn(figure, with_seeds(means, seeds), caption)


OF_SEEDS = "Of a recipe, all is the mean of its training seeds, which stand hollow beside their share."


def _apart(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of languages by themselves."""
    return table[table["group"] != MIXED]


def _boxes_and_shares(
    table: pd.DataFrame, keys: list[str], statistic: str, shared: str, width: float
) -> tuple[Captioned, Axes]:
    """Draw a box and a share for each group and run; return the figure and the panel of the boxes."""
    figure = canvas(width, 0.9 + 0.24 * len(keys))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.4, 1))
    seeds, table = seeds_of(table), averaged(table, ["group"])
    labels, names = runs(table), titles(table)
    for index, run in enumerate(labels):
        rows, label = of_run(table, run).set_index("group").reindex(keys), names[run]
        at, line = beside(len(keys), index, len(labels)), run_line(index, label)
        if len(seeds):
            single = seeds[seeds["recipe"] == run]
            each = single["group"].map(dict(zip(keys, at, strict=True)))
            right.plot(
                single[statistic], each, color=line.colour, marker=line.marker, clip_on=False, gid="seeds", **HOLLOW
            )
        _boxes(left, rows, at, 0.7 / len(labels) * 0.75, line.colour, label)
        right.plot(rows[statistic], at, color=line.colour, marker=line.marker, linestyle="", label=label, clip_on=False)
    right.set_xlim(0, 1)
    right.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    right.set_xlabel(shared)
    for ax in (left, right):
        ruled(ax, "x")
        listed(ax, list(map(shown, keys)))
    legend_below(figure, [left])
    return figure, left


def _boxes(ax: Axes, rows: pd.DataFrame, places: Sequence[float], room: float, colour: str, label: str) -> None:
    """Draw the boxes of one run: 25 to 75%, whiskers 10 to 90%, a thin line 1 to 99%."""
    rows = rows.assign(place=places).dropna(subset="q25")
    if rows.empty:
        return
    ax.hlines(rows["place"], rows["q01"], rows["q99"], color=colour, lw=0.5)
    ax.bxp(
        [
            {"med": row["median"], "q1": row["q25"], "q3": row["q75"], "whislo": row["q10"], "whishi": row["q90"]}
            for _, row in rows.iterrows()
        ],
        positions=list(rows["place"]), widths=room, orientation="horizontal",
        showfliers=False, showcaps=False, patch_artist=True, manage_ticks=False, label=label or None,
        boxprops={"facecolor": "white", "edgecolor": colour, "linewidth": 0.9},
        whiskerprops={"color": colour, "linewidth": 1.4}, medianprops={"color": colour, "linewidth": 1.6},
    )  # fmt: skip


# violins


@styled
def sensitivity_violins(
    frame: pd.DataFrame, statistics: pd.DataFrame, groups: Groups, *, task: str = "", width: float = FULL
) -> Drawn:
    """Return violins of S(θ,B_l) without its top 1%, with its standard deviation on a second axis.

    Below the two stands the deviation over the mean, which does not move with the scale of the loss. All violins have
    the same area; two runs share a violin, the first on its left side. That of a recipe is the mean over its training
    seeds, which have marks of their own below. `frame` has the rows of distribution.csv, and `statistics` those of
    balance.csv of the same runs.
    """
    frame, table = of_task(frame, task), wide(statistics, task)
    seeds, table = seeds_of(table), averaged(table, ["group"])
    keys, labels, names = placed(frame, groups), runs(table), titles(table)
    figure = canvas(width, 3.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    second = upper.twinx()
    unit = 10.0 ** math.floor(math.log10(frame["high"].max()))
    shapes = densities(frame)
    widest = float(shapes["density"].max())
    for index, label in enumerate(labels):
        line = run_line(index, label)
        centre, sides, mark = _layout(index, len(labels))
        for place, key in enumerate(keys):
            shape = shapes[(shapes["run"] == label) & (shapes["group"] == key)]
            _violin(upper, shape, place + centre, sides, widest, unit, line)
        rows = of_run(table, label).set_index("group").reindex(keys)
        places = [place + mark for place in range(len(keys))]
        second.plot(
            places, rows["std_below_top1"] / unit, linestyle="", marker=line.marker, markerfacecolor="white",
            markeredgecolor=line.colour, markeredgewidth=1.0, markersize=4, zorder=4,
        )  # fmt: skip
        lower.plot(
            places, rows["cv_below_top1"], linestyle="", marker=line.marker, color=line.colour, markersize=4,
            label=names[label],
        )  # fmt: skip
        if len(seeds):
            single = seeds[seeds["recipe"] == label]
            at = single["group"].map(dict(zip(keys, places, strict=True)))
            lower.plot(at, single["cv_below_top1"], color=line.colour, marker=line.marker, gid="seeds", **HOLLOW)
    upper.set_ylabel(f"sensitivity, {power_of_ten(unit)} nats")
    second.set_ylabel(f"standard deviation\n(open marks), {power_of_ten(unit)} nats")
    lower.set_ylabel("standard deviation\n÷ mean, without\nthe top 1%")
    lower.set_xticks(range(len(keys)), list(map(shown, keys)))
    ruled(lower, "y")
    upper.set_ylim(bottom=0)
    second.set_ylim(0, 1.15 * table["std_below_top1"].max() / unit)
    lower.margins(y=0.25)
    second.spines["right"].set_visible(True)
    for ax in (upper, second, lower):
        ax.tick_params(axis="x", length=0)
    legend_below(figure, [lower])
    return Drawn(figure, frame, _violins_caption(table, len(seeds) > 0))


def densities(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the histogram as a density over S (run, group, low, high, density), of area 1 for each violin.

    That of a recipe is the mean over its training seeds, in equal bins from the least to the largest S of any.
    """
    frame = frame if "run" in frame else frame.assign(run="")
    total = frame.groupby(["run", "group"])["count"].transform("sum")
    density = frame["count"] / total / (frame["high"] - frame["low"])
    found = frame[["run", "group", "low", "high"]].assign(density=density)
    if "recipe" not in frame:
        return found
    pooled = [
        _mean_density(rows).assign(run=str(recipe), group=str(group)) if rows["run"].nunique() > 1 else rows
        for (recipe, group), rows in found.groupby([frame["recipe"], "group"], sort=False)
    ]
    return pd.concat(pooled, ignore_index=True)[list(found)]


def _mean_density(found: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of the densities of several runs, in as many equal bins as one of them has."""
    of_runs = [rows.sort_values("low") for _, rows in found.groupby("run")]
    edges = np.linspace(found["low"].min(), found["high"].max(), len(of_runs[0]) + 1)
    # the cumulated histograms, not the densities, are read at the common edges: so the area stays 1
    below = [
        np.interp(edges, [rows["low"].iloc[0], *rows["high"]],
                  [0, *np.cumsum(rows["density"] * (rows["high"] - rows["low"]))])
        for rows in of_runs
    ]  # fmt: skip
    density = np.diff(np.mean(below, axis=0)) / np.diff(edges)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "density": density})


def _layout(index: int, of: int) -> tuple[float, tuple[float, float], float]:
    """Return where a run's violin stands in its group, how far it reaches to the left and right, and its mark."""
    if of == 2:  # the two are the halves of one violin
        return 0.0, ((0.42, 0.0), (0.0, 0.42))[index], (-0.16, 0.16)[index]
    centre = (index - (of - 1) / 2) * 0.84 / of
    return centre, (0.42 / of, 0.42 / of), centre + 0.2 / of


def _violin(
    ax: Axes, shape: pd.DataFrame, place: float, sides: tuple[float, float], widest: float, unit: float, line: Line
) -> None:
    if shape.empty:
        return
    shape = shape.sort_values("low")
    heights = (shape["low"] + shape["high"]).to_numpy() / 2 / unit
    half = shape["density"].to_numpy() / widest
    ax.fill_betweenx(
        heights, place - sides[0] * half, place + sides[1] * half, color=line.colour, alpha=0.55, linewidth=0
    )
    outline = [place + (sides[1] if sides[1] else -sides[0]) * half]
    outline += [place - sides[0] * half] if all(sides) else []
    for edge in outline:
        ax.plot(edge, heights, color=line.colour, linewidth=0.6)
    ax.plot([place, place], [heights[0], heights[-1]], color=INK, linewidth=0.3)


def _violins_caption(table: pd.DataFrame, seeds: bool) -> str:
    left = ", the first run on the left side" if len(runs(table)) == 2 else ""
    return captioned(
        "Distribution of the sensitivities S(θ,B_l) over the parameters, the top 1% removed",
        f"All violins have the same area{left}. Open marks: standard deviation, on the right axis. It moves with the "
        "scale of the loss, so below it stands its ratio to the mean, both without the top 1%; lower is more balanced.",
        "Small hollow marks: single training seeds." if seeds else "",
        result=conclusions.even(_apart(table), "cv_below_top1", "standard deviation ÷ mean", ".2f"),
        paper="Figure 10",
    )
