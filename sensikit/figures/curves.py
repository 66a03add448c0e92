"""Translation quality against the share of parameters pruned (Figures 3 and 9)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from sensikit.figures.style import (
    COLOURS,
    COLUMN,
    FULL,
    MUTED,
    Line,
    canvas,
    joined,
    legend_below,
    of_run,
    order,
    run_line,
    runs,
    span,
    styled,
)

METRICS = {"bleu": "BLEU", "chrf": "chrF++"}
UNPRUNED, CHOSEN, CONTROL = "none", "specificity", "random"
LEVEL = 0.05  # a test whose p is below it is marked
COLUMNS = ["run", "order", "ratio", "value", "low", "high", "spread_low", "spread_high", "groups", "seeds"]


def curve(frame: pd.DataFrame, metric: str = "bleu", change: bool = False) -> pd.DataFrame:
    """Return the mean over languages against the ratio, one row for each (run, order, ratio).

    Only ratios at which every language was decoded count: a mean over fewer would be of other languages. The
    unpruned model is the start of every order. `low` and `high` are the means of the languages' 95% bounds, which
    needs no independence between them and so is rather too wide than too narrow; `spread_low` and `spread_high`
    are the extremes over seeds.

    Args:
        frame: the rows of pruning.csv, with a column `run` where there are several runs.
        metric: bleu or chrf.
        change: subtract the unpruned mean of the same run. The bounds of a score are not those of a change, so there
            are none then.
    """
    found = [_curve(of_run(frame, run), metric, change, run) for run in runs(frame)]
    drawn = [points for points in found if len(points)]  # a run of which nothing was pruned has no curve
    return pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame(columns=COLUMNS)


def _curve(frame: pd.DataFrame, metric: str, change: bool, run: str) -> pd.DataFrame:
    languages = frame["group"].nunique()
    cells = frame.assign(value=frame[metric], low=frame.get(f"{metric}_low"), high=frame.get(f"{metric}_high"))
    cells["seed"] = cells["seed"].astype("string").fillna("")
    means = cells.groupby(["order", "seed", "ratio"], sort=False).agg(
        value=("value", "mean"), low=("low", "mean"), high=("high", "mean"), groups=("group", "nunique"),
        bounds=("low", "count"),
    ).reset_index()  # fmt: skip
    means = means[means["groups"] == languages]
    means.loc[means["bounds"] < languages, ["low", "high"]] = math.nan
    orders = [name for name in dict.fromkeys(means["order"]) if name != UNPRUNED]
    start = means[means["order"] == UNPRUNED]
    rows = [
        {
            "run": run, "order": name, "ratio": ratio, "value": at["value"].mean(),
            "low": at["low"].mean(skipna=False), "high": at["high"].mean(skipna=False),
            "spread_low": at["value"].min(), "spread_high": at["value"].max(),
            "groups": languages, "seeds": len(at),
        }
        for name in orders
        for ratio, at in pd.concat([start, means[means["order"] == name]]).groupby("ratio")
    ]  # fmt: skip
    points = pd.DataFrame(rows, columns=COLUMNS)
    if change:
        points[["value", "spread_low", "spread_high"]] -= start["value"].mean()
        points[["low", "high"]] = math.nan
    return points


def curve_by_language(frame: pd.DataFrame, metric: str = "bleu") -> pd.DataFrame:
    """Return what `curve` returns, for each language by itself, with a column `language`."""
    codes = dict.fromkeys(frame["group"])
    return pd.concat([curve(frame[frame["group"] == code], metric).assign(language=code) for code in codes])


def banded(points: pd.DataFrame, bands: pd.DataFrame | None, change: bool = False) -> pd.DataFrame:
    """Return the points with the intervals of their means in `low` and `high`, where `bands` has them.

    Args:
        points: what `curve` returns.
        bands: run, order, ratio, bleu_low, bleu_high, and change_low and change_high, of the mean over languages; a
            single run may have any name there.
        change: the points are changes from the unpruned model.
    """
    if bands is None or points.empty:
        return points
    name = "change" if change else "bleu"
    found = _named(bands, points)[["run", "order", "ratio", f"{name}_low", f"{name}_high"]]
    found = found.rename(columns={f"{name}_low": "low", f"{name}_high": "high"})
    merged = points.drop(columns=["low", "high"]).merge(found, on=["run", "order", "ratio"], how="left")
    return merged[COLUMNS]


def unlike_random(points: pd.DataFrame, tests: pd.DataFrame | None) -> pd.Series[bool]:
    """Return which points of the specificity order differ from the random order of the same run, p below 0.05.

    Args:
        points: what `curve` returns.
        tests: run_a, order_a, run_b, order_b, ratio, p.
    """
    if tests is None or points.empty:
        return pd.Series(False, index=points.index)
    rows = tests[(tests["order_a"] == CONTROL) & (tests["order_b"] == CHOSEN) & (tests["run_a"] == tests["run_b"])]
    rows = _named(rows[rows["p"] < LEVEL].rename(columns={"run_b": "run"}), points)
    sure = set(zip(rows["run"], rows["ratio"], strict=True))
    places = zip(points["run"], points["order"], points["ratio"], strict=True)
    return pd.Series([order == CHOSEN and (run, ratio) in sure for run, order, ratio in places], index=points.index)


def _named(frame: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` with its runs called as in `points`, where a single run has no name."""
    return frame.assign(run="") if set(points["run"]) == {""} else frame


