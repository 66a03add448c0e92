"""Systems and groups, scored → tidy tables: each group, the mean of each tier, and tests against a baseline.

The mean over the groups of a tier, and over all, is what Tables 1 to 3 of the paper report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from sensikit.evaluation.resampling import Sampled, mean
from sensikit.languages import TIERS
from sensikit.tables import Schema

ALL = "All"

EVALUATION = Schema(
    "evaluation.csv", "Scores by group", "evaluate",
    key=("system", "direction", "group", "tier", "metric"),
    numbers=("value", "value_low", "value_high", "sentences"),
    text=("metric_signature",),
    empty=("value_low", "value_high"),
)  # fmt: skip
BY_TIER = Schema(
    "tiers.csv", "Scores by resource level", "evaluate",
    key=("system", "direction", "tier", "metric"),
    numbers=("value", "value_low", "value_high", "groups"),
    empty=("value_low", "value_high"),
    groups=(),
)  # fmt: skip
SIGNIFICANCE = Schema(
    "significance.csv", "Differences between systems", "evaluate",
    key=("system_a", "system_b", "direction", "group", "tier", "metric"),
    numbers=("difference", "difference_low", "difference_high", "p"),
    empty=("group", "tier", "difference_low", "difference_high", "p"),
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Every system's score of every group, with its resamples.

    Attributes:
        direction: "xxx-eng" or "eng-xxx".
        tiers: of each group, in the order that they are shown.
        signatures: by metric, in the order that they are shown.
        sentences: that were scored, by (metric, group).
        values: by (metric, system, group).
    """

    direction: str
    tiers: Mapping[str, str]
    signatures: Mapping[str, str]
    sentences: Mapping[tuple[str, str], int]
    values: Mapping[tuple[str, str, str], Sampled]

    @property
    def systems(self) -> list[str]:
        """Return the systems, in order."""
        return list(dict.fromkeys(system for _, system, _ in self.values))

    def by_tier(self) -> dict[str, list[str]]:
        """Return the groups of each tier that has any, and of all."""
        found = {tier: [group for group, of in self.tiers.items() if of == tier] for tier in TIERS}
        return {tier: groups for tier, groups in found.items() if groups} | {ALL: list(self.tiers)}

    def of(self, metric: str, system: str, groups: Sequence[str]) -> Sampled:
        """Return the mean of a system's scores over some groups."""
        return mean([self.values[metric, system, group] for group in groups])


def evaluation_table(scores: Scores) -> pd.DataFrame:
    """Return evaluation.csv: each system, group and metric, with the 95 % interval over test sentences."""
    rows = [
        (system, scores.direction, group, tier, metric, found.value, *found.interval(),
         scores.sentences[metric, group], signature)
        for system in scores.systems
        for group, tier in scores.tiers.items()
        for metric, signature in scores.signatures.items()
        for found in (scores.values[metric, system, group],)
    ]  # fmt: skip
    return EVALUATION.frame(rows)


def tiers_table(scores: Scores) -> pd.DataFrame:
    """Return tiers.csv: each system's mean over the groups of each tier and over all, with its interval."""
    rows = [
        (system, scores.direction, tier, metric, found.value, *found.interval(), len(groups))
        for system in scores.systems
        for tier, groups in scores.by_tier().items()
        for metric in scores.signatures
        for found in (scores.of(metric, system, groups),)
    ]
    return BY_TIER.frame(rows)


def significance_table(scores: Scores, baseline: str) -> pd.DataFrame:
    """Return significance.csv: each other system minus the baseline, by tier and by group, tested in pairs."""
    rows = [
        (baseline, system, scores.direction, group, tier, metric, *difference.tested())
        for system in scores.systems
        if system != baseline
        for group, tier, groups in _compared(scores)
        for metric in scores.signatures
        for difference in (scores.of(metric, system, groups) - scores.of(metric, baseline, groups),)
    ]
    return SIGNIFICANCE.frame(rows)


def _compared(scores: Scores) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (group, tier, the groups that are averaged); one of the first two is empty."""
    yield from (("", tier, groups) for tier, groups in scores.by_tier().items())
    yield from ((group, "", [group]) for group in scores.tiers)
