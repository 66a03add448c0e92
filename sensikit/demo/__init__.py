"""The whole path on a small real corpus: text, training, analysis, pruning, report, in a few minutes.

The text is in packages that pip installs: the gettext catalogues of django and wagtail. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from sensikit.demo import training
from sensikit.errors import MissingDependencyError, OptionError, RunError
from sensikit.files import read_json, write_json
from sensikit.progress import say

if TYPE_CHECKING:
    import pandas as pd

    from sensikit.backends.base import Model
    from sensikit.run import Run

NOTE = "demo.json"
TOKENIZER = "13a"
"""Of BLEU: sacreBLEU would fetch the model of the paper's."""
INSTALL = 'pip install "sensikit[demo]"'


@dataclass(frozen=True)
class Recipe:
    """Everything that a demo is made with.

    Attributes:
        packages: whose catalogues are read.
        languages: two that are close relatives, two that are not; the smallest has half as much text.
        vocab: pieces of SentencePiece.
        valid: pairs held out for validation, per language.
        test: pairs held out for the curves, per language.
        tiers: fewest training pairs of a High and of a Low language, on the scale of this corpus.
        updates: of training.
        batches: of each set that is analysed, at most.
        audited: parameters of each language that are ablated exactly.
        ratios: points of the pruning curves.
        orders: curves.
        seed: of everything.
    """

    packages: tuple[str, ...] = ("django", "wagtail")
    languages: tuple[str, ...] = ("cat", "glg", "isl", "ind")
    vocab: int = 2000
    valid: int = 60
    test: int = 120
    tiers: tuple[int, int] = (2000, 1500)
    updates: int = 700
    batches: int = 60
    audited: int = 200
    ratios: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    orders: tuple[str, ...] = ("specificity", "reverse", "random", "sensitivity")
    seed: int = 1


def demo(out: str | Path = "demo", recipe: Recipe | None = None, command: str = "sensikit demo") -> Path:
    """Return the page that a demo in `out` ends with; one that was killed goes on where it stopped.

    Args:
        out: the directory of the demo: data/, training/, run/, report.html.
        recipe: what it is made with.
        command: the command line, for the record.

    Raises:
        MissingDependencyError: if a package that has the text, or fairseq, is not installed.
        OptionError: if `out` is something else than a demo.
        RunError: if the demo in `out` was made with other settings or other versions.
    """
    out, recipe = Path(out), recipe or Recipe()
    started = time.monotonic()
    data = prepared(out, recipe, steps=5)
    checkpoint = out / "checkpoint.pt"
    if not checkpoint.exists():
        say("2 of 5: training")
        arguments = training.flags(recipe.languages, recipe.updates, recipe.seed)
        training.train(data / "bin", out / "training", arguments, recipe.updates).replace(checkpoint)
    from sensikit.backends import open_model
    from sensikit.report.page import report

    model = open_model(checkpoint, data)
    say("3 of 5: how much each parameter matters to each language")
    run = analyzed(model, out / "run", recipe, ("mt",), command)
    audited(run, model, recipe, command)
    say("4 of 5: pruning")
    table = pruned(run, model, recipe)
    say("5 of 5: report")
    page = report([run.path], out, labels=["demo"], command=command)
    unpruned = table[table["ratio"] == 0].set_index("language")["bleu"]
    say(f"BLEU: {', '.join(f'{code} {unpruned[code]:.1f}' for code in recipe.languages)}")
    say(f"{(time.monotonic() - started) / 60:.1f} minutes")
    return page


def prepared(out: Path, recipe: Recipe, steps: int, **more: object) -> Path:
    """Return the data directory of a demo in `out`, which is made if it is not there.

    Args:
        out: the directory of the demo.
        recipe: what it is made with.
        steps: of the whole demo, to be told of.
        more: noted beside the recipe.

    Raises:
        MissingDependencyError, OptionError, RunError: as `demo`.
    """
    logging.basicConfig(level=logging.WARNING)  # where nobody has, a module of fairseq's shows the debugging of all
    note = {**_note(recipe), **more}
    _check(out, note)
    places = [catalogues(package) for package in recipe.packages]
    write_json(out / NOTE, note)
    data = out / "data"
    if not data.exists():
        say(f"1 of {steps}: text of {', '.join(recipe.packages)}")
        _make_data(places, data, recipe)
    return data


def analyzed(model: Model, out: Path, recipe: Recipe, tasks: Sequence[str], command: str) -> Run:
    """Return the run in `out` with the analyses of some tasks; what is there is not done again."""
    from sensikit.sensitivity.analysis import analyze
    from sensikit.sensitivity.planning import Settings

    for task in tasks:
        settings = Settings(task=task, batches=recipe.batches, seed=recipe.seed)
        run = analyze(model, out, settings, resume=True, command=command)
    return run


def audited(run: Run, model: Model, recipe: Recipe, command: str) -> None:
    """Compare S of a run's first task with exact ablation; what is there is not done again."""
    from sensikit.sensitivity.ablation import SUMMARY, audit

    if not (run.path / SUMMARY.name).exists():
        audit(run, model, parameters=recipe.audited, command=command)


def pruned(run: Run, model: Model, recipe: Recipe) -> pd.DataFrame:
    """Return the pruning curves of a run; what is there is not done again."""
    from sensikit.pruning.sweep import SweepSettings, prune

    settings = SweepSettings(tokenizer=TOKENIZER)
    return prune(run, model, recipe.ratios, recipe.orders, seeds=(recipe.seed,), settings=settings, resume=True)


def catalogues(package: str) -> Path:
    """Return the directory of an installed package, which is not imported.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        problem = "is not installed, and the text of the demo is in its catalogues"
        raise MissingDependencyError(package, problem, INSTALL)
    return Path(found.submodule_search_locations[0])


def _note(recipe: Recipe) -> dict[str, object]:
    """Return what a demo is made with, as it is noted in it."""
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(recipe).items()}
    packages = {name: _version(name) for name in ("sensikit", *recipe.packages)}
    return {"format": 1, "recipe": settings, "packages": packages}


def _check(out: Path, note: dict[str, object]) -> None:
    """Refuse a place that holds something else than a demo made with the same."""
    if (out / NOTE).exists():
        if read_json(out / NOTE, RunError) != note:
            raise RunError(out / NOTE, "is of a demo with other settings or versions", "choose another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionError(f"--out {out}", "already exists and is no demo", "choose another --out")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _make_data(places: Sequence[Path], data: Path, recipe: Recipe) -> None:
    from sensikit.corpus import build

    build(
        places,
        data,
        languages=recipe.languages,
        vocab=recipe.vocab,
        seed=recipe.seed,
        valid=recipe.valid,
        test=recipe.test,
        tiers=recipe.tiers,
    )