_PROTECT = re.compile(r"\|protect:([0-9.]+)")

ORDERS = {
    CHOSEN: Line("least specific first", COLOURS[0], "-", "o", 1.6),
    "reverse": Line("most specific first", COLOURS[1], (0, (4, 1.5)), "s", 1.2),
    "sensitivity": Line("least sensitive first", "#4d4d4d", (0, (5, 1, 1, 1)), "^"),
    "magnitude": Line("smallest first", "#7d7d7d", (0, (1, 1)), "v"),
    "fisher": Line("least Fisher information first", "#4d4d4d", (0, (1, 1)), "P"),
    "wanda": Line("Wanda", "#7d7d7d", (0, (5, 1, 1, 1)), "D"),
    CONTROL: Line("random", "#a6a6a6", "-", "x"),
}


def line_of(name: str) -> Line:
    """Return how to draw an order; one that has no line of its own is a muted control under its own name."""
    return ORDERS.get(name, Line(name, "#8f8f8f", (0, (3, 1, 1, 1, 1, 1)), "d"))


@styled
def pruning_curves(
    frame: pd.DataFrame,
    metric: str = "bleu",
    *,
    change: bool = False,
    bands: pd.DataFrame | None = None,
    tests: pd.DataFrame | None = None,
    width: float = FULL,
) -> Figure:
    """Return quality against pruning ratio, a line for each order and a panel for each run, on one scale.

    The band of the first order is over test sentences, that of random over its seeds. Where `tests` has it, an open
    mark is a point of the first order that random pruning cannot be told from.

    Args:
        frame: the rows of pruning.csv, with a column `run` where there are several runs.
        metric: bleu or chrf.
        change: draw the change from the unpruned model instead of the score itself.
        bands: see `curve_points.banded`; of BLEU.
        tests: see `curve_points.unlike_random`; of BLEU.
        width: of the figure, in inches.
    """
    points, labels = _points(frame, metric, change, bands, tests), runs(frame)
    figure = canvas(width, min(3.0, width / len(labels) * 0.62) + 0.45)
    axes = list(figure.subplots(1, len(labels), sharex=True, sharey=True, squeeze=False)[0])
    for ax, label in zip(axes, labels, strict=True):
        of_label = points[points["run"] == label]
        for name in sorted(of_label["order"].unique(), key=_rank):
            of_order = of_label[of_label["order"] == name]
            draw_order(ax, of_order, line_of(name), band=name == CHOSEN or of_order["seeds"].max() > 1)
        ax.set_title(label)
    finish(axes, metric, change)
    legend_below(figure, axes)
    return figure


