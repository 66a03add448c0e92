"""Eq. 4: D(θ,l) = (S_l − S_-l) / (S_-l + σ), how much more a parameter matters to one language than to the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from sensikit.statistics.streaming import Float, Moments, quantiles
from sensikit.store.run import Run

SIGMA = 1e-8
"""σ of the paper (its footnote 3), which belongs to a loss summed over the tokens of a batch."""

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
    for language in run.languages(task):
        sigma = sigma_of(run, language, task)
        vectors = [run.vector(task, language), run.vector(task, f"rest-{language}")]
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
    return pd.DataFrame(rows, columns=["task", "language", "statistic", "value"])


def sigma_of(run: Run, language: str, task: str = "mt") -> float:
    """Return σ of one language's D, as the run noted it when B_-l was measured."""
    return float(run.manifest["sets"][f"{task}/rest-{language}"]["sigma"])
