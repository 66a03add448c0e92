"""The cells of a pruning sweep, and their ledger: a line for each cell and metric, which survives a kill.

No line is believed unread: it has its own hash, and its value is that of the sums that it names.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from sensikit.errors import DamagedError, RunError
from sensikit.evaluation.metrics import LENGTHS, METRICS
from sensikit.evaluation.resampling import load_ids, load_sums
from sensikit.files import lines, open_file, read_json, safe_name, seal_of, unwritable, write_json, write_text
from sensikit.folder import SEAL, Folder
from sensikit.progress import say
from sensikit.tables import Schema, csv_of

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
             *LENGTHS),
    text=("metric_signature", "signature", "hypotheses", "sha256"),
    # random orders alone have a seed, and the loss has no translations
    empty=("seed", "value_low", "value_high", "truncated", *LENGTHS, "hypotheses", "sha256"),
    problem=_unpruned,
)  # fmt: skip
"""Each group by itself, pruned in an order of its own."""

CROSS = replace(
    PRUNING, name="pruning-cross.csv", what="What pruning for one group does to the others", verb="cross",
    key=("order", "seed", "group", "evaluated", "ratio", "metric"), groups=("group", "evaluated"),
)  # fmt: skip
"""Pruned in the order of `group`, and `evaluated` scored."""


LINE = (*CROSS.columns, "mask", "test_set", "sums", "sums_sha256")
"""Of a line of the ledger: the columns of both tables, what is pruned, the segments' identities, and the sums."""

SEGMENTS = "pruning/segments"
"""Below the run: the identities of the segments of each test set, in a file that is named after them."""

AGAIN = "score it again: prune --resume"
"""What mends a line, or what it names."""

_NUMBERS = ("ratio", "value", "value_low", "value_high", "pruned", "prunable", "sentences")

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
        return safe_name(f"{self.evaluated}.{self.order}{seed}.{float(self.ratio)!r}{pruned_by}")


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


Key = tuple[Cell, str]
"""A cell and a metric."""


