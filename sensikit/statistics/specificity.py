"""Eq. 4: D(θ,l) = (S_l − S_-l) / (S_-l + σ), how much more a parameter matters to one group than to the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.errors import DamagedError
from sensikit.parameters import Parameter
from sensikit.run import Run, rest_of
from sensikit.settings import SIGMA
from sensikit.statistics.streaming import Float, Keys, Moments, keys, quantiles, selected, smallest
from sensikit.tables import PAIR, Schema

LEVELS = {"q01": 0.01, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "q99": 0.99}
"""Quantiles that the tables of D and of S hold, by the names of their statistics."""

SPECIFICITY = Schema(
    "specificity.csv", "Language specificity", "analyze",
    key=("task", "group", "statistic"),
    numbers=("value",),
    statistics=("mean", "share_positive", "share_small_denominator", "share_ties_at_zero", *LEVELS),
)  # fmt: skip

OVERLAP = Schema(
    "overlap.csv", "Overlap of the most specific parameters", "analyze",
    key=("task", "share", *PAIR),
    numbers=("share", "jaccard", "expected"),
    empty=("jaccard", "expected"),
    groups=PAIR,
)  # fmt: skip

SHARES = (0.01, 0.05, 0.1)
"""The shares of the parameters whose overlap is measured."""


def specificity(own: np.ndarray, rest: np.ndarray, sigma: float) -> Float:
    """Return D(θ,l) = (S_l − S_-l) / (S_-l + σ) (Eq. 4): signed, float64, in the shape of its arguments.

    It is −1 where a parameter matters to the others alone, 0 where it matters alike, and large where it matters to l.

    >>> specificity(np.array([3e-6, 1e-6, 0.0]), np.array([1e-6, 1e-6, 2e-6]), sigma=1e-12).round(3).tolist()
    [2.0, 0.0, -1.0]

    Args:
        own: S(θ,B_l), any shape and real dtype, in nats (per target token, where the loss is).
        rest: S(θ,B_-l), the same shape and unit.
        sigma: σ > 0, in the same unit (see `sigma_for`).
    """
    others, found = rest.astype(np.float64), own.astype(np.float64)
    found -= others
    others += sigma
    found /= others
    return np.asarray(found)


def sigma_for(per_token: bool, tokens: float, sigma: float = SIGMA) -> float:
    """Return σ in the unit of the measured loss: `sigma` itself where it is summed, `sigma` / `tokens` where per token.

    Dividing the loss and σ by the same number leaves D unchanged.

    >>> sigma_for(per_token=True, tokens=4096, sigma=4.096e-9)
    1e-12
    >>> sigma_for(per_token=False, tokens=4096)
    1e-08

    Args:
        per_token: whether the loss of a batch is divided by its target tokens.
        tokens: the mean number of target tokens in the batches of B_-l.
        sigma: of the loss summed over a batch, in nats.
    """
    return sigma / tokens if per_token else sigma


def specificity_table(run: Run, task: str = "mt") -> pd.DataFrame:
    """Return specificity.csv: statistics of D(θ,l) (Eq. 4) over the parameters, for each group.

    `mean` and the quantiles of `LEVELS`; `share_positive`, the share of the parameters with D > 0;
    `share_small_denominator`, the share with S_-l < 10σ, where σ decides D; `share_ties_at_zero`, the share with D = 0
    exactly, which no order by D can tell apart; and `sigma`, the σ that was used.

    >>> table = specificity_table(run).pivot(index="group", columns="statistic", values="value")
    >>> list(table.index), list(table.columns)[-3:], bool(table["q01"].min() >= -1)
    (['cat', 'fur', 'nob', 'nso'], ['share_small_denominator', 'share_ties_at_zero', 'sigma'], True)

    Args:
        run: with S(θ,B_l) and S(θ,B_-l) of its groups.
        task: mt, denoise or lm.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    rows = []
    for group in run.groups(task):
        sigma = sigma_of(run, group, task)
        vectors = [run.vector(task, group), run.vector(task, rest_of(group))]
        moments, small, zero, positive = Moments.zero(1), 0, 0, 0
        for own, rest in run.stream(vectors):
            score = specificity(own, rest, sigma)
            moments.add(score[None])
            small += int((rest < 10 * sigma).sum())
            zero += int((score == 0).sum())
            positive += int((score > 0).sum())
        scores = partial(specificities, run, task, group)
        facts = {
            "sigma": sigma,
            "share_small_denominator": small / moments.count,
            "share_ties_at_zero": zero / moments.count,
            "share_positive": positive / moments.count,
            "mean": float(moments.mean[0]),
            **dict(zip(LEVELS, quantiles(scores, moments.count, list(LEVELS.values())), strict=True)),
        }
        rows += [(task, group, statistic, value) for statistic, value in facts.items()]
    return SPECIFICITY.frame(rows)


