"""What became of one call of the command line, as `tests.fuzz` counts it."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable

from tests.fuzz import Outcome, Result, timed
from tests.support.command import Called, call

MEMORY = 2 << 20
"""kB that a process may have taken at most; it starts with some 600,000, torch and transformers."""


HURTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control and bidi signs, and halves of none."""


def judged(done: Called) -> tuple[Result, str] | None:
    """Return how a call ended that was refused, or ended as none may; None of one that was carried out."""
    lines = [line for line in done.error.splitlines() if line.startswith("sensikit: ")]
    said = done.output + done.error
    if "Traceback" in said or done.code not in (0, 2) or (done.code == 2 and len(lines) != 1):
        return "crash", f"exit code {done.code}: {done.error[-300:]!r}"
    if HURTS.search(said):
        return "crash", f"a control character on the terminal: {said[-300:]!r}"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MEMORY:
        return "crash", "more than 2 GB of memory"
    return ("refused", lines[0]) if done.code else None


def tried(what: str, command: tuple[object, ...], carried_out: Callable[[Called], tuple[Result, str]]) -> Outcome:
    """Return the outcome of a command; `carried_out` judges one that was not refused."""

    def outcome() -> tuple[Result, str]:
        done = call(*command)
        return judged(done) or carried_out(done)

    return timed(what, outcome)
