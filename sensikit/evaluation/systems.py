"""Checkpoints side by side: every test set decoded with each of them, scored, and tested against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sensikit.backends.base import Model, translation_of
from sensikit.errors import DataError, OptionError, RunError
from sensikit.evaluation import tables as quality_tables
from sensikit.evaluation.folder import KIND, Translated
from sensikit.evaluation.resampling import resampled
from sensikit.evaluation.scoring import METRICS, Scores, evaluation_table, metrics, significance_table, tiers_table
from sensikit.files import write_text
from sensikit.languages import chosen_groups
from sensikit.progress import progress
from sensikit.settings import EvaluationSettings
from sensikit.signature import signature
from sensikit.version import __version__

Opener = Callable[[], Model]


@dataclass(frozen=True)
class Evaluation:
    """What came of it: the manifest, and the tidy tables by the names of their files."""

    manifest: dict[str, Any]
    tables: dict[str, pd.DataFrame]


def evaluate_systems(
    systems: Mapping[str, Opener],
    out: Path,
    settings: EvaluationSettings | None = None,
    *,
    groups: Sequence[str] | None = None,
    baseline: str | None = None,
    resume: bool = False,
    command: str = "",
) -> Evaluation:
    """Decode what is not decoded yet, score everything, write and return evaluation.csv, tiers.csv, significance.csv.

    Every checkpoint is opened before the first one is decoded: a bad one is told of at once. A killed evaluation goes
    on with `resume` from the test set that it was in, and ends with the same bytes.

    Args:
        systems: by label, how to open each: checkpoints of the same data, languages and direction.
        out: the evaluation directory.
        settings: see `EvaluationSettings`.
        groups: all by default.
        baseline: the label that the others are tested against; the first by default.
        resume: go on with what stands at `out`, or add systems and languages to it.
        command: as it was typed, for the record.

    Raises:
        OptionError: for labels, a baseline or languages that cannot be.
        DataError: if a language has no test set, or systems do not belong together.
        RunError: if `out` exists (without `resume`), or was made of something else (with it).
    """
    settings = settings or EvaluationSettings()
    _check_labels(list(systems))
    baseline = next(iter(systems)) if baseline is None else baseline
    if baseline not in systems:
        raise OptionError("--baseline", f"{baseline} is no label", f"choose among {', '.join(systems)}")
    scored_by = metrics(settings.tokenizer, settings.spm_model)  # one that cannot be had is told of at once
    facts = {"kind": KIND, **_facts(systems, settings, groups), "baseline": baseline, "command": command, "files": {}}
    with Translated.begun(out, facts, resume) as folder:
        folder.save()
        _decode(folder, systems, settings)
        scores = _scored(folder, scored_by, settings.bootstrap)
        tables = {"evaluation.csv": evaluation_table(scores), "tiers.csv": tiers_table(scores)}
        if len(systems) > 1:
            tables["significance.csv"] = significance_table(scores, baseline)
        for name, table in tables.items():
            write_text(out / name, table.to_csv(index=False))
        folder.manifest |= {"signature": _signature(folder, settings), "notes": _notes(folder)}
        folder.save()
        quality_tables.save(out / "tables", folder.manifest, tables)
    return Evaluation(folder.manifest, tables)


def labels_of(checkpoints: Sequence[Path], labels: Sequence[str] = ()) -> list[str]:
    """Return what checkpoints are called: `labels`, or else their folders, with their own names where two share one.

    Raises:
        OptionError: if there is not one distinct label for each.
    """
    if labels and len(labels) != len(checkpoints):
        raise OptionError("--label", f"there are {len(labels)} for {len(checkpoints)} checkpoints", "give one for each")
    names = list(labels) or [path.resolve().parent.name for path in checkpoints]
    if not labels and len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}-{path.stem}" for path in checkpoints]
    for name in names:
        if names.count(name) > 1:
            raise OptionError("--label", f"two checkpoints would be called {name}", "give one for each, all different")
    return names


def _check_labels(labels: Sequence[str]) -> None:
    """Refuse what is no part of a file's name."""
    for label in labels:
        if not label.strip() or not label.isprintable() or "/" in label or label.startswith(".") or len(label) > 100:
            raise OptionError("--label", f"{label[:100]!r} names files", "give a short one without / or a leading dot")


