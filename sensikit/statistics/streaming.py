"""Statistics of vectors that are too long to hold, one pass at a time: moments and exact selection.

A stream is a function that yields the vectors anew at each call, side by side, in flat order: (V, n) arrays with n
bounded. The results equal the obvious computation on the whole vectors, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Keys = NDArray[np.uint64]
Levels = NDArray[np.unsignedinteger[Any]]
KeyStream = Callable[[], Iterable[Keys]]

DIGIT = 16
"""Bits of a key that are resolved in one pass of the selection."""

HELD = 1 << 27
"""Keys that are held at a time, 1 GB: where no more than these could be the last that is selected, they are sorted."""

PIECE = 1 << 15
"""Keys that are looked at together where they are in memory."""

LOOKED_UP = 20
"""Bits of a key by which most keys are told from a cut without looking at the rest."""

CACHED = 1 << 17
"""Values that are centred and multiplied at a time: about as many float64 as fit into a processor's cache."""

LEAST = 1 << 10
"""Values of each vector at a time, however many vectors there are."""

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
        step = max(LEAST, CACHED // len(block))
        for start in range(0, block.shape[1], step):
            values = block[:, start : start + step].astype(np.float64)
            mean = values.sum(axis=1) / values.shape[1]
            values -= mean[:, None]
            self.merge(Moments(values.shape[1], mean, values @ values.T))

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
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.int64)
    flips = bits >> 63  # all of them where negative
    flips |= np.int64(-1 << 63)
    flips ^= bits
    return flips.view(np.uint64)


def values_of(key: int) -> float:
    """Return the float64 whose key this is."""
    bits = key ^ (1 << 63) if key >> 63 else ~key & ((1 << 64) - 1)
    return float(np.array([bits], dtype=np.uint64).view(np.float64)[0])


def held(stream: KeyStream, count: int) -> KeyStream:
    """Return a stream of the same `count` keys, from memory where they fit, in pieces that fit a processor's cache."""
    if count > HELD:
        return stream
    together, stop = np.empty(count, dtype=np.uint64), 0
    for chunk in stream():
        start, stop = stop, stop + len(chunk)
        together[start:stop] = chunk
    return lambda: (together[start : start + PIECE] for start in range(0, count, PIECE))


@dataclass(frozen=True)
class Cut:
    """Which are the k smallest keys of a stream: all below `key`, and of those equal to it the first `ties`."""

    key: int
    ties: int


def smallest(stream: KeyStream, counts: Sequence[int]) -> list[Cut]:
    """Return the cut of the k smallest keys for each k of `counts`: exact, ties by flat index.

    A pass resolves 16 more bits: it counts the keys under every prefix that still holds a boundary, so memory is 65,536
    counters for each of these, however long the stream is. Once at most `HELD` keys are left under them, one more pass
    gathers these, and they are sorted: two passes where the values differ, at most four where many are equal.

    >>> def stream():
    ...     yield keys(np.array([3.0, 1.0, 2.0]))
    ...     yield keys(np.array([1.0, 5.0]))
    >>> (cut,) = smallest(stream, [3])
    >>> [mask.tolist() for mask in selected(stream(), cut)]
    [[False, True, True], [True, False]]

    Raises:
        ValueError: if a count is larger than the length of the stream.
    """
    prefixes, ranks = [0] * len(counts), list(counts)
    for shift in range(64 - DIGIT, -1, -DIGIT):
        below = {prefix: np.cumsum(found) for prefix, found in _histograms(stream, sorted(set(prefixes)), shift)}
        left: dict[int, int] = {}
        for i, prefix in enumerate(prefixes):
            up_to = below[prefix]
            # the digit in which the k-th smallest key lies; k = 0 cuts below everything
            digit = int(np.searchsorted(up_to, max(ranks[i], min(1, up_to[-1]))))
            if digit >= len(up_to):
                raise ValueError(f"{counts[i]} keys asked for, {up_to[-1]} there")
            before = int(up_to[digit - 1]) if digit else 0
            ranks[i], prefixes[i] = ranks[i] - before, prefix << DIGIT | digit
            left[prefixes[i]] = int(up_to[digit]) - before
        if shift and sum(left.values()) <= HELD:
            gathered = _gathered(stream, sorted(left), shift)
            return [_cut(gathered[prefix], rank) for prefix, rank in zip(prefixes, ranks, strict=True)]
    return [Cut(key, max(rank, 0)) for key, rank in zip(prefixes, ranks, strict=True)]


