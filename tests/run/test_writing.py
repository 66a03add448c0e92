"""Writing a run directory: by one process, and whole or not there after a kill or on a full disk."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sensikit import run as store
from sensikit.errors import RunError, SensikitError
from sensikit.run import Run
from tests.support.stored import PARAMETERS, filled, vector


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return filled(tmp_path / "run")


def test_the_manifest_is_written_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    replace = Path.replace

    def renamed(self: Path, target: Path) -> Path:
        written.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", renamed)
    run.write_set("mt", "all", {"": vector(5), "half": vector(6)}, {})
    assert [name for name in written if not name.startswith(".")] == [
        "all.safetensors",
        "all.half.safetensors",
        "manifest.json",
    ]


class Stop(Exception):
    pass


def test_a_set_is_not_there_until_the_manifest_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", stop)
        with pytest.raises(Stop):
            run.write_set("mt", "all", {"": vector(5)}, {})
    again = Run.open(run.path)
    assert again.vector("mt", "all").is_file()
    assert not again.has("mt", "all")
    assert again.has("mt", "cat")


def test_a_set_that_was_half_rewritten_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    save = store.save_file

    def once(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Stop
        save(*args)

    monkeypatch.setattr(store, "save_file", once)
    with pytest.raises(Stop):
        run.write_set("mt", "cat", {"": vector(7), "half": vector(8)}, {})
    again = Run.open(run.path)
    assert not again.has("mt", "cat")
    with pytest.raises(RunError, match=r"cat.safetensors: is missing or damaged; .*--resume"):
        again.check("mt", ["nob", "cat"])


PROGRAM = """
    import sys, time
    from pathlib import Path
    import torch
    from sensikit import folder
    from sensikit import run as store
    from sensikit.run import Run

    run = Run.open(sys.argv[1])

    def wait(*_):
        print("ready", flush=True)
        time.sleep(600)

    def half_written(_, path, metadata=None):
        path.write_bytes(b"half a vector")
        wait()

    if sys.argv[2] == "in a vector":
        store.save_file = half_written
    elif sys.argv[2] == "between two vectors":
        folder.sha256 = wait
    else:
        Run.save = wait
    new = {p.name: torch.ones(p.shape) for p in run.parameters}
    with run.locked():
        run.write_set("mt", "cat", {"": new, "half": new, "blocks": new}, {"batches": 1})
"""


def killed(run: Run, *arguments: str, program: str = PROGRAM) -> None:
    """Run a program on the run directory until it says that it is ready, and kill it there."""
    command = [sys.executable, "-c", textwrap.dedent(program), str(run.path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["in a vector", "between two vectors", "before the manifest"])
def test_a_kill_while_a_set_is_written_leaves_a_run_that_can_go_on(run: Run, moment: str) -> None:
    before = (run.path / "manifest.json").read_bytes()
    killed(run, moment)
    assert (run.path / "manifest.json").read_bytes() == before
    again = Run.open(run.path)
    assert again.has("mt", "nob")
    # the old set is whole, or seen not to be
    assert again.has("mt", "cat") == (moment == "in a vector")
    with again.locked():
        again.write_set("mt", "cat", {"": vector(0), "half": vector(10), "blocks": vector(1)}, {})
    assert Run.open(run.path).has("mt", "cat")
    assert not [path for path in run.path.rglob("*") if "partial" in path.name]


def test_the_name_of_safetensors_own_temporary_file_is_the_one_that_is_cleared(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        import torch
        from safetensors.torch import save_file
        # the kernel kills the process when its file grows past the limit, as a kill in the middle of a write would
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        save_file({"a": torch.zeros(100_000)}, sys.argv[1])
    """
    path = tmp_path / ".cat.safetensors.1.partial"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(path)], check=False)
    assert done.returncode == -signal.SIGXFSZ
    assert len(list(tmp_path.iterdir())) == 1
    with Run.begun(tmp_path, {"parameters": [asdict(each) for each in PARAMETERS]}, resume=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_a_vector_is_one_line_and_leaves_the_set_whole(run: Run) -> None:
    # the real thing: the system lets no file of this process grow beyond 300 bytes
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(SensikitError) as caught:
            run.write_set("mt", "cat", {"": vector(7)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(caught.value) == f"{run.vector('mt', 'cat')}: cannot be written (File too large); choose another place"
    assert Run.open(run.path).has("mt", "cat")
    assert len(list(run.vector("mt", "cat").parent.iterdir())) == 6


def test_a_full_disk_under_a_vector_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        # word for word what safetensors says on a full disk
        raise store.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(SensikitError, match=r"cat.safetensors: the disk is full; free some space") as caught:
        run.write_set("mt", "cat", {"": vector(7)}, {})
    assert caught.value.exit_code == 2
    assert Run.open(run.path).has("mt", "cat")
