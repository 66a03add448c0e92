"""`sensikit inspect`: what is inside a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="A fairseq checkpoint; nothing inside it is run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a checkpoint holds, without running anything inside it: languages, parameters, ties, memory needed."""
    import json
    from dataclasses import asdict

    from sensikit.backends.fairseq.inspection import describe
    from sensikit.backends.fairseq.inspection import inspect as look

    contents = look(checkpoint)
    typer.echo(json.dumps(asdict(contents), indent=1, ensure_ascii=False) if as_json else describe(contents))
