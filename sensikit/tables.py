"""What each tidy table must hold, how it is read and refused, and which command makes it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sensikit.errors import RunError

QUANTILES = ("q01", "q10", "q25", "median", "q75", "q90", "q99")
LAYOUT = "layout.csv"  # the one table of a run that is made of its data, not of what it stores
MIXED = (
    "all.groups"  # `sensikit.run.MIXED`: batches of all languages together, which a table may hold beside the languages
)


@dataclass(frozen=True)
class Schema:
    """What a tidy table must have: columns of text and of numbers, and which of them name a row.

    Attributes:
        what: the table in words.
        verb: of sensikit that makes it: analyze, denoise (analyze of that task), audit, prune, cross, or evaluate.
        text: columns of text.
        numbers: columns of numbers.
        key: columns that no two rows share.
        empty: columns whose cells may be empty.
        groups: columns that name groups.
        statistics: that every (task, language) must have.
    """

    what: str
    verb: str
    text: tuple[str, ...]
    numbers: tuple[str, ...]
    key: tuple[str, ...]
    empty: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("group",)
    statistics: tuple[str, ...] = ()


_BOTH = ("group_a", "group_b")
_SCORES = ("ratio", "pruned", "prunable", "bleu", "bleu_low", "bleu_high", "chrf", "sentences")

TABLES = {
    "correlation.csv": Schema(
        "Correlation between languages", "analyze",
        text=("task", "subset", *_BOTH),
        numbers=("pcc", "pcc_low", "pcc_high", "ceiling", "disattenuated", "reliability_a", "reliability_b",
                 "parameters"),
        key=("task", "subset", *_BOTH),
        # not defined for sensitivities that do not vary, or of too few batches
        empty=("pcc", "pcc_low", "pcc_high", "ceiling", "disattenuated", "reliability_a", "reliability_b"),
        groups=_BOTH,
    ),
    "similarity.csv": Schema(
        "Similarity of the two tasks", "denoise",
        text=("task_a", "task_b", "subset", "group"),
        numbers=("pcc", "pcc_low", "pcc_high", "ceiling"),
        key=("task_a", "task_b", "subset", "group"),
        empty=("pcc", "pcc_low", "pcc_high", "ceiling"),
    ),
    LAYOUT: Schema(
        "a sentence under concurrent denoising", "denoise",
        text=("group", "source", "encoder_target", "decoder_input", "decoder_target"),
        numbers=("position",),
        key=("group", "position"),
        empty=("encoder_target", "decoder_target"),  # nothing is to be predicted there
    ),
    "specificity.csv": Schema(
        "Language specificity", "analyze",
        text=("task", "group", "statistic"),
        numbers=("value",),
        key=("task", "group", "statistic"),
        statistics=("mean", "share_positive", "share_small_denominator", "share_ties_at_zero", *QUANTILES),
    ),
    "components.csv": Schema(
        "Sensitivity and specificity by component", "analyze",
        text=("task", "group", "stack", "layer", "component"),
        numbers=("parameters", "sensitivity_mean", "sensitivity_share", "specificity_mean", "specificity_median",
                 "share_positive"),
        key=("task", "group", "stack", "layer", "component"),
        empty=("layer", "sensitivity_share", "specificity_mean", "specificity_median"),
    ),
    "components-correlation.csv": Schema(
        "Correlation within components", "analyze",
        text=("task", "stack", "layer", "component", *_BOTH),
        numbers=("pcc", "parameters"),
        key=("task", "stack", "layer", "component", *_BOTH),
        empty=("layer", "pcc"),
        groups=_BOTH,
    ),
    "overlap.csv": Schema(
        "Overlap of the most specific parameters", "analyze",
        text=("task", *_BOTH),
        numbers=("share", "jaccard", "expected"),
        key=("task", "share", *_BOTH),
        empty=("jaccard", "expected"),
        groups=_BOTH,
    ),
    "balance.csv": Schema(
        "Balance of sensitivity", "analyze",
        text=("task", "group", "statistic"),
        numbers=("value",),
        key=("task", "group", "statistic"),
        empty=("value",),
        statistics=("mean", "cv", "share_top10", "zero_share", "std_below_top1", "cv_below_top1", *QUANTILES),
    ),
    "distribution.csv": Schema(
        "Distribution of sensitivity", "analyze",
        text=("task", "group"),
        numbers=("low", "high", "count"),
        key=("task", "group", "low"),
    ),
    "convergence.csv": Schema(
        "Convergence with the number of batches", "analyze",
        text=("task", "subset", "group"),
        numbers=("batches", "reliability", "reliability_low", "reliability_high"),
        key=("task", "subset", "group", "batches"),
        empty=("reliability", "reliability_low", "reliability_high"),
    ),
    "audit.csv": Schema(
        "Audit of the Taylor estimate", "audit",
        text=("task", "group", "parameter", "stratum"),
        numbers=("index", "weight", "taylor", "exact"),
        key=("task", "group", "parameter", "index"),
    ),
    "audit-summary.csv": Schema(
        "its agreement with exact ablation", "audit",
        text=("task", "group", "statistic", "signature", "command"),
        numbers=("value", "value_low", "value_high", "sampled", "batches"),
        key=("task", "group", "statistic"),
        empty=("value", "value_low", "value_high", "command"),
        statistics=("spearman", "pearson", "top10_agreement"),
    ),
    "pruning.csv": Schema(
        "Pruning curves", "prune",
        text=("order", "group", "bleu_signature", "hypotheses"),
        numbers=_SCORES,
        key=("order", "seed", "group", "ratio"),
        empty=("bleu_low", "bleu_high"),
    ),
    "pruning-cross.csv": Schema(
        "What pruning for one language does to the others", "cross",
        text=("order", "group", "evaluated", "bleu_signature"),
        numbers=_SCORES,
        key=("order", "seed", "group", "evaluated", "ratio"),
        empty=("bleu_low", "bleu_high"),
        groups=("group", "evaluated"),
    ),
}  # fmt: skip
"""Of a run directory."""

EVALUATION = {
    "evaluation.csv": Schema(
        "Scores by language", "evaluate",
        text=("system", "direction", "group", "tier", "metric", "signature"),
        numbers=("score", "score_low", "score_high", "sentences"),
        key=("system", "direction", "group", "metric"),
        empty=("score_low", "score_high"),
    ),
    "tiers.csv": Schema(
        "Scores by resource level", "evaluate",
        text=("system", "direction", "tier", "metric"),
        numbers=("score", "score_low", "score_high", "groups"),
        key=("system", "direction", "tier", "metric"),
        empty=("score_low", "score_high"),
        groups=(),
    ),
    "significance.csv": Schema(
        "Differences between systems", "evaluate",
        text=("system_a", "system_b", "direction", "group", "tier", "metric"),
        numbers=("difference", "difference_low", "difference_high", "p"),
        key=("system_a", "system_b", "direction", "group", "tier", "metric"),
        empty=("group", "tier", "difference_low", "difference_high", "p"),
    ),
}  # fmt: skip
"""Of an evaluation directory; with one system there is nothing to compare."""

_AGAIN = {"cross": "prune --cross --resume", "denoise": "analyze --resume", "audit": "audit"}


def read(path: Path, schema: Schema, languages: Collection[str]) -> pd.DataFrame:
    """Return a tidy table, checked.

    Args:
        path: of the CSV file.
        schema: what it must have.
        languages: that it may name.

    Raises:
        RunError: with the line or column at fault.
    """
    remedy = f"it is damaged; make it again with sensikit {_AGAIN.get(schema.verb, f'{schema.verb} --resume')}"
    try:
        if not path.is_file():
            raise RunError(path, "is not a file", remedy)
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise RunError(path, "is not a table", remedy) from error
    missing = [column for column in (*schema.key, *schema.text, *schema.numbers) if column not in frame]
    if missing:
        raise RunError(path, f"lacks the column {missing[0]}", remedy)
    if frame.empty:
        raise RunError(path, "has no rows", remedy)
    for column in (*schema.text, *schema.numbers):
        frame[column] = _column(frame[column], path, column in schema.numbers, column not in schema.empty, remedy)
    for column in schema.groups:
        strange = [code for code in frame[column].dropna() if code not in languages and code != MIXED]
        if strange:
            raise RunError(path, f"names {strange[0]}, which is no language of the manifest", remedy)
    twice = frame[frame.duplicated(list(schema.key))]
    if len(twice):
        raise RunError(f"{path}:{twice.index[0] + 2}", "says again what an earlier line says", remedy)
    if schema.verb in ("prune", "cross"):
        _check_unpruned(frame, path, schema.groups[-1], remedy)
    if schema.statistics:
        _check_statistics(frame, path, schema.statistics, remedy)
    return frame


def printable(text: str) -> str:
    """Return text that every file can hold: no control signs, nothing but plain spaces, no bytes that are not UTF-8."""
    shown = (sign if sign.isprintable() else " " if sign.isspace() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return "".join(shown)


def _column(found: pd.Series[Any], path: Path, number: bool, filled: bool, remedy: str) -> pd.Series[Any]:
    """Return one column as text or as finite numbers."""
    values = (
        pd.to_numeric(found, errors="coerce").astype(float)
        if number
        else found.astype(str).map(printable, na_action="ignore").where(found.notna())
    )
    wrong = found.notna() & ~np.isfinite(values) if number else pd.Series(False, index=found.index)
    if filled:
        wrong |= found.isna()
    if wrong.any():
        line = int(np.argmax(wrong))
        value = found.iloc[line]
        problem = f"has {'nothing' if pd.isna(value) else value} for {found.name}"
        raise RunError(f"{path}:{line + 2}", problem, remedy)
    return values


def _check_unpruned(frame: pd.DataFrame, path: Path, column: str, remedy: str) -> None:
    unpruned = set(frame.loc[frame["order"] == "none", column])
    for code in (code for code in frame[column] if code not in unpruned):
        raise RunError(path, f"lacks the unpruned score of {code}", remedy)


def _check_statistics(frame: pd.DataFrame, path: Path, statistics: Sequence[str], remedy: str) -> None:
    for (_, code), rows in frame.groupby(["task", "group"]):
        lacking = [name for name in statistics if name not in set(rows["statistic"])]
        if lacking:
            raise RunError(path, f"lacks the statistic {lacking[0]} of {code}", remedy)