class Ledger(Folder):
    """pruning/ledger.jsonl: a line for each finished cell and metric, on disk before the next cell is begun.

    Attributes:
        manifest: the settings of all its cells.
        lines: by cell and metric, those that are whole.
        problems: what is wrong with the others.
    """

    KIND, VERB, FORMAT = "a pruning sweep", "prune", 4
    NOTE, ELSEWHERE = "settings.json", "move it away"
    FIELDS: ClassVar[Mapping[str, type]] = {"task": str, "split": str, "bootstrap": int}

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        super().__init__(path, manifest)
        self.lines: dict[Key, Line] = {}
        self.problems: list[DamagedError] = []
        self._slots: list[Key | None] = []  # of every line of the file; none where nobody can tell

    @property
    def file(self) -> Path:
        """Where the lines are."""
        return self.path / "ledger.jsonl"

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Return the ledger at `path`; nothing is touched.

        Raises:
            RunError: if there is none, or one of its lines is damaged.
        """
        found = cls.taken(Path(path))
        if found.problems:
            raise found.problems[0]
        return found

    @classmethod
    def taken(cls, path: Path) -> Self:
        """Return the ledger at `path` with its `problems`."""
        found, seen = super().open(path), set[Key | None]()
        for number, text in enumerate(_whole(found.file).decode(errors="replace").splitlines(), start=1):
            where, key, line = f"{found.file}:{number}", *_read(text)
            said = "is not a line of a ledger" if key is None else "is not as it was written" if line is None else ""
            if key is not None and key in seen and found.lines.get(key) != line:
                said = "says something else of a cell than an earlier line"
                found.lines.pop(key, None)
            if said:
                found.problems.append(DamagedError(where, said, AGAIN))
            elif key is not None and line is not None:
                found.lines[key] = line
            if key is None or key not in seen:
                found._slots.append(key)
            seen.add(key)
        return found

    def verified(self) -> Iterator[tuple[Key, DamagedError]]:
        """Yield each line whose value is not that of its sums, or that names a file that is missing or damaged."""
        for key in self.lines:
            if problem := self.problem(*key):
                yield key, problem

    def problem(self, cell: Cell, metric: str) -> DamagedError | None:
        """Return what is wrong with what a line names, if anything is."""
        line, root = self.lines[cell, metric], self.path.parent
        where = f"{self.file}, {cell.evaluated} {cell.order} {cell.ratio:g} {metric}"
        try:
            sums = load_sums(root / line["sums"], line["sums_sha256"], AGAIN)
            ids = load_ids(root / SEGMENTS / line["test_set"], AGAIN)
            score = float(METRICS[metric].score(sums.sum(0)))
        except DamagedError as error:
            return error
        except (ValueError, IndexError):
            return DamagedError(where, "has sums of no test set", AGAIN)
        alike = math.isclose(score, line["value"], rel_tol=1e-9, abs_tol=1e-12)
        if not alike or {len(sums), len(ids)} != {line["sentences"]}:
            return DamagedError(where, "has another value than its sums", AGAIN)
        if line["hypotheses"] and not Folder(root, {}).whole(line["hypotheses"], line["sha256"]):
            return DamagedError(root / line["hypotheses"], "is missing or damaged", AGAIN)
        return None

    def check(self) -> None:
        """Refuse what a line names if it is damaged, and tables that say something else than the lines.

        Raises:
            DamagedError: naming the first disagreement.
        """
        for _, problem in self.verified():
            raise problem
        for schema, made in ((PRUNING, self.table()), (CROSS, self.cross_table())):
            path = self.path.parent / schema.name
            wanted = iter(csv_of(made).splitlines())  # in this order: a killed sweep has more lines, and no other ones
            if path.is_file() and not all(line in wanted for line in lines(path)):
                raise DamagedError(path, "says something else than the ledger", f"write it again: {schema.again}")

    def take_up(self, facts: Mapping[str, Any]) -> None:
        """Go on with the lines of a sweep with the same settings; those that it has not needed yet are added.

        A last line that a kill cut short is dropped: its cell is scored again. So are damaged ones, by name.

        Raises:
            RunError: naming the first setting that differs.
        """
        super().take_up(facts)
        self.manifest |= facts
        for key, problem in list(self.verified()):
            self.problems.append(problem)
            del self.lines[key]
        for problem in self.problems:
            say(f"{problem.where}: {problem.problem}; it is scored again")
        if not self.problems and self.file.exists():
            with self.file.open("rb+") as file:
                file.truncate(len(_whole(self.file)))

    def save(self) -> None:
        """Write the settings and, where lines were damaged, the ledger without them."""
        super().save()
        if self.problems:
            self._rewrite()

    def compared(self, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Yield what must be the same in a sweep that is resumed."""
        for name, value in facts.items():
            if name in self.manifest or name not in LATER:
                yield name, self.manifest.get(name), value

    def missing(self, cell: Cell, metrics: Sequence[str]) -> list[str]:
        """Return those of some metrics that a cell has no line of."""
        return [metric for metric in metrics if (cell, metric) not in self.lines]

    def alike(self, cell: Cell, mask: str, metric: str) -> Line | None:
        """Return a line of the very model that `cell` is, by the digest `mask`, scored on the same group, if any is."""
        wanted = (cell.evaluated, mask, metric)
        found = (line for line in self.lines.values() if (line["evaluated"], line["mask"], line["metric"]) == wanted)
        return next(found, None)

    def add(self, cell: Cell, lines: Sequence[Line]) -> None:
        """Append a finished cell, in one or more metrics.

        Raises:
            SensikitError: if the disk is full; what was written of a line is dropped when the ledger is next opened.
        """
        self.lines |= {(cell, line["metric"]): line for line in lines}
        if None in self._slots or any((cell, line["metric"]) in self._slots for line in lines):
            for key in ((cell, line["metric"]) for line in lines):
                if key not in self._slots:
                    place = self._slots.index(None) if None in self._slots else len(self._slots)
                    self._slots[place : place + 1] = [key]
            self._rewrite()
            return
        text = "".join(map(_written, lines))
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.file, error) from error

    def _rewrite(self) -> None:
        """Write all lines again, each where it stood."""
        places = {key: place for place, key in enumerate(self._slots)}
        self.lines = dict(sorted(self.lines.items(), key=lambda each: places.get(each[0], len(places))))
        write_text(self.file, "".join(map(_written, self.lines.values())))

    def table(self) -> pd.DataFrame:
        """Return the curves as a tidy table: the cells whose own group is scored."""
        return _frame([line for (cell, _), line in self.lines.items() if not cell.other], PRUNING)

    def cross_table(self) -> pd.DataFrame:
        """Return, as a tidy table, what every group loses where any one's order is pruned, and the unpruned model.

        An order and ratio is there, in one metric, once another group was scored with it; its own group is there too.
        """
        crossed = {(cell.order, cell.seed, cell.ratio, metric) for cell, metric in self.lines if cell.other}
        crossed |= {(UNPRUNED, None, 0.0, metric) for *_, metric in crossed}
        lines = self.lines.items()
        return _frame([line for (of, by), line in lines if (of.order, of.seed, of.ratio, by) in crossed], CROSS)


