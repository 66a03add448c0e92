"""The whole path on a small real corpus: text, training, analysis, pruning, report, in six minutes on two cores.

The text is in packages that pip installs: the gettext catalogues of django and wagtail. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensikit.demo.partner import Step, free_port, launched, partner
from sensikit.distributed import Share
from sensikit.errors import MissingDependencyError
from sensikit.folder import Folder
from sensikit.progress import say

if TYPE_CHECKING:
    import pandas as pd

    from sensikit.backends.base import Model
    from sensikit.run import Run
    from sensikit.settings import Decoding

TOKENIZER = "13a"
"""Of BLEU: sacreBLEU would fetch the model of the paper's."""
INSTALL = 'pip install "sensikit[demo,fairseq]"'
DESIGN = """
--arch sensikit_small --dropout 0.1 --lr 0.004 --lr-scheduler cosine --max-tokens 512 --tokens-per-update 1024
--save-interval-updates 100 --validate-interval-updates 100 --log-interval 25
"""
"""Of every model, over the small preset: so few sentences want many small updates."""


class Demo(Folder):
    """The directory of a demo."""

    KIND, VERB, FORMAT = "a demo", "demo", 3
    NOTE = "demo.json"


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
        matched: points of the curves at equal sensitivity.
        seed: of everything.
    """

    packages: tuple[str, ...] = ("django", "wagtail")
    languages: tuple[str, ...] = ("cat", "glg", "isl", "ind")
    vocab: int = 2000
    valid: int = 60
    test: int = 120
    tiers: tuple[int, int] = (2000, 1500)
    updates: int = 700
    batches: int = 40
    audited: int = 100
    ratios: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    orders: tuple[str, ...] = ("specificity", "reverse", "random", "sensitivity")
    matched: tuple[float, ...] = (0.4,)
    seed: int = 1


def demo(out: str | Path = "demo", recipe: Recipe | None = None, command: str = "sensikit demo") -> Path:
    """Return the page that a demo in `out` ends with; one that was killed goes on where it stopped.

    Args:
        out: the directory of the demo: data/, training/regular/, run/, report.html, huggingface/, run-huggingface/.
        recipe: what it is made with.
        command: the command line, for the record.

    Raises:
        MissingDependencyError: if a package that has the text, or fairseq, is not installed.
        RunError: if `out` is something else than a demo, or one that was made with other settings or versions.
    """
    out, recipe = Path(out), recipe or Recipe()
    started = time.monotonic()
    where: dict[str, Any] = {"out": out, "recipe": recipe, "command": command}
    steps: dict[str, Step] = {
        "load": _load,
        "train": partial(_train, **where),
        "analyze": partial(_analyze, **where),
        "audit": partial(_audit, **where),
        "prune": partial(_prune, **where),
        "bridge": partial(_bridge, **where),
    }
    with prepared(out, recipe, ["regular"]), partner(out, steps) as second:
        second.begin("load")  # while this one makes the data
        data = text_of(out, recipe, steps=6)
        say("2 of 6: training")
        port = free_port()
        second.begin("train", port)
        checkpoint = trained("regular", data, out, recipe, command, second.share, port)
        from sensikit.backends import open_model
        from sensikit.report.page import report
        from sensikit.sensitivity.ablation import SUMMARY

        model = open_model(checkpoint, data)
        say("3 of 6: how much each parameter matters to each language")
        second.begin("analyze")
        run = analyzed(model, out / "run", recipe, ("mt",), command, second.share)
        if not (run.path / SUMMARY.name).exists():
            second.begin("audit")
            audited(run, model, recipe, command, second.share)
        say("4 of 6: pruning")
        second.begin("prune")
        table = pruned(run, model, recipe, second.share)
        say("5 of 6: report" + (", and beside it the next" if second else ""))
        second.begin("bridge")
        page = report([run.path], out, labels=["demo"], command=command)
        say("6 of 6: the same model as transformers loads it")
        say(second.answer() if second else bridged(run, model, data, out, command))
    unpruned = table[(table["ratio"] == 0) & (table["metric"] == "bleu")].set_index("group")["value"]
    say(f"BLEU: {', '.join(f'{code} {unpruned[code]:.1f}' for code in recipe.languages)}")
    say(f"{(time.monotonic() - started) / 60:.1f} minutes")
    return page


@contextlib.contextmanager
def prepared(out: Path, recipe: Recipe, methods: Sequence[str]) -> Iterator[None]:
    """Lock the directory of a demo while the block runs, with all that it needs at hand; nothing is made yet.

    Raises:
        MissingDependencyError, RunError: as `demo`.
    """
    packages = {name: _version(name) for name in ("sensikit", "ctranslate2", *recipe.packages)}
    facts = {"recipe": asdict(recipe), "packages": packages, "methods": methods, "design": DESIGN.split()}
    with Demo.begun(out, facts, resume=True) as folder:
        for package in recipe.packages:
            catalogues(package)
        _load(Share())
        folder.save()
        yield


def text_of(out: Path, recipe: Recipe, steps: int) -> Path:
    """Return the data directory of a demo, which is made if it is not there, as the first of so many steps."""
    data = out / "data"
    if not data.exists():
        say(f"1 of {steps}: text of {', '.join(recipe.packages)}")
        _make_data([catalogues(package) for package in recipe.packages], data, recipe)
    return data


def trained(
    method: str, data: Path, out: Path, recipe: Recipe, command: str, share: Share | None = None, port: int = 0
) -> Path:
    """Return the checkpoint of a system of a demo, which is trained, or trained on, if it is not finished.

    Several processes, all called alike and each with its `share`, do a part of every update; they meet at `port`.
    """
    import torch

    from sensikit.backends.fairseq.data import open_data
    from sensikit.backends.fairseq.plugin.launch import directions, start
    from sensikit.training import recipes

    where = open_data(data)
    flags = [*recipes.flags("small", method, *directions(where, "xxx-eng")), *DESIGN.split()]
    flags += ["--max-update", str(recipe.updates), "--warmup-updates", str(recipe.updates // 5)]
    flags += ["--seed", str(recipe.seed)]
    flags += [] if torch.cuda.is_available() else ["--cpu"]
    with launched(share or Share(), port):
        return start(where, out / "training" / method, flags, command, resume=True)


def analyzed(
    model: Model, out: Path, recipe: Recipe, tasks: Sequence[str], command: str, share: Share | None = None
) -> Run:
    """Return the run in `out` with the analyses of some tasks; what is there is not done again."""
    from sensikit.sensitivity.analysis import analyze
    from sensikit.settings import AnalysisSettings

    for task in tasks:
        settings = AnalysisSettings(task=task, batches=recipe.batches, seed=recipe.seed)
        run = analyze(model, out, settings, resume=True, command=command, share=share)
    return run


def audited(run: Run, model: Model, recipe: Recipe, command: str, share: Share | None = None) -> None:
    """Compare S of a run's first task with exact ablation; what is there is not done again."""
    from sensikit.sensitivity.ablation import SUMMARY, audit

    if not (run.path / SUMMARY.name).exists():
        audit(run, model, parameters=recipe.audited, command=command, share=share)


