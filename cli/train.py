"""`sensikit train`: one of the paper's systems, by fairseq."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sensikit.settings import SEEDS, Options, option
from sensikit.training import recipes

from . import options
from .endings import Ending, command, command_line


@dataclass(frozen=True)
class System(Options):
    """What is trained."""

    method: str = option("regular", "the system of the paper.", choices=tuple(recipes.METHODS))
    direction: str = option("xxx-eng", "of translation.", choices=("xxx-eng", "eng-xxx", "both"))
    preset: str = option("small", "hyper-parameters.", choices=tuple(recipes.PRESETS))
    arch: str | None = option(None, "the size; by default the preset's.", choices=tuple(recipes.SIZES))
    updates: int | None = option(None, "Updates in all; by default the preset's.", least=1, most=10**9)
    dtype: str = option("fp32", "of the passes (autocast); weights and sums are fp32.", choices=("fp32", "bf16"))
    seed: int | None = option(None, "Of every random choice; by default the preset's.", least=0, most=SEEDS)
    keep: int | None = option(
        None,
        "Checkpoints that are kept beside checkpoint_best.pt, for `sensikit evaluate --choose-on valid`: that one has "
        "the lowest validation loss, which is not the best translation (measured: 2 BLEU less than a later one).",
        least=1,
        most=10**6,
    )


def train(
    data: Annotated[Path, typer.Argument(help="What `sensikit corpus` wrote, or a fairseq data directory.")],
    out: Annotated[Path, typer.Option(help="The directory of the run: checkpoints, log.jsonl, recipe.json.")],
    system: System,
    resume: options.Resume = False,
    flags: Annotated[
        list[str] | None, typer.Argument(help="After --, any flag of fairseq-train: -- --lr 0.001 --id-k 3.")
    ] = None,
) -> Ending | None:
    """Train a translation model, with self-supervision and intra-distillation as the method has them."""
    import torch

    from sensikit.backends.fairseq.data import open_data
    from sensikit.backends.fairseq.plugin.launch import directions, start
    from sensikit.backends.fairseq.plugin.log import validated
    from sensikit.distributed import Share

    process, where = Share.given(), open_data(data)
    given = recipes.flags(system.preset, system.method, *directions(where, system.direction))
    asked = {
        "--arch": system.arch and f"sensikit_{system.arch}",
        "--max-update": system.updates,
        "--dtype": system.dtype if system.dtype != "fp32" else None,
        "--seed": system.seed,
        "--keep-interval-updates": system.keep,
    }
    given += [word for flag, value in asked.items() if value is not None for word in (flag, str(value))]
    given += [] if torch.cuda.is_available() else ["--cpu"]
    best = start(where, out, [*given, *(flags or [])], command_line(), resume)
    if not process.leads:
        return None
    valid = validated(out)
    lines = [str(best)]
    if valid:
        lines.append(f"validation loss {valid['loss']:.3f} at update {valid['num_updates']:.0f}, the best")
    direction = ["--direction", system.direction] if system.direction != "both" else []
    several = len(kept := sorted(out.glob("checkpoint_*_*.pt"))) > 1
    chosen = [*kept, "--choose-on", "valid", "--lenpens", "1,1.5,2"] if several else [best]
    following = command("evaluate", *chosen, "--data", data, *direction, "--out", "EVALUATION")
    return Ending(lines, {"checkpoint": best, "out": out, "validation": valid}, following)
