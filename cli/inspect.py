"""`sensikit inspect`: what is inside a model."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .endings import Ending


def inspect(
    checkpoint: options.Checkpoint,
    revision: Annotated[
        str | None, typer.Option(help="Of a model on the Hugging Face hub: a branch, tag or commit.")
    ] = None,
) -> Ending:
    """Show what a model holds, without running anything inside it: languages, parameters, ties, memory needed."""
    from dataclasses import asdict

    from sensikit.backends import inspect as look
    from sensikit.backends.inspection import describe

    contents = look(checkpoint, revision)
    return Ending([describe(contents)], asdict(contents))
