"""Quality against the share of the prunable parameters that is pruned (Figures 3 and 9)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import LEVEL
from sensikit.figures import outcomes
from sensikit.figures.frames import Groups, of_metric, present, runs, seeds_of, titles, units, with_seeds
from sensikit.figures.panels import canvas, legend_below, panels, ruled
from sensikit.figures.points import (
    CHOSEN,
    CONTROL,
    HOW,
    MATCHED,
    RANDOM,
    banded,
    curve,
    curve_over_seeds,
    judged,
)
from sensikit.figures.style import COLOURS, COLUMN, FULL, HOLLOW, INK, MUTED, Drawn, Line, run_line, styled
from sensikit.figures.words import captioned, joined, scale_of, span
from sensikit.pruning.ledger import UNPRUNED
from sensikit.settings import STRATA

MARKS = {
    "better": ("^", "better than random"), "worse": ("v", "worse than random"), "alike": ("o", "not told from random"),
}  # fmt: skip
"""How a point is marked by its verdict, and what the mark says; alike is hollow."""

EQUAL = "at equal sensitivity"

_PROTECT = re.compile(r"\|protect:([0-9.]+)(?:\|among:(\w+))?")

ORDERS = {
    MATCHED: Line(f"least specific first, {EQUAL}", COLOURS[0], "-", "o", 1.6),
    "matched-reverse": Line(f"most specific first, {EQUAL}", COLOURS[1], (0, (4, 1.5)), "s", 1.2),
    "matched-random": Line(f"random, {EQUAL}", "#a6a6a6", "-", "x"),
    CHOSEN: Line("least specific first", COLOURS[0], "-", "o", 1.6),
    "reverse": Line("most specific first", COLOURS[1], (0, (4, 1.5)), "s", 1.2),
    "sensitivity": Line("least sensitive first", "#4d4d4d", (0, (5, 1, 1, 1)), "p"),
    "magnitude": Line("smallest first", "#7d7d7d", (0, (1, 1)), "h"),
    "fisher": Line("least Fisher information first", "#4d4d4d", (0, (1, 1)), "P"),
    "wanda": Line("Wanda", "#7d7d7d", (0, (5, 1, 1, 1)), "D"),
    CONTROL: Line("random", "#a6a6a6", "-", "x"),
}


def is_matched(name: str) -> bool:
    """Return whether an order takes the same share of every stratum of equal sensitivity."""
    return name.startswith(MATCHED)


def short(name: str) -> Line:
    """Return the line of an order under the name that it has among its like."""
    return replace(line_of(name), name=line_of(name).name.removesuffix(f", {EQUAL}"))


def _first(points: pd.DataFrame) -> str:
    """Return the order that a figure is about."""
    return MATCHED if points["order"].map(is_matched).any() else CHOSEN


def line_of(name: str) -> Line:
    """Return how to draw an order; one that has no line of its own is a muted control under its own name."""
    return ORDERS.get(name, Line(name, "#8f8f8f", (0, (3, 1, 1, 1, 1, 1)), "d"))


@styled
def pruning_curves(
    frame: pd.DataFrame,
    metric: str = "",
    *,
    change: bool = False,
    bands: pd.DataFrame | None = None,
    tests: pd.DataFrame | None = None,
    matched: bool = False,
    width: float = FULL,
) -> Drawn:
    """Return quality against pruning ratio, a line for each order and a panel for each run, on one scale.

    The band of the first order is over test sentences, that of random over its seeds. The marks of the first order say
    whether it is better than random, worse, or cannot be told from it; `verdict` in the data.

    Args:
        frame: the rows of pruning.csv.
        metric: by default BLEU, or the first that the table has.
        change: draw the change from the unpruned model instead of the score itself.
        bands: see `banded`; without it, the mean of the groups' own bounds.
        tests: see `judged`; without it, marks have no verdict.
        matched: the orders at equal sensitivity, in place of the others.
        width: of the figure, in inches.
    """
    frame = of_metric(frame, metric)
    frame = frame[(frame["order"] == UNPRUNED) | (frame["order"].map(is_matched) == matched)]
    bands, tests = _alike(bands, frame), _alike(tests, frame)
    points, seeds = _points(frame, change, bands, tests)
    labels = units(frame)
    figure = canvas(width, min(3.0, width / len(labels) * 0.62) + 0.45)
    axes = panels(figure, len(labels), len(labels), sharex=True, sharey=True)
    for ax, label in zip(axes, labels, strict=True):
        of_label = points[points["run"] == label]
        for name in sorted(of_label["order"].unique(), key=_rank):
            of_order = of_label[of_label["order"] == name]
            _draw_order(ax, of_order, short(name), band=name in RANDOM or of_order["seeds"].max() > 1)
            if name in (*RANDOM, *RANDOM.values()):
                _draw_seeds(ax, seeds, label, name, short(name))
        ax.set_title(titles(points).get(label, label))
    _finish(axes, points, change)
    _list_marks(axes[0], points)
    legend_below(figure, axes)
    return Drawn(figure, with_seeds(points, seeds), _caption(frame, points, change, points, bands, tests))


@styled
def pruning_comparison(
    frame: pd.DataFrame,
    metric: str = "",
    *,
    change: bool = True,
    bands: pd.DataFrame | None = None,
    tests: pd.DataFrame | None = None,
    width: float = COLUMN,
) -> Drawn:
    """Return the specificity order of all runs in one panel, with its controls: by default the change, as in Figure 3.

    A run has one colour; dotted is random, dashed the reverse order. Arguments are those of `pruning_curves`.
    """
    frame = of_metric(frame, metric)
    bands, tests = _alike(bands, frame), _alike(tests, frame)
    frame = frame[~frame["order"].map(is_matched)]
    points, seeds = _points(frame, change, bands, tests)
    labels = units(frame)
    figure = canvas(width, width * 0.72 + 0.35)
    ax = figure.subplots()
    handles: list[Artist] = []
    for index, label in enumerate(labels):
        line = run_line(index, titles(points).get(label, label))
        of_label = points[points["run"] == label]
        for name, look in CONTROLS.items():
            control = of_label[of_label["order"] == name].sort_values("ratio")
            ax.plot(control["ratio"], control["value"], color=line.colour, linestyle=look, linewidth=0.9, gid=name)
        solid = Line(line.name or line_of(CHOSEN).name, line.colour, "-", line.marker, 1.6)
        _draw_order(ax, of_label[of_label["order"] == CHOSEN], solid, band=True)
        _draw_seeds(ax, seeds, label, CHOSEN, solid)
        marker = "" if (of_label["verdict"] != "").any() else line.marker
        handles += [Line2D([], [], color=line.colour, marker=marker, markersize=3, label=solid.name)]
    controls = [name for name in CONTROLS if name in set(points["order"])]
    handles += [Line2D([], [], color=MUTED, ls=CONTROLS[name], lw=0.9, label=line_of(name).name) for name in controls]
    _finish([ax], points, change)
    handles += _list_marks(ax, points)
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)))
    chosen = points[points["order"] == CHOSEN]
    return Drawn(figure, with_seeds(points, seeds), _caption(frame, points, change, chosen, bands, tests))


CONTROLS: dict[str, Any] = {CONTROL: (0, (1, 1)), "reverse": (0, (4, 1.5))}


def _alike(noise: pd.DataFrame | None, frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return the bands or tests of the one metric of `frame`; None where there are none."""
    found = noise if noise is None else noise[noise["metric"] == frame["metric"].iloc[0]]
    return None if found is None or found.empty else found


