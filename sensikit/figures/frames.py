"""What a figure or a table picks out of tidy frames: one metric, one task, one run; and the order of the groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from sensikit.evaluation.metrics import METRICS
from sensikit.figures.style import TIERS

Groups = Mapping[str, Mapping[str, Any]]
"""Key → {name, family, tier, sizes}, as a manifest has them."""


def metrics_of(frame: pd.DataFrame) -> list[str]:
    """Return the metrics of a long table: BLEU first where it is there."""
    return [name for name in METRICS if name in set(frame["metric"])]


def of_metric(frame: pd.DataFrame, metric: str = "") -> pd.DataFrame:
    """Return the rows of one metric, by default the first of `metrics_of`."""
    return frame[frame["metric"] == (metric or metrics_of(frame)[0])]


def of_task(frame: pd.DataFrame, task: str = "") -> pd.DataFrame:
    """Return the rows of one task, by default the first of the table."""
    return frame[frame["task"] == (task or frame["task"].iloc[0])]


def runs(frame: pd.DataFrame) -> list[str]:
    """Return the labels of the runs in `frame`, in order of appearance; one empty label where it has no run column."""
    return list(dict.fromkeys(frame["run"].astype(str))) if "run" in frame else [""]


def units(frame: pd.DataFrame) -> list[str]:
    """Return what is compared: the recipes, and the runs that stand alone; see `runs`."""
    return list(dict.fromkeys(frame["recipe"])) if "recipe" in frame else runs(frame)


def averaged(frame: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return the mean over the runs of each recipe, under its name in `run`, with their number in `runs`.

    What one of the runs lacks has no mean. A frame without a column `recipe` is returned as it is; `key` are the
    columns that tell the rows of a run apart.
    """
    if "recipe" not in frame:
        return frame
    key = ["recipe", *key]
    grouped = frame.drop(columns="run").groupby(key, sort=False, dropna=False)
    numbers = [str(name) for name in frame.select_dtypes("number") if name not in key]
    found = grouped.first()
    counted, sizes = grouped[numbers].count(), grouped.size()
    for name in numbers:
        means = grouped[name].mean().where(counted[name] == sizes)
        whole = frame[name].dtype.kind == "i" and (means % 1 == 0).all()  # a count that all share stays one
        found[name] = means.astype(int) if whole else means
    found["runs"] = sizes
    whole_recipes = frame.groupby("recipe")["run"].nunique()
    found = found[sizes == whole_recipes.reindex(found.index.get_level_values("recipe")).to_numpy()]
    return found.reset_index().rename(columns={"recipe": "run"})


def over_seeds(frame: pd.DataFrame, key: Sequence[str], value: str, low: str, high: str) -> pd.DataFrame:
    """Return what `averaged` does, with the 95% interval of t over training seeds in `low` and `high` of recipes."""
    found = averaged(frame, key)
    if "runs" not in found:
        return found
    deviations = frame.groupby(["recipe", *key])[value].std()
    deviation = deviations.reindex(pd.MultiIndex.from_frame(found[["run", *key]])).to_numpy()
    half = stdtrit(np.maximum(found["runs"] - 1, 1), 0.975) * deviation / np.sqrt(found["runs"])
    several = found["runs"] > 1
    return found.assign(
        **{low: found[low].mask(several, found[value] - half), high: found[high].mask(several, found[value] + half)}
    )


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """Return what panels of `averaged` runs are called: of several training seeds, with their number."""
    counts = frame.groupby("run")["runs"].max().to_dict() if "runs" in frame else {}
    return {run: f"{run} ({counts[run]} seeds)" if counts.get(run, 1) > 1 else run for run in runs(frame)}


def seeds_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the runs that are training seeds of a recipe."""
    return frame[frame["run"] != frame["recipe"]] if "recipe" in frame else frame[:0]


def with_seeds(means: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Return what `averaged` and `seeds_of` return, one below the other."""
    return pd.concat([means, seeds], ignore_index=True) if len(seeds) else means


def of_run(frame: pd.DataFrame, run: str) -> pd.DataFrame:
    """Return the rows of one run; all of them where `frame` has no run column."""
    return frame[frame["run"].astype(str) == run] if "run" in frame else frame


def examples_of(groups: Groups) -> str:
    """Return what the sizes of groups count: "sentences" of languages alone, else "sentence pairs"."""
    alone = all("source" in group and group["source"] is None for group in groups.values())
    return "sentences" if alone else "sentence pairs"


def blank(column: pd.Series[Any]) -> pd.Series[bool]:
    """Return which cells of a column of text are empty, whether read from a file or not."""
    return column.isna() | column.eq("")


def order(groups: Groups) -> list[str]:
    """Return the keys by family, within it by tier, then by training examples (largest first), then by key."""
    tiers = list(TIERS)

    def place(key: str) -> tuple[Any, ...]:
        group = groups[key]
        tier = tiers.index(group["tier"]) if group["tier"] in tiers else len(tiers)
        return group["family"], tier, -group["sizes"].get("train", 0), key

    return sorted(groups, key=place)


def present(groups: Groups, *columns: Collection[str]) -> list[str]:
    """Return the keys that stand in one of the columns, in the order of `order`."""
    found = set().union(*columns)
    return [key for key in order(groups) if key in found]


def families(groups: Groups) -> list[tuple[str, list[str]]]:
    """Return each family with its keys, in the order of `order`."""
    grouped: dict[str, list[str]] = {}
    for key in order(groups):
        grouped.setdefault(groups[key]["family"], []).append(key)
    return list(grouped.items())
