"""`sensikit export`: the mask of a pruned model, and the model itself in its own framework's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensikit.settings import PROTECT

from . import options


def export(
    run: Annotated[Path, typer.Argument(help="What `sensikit analyze` wrote.")],
    group: Annotated[str, typer.Option("--group", "--language", help="The group whose order it is.")],
    ratio: Annotated[float, typer.Option(help="Pruned / prunable parameters.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write; without the optimizer's state.")],
    origin: options.Origin,
    mask: Annotated[Path | None, typer.Option(help="A safetensors file to write: true where pruned.")] = None,
    order: Annotated[str, typer.Option(help="One of those of prune.")] = "specificity",
    seed: Annotated[int, typer.Option(help="Of the random order.")] = 1,
    protect: Annotated[float, typer.Option(help="Share with the highest S(θ,B_l) that is never pruned.")] = PROTECT,
) -> None:
    """Write the checkpoint of a run with the parameters that an order prunes set to zero."""
    from sensikit.pruning.export import export as run_export
    from sensikit.pruning.masks import Order
    from sensikit.run import Run

    found = Run.open(run)
    chosen = Order(order, group, seed if order == "random" else None, protect, found.tasks[0])
    done = run_export(found, origin.open(found), chosen, ratio, out, mask)
    typer.echo(f"{out}: {done.pruned} of {done.prunable} prunable parameters are zero")
    typer.echo(done.signature)
