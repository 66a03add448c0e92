"""`sensikit sweep`: a list of checkpoints through analyze and prune, one after the other, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .analyze import analyze
from .prune import prune


def sweep(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints that were trained on --data.")],
    data: options.Data,
    out: Annotated[Path, typer.Option(help="A folder: one run directory below it for each checkpoint.")],
    direction: options.Direction = None,
    languages: options.Languages = None,
    batches: Annotated[int, typer.Option(help="As in analyze.")] = 500,
    tokens: Annotated[int | None, typer.Option(help="As in analyze.")] = None,
    ratios: Annotated[str, typer.Option(help="As in prune.")] = "0:0.9:0.1",
    order: Annotated[str, typer.Option(help="As in prune.")] = "specificity,random",
    max_sentences: Annotated[int | None, typer.Option(help="As in prune.")] = None,
    tokenizer: Annotated[str, typer.Option(help="As in prune.")] = "spm",
    spm_model: Annotated[Path | None, typer.Option(help="As in prune.")] = None,
    device: options.Device = "auto",
) -> None:
    """Run analyze and prune on each checkpoint; call it again to go on where it stopped.

    A run directory is named after its checkpoint's folder and file.
    """
    from sensikit.errors import OptionError

    names = [f"{path.resolve().parent.name}-{path.stem}" for path in checkpoints]
    if len(set(names)) < len(names):
        raise OptionError("CHECKPOINT", "two would have the same run directory", "rename a folder, or sweep them apart")
    for checkpoint, name in zip(checkpoints, names, strict=True):
        typer.echo(f"{checkpoint} → {out / name}", err=True)
        analyze(
            checkpoint,
            data,
            out / name,
            direction=direction,
            languages=languages,
            batches=batches,
            tokens=tokens,
            device=device,
            resume=True,
        )
        prune(
            out / name,
            ratios=ratios,
            order=order,
            languages=languages,
            max_sentences=max_sentences,
            tokenizer=tokenizer,
            spm_model=spm_model,
            device=device,
            resume=True,
        )
