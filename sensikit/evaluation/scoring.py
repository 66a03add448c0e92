"""Systems and languages, scored → tidy tables: each language, the mean of each tier, and tests against a baseline.

The mean over the languages of a tier, and over all, is what Tables 1 to 3 of the paper report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sacrebleu.metrics import CHRF

from sensikit.evaluation.metrics import bleu_metric
from sensikit.evaluation.resampling import Sampled, mean
from sensikit.languages import HIGH, LOW, VERY_LOW
from sensikit.tables import Schema

LEVELS = (HIGH, LOW, VERY_LOW)
ALL = "All"

METRICS = ("bleu", "chrf")

EVALUATION = Schema(
    "evaluation.csv", "Scores by group", "evaluate",
    key=("system", "direction", "group", "tier", "metric"),
    numbers=("value", "value_low", "value_high", "sentences"),
    text=("metric_signature",),
    empty=("value_low", "value_high"),
)  # fmt: skip
TIERS = Schema(
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


def metrics(tokenizer: str, spm_model: str | None) -> dict[str, Any]:
    """Return sacreBLEU's BLEU and chrF++, by the names of `METRICS`; errors are those of `evaluation.bleu_metric`."""
    return {"bleu": bleu_metric(tokenizer, spm_model), "chrf": CHRF(word_order=2)}


@dataclass(frozen=True)
class Scores:
    """Every system's score of every language, with its resamples.

    Attributes:
        direction: "xxx-eng" or "eng-xxx".
        tiers: of each language, in the order that they are shown.
        sentences: that were translated, by language.
        signatures: sacreBLEU's, by metric.
        values: by (metric, system, language).
    """

    direction: str
    tiers: Mapping[str, str]
    sentences: Mapping[str, int]
    signatures: Mapping[str, str]
    values: Mapping[tuple[str, str, str], Sampled]

    @property
    def systems(self) -> list[str]:
        """Return the systems, in order."""
        return list(dict.fromkeys(system for _, system, _ in self.values))

    def groups(self) -> dict[str, list[str]]:
        """Return the languages of each tier that has any, and of all."""
        found = {tier: [code for code, of in self.tiers.items() if of == tier] for tier in LEVELS}
        return {tier: codes for tier, codes in found.items() if codes} | {ALL: list(self.tiers)}

    def of(self, metric: str, system: str, languages: Sequence[str]) -> Sampled:
        """Return the mean of a system's scores over some languages."""
        return mean([self.values[metric, system, code] for code in languages])


def evaluation_table(scores: Scores) -> pd.DataFrame:
    """Return evaluation.csv: each system, language and metric, with sacreBLEU's interval over test sentences."""
    rows = [
        (system, scores.direction, code, scores.tiers[code], metric, found.value, *found.interval(),
         scores.sentences[code], scores.signatures[metric])
        for system in scores.systems
        for code in scores.tiers
        for metric in METRICS
        for found in (scores.values[metric, system, code],)
    ]  # fmt: skip
    return EVALUATION.frame(rows)


def tiers_table(scores: Scores) -> pd.DataFrame:
    """Return tiers.csv: each system's mean over the languages of each tier and over all, with its interval."""
    rows = [
        (system, scores.direction, tier, metric, found.value, *found.interval(), len(codes))
        for system in scores.systems
        for tier, codes in scores.groups().items()
        for metric in METRICS
        for found in (scores.of(metric, system, codes),)
    ]
    return TIERS.frame(rows)


def significance_table(scores: Scores, baseline: str) -> pd.DataFrame:
    """Return significance.csv: each other system minus the baseline, by tier and by language, tested in pairs."""
    rows = [
        (baseline, system, scores.direction, code, tier, metric, *difference.tested())
        for system in scores.systems
        if system != baseline
        for code, tier, codes in _compared(scores)
        for metric in METRICS
        for difference in (scores.of(metric, system, codes) - scores.of(metric, baseline, codes),)
    ]
    return SIGNIFICANCE.frame(rows)


def _compared(scores: Scores) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (language, tier, the languages that are averaged); one of the first two is empty."""
    yield from (("", tier, codes) for tier, codes in scores.groups().items())
    yield from ((code, "", [code]) for code in scores.tiers)
