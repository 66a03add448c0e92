"""What a report is made from: the manifests and tidy tables of run and evaluation directories, checked."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from sensikit.errors import DamagedError, OptionError, RunError, SensikitError, printable
from sensikit.evaluation.folder import KIND, Translated
from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.scoring import BY_TIER, EVALUATION, SIGNIFICANCE, compared
from sensikit.files import read_json
from sensikit.progress import progress
from sensikit.pruning.curves import curve_bands, curve_tests
from sensikit.pruning.ledger import CROSS, PRUNING, UNPRUNED, Ledger, recorded
from sensikit.pruning.scorers import SCORERS
from sensikit.run import MIXED, Run
from sensikit.sensitivity.ablation import AUDIT, SUMMARY
from sensikit.sensitivity.analysis import LAYOUT
from sensikit.settings import ReportSettings, read_recipes
from sensikit.statistics.comparison import check_comparable, correlation_difference
from sensikit.statistics.results import BY_TASK, OF_BOTH_TASKS

TABLES = {schema.name: schema for schema in (*BY_TASK, *OF_BOTH_TASKS, LAYOUT, AUDIT, SUMMARY, PRUNING, CROSS)}
"""The tables of a run directory, by the names of their files."""

SCORES = {schema.name: schema for schema in (EVALUATION, BY_TIER, SIGNIFICANCE)}
"""The tables of an evaluation directory; with one system there is nothing to compare."""


@dataclass(frozen=True)
class Subject:
    """One run of a report: what to call it, the run, those of its tables that exist, the commands that pruned it."""

    label: str
    path: str
    run: Run
    tables: dict[str, pd.DataFrame]
    prunings: tuple[str, ...] = ()

    @property
    def manifest(self) -> dict[str, Any]:
        """What was measured, of what, how."""
        return self.run.manifest


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a report: what to call it, its manifest and its tables."""

    label: str
    path: str
    manifest: dict[str, Any]
    tables: dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Comparison:
    """The second of two runs, or recipes, minus the first, in one task: a table, or why there is none.

    A recipe stands here as its first run or, where there is no table, as the one that cannot be compared, by its name.
    """

    first: Subject
    second: Subject
    task: str
    table: pd.DataFrame | None
    problem: str = ""


