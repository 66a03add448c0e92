"""A stratified sample of parameters, and statistics of it that speak of all of them (Horvitz and Thompson, 1952).

Strata are component × class of S(θ, B_l). A few parameters carry most of the sensitivity, so the classes at the top
are sampled far more densely than the rest, and every statistic weighs a parameter by how many it stands for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sensikit.errors import OptionError
from sensikit.parameters import Parameter
from sensikit.run import Run
from sensikit.signature import rng
from sensikit.statistics.streaming import Float, order_statistics

LEVELS = (0.5, 0.8, 0.9, 0.99, 0.999)
"""Quantiles of S between the classes: dense where the top 10 % begin, and at the top, which decides Pearson's."""

CLASSES = tuple(f"{100 * low:g}-{100 * high:g}%" for low, high in itertools.pairwise((0, *LEVELS, 1)))

LEAST = 2
"""Parameters of a stratum that is not taken whole: with one there is no telling how much they differ."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Sample:
    """M parameters: `places` are (tensor, flat index in it), `strata` (M,) their names, `weights` (M,) float64.

    A weight is how many parameters of its stratum one of the sample stands for.
    """

    places: list[tuple[Parameter, int]]
    strata: NDArray[np.str_]
    weights: Float


def sample(run: Run, language: str, count: int, seed: int, task: str = "mt") -> Sample:
    """Return `count` parameters: as many of each class of S, and within it of each component in proportion to its size.

    Args:
        run: with S(θ, B_l).
        language: l.
        count: M; all parameters, where there are no more.
        seed: of the draw.
        task: whose S.

    Raises:
        OptionError: if that is less than `LEAST` of each stratum.
    """
    components = list(dict.fromkeys(parameter.component for parameter in run.parameters))
    strata = _strata(run, run.vector(task, language), components)
    sizes = np.bincount(strata)
    drawn = allocation({int(number): int(sizes[number]) for number in np.flatnonzero(sizes)}, count)
    generator = rng(seed, "audit", language)
    flat = np.concatenate(
        [generator.choice(np.flatnonzero(strata == number), some, replace=False) for number, some in drawn.items()]
    )
    starts = [parameter.start for parameter in run.parameters]
    owners = [run.parameters[i] for i in np.searchsorted(starts, flat, side="right") - 1]
    names = [f"{components[number // len(CLASSES)]}/{CLASSES[number % len(CLASSES)]}" for number in strata[flat]]
    return Sample(
        places=[(owner, int(index) - owner.start) for owner, index in zip(owners, flat, strict=True)],
        strata=np.array(names),
        weights=np.array([sizes[number] / drawn[int(number)] for number in strata[flat]]),
    )


def _strata(run: Run, vector: Path, components: Sequence[str]) -> NDArray[np.uint8]:
    """Return the stratum of every parameter, (P,): the number of its component times the classes, and its class."""
    total = sum(parameter.numel for parameter in run.parameters)
    ranks = [max(int(level * total) - 1, 0) for level in LEVELS]  # the highest of each class, ties with it included
    edges = order_statistics(lambda: (block[0] for block in run.stream([vector])), ranks)
    found = np.empty(total, dtype=np.uint8)
    for (parameter, offset), block in run.pieces([vector]):
        start = parameter.start + offset
        classes = np.searchsorted(edges, block[0].astype(np.float64), side="left")
        found[start : start + len(classes)] = components.index(parameter.component) * len(CLASSES) + classes
    return found


def allocation(sizes: Mapping[int, int], count: int) -> dict[int, int]:
    """Return how many are drawn of each stratum, `count` in all, or every one where there are no more.

    Once each has `LEAST` (or is taken whole), one at a time goes to the stratum that is furthest behind its share:
    each class has the same share, divided by the size of its strata.

    Args:
        sizes: stratum, numbered as by `_strata` → its size.
        count: how many.

    Raises:
        OptionError: if `count` is too small for that.
    """
    drawn = {stratum: min(size, LEAST) for stratum, size in sizes.items()}
    least = sum(drawn.values())
    if count < least:
        problem = f"{count} is too few for {len(sizes)} strata of component and sensitivity"
        raise OptionError("--parameters", problem, f"give {least} or more")
    of_class = np.bincount([stratum % len(CLASSES) for stratum in sizes], list(sizes.values()))
    shares = {stratum: size / of_class[stratum % len(CLASSES)] for stratum, size in sizes.items()}
    for _ in range(min(count, sum(sizes.values())) - least):
        left = (stratum for stratum, size in sizes.items() if drawn[stratum] < size)
        drawn[min(left, key=lambda stratum: drawn[stratum] / shares[stratum])] += 1
    return drawn


def weighted_ranks(values: Float, weights: Float) -> Float:
    """Return the rank of each value in a population where it stands for `weights` equal ones; ties share their mean."""
    _, group = np.unique(values, return_inverse=True)
    mass = np.bincount(group, weights)
    return np.asarray((np.cumsum(mass) - mass / 2)[group])


def pearson(one: Float, other: Float, weights: Float) -> float:
    """Return the weighted Pearson correlation; NaN where one of them is constant."""
    weights = weights / weights.sum()
    a, b = one - weights @ one, other - weights @ other
    scale = np.sqrt((weights @ a**2) * (weights @ b**2))
    return float(weights @ (a * b) / scale) if scale > 0 else float("nan")


def spearman(one: Float, other: Float, weights: Float) -> float:
    """Return the weighted Spearman correlation: Pearson's of the ranks in the population."""
    return pearson(weighted_ranks(one, weights), weighted_ranks(other, weights), weights)


