"""`sensikit sweep`: a list of models through analyze and prune, one after the other, resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sensikit.errors import OptionError
from sensikit.progress import say
from sensikit.settings import MemorySettings

from . import options
from .analyze import Analyses, analyze
from .endings import Ending, command
from .prune import Curves, prune

BESIDE_RANDOM = Curves(order=("specificity", "random"))


def sweep(
    checkpoints: options.Checkpoints,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="A folder: one run directory below it for each model.")],
    opening: options.Opening,
    analyses: Analyses,
    memory: MemorySettings,
    curves: Curves = BESIDE_RANDOM,
    train_split: Annotated[str, typer.Option(help="Whose sentences the batches of analyze are made of.")] = "train",
    share: options.Shared = None,
) -> Ending:
    """Run analyze and prune on each model; call it again to go on where it stopped.

    A run directory is named after the model's directory, or after a file and the folder that it is in.
    """
    from sensikit.backends import first_task
    from sensikit.evaluation.systems import named
    from sensikit.pruning.sweep import check_asked, parse_ratios

    if memory.shard > 1:
        raise OptionError("--shard", "is of analyze alone: prune takes a model in one piece", "leave it out")
    names = [named(path) for path in checkpoints]
    if len(set(names)) < len(names):
        raise OptionError("MODEL", "two would have the same run directory", "rename a folder, or sweep them apart")
    # what prune would refuse is told before hours of analyze
    task = analyses.task[0] if analyses.task else first_task(checkpoints[0], opening.loading.revision)
    check_asked(parse_ratios(curves.ratios), curves.order, range(curves.seeds), replace(curves.settings, task=task))
    origin = options.Origin(device=opening.device)
    endings = {}
    for checkpoint, name in zip(checkpoints, names, strict=True):
        say(f"{checkpoint} → {out / name}")
        how = opening, analyses, memory, train_split
        analysed = analyze(checkpoint, data, out / name, *how, resume=True, share=share)
        swept = prune(out / name, curves, options.Groups(opening.groups), origin, resume=True, share=share)
        if analysed and swept:
            endings[name] = (analysed, swept)
    lines = [line for name, (one, other) in endings.items() for line in (f"{name}\n", *one.lines, *other.lines)]
    data_of = {name: one.data | other.data for name, (one, other) in endings.items()}
    return Ending(lines, {"runs": data_of}, command("report", *(out / name for name in names), "--out", "PAGE"))
