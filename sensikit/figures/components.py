"""Where sensitivity and specificity live: by stack, layer and component of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sensikit.figures import conclusions
from sensikit.figures.correlation import signed
from sensikit.figures.frames import Groups, of_run, of_task, present, runs
from sensikit.figures.grids import DIVERGING, SEQUENTIAL, colour_bar, heat_map
from sensikit.figures.panels import beside, canvas, legend_below, listed, panels, rounded_up, ruled
from sensikit.figures.style import FULL, Drawn, run_line, styled
from sensikit.figures.words import captioned

STACKS = ("shared", "encoder", "decoder")
_ATTENTION = ("q", "k", "v", "out", "attention")
COMPONENTS = ("embedding", *_ATTENTION, *(f"cross-{part}" for part in _ATTENTION), "fc", "norm", "projection", "other")
ALL = "all"
NO_LAYER = "–"


def by_layer(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over groups of every (run, stack, component, layer), without the aggregated rows."""
    cells = frame[(frame["component"] != ALL) & (frame["layer"].astype("string").fillna("") != ALL)]
    cells = cells.assign(layer=cells["layer"].map(_layer))
    cells = cells if "run" in cells else cells.assign(run="")
    values = ["parameters", "sensitivity_share", "specificity_median", "share_positive"]
    return placed(cells.groupby(["run", "stack", "component", "layer"], sort=False)[values].mean().reset_index())


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of every (stack, component), all layers together."""
    return placed(frame[(frame["component"] != ALL) & (frame["layer"].astype("string").fillna("") == ALL)])


def placed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order in which they are drawn: shared, encoder, decoder; from the embedding on."""

    def place(column: pd.Series[Any]) -> pd.Series[Any]:
        known = STACKS if column.name == "stack" else COMPONENTS
        return column.map(lambda name: known.index(name) if name in known else len(known))

    return frame.sort_values(["stack", "component"], key=place, kind="stable", ignore_index=True)


def _layer(value: Any) -> str:
    return NO_LAYER if pd.isna(value) or value == "" else str(int(float(value)) + 1)


def _name(stack: str, component: str) -> str:
    return component if stack == component else f"{stack} {component}"


def _table(cells: pd.DataFrame, columns: Sequence[str], across: str, value: str) -> pd.DataFrame:
    """Return (stack and component) × `across` of one value."""
    cells = _named(cells)
    wide = cells.pivot(index="row", columns=across, values=value)
    return wide.reindex(index=list(dict.fromkeys(cells["row"])), columns=list(columns)).astype(float)


