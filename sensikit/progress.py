"""Progress of long work on standard error: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from sensikit.errors import printable

LOG_EVERY = 15.0
"""Seconds between two lines in a log."""


class Bar(Protocol):
    """What `progress` yields: something to tell of each step."""

    def advance(self, steps: float = 1) -> None:
        """Say that so many units more are done."""
        ...


def say(text: str) -> None:
    """Print one line to standard error; of processes that a launcher started, the first speaks for all."""
    if _speaks():
        print(printable(text), file=sys.stderr, flush=True)


def _speaks() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def progress(total: float | None, what: str, unit: str = "batches") -> Iterator[Bar]:
    """Show `what` with its rate and time left while the block runs.

    Args:
        total: units of work in all, or None where nobody knows.
        what: a few words, shown before the bar.
        unit: what is counted, in the plural.
    """
    what = printable(what)
    if not sys.stderr.isatty() or not _speaks():
        log = _Log(total, what, unit)
        yield log
        log.close()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[rate]}}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(what, total=total, rate="")
        started = time.monotonic()
        done = 0.0

        class _Shown:
            def advance(self, steps: float = 1) -> None:
                nonlocal done
                done += steps
                rate = done / max(time.monotonic() - started, 1e-9)
                shown.update(task, advance=steps, rate=f"{rate:.1f}/s")

        yield _Shown()


class _Log:
    def __init__(self, total: float | None, what: str, unit: str) -> None:
        self.total, self.what, self.unit = total, what, unit
        self.done = 0.0
        self.started = self.spoke = time.monotonic()

    def advance(self, steps: float = 1) -> None:
        self.done += steps
        if time.monotonic() - self.spoke >= LOG_EVERY:
            self.spoke = time.monotonic()
            self._print()

    def close(self) -> None:
        self._print()

    def _print(self) -> None:
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / seconds
        of = f"/{self.total:g}" if self.total else ""
        left = (
            f", {(self.total - self.done) / rate:.0f} s left" if self.total and self.done < self.total and rate else ""
        )
        say(f"{self.what}: {self.done:g}{of} {self.unit}, {rate:.2g}/s, {seconds:.0f} s{left}")
