"""Systems and groups, scored → tidy tables: each group, the mean of each tier, and tests against a baseline.

The mean over the groups of a tier, and over all, is what Tables 1 to 3 of the paper report. Systems that are training
seeds of one recipe have rows of their own, and the recipe has one of their mean; what is tested is the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from sensikit.evaluation.metrics import LENGTHS, METRICS, lengths
from sensikit.evaluation.resampling import (
    FEWEST,
    Difference,
    Float,
    Sampled,
    Scored,
    distinct,
    holm,
    mean,
    over_seeds,
    swapped,
)
from sensikit.languages import TIERS
from sensikit.tables import Schema

ALL = "All"

EVALUATION = Schema(
    "evaluation.csv", "Scores by group", "evaluate",
    key=("system", "direction", "group", "tier", "metric"),
    numbers=("value", "value_low", "value_high", *LENGTHS, "sentences", "seeds"),
    text=("metric_signature",),
    empty=("value_low", "value_high", *LENGTHS),
)  # fmt: skip
BY_TIER = Schema(
    "tiers.csv", "Scores by resource level", "evaluate",
    key=("system", "direction", "tier", "metric"),
    numbers=("value", "value_low", "value_high", *LENGTHS, "groups", "segments", "seeds"),
    empty=("value_low", "value_high", *LENGTHS),
    groups=(),
)  # fmt: skip
SIGNIFICANCE = Schema(
    "significance.csv", "Differences between systems", "evaluate",
    key=("system_a", "system_b", "direction", "group", "tier", "metric"),
    numbers=("difference", "difference_low", "difference_high", "p", "p_holm", "without_low", "without_high",
             "segments", "seeds_a", "seeds_b"),
    empty=("group", "tier", "difference_low", "difference_high", "p", "p_holm", "without_low", "without_high"),
)  # fmt: skip
"""`p_holm` is p after Holm over all tests of a metric; there is none of fewer than `FEWEST` test segments. `without_*`
are the extremes of the difference when one language is left out of a mean."""


@dataclass(frozen=True)
class Scores:
    """Every system's score of every group, with its resamples.

    Attributes:
        direction: "xxx-eng" or "eng-xxx".
        tiers: of each group, in the order that they are shown.
        signatures: by metric, in the order that they are shown.
        sentences: that were scored, by (metric, group).
        sets: the test sets, by (metric, system, group).
        values: their scores and draws, by the same.
        recipes: by name, the systems that are training seeds of it.
        bootstrap: swaps of a test.
    """

    direction: str
    tiers: Mapping[str, str]
    signatures: Mapping[str, str]
    sentences: Mapping[tuple[str, str], int]
    sets: Mapping[tuple[str, str, str], Scored]
    values: Mapping[tuple[str, str, str], Sampled]
    recipes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    bootstrap: int = 0

    @cached_property
    def systems(self) -> list[str]:
        """Return the systems, in order."""
        return list(dict.fromkeys(system for _, system, _ in self.values))

    def seeds(self, name: str) -> Sequence[str]:
        """Return the systems of a recipe; a system is one by itself."""
        return self.recipes.get(name, [name])

    def by_tier(self) -> dict[str, list[str]]:
        """Return the groups of each tier that has any, and of all."""
        found = {tier: [group for group, of in self.tiers.items() if of == tier] for tier in TIERS}
        return {tier: groups for tier, groups in found.items() if groups} | {ALL: list(self.tiers)}

    def of(self, metric: str, name: str, groups: Sequence[str]) -> Sampled:
        """Return the mean of a system's, or a recipe's, scores over some groups."""
        return over_seeds([mean([self.values[metric, seed, group] for group in groups]) for seed in self.seeds(name)])

    def lengths(self, metric: str, name: str, groups: Sequence[str]) -> Sequence[float | None]:
        """Return the means of `LENGTHS` over some groups, and over the seeds of a recipe."""
        found = [
            lengths(METRICS[metric], self.sets[metric, seed, group].sums)
            for seed in self.seeds(name)
            for group in groups
        ]
        return (None, None) if found[0][0] is None else np.array(found, dtype=float).mean(axis=0).tolist()

    def segments(self, metric: str, groups: Sequence[str]) -> int:
        """Return how many segments the test sets of some groups have together."""
        return distinct([self.sets[metric, self.systems[0], group] for group in groups])


def compared(systems: Sequence[str], recipes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what is compared: each recipe in the place of its first seed, and the systems that are of none."""
    of = {seed: name for name, seeds in recipes.items() for seed in seeds}
    return list(dict.fromkeys(of.get(system, system) for system in systems))


