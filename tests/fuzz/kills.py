"""Processes that are killed, interrupted or ended at some moment, and pairs that write at once: the bytes are the same.

The work is that of `tests.test_kill`, whose process forks a child for each signal, and a training run by the command
line. Of that, what fairseq writes holds times, means since it was last begun, and how often that was: all else is the
same, every bit of the weights and of the optimizer, the place in the data, each validation and the recipe.
"""

from __future__ import annotations

import argparse
import hashlib
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
from typing import Any

import torch

from sensikit.backends.fairseq import compat
from sensikit.sensitivity.analysis import analyze
from tests import test_kill as work
from tests.conftest import write_corpus
from tests.fuzz import Outcome
from tests.support import toy
from tests.support.command import call
from tests.support.training_run import FEW

VERBS = ("analyze", "prune", "evaluate", "train")
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
    if verb == "train":
        compat.load()  # once, and not in every child
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepared(verb, folder)
        started, straight = time.monotonic(), work.fresh(folder, "straight")
        assert work.ended(_child(verb, folder, straight, False)) == 0
        seconds, expected = time.monotonic() - started, _left(verb, straight)
        draw = random.Random(f"{how} {seed}")
        for number in range(count):
            path, started = work.fresh(folder, f"run{number}"), time.monotonic()
            if how == "kill":
                sent = SIGNALS[number % len(SIGNALS)]
                pid, moment = _child(verb, folder, path, False), draw.random() * seconds
                time.sleep(moment)
                os.kill(pid, sent)
                work.ended(pid)
                what = f"{verb} {sent.name} after {moment:.2f} of {seconds:.2f} s"
            else:
                for pid in [_child(verb, folder, path, True) for _ in range(2)]:
                    work.ended(pid)  # the second may be refused
                what = f"{verb} twice at once"
            code = work.ended(_child(verb, folder, path, True))
            found = _left(verb, path)
            differ = sorted(file for file in {*found, *expected} if found.get(file) != expected.get(file))
            result, detail = (
                ("crash", f"resumed with {code}") if code else ("wrong", f"{differ[:3]}") if differ else ("same", "")
            )
            yield Outcome(what, result, detail, time.monotonic() - started)  # type: ignore[arg-type]
            shutil.rmtree(path)


def _prepared(verb: str, folder: Path) -> None:
    """Leave the weights, for prune a run, for train data, which another process makes: one that forks may not have."""
    pid = os.fork()
    if not pid:
        if verb == "train":
            write_corpus(folder / "data")
            os._exit(0)
        torch.save(toy.backend().module.state_dict(), folder / "weights.pt")
        if verb == "prune":
            analyze(work.opened(folder), folder / "before", work.SETTINGS)
        os._exit(0)
    assert work.ended(pid) == 0


def _child(verb: str, folder: Path, path: Path, resume: bool) -> int:
    """Fork a child that works; return its process id."""
    if verb != "train":
        return work.child(verb, folder, path, resume)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # from a place of its own, with one command, which the recipe holds
        (path / "here").mkdir(parents=True, exist_ok=True)
        os.chdir(path / "here")
        words = ("--out", "../run", "--method", "cd+id", "--arch", "tiny", "--updates", 10, "--resume", "--", *FEW)
        code = call("train", folder / "data", *words).code
    finally:
        os._exit(code)


OWN = ("wall", "wps", "ups", "gb_free", "time", "restore_file", "metrics")
"""In the names of what no two training runs have alike, where one was taken up again."""


def _left(verb: str, path: Path) -> dict[str, bytes]:
    """Return what a verb left, by the names of the files: their bytes, or of a training run all that must be alike."""
    found = work.snapshot(path)
    if verb != "train":
        return found
    told = {name: content for name, content in found.items() if name.endswith("recipe.json")}
    for name, content in found.items():
        if name.endswith(".jsonl"):
            lines = (json.loads(line) for line in content.decode().splitlines())
            told[name] = repr([_bare(line) for line in lines if not line["set"].startswith("train")]).encode()
        elif name.endswith(".pt"):
            with torch.serialization.safe_globals([argparse.Namespace]):
                state = torch.load(path / name, weights_only=True)
            state["optimizer_history"] = state["optimizer_history"][-1:]
            told[name] = repr(_bare(state)).encode()
    return told


def _bare(value: Any) -> Any:
    """Return a value without what is a run's own, and a hash in place of each tensor."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, argparse.Namespace):
        return _bare(vars(value))
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items() if not any(word in str(key) for word in OWN)}
    return [_bare(each) for each in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  (what children tell of their progress)
    each = [(o.what, o.result, o.detail, o.seconds) for o in _tried(*sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]))]
    print(json.dumps(each))
