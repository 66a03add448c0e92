"""The run directory: whole or not there, known by its hashes, read in bounded memory."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sensikit import store
from sensikit.errors import RunError, SensikitError
from sensikit.files import sha256
from sensikit.parameters import Parameter, registry
from sensikit.store import BLOCK_KEY, Run

SHAPES = [(), (1,), (7,), (3, 5), (2, 40), (40, 2), (2, 3, 4), (3, 1, 17), (1, 1, 1), (2, 2, 2, 3)]


class Shapes(nn.Module):
    def __init__(self, shapes: Sequence[tuple[int, ...]] = SHAPES) -> None:
        super().__init__()
        for number, shape in enumerate(shapes):
            self.register_parameter(f"p{number}", nn.Parameter(torch.zeros(shape)))
        self.linear = nn.Linear(3, 2)


PARAMETERS = registry(Shapes())
SIZE = sum(parameter.numel for parameter in PARAMETERS)
MANIFEST = {"version": "0", "languages": {"nob": {"name": "Norwegian"}, "cat": {"name": "Catalan"}}}


def vector(seed: int, parameters: Sequence[Parameter] = PARAMETERS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {p.name: torch.rand(p.shape, generator=generator) for p in parameters}


def flat(tensors: dict[str, torch.Tensor], parameters: Sequence[Parameter] = PARAMETERS) -> np.ndarray:
    return np.concatenate([tensors[p.name].reshape(-1).numpy() for p in parameters])


def filled(path: Path) -> Run:
    run = Run.create(path, MANIFEST, PARAMETERS)
    for seed, code in enumerate(["cat", "nob"]):
        blocks = torch.rand(4, SIZE, generator=torch.Generator().manual_seed(seed))
        run.write_set(
            "mt",
            code,
            {"": vector(seed), "half": vector(seed + 10), "blocks": {BLOCK_KEY: blocks}},
            {"batches": 4, "loss": 2.5},
        )
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return filled(tmp_path / "run")


# the manifest


def test_a_run_is_opened_as_it_was_made(run: Run) -> None:
    again = Run.open(run.path)
    assert again.parameters == PARAMETERS
    assert again.manifest == json.loads(json.dumps(run.manifest))
    assert list(again.manifest["languages"]) == ["nob", "cat"]
    assert again.manifest["sets"]["mt/cat"]["loss"] == 2.5
    assert again.manifest["format"] == 1


def test_languages_come_in_the_order_of_the_manifest_and_only_once_measured(run: Run) -> None:
    assert Run.open(run.path).languages() == ["nob", "cat"]
    assert Run.open(run.path).languages("denoise") == []
    del run.manifest["sets"]["mt/nob"]
    assert run.languages() == ["cat"]


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    first, second = filled(tmp_path / "a").path, filled(tmp_path / "b").path
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 7
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_the_vectors_are_plain_safetensors_under_the_names_of_the_parameters(run: Run) -> None:
    assert run.vector("mt", "cat", "half") == run.path / "sensitivity" / "mt" / "cat.half.safetensors"
    stored = load_file(run.path / "sensitivity" / "mt" / "cat.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {p.name: p.shape for p in PARAMETERS}
    assert all(torch.equal(tensor, vector(0)[name]) for name, tensor in stored.items())


@pytest.mark.parametrize("place", ["file", "full", "hidden"])
def test_what_stands_there_already_is_refused(tmp_path: Path, place: str) -> None:
    path = tmp_path / "run"
    if place == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / ("notes.txt" if place == "full" else ".notes")).write_text("mine")
    with pytest.raises(RunError, match=f"^{path}: already exists; .*--resume"):
        Run.create(path, MANIFEST, PARAMETERS)
    assert sum(found.read_text() == "mine" for found in tmp_path.rglob("*") if found.is_file()) == 1


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert Run.create(tmp_path, MANIFEST, PARAMETERS).path == tmp_path


def damaged(run: Run, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((run.path / "manifest.json").read_text())
    changed = change(manifest)
    (run.path / "manifest.json").write_text(json.dumps(manifest if changed is None else changed))


def without(
    field: str, of: Callable[[dict[str, Any]], dict[str, Any]] = lambda m: m
) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        del of(manifest)[field]

    return change


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "of a later format": (lambda m: m.update(format=2), "is not of format 1"),
    "without a format": (without("format"), "is not of format 1"),
    "a list": (lambda m: [m], "is not of format 1"),
    "without parameters": (without("parameters"), "lacks a field"),
    "with parameters that are none": (lambda m: m.update(parameters=[3]), "lacks a field"),
    "with half a parameter": (without("shape", of=lambda m: m["parameters"][0]), "lacks a field"),
    "with more than a parameter": (lambda m: m["parameters"][0].update(colour="red"), "lacks a field"),
    "without sets": (without("sets"), "lacks a field"),
    "with sets that are none": (lambda m: m.update(sets=[]), "lacks a field"),
    "without languages": (without("languages"), "lacks a field"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_manifest_that_is_not_ours_is_one_line(run: Run, name: str) -> None:
    change, problem = CHANGES[name]
    damaged(run, change)
    with pytest.raises(RunError, match=problem) as caught:
        Run.open(run.path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{run.path}/manifest.json: ")


@pytest.mark.parametrize("text", ["", "{", "\x00\x00"])
def test_a_manifest_that_is_damaged_is_one_line(run: Run, text: str) -> None:
    (run.path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest.json: is not valid JSON"):
        Run.open(run.path)


def test_what_is_no_run_directory_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match=f"^{path}: is not a run directory"):
            Run.open(path)


# writing


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
    from sensikit import store
    from sensikit.store import Run

    run = Run.open(sys.argv[1])
    hash_of, save_file = store.sha256, store.save_file

    def wait(*_):
        print("ready", flush=True)
        time.sleep(600)

    def half_written(_, path):
        path.write_bytes(b"half a vector")
        wait()

    if sys.argv[2] == "in a vector":
        store.save_file = half_written
    elif sys.argv[2] == "between two vectors":
        store.sha256 = wait
    else:
        Run.save = wait
    new = {p.name: torch.ones(p.shape) for p in run.parameters}
    with run.locked():
        run.write_set("mt", "cat", {"": new, "half": new}, {"batches": 1})
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
        again.write_set("mt", "cat", {"": vector(0), "half": vector(10)}, {})
    assert Run.open(run.path).has("mt", "cat")
    assert not [path for path in run.path.rglob("*") if "partial" in path.name]


def test_what_a_killed_writer_left_is_cleared_away_and_nothing_else(run: Run) -> None:
    folder = run.path / "sensitivity" / "mt"
    # ours, and the one safetensors writes beside ours before it renames it
    left = [folder / ".cat.safetensors.123.partial", folder / ".tmpKJONJQ"]
    mine = [folder / "notes.partial", run.path / ".hidden", folder / ".tmp"]
    for path in left + mine:
        path.write_text("x")
    with run.locked():
        assert not any(path.exists() for path in left)
    assert all(path.exists() for path in mine)
    assert run.has("mt", "cat")


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
    run = Run(tmp_path, {"parameters": []})
    with run.locked():
        pass
    assert [found.name for found in tmp_path.iterdir()] == [".lock"]


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


# one writer


def test_a_run_that_another_process_writes_is_refused_until_that_ends(run: Run) -> None:
    program = """
        import sys, time
        from sensikit.store import Run

        with Run.open(sys.argv[1]).locked():
            print("ready", flush=True)
            time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with (
            pytest.raises(RunError, match=f"^{run.path}: is being written by another process; wait for it to end$"),
            run.locked(),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    # the lock went with the process
    with run.locked():
        pass


def test_a_lock_is_let_go_of_after_an_exception(run: Run) -> None:
    with pytest.raises(Stop), run.locked():
        raise Stop
    with run.locked():
        pass


# damage


def test_a_stored_set_is_there(run: Run) -> None:
    assert run.has("mt", "cat")
    assert not run.has("mt", "fur")
    run.check("mt", ["cat", "nob"])


def test_one_flipped_bit_anywhere_in_a_vector_is_found(run: Run) -> None:
    for kind in ("", "half", "blocks"):
        path = run.vector("mt", "cat", kind)
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
        # safetensors has no checksum: it reads the changed number as if nothing had happened
        assert load_file(path)
        assert not run.has("mt", "cat")
        with pytest.raises(RunError, match="is missing or damaged"):
            run.check("mt", ["cat"])
        content[-3] ^= 1
        path.write_bytes(content)
        assert run.has("mt", "cat")


@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "noise"])
def test_a_vector_that_cannot_be_read_is_one_line(run: Run, damage: str) -> None:
    path = run.vector("mt", "cat")
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut short": content[:-1], "noise": os.urandom(500)}[damage])
    assert not run.has("mt", "cat")
    for reading in (lambda: run.check("mt", ["cat"]), lambda: next(run.stream([path]))):
        with pytest.raises(RunError, match=f"^{path}: is missing or damaged; .*--resume$"):
            reading()


