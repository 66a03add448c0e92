"""What pruning costs: the answer to the second question of a report, in sentences and as a table of all orders."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sensikit.evaluation.metrics import METRICS
from sensikit.figures import outcomes
from sensikit.figures.conclusions import UNSURE
from sensikit.figures.curves import line_of
from sensikit.figures.frames import averaged, metrics_of, of_metric, of_run, runs
from sensikit.figures.points import CHOSEN, RANDOM, banded, curve, curve_over_seeds, near_0, verdicts
from sensikit.figures.words import bounded, bounded_in, named, percent
from sensikit.pruning.curves import control_of
from sensikit.pruning.ledger import PRUNING, UNPRUNED
from sensikit.report.inputs import Inputs
from sensikit.tables import Table


def costs(inputs: Inputs) -> list[str]:
    """Return what is left after pruning, and how each chosen order does against its random one, a sentence each."""
    swept = inputs.tables.get(PRUNING.name)
    if swept is None:
        return []
    frame, said = telling(swept), []
    if near_0(of_metric(swept)):
        name = METRICS[metrics_of(swept)[0]].label
        said.append(f"{name} is near 0 before anything is pruned, so that pruning can take nothing of it away.")
    metric, start = frame["metric"].iloc[0], averaged(frame[frame["order"] == UNPRUNED], ["group"])
    points = banded(curve_over_seeds(curve(frame)), inputs.curves.bands)
    tests = inputs.curves.tests
    tests = None if tests is None or near_0(frame) else of_metric(tests, metric)
    for label in runs(start):
        of_label = of_run(start, label)
        name = METRICS[metric].label if METRICS[metric].higher else f"the loss in {METRICS[metric].unit}"
        text = (
            f"Unpruned, {name} is {of_label['value'].mean():{METRICS[metric].digits}}, the mean over "
            f"{of_label['group'].nunique()} languages"
        )
        at = points[(points["run"] == label) & (points["order"] == CHOSEN) & (not near_0(frame))]
        left = outcomes.remaining(at)
        text += f"; with the least specific of the prunable parameters set to zero, it is {left}" if left else ""
        said.append(f"{label}: {text}." if label else f"{text}.")
    for order, control in RANDOM.items():
        names = line_of(order).name, line_of(control).name
        text = outcomes.against(tests, order, control, names)
        said += [f"{text[0].upper()}{text[1:]}."] if text else []
    return said


def telling(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of pruning.csv in the first metric; of models that have no score to lose, in the loss."""
    first, *others = metrics_of(frame)
    losses = [name for name in others if not METRICS[name].higher]
    return of_metric(frame, losses[0] if losses and near_0(of_metric(frame, first)) else first)


def order_costs(inputs: Inputs) -> Table | None:
    """Return what pruning 30 and 60% takes in each order, and each order against random, with 95% intervals.

    The ratios are the nearest to these. Where a test says it (see `curves.verdicts`) or, of an order that has none, the
    interval of the paired difference reaches 0, an order is marked as not told apart from random.
    """
    bands, tests = inputs.curves.bands, inputs.curves.tests
    if bands is None or near_0(frame := telling(inputs.tables[PRUNING.name])):
        return None
    metric = frame["metric"].iloc[0]
    bands, tests = of_metric(bands, metric), None if tests is None else of_metric(tests, metric)
    at, start = bands[bands["ratio"] > 0], bands[bands["ratio"] == 0].groupby("run")["value"].first().to_dict()
    shown, rows = f"+{METRICS[metric].digits}", []
    sure = {} if tests is None else verdicts(tests).set_index(["run", "order", "control", "ratio"])["verdict"].to_dict()
    for (run, order), of in at.groupby(["run", "order"], sort=False):
        row = {"Run": run, "Order": line_of(str(order)).name}
        by_ratio, control = of.set_index("ratio"), control_of(str(order))
        for ratio, name in outcomes.told(at["ratio"]).items():
            if ratio not in by_ratio.index:
                continue
            cell: Any = by_ratio.loc[ratio]
            lost = cell["value"] - start[run]
            row[f"Change in {named(metric)} at {name}"] = bounded(lost, cell["change_low"], cell["change_high"], shown)
            said = sure.get((run, order, control, ratio))
            unsure = said == "alike" if said else cell["margin_low"] <= 0 <= cell["margin_high"]
            margin = bounded_in(cell, ("margin", "margin_low", "margin_high"), shown)
            margin = margin if cell["margin"] == cell["margin"] else "–"
            row[f"minus random at {percent(ratio)}"] = f"{margin}, {UNSURE}" if unsure else margin
        rows.append(row)
    table = pd.DataFrame(rows)
    if table.empty:
        return None
    return Table(table.drop(columns="Run") if table["Run"].nunique() == 1 else table, {})


def curves_changed(inputs: Inputs) -> list[str]:
    """Return what pruning takes from each later run beyond what it takes from the first, as a sentence."""
    tests = inputs.curves.tests
    if tests is None or near_0(frame := telling(inputs.tables[PRUNING.name])):
        return []
    text = outcomes.between(of_metric(tests, frame["metric"].iloc[0]), CHOSEN, line_of(CHOSEN).name)
    return [f"Pruning: {text}."] if text else []
