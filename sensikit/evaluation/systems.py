"""Models side by side: every test set translated or its loss taken with each, scored, and tested against a baseline."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sensikit.backends.base import Model, is_file, task_of
from sensikit.distributed import Share, Work, dealt
from sensikit.errors import DataError, OptionError, RunError
from sensikit.evaluation import tables as quality_tables
from sensikit.evaluation.folder import KIND, Translated
from sensikit.evaluation.metrics import Metric, check_scored, chosen
from sensikit.evaluation.resampling import INDEPENDENT, Sampled, Scored, resampled
from sensikit.evaluation.scoring import (
    BY_TIER,
    EVALUATION,
    SIGNIFICANCE,
    Scores,
    compared,
    evaluation_table,
    significance_table,
    tiers_table,
)
from sensikit.evaluation.shared import Made
from sensikit.files import safe_name
from sensikit.languages import chosen_groups
from sensikit.progress import progress
from sensikit.settings import EvaluationSettings
from sensikit.signature import signature
from sensikit.version import __version__

Opener = Callable[[], Model]

Unit = tuple[str, str, bool]
"""The label of a system, the key of a group, and whether it is translated or its loss taken: see `Translated.has`."""

SEED = 1
"""Of the noise that is denoised: every system sees the same."""


class Chosen(NamedTuple):
    """A checkpoint and a length penalty, and by what they were chosen.

    Attributes:
        checkpoint: what it is called.
        lenpen: of its translations.
        split: on which it had the highest BLEU, mean over groups.
        bleu: there.
        lenpens: that were chosen among.
    """

    checkpoint: str
    lenpen: float
    split: str
    bleu: float
    lenpens: Sequence[float]

    @property
    def among(self) -> str:
        """Return how it was chosen, for a signature."""
        return f"bleu/{self.split}/lenpen={'+'.join(f'{each:g}' for each in self.lenpens)}"

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {"name": self.checkpoint, "lenpen": self.lenpen, "split": self.split, "bleu": self.bleu}


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
    recipes: Mapping[str, Sequence[str]] | None = None,
    resume: bool = False,
    command: str = "",
    share: Share | None = None,
    everywhere: bool = False,
    choices: Mapping[str, Chosen] | None = None,
) -> Evaluation:
    """Translate what is not translated yet, score all; write and return evaluation.csv, tiers.csv, significance.csv.

    Every checkpoint is opened before the work begins, so a bad one is refused at once. A killed evaluation goes on with
    `resume` from the test set that it was in, and ends with the same bytes.

    >>> systems = {"regular": lambda: model, "distilled": lambda: other}
    >>> settings = EvaluationSettings(metrics=("bleu",), tokenizer="13a", bootstrap=100)
    >>> found = evaluate_systems(systems, folder / "evaluation", settings, groups=["cat", "fur"])
    >>> {name: len(table) for name, table in found.tables.items()}
    {'evaluation.csv': 4, 'tiers.csv': 6, 'significance.csv': 5}

    Args:
        systems: by label, how to open each: checkpoints of the same data, groups and direction.
        out: the evaluation directory.
        settings: see `EvaluationSettings`.
        groups: all by default.
        baseline: the label, or the recipe, that the others are tested against; the first by default.
        recipes: by name, the labels of systems that are training seeds of one recipe: each has rows of its own in the
            tables of scores, and the recipe one of their mean; tests are of recipes.
        resume: go on with what stands at `out`, or add systems, groups and metrics to it.
        command: as it was typed, for the record.
        share: which of several processes this is, all called alike. The first one writes the directory, and returns the
            tables; the others return none.
        everywhere: the others return the tables too, when all is measured; none if the first has ended before.
        choices: by label, what `choosing` has chosen: each system is translated with its own length penalty.

    Raises:
        OptionError: for labels, a baseline, groups, metrics or a task that do not exist.
        DataError: if a group has no test set, or systems do not belong together.
        RunError: if `out` exists (without `resume`), or was made of something else (with it).
    """
    settings = settings or EvaluationSettings()
    recipes = {name: list(seeds) for name, seeds in (recipes or {}).items()}
    baseline = baseline_of(list(systems), recipes, baseline)
    for metric in chosen(settings.scored):
        _signed(metric, settings)  # a tokenizer that does not exist is refused before the work begins
    facts = {"kind": KIND, **_facts(systems, settings, groups, choices or {}), "recipes": recipes, "baseline": baseline}
    facts |= {"command": command, "files": {}, "tables": {}}
    work = _work(out, share or Share(), facts, settings)
    if not work.share.leads:
        whole = _give(Translated(out, facts), systems, settings, work, everywhere)
        return Evaluation(facts, _tables(Translated.open(out), settings) if everywhere and whole else {})
    with Translated.begun(out, facts, resume) as folder:
        folder.save()
        _measure(folder, systems, settings, work)
        tables = _tables(folder, settings)
        for name, table in tables.items():
            folder.write_table(name, table)
        signed = _signature(folder, settings)
        folder.manifest |= {"signature": signed, "notes": _notes(folder, settings, signed)}
        folder.save()
        quality_tables.save(out / "tables", folder.manifest, tables)
    return Evaluation(folder.manifest, tables)


def baseline_of(systems: Sequence[str], recipes: Mapping[str, Sequence[str]], baseline: str | None) -> str:
    """Return what the others are tested against: the first of what is tested by default.

    Raises:
        OptionError: for labels that name no file, or a baseline that is none of them and no recipe.
    """
    _check_labels(systems)
    tested = compared(systems, recipes)
    baseline = tested[0] if baseline is None and tested else baseline
    if baseline not in tested:
        problem = "is one seed of a recipe" if baseline in systems else "is no label"
        raise OptionError("--baseline", f"{baseline} {problem}", f"choose among {', '.join(tested)}")
    return str(baseline)


def labels_of(checkpoints: Sequence[Path], labels: Sequence[str] = ()) -> list[str]:
    """Return what models are called: `labels`, or else their folders, with their own names where two share one.

    Raises:
        OptionError: if there is not one distinct label for each.
    """
    names = called(checkpoints, labels)
    if not labels and len(set(names)) < len(names):
        names = [named(path) for path in checkpoints]
    for name in names:
        if names.count(name) > 1:
            raise OptionError("--label", f"two checkpoints would be called {name}", "give one for each, all different")
    return names


def called(checkpoints: Sequence[Path], labels: Sequence[str] = ()) -> list[str]:
    """Return `labels`, of which there must be one for each model, or else the names of their folders."""
    if labels and len(labels) != len(checkpoints):
        raise OptionError("--label", f"there are {len(labels)} for {len(checkpoints)} checkpoints", "give one for each")
    return list(labels) or [(path.resolve().parent if is_file(path) else path).name for path in checkpoints]


def named(checkpoint: Path) -> str:
    """Return what a model is called by itself: FOLDER-FILE of a checkpoint, the name of a directory, or of the hub."""
    return f"{checkpoint.resolve().parent.name}-{checkpoint.stem}" if is_file(checkpoint) else checkpoint.name


def _check_labels(labels: Sequence[str]) -> None:
    """Refuse what is no part of a file's name."""
    for label in labels:
        if not label.strip() or label[0] in "=+-@" or len(label) > 100 or safe_name(label) != label:
            problem = f"{label[:100]!r} names files, and cells of tables"
            raise OptionError("--label", problem, "give a short one of letters, digits and dashes")