def top_agreement(one: Float, other: Float, weights: Float, share: float = 0.1) -> float:
    """Return which share of the highest `share` by `one` is also among the highest `share` by `other`.

    Both hold as many parameters of the population, so it is the same the other way round. A parameter that stands for
    some above and some below the cut is in with that part. Ties by index.
    """
    size = int(share * round(float(weights.sum())) + 1e-9)
    both = np.minimum(_members(one, weights, size), _members(other, weights, size))
    return float(weights @ both / size) if size else float("nan")


def _members(values: Float, weights: Float, size: int) -> Float:
    """Return which part of each of `values` is among the highest `size` of the population."""
    order = np.argsort(-values, kind="stable")
    above = np.cumsum(weights[order]) - weights[order]
    part = np.empty_like(weights)
    part[order] = np.clip((size - above) / np.maximum(weights[order], 1e-300), 0, 1)
    return part


STATISTICS: dict[str, Callable[[Float, Float, Float], float]] = {
    "spearman": spearman,
    "pearson": pearson,
    "top10_agreement": top_agreement,
}
"""Of (values, other values, weights), each (M,)."""


def intervals(
    one: Float, other: Float, sample: Sample, seed: int, resamples: int = RESAMPLES
) -> dict[str, tuple[float, float, float]]:
    """Return each of `STATISTICS` with the bounds of its 95 % percentile interval from a bootstrap over parameters.

    Within a stratum of n drawn, n − 1 are drawn again with replacement and weigh n / (n − 1) times as much (Rao and Wu,
    1988): with a plain resample of few the interval would be too narrow. A stratum that was taken whole does not vary.

    Args:
        one: (M,).
        other: (M,).
        sample: that they belong to.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(sample.strata == name) for name in np.unique(sample.strata)]
    groups = [group for group in groups if sample.weights[group[0]] > 1]
    resampled: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for _ in range(resamples):
        weights = sample.weights.copy()
        for group in groups:
            drawn = np.bincount(generator.integers(len(group), size=len(group) - 1), minlength=len(group))
            weights[group] *= drawn * len(group) / (len(group) - 1)
        for name, of in STATISTICS.items():
            resampled[name].append(of(one, other, weights))
    found = {}
    for name, of in STATISTICS.items():
        low, high = np.quantile(resampled[name], [0.025, 0.975])
        found[name] = of(one, other, sample.weights), float(low), float(high)
    return found
