"""Options that more than one verb has, and what they are turned into."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Option("--data", help="What `sensikit corpus` wrote, or a fairseq data directory.")]
Direction = Annotated[str | None, typer.Option(help="xxx-eng or eng-xxx; by default the one that was trained.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Languages = Annotated[str | None, typer.Option(help="Comma-separated codes; all by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an earlier call left.")]


def names(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated list; None stays None."""
    return [part.strip() for part in text.split(",") if part.strip()] if text is not None else None


def command_line() -> str:
    """Return the command as it was typed, without the path of the program."""
    return shlex.join(["sensikit", *sys.argv[1:]])
