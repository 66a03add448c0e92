"""Is a difference real? Test segments drawn for all languages and systems at once: intervals, and paired tests.

Test sets overlap: one English sentence stands in many of them, and in both directions. So what is drawn is the segment,
by its identity, and its weight in a draw is a hash of the two: the same in every language, system and run, whatever
else is there. Intervals are those of a Poisson bootstrap (each weight is Poisson of mean 1); tests are approximate
randomisation (Riezler and Maxwell, 2005), which swaps two systems' sentences, as sacreBLEU's --paired-ar does.
"""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit
from scipy.stats import poisson

from sensikit.errors import DamagedError
from sensikit.files import open_file, replacing, sha256, sha256_of
from sensikit.signature import splitmix

Float = NDArray[np.float64]
Ids = NDArray[np.uint64]
"""The identities of segments."""

LEVEL = 0.05
"""A difference is marked where p, after Holm, is below it."""

FEWEST = 200
"""Test segments below which no difference is marked: tests and intervals hold in the long run of sentences."""

INDEPENDENT = (
    "The data do not say which sentences of two languages say the same: the languages are drawn "
    "independently, and an interval of a mean over languages is too narrow where their test sets overlap."
)
"""What is said where segments are known by "own" (see `Segments`)."""

BLOCK = 1 << 22
"""Numbers that are held at a time."""

_WEIGHTS = np.searchsorted(np.round(poisson.cdf(np.arange(9), 1) * 65536), np.arange(65536), side="right")
_POISSON = _WEIGHTS.astype(np.float32)
"""Poisson of mean 1, by 16 random bits (its inverse cumulated distribution): mean 1.0000, variance .99997."""


class Difference(NamedTuple):
    """A difference of two scores, its 95 % interval, and its two-sided p."""

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class Scored:
    """A test set, scored by one system in one metric.

    Attributes:
        score: sums (…, K) → scores (…).
        ids: (n,), of the segments, ascending, each once.
        sums: (n, K) float64, over the sentences of each segment.
        bounds: the lowest and the highest score there can be.
    """

    score: Callable[[Float], Float]
    ids: Ids
    sums: Float
    bounds: tuple[float, float] = (-np.inf, np.inf)

    @classmethod
    def of(cls, score: Callable[[Float], Float], ids: Ids, sums: Float, bounds: tuple[float, float]) -> Scored:
        """Return the test set of some sentences (n,) with their sums (n, K); those of one segment are added up."""
        distinct, places = np.unique(ids, return_inverse=True)
        found = np.zeros((len(distinct), sums.shape[1]))
        np.add.at(found, places, sums)
        return cls(score, distinct, found, bounds)


