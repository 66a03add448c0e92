"""The points of pruning curves: means over languages at each ratio, their bands, and what differs from random."""

from __future__ import annotations

import math

import pandas as pd

from sensikit.figures.style import of_run, runs

METRICS = {"bleu": "BLEU", "chrf": "chrF++"}
UNPRUNED, CHOSEN, CONTROL = "none", "specificity", "random"
LEVEL = 0.05  # a test whose p is below it is marked
COLUMNS = ["run", "order", "ratio", "value", "low", "high", "spread_low", "spread_high", "languages", "seeds"]


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
    languages = frame["language"].nunique()
    cells = frame.assign(value=frame[metric], low=frame.get(f"{metric}_low"), high=frame.get(f"{metric}_high"))
    cells["seed"] = cells["seed"].astype("string").fillna("")
    means = cells.groupby(["order", "seed", "ratio"], sort=False).agg(
        value=("value", "mean"), low=("low", "mean"), high=("high", "mean"), languages=("language", "nunique"),
        bounds=("low", "count"),
    ).reset_index()  # fmt: skip
    means = means[means["languages"] == languages]
    means.loc[means["bounds"] < languages, ["low", "high"]] = math.nan
    orders = [name for name in dict.fromkeys(means["order"]) if name != UNPRUNED]
    start = means[means["order"] == UNPRUNED]
    rows = [
        {
            "run": run, "order": name, "ratio": ratio, "value": at["value"].mean(),
            "low": at["low"].mean(skipna=False), "high": at["high"].mean(skipna=False),
            "spread_low": at["value"].min(), "spread_high": at["value"].max(),
            "languages": languages, "seeds": len(at),
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
    codes = dict.fromkeys(frame["language"])
    return pd.concat([curve(frame[frame["language"] == code], metric).assign(language=code) for code in codes])


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
