"""A stratified sample of parameters, and statistics of it that estimate those of all (Horvitz and Thompson, 1952).

Strata are component × class of S(θ,B_l). A few parameters carry most of the sensitivity, so the classes at the top
are sampled far more densely than the rest, and every statistic weights a parameter by how many it stands for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from sensikit.errors import OptionError
from sensikit.parameters import Parameter
from sensikit.run import Run
from sensikit.signature import rng
from sensikit.statistics.noise import fisher
from sensikit.statistics.streaming import Float, order_statistics

LEVELS = (0.5, 0.8, 0.9, 0.99, 0.999)
"""Quantiles of S that separate the classes: dense where the top 10 % begin, and at the top, which decides Pearson's."""

CLASSES = tuple(f"{100 * low:g}-{100 * high:g}%" for low, high in itertools.pairwise((0, *LEVELS, 1)))

LEAST = 2
"""Drawn of a stratum that is not taken whole: a single one says nothing of how much they differ."""

FEWEST = 100
"""Parameters of a sample that has intervals: of fewer, most strata hold two, and they miss the truth too often."""


@dataclass(frozen=True)
class Sample:
    """A sample of M parameters.

    Attributes:
        places: of each, the tensor and the flat index in it.
        strata: their names, (M,).
        weights: how many parameters of its stratum each stands for, (M,) float64.
    """

    places: list[tuple[Parameter, int]]
    strata: NDArray[np.str_]
    weights: Float


def sample(run: Run, group: str, count: int, seed: int, task: str) -> Sample:
    """Return a sample: equally many of each class of S, and within a class of each component in proportion to its size.

    `count` is M; where there are no more parameters, all of them are taken.
    """
    components = list(dict.fromkeys(parameter.component for parameter in run.parameters))
    strata = _strata(run, run.vector(task, group), components)
    sizes = np.bincount(strata)
    drawn = allocation({int(number): int(sizes[number]) for number in np.flatnonzero(sizes)}, count)
    generator = rng(seed, "audit", group)
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
    for (parameter, offset), block in run.chunks([vector]):
        start = parameter.start + offset
        classes = np.searchsorted(edges, block[0].astype(np.float64), side="left")
        found[start : start + len(classes)] = components.index(parameter.component) * len(CLASSES) + classes
    return found


def allocation(sizes: Mapping[int, int], count: int) -> dict[int, int]:
    """Return how many parameters are drawn of each stratum: `count` in all, or all where there are no more.

    Each stratum gets `LEAST` (or is taken whole); then one more at a time goes to the stratum that is furthest behind
    its share. Every class has the same share, divided among its strata in proportion to their sizes.

    >>> allocation({0: 900, 1: 100}, 10)
    {0: 5, 1: 5}

    Strata are numbered as in `_strata`. A `count` of less than `LEAST` for each stratum is refused.
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
    """Return the rank of each value, (M,), in a population where it stands for `weights` equal ones; ties share theirs.

    >>> weighted_ranks(np.array([0.3, 0.1, 0.2]), np.array([1.0, 2.0, 1.0])).tolist()
    [3.5, 1.0, 2.5]
    """
    _, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place, weights)
    return np.asarray((np.cumsum(mass) - mass / 2)[place])


def pearson(one: Float, other: Float, weights: Float) -> float:
    """Return the weighted Pearson correlation of two (M,) float64 arrays; NaN where one of them is constant.

    >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 2.0]), np.array([1.0, 1.0, 4.0])), 3)
    0.878
    """
    weights = weights / weights.sum()
    a, b = one - weights @ one, other - weights @ other
    scale = np.sqrt((weights @ a**2) * (weights @ b**2))
    return float(weights @ (a * b) / scale) if scale > 0 else float("nan")


def spearman(one: Float, other: Float, weights: Float) -> float:
    """Return the weighted Spearman correlation: Pearson's of the ranks in the population (see `weighted_ranks`)."""
    return pearson(weighted_ranks(one, weights), weighted_ranks(other, weights), weights)


def top_agreement(one: Float, other: Float, weights: Float, share: float = 0.1) -> float:
    """Return what share of the highest `share` of the population by `one` is also among the highest by `other`.

    Both are sets of one size, ⌊share·N⌋ of the N of the population, so the result is symmetric. A parameter that stands
    for some above and some below the cut counts in proportion. Ties by index.

    >>> top_agreement(np.array([4.0, 3.0, 2.0, 1.0]), np.array([4.0, 1.0, 3.0, 2.0]), np.ones(4), share=0.5)
    0.5
    """
    size = _top(weights, share)
    both = np.minimum(_members(one, weights, size), _members(other, weights, size))
    return float(weights @ both / size) if size else float("nan")


def _top(weights: Float, share: float = 0.1) -> int:
    """Return how many parameters of the population the highest `share` of it are."""
    # in floating point, a product that is whole may fall short of it
    return int(share * round(float(weights.sum())) + 1e-9)


