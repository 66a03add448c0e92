"""Real SIGKILLs of real processes: whatever they were at, `resume` ends with the bytes of a run that was left alone.

A process of its own loads torch once and forks a child for each kill. A child is killed either at its n-th event (it
is about to open, rename or truncate a file of the run, has just opened one to write it, makes a directory, computes a
loss, translates a split), or from outside at some moment.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sensikit.evaluation.systems import evaluate_systems
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.settings import AnalysisSettings, EvaluationSettings, SweepSettings
from tests.support import toy
from tests.support.command import alone
from tests.support.watched import Telling, snapshot

SETTINGS = AnalysisSettings(batches=4, tokens=64, micro_batches=2)
GROUPS = ["cat", "nso"]
SWEEP: dict[str, Any] = {
    "ratios": [0, 0.5], "orders": ["specificity", "fisher"], "groups": GROUPS,
    "settings": SweepSettings(tokenizer="none", bootstrap=10),
}  # fmt: skip
FILE_EVENTS = ("open", "os.rename", "os.truncate", "os.mkdir", "os.remove")


def opened(folder: Path) -> Telling:
    """Return the backend with the weights kept in `folder`: a process that forks may not have trained them."""
    backend = Telling()
    backend.module.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return backend


def work(verb: str, backend: Telling, path: Path, resume: bool) -> None:
    if verb == "analyze":
        analyze(backend, path, SETTINGS, groups=GROUPS, resume=resume, command="sensikit analyze")
    elif verb == "evaluate":
        other = Telling(seed=5)
        other.tell = backend.tell
        systems = {"one": lambda: backend, "two": lambda: other}
        settings = EvaluationSettings(tokenizer="none", bootstrap=10)
        evaluate_systems(systems, path, settings, groups=GROUPS, resume=resume, command="sensikit evaluate")
    else:
        prune(Run.open(path), backend, **SWEEP, resume=resume)


# the process that forks


class Events:
    """Counts the events of one child, and may kill it at one of them."""

    def __init__(self, path: Path, fatal: int | None) -> None:
        self.path, self.fatal, self.count = str(path), fatal, 0

    def happens(self) -> None:
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and str(arguments[0]).startswith(self.path):
            self.happens()

    def opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return `real`, an open(), with an event after it: a file to be written is empty then, an old one cut off."""

        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            found = real(file, mode, *arguments, **options)
            if str(file).startswith(self.path) and set(mode) & set("wa+"):
                self.happens()
            return found

        return opened


def child(verb: str, folder: Path, path: Path, resume: bool, fatal: int | None = None) -> int:
    """Fork a child that works; return its process id. It leaves its number of events beside the run."""
    pid = os.fork()
    if pid:
        return pid
    try:
        backend, events = opened(folder), Events(path, fatal)
        backend.tell = events.happens
        sys.addaudithook(events.audit)
        io.open = events.opening(io.open)  # type: ignore[assignment]
        work(verb, backend, path, resume)
        path.with_name(f"{path.name}.events").write_text(str(events.count))
        os._exit(0)
    finally:
        os._exit(1)


def ended(pid: int) -> int:
    """Return the exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fresh(folder: Path, name: str) -> Path:
    """Return where a child works: on a copy of what stands before the work begins, if anything does."""
    path = folder / name
    if (folder / "before").exists():
        shutil.copytree(folder / "before", path)
    return path


def killings(verb: str, folder: Path, inside: int, outside: int) -> list[dict[str, Any]]:
    """Kill a child at each of `inside` events, and one at each of `outside` moments; let another one resume."""
    counted = fresh(folder, "counted")
    started = time.monotonic()
    assert ended(child(verb, folder, counted, False)) == 0
    seconds, events = time.monotonic() - started, int((folder / "counted.events").read_text())
    chooser = random.Random(7)
    # the first file is followed event by event
    points = sorted({*range(8), events - 1, *chooser.sample(range(events), min(inside, events))})
    found = []
    for number, point in enumerate([*points, *([None] * outside)]):
        path = fresh(folder, f"run{number}")
        pid = child(verb, folder, path, False, point)
        if point is None:
            time.sleep(chooser.random() * seconds)
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        left = sorted(str(file.relative_to(path)) for file in path.rglob("*.partial"))
        resumed = ended(child(verb, folder, path, True))
        found.append({"point": point, "code": code, "partial": left, "resumed": resumed, "path": str(path)})
    return found


if __name__ == "__main__":
    print(json.dumps(killings(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
    sys.exit()


# the tests


def killed(verb: str, folder: Path, inside: int, outside: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(alone("tests.test_kill", verb, folder, inside, outside, limit=None).stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(toy.backend().module.state_dict(), tmp_path / "weights.pt")
    return tmp_path


def check(verb: str, folder: Path, inside: int, outside: int) -> None:
    straight = fresh(folder, "straight")
    work(verb, opened(folder), straight, False)
    expected = snapshot(straight)
    found = killed(verb, folder, inside, outside)
    for case in found:
        if case["point"] is not None:
            assert case["code"] == -signal.SIGKILL, case
        assert case["resumed"] == 0, case
        assert snapshot(Path(case["path"])) == expected, case
    assert sum(case["point"] is None for case in found) == outside
    assert len({case["point"] for case in found} - {None}) >= 6
    assert any(case["partial"] for case in found), "no kill fell between a file's beginning and its end"


@pytest.mark.parametrize(("inside", "outside"), [(3, 2), pytest.param(150, 40, marks=pytest.mark.slow)])
def test_a_killed_analysis_resumes_and_ends_with_the_same_bytes(folder: Path, inside: int, outside: int) -> None:
    check("analyze", folder, inside, outside)


@pytest.mark.parametrize(("inside", "outside"), [(3, 2), pytest.param(150, 40, marks=pytest.mark.slow)])
def test_a_killed_sweep_resumes_and_ends_with_the_same_bytes(folder: Path, inside: int, outside: int) -> None:
    work("analyze", opened(folder), folder / "before", False)
    check("prune", folder, inside, outside)


@pytest.mark.slow
def test_a_killed_evaluation_resumes_and_ends_with_the_same_bytes(folder: Path) -> None:
    check("evaluate", folder, 100, 20)
