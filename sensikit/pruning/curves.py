"""Pruning curves against each other: bands of the mean curve, and paired tests at each ratio, over test sentences.

A sweep keeps the sums over sentences of each cell in each metric; resamples of one test set are the same in every cell
and in every run, so what is compared here is paired, and nothing is translated again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from sensikit.errors import RunError
from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import Sampled, load_sums, mean
from sensikit.pruning.ledger import UNPRUNED, Ledger, Line
from sensikit.run import Run

ORDER, MATCHED = "specificity", "matched"
"""The orders that others are the controls of: those at equal sensitivity of the second, all others of the first."""

BANDS = ("run", "order", "ratio", "metric", "value", "value_low", "value_high", "change_low", "change_high")
TESTS = (
    "run_a", "order_a", "run_b", "order_b", "ratio", "metric",
    "difference", "difference_low", "difference_high", "p",
    "change", "change_low", "change_high", "change_p",
)  # fmt: skip

Curves = dict[str, dict[float, Sampled]]
"""By order and ratio: the mean over groups."""


def curve_bands(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Return the mean over groups of each order at each ratio, with its 95 % interval over test sentences.

    `change_low` and `change_high` bound what it has lost or won since ratio 0, sentence by sentence.

    Args:
        runs: by label, each with a sweep.

    Raises:
        RunError: if the ledger of a sweep or the sums of a cell are missing or damaged.
    """
    rows = [
        (label, order, ratio, metric, point.value, *point.interval(), change.low, change.high)
        for label, run in runs.items()
        for metric, of_metric in curves(run).items()
        for order, points in of_metric.items()
        for ratio, point in points.items()
        for change in ((point - points[0.0]).tested(),)
    ]
    return pd.DataFrame(rows, columns=BANDS)


def curve_tests(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Return b minus a at each ratio, in a metric and in what it has changed by since ratio 0 (`change`), tested.

    Within a run, b is the specificity order and a every other one, or b is matched and a another order at equal
    sensitivity; between runs, a is the first and b every other one,
    in each order that both have. Runs whose test sets, references, decoding or metric differ are not compared.

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
            for ratio in (ratio for ratio in a if ratio in b and (ratio or run_a != run_b)):
                difference, change = b[ratio] - a[ratio], (b[ratio] - b[0.0]) - (a[ratio] - a[0.0])
                where = run_a, order_a, run_b, order_b, ratio, metric
                rows.append((*where, *difference.tested(), *change.tested()))
    return pd.DataFrame(rows, columns=TESTS)


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
    ledger = Ledger.open(run.path / "pruning")
    return {metric: _curves(ledger, run.path, lines) for metric, lines in _own(ledger).items()}


def _own(ledger: Ledger) -> dict[str, list[Line]]:
    """Return the lines of each metric whose own group was scored."""
    found: dict[str, list[Line]] = {}
    for (cell, metric), line in ledger.lines.items():
        if not cell.other:
            found.setdefault(metric, []).append(line)
    return found


def _curves(ledger: Ledger, folder: Path, lines: Sequence[Line]) -> Curves:
    groups = {line["group"] for line in lines}
    models: dict[tuple[str, int | None, float], list[Sampled]] = {}
    for line in lines:
        stored = folder / line["sums"], line["sums_sha256"], line["test_set"]
        score = _sampled(line["metric"], *stored, ledger.manifest["bootstrap"])
        models.setdefault((line["order"], line["seed"], line["ratio"]), []).append(score)
    points: dict[tuple[str, float], list[Sampled]] = {}
    for (order, _, ratio), scores in models.items():
        if len(scores) == len(groups):
            points.setdefault((order, ratio), []).append(mean(scores))
    if (UNPRUNED, 0.0) not in points:
        raise RunError(ledger.file, "lacks the unpruned score of a group", "go on with prune --resume")
    start = {0.0: mean(points.pop((UNPRUNED, 0.0)))}
    found: Curves = {order: dict(start) for order, _ in points}
    for (order, ratio), seeds in sorted(points.items(), key=lambda each: each[0][1]):
        found[order][ratio] = mean(seeds)
    return found


@lru_cache(maxsize=1 << 14)
def _sampled(metric: str, path: Path, digest: str, test_set: str, bootstrap: int) -> Sampled:
    return METRICS[metric].sampled(load_sums(path, digest, "prune again"), test_set, bootstrap)


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
