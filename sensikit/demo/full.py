"""Two systems of the paper on the demo's corpus, Regular and CD+ID, that differ in the method alone; side by side."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sensikit.demo import TOKENIZER, Recipe, analyzed, audited, prepared, pruned
from sensikit.progress import say


class System(NamedTuple):
    """What is trained, by its name in `recipes.METHODS`, and the tasks that it is then analysed in."""

    method: str
    tasks: tuple[str, ...]


SYSTEMS = {"Regular": System("regular", ("mt",)), "CD+ID": System("cd+id", ("mt", "denoise"))}
"""By label."""

DESIGN = """
--arch sensikit_small --dropout 0.2 --lr 0.004 --warmup-updates 150 --max-tokens 2048 --tokens-per-update 2048
--save-interval-updates 100 --validate-interval-updates 100 --log-interval 25
"""
"""The size, and as many tokens an update, of the demo's own model; over the small preset."""


def demo_full(
    out: str | Path = "demo-full", recipe: Recipe | None = None, command: str = "sensikit demo --full"
) -> Path:
    """Return the page that a full demo in `out` ends with; one that was killed goes on where it stopped.

    Both systems see the same sentence pairs in the same updates; CD+ID sees as many monolingual sentences beside them,
    and everything twice.

    Args:
        out: the directory: data/, training/METHOD/, evaluation/, runs/METHOD/, report.html.
        recipe: what it is made with.
        command: the command line, for the record.

    Raises:
        MissingDependencyError, OptionError, RunError: as `sensikit.demo.demo`.
    """
    out, recipe = Path(out), recipe or Recipe()
    started = time.monotonic()
    data = prepared(out, recipe, steps=6, full=DESIGN.split())
    say("2 of 6: training")
    checkpoints = {label: _trained(system.method, data, out, recipe, command) for label, system in SYSTEMS.items()}
    from sensikit.backends import open_model
    from sensikit.evaluation.systems import evaluate_systems
    from sensikit.evaluation.tables import text
    from sensikit.report.page import report
    from sensikit.settings import EvaluationSettings

    say("3 of 6: BLEU and chrF++ of both")
    openers = {label: partial(open_model, path, data) for label, path in checkpoints.items()}
    scored = EvaluationSettings(tokenizer=TOKENIZER)
    evaluation = evaluate_systems(openers, out / "evaluation", scored, resume=True, command=command)
    runs = []
    for label, system in SYSTEMS.items():
        model = openers[label]()
        say(f"4 of 6: how much each parameter of {label} matters to each language")
        runs.append(analyzed(model, out / "runs" / system.method, recipe, system.tasks, command))
        audited(runs[-1], model, recipe, command)
        say(f"5 of 6: pruning {label}")
        pruned(runs[-1], model, recipe)
    say("6 of 6: report")
    page = report([*(run.path for run in runs), out / "evaluation"], out, labels=[*SYSTEMS, "test"], command=command)
    say(text(evaluation.manifest, evaluation.tables))
    say(f"{(time.monotonic() - started) / 60:.1f} minutes")
    return page


def _trained(method: str, data: Path, out: Path, recipe: Recipe, command: str) -> Path:
    """Return the checkpoint of a system, which is trained, or trained on, if it is not finished."""
    import torch

    from sensikit.backends.fairseq.data import open_data
    from sensikit.backends.fairseq.plugin.launch import directions, start
    from sensikit.training import recipes

    where = open_data(data)
    flags = [*recipes.flags("small", method, *directions(where, "xxx-eng")), *DESIGN.split()]
    flags += ["--max-update", str(recipe.updates), "--seed", str(recipe.seed)]
    flags += [] if torch.cuda.is_available() else ["--cpu"]
    return start(where, out / "training" / method, flags, command, resume=True)