def _facts(
    systems: Mapping[str, Opener], settings: EvaluationSettings, languages: Sequence[str] | None
) -> dict[str, Any]:
    """Open every checkpoint; return what the manifest says of them, their data and languages."""
    first: Model | None = None
    noted: dict[str, dict[str, Any]] = {}
    for label, opener in systems.items():
        model = opener()
        origin = model.provenance
        if first is None:
            first, chosen = model, chosen_groups(list(model.task("mt").groups), languages)
            for code in chosen:
                model.task("mt").sizes(code, settings.split)  # a test set that is missing is told of here
        _check_alike(model, first, noted)
        noted[label] = {
            "checkpoint": origin.checkpoint, "sha256": origin.checkpoint_sha256, "framework": origin.framework,
            **model.training,
        }  # fmt: skip
    if first is None:
        raise OptionError("CHECKPOINT", "there is none", "give at least one")
    known = {code: first.task("mt").groups[code].facts() for code in chosen}
    return {
        "version": __version__,
        "direction": first.task("mt").direction,
        "data": {"path": first.provenance.data, "sha256": first.provenance.data_sha256},
        "settings": {"split": settings.split, **asdict(settings.decoding)},
        "groups": known,
        "systems": noted,
    }


def _check_alike(model: Model, first: Model, before: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a checkpoint that was given already, or whose test sets are not those of the first."""
    where, origin = model.provenance.checkpoint, model.provenance
    other = first.provenance.checkpoint
    for label, facts in before.items():
        if facts["sha256"] == origin.checkpoint_sha256:
            raise OptionError(where, f"is the checkpoint of {label} once more", "give each checkpoint once")
    if model.task("mt").direction != first.task("mt").direction:
        problem = f"translates {model.task('mt').direction} and {other} {first.task('mt').direction}"
        raise OptionError(where, problem, "give a --direction that both were trained on")
    alone = sorted(set(model.task("mt").groups) ^ set(first.task("mt").groups))
    if alone:
        problem = f"was trained on other languages than {other}: {', '.join(alone)} in one alone"
        raise DataError(where, problem, "evaluate them apart")
    if origin.data_sha256 != first.provenance.data_sha256:
        raise DataError(where, f"goes with other data than {other}", "evaluate them apart")


def _decode(folder: Translated, systems: Mapping[str, Opener], settings: EvaluationSettings) -> None:
    languages: dict[str, Any] = folder.manifest["groups"]
    todo = {label: [code for code in languages if not folder.has(label, code)] for label in systems}
    sizes = {code: entry["sizes"].get(settings.split) for code, entry in languages.items()}
    most = settings.decoding.max_sentences
    counts = [min(sizes[code] or 0, most or sizes[code] or 0) for codes in todo.values() for code in codes]
    with progress(sum(counts) or None, "decoding", "sentences") as bar:
        for label, codes in todo.items():
            if not codes:
                continue
            model = systems[label]()
            if model.provenance.checkpoint_sha256 != folder.manifest["systems"][label]["sha256"]:
                raise RunError(model.provenance.checkpoint, "is being written", "evaluate a copy of it")
            for code in codes:
                found = translation_of(model).translate(code, settings.split, settings.decoding)
                folder.keep(label, code, found)
                bar.advance(len(found.hypotheses))


def _scored(folder: Translated, scored_by: Mapping[str, Any], bootstrap: int) -> Scores:
    systems, languages = list(folder.manifest["systems"]), folder.manifest["groups"]
    values = {}
    with progress(len(systems) * len(languages), "scoring", "test sets") as bar:
        for code in languages:
            references = folder.references(code)
            for system in systems:
                hypotheses = folder.hypotheses(system, code)
                for name in METRICS:
                    values[name, system, code] = resampled(scored_by[name], hypotheses, references, bootstrap)
                bar.advance()
    return Scores(
        direction=folder.manifest["direction"],
        tiers={code: entry["tier"] for code, entry in languages.items()},
        sentences={code: folder.noted(systems[0], code)["sentences"] for code in languages},
        signatures={name: scored_by[name].get_signature().format() for name in METRICS},
        values=values,
    )


def _signature(folder: Translated, settings: EvaluationSettings) -> str:
    manifest = folder.manifest
    origins = {folder.noted(system, code)["from"] for system in manifest["systems"] for code in manifest["groups"]}
    return signature(
        "E",
        dir=manifest["direction"],
        **settings.decoding.choices(settings.split, "+".join(sorted(origins))),
        data=manifest["data"]["sha256"][:8],
    )


def _notes(folder: Translated) -> list[str]:
    return [
        f"{system}, {code}: {count} sources longer than the model takes, translated in part"
        for system in folder.manifest["systems"]
        for code in folder.manifest["groups"]
        if (count := folder.noted(system, code)["truncated"])
    ]
