"""Pruning curves against each other: bands of the mean curve, and paired tests at each ratio, over test segments.

A sweep keeps the sums over sentences of each cell in each metric, and the identities of the segments: draws and swaps
are the same in every cell, language and run, so what is compared here is paired, and nothing is translated again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sensikit.errors import RunError
from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import (
    FEWEST,
    Float,
    Sampled,
    Scored,
    distinct,
    holm,
    load_ids,
    load_sums,
    mean,
    over_seeds,
    resampled,
    swapped,
)
from sensikit.evaluation.scoring import compared
from sensikit.files import sha256
from sensikit.pruning.ledger import AGAIN, SEGMENTS, UNPRUNED, Ledger, Line
from sensikit.run import Run

ORDER, MATCHED = "specificity", "matched"
"""The orders that others are the controls of: those at equal sensitivity of the second, all others of the first."""

BANDS = (
    "run", "order", "ratio", "metric", "value", "value_low", "value_high", "change_low", "change_high",
    "margin", "margin_low", "margin_high",
)  # fmt: skip
TESTS = (
    "run_a", "order_a", "run_b", "order_b", "ratio", "metric",
    "difference", "difference_low", "difference_high", "p",
    "change", "change_low", "change_high", "change_p", "segments", "seeds_a", "seeds_b", "p_holm", "change_p_holm",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Point:
    """A mean over groups, and over the seeds of the random order.

    Attributes:
        models: of each seed, or of the one model, the test set of every group, in one order of the groups.
        mean: their scores and draws.
        draws: how many.
    """

    models: list[list[Scored]]
    mean: Sampled
    draws: int

    def swapped(self, other: Point) -> Float:
        """Return this mean minus that of `other` after each swap; nothing where either is over several seeds."""
        if len(self.models) > 1 or len(other.models) > 1:
            return np.empty(0)
        pairs = zip(other.models[0], self.models[0], strict=True)
        found: Float = np.mean([swapped(a, b, self.draws) for a, b in pairs], axis=0)
        return found


Curves = dict[str, dict[float, Point]]
"""By order and ratio."""

Unit = list[Curves]
"""The curves of the runs of a recipe, or of a run that stands alone."""


def curve_bands(runs: Mapping[str, Run], recipes: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """Return the mean over groups of each order at each ratio, with its 95 % interval.

    It is over test segments and, of the random order, over its seeds where there are several. Runs that are training
    seeds of a recipe are averaged under its name, and the interval is of t over them and the segments (see `spread`);
    the seeds of a random order are part of how they vary. `change_low` and `change_high` bound what the mean has lost
    or won since ratio 0. `margin` is the mean minus that of the random order of the same kind (see `control_of`), with
    its paired interval; NaN where that was not pruned to this ratio. Arguments and errors are those of `curve_tests`.
    """
    rows = [
        (label, order, ratio, metric, over.value, *over.interval(), *change.interval(),
         *_margin(of_metric, order, ratio))
        for label, (unit, _) in _units(runs, recipes or {}).items()
        for metric, of_metric in unit.items()
        for order in _orders(of_metric)
        for ratio in _ratios(of_metric, order)
        for over, change in (_over(of_metric, order, ratio),)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=BANDS)


def control_of(order: str) -> str:
    """Return the random order that takes from the same strata as `order`: from all parameters, or from each stratum."""
    return f"{MATCHED}-random" if order.startswith(MATCHED) else "random"


def _margin(unit: Unit, order: str, ratio: float) -> tuple[float, float, float]:
    """Return the mean over the runs of an order minus its random one in the same run, with its interval."""
    control = control_of(order)
    if order == control or not ratio or control not in _orders(unit) or ratio not in _ratios(unit, control):
        return (np.nan,) * 3
    margin = _averaged([of[order][ratio].mean - of[control][ratio].mean for of in unit])
    return margin.value, *margin.interval()


def _units(
    runs: Mapping[str, Run], recipes: Mapping[str, Sequence[str]]
) -> dict[str, tuple[dict[str, Unit], dict[str, Any]]]:
    """Return, by name, the curves of each recipe and of each other run by metric, and of what sweep they are.

    Metrics in which the runs of a recipe were not swept alike have none: what is drawn there is not of one score.
    """
    found = {}
    for name in compared(list(runs), recipes):
        those = [runs[label] for label in recipes.get(name, [name])]
        each, kinds = zip(*map(_swept, those), strict=True)
        alike = {metric: kind for metric, kind in kinds[0].items() if all(of.get(metric) == kind for of in kinds)}
        found[name] = {metric: [of[metric] for of in each] for metric in alike}, alike
    return found


def _orders(unit: Unit) -> list[str]:
    return [order for order in unit[0] if all(order in of for of in unit)]


def _ratios(unit: Unit, order: str) -> list[float]:
    return [ratio for ratio in unit[0][order] if all(ratio in of[order] for of in unit)]


def _over(unit: Unit, order: str, ratio: float) -> tuple[Sampled, Sampled]:
    """Return the mean over the runs at a ratio, and what it has changed by since ratio 0."""
    points = [(of[order][ratio].mean, of[order][0.0].mean) for of in unit]
    return _averaged([point for point, _ in points]), _averaged([point - start for point, start in points])


def _averaged(runs: Sequence[Sampled]) -> Sampled:
    """Return the mean over training seeds; of a run that stands alone, what it is, seeds of random orders and all."""
    return over_seeds(runs) if len(runs) > 1 else runs[0]


def curve_tests(runs: Mapping[str, Run], recipes: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """Return b minus a at each ratio, in a metric and in what it has changed by since ratio 0 (`change`), tested.

    Within a run, b is the specificity order and a every other one, or b is matched and a another order at equal
    sensitivity; between runs, a is the first and b every other one, in each order that both have. Training seeds of a
    recipe are one run under its name: within it, orders are compared in each seed and the differences are averaged.
    Runs whose test sets, references, decoding or metric differ are not compared.

    `p` is that of approximate randomisation or, of training seeds or a random order of several seeds, of t over seeds
    and test segments; `seeds_*` say how many. Of one run against one, another training seed may say otherwise. `p_holm`
    and `change_p_holm` are p after Holm over all tests of the metric; they are missing under `FEWEST` test segments.

    Args:
        runs: by label, each with a sweep.
        recipes: by name, the labels of the training seeds of it.

    Raises:
        RunError: if the ledger of a sweep or the sums of a cell are missing or damaged.
    """
    units = _units(runs, recipes or {})
    rows = []
    for metric in METRICS:
        of_metric = {name: unit[metric] for name, (unit, _) in units.items() if metric in unit}
        kinds = {name: units[name][1][metric] for name in of_metric}
        for run_a, order_a, run_b, order_b in _pairs(of_metric, kinds):
            a, b = of_metric[run_a], of_metric[run_b]
            alone = run_a != run_b and len(a) == len(b) == 1
            start = b[0][order_b][0.0].swapped(a[0][order_a][0.0]) if alone else np.empty(0)
            here = _ratios(b, order_b)
            for ratio in (each for each in _ratios(a, order_a) if each in here and (each or run_a != run_b)):
                where = run_a, order_a, run_b, order_b, ratio, metric
                tests = _tested(a, b, order_a, order_b, ratio, start)
                segments = distinct(b[0][order_b][ratio].models[0])
                seeds = _seeds(a, order_a, ratio), _seeds(b, order_b, ratio)
                rows.append((*where, *tests, segments, *seeds, np.nan, np.nan))
    return _corrected(pd.DataFrame(rows, columns=TESTS))


def _seeds(unit: Unit, order: str, ratio: float) -> int:
    return len(unit) if len(unit) > 1 else len(unit[0][order][ratio].models)


def _tested(a: Unit, b: Unit, order_a: str, order_b: str, ratio: float, start: Float) -> tuple[float, ...]:
    """Return the difference of two orders at a ratio, and of their changes since ratio 0, tested.

    `start` is the difference of the two at ratio 0, swapped: of single runs.
    """
    if a is b:
        points = [(of[order_b][ratio], of[order_a][ratio]) for of in a]
        difference = _averaged([one.mean - other.mean for one, other in points])
        found = difference.tested(points[0][0].swapped(points[0][1]) if len(points) == 1 else np.empty(0))
        return *found, *found
    (mean_a, change_a), (mean_b, change_b) = _over(a, order_a, ratio), _over(b, order_b, ratio)
    swaps = b[0][order_b][ratio].swapped(a[0][order_a][ratio]) if len(a) == len(b) == 1 else np.empty(0)
    change = (change_b - change_a).tested(swaps - start if len(swaps) else swaps)
    return *(mean_b - mean_a).tested(swaps), *change


def _corrected(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the tests with p after Holm: of a metric, all differences, and all changes that are no such difference."""
    for metric in dict.fromkeys(tests["metric"]):
        of_metric = tests["metric"] == metric
        enough = of_metric & (tests["segments"] >= FEWEST)
        within = tests["run_a"] == tests["run_b"]
        own = enough & ~within & (tests["ratio"] > 0)
        corrected = holm(np.concatenate([tests.loc[enough, "p"], tests.loc[own, "change_p"]]))
        tests.loc[enough, "p_holm"] = corrected[: enough.sum()]
        tests.loc[own, "change_p_holm"] = corrected[enough.sum() :]
        tests.loc[enough & within, "change_p_holm"] = tests.loc[enough & within, "p_holm"]
    return tests


