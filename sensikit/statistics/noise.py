"""Intervals over batches: what a correlation would be without one of the stored blocks of batches.

Intervals are of the block means that `analyze` keeps of a sample of the parameters; nothing here reads the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import block_diag

from sensikit.parameters import sample_of
from sensikit.run import Run
from sensikit.statistics.streaming import CACHED, LEAST, Float, Moments

SUBSETS = ("all", "high", "low")
"""Of the parameters: all, the most sensitive, and the rest (see `correlation.high_subset`)."""

Set = tuple[str, str]
"""Task and name of a set of batches, such as ("mt", "cat")."""


class Leaves(NamedTuple):
    """The correlations without each of G blocks, (G, N, N) float64: the PCC, and corrected for noise."""

    pcc: Float
    corrected: Float


def left_out(run: Run, sets: Sequence[Set], blocks: Mapping[str, Moments]) -> dict[str, Leaves]:
    """Return what the correlations between N sets are without each of the G blocks, by subset of the parameters.

    Block g is left out of every set at once, which keeps what paired blocks share. Where the sets differ in their
    number of blocks, neighbours are joined until all have as many as the one with the fewest. `blocks` are what
    `block_moments` returned of these sets.
    """
    found = {}
    for subset, (count, of) in _of_blocks(run, sets, blocks).items():
        pairs = [(pcc, corrected(pcc, known)) for pcc, known in map(of, 1.0 - np.eye(count))]
        found[subset] = Leaves(*(np.stack(side) for side in zip(*pairs, strict=True)))
    return found


def reliabilities(run: Run, sets: Sequence[Set], blocks: Mapping[str, Moments]) -> dict[str, Float]:
    """Return the reliability of each of N sets from its blocks, (N,), by subset of the sampled parameters."""
    return {subset: of(np.ones(count))[1] for subset, (count, of) in _of_blocks(run, sets, blocks).items()}


def _of_blocks(
    run: Run, sets: Sequence[Set], blocks: Mapping[str, Moments]
) -> Mapping[str, tuple[int, Callable[[Float], tuple[Float, Float]]]]:
    """Return by subset how many blocks each of N sets has, G, and what `_kept` returns of those that are kept, (G,)."""
    of_set = [block_batches(run, each) for each in sets]
    count = min(map(len, of_set))
    batches = np.stack([joined(each, count) for each in of_set])
    neighbours = block_diag(*(joined(np.eye(len(each)), count) for each in of_set))
    found = {}
    for subset, of_all in blocks.items():
        moments = of_all.combined(neighbours)
        own = np.diag(moments.products).reshape(len(sets), count)
        found[subset] = count, partial(_kept, moments, own, batches)
    return found


def _kept(moments: Moments, own: Float, batches: Float, kept: Float) -> tuple[Float, Float]:
    """Return the PCC of the blocks that are `kept` (1, others 0; (G,)), (N, N), and the reliability of each set, (N,).

    Of each of the N·G block sums x there are the moments, their `own` Σ (x − x̄)² and the batches in them, (N, G).
    """
    # S is a mean, but the sum of the blocks will do: a correlation does not see the scale
    whole = moments.combined(np.asarray(np.kron(np.eye(len(own)), kept[None]), dtype=float))
    return whole.pearson(), reliability(np.diag(whole.products), own @ kept, batches * kept)


def reliability(whole: Float, own: Float, batches: Float) -> Float:
    """Return c / var(S) of S over some blocks, c the mean covariance of two batches of different blocks, (...) float64.

    c is the variance over the parameters that S of endless batches has; var(S) has the noise of these batches too.

    >>> float(reliability(np.array(3.2), np.array(2.0), np.array([1, 1])).round(3))  # two blocks that correlate at .6
    0.75

    Args:
        whole: Σ (x − x̄)² over the parameters of x, the sum over all batches.
        own: the same of the sum over each block, added up over the blocks.
        batches: of each block, (..., G).
    """
    total = batches.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((whole - own) / (1 - (batches**2).sum(axis=-1) / total**2) / whole)


def corrected(pcc: Float, reliability: Float) -> Float:
    """Return the PCC of endless batches, (..., N, N): the PCC over √(r_a·r_b); NaN where a reliability is not positive.

    >>> float(corrected(np.full((2, 2), 0.6), np.array([0.9, 0.4]))[0, 1].round(3))
    1.0

    Args:
        pcc: of these batches, (..., N, N).
        reliability: of each set, (..., N).
    """
    root = np.sqrt(np.where(reliability > 0, reliability, np.nan))
    return np.asarray(pcc / (root[..., :, None] * root[..., None, :]))


def block_moments(run: Run, sets: Sequence[Set], is_high: NDArray[np.bool_]) -> dict[str, Moments]:
    """Return the moments of the sums over the batches of each block, set by set, by subset of the sampled parameters.

    `is_high` says which of these are in the high subset, (M,).
    """
    counts = [len(block_batches(run, each)) for each in sets]
    sums = block_sums([(run, each) for each in sets], len(is_high), counts)
    return moments_of((block for _, block in sums), is_high, sum(counts))


def moments_of(stream: Iterable[np.ndarray], is_high: NDArray[np.bool_], count: int) -> dict[str, Moments]:
    """Return the moments of a stream of `count` vectors, by subset of their P elements; `is_high` is (P,)."""
    moments = {subset: Moments.zero(count) for subset in SUBSETS}
    for block, inside in masked(stream, is_high):
        moments["high"].add(block.compress(inside, axis=1))  # takes a third of the time that indexing takes
        moments["low"].add(block.compress(~inside, axis=1))
    moments["all"].merge(moments["high"])
    moments["all"].merge(moments["low"])
    return moments


def masked(stream: Iterable[np.ndarray], mask: NDArray[np.bool_]) -> Iterator[tuple[np.ndarray, NDArray[np.bool_]]]:
    """Yield each chunk of a stream, (V, n), with its part of a mask over all P elements, (n,)."""
    stop = 0
    for block in stream:
        start, stop = stop, stop + block.shape[1]
        yield block, mask[start:stop]


def sampled(run: Run) -> NDArray[np.int64]:
    """Return where in the flat order the parameters are whose block means are stored, (M,)."""
    sample = sample_of(run.parameters)
    return np.concatenate([parameter.start + sample[parameter.name] for parameter in run.parameters])


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


def block_sums(sources: Sequence[tuple[Run, Set]], size: int, counts: Sequence[int]) -> Iterator[tuple[int, Float]]:
    """Yield (start, (ΣG, m)): the sums over the batches of each block at sampled parameters start … start + m.

    The G blocks of one source follow those of the one before; `counts` says how many each has, neighbours joined.
    """
    readers = [(run.block_reader(*each), block_batches(run, each)[:, None]) for run, each in sources]
    step = max(LEAST, CACHED // sum(counts))
    for start in range(0, size, step):
        stop = min(start + step, size)
        parts = (read(start, stop) * batches for read, batches in readers)
        yield start, np.concatenate([joined(part, count) for part, count in zip(parts, counts, strict=True)])


def joined(blocks: np.ndarray, count: int) -> np.ndarray:
    """Return the sums of neighbouring blocks, `count` of them, (G, ...) → (count, ...)."""
    if count == len(blocks):
        return blocks
    return np.asarray(np.add.reduceat(blocks, np.arange(count) * len(blocks) // count, axis=0))
