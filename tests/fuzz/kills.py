"""Processes that are killed, interrupted or ended at some moment, and pairs that write at once: the bytes are the same.

The work is that of `tests.test_kill`, whose process forks a child for each signal; a training run is not among it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from sensikit.sensitivity.analysis import analyze
from tests import test_kill as work
from tests.fuzz import Outcome
from tests.support import toy

VERBS = ("analyze", "prune", "evaluate")
SIGNALS = 5 * (signal.SIGKILL,) + 2 * (signal.SIGINT,) + 2 * (signal.SIGTERM,)
"""In the proportion of 100, 40 and 40."""


def kills(count: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcomes of signals at random moments, after which `resume` goes on."""
    return _all("kill", count, seed)


def writers(count: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcomes of two processes that write the same folder at once."""
    return _all("pair", count, seed)


def _all(how: str, count: int, seed: int) -> Iterator[Outcome]:
    for number, verb in enumerate(VERBS):
        share = len(range(number, count, len(VERBS)))
        command = [sys.executable, "-m", "tests.fuzz.kills", how, verb, str(share), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        if done.returncode:
            yield from (Outcome(f"{verb} {how}", "crash", done.stderr[-300:]) for _ in range(share))
        else:
            yield from (Outcome(*each) for each in json.loads(done.stdout.splitlines()[-1]))


def _tried(how: str, verb: str, count: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcomes of one verb, in a process that forks and has computed nothing yet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepared(verb, folder)
        started, straight = time.monotonic(), work.fresh(folder, "straight")
        assert work.ended(work.child(verb, folder, straight, False)) == 0
        seconds, expected = time.monotonic() - started, work.snapshot(straight)
        draw = random.Random(f"{how} {seed}")
        for number in range(count):
            path, started = work.fresh(folder, f"run{number}"), time.monotonic()
            if how == "kill":
                sent = SIGNALS[number % len(SIGNALS)]
                pid, moment = work.child(verb, folder, path, False), draw.random() * seconds
                time.sleep(moment)
                os.kill(pid, sent)
                work.ended(pid)
                what = f"{verb} {sent.name} after {moment:.2f} of {seconds:.2f} s"
            else:
                for pid in [work.child(verb, folder, path, True) for _ in range(2)]:
                    work.ended(pid)  # the second may be refused
                what = f"{verb} twice at once"
            code = work.ended(work.child(verb, folder, path, True))
            found = work.snapshot(path)
            differ = sorted(file for file in {*found, *expected} if found.get(file) != expected.get(file))
            result, detail = (
                ("crash", f"resumed with {code}") if code else ("wrong", f"{differ[:3]}") if differ else ("same", "")
            )
            yield Outcome(what, result, detail, time.monotonic() - started)  # type: ignore[arg-type]
            shutil.rmtree(path)


def _prepared(verb: str, folder: Path) -> None:
    """Leave the weights, and for prune a run, which another process makes: one that forks may not have computed."""
    pid = os.fork()
    if not pid:
        torch.save(toy.backend().module.state_dict(), folder / "weights.pt")
        if verb == "prune":
            analyze(work.opened(folder), folder / "before", work.SETTINGS)
        os._exit(0)
    assert work.ended(pid) == 0


if __name__ == "__main__":
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  (what children tell of their progress)
    each = [(o.what, o.result, o.detail, o.seconds) for o in _tried(*sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]))]
    print(json.dumps(each))
