"""Several processes that share a verb's work: the same bytes from any number of them, and after a kill of any.

A process of its own loads torch once, and forks the processes of every case.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensikit.distributed import Part, Share, Work, dealt
from sensikit.errors import DataError, OptionError, RunError
from sensikit.evaluation.choosing import evaluate_chosen
from sensikit.evaluation.systems import evaluate_systems
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from sensikit.sensitivity.ablation import audit
from sensikit.sensitivity.analysis import analyze
from sensikit.settings import AnalysisSettings, EvaluationSettings, MemorySettings, SweepSettings
from tests.support.command import alone
from tests.support.watched import Telling, snapshot

# dropout, so that the random state belongs to what must not depend on who sums a block
SETTINGS = AnalysisSettings(batches=5, tokens=40, micro_batches=2, mode="train")
SWEEP = SweepSettings(metrics=("bleu", "loss"), tokenizer="none", bootstrap=10)
GROUPS = ["cat", "nso"]


def work(verb: str, backend: Telling, path: Path, share: Share, resume: bool = False) -> None:
    if verb == "analyze":
        memory = MemorySettings(parameter_passes=2)
        analyze(backend, path, SETTINGS, groups=GROUPS, resume=resume, share=share, memory=memory)
    elif verb == "audit":
        audit(Run.open(path), backend, parameters=60, share=share)
    elif verb == "prune":
        orders = ["specificity", "random", "fisher"]
        prune(Run.open(path), backend, [0, 0.3, 0.6], orders, seeds=[1], settings=SWEEP, resume=resume, share=share)
    else:
        systems = {"one": lambda: backend, "two": lambda: Telling(seed=5)}
        settings = EvaluationSettings(metrics=("bleu", "loss"), tokenizer="none", bootstrap=10)
        if verb == "evaluate":
            evaluate_systems(systems, path, settings, groups=GROUPS, resume=resume, share=share)
        else:
            among, how = {"best": systems}, {"groups": GROUPS, "resume": resume, "share": share}
            evaluate_chosen(among, path, settings, "valid", [1.0, 1.5], **how)


def killing(at: int) -> Callable[[], object]:
    """Return what kills the process when it is called once more after `at` times."""
    calls = itertools.count()
    return lambda: next(calls) < at or os.kill(os.getpid(), signal.SIGKILL)


def together(
    verb: str, path: Path, size: int, *, resume: bool = False, victim: int = -1, at: int = sys.maxsize
) -> list[int]:
    """Fork the processes of a verb, and return how each ended; with the victim, which is killed, end all."""
    pids = []
    for rank in range(size):
        if not (pid := os.fork()):
            try:
                backend = Telling()
                if rank == victim:
                    backend.tell = killing(at)
                work(verb, backend, path, Share(rank, size), resume)
                os._exit(0)
            except BaseException as error:
                print(rank, repr(error), file=sys.stderr)
            finally:
                os._exit(1)
        pids.append(pid)
    if victim >= 0:
        ended = os.waitstatus_to_exitcode(os.waitpid(pids.pop(victim), 0)[1])
        for pid in pids:  # as a launcher does
            os.kill(pid, signal.SIGKILL)
        assert ended == -signal.SIGKILL
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def compare(verb: str, folder: Path, sizes: Sequence[int], kills: Sequence[tuple[int, int, int, int]]) -> None:
    """Every number of processes, and every kill, ends with the bytes of one process, and leaves nothing beside them."""
    folder.mkdir()
    before = folder.parent / "analyze" / "1"

    def fresh(name: str) -> Path:
        if verb in ("audit", "prune"):
            shutil.copytree(before, folder / name)
        return folder / name

    for size in sizes:
        assert together(verb, fresh(str(size)), size) == [0] * size
    for size, victim, at, after in kills:
        path = fresh(f"{size}-{victim}-{at}")
        together(verb, path, size, victim=victim, at=at)
        assert together(verb, path, after, resume=True) == [0] * after, path
    expected = snapshot(folder / str(sizes[0]))
    assert len(expected) > 2
    for path in folder.iterdir():
        assert not path.name.startswith("."), path
        assert snapshot(path) == expected, path


KILLS: dict[str, list[tuple[int, int, int, int]]] = {
    # processes, the one that is killed, at what, and how many go on
    "analyze": [(2, 0, 21, 4), (4, 2, 9, 1), (3, 1, 4, 2)],
    "audit": [(2, 1, 30, 2)],
    "prune": [(2, 1, 5, 1), (3, 0, 23, 2)],
    "evaluate": [(2, 1, 1, 1)],
    "choose": [(3, 1, 0, 2)],
}
SIZES = {"analyze": [1, 2, 4], "audit": [1, 2], "prune": [1, 2, 3], "evaluate": [1, 2], "choose": [1, 2]}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in SIZES:
        compare(each, Path(sys.argv[1]) / each, SIZES[each], KILLS[each])
    sys.exit()


def test_any_number_of_processes_ends_with_the_same_bytes_even_after_a_kill(tmp_path: Path) -> None:
    alone("tests.test_processes", tmp_path)


# the exchange itself, between threads


def give(work: Work, done: set[int] | None = None, made: list[int] | None = None) -> threading.Thread:
    """Start a process that makes its units: the number of each."""

    def make(unit: int) -> Part:
        if made is not None:
            made.append(unit)
        return Part({"unit": unit}, [np.full(3, unit)])

    left = (lambda mine: [unit for unit in mine if unit not in done]) if done is not None else (lambda mine: mine)
    thread = threading.Thread(target=work.give, args=(make, left), daemon=True)
    thread.start()
    return thread


def works(folder: Path, size: int, owners: Sequence[int], **options: Any) -> list[Work]:
    return [Work(folder, Share(rank, size), {"of": "x"}, owners, **options) for rank in range(size)]


def taken(work: Work, units: Sequence[int]) -> list[Any]:
    """Take units; their numbers where another made them."""
    found = []
    for unit in units:
        part = work.take(unit)
        found.append(None if part is None else (part.facts["unit"], *next(iter(part.arrays)).tolist()))
    return found


def of(unit: int) -> tuple[int, ...]:
    return unit, unit, unit, unit


def test_a_first_process_that_starts_again_gets_once_more_what_was_lost_with_it(tmp_path: Path) -> None:
    first, second = works(tmp_path / "run", 2, [0, 1] * 4, ahead=2)
    made: list[int] = []
    thread = give(second, made=made)
    first.__enter__()
    assert taken(first, range(6)) == [None, of(1), None, of(3), None, of(5)]
    with works(tmp_path / "run", 2, [0, 1] * 4, ahead=2)[0] as again:  # the first one was killed
        assert taken(again, range(8)) == [None, of(1), None, of(3), None, of(5), None, of(7)]
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert made[:3] == [1, 3, 5]
    assert len(made) > 4
    assert list(tmp_path.iterdir()) == []


def test_no_more_parts_wait_than_are_allowed(tmp_path: Path) -> None:
    first, second = works(tmp_path / "run", 2, [1] * 9, ahead=2)
    made: list[int] = []
    thread = give(second, made=made)
    with first:
        for unit in range(9):
            assert taken(first, [unit]) == [of(unit)]
            assert len(made) <= unit + 2
            assert len(list(tmp_path.glob(".run.parts/*/*.npz"))) <= 2
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_single_process_uses_what_several_left_and_clears_it_away(tmp_path: Path) -> None:
    first, second = works(tmp_path / "run", 2, [0, 1] * 2)
    thread = give(second, done := set())
    first.__enter__()
    assert taken(first, [0]) == [None]
    while len(list(tmp_path.glob(".run.parts/*/*.npz"))) < 2:
        thread.join(timeout=0.05)
    done |= {1, 3}
    thread.join(timeout=10)
    stale = tmp_path / ".run.parts" / "0123456789abcdef"
    stale.mkdir()
    mine = tmp_path / ".run.parts" / "mine.txt"
    mine.write_text("not a part")
    with works(tmp_path / "run", 1, [0] * 4)[0] as alone:
        assert not stale.exists()
        assert taken(alone, range(4)) == [None, of(1), None, of(3)]
    assert list((tmp_path / ".run.parts").iterdir()) == [mine]


def test_what_stands_in_the_place_of_parts_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".run.parts").symlink_to("elsewhere")
    with pytest.raises(RunError, match=r"\.run\.parts: is a link; remove it"):
        works(tmp_path / "run", 2, [0, 1])
    (tmp_path / ".run.parts").unlink()
    second = works(tmp_path / "run", 2, [0, 1])[1]
    asked = second._place / "next"
    asked.parent.mkdir(parents=True)
    asked.write_text("x")
    with pytest.raises(RunError, match="next: is damaged; remove it"):
        second.give(lambda unit: Part({}), lambda units: units)
    asked.unlink()
    os.mkfifo(asked)
    with pytest.raises(DataError, match="next: cannot be read"):
        second.give(lambda unit: Part({}), lambda units: units)


def test_a_damaged_part_is_refused_in_one_line_and_made_again(tmp_path: Path) -> None:
    first, second = works(tmp_path / "run", 2, [1])
    made: list[int] = []
    thread = give(second, made=made)
    first.__enter__()
    assert taken(first, [0]) == [of(0)]
    (path,) = tmp_path.glob(".run.parts/*/0.npz")
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY", content.index(b"NUMPY") + 1) + 130] ^= 1  # in the array, whose turn has not come
    path.write_bytes(content)
    part = first.take(0)
    assert part is not None
    with pytest.raises(RunError, match=r"0\.npz: is damaged; the same command with --resume"):
        list(part.arrays)
    with works(tmp_path / "run", 2, [1])[0] as again:
        assert taken(again, [0]) == [of(0)]
    thread.join(timeout=10)
    assert made == [0, 0]


def test_work_is_dealt_evenly() -> None:
    assert dealt([1] * 7, 3) == [0, 1, 2, 0, 1, 2, 0]
    assert dealt([1, 9, 1, 9, 1, 9], 2) == [0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "٣/٤", "1/" + "9" * 48])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=f"--share: {text} is no share"):
        Share.given(text)


def test_a_launcher_says_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Share.given() == Share(0, 1)
    assert Share.given("2/3") == Share(1, 3)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Share.given() == Share(3, 4)
    with pytest.raises(OptionError, match="goes without a launcher"):
        Share.given("1/2")


@pytest.mark.parametrize(("rank", "size"), [("x", "2"), ("0", "y"), ("-1", "2"), ("2", "2"), ("0", "9" * 5000)])
def test_a_launcher_that_says_no_share_is_refused(rank: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(OptionError, match=r"environment: RANK is '.*', WORLD_SIZE is '.{1,30}; a launcher sets them"):
        Share.given()
