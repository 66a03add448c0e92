"""Bad input through the command line: exit code 2, one line that names the fault, and nothing is lost."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from sensikit import files
from sensikit.run import Run
from tests.support.command import Called, call

SMALL = ["--batches", 4, "--tokens", 60, "--micro-batches", 1]


def refused(done: Called, *words: str) -> None:
    """Assert one line on standard error that holds `words`, and exit code 2."""
    assert done.code == 2, done.error
    lines = [line for line in done.error.splitlines() if line.startswith("sensikit: ")]
    assert len(lines) == 1, done.error
    assert "Traceback" not in done.error
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bad") / "run"
    done = call("analyze", tiny_checkpoint, "--data", tiny_data, "--out", out, *SMALL)
    assert done.code == 0, done.error
    return out


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def broken(kind: str, whole: Path, place: Path) -> Path:
    """Return a checkpoint that is broken in one way."""
    path = place / "broken.pt"
    content = whole.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("these are not the weights you are looking for")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        with zipfile.ZipFile(whole) as archive:
            entry = max(archive.infolist(), key=lambda each: each.file_size)
        middle = entry.header_offset + entry.file_size // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif kind == "malicious":
        torch.save({"model": {"weight": torch.zeros(2)}, "extra": Payload(place / "marker")}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(place / "marker")))
    elif kind == "directory":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "truncated", "flipped", "malicious", "pickle", "directory"]
)
@pytest.mark.parametrize("verb", ["analyze", "inspect"])
def test_a_checkpoint_that_cannot_be_trusted(
    kind: str, verb: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    path = broken(kind, tiny_checkpoint, tmp_path)
    extra = ["--data", tiny_data, "--out", tmp_path / "run", *SMALL] if verb == "analyze" else []
    refused(call(verb, path, *extra), str(path))
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "run").exists()


def test_data_that_do_not_belong_to_the_checkpoint(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_data / "bin", other)
    for path in other.glob("dict.*.txt"):
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[:-9]) + "\n")
    refused(call("analyze", tiny_checkpoint, "--data", other, "--out", tmp_path / "run", *SMALL), str(other))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["missing", "file", "nothing in it"])
def test_data_that_are_no_data(what: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    if what == "file":
        data.write_text("text")
    elif what == "nothing in it":
        data.mkdir()
    refused(call("analyze", tiny_checkpoint, "--data", data, "--out", tmp_path / "run", *SMALL), str(data))
    assert not (tmp_path / "run").exists()


def test_an_unknown_language(tiny_checkpoint: Path, tiny_data: Path, run: Path, tmp_path: Path) -> None:
    options = ["--data", tiny_data, "--out", tmp_path / "run", "--groups", "cat,xyz", *SMALL]
    refused(call("analyze", tiny_checkpoint, *options), "--groups", "xyz", "cat, nob, fao")
    refused(call("prune", run, "--groups", "xyz", "--tokenizer", "13a"), "--groups", "xyz")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["empty", "damaged"])
def test_a_group_whose_data_are_damaged(how: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "bin"
    shutil.copytree(tiny_data / "bin", data)
    for path in data.glob("train.fao-eng.*"):
        path.write_bytes(b"" if how == "empty" else path.read_bytes()[:40])
    refused(call("analyze", tiny_checkpoint, "--data", data, "--out", tmp_path / "run", *SMALL), "fao")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("files", "note"),
    [("*fao*", "fao: left out, no data in"), ("train.fao*", "fao: left out, for the train split has no sentence")],
)
def test_a_group_without_data_is_left_out_and_said(
    files: str, note: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "bin"
    shutil.copytree(tiny_data / "bin", data, ignore=shutil.ignore_patterns(files))
    done = call("analyze", tiny_checkpoint, "--data", data, "--out", tmp_path / "run", *SMALL)
    assert done.code == 0, done.error
    assert note in done.error
    assert Run.open(tmp_path / "run").groups() == ["cat", "nob"]


def test_one_group_alone_has_no_other_to_be_compared_with(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "bin"
    shutil.copytree(tiny_data / "bin", data, ignore=shutil.ignore_patterns("*fao*", "*nob*"))
    done = call("analyze", tiny_checkpoint, "--data", data, "--out", tmp_path / "run", *SMALL)
    refused(done, "cat", "needs at least two groups")
    assert not (tmp_path / "run").exists()


def test_an_output_that_exists_is_left_as_it_is(tiny_checkpoint: Path, tiny_data: Path, run: Path) -> None:
    before = snapshot(run)
    refused(call("analyze", tiny_checkpoint, "--data", tiny_data, "--out", run, *SMALL), str(run), "--resume")
    assert snapshot(run) == before


def test_a_resume_with_other_settings_leaves_the_run_as_it_is(
    tiny_checkpoint: Path, tiny_data: Path, run: Path
) -> None:
    before = snapshot(run)
    options = ["--data", tiny_data, "--out", run, "--resume", "--batches", 4, "--tokens", 50]
    refused(call("analyze", tiny_checkpoint, *options), str(run), "tokens:60, not tokens:50")
    assert snapshot(run) == before


@pytest.mark.parametrize("ratios", ["1.5", "-0.1", "0:2:0.5", "0.95", "nan", "none", "0:0.9:0", ""])
def test_a_ratio_that_is_none(ratios: str, run: Path) -> None:
    before = snapshot(run)
    refused(call("prune", run, f"--ratios={ratios}", "--tokenizer", "13a"), "--ratios")
    assert snapshot(run) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tiny_checkpoint: Path, tiny_data: Path, run: Path, tmp_path: Path) -> None:
    options = ["--data", tiny_data, "--out", tmp_path / "run", "--device", "cuda", *SMALL]
    refused(call("analyze", tiny_checkpoint, *options), "--device")
    refused(call("prune", run, "--device", "cuda", "--tokenizer", "13a"), "--device")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_full_disk_leaves_a_run_that_resumes(
    after: int, tiny_checkpoint: Path, tiny_data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    real, written = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal written
        written += 1
        if written > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    refused(call("analyze", tiny_checkpoint, "--data", tiny_data, "--out", out, *SMALL), "the disk is full")
    monkeypatch.undo()
    assert not list(out.rglob("*.partial"))
    assert call("analyze", tiny_checkpoint, "--data", tiny_data, "--out", out, "--resume", *SMALL).code == 0
    assert (out / "correlation.csv").read_bytes() == (run / "correlation.csv").read_bytes()


def test_a_run_that_is_none(tmp_path: Path) -> None:
    for verb in ("prune", "report"):
        refused(call(verb, tmp_path), str(tmp_path), "not a run directory")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_other_than_the_one_that_was_measured(run: Path, plain_checkpoint: Path) -> None:
    refused(call("prune", run, "--checkpoint", plain_checkpoint, "--tokenizer", "13a"), "another checkpoint")
    assert not (run / "pruning").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rest", "both"), ("--loss", "mse"), ("--preset", "paper"), ("--batches", "0"), ("--tokens", "0")],
)
def test_an_option_that_cannot_be(
    option: str, value: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    done = call("analyze", tiny_checkpoint, "--data", tiny_data, "--out", tmp_path / "run", option, value)
    refused(done, option)
    assert not (tmp_path / "run").exists()
