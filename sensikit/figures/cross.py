"""What pruning for one language does to the others: the cross matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from sensikit.evaluation.metrics import METRICS
from sensikit.figures import outcomes
from sensikit.figures.curves import line_of
from sensikit.figures.frames import Groups, of_metric, of_run, present, runs
from sensikit.figures.grids import colour_bar, framed, group_map
from sensikit.figures.panels import canvas, panels, rounded_up
from sensikit.figures.points import CHOSEN
from sensikit.figures.style import FULL, Drawn, styled
from sensikit.figures.words import captioned, named, percent, span
from sensikit.pruning.ledger import UNPRUNED


def effect(frame: pd.DataFrame, metric: str = "") -> pd.DataFrame:
    """Return the pruned rows of pruning-cross.csv in one metric, with one column more: what pruning does, `effect`.

    It is the share that is left of an unpruned score (not defined where that is 0), and the increase of a loss.
    """
    frame = of_metric(frame, metric)
    key = ["run", "evaluated"] if "run" in frame else ["evaluated"]
    start = frame[frame["order"] == UNPRUNED].rename(columns={"value": "unpruned"})
    cells = frame[frame["order"] != UNPRUNED].merge(start[[*key, "unpruned"]], on=key, how="left")
    if METRICS[frame["metric"].iloc[0]].higher:
        return cells.assign(effect=(cells["value"] / cells["unpruned"]).where(cells["unpruned"] > 0))
    return cells.assign(effect=cells["value"] - cells["unpruned"])


@styled
def cross_matrix(
    frame: pd.DataFrame,
    groups: Groups,
    metric: str = "",
    *,
    name: str = CHOSEN,
    ratios: Sequence[float] = (),
    width: float = FULL,
) -> Drawn:
    """Return heat maps of the share of a score that is kept, or the increase of a loss (pruning-cross.csv).

    Pruned for the group of a row, in the order `name`, evaluated on that of a column. A row of panels for each ratio
    and a column for each run (a single run has its ratios side by side), one scale. By default the `ratios` are the
    three that tell most (see `telling`).
    """
    cells = effect(frame, metric)
    cells = cells[cells["order"] == name]
    metric = str(cells["metric"].iloc[0])
    share = METRICS[metric].higher
    labels, chosen = runs(cells), list(ratios) or telling(cells)
    keys = present(groups, cells["group"], cells["evaluated"])
    shown = [(ratio, label) for ratio in chosen for label in labels]
    columns = min(3, len(labels) if len(labels) > 1 else len(chosen))
    room = max(2, columns)
    width *= columns / room
    side = (width - 0.75) / columns
    figure = canvas(width, -(-len(shown) // columns) * side + 0.3)
    axes = panels(figure, len(shown), columns)
    limits = _limits(cells, share)
    for ax, (ratio, label) in zip(axes, shown, strict=True):
        of_panel = of_run(cells[cells["ratio"] == ratio], label)
        wide = of_panel.pivot_table(index="group", columns="evaluated", values="effect", sort=False)
        values = wide.reindex(index=keys, columns=keys).astype(float)
        group_map(ax, values, values.map(lambda each: _written(each, share)), limits, groups, side)
        framed(ax, len(keys))
        ax.set_title(" · ".join(part for part in (label, f"{percent(ratio)} pruned") if part), pad=4)
        ax.set_xlabel("evaluated on")
        ax.set_ylabel("pruned for")
    scale = f"share of {named(metric)} kept" if share else f"increase of the loss, {METRICS[metric].unit}"
    colour_bar(figure, axes, limits, "vertical", scale, "{:.0%}".format if share else "{:.2f}".format)
    return Drawn(figure, cells, _caption(cells, metric, name))


def telling(cells: pd.DataFrame, most: int = 3) -> list[float]:
    """Return the ratios at which the group pruned for and the others differ most, at most `most`, ascending."""
    own = cells["group"] == cells["evaluated"]
    gap = cells[own].groupby("ratio")["effect"].mean() - cells[~own].groupby("ratio")["effect"].mean()
    found: list[float] = sorted(gap.dropna().abs().sort_values(ascending=False, kind="stable").index[:most])
    return found or sorted(cells["ratio"].unique())[:most]


def _limits(cells: pd.DataFrame, share: bool) -> tuple[float, float]:
    """Return the ends of the colour scale; of models that had no score to keep, those of a share."""
    values = cells["effect"].dropna()
    if values.empty:
        return 0.0, 1.0
    if share:
        return 0.0, max(1.0, math.ceil(values.max() * 10) / 10)
    return 0.0 - rounded_up(max(0.0, -values.min()), 0.05), max(0.05, rounded_up(values.max(), 0.05))


def _written(value: float, share: bool) -> str:
    return "" if math.isnan(value) else f"{100 * value:.0f}" if share else f"{value:.2f}".replace("-", "−")


def _caption(cells: pd.DataFrame, metric: str, name: str) -> str:
    label, share = named(metric), METRICS[metric].higher
    lead = f"{METRICS[metric].unit.capitalize()} by which the loss of the language of a column increases"
    if share:
        lead = f"Per cent of its unpruned {label} that the language of a column keeps"
    grey = f"Grey: the unpruned {label} is 0, and nothing of it can be kept."
    return captioned(
        f"{lead} when the model is pruned for the language of a row ({line_of(name).name}, by the row's sensitivities)",
        "Framed, on the diagonal: the language itself.",
        grey if cells["effect"].isna().any() else "",
        f"{span(cells['sentences'].astype(int), 'd')} test sentences a language, one training run.",
        result=outcomes.spared(cells, metric, telling(cells)),
    )