def _histograms(stream: KeyStream, prefixes: list[int], shift: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each prefix, and how many of the keys under it have each digit at `shift`."""
    found = np.zeros((len(prefixes), 1 << DIGIT), dtype=np.int64)
    for chunk, place in _under(stream, prefixes, shift + DIGIT):
        digits = (chunk >> np.uint64(shift)).view(np.int64)
        digits &= (1 << DIGIT) - 1
        digits += place << DIGIT
        np.add.at(found.reshape(-1), digits, 1)
    yield from zip(prefixes, found, strict=True)


def _gathered(stream: KeyStream, prefixes: list[int], shift: int) -> dict[int, Keys]:
    """Return the keys under each prefix, sorted."""
    parts = [chunk for chunk, _ in _under(stream, prefixes, shift)]
    together = np.sort(np.concatenate([np.zeros(0, dtype=np.uint64), *parts]))
    ends = np.searchsorted(together >> np.uint64(shift), np.array(prefixes, dtype=np.uint64), side="right")
    return dict(zip(prefixes, np.split(together, ends[:-1]), strict=True))


def _under(stream: KeyStream, prefixes: list[int], shift: int) -> Iterator[tuple[Keys, NDArray[np.int64]]]:
    """Yield the keys of each chunk that have one of the prefixes above `shift`, and the place of theirs."""
    known, later = np.array(prefixes, dtype=np.uint64), 64 - DIGIT - shift
    table = np.full(1 << DIGIT, -1)  # the first digit rules out most
    if later >= 0:
        table[(known >> np.uint64(later)).view(np.int64)] = np.arange(len(known))
    for chunk in stream():
        if later < 0:
            yield chunk, np.zeros(1, dtype=np.int64)
            continue
        place = table[(chunk >> np.uint64(64 - DIGIT)).view(np.int64)]
        near = place >= 0
        likely, place = chunk[near], place[near]
        if later:
            place = np.searchsorted(known, likely >> np.uint64(shift))
            inside = known[np.minimum(place, len(known) - 1)] == likely >> np.uint64(shift)
            likely, place = likely[inside], place[inside]
        yield likely, place


def _cut(ordered: Keys, rank: int) -> Cut:
    """Return the cut of the `rank` smallest of some sorted keys."""
    if not len(ordered):
        return Cut(0, 0)
    key = ordered[max(rank, 1) - 1]
    return Cut(int(key), max(rank - int(np.searchsorted(ordered, key)), 0))


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


def levels(stream: KeyStream, counts: Sequence[int]) -> Levels:
    """Return for each key of a stream, (n,), the first of `counts` (ascending) within whose smallest keys it is; exact.

    That is the place of the count; where a key is within none, their number. Ties go by flat index. One byte a key, or
    two where there are 255 counts or more.

    >>> levels(lambda: [keys(np.array([3.0, 1.0])), keys(np.array([2.0, 1.0]))], [1, 3]).tolist()
    [2, 0, 1, 1]

    Raises:
        ValueError: if a count is larger than the length of the stream.
    """
    cuts, undecided = smallest(stream, counts), len(counts) + 1
    edges = np.array([cut.key for cut in cuts], dtype=np.uint64)
    ties = {int(edge): [cut.ties for cut in cuts if cut.key == edge] for edge in np.unique(edges)}
    seen = dict.fromkeys(ties, 0)
    first = (edges >> np.uint64(64 - LOOKED_UP)).view(np.int64)
    decided = np.arange(undecided, dtype=np.min_scalar_type(undecided))
    table = np.repeat(decided, np.diff(first + 1, prepend=0, append=1 << LOOKED_UP))
    table[first] = undecided
    found = [table[:0]]
    for chunk in stream():
        level = table[(chunk >> np.uint64(64 - LOOKED_UP)).view(np.int64)]
        near = np.flatnonzero(level == undecided)
        close = chunk[near]
        level[near] = np.searchsorted(edges, close)
        for edge, within in ties.items():
            equal = near[close == np.uint64(edge)]
            level[equal] += np.searchsorted(within, seen[edge] + np.arange(len(equal)), side="right").astype(
                level.dtype
            )
            seen[edge] += len(equal)
        found.append(level)
    return np.concatenate(found)


def order_statistics(stream: Callable[[], Iterable[np.ndarray]], ranks: Sequence[int]) -> list[float]:
    """Return the values at these ranks (0 = smallest) of the vector that `stream` yields in chunks, exactly.

    >>> order_statistics(lambda: [np.array([3.0, 1.0]), np.array([2.0])], [0, 1])
    [1.0, 2.0]
    """
    cuts = smallest(lambda: (keys(chunk) for chunk in stream()), [rank + 1 for rank in ranks])
    return [values_of(cut.key) for cut in cuts]