@styled
def pruning_comparison(
    frame: pd.DataFrame,
    metric: str = "bleu",
    *,
    change: bool = True,
    bands: pd.DataFrame | None = None,
    tests: pd.DataFrame | None = None,
    width: float = COLUMN,
) -> Figure:
    """Return the specificity order of all runs in one panel, with its controls: by default the change, as in Figure 3.

    A run has one colour; dotted is random, dashed the reverse order. Arguments are those of `pruning_curves`.
    """
    points, labels = _points(frame, metric, change, bands, tests), runs(frame)
    figure = canvas(width, width * 0.72 + 0.35)
    ax = figure.subplots()
    handles: list[Artist] = []
    for index, label in enumerate(labels):
        line = run_line(index, label)
        of_label = points[points["run"] == label]
        for name, look in CONTROLS.items():
            control = of_label[of_label["order"] == name].sort_values("ratio")
            ax.plot(control["ratio"], control["value"], color=line.colour, linestyle=look, linewidth=0.9, gid=name)
        solid = Line(line.name or line_of(CHOSEN).name, line.colour, "-", line.marker, 1.6)
        draw_order(ax, of_label[of_label["order"] == CHOSEN], solid, band=True)
        handles += [Line2D([], [], color=line.colour, marker=line.marker, markersize=3, label=solid.name)]
    found = [name for name in CONTROLS if name in set(points["order"])]
    handles += [Line2D([], [], color=MUTED, ls=CONTROLS[name], lw=0.9, label=line_of(name).name) for name in found]
    finish([ax], metric, change)
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure


CONTROLS: dict[str, Any] = {CONTROL: (0, (1, 1)), "reverse": (0, (4, 1.5))}


def _points(
    frame: pd.DataFrame, metric: str, change: bool, bands: pd.DataFrame | None, tests: pd.DataFrame | None
) -> pd.DataFrame:
    """Return the points of the curves with their bands, and in `open` which of them random cannot be told from."""
    of_bleu = metric == "bleu"
    points = banded(curve(frame, metric, change), bands if of_bleu else None, change)
    if tests is None or not of_bleu or CONTROL not in set(points["order"]):
        return points.assign(open=False)
    pruned = (points["order"] == CHOSEN) & (points["ratio"] > 0)
    return points.assign(open=pruned & ~unlike_random(points, tests))


@styled
def pruning_curves_by_language(
    frame: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    metric: str = "bleu",
    *,
    width: float = FULL,
) -> Figure:
    """Return a small panel for each language, all on one scale: every order of one run, or one order of several."""
    codes = [code for code in order(languages) if code in set(frame["group"])]
    columns = min(4, len(codes))
    rows = -(-len(codes) // columns)
    figure = canvas(width, rows * width / columns * 0.72 + 0.4)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for ax, code in zip(axes, codes, strict=False):
        for line, points in _lines_of(frame[frame["group"] == code], metric):
            draw_order(ax, points, line, band=line.width > 1.2)
        ax.set_title(f"{code} · {languages[code]['name']}")
    finish(axes, metric)
    for ax in axes[len(codes) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(codes) - columns) : len(codes)]:
        ax.tick_params(labelbottom=True)  # the last panel of a column that the last row does not reach
    legend_below(figure, axes[: len(codes)])
    return figure


def _lines_of(frame: pd.DataFrame, metric: str) -> list[tuple[Line, pd.DataFrame]]:
    points, labels = curve(frame, metric), runs(frame)
    if len(labels) == 1:
        names = sorted(points["order"].unique(), key=_rank)
        return [(line_of(name), points[points["order"] == name]) for name in names]
    chosen = points[points["order"] == "specificity"]
    return [(run_line(index, label), chosen[chosen["run"] == label]) for index, label in enumerate(labels)]


def _rank(name: str) -> tuple[int, str]:
    names = list(ORDERS)
    return names.index(name) if name in names else len(names), name


