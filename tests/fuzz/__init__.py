"""Hostile and damaged inputs by the hundred, from a seed: `python -m tests.fuzz` prints what became of them.

A kind of input is a function of a module here, entered in `KINDS`: (count, seed) → an `Outcome` of each of `count`
inputs. The four bad ones are counted; none of them may occur.
"""

from __future__ import annotations

import importlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Result = Literal["refused", "same", "wrong", "hang", "crash", "outside"]

RESULTS: dict[Result, str] = {
    "refused": "one line, exit code 2",
    "same": "what the sound input gives",
    "wrong": "another number, without a word",
    "hang": "over 20 s of work, or five minutes of waiting",
    "crash": "a traceback, several lines, or another exit code",
    "outside": "something was written beside the output",
}
GOOD: tuple[Result, ...] = ("refused", "same")

LIMIT = 20.0
"""Seconds of a processor after which an input counts as a hang: on a busy machine the clock on the wall runs on."""
PATIENCE = 300.0
"""Seconds on the wall after which one counts as a hang that waits, and does nothing."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        what: the input, in words that find it again.
        result: one of `RESULTS`.
        detail: the line that refused it, or what came instead.
        seconds: of a processor, that it took.
    """

    what: str
    result: Result
    detail: str = ""
    seconds: float = 0.0


Kind = Callable[[int, int], Iterator[Outcome]]

KINDS: dict[str, tuple[str, int]] = {
    **{name: (f"run_files:{name}", 200) for name in ("manifest", "vectors", "blocks", "ledger", "tables")},
    **{name: (f"run_files:{name}", 200) for name in ("hypotheses", "evaluation")},
    "checkpoints": ("checkpoints:mutations", 600),
    "directories": ("hub:damages", 100),
    "options": ("options:values", 300),
    "corpus": ("corpus:sources", 100),
    "kills": ("kills:kills", 180),
    "writers": ("kills:writers", 20),
}
"""By name: "module:function" of this package, and how many inputs of it a whole run tries."""


def kind_of(name: str) -> Kind:
    """Return the function of a kind; its module is imported only now."""
    module, function = KINDS[name][0].split(":")
    found: Kind = getattr(importlib.import_module(f"tests.fuzz.{module}"), function)
    return found


def table(found: dict[str, list[Outcome]]) -> str:
    """Return one line for each kind: how many inputs, how many of each result, the longest time."""
    rows = [f"{'':14}{'tried':>7}" + "".join(f"{name:>9}" for name in RESULTS) + f"{'longest':>10}"]
    for name, outcomes in found.items():
        counts = Counter(each.result for each in outcomes)
        slowest = max((each.seconds for each in outcomes), default=0.0)
        cells = "".join(f"{counts[result]:>9}" for result in RESULTS)
        rows.append(f"{name:14}{len(outcomes):>7}{cells}{slowest:>9.1f}s")
    return "\n".join(rows)


class Hang(BaseException):
    """Raised in the midst of what takes longer than `LIMIT`."""


def timed(what: str, outcome: Callable[[], tuple[Result, str]]) -> Outcome:
    """Return the outcome of one input: a hang if it works or waits for too long, a crash where an error escapes it."""

    rung = []

    def ring(*_: object) -> None:
        rung.append(True)
        raise Hang

    start = time.process_time()
    before = {each: signal.signal(each, ring) for each in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        result, detail = outcome()
    except Hang:
        result, detail = "hang", ""
    except Exception as error:
        result, detail = "crash", f"{type(error).__name__}: {error}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler)
    # a library may have taken it for an error of its own
    return Outcome(what, "hang" if rung else result, detail, time.process_time() - start)