def _points(
    frame: pd.DataFrame, change: bool, bands: pd.DataFrame | None, tests: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the points of the curves with their bands, and those of single training seeds.

    In `verdict` stands what tests say of the curves against random.
    """
    single = curve(frame, change=change)
    points = banded(curve_over_seeds(single, change), bands, change)
    shown = tests if set(RANDOM.values()) & set(points["order"]) else None
    return points.assign(verdict=judged(points, shown)), seeds_of(single)


def _draw_seeds(ax: Axes, seeds: pd.DataFrame, recipe: str, name: str, line: Line) -> None:
    """Mark the points of the training seeds of a recipe."""
    if len(seeds):
        at = seeds[(seeds["recipe"] == recipe) & (seeds["order"] == name) & (seeds["ratio"] > 0)]
        ax.plot(at["ratio"], at["value"], color=line.colour, marker="o", clip_on=False, gid="seeds", **HOLLOW)


@styled
def pruning_curves_by_group(frame: pd.DataFrame, groups: Groups, metric: str = "", *, width: float = FULL) -> Drawn:
    """Return a small panel for each group of pruning.csv, on one scale: every order of one run, or one of several.

    The orders at equal sensitivity are left out where there are others.
    """
    frame = of_metric(frame, metric)
    others = frame[~frame["order"].map(is_matched)]
    frame = frame if (others["order"] == UNPRUNED).all() else others
    keys, labels = present(groups, frame["group"]), units(frame)
    several = len(labels) > 1
    columns = min(4, len(keys))
    figure = canvas(width, -(-len(keys) // columns) * width / columns * 0.72 + 0.4)
    axes = panels(figure, len(keys), columns, sharex=True, sharey=True)
    single = pd.concat([curve(frame[frame["group"] == key]).assign(group=key) for key in keys], ignore_index=True)
    points = curve_over_seeds(single, key=["group"])
    seeds = seeds_of(single)
    for ax, key in zip(axes, keys, strict=True):
        of_group = points[points["group"] == key]
        for line, of_line in _lines_of(of_group, labels):
            _draw_order(ax, of_line, line, band=line.width > 1.2)
            if len(of_line) and line.width > 1.2:
                label, name = of_line[["run", "order"]].iloc[0]
                _draw_seeds(ax, seeds[seeds["group"] == key], label, name, line)
        ax.set_title(f"{key} · {groups[key]['name']}")
    _finish(axes, points)
    for ax in axes[max(0, len(keys) - columns) :]:
        ax.tick_params(labelbottom=True)  # the last panel of a column that the last row does not reach
    legend_below(figure, axes)
    first = _first(points)
    caption = captioned(
        f"{scale_of(frame['metric'].iloc[0], starts=True)} of each language against the share of the prunable "
        "parameters that is set to zero",
        f"All panels have one scale.{' The least specific first.' if several else ''}",
        SEEDS_BESIDE if len(seeds) else "",
        result=outcomes.extremes(points, first, line_of(first).name),
    )
    return Drawn(figure, with_seeds(points, seeds), caption)


SEEDS_BESIDE = "A line is the mean of the training seeds of a recipe, shaded over them (t); hollow: single seeds."


def _lines_of(points: pd.DataFrame, labels: Sequence[str]) -> list[tuple[Line, pd.DataFrame]]:
    if len(labels) == 1:
        names = sorted(points["order"].unique(), key=_rank)
        return [(line_of(name), points[points["order"] == name]) for name in names]
    chosen = points[points["order"] == CHOSEN]
    called = titles(points)
    return [
        (run_line(index, called.get(label, label)), chosen[chosen["run"] == label])
        for index, label in enumerate(labels)
    ]


def _rank(name: str) -> tuple[int, str]:
    names = list(ORDERS)
    return names.index(name) if name in names else len(names), name


def _draw_order(ax: Axes, points: pd.DataFrame, line: Line, band: bool) -> None:
    """Draw one line with its band: over seeds where there are several, over test sentences otherwise."""
    points = points.sort_values("ratio")
    size = 3.2 if line.width > 1.1 else 2.8
    verdict = points["verdict"] if "verdict" in points else pd.Series("", index=points.index)
    ax.plot(
        points["ratio"], points["value"], color=line.colour, linestyle=line.dashes, linewidth=line.width,
        marker="." if (verdict != "").any() else line.marker, markersize=size, markeredgewidth=0.7, label=line.name,
        zorder=2 + line.width, clip_on=False,
    )  # fmt: skip
    for name, (marker, _) in MARKS.items():
        at = points[verdict == name]
        if len(at):
            ax.plot(
                at["ratio"], at["value"], linestyle="", marker=marker, markersize=size + 1.6,
                markerfacecolor="white" if name == "alike" else line.colour, markeredgecolor=line.colour,
                markeredgewidth=0.9, zorder=3 + line.width, clip_on=False, gid=name,
            )  # fmt: skip
    if not band:
        return
    of_recipe = "runs" in points and (points["runs"] > 1).any()
    spread = (points["seeds"] > 1).any() and not of_recipe
    low, high = ("spread_low", "spread_high") if spread else ("low", "high")
    if points[low].notna().any():
        ax.fill_between(points["ratio"], points[low], points[high], color=line.colour, alpha=0.18, linewidth=0)


def _list_marks(ax: Axes, points: pd.DataFrame) -> list[Artist]:
    """Return an entry of the legend for each verdict that there is; it is one of `ax` too."""
    found: list[Artist] = []
    for name, (marker, label) in MARKS.items():
        if (points["verdict"] == name).any():
            fill = "white" if name == "alike" else INK
            found += ax.plot([], [], ls="", marker=marker, ms=4.4, mfc=fill, mec=INK, mew=0.9, label=label)
    return found


def _finish(axes: Sequence[Axes], points: pd.DataFrame, change: bool = False) -> None:
    """Give panels their axes, once all is drawn: the ratio in per cent; a score from 0, a loss from its baseline."""
    metric = points["metric"].iloc[0]
    # only now: a limit that is set stops the shared scale from following what is drawn later
    axes[0].set_xlim(left=0)
    if not change and METRICS[metric].higher:
        axes[0].set_ylim(bottom=0)
    for ax in axes:
        ax.set_xlabel("prunable parameters pruned")
        ax.set_ylabel(f"change in {scale_of(metric)}" if change else scale_of(metric))
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        if change or not METRICS[metric].higher:
            drawn = [tuple(point) for line in ax.lines for point in np.asarray(line.get_xydata(), dtype=float)]
            starts = {0.0} if change else {value for ratio, value in drawn if ratio == 0}
            for start in starts:
                ax.axhline(start, color=MUTED, linewidth=0.6, zorder=1, gid="unpruned")
        ruled(ax, "y")
        ax.label_outer()


def _spared(frame: pd.DataFrame) -> str:
    """Return what the signature of the sweep says of the parameters that no order prunes, as a clause.

    At the largest ratio all the others are gone: there the orders must agree, which says nothing for any of them.
    """
    signatures: list[str] = list(frame["signature"].dropna().astype(str)) if "signature" in frame else []
    found = {(float(match[1]), match[2]) for text in signatures if (match := _PROTECT.search(text))}
    if len(found) != 1:
        return ""
    ((share, among),) = found
    end, of = 1 - share, " of all parameters" if among == "all" else ""
    same = f", so that at {end:.0%} all orders have pruned the same" if frame["ratio"].max() > end - 1e-9 else ""
    return (
        f"; every order spares the {share:.0%}{of} with the highest sensitivity to the language{same if not of else ''}"
    )


def _caption(
    frame: pd.DataFrame,
    points: pd.DataFrame,
    change: bool,
    shaded: pd.DataFrame,
    bands: pd.DataFrame | None,
    tests: pd.DataFrame | None,
) -> str:
    """Return what was averaged, what the bands of the `shaded` points are of, and what pruning costs."""
    metric, chosen = frame["metric"].iloc[0], _first(points)
    higher = METRICS[metric].higher
    first, control = (short(name).name for name in (chosen, RANDOM[chosen]))
    seeds, counts = int(shaded["seeds"].max()) if len(shaded) else 0, sorted(shaded["groups"].unique())
    what = f"Change in {scale_of(metric)}" if change else scale_of(metric, starts=True)
    recipes = "runs" in points and (points["runs"] > 1).any()
    read = []
    if chosen == MATCHED:
        read += [f"Every order takes the same share of each of {STRATA} strata of equal sensitivity to the language."]
    if recipes:
        over = "training seeds" if bands is None else "training seeds and test sentences"
        read += [
            f"A line is the mean of the training seeds of a recipe, shaded: 95% interval of t over {over}; hollow: "
            "single seeds."
        ]
    elif shaded["low"].notna().any():
        over = "bootstrap bounds over the test sentences, mean over languages"
        read += [f"Shaded, {first}: 95% {over if bands is None else 'interval of the mean, over the test sentences'}."]
    if seeds > 1 and not recipes:
        read += [f"{control[0].upper()}{control[1:]} is the mean of {seeds} seeds, shaded to their extremes."]
    if not higher:
        read += [f"The grey line is {'no change' if change else 'the unpruned model'}."]
    if (points["verdict"] != "").any():
        how = "t over seeds" if recipes else "paired test"
        read += [
            f"Marks, {first}: ▲ better than {control}, ▼ worse, ○ not told from it ({how}, p ≥ {LEVEL:g}, {HOW}); "
            "a dot was not tested."
        ]
    if change and higher and len(runs(frame)) > 1:
        read += ["Of two models, the one that starts lower has less to lose, and a change favours it."]
    sentences = span(frame["sentences"].dropna().astype(int), "d")
    alone = not recipes or (points["runs"] == 1).any()
    whose = f" of {joined(points.loc[points['runs'] == 1, 'run'].unique())}" if recipes and alone else ""
    one = f", one training run{whose}: nothing here speaks of other training seeds" if alone else ""
    name = f"{first}, {EQUAL}" if chosen == MATCHED else first
    compared = outcomes.between(tests, chosen, first) if change else ""
    judged_ = outcomes.against(tests, chosen, RANDOM[chosen], (name, control))
    result = compared or "; ".join(filter(None, [outcomes.left(points, chosen, name, change), judged_]))
    return captioned(
        f"{what}, {'' if higher else 'lower is better, '}mean over {joined(map(str, counts))} "
        f"languages, against the share of the prunable parameters that is set to zero{_spared(frame)}",
        *read,
        f"{sentences} test sentences a language{one}.",
        result=result,
        paper="" if chosen == MATCHED else "Figures 3 and 9" if change else "",
    )