def _facts(
    systems: Mapping[str, Opener],
    settings: EvaluationSettings,
    groups: Sequence[str] | None,
    choices: Mapping[str, Chosen],
) -> dict[str, Any]:
    """Open every model; return what the manifest says of them, their data and groups."""
    first: Model | None = None
    noted: dict[str, dict[str, Any]] = {}
    for label, opener in systems.items():
        model = opener()
        task, origin = task_of(model, settings.task, SEED), model.provenance
        check_scored(settings.scored, model, settings.task, settings.split)
        if first is None:
            first, keys = model, chosen_groups(list(task.groups), groups)
            for key in keys:
                task.sizes(key, settings.split)  # a test set that is missing is refused here
        _check_alike(model, first, settings.task, noted)
        noted[label] = {
            "checkpoint": origin.checkpoint, "sha256": origin.checkpoint_sha256, "framework": origin.framework,
            **model.training, **({"chosen": choices[label].facts()} if choices else {}),
        }  # fmt: skip
    if first is None:
        raise OptionError("MODEL", "there is none", "give at least one")
    task = task_of(first, settings.task, SEED)
    return {
        "version": __version__,
        "direction": task.direction,
        "data": {"path": first.provenance.data, "sha256": first.provenance.data_sha256},
        "settings": {
            "task": settings.task,
            "noise": task.choices(),
            "split": settings.split,
            **asdict(settings.decoding),
            **({"lenpen": next(iter(choices.values())).among} if choices else {}),
        },
        "groups": {key: task.groups[key].facts() for key in keys},
        "systems": noted,
    }


