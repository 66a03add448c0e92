"""A folder of resumable work: created, locked, resumed, and refused when it was made of something else.

Runs, pruning sweeps, evaluations, training runs and demos are such folders. Each has a note, a JSON file that says of
what and how it was made; a folder without one is not ours, and is left as it is. The note holds the hash of every file
that is read again, and its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
from filelock import FileLock, Timeout

from sensikit.errors import DamagedError, RunError
from sensikit.files import read_json, replacing, seal_of, sha256, unwritable, write_json
from sensikit.tables import Schema, csv_of, read_csv

SEAL = "seal"
"""The field of a note with the hash of all others."""
LOCK = ".lock"
PATIENCE = 0.2
"""Seconds that a lock is tried for: one that another process removes as it ends is no lock, and tried again."""
PARTIAL = (".*.partial", ".tmp??????")
"""What a killed writer leaves: `files.replacing` and safetensors both write beside a file's place, and then rename."""


class Folder:
    """A directory of resumable work; each kind of work is a subclass.

    Attributes:
        path: the directory.
        manifest: what its note holds, from the format on.
    """

    KIND: ClassVar[str]
    """What it is, with its article."""
    NOTE: ClassVar[str] = "manifest.json"
    FORMAT: ClassVar[int]
    """Of the note; another one is not read."""
    FIELDS: ClassVar[Mapping[str, type]] = {}
    """That a note must have, beside its format."""
    VERB: ClassVar[str]
    """The command that makes it."""
    ELSEWHERE: ClassVar[str] = "choose another --out"
    """What to do where something else stands in its place."""
    BARE: ClassVar[Sequence[str]] = ()
    """Files, the note among them, that may stand where nothing worth keeping was done: it is then begun anew."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Return the folder at `path`.

        Raises:
            RunError: if it is of another kind or format, or damaged.
        """
        path = Path(path)
        if not (path / cls.NOTE).is_file():
            raise RunError(path, f"is not {cls.KIND} (it has no {cls.NOTE})", f"give what {cls.VERB} wrote to --out")
        manifest = read_json(path / cls.NOTE, RunError)
        damaged = DamagedError(path / cls.NOTE, "is not as it was written", f"put it back, or {cls.VERB} again")
        try:
            cls.validate(manifest, path / cls.NOTE)  # before the seal: another version is told as that
            if manifest.pop(SEAL, None) != seal_of(manifest):
                raise damaged
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise damaged from error  # a part of another type than `validate` thought of
        return cls(path, manifest)

    @classmethod
    def taken(cls, path: Path) -> Self:
        """Return the folder at `path` to be gone on with, which may mend what `open` would refuse."""
        return cls.open(path)

    @classmethod
    def validate(cls, manifest: Any, where: Path) -> None:
        """Refuse what is not a note of this format, or lacks a field; `where` is the file that it was read from."""
        if not isinstance(manifest, dict) or manifest.get("format") != cls.FORMAT:
            raise RunError(where, f"is not of format {cls.FORMAT}", f"{cls.VERB} again with this version")
        cls.hold(manifest, cls.FIELDS, where)

    @classmethod
    def hold(cls, found: Any, kinds: Mapping[str, type], where: Path, whose: str = "") -> None:
        """Refuse a part of a note that lacks a field, or has one of another type."""
        for field, kind in kinds.items():
            if not isinstance(found, dict) or type(found.get(field)) is not kind:
                raise cls.lacks(f"{whose}{field}", where)

    @classmethod
    def hold_groups(cls, groups: Mapping[str, Any], where: Path) -> None:
        """Refuse the groups of a note where one lacks its name, family, tier or sizes, each a number."""
        for key, group in groups.items():
            cls.hold(group, {"name": str, "family": str, "tier": str, "sizes": dict}, where, f"{key}'s ")
            mono = group.get("mono")
            if any(type(size) is not int for size in (*group["sizes"].values(), 0 if mono is None else mono)):
                raise cls.lacks(f"{key}'s sizes", where)

    @classmethod
    def lacks(cls, what: str, where: Path) -> RunError:
        """Return the error for a note in which something is missing."""
        return RunError(where, f"lacks {what}", f"it is damaged; {cls.VERB} again")

    @classmethod
    def stands(cls, path: Path, resume: bool) -> bool:
        """Return whether a folder of this kind stands at `path`, to be resumed; refuse anything else there."""
        if not path.exists():
            return False
        names = {each.name for each in path.iterdir()} if path.is_dir() else {path.name}
        halves = {each.name for pattern in PARTIAL for each in path.glob(pattern)}
        if not names - {LOCK, *cls.BARE} - halves:
            return False
        if cls.NOTE not in names:
            raise RunError(path, f"already exists and is not {cls.KIND} (it has no {cls.NOTE})", cls.ELSEWHERE)
        if not resume:
            raise RunError(path, "already exists", f"{cls.ELSEWHERE}, or --resume what is there")
        return True

    @classmethod
    @contextlib.contextmanager
    def begun(cls, path: Path, facts: Mapping[str, Any], resume: bool) -> Iterator[Self]:
        """Yield the folder at `path`, locked: a new one, or with `resume` the one that stands there.

        Nothing is written before `save`: where the block ends without it, `path` is as it was. `facts` say of what and
        how the work is done, and are the manifest of a new folder.

        Raises:
            RunError: if it is not to be resumed, was made of or with something else, is no folder of this kind, is
                damaged, or is being written by another process.
        """
        cls.stands(path, resume)  # before anything of another's is touched
        facts = json.loads(json.dumps(facts))  # as it will be read again: tuples become lists
        with _locked(path):
            if cls.stands(path, resume):  # another process may have made it, or gone on with it, meanwhile
                found = cls.taken(path)
                found.take_up(facts)
            else:
                found = cls(path, {"format": cls.FORMAT, **facts})
            yield found

    def take_up(self, facts: Mapping[str, Any]) -> None:
        """Refuse to go on with other facts than those noted, naming the first that differs."""
        for name, was, now in self.compared(facts):
            if was != now:
                problem = f"was made with another {_difference(name, was, now)}"
                raise RunError(self.path, problem, f"keep to its own, or {self.ELSEWHERE}")

    def compared(self, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Yield (name, as noted, as given) of what must be the same: of everything, by default."""
        for name in {**self.manifest, **facts}:
            if name != "format":
                yield name, self.manifest.get(name), facts.get(name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Self]:
        """Yield the folder, held for one writer; the manifest is read again, as another may have written it since."""
        with _locked(self.path):
            self.manifest = self.open(self.path).manifest
            yield self

    def save(self) -> None:
        """Write the note, in one step, with its hash."""
        write_json(self.path / self.NOTE, {**self.manifest, SEAL: seal_of(self.manifest)})

    # files whose hash is noted

    def write(self, name: str, writer: Callable[[Path], object]) -> str:
        """Write a file below the folder in one step, by a function of its path; return its SHA-256, to be noted."""
        with replacing(self.path / name) as partial:
            writer(partial)
        return sha256(self.path / name)

    def write_lines(self, name: str, lines: Sequence[str]) -> str:
        """Write a text file below the folder in one step, a sentence each line; return its SHA-256, to be noted."""
        text = "".join(f"{line}\n" for line in lines)
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))

    def whole(self, name: str, noted: str | None) -> bool:
        """Return whether a file is there as it was written; `noted` is its SHA-256, or none where it never was."""
        return noted is not None and (self.path / name).is_file() and sha256(self.path / name) == noted

    # tables

    def write_table(self, table: Schema | str, frame: pd.DataFrame) -> Path:
        """Write a tidy table as CSV in one step, and note its hash; return its path.

        `table` is its schema, which says which columns are written, or the name of its file.
        """
        name, frame = (table, frame) if isinstance(table, str) else (table.name, frame[table.columns])
        tables = self.manifest.setdefault("tables", {})
        # both hashes are noted while the new table takes the place of the old one: a kill leaves one of them there
        with replacing(self.path / name) as partial:
            partial.write_text(csv_of(frame), encoding="utf-8", newline="\n")
            digest = sha256(partial)
            if tables.get(name) != [digest]:
                tables[name] = [*tables.get(name, []), digest]
                self.save()
        if tables[name] != [digest]:
            tables[name] = [digest]
            self.save()
        return self.path / name

    def read_table(self, table: Schema | str, groups: Collection[str] = ()) -> pd.DataFrame:
        """Return a tidy table: by its schema, checked; by the name of its file, with its columns as they are.

        `groups` are those that it may name, where it is read by its schema.

        Raises:
            RunError: if it is not there, is not what its schema says, or not as it was written.
        """
        name = table if isinstance(table, str) else table.name
        again = f"{self.VERB} --resume" if isinstance(table, str) else table.again
        noted = self.manifest.get("tables", {})
        if not os.path.lexists(self.path / name):
            named = isinstance(table, str) and name not in noted and noted
            remedy = f"there are {', '.join(noted)}" if named else f"make it with {again}"
            raise DamagedError(self.path / name, "does not exist", remedy)
        frame = read_csv(self.path / name) if isinstance(table, str) else table.read(self.path / name, groups)
        if sha256(self.path / name) not in noted.get(name, []):
            remedy = f"remove it and make it again with {again}"
            raise DamagedError(self.path / name, "is not as it was written", remedy)
        return frame

    def tables(self, schemas: Iterable[Schema], groups: Collection[str]) -> dict[str, pd.DataFrame]:
        """Return those of some tables that were made, by name, each read as `read_table` does."""
        noted = self.manifest.get("tables", {})
        there = [each for each in schemas if each.name in noted or os.path.lexists(self.path / each.name)]
        return {each.name: self.read_table(each, groups) for each in there}


def _difference(name: str, was: Any, now: Any) -> str:
    """Return where two values differ first, and how."""
    if isinstance(was, dict) and isinstance(now, dict):
        key = next(key for key in {**was, **now} if was.get(key, ...) != now.get(key, ...))
        return _difference(f"{name}.{key}", was.get(key), now.get(key))
    if isinstance(was, str) and isinstance(now, str):  # of a signature, all the choices that differ
        parts = [pair for pair in zip(was.split("|"), now.split("|"), strict=False) if pair[0] != pair[1]]
        text = ", ".join(f"{_shown(a)}, not {_shown(b)}" for a, b in parts)
        return f"{name} ({text or f'{was}, not {now}'})"
    return f"{name} ({_shown(was)}, not {_shown(now)})"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 50 else f"{text[:20]}…"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a directory for one writer, and clear away what a killed one left half written.

    Directories that were made for the lock and stay empty go with the block.
    """
    made = [each for each in (path, *path.parents) if not each.exists()]
    try:
        with _held(path / LOCK):
            for left in [each for pattern in PARTIAL for each in path.rglob(pattern)]:
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            yield
    finally:
        for each in made:
            with contextlib.suppress(OSError):  # not empty
                each.rmdir()


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):  # it would be emptied, or waited for
            raise RunError(path, "is not a lock", "remove it")
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise RunError(path.parent, "is being written by another process", "wait for it to end") from error
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):  # Windows removes it as it is let go, and not before
            path.unlink(missing_ok=True)
        lock.release()
