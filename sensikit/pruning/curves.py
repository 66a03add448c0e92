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
from sensikit.files import sha256
from sensikit.pruning.ledger import SEGMENTS, UNPRUNED, Ledger, Line
from sensikit.run import Run

ORDER, MATCHED = "specificity", "matched"
"""The orders that others are the controls of: those at equal sensitivity of the second, all others of the first."""

BANDS = ("run", "order", "ratio", "metric", "value", "value_low", "value_high", "change_low", "change_high")
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


def curve_bands(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Return the mean over groups of each order at each ratio, with its 95 % interval.

    It is over test segments and, of the random order, over its seeds where there are several. `change_low` and
    `change_high` bound what the mean has lost or won since ratio 0.

    Args:
        runs: by label, each with a sweep.

    Raises:
        RunError: if the ledger of a sweep or the sums of a cell are missing or damaged.
    """
    rows = [
        (label, order, ratio, metric, point.mean.value, *point.mean.interval(), *change.interval())
        for label, run in runs.items()
        for metric, of_metric in curves(run).items()
        for order, points in of_metric.items()
        for ratio, point in points.items()
        for change in (point.mean - points[0.0].mean,)
    ]
    return pd.DataFrame(rows, columns=BANDS)


def curve_tests(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Return b minus a at each ratio, in a metric and in what it has changed by since ratio 0 (`change`), tested.

    Within a run, b is the specificity order and a every other one, or b is matched and a another order at equal
    sensitivity; between runs, a is the first and b every other one,
    in each order that both have. Runs whose test sets, references, decoding or metric differ are not compared.

    `p` is that of approximate randomisation or, where the random order has several seeds, of t over seeds and test
    segments; `seeds_*` say how many. `p_holm` and `change_p_holm` are p after Holm over all tests of the metric; they
    are missing under `FEWEST` test segments.

    Args:
        runs: by label, each with a sweep.

    Raises:
        RunError: if the ledger of a sweep or the sums of a cell are missing or damaged.
    """
    found = {label: curves(run) for label, run in runs.items()}
    kinds = {label: _kinds(run) for label, run in runs.items()}
    rows = []
    for metric in METRICS:
        of_metric = {label: each[metric] for label, each in found.items() if metric in each}
        for run_a, order_a, run_b, order_b in _pairs(of_metric, {label: kinds[label][metric] for label in of_metric}):
            a, b = of_metric[run_a][order_a], of_metric[run_b][order_b]
            start = b[0.0].swapped(a[0.0]) if run_a != run_b else np.zeros(())
            for ratio in (ratio for ratio in a if ratio in b and (ratio or run_a != run_b)):
                where, seeds = (run_a, order_a, run_b, order_b, ratio, metric), (a[ratio].models, b[ratio].models)
                tests = _tested(a[ratio], b[ratio], a[0.0], b[0.0], start)
                rows.append((*where, *tests, distinct(b[ratio].models[0]), *map(len, seeds), np.nan, np.nan))
    return _corrected(pd.DataFrame(rows, columns=TESTS))


def _tested(a: Point, b: Point, a0: Point, b0: Point, start: Float) -> tuple[float, ...]:
    """Return the difference of two points, and of their changes since ratio 0, tested; `start`: b0, swapped with a0."""
    swaps = b.swapped(a)
    difference = (b.mean - a.mean).tested(swaps)
    change = ((b.mean - b0.mean) - (a.mean - a0.mean)).tested(swaps - start if len(swaps) else swaps)
    return *difference, *change


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


def _pairs(found: Mapping[str, Curves], kinds: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (run_a, order_a, run_b, order_b)."""
    for label, orders in found.items():
        for name in (ORDER, MATCHED):
            controls = [each for each in orders if each != name and each.startswith(MATCHED) == (name == MATCHED)]
            yield from ((label, other, label, name) for other in controls if name in orders)
    labels = list(found)
    for label in labels[1:]:
        if kinds[label] == kinds[labels[0]]:
            yield from ((labels[0], order, label, order) for order in found[labels[0]] if order in found[label])


def curves(run: Run) -> dict[str, Curves]:
    """Return the curve of each order in each metric, from ratio 0 on; at ratios at which every group was scored.

    A point of the random order is the mean over its seeds.

    Raises:
        RunError: if the ledger of the sweep or the sums of a cell are missing or damaged.
    """
    file = Ledger.open(run.path / "pruning").file
    return _read(run.path, sha256(file) if file.is_file() else "")


@lru_cache(maxsize=8)
def _read(folder: Path, _: str) -> dict[str, Curves]:
    """Return the curves of a ledger, by its SHA-256: bands and tests are made of the same ones."""
    ledger = Ledger.open(folder / "pruning")
    return {metric: _curves(ledger, folder, lines) for metric, lines in _own(ledger).items()}


def _own(ledger: Ledger) -> dict[str, list[Line]]:
    """Return the lines of each metric whose own group was scored."""
    found: dict[str, list[Line]] = {}
    for (cell, metric), line in ledger.lines.items():
        if not cell.other:
            found.setdefault(metric, []).append(line)
    return found


def _curves(ledger: Ledger, folder: Path, lines: Sequence[Line]) -> Curves:
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
    sums = load_sums(folder / line["sums"], line["sums_sha256"], "prune again")
    return METRICS[line["metric"]].scored(load_ids(folder / SEGMENTS / line["test_set"], "prune again"), sums)


def _kinds(run: Run) -> dict[str, Any]:
    """Return, by metric, what must be the same in two sweeps for their resamples to be of the same sentences."""

    def without_checkpoint(text: str) -> str:
        return "|".join(part for part in text.split("|") if not part.startswith("ckpt:"))

    return {
        metric: (
            {without_checkpoint(line["signature"]) for line in lines},
            {line["metric_signature"] for line in lines},
            {(line["group"], line["test_set"], line["sentences"]) for line in lines},
        )
        for metric, lines in _own(Ledger.open(run.path / "pruning")).items()
    }
