"""`sensikit report`: all figures and tables of runs and evaluations, and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensikit.settings import ReportSettings

from .endings import Ending, command_line


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="What analyze and evaluate wrote; several runs stand side by side."),
    ],
    settings: ReportSettings,
    out: Annotated[
        Path | None, typer.Option(help="Where figures/, tables/ and report.html go; by default the one PATH.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="What to call a PATH; once for each, in order. By default its directory.")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="ID=a,b,c: those runs are training seeds of one recipe, which is compared and drawn as one."),
    ] = None,
) -> Ending:
    """Draw the figures and tables that runs and evaluations support, and write one page that holds them all."""
    from sensikit.report.page import report as write_report

    page = write_report(paths, out, labels=label or (), groups=group or (), settings=settings, command=command_line())
    return Ending([str(page)], {"report": page})