def specificities(run: Run, task: str, group: str, parameters: Sequence[Parameter] | None = None) -> Iterator[Float]:
    """Yield D(θ,l) of a group (Eq. 4), chunk by chunk in flat order: of all parameters, or of some."""
    sigma, vectors = sigma_of(run, group, task), [run.vector(task, group), run.vector(task, rest_of(group))]
    return (specificity(own, rest, sigma) for own, rest in run.stream(vectors, parameters))


def sigma_of(run: Run, group: str, task: str = "mt") -> float:
    """Return σ of one group's D, as the run noted it when S(θ,B_-l) was measured.

    Raises:
        DamagedError: if it is not what the settings and the tokens of the run give.
    """
    settings, noted = run.analysis(task)["settings"], run.manifest["sets"][f"{task}/{rest_of(group)}"]
    per_token, sigma = settings.get("reduction", "token") == "token", settings.get("sigma", SIGMA)
    if not math.isclose(noted["sigma"], sigma_for(per_token, noted["tokens_mean"], sigma), rel_tol=1e-9):
        where = run.path / run.NOTE
        raise DamagedError(where, f"has another σ of {group} than its settings and tokens give", "analyze again")
    return float(noted["sigma"])


def overlap_table(run: Run, task: str = "mt", shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Return overlap.csv: the Jaccard overlap |A ∩ B| / |A ∪ B| of every ordered pair of different groups.

    A and B are the ⌊share·P⌋ parameters with the largest D of each group, ties by index. `expected` is the overlap of
    two such sets drawn independently: they would have k²/P of their k parameters in common.

    Args:
        run: with S(θ,B_l) and S(θ,B_-l) of its groups.
        task: mt, denoise or lm.
        shares: of the parameters.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    groups = run.groups(task)
    count = sum(parameter.numel for parameter in run.parameters)
    sizes = [int(share * count) for share in shares]
    common = np.zeros((len(shares), len(groups), len(groups)))
    for masks in zip(*(_tops(run, task, group, sizes) for group in groups), strict=True):
        inside = np.stack(masks, axis=1).astype(np.float64)
        common += inside @ inside.transpose(0, 2, 1)
    rows = []
    for share, size, of_size in zip(shares, sizes, common, strict=True):
        expected = _jaccard(size * size / count, size)
        rows += [
            (task, share, first, second, _jaccard(of_size[a, b], size), expected)
            for (a, first), (b, second) in itertools.permutations(enumerate(groups), 2)
        ]
    return OVERLAP.frame(rows)


def _tops(run: Run, task: str, group: str, sizes: Sequence[int]) -> Iterator[NDArray[np.bool_]]:
    """Yield, chunk by chunk, which parameters are among the `sizes` largest of D: (len(sizes), n) bool."""

    def scores() -> Iterator[Keys]:
        # the largest D is the smallest key
        return (keys(-score) for score in specificities(run, task, group))

    cuts = smallest(scores, sizes)
    streams = itertools.tee(scores(), len(sizes))
    return map(np.stack, zip(*(selected(each, cut) for each, cut in zip(streams, cuts, strict=True)), strict=True))


def _jaccard(common: float, size: int) -> float:
    return common / (2 * size - common) if size else np.nan
