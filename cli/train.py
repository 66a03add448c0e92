"""`sensikit train`: one of the paper's systems, by fairseq."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def train(
    data: Annotated[Path, typer.Argument(help="What `sensikit corpus` wrote, or a fairseq data directory.")],
    out: Annotated[Path, typer.Option(help="The directory of the run: checkpoints, log.jsonl, recipe.json.")],
    method: Annotated[
        str, typer.Option(help="regular, id, dae, dae+mlm, mass, cd, cd+id, or table4-1 … table4-8.")
    ] = "regular",
    direction: Annotated[str, typer.Option(help="xxx-eng, eng-xxx or both.")] = "xxx-eng",
    preset: Annotated[
        str, typer.Option(help="Hyper-parameters: small, paper-m8, paper-m15, released-m8, released-m15.")
    ] = "small",
    arch: Annotated[str | None, typer.Option(help="tiny, small, base, big or big12; by default the preset's.")] = None,
    updates: Annotated[int | None, typer.Option(min=1, help="Updates in all; by default the preset's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything drawn; by default the preset's.")] = None,
    resume: options.Resume = False,
    flags: Annotated[
        list[str] | None, typer.Argument(help="After --, any flag of fairseq-train: -- --lr 0.001 --id-k 3.")
    ] = None,
) -> None:
    """Train a translation model, with self-supervision and intra-distillation as the method has them."""
    from sensikit.errors import OptionError
    from sensikit.training import recipes

    for option, value, known in (
        ("--method", method, recipes.METHODS),
        ("--direction", direction, ("xxx-eng", "eng-xxx", "both")),
        ("--preset", preset, recipes.PRESETS),
        ("--arch", arch or "tiny", recipes.SIZES),
    ):
        if value not in known:
            raise OptionError(option, f"{value!r} is unknown", f"give one of {', '.join(known)}")
    import torch

    from sensikit.backends.fairseq.data import open_data
    from sensikit.backends.fairseq.plugin.launch import directions, start

    where = open_data(data)
    given = recipes.flags(preset, method, *directions(where, direction))
    given += ["--arch", f"sensikit_{arch}"] if arch else []
    given += ["--max-update", str(updates)] if updates else []
    given += ["--seed", str(seed)] if seed is not None else []
    given += [] if torch.cuda.is_available() else ["--cpu"]
    typer.echo(str(start(where, out, [*given, *(flags or [])], options.command_line(), resume)))