def _named(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with `row`, the name of stack and component."""
    return cells.assign(row=[_name(*part) for part in zip(cells["stack"], cells["component"], strict=True)])


@styled
def component_heatmaps(frame: pd.DataFrame, *, task: str = "", width: float = FULL) -> Drawn:
    """Return two heat maps of stack and component × layer, means over groups: the share of all S, and median D.

    A row of panels for each run of components.csv; each of the two has one scale for all runs.
    """
    cells, labels = by_layer(of_task(frame, task)), runs(frame)
    layers = sorted(cells["layer"].unique(), key=lambda layer: -1 if layer == NO_LAYER else int(layer))
    rows = len(_table(of_run(cells, labels[0]), layers, "layer", "parameters"))
    figure = canvas(width, len(labels) * (0.16 * rows + 0.25) + 0.55)
    grid = figure.subplots(len(labels), 2, sharey=True, squeeze=False)
    cell = (width / 2 - 0.9) / len(layers) * 72
    ends = _end(cells["sensitivity_share"]), _end(cells["specificity_median"])
    for (left, right), label in zip(grid, labels, strict=True):
        of_label = of_run(cells, label)
        share = _table(of_label, layers, "layer", "sensitivity_share")
        heat_map(left, share, share.map(_per_cent), (0, ends[0]), cell, SEQUENTIAL)
        median = _table(of_label, layers, "layer", "specificity_median")
        heat_map(right, median, median.map(lambda each: signed(each, 2)), (-ends[1], ends[1]), cell, DIVERGING)
        left.set_ylabel(label, fontsize=7.5)
        _between_stacks([left, right], list(share.index))
        for ax in (left, right):
            ax.label_outer()
            ax.set_xlabel("layer" if label == labels[-1] else "")
    grid[0][0].set_title("share of all sensitivity", pad=4)
    grid[0][1].set_title("median of D(θ,l)", pad=4)
    colour_bar(figure, list(grid[:, 0]), (0, ends[0]), "vertical", "", "{:.0%}".format)
    colour_bar(figure, list(grid[:, 1]), (-ends[1], ends[1]), "vertical", "")
    caption = captioned(
        "Left: the share of a language's whole sensitivity that lies in each part of the model, in per cent. Right: "
        "the median of D(θ,l) over its parameters. Both are means over languages",
        "A part with more parameters has more of S. D above 0: the typical parameter matters more to a language than "
        f"to the others together. Layers count from the input, {NO_LAYER} is outside the layers.",
        result=conclusions.parts(_named(whole(of_task(frame, task)))),
    )
    return Drawn(figure, cells, caption)


@styled
def specificity_by_component(frame: pd.DataFrame, groups: Groups, *, task: str = "", width: float = FULL) -> Drawn:
    """Return heat maps of the median of D in components.csv, stack and component × group: a panel for each run."""
    cells, labels = whole(of_task(frame, task)), runs(frame)
    keys = present(groups, cells["group"])
    tables = [_table(of_run(cells, label), keys, "group", "specificity_median") for label in labels]
    end = _end(cells["specificity_median"])
    columns = min(2, len(labels))
    height = -(-len(labels) // columns) * (0.16 * len(tables[0]) + 0.3) + 0.3
    figure = canvas(width if columns > 1 else min(width, 4.6), height)
    axes = panels(figure, len(labels), columns, sharey=True)
    cell = (float(figure.get_figwidth()) / columns - 1.3) / len(keys) * 72
    for ax, table, label in zip(axes, tables, labels, strict=True):
        heat_map(ax, table, table.map(lambda each: signed(each, 2)), (-end, end), cell, DIVERGING)
        ax.set_title(label)
        ax.label_outer()
        _between_stacks([ax], list(table.index))
    colour_bar(figure, axes, (-end, end), "vertical", "median of D(θ,l)")
    caption = captioned(
        "Median of D(θ,l) over the parameters of each part of the model, all layers together",
        "Above 0: the typical parameter matters more to the language than to the others together.",
        result=conclusions.favourite(_named(cells)),
    )
    return Drawn(figure, cells, caption)


@styled
def component_correlation(frame: pd.DataFrame, *, task: str = "", width: float = FULL) -> Drawn:
    """Return the PCC between groups in components-correlation.csv, of each part: the mean over pairs, and its span."""
    data, labels = whole(of_task(frame, task)), runs(frame)
    cells = _named(data[data["group_a"] < data["group_b"]])
    rows = list(dict.fromkeys(cells["row"]))
    figure = canvas(min(width, 4.6), 0.6 + 0.17 * len(rows))
    ax = figure.subplots()
    for index, label in enumerate(labels):
        line = run_line(index, label)
        pcc = of_run(cells, label).groupby("row")["pcc"].agg(["min", "mean", "max"]).reindex(rows)
        places = beside(len(rows), index, len(labels))
        ax.hlines(places, pcc["min"], pcc["max"], color=line.colour, linewidth=0.9)
        ax.plot(pcc["mean"], places, linestyle="", marker=line.marker, color=line.colour, label=label, markersize=3.6)
    listed(ax, rows)
    ax.set_xlim(right=1.0)
    ax.set_xlabel("PCC between two languages")
    ruled(ax, "x")
    legend_below(figure, [ax])
    caption = captioned(
        "PCC between the sensitivities of two languages within each part of the model, all layers together",
        "The mark is the mean over the pairs of languages; the line reaches from the lowest to the highest.",
        result=conclusions.within(cells),
    )
    return Drawn(figure, data, caption)


def _between_stacks(axes: Sequence[Axes], rows: Sequence[str]) -> None:
    heads = [row.split(" ")[0] for row in rows]
    edges = [place for place in range(1, len(heads)) if heads[place] != heads[place - 1] and heads[place] in STACKS]
    for ax in axes:
        ax.hlines(edges, *ax.get_xlim(), color="black", linewidth=0.8)


def _end(values: pd.Series[Any]) -> float:
    """Return the end of a scale from or around 0, rounded up to 0.05."""
    return rounded_up(float(values.abs().max()), 0.05) or 0.05


def _per_cent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:.0f}"