def _check_alike(model: Model, first: Model, task: str, before: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a checkpoint that was given already, or whose test sets are not those of the first."""
    where, origin = model.provenance.checkpoint, model.provenance
    ours, theirs, other = task_of(model, task, SEED), task_of(first, task, SEED), first.provenance.checkpoint
    for label, facts in before.items():
        if facts["sha256"] == origin.checkpoint_sha256:
            raise OptionError(where, f"is the checkpoint of {label} once more", "give each checkpoint once")
    if ours.direction != theirs.direction:
        problem = f"translates {ours.direction} and {other} {theirs.direction}"
        raise OptionError(where, problem, "give a --direction that both were trained on")
    alone = sorted(set(ours.groups) ^ set(theirs.groups))
    if alone:
        problem = f"was trained on other languages than {other}: {', '.join(alone)} in one alone"
        raise DataError(where, problem, "evaluate them apart")
    if origin.data_sha256 != first.provenance.data_sha256:
        raise DataError(where, f"goes with other data than {other}", "evaluate them apart")


def _measure(folder: Translated, systems: Mapping[str, Opener], settings: EvaluationSettings, work: Work) -> None:
    """Translate every test set with every system, or take its loss, as far as it is needed and not there."""
    units, most = _units(folder.manifest, settings), settings.decoding.max_sentences
    todo = [number for number, unit in enumerate(units) if not folder.has(*unit)]
    make = _maker(folder, systems, settings)
    sizes = [_size(folder.manifest, units[number], settings) for number in todo]
    with work, progress(sum(min(size, most or size) for size in sizes) or None, "evaluating", "sentences") as bar:
        for number in todo:
            label, key, _ = units[number]
            part = work.take(number)
            made = make(units[number]) if part is None else Made.of(part)
            if made.translations:
                folder.keep(label, key, *made.translations)
                bar.advance(len(made.translations[0].hypotheses))
            if made.losses:
                folder.keep_losses(label, key, *made.losses)
                bar.advance(len(made.losses[0]))


def _maker(folder: Translated, systems: Mapping[str, Opener], settings: EvaluationSettings) -> Callable[[Unit], Made]:
    """Return what makes a unit; the model of the last one is kept."""

    @functools.lru_cache(maxsize=1)
    def opened(label: str) -> Model:
        model = systems[label]()
        if model.provenance.checkpoint_sha256 != folder.manifest["systems"][label]["sha256"]:
            raise RunError(model.provenance.checkpoint, "is being written", "evaluate a copy of it")
        return model

    def make(unit: Unit) -> Made:
        label, key, decodes = unit
        lenpen = folder.manifest["systems"][label].get("chosen", {}).get("lenpen", settings.decoding.lenpen)
        how = replace(settings, decoding=replace(settings.decoding, lenpen=lenpen))
        return Made.by(opened(label), how, key, [decodes], SEED)

    return make


# several processes: the unit is a test set of a system, translated or its loss taken


def _units(facts: Mapping[str, Any], settings: EvaluationSettings) -> list[Unit]:
    kinds = sorted({metric.decodes for metric in chosen(settings.scored)}, reverse=True)
    return [(label, key, kind) for label in facts["systems"] for key in facts["groups"] for kind in kinds]


def _size(facts: Mapping[str, Any], unit: Unit, settings: EvaluationSettings) -> int:
    """Return the sentences of a test set; 0 where nobody knows."""
    return facts["groups"][unit[1]]["sizes"].get(settings.split) or 0


def _work(out: Path, share: Share, facts: Mapping[str, Any], settings: EvaluationSettings) -> Work:
    units = _units(facts, settings)
    scope = {name: facts[name] for name in ("direction", "settings")} | {"data": facts["data"]["sha256"]}
    scope |= {"units": units, "systems": [system["sha256"] for system in facts["systems"].values()]}
    return Work(out, share, scope, dealt((_size(facts, unit, settings) or 1 for unit in units), share.size))


def _give(
    folder: Translated, systems: Mapping[str, Opener], settings: EvaluationSettings, work: Work, everything: bool
) -> bool:
    """Measure this process's units for the first one, see `Work.give`; return whether the folder is whole."""
    units, make = _units(folder.manifest, settings), _maker(folder, systems, settings)

    def left(mine: Collection[int]) -> list[int]:
        try:
            now = Translated.open(folder.path)
        except RunError:  # the first process has not begun it
            return [*mine]
        return [number for number in mine if not now.has(*units[number])]

    work.give(lambda number: make(units[number]).part(), left, everything)
    return not left(range(len(units)))


def _tables(folder: Translated, settings: EvaluationSettings) -> dict[str, pd.DataFrame]:
    """Return the tables of what was measured, by the names of their files."""
    scores, facts = _scored(folder, settings), folder.manifest
    tables = {EVALUATION.name: evaluation_table(scores), BY_TIER.name: tiers_table(scores)}
    if len(compared(list(facts["systems"]), facts["recipes"])) > 1:
        tables[SIGNIFICANCE.name] = significance_table(scores, facts["baseline"])
    return tables


def _scored(folder: Translated, settings: EvaluationSettings) -> Scores:
    systems, groups, metrics = list(folder.manifest["systems"]), folder.manifest["groups"], chosen(settings.scored)
    sets: dict[tuple[str, str, str], Scored] = {}
    values: dict[tuple[str, str, str], Sampled] = {}
    sentences = {}
    with progress(len(systems) * len(groups), "scoring", "test sets") as bar:
        for group in groups:
            of_group = {}
            for system in systems:
                for metric in metrics:
                    found, count = _test_set(folder, metric, system, group, settings)
                    of_group[metric.name, system, group], sentences[metric.name, group] = found, count
                bar.advance()
            values |= zip(of_group, resampled(list(of_group.values()), settings.bootstrap), strict=True)
            sets |= of_group
    return Scores(
        direction=folder.manifest["direction"],
        tiers={group: entry["tier"] for group, entry in groups.items()},
        signatures={metric.name: _signed(metric, settings) for metric in metrics},
        sentences=sentences,
        sets=sets,
        values=values,
        recipes=folder.manifest["recipes"],
        bootstrap=settings.bootstrap,
    )


def _test_set(
    folder: Translated, metric: Metric, system: str, group: str, settings: EvaluationSettings
) -> tuple[Scored, int]:
    """Return a test set, scored, and how many sentences it has."""
    if metric.decodes:
        hypotheses, references = folder.hypotheses(system, group), folder.references(group)
        sums = metric.sums(hypotheses, references, settings.tokenizer, settings.spm_model)
    else:
        sums = folder.losses(system, group)
    return metric.scored(folder.ids(system, group, metric.decodes), sums), len(sums)


def _signed(metric: Metric, settings: EvaluationSettings) -> str:
    return metric.signature(settings.bootstrap, settings.tokenizer, settings.spm_model)


def _signature(folder: Translated, settings: EvaluationSettings) -> str:
    origins = {folder.noted(system, group)["from"] for system, group in _translated(folder, settings)}
    how = settings.decoding.choices(settings.split, "+".join(sorted(origins)))
    if any("chosen" in facts for facts in folder.manifest["systems"].values()):
        how |= {"lenpen": "chosen" if "lenpen" in how else None, "chosen": folder.manifest["settings"]["lenpen"]}
    return signature(
        "E",
        task=settings.task,
        **folder.manifest["settings"]["noise"],
        dir=folder.manifest["direction"],
        **how,
        seg="+".join(folder.known_by),
        seed=SEED if folder.manifest["settings"]["noise"] else None,
        data=folder.manifest["data"]["sha256"][:8],
    )


def _notes(folder: Translated, settings: EvaluationSettings, signed: str) -> list[str]:
    alone = "own" in folder.known_by and len(folder.manifest["groups"]) > 1
    return [
        *[quality_tables.DECODED] * quality_tables.decoded(signed),
        *[INDEPENDENT] * alone,
        *(
            f"{system}: {best['name']} with length penalty {best['lenpen']:g}, the best in BLEU on {best['split']} "
            f"({best['bleu']:.2f})"
            for system, facts in folder.manifest["systems"].items()
            if (best := facts.get("chosen"))
        ),
        *(
            f"{system}, {group}: {count} sources longer than the model takes, translated in part"
            for system, group in _translated(folder, settings)
            if (count := folder.noted(system, group)["truncated"])
        ),
    ]


def _translated(folder: Translated, settings: EvaluationSettings) -> list[tuple[str, str]]:
    """Return (system, group) of all that was translated: everything, or nothing."""
    decodes = any(metric.decodes for metric in chosen(settings.scored))
    return [(system, group) for system in folder.manifest["systems"] for group in folder.manifest["groups"] if decodes]