def evaluation_table(scores: Scores) -> pd.DataFrame:
    """Return evaluation.csv: each system and recipe, group and metric, with its 95 % interval."""
    rows = [
        (name, scores.direction, group, tier, metric, found.value, *found.interval(),
         *scores.lengths(metric, name, [group]), scores.sentences[metric, group], len(scores.seeds(name)), signature)
        for name in (*scores.systems, *scores.recipes)
        for group, tier in scores.tiers.items()
        for metric, signature in scores.signatures.items()
        for found in (scores.of(metric, name, [group]),)
    ]  # fmt: skip
    return EVALUATION.frame(rows)


def tiers_table(scores: Scores) -> pd.DataFrame:
    """Return tiers.csv: each system's and recipe's mean over the groups of each tier and over all, with interval."""
    rows = [
        (name, scores.direction, tier, metric, found.value, *found.interval(), *scores.lengths(metric, name, groups),
         len(groups), scores.segments(metric, groups), len(scores.seeds(name)))
        for name in (*scores.systems, *scores.recipes)
        for tier, groups in scores.by_tier().items()
        for metric in scores.signatures
        for found in (scores.of(metric, name, groups),)
    ]  # fmt: skip
    return BY_TIER.frame(rows)


def significance_table(scores: Scores, baseline: str) -> pd.DataFrame:
    """Return significance.csv: what is compared minus the baseline, by tier and by group, tested in pairs."""
    rows = []
    for name in (each for each in compared(scores.systems, scores.recipes) if each != baseline):
        seeds = len(scores.seeds(baseline)), len(scores.seeds(name))
        for metric in scores.signatures:
            swaps = _swaps(scores, metric, baseline, name)
            for group, tier, groups in _tested(scores):
                found = _difference(scores, metric, baseline, name, groups, swaps)
                where = baseline, name, scores.direction, group, tier, metric
                without = _without_one(scores, metric, baseline, name, groups)
                rows.append((*where, *found, np.nan, *without, scores.segments(metric, groups), *seeds))
    return corrected(SIGNIFICANCE.frame(rows))


def corrected(tests: pd.DataFrame) -> pd.DataFrame:
    """Return tests with `p_holm`, of each metric by itself; none where there are too few test segments."""
    p = tests["p"].where(tests["segments"] >= FEWEST)
    return tests.assign(p_holm=p.groupby(tests["metric"]).transform(lambda of: pd.Series(holm(of), of.index)))


def _swaps(scores: Scores, metric: str, a: str, b: str) -> dict[str, Float]:
    """Return, by group, the differences of two systems after each swap; nothing where there are several seeds."""
    if len(scores.seeds(a)) > 1 or len(scores.seeds(b)) > 1:
        return {}
    one, other = scores.seeds(a)[0], scores.seeds(b)[0]
    return {
        group: swapped(scores.sets[metric, one, group], scores.sets[metric, other, group], scores.bootstrap)
        for group in scores.tiers
    }


def _difference(
    scores: Scores, metric: str, a: str, b: str, groups: Sequence[str], swaps: Mapping[str, Float]
) -> Difference:
    difference = scores.of(metric, b, groups) - scores.of(metric, a, groups)
    return difference.tested(np.mean([swaps[group] for group in groups], axis=0) if swaps else np.empty(0))


def _without_one(scores: Scores, metric: str, a: str, b: str, groups: Sequence[str]) -> tuple[float, float]:
    """Return the least and the largest mean difference when one of the groups is left out; NaN of one alone."""
    values = np.array([scores.of(metric, b, [each]).value - scores.of(metric, a, [each]).value for each in groups])
    if len(values) < 2:
        return np.nan, np.nan
    left = (values.sum() - values) / (len(values) - 1)
    return float(left.min()), float(left.max())


def _tested(scores: Scores) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (group, tier, the groups that are averaged); one of the first two is empty."""
    yield from (("", tier, groups) for tier, groups in scores.by_tier().items())
    yield from ((group, "", [group]) for group in scores.tiers)
