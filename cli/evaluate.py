"""`sensikit evaluate`: the quality of one or more models, by group and tier, with paired tests."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from sensikit.errors import OptionError
from sensikit.settings import Choice, EvaluationSettings, read_recipes

from . import options
from .endings import Ending, command, command_line, frames, kept


def evaluate(
    checkpoints: options.Checkpoints,
    data: options.Data,
    settings: EvaluationSettings,
    choice: Choice,
    opening: options.Opening,
    out: Annotated[
        Path | None, typer.Option(help="Where tables and translations go; by default they are only printed.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="What to call a model; once for each, in order. By default the directory, or a file's folder. "
            "With --choose-on, one is chosen of those that are called alike."
        ),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="The label that others are tested against: the first.")] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="ID=a,b,c: those labels are training seeds of one recipe, and tests are of the recipe."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="mt, denoise or lm: whose sentences are scored; by default that of the first model."),
    ] = None,
    resume: options.Resume = False,
    share: options.Shared = None,
) -> Ending | None:
    """Score the test sets with each model, translated where the metric needs it, and test the differences."""
    from sensikit.backends import first_task
    from sensikit.distributed import Share
    from sensikit.evaluation.choosing import candidates, evaluate_chosen
    from sensikit.evaluation.systems import evaluate_systems, labels_of
    from sensikit.evaluation.tables import text

    if resume and out is None:
        raise OptionError("--resume", "goes on with an --out, and there is none", "give the one that was begun")
    process = Share.given(share)
    if process.size > 1 and out is None:
        raise OptionError("--out", "is where several processes find each other, and there is none", "give one")
    settings = replace(settings, task=task or first_task(checkpoints[0], opening.loading.revision))
    how: dict[str, Any] = {"groups": opening.groups, "baseline": baseline, "resume": resume}
    how |= {"command": command_line(), "share": process}
    with contextlib.ExitStack() as stack:
        place = out or Path(stack.enter_context(TemporaryDirectory()))
        if choice.choose_on:
            of = candidates(checkpoints, label or ())
            systems = {
                name: {each: partial(opening.open, path, data) for each, path in those} for name, those in of.items()
            }
            how["recipes"] = read_recipes(group or (), list(of))
            lenpens = choice.penalties(settings.decoding.lenpen)
            found = evaluate_chosen(systems, place, settings, choice.choose_on, lenpens, **how)
        else:
            names = labels_of(checkpoints, label or ())
            openers = {name: partial(opening.open, path, data) for name, path in zip(names, checkpoints, strict=True)}
            how["recipes"] = read_recipes(group or (), names)
            found = evaluate_systems(openers, place, settings, **how)
    if not process.leads:
        return None
    facts: dict[str, Any] = {
        name: found.manifest[name] for name in ("direction", "baseline", "signature", "notes") if name in found.manifest
    }
    again = command("analyze", checkpoints[0], "--data", data, "--out", "RUN", *kept(*options.spellings(opening)))
    following = again if out is None else command("report", out)
    return Ending([text(found.manifest, found.tables)], {"out": out, **facts, **frames(found.tables)}, following)
