"""Eq. 4: D(θ,l) = (S_l − S_-l) / (S_-l + σ), how much more a parameter matters to one language than to the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.run import Run, rest_of
from sensikit.settings import SIGMA
from sensikit.statistics.streaming import Float, Keys, Moments, keys, quantiles, selected, smallest

LEVELS = {"q01": 0.01, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "q99": 0.99}


def specificity(language: np.ndarray, rest: np.ndarray, sigma: float) -> Float:
    """Return D(θ,l) (Eq. 4), signed, float64, of the shape of its arguments.

    Args:
        language: S(θ, B_l), nats.
        rest: S(θ, B_-l), the same shape and unit.
        sigma: σ > 0, in the unit of the loss (see `sigma_for`).
    """
    others = rest.astype(np.float64)
    return np.asarray((language.astype(np.float64) - others) / (others + sigma))


def sigma_for(per_token: bool, tokens: float, sigma: float = SIGMA) -> float:
    """Return σ in the unit of the measured loss: `sigma` for a summed one, divided by the tokens of a batch per token.

    Dividing the loss and σ by one number leaves D as it was.
    """
    return sigma / tokens if per_token else sigma


def specificity_table(run: Run, task: str = "mt") -> pd.DataFrame:
    """Return the distribution of D of each language, tidy: task, language, statistic, value.

    `share_small_denominator` is the share of parameters with S_-l < 10σ, where σ decides D; `share_ties_at_zero` the
    share at exactly D = 0, which no order by D can tell apart.
    """
    rows = []
    for language in run.groups(task):
        sigma = sigma_of(run, language, task)
        vectors = [run.vector(task, language), run.vector(task, rest_of(language))]
        moments, small, zero, positive = Moments.zero(1), 0, 0, 0
        for own, rest in run.stream(vectors):
            score = specificity(own, rest, sigma)
            moments.add(score[None])
            small += int((rest < 10 * sigma).sum())
            zero += int((score == 0).sum())
            positive += int((score > 0).sum())

        def scores(vectors: list[Path] = vectors, sigma: float = sigma) -> Iterator[Float]:
            return (specificity(own, rest, sigma) for own, rest in run.stream(vectors))

        facts = {
            "sigma": sigma,
            "share_small_denominator": small / moments.count,
            "share_ties_at_zero": zero / moments.count,
            "share_positive": positive / moments.count,
            "mean": float(moments.mean[0]),
            **dict(zip(LEVELS, quantiles(scores, moments.count, list(LEVELS.values())), strict=True)),
        }
        rows += [(task, language, statistic, value) for statistic, value in facts.items()]
    return pd.DataFrame(rows, columns=["task", "group", "statistic", "value"])


def sigma_of(run: Run, language: str, task: str = "mt") -> float:
    """Return σ of one language's D, as the run noted it when B_-l was measured."""
    return float(run.manifest["sets"][f"{task}/{rest_of(language)}"]["sigma"])


SHARES = (0.01, 0.05, 0.1)

OVERLAP_COLUMNS = ("task", "share", "group_a", "group_b", "jaccard", "expected")


def overlap_table(run: Run, task: str = "mt", shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Return the Jaccard overlap |A ∩ B| / |A ∪ B| of every ordered pair of different languages, tidy.

    A and B are the ⌊share·P⌋ parameters with the largest D of each language, ties by index. `expected` is the overlap
    of two such sets drawn independently: they would have k²/P parameters in common.
    """
    languages = run.groups(task)
    count = sum(parameter.numel for parameter in run.parameters)
    sizes = [int(share * count) for share in shares]
    common = np.zeros((len(shares), len(languages), len(languages)))
    for masks in zip(*(_tops(run, task, language, sizes) for language in languages), strict=True):
        inside = np.stack(masks, axis=1).astype(np.float64)
        common += inside @ inside.transpose(0, 2, 1)
    rows = []
    for share, size, of_size in zip(shares, sizes, common, strict=True):
        expected = _jaccard(size * size / count, size)
        rows += [
            (task, share, first, second, _jaccard(of_size[a, b], size), expected)
            for a, first in enumerate(languages)
            for b, second in enumerate(languages)
            if a != b
        ]
    return pd.DataFrame(rows, columns=list(OVERLAP_COLUMNS))


def _tops(run: Run, task: str, language: str, sizes: Sequence[int]) -> Iterator[NDArray[np.bool_]]:
    """Yield, chunk by chunk, which parameters are among the `sizes` largest of D: (len(sizes), n) bool."""
    vectors, sigma = [run.vector(task, language), run.vector(task, rest_of(language))], sigma_of(run, language, task)

    def scores() -> Iterator[Keys]:
        # the largest D is the smallest key
        return (keys(-specificity(own, rest, sigma)) for own, rest in run.stream(vectors))

    cuts = smallest(scores, sizes)
    streams = itertools.tee(scores(), len(sizes))
    return map(np.stack, zip(*(selected(each, cut) for each, cut in zip(streams, cuts, strict=True)), strict=True))


def _jaccard(common: float, size: int) -> float:
    return common / (2 * size - common) if size else np.nan
