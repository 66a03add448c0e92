"""`sensikit demo`: the whole path on a small real corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensikit.progress import say

from .endings import Ending, command_line


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="The directory; what was killed goes on there.", show_default="demo, or demo-full"),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Regular and CD+ID, side by side; takes much longer.")] = False,
) -> Ending:
    """Train a small model on real text, analyse it, prune it and write a report: six minutes on two cores."""
    say("demo: a corpus, a model of it, its analysis and report: six minutes on two cores, or much longer with --full")
    from sensikit.demo import demo as run_demo
    from sensikit.demo.full import demo_full

    run = demo_full if full else run_demo
    page = run(out or Path("demo-full" if full else "demo"), command=command_line())
    return Ending([str(page)], {"report": page})
