"""`sensikit demo`: the whole path on a small real corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def demo(
    out: Annotated[Path, typer.Option(help="The directory of the demo; what was killed goes on there.")] = Path("demo"),
) -> None:
    """Train a small model on real text, analyse it, prune it and write a report, in a few minutes."""
    from sensikit.demo import demo as run_demo

    typer.echo(str(run_demo(out, command=options.command_line())))