@dataclass(frozen=True)
class Curves:
    """The noise of the pruning curves: bands and paired tests (see `curve_tests`), and the runs that have none."""

    bands: pd.DataFrame | None = None
    tests: pd.DataFrame | None = None
    lacking: tuple[Subject, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """The runs and evaluations of a report, their groups together, and each tidy table of all runs that have it.

    The tables have a column `run` where the report is of several runs, and `recipe` where some are training seeds of
    one: its name, or the label of a run that stands alone.
    """

    subjects: list[Subject]
    groups: dict[str, dict[str, Any]]
    tables: dict[str, pd.DataFrame]
    evaluations: list[Evaluated] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    recipes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: ReportSettings = field(default_factory=ReportSettings)

    @property
    def labels(self) -> list[str]:
        """What a report is named after: its recipes and other runs or, where it has none, its evaluations."""
        return compared([subject.label for subject in self.subjects], self.recipes) or [
            each.label for each in self.evaluations
        ]


def gather(
    paths: Sequence[Path], labels: Sequence[str] = (), compare: bool = False, groups: Sequence[str] = ()
) -> Inputs:
    """Return what a report of some run and evaluation directories is made from.

    Args:
        paths: of the directories, in the order they are shown.
        labels: what to call them; by default the names of the directories, with the parent's where two are the same.
        compare: compare every later run with the first, and pruning curves with each other, from what the runs store.
        groups: "ID=a,b,c" for each recipe: which runs, by their labels, are training seeds of it and compared as one.

    Raises:
        RunError: if one is no such directory, is given twice, or has a damaged manifest or table.
        OptionError: if there is not one distinct label for each, or a group is not of such runs.
    """
    names = _labels(paths, labels)
    opened = [_opened(path, label) for path, label in zip(paths, names, strict=True)]
    subjects = [each for each in opened if isinstance(each, Subject)]
    evaluations = [each for each in opened if isinstance(each, Evaluated)]
    recipes = read_recipes([printable(text) for text in groups], [subject.label for subject in subjects])
    of = {run: name for name, those in recipes.items() for run in those}
    languages: dict[str, dict[str, Any]] = {}
    for each in opened:
        for key, group in each.manifest["groups"].items():
            languages.setdefault(key, group)
    tables = {}
    for name in TABLES:
        known = [(subject.label, subject.tables[name]) for subject in subjects if name in subject.tables]
        if known:
            several = len(subjects) > 1
            frames = [frame.assign(run=label) if several else frame for label, frame in known]
            tables[name] = pd.concat(frames, ignore_index=True)
            if recipes:
                tables[name]["recipe"] = tables[name]["run"].map(lambda label: of.get(label, label))
    found = Inputs(subjects, languages, tables, evaluations, recipes=recipes)
    if not compare:
        return found
    return replace(found, comparisons=_comparisons(subjects, recipes), curves=_curves(subjects, recipes))


def _comparisons(subjects: Sequence[Subject], recipes: Mapping[str, Sequence[str]]) -> list[Comparison]:
    """Compare every later run or recipe with the first, in the tasks that all have; what cannot be compared says why.

    Those over training seeds come first: they say more.
    """
    by_label = {subject.label: subject for subject in subjects}
    sides = [(name, [by_label[run] for run in recipes.get(name, [name])]) for name in compared(list(by_label), recipes)]
    todo = [(sides[0], other, task) for other in sides[1:] for task in subjects[0].run.tasks
            if all(task in each.run.tasks for each in (*sides[0][1], *other[1]))]  # fmt: skip
    todo.sort(key=lambda each: len(each[0][1]) + len(each[1][1]) == 2)
    found: list[Comparison] = []
    if not todo:
        return found

    first = sides[0][1][0]
    comparable = {task: [each.run for each in subjects if each is not first and _comparable(first.run, each.run, task)]
                  for task in first.run.tasks}  # fmt: skip
    with progress(len(todo), "comparison", "pairs of runs") as bar:
        for (name, ours), (other, theirs), task in todo:
            culprit = theirs[0]
            try:
                for check in (_check_alike, _check_vectors):  # that vectors are gone is the lesser reason
                    for subject in (*ours, *theirs):
                        culprit = culprit if subject is first else subject
                        check(first.run, subject.run, task)
                one, two = ([each.run for each in side] for side in (ours, theirs))
                table = correlation_difference(one, two, task, comparable[task])
                found.append(Comparison(replace(first, label=name), replace(theirs[0], label=other), task, table))
            except DamagedError:
                raise
            except SensikitError as error:
                problem = printable(f"{error.where} {error.problem}")
                ends = replace(first, label=name), replace(culprit, label=other)
                found.append(Comparison(*ends, task, None, problem))
            bar.advance()
    return found


def _comparable(first: Run, other: Run, task: str) -> bool:
    """Return whether the border between the subsets is drawn from a run too: what it is of, and its vectors there."""
    try:
        _check_alike(first, other, task)
        _check_vectors(first, other, task)
    except SensikitError:
        return False
    return True


def _check_alike(first: Run, run: Run, task: str) -> None:
    """Refuse a run that does not say of which batches its sensitivities are, or was not analysed as the first."""
    for code in run.groups(task):
        noted = run.manifest["sets"][f"{task}/{code}"]
        if not isinstance(noted.get("drawn"), str) or not isinstance(noted.get("block_batches"), list):
            raise RunError(run.path, f"does not say of which batches {task}/{code} is", "analyze again")
    check_comparable(first, run, task)


def _check_vectors(_: Run, run: Run, task: str) -> None:
    """Refuse a run that no longer has its sensitivities; one that lacks some of them is damaged, another matter."""
    paths = [run.vector(task, code, kind) for code in run.groups(task) for kind in ("", "half", "blocks")]
    if not any(map(os.path.lexists, paths)):
        raise RunError(paths[0], "is missing", "measure it again: analyze --resume")


def _curves(subjects: Sequence[Subject], recipes: Mapping[str, Sequence[str]]) -> Curves:
    """Test the curves of those runs that keep the scores of their resamples."""
    swept = [subject for subject in subjects if _pruned(subject)]
    lacking = []
    for subject in swept:
        try:
            curve_bands({subject.label: subject.run})
        except DamagedError:
            raise
        except SensikitError:
            lacking.append(subject)
    runs = {subject.label: subject.run for subject in swept if subject not in lacking}
    if not runs:
        return Curves(lacking=tuple(lacking))
    labels = [subject.label for subject in swept]
    seeds = {name: [run for run in those if run in labels] for name, those in recipes.items()}
    # a recipe of which only a part can be tested is not what is drawn
    partly = {run for those in seeds.values() if not set(those) <= set(runs) for run in those}
    runs = {label: run for label, run in runs.items() if label not in partly}
    whole = {name: those for name, those in seeds.items() if those and not partly & set(those)}
    return Curves(curve_bands(runs, whole), curve_tests(runs, whole), tuple(lacking))


def _pruned(subject: Subject) -> bool:
    frame = subject.tables.get(PRUNING.name)
    return frame is not None and bool((frame["order"] != UNPRUNED).any())


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_printable(key): _printable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_printable(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _labels(paths: Sequence[Path], labels: Sequence[str]) -> list[str]:
    """Return what the directories are called, each by another name."""
    places = [path.resolve() for path in paths]
    if len(set(places)) < len(places):
        raise RunError(max(paths, key=paths.count), "is given twice", "give each run once")
    if labels and len(labels) != len(paths):
        raise OptionError("--label", f"there are {len(labels)} for {len(paths)} runs", "give one for each run")
    names = list(map(printable, labels or [place.name for place in places]))
    if not labels and len(set(names)) < len(names):
        names = [printable(f"{place.parent.name}/{place.name}") for place in places]
    if len(set(names)) < len(names):
        problem = "two runs would have the same name"
        raise OptionError("--label", problem, "name them with --label, once for each run")
    return names


def _opened(path: Path, label: str) -> Subject | Evaluated:
    manifest = path / "manifest.json"
    if manifest.is_file() and _kind(manifest) == KIND:
        return _evaluated(path, label)
    run = Run.open(path)
    for name, entry in run.manifest["sets"].items():
        if type(entry.get("tokens_mean")) not in (int, float):
            raise RunError(manifest, f"lacks the tokens of {name}", "it is damaged; analyze again")
    tables = run.tables(TABLES.values(), {*run.manifest["groups"], MIXED})
    for name, frame in tables.items():
        _known(path / name, frame, "task", run.tasks)
        _known(path / name, frame, "order", [UNPRUNED, *SCORERS])
        _known(path / name, frame, "metric", METRICS)
    ledger = Ledger(path / "pruning", {})
    if os.path.lexists(ledger.file) or os.path.lexists(ledger.path / ledger.NOTE):
        Ledger.open(ledger.path).check()
    run.manifest = _printable(run.manifest)
    return Subject(label, printable(str(path)), run, tables, tuple(map(printable, recorded(path / "pruning"))))


def _known(path: Path, frame: pd.DataFrame, column: str, names: Collection[str]) -> None:
    """Refuse a table whose column names something that does not exist."""
    strange = sorted(set(frame.get(column, ())) - set(names))
    if strange:
        raise RunError(path, f"names {strange[0]}, which is no {column}", "it is damaged; remove it and make it again")


def _kind(manifest: Path) -> str:
    found = read_json(manifest, RunError)
    return str(found.get("kind", "")) if isinstance(found, dict) else ""


def _evaluated(path: Path, label: str) -> Evaluated:
    folder = Translated.open(path)
    if not isinstance(folder.manifest.get("signature"), str) or not isinstance(folder.manifest.get("notes"), list):
        raise RunError(path, "was not finished", "finish it: evaluate --resume")
    tables, manifest = folder.tables(SCORES.values(), folder.manifest["groups"]), _printable(folder.manifest)
    for name in (EVALUATION.name, BY_TIER.name):
        if name not in tables:
            raise RunError(path, f"has no {name}", "finish it: evaluate --resume")
    for name, frame in tables.items():
        for column in ("system", "system_a", "system_b"):
            _known(path / name, frame, column, {*manifest["systems"], *manifest["recipes"]})
        _known(path / name, frame, "metric", METRICS)
    folder.check(tables[EVALUATION.name]["metric"].unique())
    return Evaluated(label, printable(str(path)), manifest, tables)
