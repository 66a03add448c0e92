"""Statistics of vectors that are too long to hold, one pass at a time: moments, exact selection, exact quantiles.

A stream is a function that yields the vectors anew at each call, side by side, in flat order: (V, n) arrays with n
bounded. The results equal the obvious computation on the whole vectors, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Keys = NDArray[np.uint64]
KeyStream = Callable[[], Iterable[Keys]]

DIGIT = 16
"""Bits of a key that are resolved in one pass of the selection."""

CONSTANT = 32 * np.finfo(np.float64).eps
"""A vector whose standard deviation is at most this share of its mean is constant but for rounding."""


@dataclass
class Moments:
    """Count, means and centred cross products of V vectors, merged chunk by chunk in float64 (Chan et al., 1979).

    >>> moments = Moments.zero(2)
    >>> moments.add(np.array([[1.0, 2.0], [2.0, 4.0]]))
    >>> moments.add(np.array([[3.0], [3.0]]))
    >>> moments.mean.tolist(), moments.pearson().round(3).tolist()
    ([2.0, 3.0], [[1.0, 0.5], [0.5, 1.0]])

    Attributes:
        count: n, the elements of each vector.
        mean: (V,).
        products: Σ (x − x̄)(y − ȳ) of every pair of vectors, (V, V).
    """

    count: int
    mean: Float
    products: Float

    @classmethod
    def zero(cls, vectors: int) -> Moments:
        """Return the moments of nothing."""
        return cls(0, np.zeros(vectors), np.zeros((vectors, vectors)))

    def add(self, block: np.ndarray) -> None:
        """Merge a chunk in, (V, n)."""
        if block.shape[1] == 0:
            return
        values = block.astype(np.float64)
        mean = values.mean(axis=1)
        centred = values - mean[:, None]
        self.merge(Moments(values.shape[1], mean, centred @ centred.T))

    def merge(self, other: Moments) -> None:
        """Merge the moments of other elements of the same vectors in."""
        if other.count == 0:
            return
        count, delta = self.count + other.count, other.mean - self.mean
        self.products += other.products + np.outer(delta, delta) * (self.count * other.count / count)
        self.mean += delta * (other.count / count)
        self.count = count

    def combined(self, weights: Float) -> Moments:
        """Return the moments of K weighted sums of the vectors.

        Args:
            weights: (K, V).
        """
        products = weights @ self.products @ weights.T
        # rounding has made it asymmetric
        return Moments(self.count, weights @ self.mean, (products + products.T) / 2)

    def pearson(self) -> Float:
        """Return the Pearson correlations of every pair of vectors, (V, V); NaN where a vector is constant."""
        spread = np.diag(self.products)
        # the mean of equal values is off by a few roundings, which leaves them a spread of this size
        rounding = self.count * (CONSTANT * self.mean) ** 2
        scale = np.where(spread > rounding, np.sqrt(spread), np.nan)
        correlation = np.clip(self.products / np.outer(scale, scale), -1.0, 1.0)
        np.fill_diagonal(correlation, np.where(np.isnan(scale), np.nan, 1.0))
        return np.asarray(correlation)


def keys(values: np.ndarray) -> Keys:
    """Return uint64 keys that are ordered as `values` (float32 or float64, no NaN) are; -0 and 0 are equal.

    The bits of a float order like integers once negative numbers are complemented and positive ones get the top bit.

    >>> [values_of(int(key)) for key in sorted(keys(np.array([2.5, -1.0, 0.0])))]
    [-1.0, 0.0, 2.5]
    """
    wide = np.asarray(values, dtype=np.float64) + 0.0
    bits = wide.view(np.uint64)
    top = np.uint64(1 << 63)
    return np.where(bits & top, ~bits, bits | top)


def values_of(key: int) -> float:
    """Return the float64 whose key this is."""
    bits = key ^ (1 << 63) if key >> 63 else ~key & ((1 << 64) - 1)
    return float(np.array([bits], dtype=np.uint64).view(np.float64)[0])


@dataclass(frozen=True)
class Cut:
    """Which are the k smallest keys of a stream: all below `key`, and of those equal to it the first `ties`."""

    key: int
    ties: int


def smallest(stream: KeyStream, counts: Sequence[int]) -> list[Cut]:
    """Return the cut of the k smallest keys for each k of `counts`: exact, ties by flat index, in four passes.

    Each pass resolves 16 more bits: it counts the keys under every prefix that still holds a boundary, so memory is
    65,536 counters for each of these, however long the stream is.

    >>> def stream():
    ...     yield keys(np.array([3.0, 1.0, 2.0]))
    ...     yield keys(np.array([1.0, 5.0]))
    >>> (cut,) = smallest(stream, [3])
    >>> [mask.tolist() for mask in selected(stream(), cut)]
    [[False, True, True], [True, False]]

    Args:
        stream: yields uint64 chunks in flat order, anew at each call.
        counts: each between 0 and the length of the stream.

    Raises:
        ValueError: if a count is larger than that.
    """
    prefixes = [0] * len(counts)
    ranks = list(counts)
    for shift in range(64 - DIGIT, -1, -DIGIT):
        found = _histograms(stream, sorted(set(prefixes)), shift)
        for i, prefix in enumerate(prefixes):
            below = np.cumsum(found[prefix])
            # the digit in which the k-th smallest key lies; k = 0 cuts below everything
            digit = int(np.searchsorted(below, max(ranks[i], min(1, below[-1]))))
            if digit >= len(below):
                raise ValueError(f"{counts[i]} keys asked for, {below[-1]} there")
            ranks[i] -= int(below[digit - 1]) if digit else 0
            prefixes[i] = prefix << DIGIT | digit
    return [Cut(key, max(rank, 0)) for key, rank in zip(prefixes, ranks, strict=True)]


def _histograms(stream: KeyStream, prefixes: list[int], shift: int) -> dict[int, NDArray[np.int64]]:
    width = 1 << DIGIT
    found = {prefix: np.zeros(width, dtype=np.int64) for prefix in prefixes}
    for chunk in stream():
        high = chunk >> np.uint64(shift)
        for prefix in prefixes:
            under = high if shift == 64 - DIGIT else high[high >> np.uint64(DIGIT) == prefix]
            inside = under & np.uint64(width - 1)
            found[prefix] += np.bincount(inside.astype(np.int64), minlength=width)
    return found


def selected(stream: Iterable[Keys], cut: Cut) -> Iterator[NDArray[np.bool_]]:
    """Yield, for each chunk of `stream`, which of its keys are within the cut, (n,) bool."""
    left = cut.ties
    for chunk in stream:
        inside = chunk < np.uint64(cut.key)
        if left:
            ties = np.flatnonzero(chunk == np.uint64(cut.key))[:left]
            inside[ties] = True
            left -= len(ties)
        yield inside


def order_statistics(stream: Callable[[], Iterable[np.ndarray]], ranks: Sequence[int]) -> list[float]:
    """Return the values at these ranks (0 = smallest) of the vector that `stream` yields in chunks, exactly.

    >>> order_statistics(lambda: [np.array([3.0, 1.0]), np.array([2.0])], [0, 1])
    [1.0, 2.0]
    """
    cuts = smallest(lambda: (keys(chunk) for chunk in stream()), [rank + 1 for rank in ranks])
    return [values_of(cut.key) for cut in cuts]


def quantiles(stream: Callable[[], Iterable[np.ndarray]], count: int, levels: Sequence[float]) -> list[float]:
    """Return quantiles of a vector of `count` values, interpolated linearly as `numpy.quantile` does.

    >>> quantiles(lambda: [np.array([3.0, 1.0]), np.array([2.0])], 3, [0.5, 0.75])
    [2.0, 2.5]
    """
    places = [level * (count - 1) for level in levels]
    ranks = [min(int(place) + up, count - 1) for place in places for up in (0, 1)]
    found = order_statistics(stream, ranks)
    pairs = zip(found[::2], found[1::2], places, strict=True)
    return [low + (high - low) * (place - int(place)) for low, high, place in pairs]