def test_blocks_that_cannot_be_read_are_one_line(run: Run) -> None:
    path = run.vector("mt", "cat", "blocks")
    save_file({"something": torch.zeros(3)}, path)
    with pytest.raises(RunError, match=f"^{path}: lacks blocks; "):
        run.block_reader("mt", "cat")
    path.unlink()
    with pytest.raises(RunError, match=f"^{path}: is missing or damaged; "):
        run.block_reader("mt", "cat")


def test_a_set_that_was_never_measured_is_one_line(run: Run) -> None:
    with pytest.raises(RunError, match=f"^{run.path}: holds no sensitivities of mt/fur; .*--resume$"):
        run.check("mt", ["cat", "fur"])


def test_the_vectors_of_another_model_are_refused(run: Run) -> None:
    other = registry(Shapes([(7,), (3, 5), *SHAPES[2:]]))
    path = run.vector("mt", "cat")
    save_file(vector(0, other), path)
    with pytest.raises(RunError, match=f"^{path}: holds p0 in another shape; it belongs to another model"):
        list(run.stream([run.vector("mt", "nob"), path]))
    save_file(vector(0, PARAMETERS[:-1]), path)
    with pytest.raises(RunError, match=f"^{path}: lacks linear.bias; it belongs to another model"):
        list(run.stream([run.vector("mt", "nob"), path]))


