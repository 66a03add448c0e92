"""Tables: how a tidy table is declared, read and refused, and how a small one is printed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.errors import RunError, printable
from sensikit.files import open_file, write_text

PAIR = ("group_a", "group_b")

NOTHING = "–"

P_VALUE = "p"
"""How a p is printed: with four digits, and as `<0.0001` where these would say zero."""

_AGAIN = {"cross": "prune --cross --resume", "denoise": "analyze --task denoise --resume", "audit": "audit"}


@dataclass(frozen=True)
class Schema:
    """A tidy table, declared once, beside the function that makes it.

    >>> shares = Schema("shares.csv", "Shares", "analyze", key=("group",), numbers=("share",))
    >>> shares.frame([("cat", 0.25), ("fao", 0.75)])
      group  share
    0   cat   0.25
    1   fao   0.75

    Attributes:
        name: of its file.
        what: the table in words.
        verb: that makes it: analyze, denoise (analyze of that task), audit, prune, cross (prune --cross), or evaluate.
        key: the first columns, whose values no two rows share; text, unless they are among `numbers`.
        numbers: columns of finite numbers.
        text: the other columns.
        empty: columns whose cells may be empty.
        groups: columns that name groups.
        statistics: which every (task, group) must have in the column `statistic`.
        problem: says what else is wrong with the rows; nothing if they are right.
    """

    name: str
    what: str
    verb: str
    key: tuple[str, ...]
    numbers: tuple[str, ...]
    text: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("group",)
    statistics: tuple[str, ...] = ()
    problem: Callable[[pd.DataFrame], str] = lambda frame: ""

    @property
    def columns(self) -> list[str]:
        """Return all columns in the order of the file: those of the key, then numbers, then text."""
        return list(dict.fromkeys((*self.key, *self.numbers, *self.text)))

    @property
    def again(self) -> str:
        """Return the command that makes the table again."""
        return f"sensikit {_AGAIN.get(self.verb, f'{self.verb} --resume')}"

    def frame(self, rows: Any) -> pd.DataFrame:
        """Return rows (tuples in the order of the columns, mappings, or a frame) as a frame of the declared columns."""
        return pd.DataFrame(rows, columns=self.columns)

    def read(self, path: Path, groups: Collection[str]) -> pd.DataFrame:
        """Return the table at `path`, checked: numbers as numbers, text printable, no group but these.

        Raises:
            RunError: with the line or column at fault.
        """
        remedy = f"it is damaged; remove it and make it again with {self.again}"
        try:
            if not path.is_file():
                raise RunError(path, "is not a file", remedy)
            frame = read_csv(path, set(self.columns) - set(self.numbers))
        except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OSError) as error:
            raise RunError(path, "is not a table", remedy) from error
        missing = [column for column in self.columns if column not in frame]
        if missing:
            raise RunError(path, f"lacks the column {missing[0]}", remedy)
        if frame.empty:
            raise RunError(path, "has no rows", remedy)
        for column in self.columns:
            values, wrong = _checked(frame[column], column in self.numbers, column in self.empty)
            if wrong.any():
                line = int(np.argmax(wrong))
                value = frame[column].iloc[line]
                problem = f"has {'nothing' if pd.isna(value) else value} for {column}"
                raise RunError(f"{path}:{line + 2}", problem, remedy)
            frame[column] = values
        for column in self.groups:
            strange = [key for key in frame[column].dropna() if key not in groups]
            if strange:
                raise RunError(path, f"names {strange[0]}, which is no group of the manifest", remedy)
        twice = frame[frame.duplicated(list(self.key))]
        if len(twice):
            raise RunError(f"{path}:{twice.index[0] + 2}", "repeats an earlier line", remedy)
        problem = self.problem(frame) or _lacking(frame, self.statistics)
        if problem:
            raise RunError(path, problem, remedy)
        return frame


def _checked(found: pd.Series[Any], number: bool, empty: bool) -> tuple[pd.Series[Any], NDArray[np.bool_]]:
    """Return a column as finite numbers or printable text, and which of its cells are neither."""
    if not number:
        return found.map(printable, na_action="ignore"), found.isna().to_numpy() & (not empty)
    values: pd.Series[Any] = pd.to_numeric(found, errors="coerce")
    if not pd.api.types.is_integer_dtype(values):  # whole numbers stay whole: what is read may be written again
        values = values.astype(float)
    return values, ~np.isfinite(values.to_numpy()) & (found.notna().to_numpy() | (not empty))


def _lacking(frame: pd.DataFrame, statistics: Sequence[str]) -> str:
    if statistics:
        for (_, group), rows in frame.groupby(["task", "group"]):
            lacking = [name for name in statistics if name not in set(rows["statistic"])]
            if lacking:
                return f"lacks the statistic {lacking[0]} of {group}"
    return ""


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def csv_of(frame: pd.DataFrame) -> str:
    """Return a frame as CSV. Text that a spreadsheet would take for a formula has a ' before it, as `read_csv` knows.

    >>> print(csv_of(pd.DataFrame({"name": ["=1+1", "'tis", "-"], "change": [-0.5, 1.0, 2.0]})))
    name,change
    '=1+1,-0.5
    'tis,1.0
    '-,2.0
    <BLANKLINE>
    """

    def kept(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value

    return _mapped(frame, kept).rename(columns=kept).to_csv(index=False)


def read_csv(path: Path, texts: Collection[str] = ()) -> pd.DataFrame:
    """Return what `csv_of` wrote; `texts` are columns of text even where they look like numbers."""
    with open_file(path) as file:
        frame = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(texts, str))

    def whole(value: Any) -> Any:
        return value[1:] if isinstance(value, str) and value[0] == "'" and _FORMULA.match(value) else value

    return _mapped(frame, whole)


def _mapped(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """Return a frame with every cell of its columns that are not numbers changed."""
    frame = frame.copy()
    for name, column in frame.items():
        if not pd.api.types.is_numeric_dtype(column):
            frame[name] = column.map(change, na_action="ignore")
    return frame


@dataclass(frozen=True)
class Table:
    """A table to be read by people: columns under the headings that are shown, in order.

    >>> print(Table(pd.DataFrame({"Group": ["cat", "fao"], "PCC": [0.95312, None]}), {"PCC": ".3f"}).shown())
      Group    PCC
    0   cat  0.953
    1   fao      –

    Attributes:
        frame: the cells.
        formats: how the numbers of a column are printed.
        marks: what stands behind the cells of a column wherever it is printed, one for each row.
    """

    frame: pd.DataFrame
    formats: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def shown(self) -> pd.DataFrame:
        """Return every cell as it is printed; what is missing is a dash."""

        def text(value: Any, format_: str) -> str:
            if pd.isna(value):
                return NOTHING
            if format_ == P_VALUE:
                return format(value, ".4f") if value >= 0.00005 else "<0.0001"
            return format(value, format_)

        columns = {
            name: [text(v, self.formats.get(name, "")) for v in self.frame[name]] for name in map(str, self.frame)
        }
        for name, marks in self.marks.items():
            columns[name] = [cell + mark for cell, mark in zip(columns[name], marks, strict=True)]
        return pd.DataFrame(columns, columns=list(self.frame.columns))

    def numeric(self) -> list[bool]:
        """Return which columns hold numbers: those are set flush right."""
        return [pd.api.types.is_numeric_dtype(kind) for kind in self.frame.dtypes]

    def save(self, stem: Path, notes: Sequence[str]) -> list[Path]:
        """Write `stem`.csv (full precision), .txt and .tex (as printed; booktabs), and return their paths.

        The `notes` (caption, signatures, command) stand under the text and, as comments, above the LaTeX.
        """
        shown, notes = self.shown(), [" ".join(note.split()) for note in notes]
        alignment = "".join("r" if number else "l" for number in self.numeric())
        latex = shown.to_latex(index=False, escape=True, column_format=alignment)
        for sign, name in (("<", "less"), (">", "greater")):  # which the default fonts print as ¡ and ¿
            latex = latex.replace(sign, rf"\text{name}{{}}")
        texts = {
            "csv": csv_of(self.frame),
            "txt": "\n".join([shown.to_string(index=False), "", *notes, ""]),
            "tex": "".join(f"% {note}\n" for note in notes) + latex,
        }
        paths = []
        for kind, text in texts.items():
            path = stem.with_name(f"{stem.name}.{kind}")
            write_text(path, text)
            paths.append(path)
        return paths
