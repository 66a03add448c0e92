"""The points of pruning curves: means over groups and seeds, their bounds, and what tests say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import LEVEL
from sensikit.figures.frames import of_metric, of_run, over_seeds, runs
from sensikit.pruning.ledger import UNPRUNED

CHOSEN, CONTROL = "specificity", "random"
MATCHED = "matched"
RANDOM = {CHOSEN: CONTROL, MATCHED: "matched-random"}
"""The random order that shares all with a chosen one but what it is about."""

P, HOW = "p_holm", "after Holm over all tests"
"""The column of tests that verdicts rest on, and how many tests it is corrected for."""

COLUMNS = ["run", "order", "ratio", "metric", "value", "low", "high", "spread_low", "spread_high", "groups", "seeds"]
POINT = ["run", "order", "ratio", "metric"]


def curve(frame: pd.DataFrame, metric: str = "", change: bool = False) -> pd.DataFrame:
    """Return the mean over groups against the ratio, one row for each (run, order, ratio).

    Only ratios at which every group was scored count: a mean over fewer would be of other groups. The unpruned model
    is the start of every order. `low` and `high` are the means of the groups' 95% bounds, which needs no independence
    between them and so is rather too wide than too narrow; `spread_low` and `spread_high` are the extremes over seeds.
    With `change`, the unpruned mean of the same run is subtracted: the bounds of a score are not those of a change, so
    there are none then. `frame` has the rows of pruning.csv; the metric is by default BLEU, or the first of the table.
    """
    frame = of_metric(frame, metric)
    curves = [_curve(of_run(frame, run), change, run) for run in runs(frame)]
    drawn = [points for points in curves if len(points)]  # a run of which nothing was pruned has no curve
    found = pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame(columns=COLUMNS)
    if "recipe" in frame:
        found["recipe"] = found["run"].map(dict(zip(frame["run"], frame["recipe"], strict=True)))
    return found


def curve_over_seeds(points: pd.DataFrame, change: bool = False, key: Sequence[str] = ()) -> pd.DataFrame:
    """Return the mean curve of each recipe, and those of runs that stand alone, of what `curve` returns.

    `low` and `high` of a recipe are the 95% interval of t over its training seeds, within what a score can be;
    `spread_*` are the means of theirs. `key` are columns that tell the curves of a run apart, beside their order.
    """
    found = over_seeds(points, [*POINT[1:], *key], "value", "low", "high")
    if "runs" in found and not change:
        bounds = METRICS[found["metric"].iloc[0]].bounds
        found[["low", "high"]] = found[["low", "high"]].clip(*bounds)
    return found


def _curve(frame: pd.DataFrame, change: bool, run: str) -> pd.DataFrame:
    groups = frame["group"].nunique()
    cells = frame.assign(seed=frame["seed"].astype("string").fillna(""))
    means = cells.groupby(["order", "seed", "ratio"], sort=False).agg(
        value=("value", "mean"), low=("value_low", "mean"), high=("value_high", "mean"), groups=("group", "nunique"),
        bounds=("value_low", "count"),
    ).reset_index()  # fmt: skip
    means = means[means["groups"] == groups]
    means.loc[means["bounds"] < groups, ["low", "high"]] = math.nan
    orders = [name for name in dict.fromkeys(means["order"]) if name != UNPRUNED]
    start = means[means["order"] == UNPRUNED]
    rows = [
        {
            "run": run, "order": name, "ratio": ratio, "metric": frame["metric"].iloc[0], "value": at["value"].mean(),
            "low": at["low"].mean(skipna=False), "high": at["high"].mean(skipna=False),
            "spread_low": at["value"].min(), "spread_high": at["value"].max(),
            "groups": groups, "seeds": len(at),
        }
        for name in orders
        for ratio, at in pd.concat([start, means[means["order"] == name]]).groupby("ratio")
    ]  # fmt: skip
    points = pd.DataFrame(rows, columns=COLUMNS)
    if change:
        points[["value", "spread_low", "spread_high"]] -= start["value"].mean()
        points[["low", "high"]] = math.nan
    return points


def banded(points: pd.DataFrame, bands: pd.DataFrame | None, change: bool = False) -> pd.DataFrame:
    """Return points of `curve` with the intervals of their means in `low` and `high`, where `bands` has them.

    `bands` are those of `pruning.curves.curve_bands`; a single run may have any name there.
    """
    if bands is None or points.empty:
        return points
    kind = "change" if change else "value"
    bounds = as_in(bands, points).rename(columns={f"{kind}_low": "low", f"{kind}_high": "high"})
    merged = points.drop(columns=["low", "high"]).merge(bounds[[*POINT, "low", "high"]], on=POINT, how="left")
    return merged[list(points)]


NEAR_0 = 1.0
"""A score below it, of 100, is that of a model that does not translate: pruning has nothing to take away."""


def near_0(frame: pd.DataFrame) -> bool:
    """Return whether the mean over groups of one metric is near 0 before anything is pruned, in every run."""
    start = frame[frame["order"] == UNPRUNED]
    highest = max((of_run(start, label)["value"].mean() for label in runs(start)), default=NEAR_0)
    return METRICS[frame["metric"].iloc[0]].higher and bool(highest < NEAR_0)


def verdicts(tests: pd.DataFrame) -> pd.DataFrame:
    """Return which order of a run is better than another, a row for each test of two orders of a run.

    `verdict` is "better" or "worse" where p is below 0.05, and "alike" where it is not; without a p there is no row.
    `tests` are those of `pruning.curves.curve_tests`.
    """
    rows = tests[(tests["run_a"] == tests["run_b"]) & tests[P].notna()]
    higher = rows["metric"].map(lambda name: METRICS[name].higher).astype(bool)
    said = np.where((rows["difference"] > 0) == higher, "better", "worse")
    found = rows.assign(run=rows["run_b"], order=rows["order_b"], control=rows["order_a"])
    found["verdict"] = np.where(rows[P] < LEVEL, said, "alike")
    return found[["run", "order", "control", "ratio", "metric", "verdict"]]


def judged(points: pd.DataFrame, tests: pd.DataFrame | None) -> pd.Series[str]:
    """Return the verdict on each point of a chosen order against random in the same run; "" without a test."""
    if tests is None or points.empty:
        return pd.Series("", index=points.index, dtype=object)
    found = as_in(verdicts(tests), points)
    found = found[found["control"] == found["order"].map(RANDOM)]
    merged = points[POINT].merge(found[[*POINT, "verdict"]], on=POINT, how="left")
    return pd.Series(merged["verdict"].fillna("").to_numpy(), index=points.index)


def as_in(frame: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` with its runs called as in `points`, where a single run has no name."""
    return frame.assign(run="") if set(points["run"]) == {""} else frame
