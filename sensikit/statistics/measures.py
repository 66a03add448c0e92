"""What stands beside the PCC: correlations that a few large values do not decide, and how few those are.

A few hundred of the parameters with the largest S hold half of its variance, and so decide a Pearson correlation. That
of the ranks (Spearman) and that of log S give every parameter a say; where they order the subsets of the parameters in
another way than the PCC, what the PCC says of the subsets is said of those few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sensikit.run import Run
from sensikit.statistics.noise import SUBSETS, Set, masked, sampled
from sensikit.statistics.streaming import CACHED, CONSTANT, LEAST, Float, Moments

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


def measures(
    run: Run, sets: Sequence[Set], is_high: NDArray[np.bool_], known: Mapping[str, tuple[Float, Float]]
) -> dict[str, Beside]:
    """Return what stands beside the PCC of N sets, by subset of the P parameters; `is_high` is (P,).

    `known` has the mean of S and its standard deviation over the parameters of each subset, (N,) each.
    """
    vectors = [run.vector(*each) for each in sets]
    ranked = np.zeros(len(is_high), dtype=bool)
    ranked[slice(None) if len(is_high) * len(sets) <= WHOLE else sampled(run)] = True
    values: list[np.ndarray] = []
    logs = _LogPcc(len(sets))
    half_variance = {subset: _HalfVariance(*of) for subset, of in known.items()}
    step, stop = max(LEAST, CACHED // len(sets)), 0
    for chunk, inside in masked(run.stream(vectors), is_high):
        for first in range(0, len(inside), step):
            block, high = chunk[:, first : first + step], inside[first : first + step]
            start, stop = stop, stop + len(high)
            values.append(block.compress(ranked[start:stop], axis=1))
            parts = {"all": block, "high": block.compress(high, axis=1), "low": block.compress(~high, axis=1)}
            for subset, part in parts.items():
                half_variance[subset].add(part)
            logs.add(block, high)
    of_ranks, of_logs = _spearman(np.concatenate(values, axis=1), is_high[ranked]), logs.pcc()
    return {subset: Beside(of_ranks[subset], *of_logs[subset], half_variance[subset].fewest()) for subset in SUBSETS}


def _spearman(values: np.ndarray, is_high: NDArray[np.bool_]) -> dict[str, Float]:
    """Return the correlations of the ranks of N sets, (N, K) float32 with no negative one, by subset of the K."""
    # the bits of a positive float are ordered as it is; with its place below them, one sort says what stands where
    places = np.arange(values.shape[1], dtype=np.uint64)
    ordered = [np.sort(row.view(np.uint32).astype(np.uint64) << np.uint64(32) | places) for row in values]
    found = {}
    for subset, inside in (("all", np.ones_like(is_high)), ("high", is_high), ("low", ~is_high)):
        moments, ranks = Moments.zero(len(values)), np.empty((len(values), np.count_nonzero(inside)))
        for row, into in zip(ordered, ranks, strict=True):
            into[:] = _ranks(row, inside)  # of a subset, the order is the same
        moments.add(ranks)
        found[subset] = moments.pearson()
    return found


def _ranks(ordered: NDArray[np.uint64], inside: NDArray[np.bool_]) -> Float:
    """Return the ranks among those values that are `inside`, one after the other; ties have the mean of theirs.

    `ordered` has the bits of all values, and in its lower half the place of each.
    """
    places = (ordered & np.uint64((1 << 32) - 1)).view(np.int64)
    these = inside[places]
    bits, places = ordered[these] >> np.uint64(32), places[these]
    starts = np.flatnonzero(np.append(True, bits[1:] != bits[:-1]))
    counts = np.diff(starts, append=len(bits))
    found = np.empty(len(inside))
    found[places] = np.repeat(starts + (counts + 1) / 2, counts)
    return found[inside]


class _LogPcc:
    """The PCC of log S over the parameters where both of a pair are above 0, from sums over these."""

    def __init__(self, count: int) -> None:
        self._sums = {subset: np.zeros((4, count, count)) for subset in SUBSETS}

    def add(self, block: np.ndarray, inside: NDArray[np.bool_]) -> None:
        """Add S of some parameters, (N, n) float32, and which of these are in the high subset, (n,)."""
        above = block > 0
        # torch's takes half of the time of numpy's
        logs = torch.from_numpy(np.where(above, block, 1).astype(np.float64)).log_().numpy()
        both = np.concatenate([above, logs])
        for subset, columns in (("all", both), ("high", both.compress(inside, axis=1))):
            above, logs = np.split(columns, 2)
            self._sums[subset] += [above @ above.T, logs @ above.T, logs**2 @ above.T, logs @ logs.T]

    def pcc(self) -> dict[str, tuple[Float, NDArray[np.int64]]]:
        """Return the PCC, and of how many parameters it is, (N, N) each, by subset."""
        self._sums["low"] = self._sums["all"] - self._sums["high"]
        found = {}
        for subset, (n, one, square, both) in self._sums.items():
            with np.errstate(divide="ignore", invalid="ignore"):
                mean = one / n  # of the logarithms of each set, where the other of the pair is above 0 too
                spread = square - n * mean**2
                # the rounding of the sums leaves equal values a spread of this size
                spread = np.where(spread > n * CONSTANT * mean**2, spread, np.nan)
                pcc = np.clip((both - n * mean * mean.T) / np.sqrt(spread * spread.T), -1.0, 1.0)
            found[subset] = (pcc, n.astype(np.int64))
        return found


class _HalfVariance:
    """The fewest parameters that hold half of Σ (S − S̄)², which are those that are the farthest from the mean.

    All that are nearer than the standard deviation over √2 hold at most half of it together, so only the others, a few
    in a hundred of what is heavy-tailed as S is, are counted in bins.
    """

    def __init__(self, mean: Float, deviation: Float) -> None:
        self._mean, self._half, self._size = mean, deviation**2 / 2, 0
        reach, inward = np.sqrt(self._half) * (1 - 1e-6), np.float32(np.inf)
        self._up = np.nextafter((mean + reach).astype(np.float32), -inward)
        self._down = np.nextafter((mean - reach).astype(np.float32), inward)
        self._bins = np.zeros((len(mean), 2, 1 << BITS))

    def add(self, block: np.ndarray) -> None:
        """Add S of some parameters, (N, n) float32."""
        self._size += block.shape[1]
        for values, mean, up, down, (counts, squares) in zip(
            block, self._mean, self._up, self._down, self._bins, strict=True
        ):
            far = values >= up
            if down >= 0:
                far |= values <= down
            away = np.abs(values[far] - mean)
            # the bits of a positive float are ordered as it is
            places = away.astype(np.float32).view(np.uint32) >> np.uint32(32 - BITS)
            np.add.at(counts, places, 1.0)
            np.add.at(squares, places, away**2)

    def fewest(self) -> NDArray[np.int64]:
        """Return how many these are, (N,)."""
        of_each = zip(self._bins, self._half * self._size, strict=True)
        return np.array([_fewest(bins, half) if half > 0 else 0 for bins, half in of_each])


def _fewest(bins: Float, half: float) -> int:
    """Return how many of the largest values add up to `half`, from how many and how much there is in each bin."""
    counts, squares = bins[:, ::-1]
    held = np.cumsum(squares)
    last = int(np.searchsorted(held, half))
    before = held[last] - squares[last]
    return int(counts[:last].sum() + np.ceil((half - before) / (squares[last] / counts[last]) - 1e-9))
