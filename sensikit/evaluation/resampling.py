"""Is a difference real? A bootstrap over test sentences: intervals of scores and of their means, and paired tests.

Resample b draws the same sentences of a test set for every system, so that differences are paired (Koehn, 2004); test
sets are drawn independently. The draws are sacreBLEU's, with its seed: what it says of one system and one group is what
is said here. Nothing here speaks of a second training seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sensikit.errors import DamagedError
from sensikit.files import replacing, sha256
from sensikit.settings import BOOTSTRAP

Float = NDArray[np.float64]

SEED = 12345
"""sacreBLEU's own."""

LEVEL = 0.05
"""A difference is marked where p is below it; no test knows of the others, so one in twenty is marked by chance."""

BLOCK = 1 << 24
"""Counts that are held in float64 at a time."""


class Difference(NamedTuple):
    """A difference of two scores, its 95 % interval, and its two-sided p."""

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Sampled:
    """A score, or a mean or difference of scores, and what it is on each resample of the test sentences, (B,).

    `bounds` are the lowest and the highest that it can be.
    """

    value: float
    samples: Float
    bounds: tuple[float, float] = (-np.inf, np.inf)

    def __sub__(self, other: Sampled) -> Sampled:
        return Sampled(self.value - other.value, self.samples - other.samples)

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of a score, in sacreBLEU's manner: even about the mean of the resamples."""
        low, high = _middle(self.samples)
        centre, half = self.samples.mean() if len(self.samples) else np.nan, (high - low) / 2
        return max(float(centre - half), self.bounds[0]), min(float(centre + half), self.bounds[1])

    def tested(self) -> Difference:
        """Return a difference with its percentile interval, and the p at which an interval would just reach 0.

        p = 2 · (1 + the resamples on the rarer side of 0) / (1 + B), two-sided. sacreBLEU's own p of --paired-bs,
        P(|d*| - mean |d*| > |d|), counts one tail once d is clear of 0, and so is about half of it. Of equal systems
        (real translations, swapped at random), 6 % had p below 0.05 on 1,000 sentences, 7 % on 200 and 10 % on 50; by
        sacreBLEU's, 10, 11 and 7 %.
        """
        rarer = min((self.samples <= 0).sum(), (self.samples >= 0).sum())
        p = min(2 * (1 + int(rarer)) / (1 + len(self.samples)), 1.0)
        return Difference(self.value, *_middle(self.samples), p if len(self.samples) else np.nan)


def mean(scores: Sequence[Sampled]) -> Sampled:
    """Return the mean of some scores; the resamples of different test sets are independent, of one test set paired."""
    samples = np.mean([score.samples for score in scores], axis=0)
    return Sampled(float(np.mean([score.value for score in scores])), samples, scores[0].bounds)


def resampled(
    score: Callable[[Float], Float],
    sums: Float,
    test_set: str,
    samples: int = BOOTSTRAP,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Sampled:
    """Return the score of a test set, and on each of `samples` resamples of its sentences.

    sacreBLEU draws the same resamples of every n sentences. Their order depends on the test set: the same order for the
    same sentences, which pairs systems (and groups, where the test set is one English text and its translations, as in
    FLORES), and otherwise one that has nothing to do with another set's.

    Args:
        score: sums (…, K) → scores (…).
        sums: (n, K), a row for each sentence.
        test_set: the identity of the sentences, in hexadecimal.
        samples: B; below 2 there are none.
        bounds: of the score.
    """
    counts = drawn(len(sums), samples if samples > 1 else 0)
    # the bootstrap is a matrix product, a block of resamples at a time
    blocks = np.array_split(counts, 1 + counts.size // BLOCK)
    scores = score(np.concatenate([block @ sums for block in blocks]))
    shuffled = np.random.default_rng(int(test_set, 16)).permutation(len(scores))
    return Sampled(float(score(sums.sum(0))), scores[shuffled], bounds)


@lru_cache(maxsize=4)
def drawn(count: int, samples: int) -> NDArray[np.uint8]:
    """Return how often each resample draws each of `count` sentences, (samples, count): sacreBLEU's draws."""
    rng, found = np.random.default_rng(SEED), np.zeros((samples, count), dtype=np.uint8)
    for row in found:
        row[:] = np.bincount(rng.choice(count, size=count), minlength=count)
    return found


def save_sums(path: Path, sums: Float) -> str:
    """Write sums (n, K) to `path` in one step, in float32 where that is exact; return the SHA-256 of the file."""
    small = sums.astype(np.float32)
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, small if np.array_equal(small, sums) else sums)
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


def _middle(samples: Float) -> tuple[float, float]:
    """Return the bounds of the middle 95 %, as sacreBLEU counts them; NaN where there is nothing."""
    if not len(samples):
        return np.nan, np.nan
    ordered, outside = np.sort(samples), len(samples) // 40
    return float(ordered[outside]), float(ordered[-1 - outside])
