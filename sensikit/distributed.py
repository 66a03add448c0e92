"""What of a work list is this process's, and how the parts come together again.

Several processes, on one machine or on many that share a file system, are given the same command. The work is a list of
units that all of them know, and each unit has its owner. The first process alone writes the folder that the work is
for: it takes the units in the order of the list, so the bytes depend on neither the number of processes nor a kill. The
others leave theirs beside the folder, a file each, in .FOLDER.parts; the first takes them from there, and removes them.

No process talks to another, so none hangs on a message that never comes. The first says in a file which unit it takes;
the others make the next of theirs that is not there yet, as often as it is asked for. Any of them may be killed and
started again, in any number: what was left in .FOLDER.parts is used.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sensikit.errors import OptionError, RunError, SensikitError
from sensikit.files import open_file, replacing, sha256_of, unreadable, write_text
from sensikit.progress import say

if TYPE_CHECKING:
    import numpy as np  # loaded with the first part: the command line answers before it

POLL = 0.1
"""Seconds between two looks at what the other processes have done; a fiftieth of the time waited, if that is more."""

PATIENCE = 60.0
"""Seconds after which a process says whom it waits for."""

_SHARE = r"([0-9]{1,6})/([0-9]{1,6})"

_NEXT = "next"
"""The file that says which unit is taken. Where it is, there is a first process."""


@dataclass(frozen=True)
class Share:
    """Which of several processes this one is: `rank` of `size`, from 0. The first leads.

    Where several hold one model together, all of them are one of these, each in a place of its own.
    """

    rank: int = 0
    size: int = 1
    place: int = 0

    @classmethod
    def given(cls, text: str | None = None, shard: int = 1) -> Self:
        """Return what --share says (3/16, from 1), or else what a launcher such as torchrun says in the environment.

        >>> Share.given("3/16")
        Share(rank=2, size=16, place=0)

        `shard` processes hold one model together, so there must be a multiple of them.
        """
        launched = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
        if text is None:
            if not all(launched):
                if shard > 1:
                    problem = f"{shard} processes are needed"
                    raise OptionError("--shard", problem, f"start them: torchrun --nproc-per-node {shard} …")
                return cls()
            found = re.fullmatch(_SHARE, "/".join(map(str, launched)))
            if not found or int(found[1]) >= int(found[2]):
                problem = f"RANK is {launched[0]!r:.30}, WORLD_SIZE is {launched[1]!r:.30}"
                raise OptionError("environment", problem, "a launcher sets them to 0 and 16, say; unset them without")
            rank, size = int(found[1]), int(found[2])
            if size % shard:
                raise OptionError("--shard", f"{size} processes are no multiple of {shard}", "start as many")
            return cls(rank // shard, size // shard, rank % shard)
        found = re.fullmatch(_SHARE, text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise OptionError("--share", f"{text[:50]} is no share", "give 1/16 to 16/16, say")
        if shard > 1:
            raise OptionError("--share", "goes without --shard, whose processes talk to each other", "start torchrun")
        if launched != (None, None):
            raise OptionError("--share", "goes without a launcher, and there is one", "leave it out")
        return cls(int(found[1]) - 1, int(found[2]))

    @property
    def leads(self) -> bool:
        """Whether this process writes the folder."""
        return self.rank == self.place == 0


def dealt(weights: Iterable[float], size: int) -> list[int]:
    """Return the owner of each unit: the rank that has the least to do so far.

    >>> dealt([1, 9, 1, 9, 1], 2)
    [0, 1, 0, 0, 1]
    """
    loads = [0.0] * size
    owners = []
    for weight in weights:
        owners.append(loads.index(min(loads)))
        loads[owners[-1]] += weight
    return owners


@dataclass(frozen=True)
class Part:
    """What came of one unit: `facts`, to be written as JSON, and arrays in an order that its reader knows."""

    facts: dict[str, Any]
    arrays: Iterable[np.ndarray] = ()


class Work:
    """A list of units, and the parts of those that other processes make.

    The first process takes them one after the other, and gets none where it is to make it itself:

        with work:
            for i in units:
                part = work.take(i) or made(i)

    The others give theirs: `work.give(made, left)`.

    Args:
        folder: that the first process writes; the parts are beside it.
        share: which process this is.
        scope: all that the parts depend on: parts of another scope are never taken for these.
        owners: the rank of each unit.
        ahead: how far a unit may be from the one that is taken: what bounds the parts that wait.
    """

    def __init__(
        self, folder: Path, share: Share, scope: Mapping[str, Any], owners: Sequence[int], ahead: int | None = None
    ) -> None:
        folder = folder.absolute()
        self.share, self.owners = share, owners
        self.ahead = len(owners) if ahead is None else ahead
        self._parts = folder.with_name(f".{folder.name}.parts")
        if self._parts.is_symlink():  # what is elsewhere would be cleared away
            raise RunError(self._parts, "is a link", "remove it")
        self._place = self._parts / sha256_of(json.dumps(scope, sort_keys=True))[:16]
        self._alone = True

    # the first process

    def __enter__(self) -> Self:
        self._alone = self.share.size == 1 and not self._parts.exists()
        if not self._alone:
            self._ask(0)  # before anything goes: who waits must not take it for the end
            for each in self._parts.iterdir():
                if re.fullmatch("[0-9a-f]{16}", each.name) and each != self._place:
                    shutil.rmtree(each, ignore_errors=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._alone and kind is None:
            (self._place / _NEXT).unlink(missing_ok=True)
            self._clear()

    def take(self, unit: int) -> Part | None:
        """Return the part of a unit as soon as it is there, or None if it is this process that makes it.

        What was taken before is removed: it must be where it belongs by now.
        """
        if self._alone:
            return None
        self._ask(unit)  # first: what is gone is then known not to be asked for any more
        for before in self._lying():
            if before < unit:
                self._file(before).unlink(missing_ok=True)
        waited = 0.0
        while unit not in self._lying():
            if self.owners[unit] == self.share.rank:
                return None
            waited = self._wait(waited, self.owners[unit])
        return _read(self._file(unit))

    def forget(self) -> None:
        """Remove every part that was left: of work whose end leaves no mark by which the others could know it."""
        for unit in self._lying():
            self._file(unit).unlink(missing_ok=True)

    # the others

    def give(
        self, make: Callable[[int], Part], left: Callable[[Collection[int]], Collection[int]], everything: bool = False
    ) -> None:
        """Make this process's units, and return when the first process has them all, or has ended.

        Args:
            make: a unit → its part.
            left: some units → those of them that the folder does not hold yet.
            everything: return when the first process has the units of the others too.
        """
        rank = self.share.rank
        mine: Collection[int] = [unit for unit, owner in enumerate(self.owners) if everything or owner == rank]
        begun, waited = False, 0.0
        while mine := left(mine) if mine else ():
            lying, asked = self._lying(), self._asked()  # in this order
            if asked is None and begun:
                return
            begun = begun or asked is not None
            near = range(asked, asked + self.ahead) if asked is not None else ()
            wanted = [unit for unit in mine if unit in near and unit not in lying and self.owners[unit] == rank]
            if not wanted:
                waited = self._wait(waited, 0)
                continue
            part, waited = make(wanted[0]), 0.0
            try:
                _write(self._file(wanted[0]), part)
            except SensikitError:
                if self._asked() is not None:
                    raise
            if self._asked() is None:  # the first process has ended, and cleared away what there was
                self._clear()

    def _wait(self, waited: float, rank: int) -> float:
        """Wait a moment; say once, after a while, for whom. Return the seconds waited in all."""
        pause = max(POLL, waited / 50)  # to see what is left may mean to read a long ledger
        if waited < PATIENCE <= waited + pause:
            say(f"waiting for process {rank + 1} of {self.share.size}; if it was ended, start it again")
        time.sleep(pause)
        return waited + pause

    # files

    def _file(self, unit: int) -> Path:
        return self._place / f"{unit}.npz"

    def _lying(self) -> set[int]:
        """Return the units whose parts are there; a listing is fresh where a shared file system keeps old answers."""
        try:
            return {int(each.stem) for each in self._place.iterdir() if re.fullmatch(r"\d+\.npz", each.name)}
        except FileNotFoundError:  # not there yet, or no more
            return set()

    def _ask(self, unit: int) -> None:
        write_text(self._place / _NEXT, str(unit))

    def _asked(self) -> int | None:
        while True:
            try:
                with open_file(self._place / _NEXT) as file:
                    return int(file.read(20))
            except FileNotFoundError:
                return None
            except ValueError as error:
                raise RunError(self._place / _NEXT, "is damaged", "remove it") from error
            except OSError as error:
                if error.errno != errno.ESTALE:  # which NFS says of a file that has just been replaced
                    raise unreadable(self._place / _NEXT, error) from error

    def _clear(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        with contextlib.suppress(OSError):  # something else is in it
            self._parts.rmdir()


def _write(path: Path, part: Part) -> None:
    import numpy as np

    facts = np.frombuffer(json.dumps(part.facts).encode(), dtype=np.uint8)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, facts, *part.arrays)


def _read(path: Path) -> Part:
    """Return a part; each array is read, and its checksum looked at, when its turn comes."""
    import numpy as np

    _checked(path, lambda: open_file(path).close())  # a pipe would be waited for
    found = _checked(path, lambda: np.load(path))
    facts, *names = found.files
    arrays = (_checked(path, partial(found.__getitem__, name)) for name in names)
    return Part(_checked(path, lambda: json.loads(found[facts].tobytes())), arrays)


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, ValueError, EOFError, RuntimeError, LookupError, TypeError, zipfile.BadZipFile) as error:
        path.unlink(missing_ok=True)
        raise RunError(path, "is damaged", "the same command with --resume makes it again") from error
