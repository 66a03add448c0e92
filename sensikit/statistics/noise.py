"""Intervals over batches: what a correlation would be without one of the stored blocks of batches.

Everything here reads the block means that `analyze` keeps of a sample of the parameters, never the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from sensikit.run import Run
from sensikit.statistics.streaming import Float, Moments

HELD = 1 << 18
"""Block means that are worked on at a time: about as many as fit into a processor's cache."""

LEAST = 1 << 10
"""Parameters at a time, however many blocks there are."""

Set = tuple[str, str]
"""Task and name of a set of batches, such as ("mt", "cat")."""


def left_out(run: Run, sets: Sequence[Set], is_high: np.ndarray) -> dict[str, Float]:
    """Return the PCC between N sets without each of the G blocks, by subset of the parameters: (G, N, N) float64.

    Block g is left out of every set at once, which keeps what paired blocks share. Where the sets differ in their
    number of blocks, neighbours are joined until all have as many as the one with the fewest.

    Args:
        run: with block means of M sampled parameters.
        sets: N of them.
        is_high: (M,) bool, which of the parameters are in the high subset; the rest are the low subset.
    """
    count = min(len(block_batches(run, each)) for each in sets)
    moments = block_moments(run, sets, is_high, count)
    # S is a mean, but the sum of the blocks that are left will do: a correlation does not see the scale
    weights = [np.asarray(np.kron(np.eye(len(sets)), kept[None]), dtype=float) for kept in 1 - np.eye(count)]
    return {subset: np.stack([of.combined(w).pearson() for w in weights]) for subset, of in moments.items()}


def block_moments(run: Run, sets: Sequence[Set], is_high: np.ndarray, count: int) -> dict[str, Moments]:
    """Return the moments of the block sums of N sets, each in `count` blocks, by subset: of N·count vectors."""
    moments = {subset: Moments.zero(len(sets) * count) for subset in ("all", "high", "low")}
    for start, sums in _block_sums(run, sets, len(is_high), count):
        inside = is_high[start : start + sums.shape[1]]
        moments["high"].add(sums[:, inside])
        moments["low"].add(sums[:, ~inside])
    moments["all"].merge(moments["high"])
    moments["all"].merge(moments["low"])
    return moments


def block_batches(run: Run, of: Set) -> np.ndarray:
    """Return the number of batches in each block of a set, (G,)."""
    return np.array(run.manifest["sets"]["/".join(of)]["block_batches"])


def half_width(left_out: Float, confidence: float = 0.95) -> Float:
    """Return the half width of a jackknife interval from G delete-one estimates, (G, ...) → (...) float64.

    It is t of G − 1 degrees of freedom times √((G − 1)/G · Σ(x_g − x̄)²); a percentile bootstrap over so few blocks
    covers far too little.

    >>> round(float(half_width(np.array([1.0, 1.1, 0.9, 1.2]))), 3)
    0.616
    """
    count = len(left_out)
    with np.errstate(invalid="ignore"):
        spread = left_out - left_out.mean(axis=0)
        error = np.sqrt((count - 1) / count * (spread**2).sum(axis=0))
    return np.asarray(stats.t.ppf((1 + confidence) / 2, count - 1) * error)


def interval(pcc: Float, left_out: Float) -> tuple[Float, Float]:
    """Return the ends of a 95 % interval of a PCC, (...), from its delete-one estimates, (G, ...), by Fisher's z.

    >>> low, high = interval(np.array(0.8), np.array([0.79, 0.8, 0.81, 0.8]))
    >>> round(float(low), 3), round(float(high), 3)
    (0.757, 0.836)
    """
    # at ±1 there is neither a z nor an interval
    centre, width = fisher(np.clip(pcc, -1 + 1e-15, 1 - 1e-15)), half_width(fisher(left_out))
    return np.tanh(centre - width), np.tanh(centre + width)


def fisher(pcc: Float) -> Float:
    """Return Fisher's z = artanh(r), float64; infinite at ±1.

    >>> round(float(fisher(np.array(0.5))), 4)
    0.5493
    """
    with np.errstate(divide="ignore"):
        return np.asarray(np.arctanh(pcc))


def _block_sums(run: Run, sets: Sequence[Set], size: int, count: int) -> Iterator[tuple[int, Float]]:
    """Yield (start, (N·count, m)): the sums over the batches of each block at sampled parameters start … start + m."""
    readers = [(run.block_reader(*each), block_batches(run, each)[:, None]) for each in sets]
    step = max(LEAST, HELD // (len(sets) * count))
    for start in range(0, size, step):
        stop = min(start + step, size)
        yield start, np.concatenate([_joined(read(start, stop) * batches, count) for read, batches in readers])


def _joined(blocks: Float, count: int) -> Float:
    """Return the sums of neighbouring blocks, `count` of them."""
    if count == len(blocks):
        return blocks
    return np.asarray(np.add.reduceat(blocks, np.arange(count) * len(blocks) // count, axis=0))
