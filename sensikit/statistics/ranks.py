"""Order statistics of values in sorted runs: each is sorted once, and any rank of any part is found in a second look.

`streaming` finds the same by the digits of keys, in passes over a stream that holds nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labelled = Callable[[], Iterable[tuple[Hashable, np.ndarray]]]

ALL = None
"""The label of values that need none."""

HELD = 6 << 30
"""Bytes of sorted values that are kept in memory; of more, each chunk is read and sorted a second time."""


@dataclass(frozen=True)
class Place:
    """The value at one rank of some values, how many are below it, and how many equal to it, itself included."""

    value: float
    below: int
    equal: int


@dataclass
class Sorted:
    """Values in sorted runs, of which any order statistic is found exactly, of all runs or of some.

    Of a run of n values about √n are kept. They tell between which two of them a rank must lie, and so a second look
    at the runs finds it among the few values between these. Runs that fit into `HELD` bytes are kept for the second
    look; if they do not, the values are read and sorted again.

    >>> chunks = [("a", np.array([3.0, 1.0])), ("b", np.array([2.0, 5.0]))]
    >>> runs = Sorted(lambda: chunks).read()
    >>> runs.places([(["a", "b"], [0, 2]), (["b"], [0])])
    [[Place(value=1.0, below=0, equal=1), Place(value=3.0, below=2, equal=1)], [Place(value=2.0, below=0, equal=1)]]

    Attributes:
        again: yields (label, values) anew at each call: any order within a chunk, any real dtype, no NaN.
        count: how many values there are.
    """

    again: Labelled
    count: int = 0
    _held: list[tuple[Hashable, np.ndarray]] | None = field(default_factory=list, repr=False)
    _bytes: int = 0
    _kept: dict[Hashable, list[tuple[np.ndarray, ...]]] = field(default_factory=dict, repr=False)

    def read(self) -> Sorted:
        """Add all that `again` yields."""
        for label, values in self.again():
            self.add(label, values)
        return self

    def add(self, label: Hashable, values: np.ndarray) -> np.ndarray:
        """Add a chunk, (n,), and return it sorted."""
        run = np.sort(values)
        if not len(run):
            return run
        at, least, most = _spaced(len(run))
        self._kept.setdefault(label, []).append((run[at], least, most))
        self.count += len(run)
        self._bytes += run.nbytes
        if self._bytes > HELD:
            self._held = None
        elif self._held is not None:
            self._held.append((label, run))
        return run

    def runs(self) -> Iterable[tuple[Hashable, np.ndarray]]:
        """Return the sorted runs with their labels, in the order in which they were added."""
        return self._held if self._held is not None else ((label, np.sort(values)) for label, values in self.again())

    def places(self, asked: Sequence[tuple[Collection[Hashable], Sequence[int]]]) -> list[list[Place]]:
        """Return what stands at some ranks (0 = the smallest), each of all the runs with some labels: (labels, ranks).

        Raises:
            IndexError: if fewer values than that have these labels.
        """
        brackets = [self._brackets(labels, ranks) for labels, ranks in asked]
        low, high, bottom = (np.concatenate(column) for column in list(zip(*brackets, strict=True))[:3])
        of_label: dict[Hashable, list[int]] = {}
        of_rank, first = [], 0
        for (labels, _), (lows, *_, which) in zip(asked, brackets, strict=True):
            for label in labels:
                of_label.setdefault(label, []).extend(range(first, first + len(lows)))
            of_rank.append(first + which)
            first += len(lows)
        below, equal = np.zeros((2, first), dtype=np.int64)
        gathered: list[list[np.ndarray]] = [[low[:0]] for _ in low]
        for label, run in self.runs():
            own = of_label.get(label)
            if own is None:
                continue
            starts = np.where(bottom[own], 0, run.searchsorted(low[own], "right"))
            stops = run.searchsorted(high[own], "left")
            below[own] += starts
            equal[own] += run.searchsorted(high[own], "right") - stops
            for number, start, stop in zip(own, starts.tolist(), stops.tolist(), strict=True):
                if start < stop:
                    gathered[number].append(run[start:stop].copy())
        inside = [np.sort(np.concatenate(chunks)) for chunks in gathered]
        return [
            [
                _place(rank - below[i], below[i], inside[i], high[i], equal[i])
                for rank, i in zip(ranks, own, strict=True)
            ]
            for (_, ranks), own in zip(asked, of_rank, strict=True)
        ]

    def _brackets(self, labels: Collection[Hashable], ranks: Sequence[int]) -> tuple[np.ndarray, ...]:
        """Return brackets (low, high], whether nothing is below to start from, and which of them each rank is in."""
        sketches = [sketch for label in labels for sketch in self._kept.get(label, [])]
        values, least, most = (np.concatenate(column) for column in zip(*sketches, strict=True))
        order = np.argsort(values)
        values, least, most = values[order], np.cumsum(least[order]), np.cumsum(most[order])
        # at least `least` values are up to each of `values`, at most `most`
        last = np.searchsorted(least, np.asarray(ranks) + 1)
        above = np.searchsorted(values, values[np.searchsorted(most, ranks, "right")])
        (last, above), which = np.unique([last, above], axis=1, return_inverse=True)
        return values[np.maximum(above, 1) - 1], values[last], above == 0, which


def _place(rank: int, below: int, inside: np.ndarray, high: Any, equal: int) -> Place:
    """Return the place at a rank among those above the first `below`: one of the sorted `inside`, or else `high`."""
    if rank >= len(inside):
        return Place(high.item(), int(below) + len(inside), int(equal))
    start, stop = (int(inside.searchsorted(inside[rank], side)) for side in ("left", "right"))
    return Place(inside[rank].item(), int(below) + start, stop - start)


@functools.lru_cache(maxsize=256)
def _spaced(size: int) -> tuple[NDArray[np.int64], ...]:
    """Return which values of a sorted run are kept, and how many are up to each that are not up to the one before.

    At least so many, and at most; as many are kept as make the two looks at the runs cost the least together.
    """
    at = np.append(np.arange(0, size - 1, max(1, math.isqrt(size))), size - 1)
    return at, np.diff(at, prepend=-1), np.diff(at, append=size)


def ranks_of(count: int, levels: Sequence[float]) -> list[int]:
    """Return the two ranks between which each quantile of `count` values lies, (2·len(levels),)."""
    return [min(int(level * (count - 1)) + up, count - 1) for level in levels for up in (0, 1)]


def between(values: Sequence[float], count: int, levels: Sequence[float]) -> list[float]:
    """Return the quantiles of `count` values from those at the ranks of `ranks_of`."""
    places = [level * (count - 1) for level in levels]
    pairs = zip(values[::2], values[1::2], places, strict=True)
    return [low + (high - low) * (place - int(place)) for low, high, place in pairs]