@dataclass(frozen=True, eq=False)
class Sampled:
    """A score, or a mean or difference of scores, and what it is in each draw of the test segments, (B,).

    Attributes:
        value: the score itself.
        samples: (B,).
        bounds: the lowest and the highest that it can be.
        seeds: of each mean over seeds in it, its variance s²/k and its degrees of freedom k - 1.
    """

    value: float
    samples: Float
    bounds: tuple[float, float] = (-np.inf, np.inf)
    seeds: tuple[tuple[float, int], ...] = ()

    def __sub__(self, other: Sampled) -> Sampled:
        seeds = self.seeds + other.seeds
        return Sampled(self.value - other.value, self.samples - other.samples, seeds=seeds)

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval: the middle 95 % of the draws, or of t where seeds vary too (see `spread`)."""
        if not len(self.samples):
            return np.nan, np.nan
        if not self.seeds:
            low, high = np.quantile(self.samples, [LEVEL / 2, 1 - LEVEL / 2])
        else:
            deviation, freedom = spread(float(self.samples.var(ddof=1)), self.seeds)
            half = stdtrit(freedom, 1 - LEVEL / 2) * deviation
            low, high = self.value - half, self.value + half
        return max(float(low), self.bounds[0]), min(float(high), self.bounds[1])

    def tested(self, swaps: Float) -> Difference:
        """Return a difference with its interval and p.

        p = (1 + the swaps that differ by as much) / (1 + B); of means over seeds it is that of t (see `spread`).

        Args:
            swaps: the difference after each swap, (B,); not looked at where there are several seeds.
        """
        if not len(self.samples):
            p = np.nan
        elif not self.seeds:
            # what is the same but for rounding is as much; the data as they are count as a swap too, so p is never 0
            p = (1 + (np.abs(swaps) >= abs(self.value) - 1e-9).sum()) / (1 + len(swaps))
        else:
            deviation, freedom = spread(float(self.samples.var(ddof=1)), self.seeds)
            p = 2 * stdtr(freedom, -abs(self.value) / deviation) if deviation else float(self.value == 0)
        return Difference(self.value, *self.interval(), float(p))


def identified(texts: Sequence[str]) -> Ids:
    """Return the identities of some sentences, (n,), whatever their case, blanks and form in Unicode."""
    plain = (" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts)
    return np.array(
        [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in plain], dtype=np.uint64
    )


def resampled(sets: Sequence[Scored], draws: int) -> list[Sampled]:
    """Return the score of each of some test sets, and in each of `draws` draws of their segments; below 2, none.

    A draw in which nothing of a test set is, as of very few sentences, has all of it.
    """
    scores = [np.empty(draws if draws > 1 else 0) for _ in sets]
    alike: dict[bytes, list[int]] = {}
    for place, each in enumerate(sets):
        alike.setdefault(each.ids.tobytes(), []).append(place)
    for places in alike.values():  # those of the same segments have the same weights, which are made once
        ids = sets[places[0]].ids
        for part, bits in _bits(ids, len(scores[places[0]]), 4):
            weights = _POISSON[bits.view(np.uint16)][:, : part.stop - part.start]
            weights[:, ~weights.any(axis=0)] = 1
            for place in places:
                scores[place][part] = sets[place].score(_summed(weights, sets[place].sums))
    return [
        Sampled(float(each.score(each.sums.sum(0))), found, each.bounds)
        for each, found in zip(sets, scores, strict=True)
    ]


def swapped(a: Scored, b: Scored, draws: int) -> Float:
    """Return the score of b minus that of a, (B,), after each of `draws` swaps: below 2, none.

    In each, a segment's sentences change systems or do not, by one half; the same in every language.
    """
    ids = a.ids if np.array_equal(a.ids, b.ids) else np.union1d(a.ids, b.ids)
    ours, theirs = (_placed(each, ids) for each in (a, b))
    found = np.empty(draws if draws > 1 else 0)
    for part, bits in _bits(ids, len(found), 64):
        moved = _summed(np.unpackbits(bits.view(np.uint8), axis=1)[:, : part.stop - part.start], theirs - ours)
        found[part] = b.score(theirs.sum(0) - moved) - a.score(ours.sum(0) + moved)
    return found


def mean(scores: Sequence[Sampled]) -> Sampled:
    """Return the mean of some scores over languages: what they share, they share in each draw."""
    samples = np.mean([score.samples for score in scores], axis=0)
    return Sampled(float(np.mean([score.value for score in scores])), samples, scores[0].bounds)


def over_seeds(scores: Sequence[Sampled]) -> Sampled:
    """Return the mean of the scores of several seeds, which knows how they vary; one of one seed is what it is."""
    count, found = len(scores), mean(scores)
    if count < 2:
        return found
    variance = float(np.var([score.value for score in scores], ddof=1)) / count
    return Sampled(found.value, found.samples, found.bounds, ((variance, count - 1),))


def spread(of_segments: float, of_seeds: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return the standard deviation of a difference of means over seeds, and its degrees of freedom.

    V = V_segments + Σ s²/k, of Welch and Satterthwaite: V² / Σ (s²/k)²/(k - 1). How differently seeds do on single
    segments counts in both terms, so V is rather too large. A system of one seed has no s², and V is then too small.
    Of equal systems of two to five seeds each, 1 to 3 in 100 differ at p < 0.05 where the seed moves a score up to as
    much as the draw of segments does, and 3 to 5 where it does twice as much; of two or three seeds against one, up to
    9 and 17 (200,000 trials with normal noise).

    Args:
        of_segments: V_segments, the variance over draws.
        of_seeds: s²/k and k - 1 of each mean.
    """
    variance = of_segments + sum(each for each, _ in of_seeds)
    known = sum(each**2 / freedom for each, freedom in of_seeds)
    return variance**0.5, variance**2 / known if known else np.inf


