"""What a report is made from: the manifests and tidy tables of one or more run directories, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sensikit.errors import OptionError, RunError
from sensikit.store import Run

QUANTILES = ("q01", "q10", "q25", "median", "q75", "q90", "q99")


@dataclass(frozen=True)
class Schema:
    """What a tidy table must have: columns of text and of numbers, and which of them name a row.

    `empty` are the columns whose cells may be empty, `languages` those that name languages.
    """

    text: tuple[str, ...]
    numbers: tuple[str, ...]
    key: tuple[str, ...]
    empty: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("language",)
    statistics: tuple[str, ...] = ()


_STATISTIC = {
    "text": ("task", "language", "statistic"),
    "numbers": ("value",),
    "key": ("task", "language", "statistic"),
}

TABLES = {
    "correlation.csv": Schema(
        text=("task", "group", "language_a", "language_b"),
        numbers=("pcc", "pcc_low", "pcc_high", "ceiling", "reliability_a", "reliability_b", "parameters"),
        key=("task", "group", "language_a", "language_b"),
        # not defined for sensitivities that do not vary, or of too few batches
        empty=("pcc", "pcc_low", "pcc_high", "ceiling", "reliability_a", "reliability_b"),
        languages=("language_a", "language_b"),
    ),
    "specificity.csv": Schema(
        **_STATISTIC,
        statistics=("mean", "share_positive", "share_small_denominator", "share_ties_at_zero", *QUANTILES),
    ),
    "balance.csv": Schema(
        **_STATISTIC, empty=("value",), statistics=("mean", "cv", "share_top10", "zero_share", *QUANTILES)
    ),
    "pruning.csv": Schema(
        text=("order", "language", "bleu_signature"),
        numbers=("ratio", "pruned", "prunable", "bleu", "bleu_low", "bleu_high", "chrf", "sentences"),
        key=("order", "seed", "language", "ratio"),
        empty=("bleu_low", "bleu_high"),
    ),
}
MIXED = "all"  # batches of all languages together, which a table may hold beside the languages


@dataclass(frozen=True)
class Subject:
    """One run of a report: what to call it, the run, and those of its tables that exist."""

    label: str
    path: str
    run: Run
    tables: dict[str, pd.DataFrame]

    @property
    def manifest(self) -> dict[str, Any]:
        """What was measured, of what, how."""
        return self.run.manifest


@dataclass(frozen=True)
class Material:
    """The runs of a report, their languages together, and each tidy table of all runs that have it.

    The tables have a column `run` where the report is of several runs.
    """

    subjects: list[Subject]
    languages: dict[str, dict[str, Any]]
    tables: dict[str, pd.DataFrame]


def gather(paths: Sequence[Path], labels: Sequence[str] = ()) -> Material:
    """Return the material of some run directories.

    Args:
        paths: of the runs, in the order they are shown.
        labels: what to call them; by default the names of the directories, with the parent's where two are the same.

    Raises:
        RunError: if one is not a run directory, is given twice, or has a damaged manifest or table.
        OptionError: if there is not one distinct label for each run.
    """
    names = _labels(paths, labels)
    subjects = [_subject(path, label) for path, label in zip(paths, names, strict=True)]
    languages: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        for code, language in subject.manifest["languages"].items():
            languages.setdefault(code, language)
    tables = {}
    for name in TABLES:
        found = [(subject.label, subject.tables[name]) for subject in subjects if name in subject.tables]
        if found:
            several = len(subjects) > 1
            frames = [frame.assign(run=label) if several else frame for label, frame in found]
            tables[name] = pd.concat(frames, ignore_index=True)
    return Material(subjects, languages, tables)


def printable(text: str) -> str:
    """Return text that every file can hold: no control signs, nothing but plain spaces, no bytes that are not UTF-8."""
    shown = (sign if sign.isprintable() else " " if sign.isspace() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return "".join(shown)


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_printable(key): _printable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_printable(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _labels(paths: Sequence[Path], labels: Sequence[str]) -> list[str]:
    places = [path.resolve() for path in paths]
    if len(set(places)) < len(places):
        raise RunError(max(paths, key=paths.count), "is given twice", "give each run once")
    if labels:
        if len(labels) != len(paths):
            raise OptionError("--label", f"there are {len(labels)} for {len(paths)} runs", "give one for each run")
        names = [printable(label) for label in labels]
    else:
        names = [printable(place.name) for place in places]
        if len(set(names)) < len(names):
            names = [printable(f"{place.parent.name}/{place.name}") for place in places]
    if len(set(names)) < len(names):
        raise OptionError("--label", "two runs would have the same name", "name them with --label, once for each run")
    return names


def _subject(path: Path, label: str) -> Subject:
    run = Run.open(path)
    _check_manifest(run)
    run.manifest = _printable(run.manifest)
    tables = {name: _table(run, name, schema) for name, schema in TABLES.items() if (path / name).exists()}
    return Subject(label, printable(str(path)), run, tables)


def _check_manifest(run: Run) -> None:
    manifest, where = run.manifest, run.path / "manifest.json"
    kinds = {
        "signature": str, "direction": str, "version": str, "command": str, "notes": list, "languages": dict,
        "provenance": dict, "sets": dict, "parameter_count": int, "prunable_count": int, "versions": dict,
    }  # fmt: skip
    for field, kind in kinds.items():
        if not isinstance(manifest.get(field), kind):
            raise RunError(where, f"lacks {field}", "it is damaged; analyze again")
    for code, language in manifest["languages"].items():
        if not _is_language(language):
            raise RunError(where, f"lacks the name, family, tier or sizes of {code}", "it is damaged; analyze again")
    if not manifest["languages"]:
        raise RunError(where, "has no language", "it is damaged; analyze again")
    for field in ("framework", "checkpoint", "checkpoint_sha256", "data", "data_sha256"):
        if not isinstance(manifest["provenance"].get(field), str):
            raise RunError(where, f"lacks the provenance's {field}", "it is damaged; analyze again")
    for name, entry in manifest["sets"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("tokens_mean"), int | float):
            raise RunError(where, f"lacks the tokens of {name}", "it is damaged; analyze again")


def _is_language(entry: Any) -> bool:
    kinds = {"name": str, "family": str, "tier": str, "sizes": dict}
    if not isinstance(entry, dict) or any(not isinstance(entry.get(field), kind) for field, kind in kinds.items()):
        return False
    return "train" in entry["sizes"] and all(isinstance(size, int) for size in entry["sizes"].values())


def _table(run: Run, name: str, schema: Schema) -> pd.DataFrame:
    path = run.path / name
    remedy = f"it is damaged; make it again with sensikit {'prune' if name == 'pruning.csv' else 'analyze'} --resume"
    try:
        frame = run.read_table(name)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise RunError(path, "is not a table", remedy) from error
    missing = [column for column in (*schema.key, *schema.text, *schema.numbers) if column not in frame]
    if missing:
        raise RunError(path, f"lacks the column {missing[0]}", remedy)
    if frame.empty:
        raise RunError(path, "has no rows", remedy)
    for column in (*schema.text, *schema.numbers):
        frame[column] = _column(frame[column], path, column in schema.numbers, column not in schema.empty, remedy)
    known = {*run.manifest["languages"], MIXED}
    for column in schema.languages:
        strange = [code for code in frame[column] if code not in known]
        if strange:
            raise RunError(path, f"names {strange[0]}, which is no language of the manifest", remedy)
    twice = frame[frame.duplicated(list(schema.key))]
    if len(twice):
        raise RunError(f"{path}:{twice.index[0] + 2}", "says again what an earlier line says", remedy)
    if name == "pruning.csv":
        unpruned = set(frame.loc[frame["order"] == "none", "language"])
        for code in (code for code in frame["language"] if code not in unpruned):
            raise RunError(path, f"lacks the unpruned score of {code}", remedy)
    if schema.statistics:
        _check_statistics(frame, path, schema.statistics, remedy)
    return frame


def _column(found: pd.Series[Any], path: Path, number: bool, filled: bool, remedy: str) -> pd.Series[Any]:
    """Return one column as text or as finite numbers."""
    values = (
        pd.to_numeric(found, errors="coerce").astype(float)
        if number
        else found.astype(str).map(printable, na_action="ignore")
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


def _check_statistics(frame: pd.DataFrame, path: Path, statistics: Sequence[str], remedy: str) -> None:
    for (_, code), rows in frame.groupby(["task", "language"]):
        lacking = [name for name in statistics if name not in set(rows["statistic"])]
        if lacking:
            raise RunError(path, f"lacks the statistic {lacking[0]} of {code}", remedy)
