"""`sensikit inspect`: what is inside a model."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def inspect(
    checkpoint: options.Checkpoint,
    revision: Annotated[
        str | None, typer.Option(help="Of a model on the Hugging Face hub: a branch, tag or commit.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a model holds, without running anything inside it: languages, parameters, ties, memory needed."""
    from dataclasses import asdict

    from sensikit.backends import inspect as look
    from sensikit.backends.inspection import describe

    contents = look(checkpoint, revision)
    options.tell(options.json_of(asdict(contents)) if as_json else describe(contents))