def holm(p: ArrayLike) -> Float:
    """Return p-values (n,) as they are when all n are looked at (Holm, 1979); NaN is no test.

    >>> holm([0.01, 0.03, float("nan"), 0.02]).tolist()
    [0.03, 0.04, nan, 0.04]
    """
    found = np.array(p, dtype=np.float64)
    tests = np.flatnonzero(~np.isnan(found))
    order = tests[np.argsort(found[tests], kind="stable")]
    found[order] = np.minimum(np.maximum.accumulate(found[order] * np.arange(len(order), 0, -1)), 1)
    return found


def distinct(sets: Sequence[Scored]) -> int:
    """Return how many segments there are in some test sets together."""
    return len(np.unique(np.concatenate([each.ids for each in sets])))


def save_sums(path: Path, sums: Float) -> str:
    """Write sums (n, K) to `path` in one step, in float32 where that is exact; return the SHA-256 of the file."""
    small = sums.astype(np.float32)
    _save(path, small if np.array_equal(small, sums) else sums)
    return sha256(path)


def load_sums(path: Path, digest: str, remedy: str) -> Float:
    """Return the sums in `path`, (n, K) float64.

    Raises:
        DamagedError: if the file is missing, or its SHA-256 is not `digest`.
    """
    if not path.is_file() or sha256(path) != digest:
        raise DamagedError(path, "is missing or damaged", remedy)
    found: Float = np.load(path).astype(np.float64)
    return found


def save_ids(folder: Path, ids: Ids) -> str:
    """Write the identities of segments to a file of `folder` that is named after what is in it; return the name."""
    name = f"{_digest(ids)}.npy"
    _save(folder / name, ids)
    return name


def load_ids(path: Path, remedy: str) -> Ids:
    """Return the identities of segments in `path`, (n,).

    Raises:
        DamagedError: if the file is missing, or what is in it is not what its name says.
    """
    with contextlib.suppress(OSError, ValueError):
        with open_file(path) as file:
            content = file.read()
        # the header is passed over: of a damaged one numpy would believe any size
        found: Ids = np.frombuffer(content[10 + int.from_bytes(content[8:10], "little") :], dtype=np.uint64)
        if path.stem == _digest(found):
            return found
    raise DamagedError(path, "is missing or damaged", remedy)


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def _digest(ids: Ids) -> str:
    return sha256_of(ids.tobytes().hex())[:16]


def _bits(ids: Ids, draws: int, each: int) -> Iterator[tuple[slice, Ids]]:
    """Yield some of the draws at a time, and 64 random bits of every segment for `each` of them, (n, words)."""
    step = max(1, BLOCK // (each * len(ids)))
    for first in range(0, -(-draws // each), step):
        last = min(first + step, -(-draws // each))
        bits = splitmix(ids[:, None], np.arange(first, last, dtype=np.uint64))
        yield slice(first * each, min(last * each, draws)), bits


def _summed(weights: NDArray[np.generic], sums: Float) -> Float:
    """Return weighted sums, (b, K), of weights (n, b) and sums (n, K); of counts in float32, where it is exact."""
    exact = np.array_equal(sums, np.rint(sums)) and np.abs(sums).sum(0).max() < 1 << 20
    kind = np.float32 if exact else np.float64
    found: Float = (sums.T.astype(kind) @ weights.astype(kind, copy=False)).T.astype(np.float64)
    return found


def _placed(scored: Scored, ids: Ids) -> Float:
    """Return the sums of the segments `ids`, (n, K): 0 of those that the test set lacks."""
    found = np.zeros((len(ids), scored.sums.shape[1]))
    found[np.searchsorted(ids, scored.ids)] = scored.sums
    return found
