"""What a verb ends with: its main numbers, in words and as data, and the command that comes next."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sensikit.errors import printable

if TYPE_CHECKING:
    import pandas as pd

    from sensikit.tables import Table


@dataclass(frozen=True)
class Ending:
    """The result of a verb.

    Attributes:
        lines: what is printed, each a line or several.
        data: the same and more, as --json prints it.
        following: the command that comes next; empty where there is none.
    """

    lines: list[str]
    data: dict[str, Any] = field(default_factory=dict)
    following: str = ""

    def show(self, verb: str, as_json: bool) -> None:
        """Print it: in words, or as one JSON object with the verb and `next`."""
        if as_json:
            typer.echo(json_of({"verb": verb, **self.data, "next": self.following or None}))
        else:
            tell("\n".join([*self.lines, *([f"Next: {self.following}"] if self.following else [])]))


def tell(text: object) -> None:
    """Print lines that may hold names of unknown origin: no sign of them steers the terminal."""
    typer.echo("\n".join(map(printable, str(text).split("\n"))))


def json_of(value: Any) -> str:
    """Return a value as JSON that can be shown: what no terminal should see is escaped, and nothing is lost.

    Numbers have all their digits; those that are not finite are null.
    """
    text = json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    return "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it; a frame as its rows."""
    if hasattr(value, "to_dict"):
        return [_plain(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    found = value.item() if hasattr(value, "item") else value  # numpy's own
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    return found if isinstance(found, bool | int | str) else None  # pandas's NA


def shown(title: str, table: Table) -> str:
    """Return a table under its title, with an empty line after it."""
    return f"{title}\n\n{table.shown().to_string(index=False)}\n"


def frames(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return tables by the names of their files without .csv."""
    return {name.removesuffix(".csv"): frame for name, frame in tables.items()}


def command(verb: str, *words: object) -> str:
    """Return the command of a verb, as a shell takes it."""
    return shlex.join(["sensikit", verb, *map(str, words)])


def kept(*options: str) -> list[str]:
    """Return those of `options` that were typed, each with its value, as they were typed."""
    found: list[str] = []
    typed = iter(typed_words())
    for word in typed:
        if word == "--":
            break
        if word in options:
            found += [word, next(typed, "")]
        elif word.partition("=")[0] in options:
            found.append(word)
    return found


SILENT = ("--json", "--quiet")
"""Flags of every verb that move nothing that is written: no record has them."""


def typed_words() -> list[str]:
    """Return the words after the program's name, without the --share of this process and what only shows things."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    found, typed = [], iter(sys.argv[1:end])
    for word in typed:
        if word == "--share":
            next(typed, "")
        elif word not in SILENT and not word.startswith("--share="):
            found.append(word)
    return found + sys.argv[end:]


def command_line() -> str:
    """Return the command as it was typed, with what --config added, without the path of the program."""
    return shlex.join(["sensikit", *typed_words()])
