"""`sensikit report`: all figures and tables of one or more runs, and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, shown side by side.")],
    out: Annotated[
        Path | None, typer.Option(help="Where figures/, tables/ and report.html go; by default the run itself.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="What to call a run; once for each, in order. By default its directory.")
    ] = None,
) -> None:
    """Draw the figures and tables of one or more runs, and write one page that holds them all."""
    from sensikit.report import report as write_report

    page = write_report(runs, out, labels=label or (), command=options.command_line())
    typer.echo(str(page))
