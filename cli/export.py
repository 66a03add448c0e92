"""`sensikit export`: a pruned model and its mask, or a fairseq checkpoint as transformers loads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sensikit.settings import AMONG, PROTECT, SEEDS, Options, option

from . import options
from .endings import Ending


@dataclass(frozen=True)
class Pruned(Options):
    """What goes."""

    group: str | None = option(None, "The group whose order it is.", names=("--group", "--language"))
    ratio: float | None = option(None, "Pruned / prunable parameters.", least=0, most=1)
    order: str = option("specificity", "One of those of prune.")
    seed: int = option(1, "Of the random order.", least=0, most=SEEDS)
    protect: float = option(PROTECT, "Share with the highest S(θ,B_l) that is never pruned.", least=0, below=1)
    protect_among: str = option(AMONG[0], "parameters, that it is a share of; the authors' code: all.", choices=AMONG)


def export(
    source: Annotated[
        Path, typer.Argument(help="What `sensikit analyze` wrote; or a fairseq checkpoint, to convert it.")
    ],
    out: Annotated[Path, typer.Option(help="The checkpoint (without the optimizer's state) or directory to write.")],
    origin: options.Origin,
    what: Pruned,
    form: Annotated[
        str, typer.Option("--format", help="native, huggingface: the model's own, or what transformers loads.")
    ] = "native",
    mask: Annotated[Path | None, typer.Option(help="A safetensors file to write: true where pruned.")] = None,
) -> Ending:
    """Write a model with the parameters that an order prunes set to zero, or convert a whole fairseq checkpoint."""
    from sensikit.errors import OptionError
    from sensikit.pruning.export import convert
    from sensikit.pruning.export import export as run_export
    from sensikit.pruning.ledger import SEEDED
    from sensikit.pruning.masks import Order
    from sensikit.run import Run

    group, ratio = what.group, what.ratio
    if group is None and ratio is None and mask is None and form == "huggingface":
        if origin.data is None:
            raise OptionError("--data", "is needed to convert a checkpoint", "or give --group and --ratio of a run")
        signed = convert(options.Opening(device=origin.device).open(source, origin.data), out)
        return Ending([f"{out}: the whole model, for transformers", signed], {"out": out, "signature": signed})
    if group is None or ratio is None:
        missing = "--group" if group is None else "--ratio"
        raise OptionError(missing, "is missing", "a whole checkpoint goes with --format huggingface alone")
    found = Run.open(source)
    seed = what.seed if what.order in SEEDED else None
    chosen = Order(what.order, group, seed, what.protect, found.tasks[0], what.protect_among)
    done = run_export(found, origin.open(found), chosen, ratio, out, mask, form)
    lines = [f"{out}: {done.pruned} of {done.prunable} prunable parameters are zero", done.signature]
    facts = {"out": out, "mask": mask, "pruned": done.pruned, "prunable": done.prunable, "signature": done.signature}
    return Ending(lines, facts)