# reading


@pytest.mark.parametrize("chunk", [1, 2, 5, 6, 16, 17, 1 << 18])
@pytest.mark.parametrize("names", [["cat"], ["cat", "nob", "cat"]])
def test_a_stream_is_the_whole_vectors_side_by_side(
    run: Run, monkeypatch: pytest.MonkeyPatch, chunk: int, names: list[str]
) -> None:
    monkeypatch.setattr(store, "CHUNK", chunk)
    blocks = list(run.stream([run.vector("mt", name) for name in names]))
    expected = np.stack([flat(vector({"cat": 0, "nob": 1}[name])) for name in names])
    assert np.array_equal(np.concatenate(blocks, axis=1), expected)
    assert all(block.dtype == np.float32 for block in blocks)
    assert max(block.shape[1] for block in blocks) <= chunk
    # pieces are as large as they may be, or 10⁸ numbers would take for ever
    largest = max(p.numel for p in PARAMETERS)
    assert max(block.shape[1] for block in blocks) > min(chunk, largest) / 2


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
def test_pieces_say_where_they_lie(run: Run, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(store, "CHUNK", chunk)
    whole = flat(vector(0))
    at = 0
    for (parameter, offset), block in run.pieces([run.vector("mt", "cat")]):
        assert parameter.start + offset == at
        assert at + block.shape[1] <= parameter.stop
        assert np.array_equal(block[0], whole[at : at + block.shape[1]])
        at += block.shape[1]
    assert at == SIZE


def test_some_of_the_parameters_can_be_read_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 4)
    some = [PARAMETERS[6], PARAMETERS[0], PARAMETERS[-1]]
    found = list(run.pieces([run.vector("mt", "cat")], some))
    assert {parameter for (parameter, _), _ in found} == set(some)
    assert np.array_equal(np.concatenate([block[0] for _, block in found]), flat(vector(0), some))
    assert list(run.stream([run.vector("mt", "cat")], [])) == []


def test_a_parameter_without_elements_has_no_piece(tmp_path: Path) -> None:
    parameters = registry(Shapes([(0, 4), (3,), (4, 0)]))
    run = Run.create(tmp_path / "run", MANIFEST, parameters)
    run.write_set("mt", "cat", {"": vector(0, parameters)}, {})
    (blocks,) = zip(*run.stream([run.vector("mt", "cat")]), strict=True)
    assert np.array_equal(np.concatenate(blocks), flat(vector(0, parameters), parameters))


def test_block_means_are_read_from_anywhere(run: Run) -> None:
    whole = load_file(run.vector("mt", "nob", "blocks"))[BLOCK_KEY].numpy()
    reader = run.block_reader("mt", "nob")
    assert np.array_equal(reader(0, SIZE), whole)
    assert np.array_equal(reader(3, 50), whole[:, 3:50])
    assert np.array_equal(reader(SIZE - 2, SIZE), whole[:, -2:])


# tables


def test_a_table_comes_back_as_it_was_written(run: Run) -> None:
    frame = pd.DataFrame(
        {"task": ["mt", "mt"], "language": ["nan", "NA"], "pcc": [0.1, np.nan], "seed": [1, 2], "note": ["a,b", 'x"y']}
    )
    path = run.write_table("correlation.csv", frame)
    assert path == run.path / "correlation.csv"
    again = run.read_table("correlation.csv")
    # Namibia's code, and the code of Min Nan Chinese, are no missing values
    pd.testing.assert_frame_equal(again, frame)


def test_a_table_that_is_not_there_is_one_line(run: Run) -> None:
    with pytest.raises(RunError, match=f"^{run.path}/pruning.csv: does not exist; "):
        run.read_table("pruning.csv")


def test_the_hash_in_the_manifest_is_that_of_the_file(run: Run) -> None:
    for entry in run.manifest["sets"].values():
        assert {sha256(run.path / file) for file in entry["files"]} == set(entry["files"].values())
        assert len(entry["files"]) == 3
