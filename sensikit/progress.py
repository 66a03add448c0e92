"""Progress of long work on standard error: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sensikit.errors import printable

LOG_EVERY = 15.0
"""Seconds between two lines in a log."""

SOON = 1.0
"""Seconds of work before the first line in a log: what is done in less has the last line alone."""

SHOWN_EVERY = 0.5
"""Seconds between two notes on a terminal: to make one may cost something."""

_HELD: list[str] = []
"""What is to be said before the next line."""

_QUIET: list[bool] = []
"""Not empty while nothing is to be said."""

Note = Callable[[], str]
"""Says what else is to be known of the last step; called when it is shown, and only then."""


class Bar(Protocol):
    """What `progress` yields: something to tell of each step."""

    def advance(self, steps: float = 1, note: Note | None = None) -> None:
        """Say that so many units more are done, and what else is to be known of them."""


def say(text: str) -> None:
    """Print one line to standard error; of processes that a launcher started, the first speaks for all."""
    if _speaks():
        for line in (*_HELD, text):
            print(printable(line), file=sys.stderr, flush=True)
        _HELD.clear()


@contextlib.contextmanager
def announced(text: str) -> Iterator[None]:
    """Say what the block is about to do: at once on a terminal, in a log before the first line that comes of it.

    What is refused before it has said anything is one line in a log.
    """
    (say if sys.stderr.isatty() else _HELD.append)(text)
    try:
        yield
    finally:
        _HELD.clear()


def _speaks() -> bool:
    return not _QUIET and os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """Say nothing, and show no progress, while the block runs."""
    if wanted:
        _QUIET.append(True)
    try:
        yield
    finally:
        if wanted:
            _QUIET.pop()


@contextlib.contextmanager
def progress(
    total: float | None, what: str, unit: str = "batches", *, done: float = 0, after: float = 0, soon: float = SOON
) -> Iterator[Bar]:
    """Show `what` with its rate and time left while the block runs.

    Args:
        total: units of work in all, or None where nobody knows.
        what: a few words, shown before the bar.
        unit: what is counted, in the plural.
        done: how many of them an earlier call did.
        after: units of the like that come after this block: the time until their end is shown too.
        soon: seconds before the first line in a log.
    """
    what = printable(what)
    if not sys.stderr.isatty() or not _speaks():
        log = _Log(total, what, unit, done, after, soon)
        yield log
        log.show()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    whole = Column(no_wrap=True)  # where a terminal is narrow, the bar gives way and no number is cut
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(table_column=whole),
        TextColumn(f"{unit}  {{task.fields[rate]}}", markup=False),
        TimeRemainingColumn(table_column=whole),
    )
    with Progress(*columns, console=Console(stderr=True)) as drawn:
        task = drawn.add_task(what, total=total, rate="")
        drawn.update(task, completed=done)

        class _Drawn(_Log):
            def advance(self, steps: float = 1, note: Note | None = None) -> None:
                super().advance(steps, note)
                drawn.update(task, completed=self.done)

            def show(self, note: Note | None = None) -> None:
                drawn.update(task, rate=f"{self.rate():.1f}/s{self.end()}{f', {note()}' if note else ''}")

        yield _Drawn(total, what, unit, done, after, 0, SHOWN_EVERY)


@dataclass
class _Log:
    total: float | None
    what: str
    unit: str
    done: float
    after: float
    wait: float
    every: float = LOG_EVERY

    def __post_init__(self) -> None:
        self.begun, self.started = self.done, time.monotonic()
        self.spoke = self.started

    def advance(self, steps: float = 1, note: Note | None = None) -> None:
        self.done += steps
        if time.monotonic() - self.spoke >= self.wait:
            self.spoke, self.wait = time.monotonic(), self.every
            self.show(note)

    def rate(self) -> float:
        """Units a second."""
        return (self.done - self.begun) / max(time.monotonic() - self.started, 1e-9)

    def end(self) -> str:
        """In how long the work that comes after is done too."""
        rate = self.rate()
        if not self.after or not rate:
            return ""
        return f", {_span(((self.total or 0) - self.done + self.after) / rate)} to the end"

    def show(self, note: Note | None = None) -> None:
        if not _speaks():
            return
        rate, total = self.rate(), self.total or 0
        of = f"/{total:.0f}" if total else ""
        left = f", {_span((total - self.done) / rate)} left" if self.done < total and rate else ""
        more = f", {note()}" if note else ""
        spent = _span(time.monotonic() - self.started)
        speed = f"{rate:.2g}" if rate < 99.5 else f"{rate:.0f}"
        say(f"{self.what}: {self.done:.0f}{of} {self.unit}{more}, {speed}/s, {spent}{left}{self.end()}")


def _span(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
