"""The cells of a pruning sweep, and their ledger: a line for each cell and metric, which survives a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from sensikit.errors import RunError
from sensikit.files import read_json, unwritable, write_json
from sensikit.folder import Folder
from sensikit.tables import Schema

UNPRUNED = "none"
"""The order of ratio 0, which is the same model in every order."""

SEEDED = ("random", "matched-random")
"""The orders that there is one of for each seed."""

COMMANDS = "commands.json"
"""Beside the ledger, which must not depend on how often a sweep was begun."""


def _unpruned(frame: pd.DataFrame) -> str:
    """Say which curve lacks its start, from which the loss by pruning is counted."""
    of = ["evaluated" if "evaluated" in frame else "group", "metric"]
    starts = set(frame.loc[frame["order"] == UNPRUNED, of].itertuples(index=False, name=None))
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


LINE = (*CROSS.columns, "mask", "test_set", "sums", "sums_sha256")
"""Of a line of the ledger: the columns of both tables, what is pruned, the identity of the sentences, their sums."""

LATER = ("decoding", "tokenizer")
"""Settings that are noted once something is translated, and once there is BLEU."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One point of one curve. Ratio 0 is the same model in every order: it is scored once, under the order "none".

    `other` is what is scored where that is another group than the one whose order it is.
    """

    order: str
    seed: int | None
    group: str
    ratio: float
    other: str | None = None

    @property
    def evaluated(self) -> str:
        """The group that is scored."""
        return self.other or self.group

    @property
    def hypotheses(self) -> str:
        """Where its translations are kept, below the run."""
        return f"hypotheses/{self._name}.txt"

    def sums(self, metric: str) -> str:
        """Return where its sums over sentences are kept, below the run."""
        return f"pruning/sums/{self._name}.{metric}.npy"

    @property
    def _name(self) -> str:
        seed = "" if self.seed is None else f".{self.seed}"
        pruned_by = f".by-{self.group}" if self.other else ""
        return f"{self.evaluated}.{self.order}{seed}.{float(self.ratio)!r}{pruned_by}"


def cells(
    groups: Sequence[str],
    ratios: Sequence[float],
    orders: Sequence[str],
    seeds: Sequence[int],
    cross: bool = False,
) -> list[Cell]:
    """Return the cells of a sweep in the order they are scored, each once: by group, then order, then ratio.

    With `cross`, every pruned model is scored on every one of the groups, its own first.
    """
    found = []
    for group in groups:
        found.append(Cell(UNPRUNED, None, group, 0.0))
        others = [None, *(key for key in groups if cross and key != group)]
        for order in orders:
            for seed in seeds if order in SEEDED else (None,):
                for ratio in sorted(each for each in set(ratios) if each > 0):
                    found += [Cell(order, seed, group, ratio, other) for other in others]
    return list(dict.fromkeys(found))


class Ledger(Folder):
    """pruning/ledger.jsonl: a line for each finished cell and metric, on disk before the next cell is begun.

    Attributes:
        manifest: the settings of all its cells.
        lines: by cell and metric.
    """

    KIND, VERB, FORMAT = "a pruning sweep", "prune", 3
    NOTE, ELSEWHERE = "settings.json", "move it away"

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        super().__init__(path, manifest)
        self.lines: dict[tuple[Cell, str], Line] = {}

    @property
    def file(self) -> Path:
        """Where the lines are."""
        return self.path / "ledger.jsonl"

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Return the ledger at `path`; nothing is touched.

        Raises:
            RunError: if there is none, or it is damaged.
        """
        found = super().open(path)
        found.lines = _read_lines(found.file)
        return found

    def take_up(self, facts: Mapping[str, Any]) -> None:
        """Go on with the lines of a sweep with the same settings; those that it has not needed yet are added.

        A last line that a kill cut short is dropped: its cell is scored again.

        Raises:
            RunError: naming the first setting that differs.
        """
        super().take_up(facts)
        self.manifest |= facts
        if self.file.exists():
            with self.file.open("rb+") as file:
                file.truncate(len(_whole(self.file)))

    def compared(self, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Yield what must be the same in a sweep that is resumed."""
        for name, value in facts.items():
            if name in self.manifest or name not in LATER:
                yield name, self.manifest.get(name), value

    def missing(self, cell: Cell, metrics: Sequence[str]) -> list[str]:
        """Return those of some metrics that a cell has no line of."""
        return [metric for metric in metrics if (cell, metric) not in self.lines]

    def alike(self, cell: Cell, mask: str, metric: str) -> Line | None:
        """Return a line of the very model that `cell` is, scored on the same group: cells that share it, share it all.

        Args:
            cell: that has no line of its own yet.
            mask: the digest of what is pruned.
            metric: of the line.
        """
        wanted = (cell.evaluated, mask, metric)
        found = (line for line in self.lines.values() if (line["evaluated"], line["mask"], line["metric"]) == wanted)
        return next(found, None)

    def add(self, cell: Cell, lines: Sequence[Line]) -> None:
        """Append a finished cell, in one or more metrics.

        Raises:
            SensikitError: if the disk is full; what was written of a line is dropped when the ledger is next opened.
        """
        text = "".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in lines)
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.file, error) from error
        self.lines |= {(cell, line["metric"]): line for line in lines}

    def table(self) -> pd.DataFrame:
        """Return the curves as a tidy table: the cells whose own group is scored."""
        return _frame([line for (cell, _), line in self.lines.items() if not cell.other], PRUNING)

    def cross_table(self) -> pd.DataFrame:
        """Return, as a tidy table, what every group loses where any one's order is pruned, and the unpruned model.

        An order and ratio is there, in one metric, once another group was scored with it; its own group is there too.
        """
        crossed = {(cell.order, cell.seed, cell.ratio, metric) for cell, metric in self.lines if cell.other}
        crossed |= {(UNPRUNED, None, 0.0, metric) for *_, metric in crossed}
        lines = [
            line
            for (cell, metric), line in self.lines.items()
            if (cell.order, cell.seed, cell.ratio, metric) in crossed
        ]
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


def _read_lines(path: Path) -> dict[tuple[Cell, str], Line]:
    found = {}
    for number, line in enumerate(_whole(path).decode(errors="replace").splitlines(), start=1):
        try:
            entry = json.loads(line)
            other = entry["evaluated"] if entry["evaluated"] != entry["group"] else None
            cell = Cell(entry["order"], entry["seed"], entry["group"], entry["ratio"], other)
            found[cell, entry["metric"]] = {name: entry[name] for name in LINE}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise RunError(f"{path}:{number}", "is not a line of a ledger", "remove the line and --resume") from error
    return found


def _whole(path: Path) -> bytes:
    """Return the whole lines of a ledger, which may not be there yet: a kill can cut its last one short."""
    text = path.read_bytes() if path.exists() else b""
    return text[: text.rfind(b"\n") + 1]
