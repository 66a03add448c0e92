"""The run directory: known by its hashes, read in bounded memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from sensikit import run as store
from sensikit.errors import RunError
from sensikit.files import sha256
from sensikit.parameters import registry
from sensikit.run import BLOCK_KEY, MIXED, Run, rest_of
from tests.support.stored import PARAMETERS, SHAPES, SIZE, Shapes, empty, filled, flat, vector


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return filled(tmp_path / "run")


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


def test_a_vector_of_bfloat16_is_read_as_float32(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 7)  # from within a tensor too
    rounded = {name: tensor.bfloat16() for name, tensor in vector(0).items()}
    run.write_set("mt", "cat", {"": rounded, "half": vector(1)}, {})
    found = np.concatenate(list(run.stream([run.vector("mt", "cat"), run.vector("mt", "cat", "half")])), axis=1)
    assert found.dtype == np.float32
    assert np.array_equal(found[0], flat({name: tensor.float() for name, tensor in rounded.items()}))
    assert np.array_equal(found[1], flat(vector(1)))
    run.write_set("mt", "cat", {"": {name: tensor.half() for name, tensor in rounded.items()}}, {})
    with pytest.raises(RunError, match=f"^{run.vector('mt', 'cat')}: holds p0 in another type; "):
        next(run.stream([run.vector("mt", "cat")]))


# what a notebook shows


def test_a_run_shows_what_was_measured_and_how(run: Run) -> None:
    lines = repr(run).splitlines()
    assert lines == [
        f"Run {run.path}", f"  model: none, {SIZE:,} parameters", "  groups: nob, cat",
        "  mt: T = 9, not finished, S|task:mt",
    ]  # fmt: skip
    run.manifest["sets"] = dict.fromkeys(f"mt/{name}" for name in (MIXED, *map(rest_of, ("cat", "nob")), "cat", "nob"))
    assert repr(run).endswith("  mt: T = 9, S|task:mt")


def test_what_a_manifest_says_is_text_in_a_notebook_and_not_html(run: Run) -> None:
    run.manifest["provenance"]["framework"] = "<script>"
    page = run._repr_html_()
    assert "<script>" not in page
    assert "<th>model</th>" in page
    assert "&lt;script&gt;, " in page
    assert str(run.path) in page


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
    path, vectors = run.vector("mt", "cat", "blocks"), {"": vector(0), "half": vector(1)}
    for table, problem in (
        ({"something": torch.zeros(3)}, "lacks blocks"),
        ({BLOCK_KEY: torch.zeros(3, SIZE)}, "holds other blocks than its manifest says"),
    ):
        run.write_set("mt", "cat", {**vectors, "blocks": table}, {"block_batches": [1] * 4})
        with pytest.raises(RunError, match=f"^{path}: {problem}; "):
            run.block_reader("mt", "cat")
    path.unlink()
    with pytest.raises(RunError, match=f"^{path}: is missing or damaged; "):
        run.block_reader("mt", "cat")


def test_a_vector_is_checked_where_it_is_read_and_again_once_it_has_changed(run: Run) -> None:
    path, again = run.vector("mt", "cat", "blocks"), Run.open(run.path)
    for reader in (run, again):
        reader.block_reader("mt", "cat")
    save_file({BLOCK_KEY: torch.ones(4, SIZE)}, path)
    for reader in (run, again, Run.open(run.path)):
        with pytest.raises(RunError, match=f"^{path}: is missing or damaged; "):
            reader.block_reader("mt", "cat")


def test_a_set_that_was_never_measured_is_one_line(run: Run) -> None:
    with pytest.raises(RunError, match=f"^{run.path}: holds no sensitivities of mt/fur; .*--resume$"):
        run.check("mt", ["cat", "fur"])


def test_the_vectors_of_another_model_are_refused(run: Run) -> None:
    other = registry(Shapes([(7,), (3, 5), *SHAPES[2:]]))
    path = run.vector("mt", "cat")
    run.write_set("mt", "cat", {"": vector(0, other)}, {})
    with pytest.raises(RunError, match=f"^{path}: holds p0 in another shape; it belongs to another model"):
        list(run.stream([run.vector("mt", "nob"), path]))
    run.write_set("mt", "cat", {"": {name: tensor.double() for name, tensor in vector(0).items()}}, {})
    with pytest.raises(RunError, match=f"^{path}: holds p0 in another type; it belongs to another model"):
        list(run.stream([path]))
    run.write_set("mt", "cat", {"": vector(0, PARAMETERS[:-1])}, {})
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
    # chunks are as large as they may be, or 10⁸ numbers would take for ever
    largest = max(p.numel for p in PARAMETERS)
    assert max(block.shape[1] for block in blocks) > min(chunk, largest) / 2


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
def test_chunks_say_where_they_lie(run: Run, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(store, "CHUNK", chunk)
    whole = flat(vector(0))
    at = 0
    for (parameter, offset), block in run.chunks([run.vector("mt", "cat")]):
        assert parameter.start + offset == at
        assert at + block.shape[1] <= parameter.stop
        assert np.array_equal(block[0], whole[at : at + block.shape[1]])
        at += block.shape[1]
    assert at == SIZE


def test_some_of_the_parameters_can_be_read_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 4)
    some = [PARAMETERS[6], PARAMETERS[0], PARAMETERS[-1]]
    found = list(run.chunks([run.vector("mt", "cat")], some))
    assert {parameter for (parameter, _), _ in found} == set(some)
    assert np.array_equal(np.concatenate([block[0] for _, block in found]), flat(vector(0), some))
    assert list(run.stream([run.vector("mt", "cat")], [])) == []


def test_a_parameter_without_elements_has_no_chunk(tmp_path: Path) -> None:
    parameters = registry(Shapes([(0, 4), (3,), (4, 0)]))
    run = empty(tmp_path / "run", parameters=parameters)
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
        {"task": ["mt", "mt"], "group": ["nan", "NA"], "pcc": [0.1, np.nan], "seed": [1, 2], "note": ["a,b", 'x"y']}
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
