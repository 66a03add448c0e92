"""Pruning curves against each other: bands of the mean curve, and paired tests at each ratio, over test sentences.

A sweep keeps the BLEU of each cell on every resample of the test sentences; resamples of one test set are the same in
every cell and in every run, so what is compared here is paired, and nothing is decoded or scored again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sensikit.errors import RunError
from sensikit.evaluation.resampling import Sampled, mean
from sensikit.pruning.ledger import PRUNING, resamples_of
from sensikit.run import Run

UNPRUNED = "none"
ORDER = "specificity"
"""The order that the others are the controls of."""

BANDS = ("run", "order", "ratio", "bleu", "bleu_low", "bleu_high", "change_low", "change_high")
TESTS = (
    "run_a", "order_a", "run_b", "order_b", "ratio",
    "difference", "difference_low", "difference_high", "p",
    "change", "change_low", "change_high", "change_p",
)  # fmt: skip

Curves = dict[str, dict[float, Sampled]]
"""By order and ratio: the mean over languages."""


def curve_bands(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Return the mean over languages of each order at each ratio, with its 95 % interval over test sentences.

    `change_low` and `change_high` bound what it has lost or won since ratio 0, sentence by sentence.

    Args:
        runs: by label, each with a sweep.

    Raises:
        RunError: if the resamples of a sweep are missing or damaged.
    """
    rows = [
        (label, order, ratio, point.value, *point.interval(), change.low, change.high)
        for label, run in runs.items()
        for order, points in curves(run).items()
        for ratio, point in points.items()
        for change in ((point - points[0.0]).tested(),)
    ]
    return pd.DataFrame(rows, columns=BANDS)


def curve_tests(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Return b minus a at each ratio, in BLEU and in what BLEU has lost since ratio 0 (`change`, Figure 3), tested.

    Within a run, b is the specificity order and a every other one; between runs, a is the first and b every other one,
    in each order that both have. Runs whose test sets, references, decoding or BLEU differ are not compared.

    Args:
        runs: by label, each with a sweep.

    Raises:
        RunError: if the resamples of a sweep are missing or damaged.
    """
    found = {label: curves(run) for label, run in runs.items()}
    kinds = {label: _kind(run) for label, run in runs.items()}
    rows = []
    for run_a, order_a, run_b, order_b in _pairs(found, kinds):
        a, b = found[run_a][order_a], found[run_b][order_b]
        for ratio in (ratio for ratio in a if ratio in b and (ratio or run_a != run_b)):
            change = (b[ratio] - b[0.0]) - (a[ratio] - a[0.0])
            rows.append((run_a, order_a, run_b, order_b, ratio, *(b[ratio] - a[ratio]).tested(), *change.tested()))
    return pd.DataFrame(rows, columns=TESTS)


def _pairs(found: Mapping[str, Curves], kinds: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (run_a, order_a, run_b, order_b)."""
    for label, orders in found.items():
        yield from ((label, other, label, ORDER) for other in orders if other != ORDER and ORDER in orders)
    first, *others = found
    for label in others:
        if kinds[label] == kinds[first]:
            yield from ((first, order, label, order) for order in found[first] if order in found[label])


def curves(run: Run) -> Curves:
    """Return the curve of each order, from ratio 0 on; at ratios at which every language was decoded.

    A point of the random order is the mean over its seeds.

    Raises:
        RunError: if the resamples of the sweep are missing, damaged, or not of the scores in pruning.csv.
    """
    frame = run.read_table(PRUNING)
    languages = frame["group"].nunique()
    points: dict[tuple[str, float], list[Sampled]] = {}
    for _, cells in frame.groupby(["order", "seed", "ratio"], sort=False, dropna=False):
        if len(cells) == languages:
            at = str(cells["order"].iloc[0]), float(cells["ratio"].iloc[0])
            read = [_read(run, *cell) for cell in zip(cells["hypotheses"], cells["bleu"], strict=True)]
            points.setdefault(at, []).append(mean(read))
    start = {0.0: mean(points.pop((UNPRUNED, 0.0)))}
    found: Curves = {}
    for (order, ratio), seeds in sorted(points.items(), key=lambda each: each[0][1]):
        found.setdefault(order, dict(start))[ratio] = mean(seeds)
    return {order: found[order] for order in dict.fromkeys(frame["order"]) if order in found}


def _read(run: Run, hypotheses: str, bleu: float) -> Sampled:
    path = run.path / resamples_of(hypotheses)
    found = Sampled.load(path)
    if not np.isclose(found.value, bleu, rtol=0, atol=1e-9):
        raise RunError(path, f"is of a BLEU of {found.value:.2f}, not {bleu:.2f}", "prune again")
    return found


def _kind(run: Run) -> Any:
    """Return what must be the same in two sweeps for their resamples to be of the same sentences and score."""
    frame = run.read_table(PRUNING)
    signatures = {
        "|".join(part for part in text.split("|") if not part.startswith("ckpt:")) for text in frame["signature"]
    }
    sizes = dict(zip(frame["group"], frame["sentences"], strict=True))
    return signatures, set(frame["bleu_signature"]), sizes
