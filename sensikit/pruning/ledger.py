"""The cells of a pruning sweep, and their ledger: a line for each that is decoded, which survives a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from sensikit.errors import RunError
from sensikit.files import read_json, unwritable, write_json
from sensikit.folder import Folder
from sensikit.tables import Schema

COMMANDS = "commands.json"
"""Beside the ledger, which must not depend on how often a sweep was begun."""


def _unpruned(frame: pd.DataFrame) -> str:
    """Say which curve lacks its start, from which the loss by pruning is counted."""
    of = ["evaluated" if "evaluated" in frame else "group", "metric"]
    starts = set(frame.loc[frame["order"] == "none", of].itertuples(index=False, name=None))
    lacking = [each for each in frame[of].itertuples(index=False, name=None) if each not in starts]
    return f"lacks the unpruned {lacking[0][1]} of {lacking[0][0]}" if lacking else ""


PRUNING = Schema(
    "pruning.csv", "Pruning curves", "prune",
    key=("order", "seed", "group", "ratio", "metric"),
    numbers=("seed", "ratio", "value", "value_low", "value_high", "pruned", "prunable", "sentences", "truncated",
             "mean_length_ratio"),
    text=("metric_signature", "signature", "hypotheses", "sha256"),
    # random orders alone have a seed, and the loss has no translations
    empty=("seed", "value_low", "value_high", "truncated", "mean_length_ratio", "hypotheses", "sha256"),
    problem=_unpruned,
)  # fmt: skip
"""Each group by itself, pruned in an order of its own."""

CROSS = replace(
    PRUNING, name="pruning-cross.csv", what="What pruning for one group does to the others", verb="cross",
    key=("order", "seed", "group", "evaluated", "ratio", "metric"), groups=("group", "evaluated"),
)  # fmt: skip
"""Pruned in the order of `group`, and `evaluated` scored."""


@dataclass(frozen=True)
class Cell:
    """One point of one curve. Ratio 0 is the same model in every order: it is decoded once, under the order "none".

    `other` is what is decoded where that is another language than the one whose order it is.
    """

    order: str
    seed: int | None
    language: str
    ratio: float
    other: str | None = None

    @property
    def evaluated(self) -> str:
        """The language that is decoded."""
        return self.other or self.language

    @property
    def file(self) -> str:
        """Where its hypotheses are kept, below the run."""
        seed = "" if self.seed is None else f".{self.seed}"
        pruned_by = f".by-{self.language}" if self.other else ""
        return f"hypotheses/{self.evaluated}.{self.order}{seed}.{float(self.ratio)!r}{pruned_by}.txt"

    @property
    def resamples(self) -> str:
        """Where its BLEU on each resample of the test sentences is kept, below the run."""
        return resamples_of(self.file)


def resamples_of(hypotheses: str) -> str:
    """Return where the resamples of a cell are kept, below the run, by where its hypotheses are."""
    return f"pruning/resamples/{Path(hypotheses).stem}.npy"


def cells(
    languages: Sequence[str],
    ratios: Sequence[float],
    orders: Sequence[str],
    seeds: Sequence[int],
    cross: bool = False,
) -> list[Cell]:
    """Return the cells of a sweep in the order they are decoded, each once: by language, then order, then ratio.

    With `cross`, every pruned model decodes every one of the languages, its own first.
    """
    found = []
    for language in languages:
        found.append(Cell("none", None, language, 0.0))
        others = [None, *(code for code in languages if cross and code != language)]
        for order in orders:
            for seed in seeds if order == "random" else (None,):
                for ratio in sorted(each for each in set(ratios) if each > 0):
                    found += [Cell(order, seed, language, ratio, other) for other in others]
    return list(dict.fromkeys(found))


class Ledger(Folder):
    """pruning/ledger.jsonl: one line per finished cell, added and flushed to disk before the next is begun.

    Attributes:
        manifest: the settings of all its cells.
        lines: of the cells.
    """

    KIND, VERB, FORMAT = "a pruning sweep", "prune", 2
    NOTE, ELSEWHERE = "settings.json", "move it away"

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        super().__init__(path, manifest)
        self.lines: dict[Cell, dict[str, Any]] = {}

    @property
    def file(self) -> Path:
        """Where the lines are."""
        return self.path / "ledger.jsonl"

    def take_up(self, facts: Mapping[str, Any]) -> None:
        """Go on with the lines of a sweep with the same settings.

        A last line that a kill cut short is dropped: its cell is decoded again.

        Raises:
            RunError: naming the first setting that differs, or the first line that is damaged.
        """
        super().take_up(facts)
        self.lines = _read_lines(self.file)

    def add(self, cell: Cell, line: dict[str, Any]) -> None:
        """Append a finished cell.

        Raises:
            SensikitError: if the disk is full; what was written of the line is dropped when the ledger is next opened.
        """
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.file, error) from error
        self.lines[cell] = line

    def table(self) -> pd.DataFrame:
        """Return the curves as a tidy table: the cells whose own language is decoded."""
        return _frame([line for cell, line in self.lines.items() if not cell.other], PRUNING)

    def cross_table(self) -> pd.DataFrame:
        """Return, as a tidy table, what every language loses where any one's order is pruned, and the unpruned model.

        An order and ratio is there once another language was decoded with it; its own language is there as well.
        """
        crossed = {(cell.order, cell.seed, cell.ratio) for cell in self.lines if cell.other}
        crossed |= {("none", None, 0.0)} if crossed else set()
        lines = [line for cell, line in self.lines.items() if (cell.order, cell.seed, cell.ratio) in crossed]
        return _frame(lines, CROSS)


def record(directory: Path, command: str) -> None:
    """Note a command line beside the ledger, once; which cells it made is not noted.

    Args:
        directory: of the ledger.
        command: as it was typed; empty where there is none.
    """
    noted = recorded(directory)
    if command and command not in noted:
        write_json(directory / COMMANDS, [*noted, command])


def recorded(directory: Path) -> list[str]:
    """Return the command lines that made a ledger, in order; none where it was made from Python.

    Raises:
        RunError: if their file is damaged.
    """
    path = directory / COMMANDS
    found = read_json(path, RunError) if path.exists() else []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise RunError(path, "is not a list of command lines", "remove it")
    return found


def _frame(lines: list[dict[str, Any]], schema: Schema) -> pd.DataFrame:
    return schema.frame(lines).astype({"seed": "Int64"})


def _read_lines(path: Path) -> dict[Cell, dict[str, Any]]:
    if not path.exists():
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        with path.open("rb+") as file:
            file.truncate(len(whole))
    found = {}
    for number, line in enumerate(whole.decode(errors="replace").splitlines(), start=1):
        try:
            entry = json.loads(line)
            other = entry["evaluated"] if entry["evaluated"] != entry["group"] else None
            found[Cell(entry["order"], entry["seed"], entry["group"], entry["ratio"], other)] = entry
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise RunError(f"{path}:{number}", "is not a line of a ledger", "remove the line and --resume") from error
    return found