def record(directory: Path, command: str) -> None:
    """Note a command line in the directory of a ledger, once, if there is one; which cells it made is not noted."""
    noted = recorded(directory)
    if command and command not in noted:
        noted = [*noted, command]
        write_json(directory / COMMANDS, {"commands": noted, SEAL: seal_of(noted)})


def recorded(directory: Path) -> list[str]:
    """Return the command lines that made a ledger, in order; none where it was made from Python.

    Raises:
        RunError: if their file is damaged.
    """
    path = directory / COMMANDS
    if not os.path.lexists(path):
        return []
    found = read_json(path, RunError)
    noted: Any = found.get("commands") if isinstance(found, dict) else None
    if not isinstance(noted, list) or found.get(SEAL) != seal_of(noted) or not all(type(each) is str for each in noted):
        raise DamagedError(path, "is not as it was written", "remove it")
    return list(noted)


def _frame(lines: list[dict[str, Any]], schema: Schema) -> pd.DataFrame:
    return schema.frame(lines).astype({"seed": "Int64"})


def _written(line: Line) -> str:
    return json.dumps({**line, SEAL: seal_of(dict(sorted(line.items())))}, sort_keys=True, ensure_ascii=False) + "\n"


def _read(text: str) -> tuple[Key | None, Line | None]:
    """Return the cell and metric of a line, if that can be told, and the line, if it is as it was written."""
    try:
        found = json.loads(text)
        seal, line = found.pop(SEAL, None), {name: found.pop(name) for name in LINE}
        numbers = [line[name] for name in _NUMBERS]
        other = line["evaluated"] if line["evaluated"] != line["group"] else None
        cell = Cell(line["order"], line["seed"], line["group"], line["ratio"], other)
        metric = METRICS[line["metric"]]
        if (
            found
            or not all(type(line[name]) is str for name in ("order", "group", "evaluated"))
            or not all(type(number) in (int, float) for number in numbers)
            or type(line["seed"]) not in (int, type(None))
            or not 0 <= line["ratio"] <= 1
        ):
            return None, None
        whole = math.isfinite(line["value"]) and seal == seal_of(dict(sorted(line.items())))
        whole &= line["sums"] == cell.sums(metric.name)
        whole &= line["hypotheses"] == (cell.hypotheses if metric.decodes else None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None, None
    return (cell, metric.name), line if whole else None


def _whole(path: Path) -> bytes:
    """Return the whole lines of a ledger, which may not be there yet: a kill can cut its last one short."""
    if not os.path.lexists(path):
        return b""
    try:
        with open_file(path) as file:
            text = file.read()
    except OSError as error:
        raise DamagedError(path, f"cannot be read ({error.strerror})", "move it away and prune --resume") from error
    return text[: text.rfind(b"\n") + 1]
