"""Is a difference real? A bootstrap over test sentences: intervals of scores and of their means, and paired tests.

Resample b draws the same sentences of a test set for every system, so that differences are paired (Koehn, 2004); test
sets are drawn independently. It is sacreBLEU's statistics that are resampled, with its seed: what it says of one system
and one language is what it says here. Nothing here speaks of a second training seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sensikit.errors import DataError, RunError
from sensikit.files import replacing, sha256_of
from sensikit.settings import BOOTSTRAP

SEED = 12345
"""sacreBLEU's own."""

LEVEL = 0.05
"""A difference is marked where p is below it; no test knows of the others, so one in twenty is marked by chance."""


class Difference(NamedTuple):
    """A difference of two scores, its 95 % interval, and its two-sided p."""

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Sampled:
    """A score, or a mean or difference of scores, and what it is on each resample of the test sentences, (B,)."""

    value: float
    samples: NDArray[np.float64]

    def __sub__(self, other: Sampled) -> Sampled:
        return Sampled(self.value - other.value, self.samples - other.samples)

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of a score, in sacreBLEU's manner: even about the mean of the resamples."""
        low, high = _middle(self.samples)
        centre, half = self.samples.mean() if len(self.samples) else np.nan, (high - low) / 2
        return max(float(centre - half), 0.0), min(float(centre + half), 100.0)

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

    def save(self, path: Path) -> None:
        """Write the score and its resamples to `path`, in one step."""
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, np.append(self.value, self.samples))

    @classmethod
    def load(cls, path: Path) -> Sampled:
        """Return what `save` wrote.

        Raises:
            RunError: if it is not there, or damaged.
        """
        try:
            found = np.load(path)
            if found.ndim != 1 or found.dtype != np.float64 or not np.isfinite(found[:1]).all():
                raise ValueError
            return cls(float(found[0]), found[1:])
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise RunError(path, "is missing or damaged", "prune again") from error


def mean(scores: Sequence[Sampled]) -> Sampled:
    """Return the mean of some scores; the resamples of different test sets are independent, of one test set paired."""
    return Sampled(float(np.mean([s.value for s in scores])), np.mean([s.samples for s in scores], axis=0))


def resampled(metric: Any, hypotheses: Sequence[str], references: Sequence[str], samples: int = BOOTSTRAP) -> Sampled:
    """Return the score of `hypotheses` (n) against `references` (n), and on each of `samples` resamples of them.

    The resamples are those of sacreBLEU, which draws the same for every set of n sentences. Their order depends on the
    references: the same order for the same references, which pairs systems (and languages, where the test set is one
    English text and its translations, as in FLORES), and otherwise one that has nothing to do with another set's.

    Args:
        metric: sacreBLEU's BLEU or CHRF.
        hypotheses: detokenised.
        references: raw text.
        samples: B; below 2 there are none.

    Raises:
        DataError: if there is nothing to score, or not one translation for each reference.
    """
    _check(hypotheses, references)
    statistics = metric._extract_corpus_statistics(hypotheses, [references])
    value = metric._aggregate_and_compute(statistics).score
    metric.n_bootstrap, metric.seed = (samples, SEED) if samples > 1 else (None, None)  # for its signature
    sums = _sums(np.array(statistics, dtype=np.float64), samples if samples > 1 else 0)
    # in float32, as sacreBLEU has them: in float64, intervals would differ from its own in the seventh digit
    scores = np.array([float(metric._compute_score_from_stats(row).score) for row in sums.astype(np.float32)])
    shuffled = np.random.default_rng(int(sha256_of(*references)[:16], 16)).permutation(len(scores))
    return Sampled(float(value), scores[shuffled])


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Refuse to score nothing, or not one translation for each reference."""
    if len(hypotheses) != len(references):
        # sacreBLEU would leave out the rest without a word
        raise DataError(
            "references", f"{len(hypotheses)} translations of {len(references)} sentences", "check the data"
        )
    if not references:
        raise DataError("references", "there is no sentence to score", "check the split")


def _sums(statistics: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    """Return the statistics (n, K) summed over each resample, (samples, K): how often each was drawn, times them."""
    rng, count = np.random.default_rng(SEED), len(statistics)
    draws = (rng.choice(count, size=count) for _ in range(samples))
    sums = [np.bincount(draw, minlength=count) @ statistics for draw in draws]
    return np.array(sums).reshape(samples, statistics.shape[1])


def _middle(samples: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bounds of the middle 95 %, as sacreBLEU counts them; NaN where there is nothing."""
    if not len(samples):
        return np.nan, np.nan
    ordered, outside = np.sort(samples), len(samples) // 40
    return float(ordered[outside]), float(ordered[-1 - outside])