def pruned(run: Run, model: Model, recipe: Recipe, share: Share | None = None) -> pd.DataFrame:
    """Return the pruning curves of a run; what is there is not done again."""
    from sensikit.pruning.sweep import prune
    from sensikit.settings import SweepSettings

    settings = SweepSettings(tokenizer=TOKENIZER, decoding=decoding())
    how: dict[str, Any] = {"seeds": (recipe.seed,), "settings": settings, "resume": True, "share": share}
    table = prune(run, model, recipe.ratios, recipe.orders, **how)
    if recipe.matched:
        table = prune(run, model, recipe.matched, ("matched", "matched-random"), **how)
    return table


def decoding() -> Decoding:
    """Return how test sets are translated: by CTranslate2, several times as fast, where it is installed."""
    from sensikit.settings import Decoding

    return Decoding(engine="ctranslate2" if _version("ctranslate2") else "own")


# steps of the second process


def _load(share: Share) -> None:
    from sensikit.backends.fairseq import compat

    compat.load()


def _train(share: Share, port: int, out: Path, recipe: Recipe, command: str) -> None:
    trained("regular", out / "data", out, recipe, command, share, port)


def _analyze(share: Share, out: Path, recipe: Recipe, command: str) -> None:
    analyzed(_model(out), out / "run", recipe, ("mt",), command, share)


def _audit(share: Share, out: Path, recipe: Recipe, command: str) -> None:
    audited(_run(out), _model(out), recipe, command, share)


def _prune(share: Share, out: Path, recipe: Recipe, command: str) -> None:
    pruned(_run(out), _model(out), recipe, share)


def _bridge(share: Share, out: Path, recipe: Recipe, command: str) -> str:
    return bridged(_run(out), _model(out), out / "data", out, command)


@functools.lru_cache(maxsize=1)
def _model(out: Path) -> Model:
    from sensikit.backends import open_model
    from sensikit.backends.fairseq.plugin.launch import best

    return open_model(best(out / "training" / "regular"), out / "data")


def _run(out: Path) -> Run:
    from sensikit.run import Run

    return Run.open(out / "run")


def bridged(run: Run, model: Model, data: Path, out: Path, command: str) -> str:
    """Return how far S of the model is from itself as a Hugging Face directory, a sentence.

    The two smallest languages are measured on it, on the batches of the run; what is there is not done again. Where
    transformers is not installed, the sentence says that.
    """
    from sensikit.backends import open_model
    from sensikit.pruning.export import convert
    from sensikit.sensitivity.analysis import analyze
    from sensikit.settings import AnalysisSettings

    place, analysis, sizes = out / "huggingface", run.analysis(), run.manifest["groups"]
    groups = sorted(run.groups(), key=lambda group: sizes[group]["sizes"]["train"])[:2]
    try:
        if not place.exists():
            convert(model, place)
        exported = open_model(place, data, run.manifest["direction"])
    except MissingDependencyError as error:
        return f"Left out: {error}"
    settings = AnalysisSettings(**{**analysis["settings"], "tokens": analysis["tokens"], "rest": "pooled"})
    found = analyze(exported, out / "run-huggingface", settings, groups=groups, resume=True, command=command)
    apart = largest = 0.0
    for group in groups:
        for (one,), (other,) in zip(*(each.stream([each.vector("mt", group)]) for each in (run, found)), strict=True):
            apart, largest = max(apart, float(abs(one - other).max())), max(largest, float(one.max()))
    noted = [[each.manifest["sets"][f"mt/{group}"]["drawn"] for group in groups] for each in (run, found)]
    batches = "the same" if noted[0] == noted[1] else "other"  # where SentencePiece's and transformers' cuts differ
    return f"S of {' and '.join(groups)} on {batches} batches: apart by at most {apart / largest:.0e} of the largest"


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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _make_data(places: Sequence[Path], data: Path, recipe: Recipe) -> None:
    from sensikit.corpus import build

    build(
        places, data, languages=recipe.languages, vocab=recipe.vocab, seed=recipe.seed, valid=recipe.valid,
        test=recipe.test, tiers=recipe.tiers,
    )  # fmt: skip