def _pairs(found: Mapping[str, Unit], kinds: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (run_a, order_a, run_b, order_b)."""
    known = {label: _orders(unit) for label, unit in found.items()}
    for label, orders in known.items():
        for name in (ORDER, MATCHED):
            controls = [each for each in orders if each != name and each.startswith(MATCHED) == (name == MATCHED)]
            yield from ((label, other, label, name) for other in controls if name in orders)
    labels = list(found)
    for label in labels[1:]:
        if kinds[label] == kinds[labels[0]]:
            yield from ((labels[0], order, label, order) for order in known[labels[0]] if order in known[label])


Swept = tuple[dict[str, Curves], dict[str, Any]]
"""By metric, the curves, and what must be the same in two sweeps for their draws to be of the same sentences."""


def _swept(run: Run) -> Swept:
    """Return the curves of a run from ratio 0 on, at the ratios at which every group was scored."""
    file = Ledger(run.path / "pruning", {}).file
    return _read(run.path, sha256(file) if file.is_file() else "")


@lru_cache(maxsize=8)
def _read(folder: Path, _: str) -> Swept:
    """Return what is in a ledger, by its SHA-256: bands and tests are made of the same curves."""
    ledger = Ledger.open(folder / "pruning")
    own: dict[str, list[Line]] = {}
    for (cell, metric), line in ledger.lines.items():
        if not cell.other:
            own.setdefault(metric, []).append(line)
    found = {metric: _curves(ledger, folder, lines) for metric, lines in own.items()}
    return found, {metric: _kind(lines) for metric, lines in own.items()}


def _curves(ledger: Ledger, folder: Path, lines: Sequence[Line]) -> Curves:
    """Return the curves in one metric; a point of the random order is the mean over its seeds."""
    groups, draws = sorted({line["group"] for line in lines}), ledger.manifest["bootstrap"]
    models: dict[tuple[str, float], dict[int | None, list[tuple[Scored, Sampled]]]] = {}
    for _, those in groupby(sorted(lines, key=lambda line: str(line["group"])), lambda line: line["group"]):
        cells = list(those)
        sets = [_scored(folder, line) for line in cells]
        for line, scored, sampled in zip(cells, sets, resampled(sets, draws), strict=True):
            of_seed = models.setdefault((line["order"], line["ratio"]), {}).setdefault(line["seed"], [])
            of_seed.append((scored, sampled))
    points: dict[tuple[str, float], Point] = {}
    for where, seeds in models.items():
        whole = [cells for cells in seeds.values() if len(cells) == len(groups)]
        if whole:
            over = over_seeds([mean([sampled for _, sampled in cells]) for cells in whole])
            points[where] = Point([[scored for scored, _ in cells] for cells in whole], over, draws)
    if (UNPRUNED, 0.0) not in points:
        raise RunError(ledger.file, "lacks the unpruned score of a group", "go on with prune --resume")
    start = points.pop((UNPRUNED, 0.0))
    found: Curves = {order: {0.0: start} for order, _ in points}
    for (order, ratio), point in sorted(points.items(), key=lambda each: each[0][1]):
        found[order][ratio] = point
    return found


def _scored(folder: Path, line: Line) -> Scored:
    sums = load_sums(folder / line["sums"], line["sums_sha256"], AGAIN)
    return METRICS[line["metric"]].scored(load_ids(folder / SEGMENTS / line["test_set"], AGAIN), sums)


def _kind(lines: Sequence[Line]) -> Any:
    """Return what two sweeps must share to be compared: all but the checkpoint."""

    def without_checkpoint(text: str) -> str:
        return "|".join(part for part in text.split("|") if not part.startswith("ckpt:"))

    return (
        {without_checkpoint(line["signature"]) for line in lines},
        {line["metric_signature"] for line in lines},
        {(line["group"], line["test_set"], line["sentences"]) for line in lines},
    )