def _members(values: Float, weights: Float, size: int) -> Float:
    """Return what part of each value's weight is among the highest `size` of the population, (M,)."""
    order = np.argsort(-values, kind="stable")
    above = np.cumsum(weights[order]) - weights[order]
    part = np.empty_like(weights)
    # what the jackknife leaves out has weight 0
    part[order] = np.clip((size - above) / np.maximum(weights[order], 1e-300), 0, 1)
    return part


STATISTICS: dict[str, Callable[[Float, Float, Float], float]]
STATISTICS = {"spearman": spearman, "pearson": pearson, "top10_agreement": top_agreement}
"""Functions of (values, other values, weights), each (M,)."""


def intervals(one: Float, other: Float, sample: Sample) -> dict[str, tuple[float, float, float]]:
    """Return (value, low, high) of each of `STATISTICS`, with a 95 % interval that always holds the value.

    The variance is that of a jackknife: each parameter is left out in turn, and the others of its stratum take its
    weight; a stratum of which n of N were taken counts by 1 − n/N, and widths are of t with as many degrees of freedom
    as there are parameters more than strata. Of Spearman's it is that of Fisher's z, and the interval reaches from the
    value to the value without the bias that the jackknife finds, and beyond both: where a parameter stands for many,
    one swap of two ranks weighs too much. The interval of the agreement is Wilson's (1927), of as many parameters as
    would vary so much, but no more than are in the top of the sample, so that one without a disagreement does not
    exclude any. A sample of fewer than `FEWEST` has NaN for ends, and so has Pearson's: a few parameters decide it, and
    a sample may have none of them. Where every parameter was taken, nothing varies.

    By simulation (200 samples each, of the sensitivities and errors of the demo's model) intervals of 100 and of 200
    parameters cover the value of all parameters .89 to .93 and .93 to .95 (Spearman), .97 to .99 and .95 to .99
    (agreement, whose jackknife is wide: one parameter that stands for many moves the border of the top).
    """
    found = {name: of(one, other, sample.weights) for name, of in STATISTICS.items()}
    strata = [np.flatnonzero(sample.strata == name) for name in np.unique(sample.strata)]
    strata = [members for members in strata if sample.weights[members[0]] > 1]
    if not strata:
        return {name: (value, value, value) for name, value in found.items()}
    ends = dict.fromkeys(found, (float("nan"), float("nan")))
    if len(sample.weights) >= FEWEST:
        quantile = float(student.ppf(0.975, sum(map(len, strata)) - len(strata)))
        ends["spearman"] = _around(one, other, sample, strata, quantile)
        ends["top10_agreement"] = _wilson(one, other, sample, strata, quantile)
    return {name: (value, *ends[name]) for name, value in found.items()}


Strata = list[NDArray[np.int64]]
"""The members of each stratum of a sample that was not taken whole."""


def _around(one: Float, other: Float, sample: Sample, strata: Strata, quantile: float) -> tuple[float, float]:
    """Return the ends of the interval of Spearman's."""
    near = 1 - 1e-12  # a correlation whose z is still finite

    def z(weights: Float) -> float:
        return float(fisher(np.clip(spearman(one, other, weights), -near, near)))

    value = z(sample.weights)
    bias, variance = _jackknife(z, value, sample, strata)
    low, high = sorted((value, value - bias))
    half = quantile * np.sqrt(variance)
    return float(np.tanh(low - half)), max(float(np.tanh(high + half)), spearman(one, other, sample.weights))


def _wilson(one: Float, other: Float, sample: Sample, strata: Strata, quantile: float) -> tuple[float, float]:
    """Return the ends of the interval of the agreement of the top."""
    value = top_agreement(one, other, sample.weights)
    _, variance = _jackknife(lambda weights: top_agreement(one, other, weights), value, sample, strata)
    count = float((_members(one, sample.weights, _top(sample.weights)) > 0).sum())
    spread = value * (1 - value)
    if variance > 0 < spread:
        count = min(count, spread / variance)
    extra = quantile**2 / count
    centre = (value + extra / 2) / (1 + extra)
    half = np.sqrt(extra * max(spread, 0) + extra**2 / 4) / (1 + extra)
    return min(value, float(centre - half)), max(value, float(min(centre + half, 1)))


def _jackknife(of: Callable[[Float], float], value: float, sample: Sample, strata: Strata) -> tuple[float, float]:
    """Return the bias and the variance of `value`, a function of the weights of a sample."""
    bias = variance = 0.0
    for members in strata:
        count = len(members)
        without = np.empty(count)
        for place, left_out in enumerate(members):
            weights = sample.weights.copy()
            weights[members] *= count / (count - 1)
            weights[left_out] = 0
            without[place] = of(weights)
        left = 1 - 1 / sample.weights[members[0]]  # the share of the stratum that was not drawn
        bias += left * (count - 1) * float(without.mean() - value)
        variance += left * (count - 1) * float(without.var())
    return bias, variance
