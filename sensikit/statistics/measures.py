"""What stands beside the PCC: correlations that a few large values do not decide, and how few those are.

A few hundred of the parameters with the largest S hold half of its variance, and so decide a Pearson correlation. That
of the ranks (Spearman) and that of log S give every parameter a say; where they order the subsets of the parameters in
another way than the PCC, what the PCC says of the subsets is said of those few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sensikit.run import Run
from sensikit.statistics.noise import SUBSETS, Set, masked, sampled
from sensikit.statistics.streaming import CONSTANT, Float, Moments

WHOLE = 1 << 25
"""Up to so many values of S in all sets together, ranks are taken of all parameters; beyond, of the stored sample."""

BITS = 16
"""Leading bits of a deviation, in float32, by which it is counted: bins are less than a hundredth wide."""


@dataclass(frozen=True)
class Beside:
    """Of N sets over one subset of the parameters.

    Attributes:
        spearman: correlation of ranks, ties with the mean of theirs, (N, N) float64. Where there are more than `WHOLE`
            values, it is of the sample of a million parameters whose block means are stored.
        log_pcc: PCC of log S over the parameters where both S are above 0, (N, N) float64.
        positive: how many those are, (N, N).
        half_variance: the fewest parameters that hold half of the variance of S, Σ (S − S̄)², (N,) int64, to within a
            hundredth.
    """

    spearman: Float
    log_pcc: Float
    positive: NDArray[np.int64]
    half_variance: NDArray[np.int64]


def measures(run: Run, sets: Sequence[Set], is_high: NDArray[np.bool_]) -> dict[str, Beside]:
    """Return what stands beside the PCC of N sets, by subset of the P parameters; `is_high` is (P,)."""
    vectors = [run.vector(*each) for each in sets]

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        """Yield (subset, (N, n) float64), chunk by chunk: all values, then those of each of the subsets."""
        for block, inside in masked(run.stream(vectors), is_high):
            wide = block.astype(np.float64)
            yield from (("all", wide), ("high", wide[:, inside]), ("low", wide[:, ~inside]))

    ranked = _spearman(*_ranked(run, vectors, is_high))
    logs = _logs(stream(), len(sets))
    carried = _half_variance(stream, len(sets))
    return {subset: Beside(ranked[subset], *logs[subset], carried[subset]) for subset in ranked}


def _ranked(run: Run, vectors: Sequence[Path], is_high: NDArray[np.bool_]) -> tuple[np.ndarray, NDArray[np.bool_]]:
    """Return the values that are ranked, (N, K) float32, and which are in the high subset, (K,)."""
    kept = np.ones(len(is_high), dtype=bool)
    if len(is_high) * len(vectors) > WHOLE:
        kept[:] = False
        kept[sampled(run)] = True
    blocks = [block[:, here] for block, here in masked(run.stream(vectors), kept)]
    return np.concatenate(blocks, axis=1), is_high[kept]


def _spearman(values: np.ndarray, is_high: NDArray[np.bool_]) -> dict[str, Float]:
    orders = [np.argsort(row) for row in values]  # of a subset it is the same, without the others
    found = {}
    for subset, inside in (("all", np.ones_like(is_high)), ("high", is_high), ("low", ~is_high)):
        moments = Moments.zero(len(values))
        ranked = zip(values, orders, strict=True)
        moments.add(np.stack([_ranks(row, order[inside[order]])[inside] for row, order in ranked]))
        found[subset] = moments.pearson()
    return found


def _ranks(row: np.ndarray, order: NDArray[np.int64]) -> Float:
    """Return the ranks of the values whose ascending order this is, at their places in the row; ties share theirs."""
    ordered = row[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    counts = np.diff(starts, append=len(order))
    found = np.empty(len(row))
    found[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return found


def _logs(stream: Iterator[tuple[str, np.ndarray]], count: int) -> dict[str, tuple[Float, NDArray[np.int64]]]:
    """Return the PCC of log S where both are above 0, and how many those are, (N, N) each, by subset."""
    sums = {subset: np.zeros((4, count, count)) for subset in SUBSETS}
    for subset, block in stream:
        above = (block > 0).astype(np.float64)
        logs = np.log(np.where(block > 0, block, 1.0))
        sums[subset] += [above @ above.T, logs @ above.T, logs**2 @ above.T, logs @ logs.T]
    found = {}
    for subset, (n, one, square, both) in sums.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = one / n  # of the logarithms of each set, where the other of the pair is above 0 too
            spread = square - n * mean**2
            # the rounding of the sums leaves equal values a spread of this size
            spread = np.where(spread > n * CONSTANT * mean**2, spread, np.nan)
            pcc = np.clip((both - n * mean * mean.T) / np.sqrt(spread * spread.T), -1.0, 1.0)
        found[subset] = (pcc, n.astype(np.int64))
    return found


def _half_variance(stream: Callable[[], Iterator[tuple[str, np.ndarray]]], count: int) -> dict[str, NDArray[np.int64]]:
    """Return the fewest parameters that hold half of Σ (S − S̄)² of each set, (N,), by subset."""
    totals: dict[str, Float] = {subset: np.zeros((2, count)) for subset in SUBSETS}
    for subset, block in stream():
        totals[subset] += [np.full(count, block.shape[1]), block.sum(axis=1)]
    bins = {subset: np.zeros((2, count, 1 << BITS)) for subset in totals}
    for subset, block in stream():
        size, total = totals[subset]
        away = np.abs(block - (total / np.maximum(size, 1))[:, None])
        # the bits of a positive float are ordered as it is
        places = away.astype(np.float32).view(np.uint32) >> np.uint32(32 - BITS)
        for row, (place, deviation) in enumerate(zip(places, away, strict=True)):
            bins[subset][0, row] += np.bincount(place, minlength=1 << BITS)
            bins[subset][1, row] += np.bincount(place, weights=deviation**2, minlength=1 << BITS)
    return {subset: np.array([_fewest(*each) for each in of.transpose(1, 0, 2)]) for subset, of in bins.items()}


def _fewest(counts: Float, squares: Float) -> int:
    """Return how many of the largest values make half of the sum, from how many and how much there is in each bin."""
    held = np.cumsum(squares[::-1])
    half = held[-1] / 2
    if half == 0:
        return 0
    last = int(np.searchsorted(held, half))
    counts, squares = counts[::-1], squares[::-1]
    before = held[last] - squares[last]
    return int(counts[:last].sum() + np.ceil((half - before) / (squares[last] / counts[last]) - 1e-9))