def draw_order(ax: Axes, points: pd.DataFrame, line: Line, band: bool) -> None:
    """Draw one line with its band: over seeds where there are several, over test sentences otherwise."""
    points = points.sort_values("ratio")
    hollow = points["open"].to_numpy(dtype=bool) if "open" in points else [False] * len(points)
    size = 3.2 if line.width > 1.1 else 2.8
    ax.plot(
        points["ratio"], points["value"], color=line.colour, linestyle=line.dashes, linewidth=line.width,
        marker=line.marker, markersize=size, markeredgewidth=0.7, label=line.name, zorder=2 + line.width,
        clip_on=False,
    )  # fmt: skip
    if any(hollow):
        ax.plot(
            points["ratio"][hollow], points["value"][hollow], linestyle="", marker=line.marker, markersize=size,
            markerfacecolor="white", markeredgecolor=line.colour, markeredgewidth=0.9, zorder=3 + line.width,
            clip_on=False, gid="like-random",
        )  # fmt: skip
    if not band:
        return
    low, high = ("spread_low", "spread_high") if (points["seeds"] > 1).any() else ("low", "high")
    if points[low].notna().any():
        ax.fill_between(points["ratio"], points[low], points[high], color=line.colour, alpha=0.18, linewidth=0)


def finish(axes: Sequence[Axes], metric: str, change: bool = False) -> None:
    """Give panels their axes, once all is drawn: the ratio in per cent, a score that starts at 0."""
    name = METRICS.get(metric, metric)
    axes[0].set_xlim(left=0)  # a limit that is set stops the shared scale from following what is drawn later
    if not change:
        axes[0].set_ylim(bottom=0)
    for ax in axes:
        ax.set_xlabel("parameters pruned")
        ax.set_ylabel(f"change in {name}" if change else name)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        if change:
            ax.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
        ax.grid(axis="y")
        ax.set_axisbelow(True)
        ax.label_outer()


def spared(frame: pd.DataFrame) -> str:
    """Return what the signature of the sweep says of the parameters that no order prunes, as a clause."""
    signatures: list[str] = list(frame["signature"].dropna().astype(str)) if "signature" in frame else []
    shares = sorted({float(found[1]) for text in signatures if (found := _PROTECT.search(text))})
    if len(shares) != 1:
        return ""
    end = 1 - shares[0]
    same = f", so that at {end:.0%} all orders have pruned the same" if frame["ratio"].max() > end - 1e-9 else ""
    return f"; every order spares the {shares[0]:.0%} with the highest sensitivity to the language{same}"


def caption(
    frame: pd.DataFrame,
    metric: str = "bleu",
    *,
    change: bool = False,
    alone: str | None = None,
    bands: pd.DataFrame | None = None,
    tests: pd.DataFrame | None = None,
) -> str:
    """Return what the curves show: what was averaged, what the bands are of, how much was decoded.

    `alone` is the order whose bands are drawn, where it is one; the others are those of `pruning_curves`.
    """
    name = METRICS.get(metric, metric)
    points = _points(frame, metric, change, bands, tests)
    drawn = points[points["order"] == alone] if alone else points
    seeds, languages = int(drawn["seeds"].max()) if len(drawn) else 0, sorted(drawn["groups"].unique())
    sentences = sorted(frame["sentences"].dropna().astype(int).unique())
    text = (
        f"{'Change in ' + name if change else name}, mean over {joined(map(str, languages))} languages, against the "
        f"share of the prunable parameters that is set to zero{spared(frame)}. "
    )
    if drawn["low"].notna().any():
        text += f"Shaded, {line_of(CHOSEN).name}: 95% "
        text += "bootstrap bounds over the test sentences, mean over languages. " if bands is None else ""
        text += "interval of the mean, over the test sentences. " if bands is not None else ""
    if seeds > 1:
        text += f"Random is the mean of {seeds} seeds, shaded to their extremes. "
    if tests is not None and CONTROL in set(points["order"]):
        text += "Open marks cannot be told from random pruning (paired test, p ≥ 0.05, each by itself). "
    if change and len(runs(frame)) > 1:
        text += "Of two models, the one that starts lower has less to lose, and a change favours it. "
    text += f"{span(sentences, 'd')} test sentences a language, one training run: "
    return text + "nothing here speaks of other training seeds."
