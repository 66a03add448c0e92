"""Data that do not belong to the checkpoint, or are damaged: each is refused with one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sensikit.backends.fairseq.opening import open_checkpoint
from sensikit.errors import DataError
from tests.support.checkpoints import translation
from tests.support.command import call


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the binarised data alone."""
    return Path(shutil.copytree(tiny_data / "bin", tmp_path / "bin"))


def refused(checkpoint: Path, data: Path, problem: str, split: str = "train") -> None:
    with pytest.raises(DataError, match=problem) as caught:
        translation(open_checkpoint(checkpoint, data, device="cpu")).sizes("cat", split)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_no_directory(tiny_checkpoint: Path, tmp_path: Path) -> None:
    refused(tiny_checkpoint, tmp_path / "none", "none: does not exist")
    (tmp_path / "file").touch()
    refused(tiny_checkpoint, tmp_path / "file", "file: is not a directory")


def test_empty_directory(tiny_checkpoint: Path, tmp_path: Path) -> None:
    refused(tiny_checkpoint, tmp_path, r"has no manifest\.json and no dict\.LANG\.txt; give what sensikit corpus")


def test_directory_above_the_data(tiny_checkpoint: Path, data: Path) -> None:
    refused(tiny_checkpoint, data.parent, f"give {data}")


def test_damaged_manifest(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    for content in ("{", "[]", '{"languages": []}'):
        (copy / "manifest.json").write_text(content)
        refused(tiny_checkpoint, copy, r"manifest\.json: is not")


@pytest.mark.parametrize("name", ["bin/train.cat-eng.cat.bin", "bin/dict.nob.txt", "text/test.fao-eng.eng"])
def test_file_that_is_not_what_the_manifest_says(
    name: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content.replace(content[:6], content[:6][::-1], 1))
    with pytest.raises(DataError, match=f"{name}: is not what the manifest says|dictionaries|entries"):
        open_checkpoint(tiny_checkpoint, copy, device="cpu")


def test_dictionary_of_another_size(tiny_checkpoint: Path, data: Path) -> None:
    for path in data.glob("dict.*"):
        path.write_text(path.read_text() + "extra 1\n")
    refused(tiny_checkpoint, data, r"its dictionary has \d\d entries with the language tags, the model \d\d;")


def test_dictionaries_that_differ(tiny_checkpoint: Path, data: Path) -> None:
    path = data / "dict.nob.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    refused(tiny_checkpoint, data, "dictionaries do not belong together")


def test_damaged_dictionary(tiny_checkpoint: Path, data: Path) -> None:
    for path in data.glob("dict.*"):
        path.write_text("no count\nat all\n")
    refused(tiny_checkpoint, data, "dictionaries do not belong together")


def test_dictionary_that_is_not_text(tiny_checkpoint: Path, data: Path) -> None:
    for path in data.glob("dict.*"):
        path.write_bytes(b"\xff\xfe\x00 1\n")
    refused(tiny_checkpoint, data, r"dict\.cat\.txt: is not UTF-8 text")


def test_missing_dictionary(tiny_checkpoint: Path, data: Path) -> None:
    (data / "dict.fao.txt").unlink()
    refused(tiny_checkpoint, data, r"dict\.fao\.txt: does not exist")


def test_missing_language(tiny_checkpoint: Path, data: Path) -> None:
    for path in data.glob("*.fao-eng.*"):
        path.unlink()
    model = open_checkpoint(tiny_checkpoint, data, device="cpu")
    assert list(model.task("mt").groups) == ["cat", "nob"]
    assert model.notes == [f"fao: left out, no data in {data}"]


def test_no_language_is_there(tiny_checkpoint: Path, data: Path) -> None:
    for path in data.glob("*-eng.*"):
        path.unlink()
    refused(tiny_checkpoint, data, "has no binarised cat-eng, nob-eng, fao-eng; give the data")


def test_missing_split(tiny_checkpoint: Path, data: Path) -> None:
    (data / "train.cat-eng.cat.idx").unlink()
    refused(tiny_checkpoint, data, "has no train set of cat-eng")
    assert translation(open_checkpoint(tiny_checkpoint, data, device="cpu")).sizes("cat", "test").shape == (12, 2)


def test_no_sentences(tiny_checkpoint: Path, data: Path) -> None:
    for side in ("cat", "eng"):
        index = data / f"train.cat-eng.{side}.idx"
        index.write_bytes(index.read_bytes()[:18] + bytes(8))
        (data / f"train.cat-eng.{side}.bin").write_bytes(b"")
    refused(tiny_checkpoint, data, "holds no sentences")


def cut_index(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def overwrite_start(path: Path) -> None:
    path.write_bytes(b"x" * 26 + path.read_bytes()[26:])


def claim_a_strange_type(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:17] + b"\x06" + content[18:])


def claim_more_tokens(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:26] + (1 << 30).to_bytes(4, "little") + content[30:])


def point_elsewhere(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-8:] = bytes(8)
    path.write_bytes(data)


def claim_no_tokens(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:26] + bytes(4) + content[30:])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut_index, "is truncated or damaged"),
        (overwrite_start, "is not an index of --dataset-impl mmap"),
        (point_elsewhere, "has sentences that do not follow each other"),
        (claim_a_strange_type, "is truncated or damaged"),
        (claim_more_tokens, "has another length than its index says"),
        (claim_no_tokens, "has another length than its index says"),
    ],
)
def test_damaged_index(damage: Callable[[Path], None], problem: str, tiny_checkpoint: Path, data: Path) -> None:
    damage(data / "train.cat-eng.cat.idx")
    refused(tiny_checkpoint, data, problem)


@pytest.mark.parametrize("name", ["train1.cat-eng", "train1.eng-cat"])
def test_a_second_training_set_is_refused_by_name(tiny_checkpoint: Path, data: Path, name: str) -> None:
    for path in data.glob("train.cat-eng.*"):
        shutil.copy(path, data / path.name.replace("train.cat-eng", name))
    refused(tiny_checkpoint, data, "train1.* is a second training set, which fairseq-train reads with the first")


def test_several_directories_are_refused_by_name(tiny_checkpoint: Path, data: Path) -> None:
    refused(tiny_checkpoint, Path(f"{data}:{data}"), "is several directories, as fairseq takes shards")
    done = call("analyze", tiny_checkpoint, "--data", f"{data}:{data}", "--out", data / "run")
    assert (done.code, "is several directories" in done.error, done.error.count("\n")) == (2, True, 1)


def test_truncated_text(tiny_checkpoint: Path, data: Path) -> None:
    path = data / "train.cat-eng.eng.bin"
    path.write_bytes(path.read_bytes()[:-2])
    refused(tiny_checkpoint, data, "has another length than its index says")


def test_tokens_of_a_larger_dictionary(tiny_checkpoint: Path, data: Path) -> None:
    """The model would read beyond its embedding: an index error on a CPU, an aborted process on a GPU."""
    path = data / "train.cat-eng.eng.bin"
    tokens = np.fromfile(path, dtype=np.uint16)
    tokens[7] = 60
    tokens.tofile(path)
    refused(tiny_checkpoint, data, "has tokens beyond the dictionary's")


def test_sides_of_different_lengths(tiny_checkpoint: Path, data: Path) -> None:
    for kind in ("idx", "bin"):
        shutil.copy(data / f"test.cat-eng.eng.{kind}", data / f"train.cat-eng.eng.{kind}")
    refused(tiny_checkpoint, data, "has 240 and 12 sentences")
