"""Checkpoints whose pickles ask for too much, or for other tensors than dense ones of real numbers: refused, unread."""

from __future__ import annotations

import os
import pickle
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from sensikit.backends.fairseq import structure
from sensikit.backends.fairseq.checkpoint import read
from sensikit.backends.fairseq.inspection import inspect
from sensikit.backends.fairseq.opening import open_checkpoint
from sensikit.errors import CheckpointError
from tests.support.checkpoints import content_of, edited, values


def zipped(path: Path, structure: bytes, storage: bytes = bytes(8)) -> Path:
    """Write an archive as of torch.save around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", structure)
        archive.writestr("c/byteorder", b"little")
        archive.writestr("c/data/0", storage)
        archive.writestr("c/version", b"3\n")
    return path


def nested(levels: int) -> tuple[Any, ...]:
    """Return a tuple that unfolds to 2 ** levels parts, and takes next to no place."""
    found: tuple[Any, ...] = ()
    for _ in range(levels):
        found = (found, found)
    return found


LATE = b"]q\x00]q\x01(h\x00h\x00e(h\x01h\x01e"  # what is held by one list grows when another is filled
STORAGE = b"((X\x07\x00\x00\x00storagectorch\n%s\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQt"

PICKLES = {
    "an array of 3 GB": (
        b"c__builtin__\nbytearray\n\x8a\x05\x00^\xd0\xb2\x00\x85R",
        r"objects \(builtins\.bytearray\)",
    ),
    "tuples that double": (pickle.dumps(nested(60), 2)[2:-1], "unfolds without end"),
    "lists that double later": (LATE, "unfolds without end|contains itself"),
    "a list in itself": (b"]q\x00h\x00a", "contains itself"),
    "a dict in itself": (b"}q\x00K\x01h\x00s", "contains itself"),
    "tuples in tuples": (b")" + b"\x85" * 100_000, "unfolds without end"),
    "a key with an endless hash": (b"}" + pickle.dumps(nested(30), 2)[2:-1] + b"Ns", "unfolds|no plain value"),
    "a tuple as a key": (b"})Ns", "a key that is no plain value"),
    "numbers that collide": (b"\x8a\x10" + b"\x7f" * 16, "more than 64 bits"),
    "too many steps": (b"]" * 1000, "more than 500 steps"),
    "methods of a dict": (b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb", "attributes"),
    "an encoding of its own": (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00idna\x86R", "way of its own"),
    "a counter": (b"ccollections\nCounter\n)R", r"objects \(collections\.Counter\)"),
    "a storage beyond its own": (STORAGE % (b"FloatStorage", 3), "its storage '0' has 3 elements"),
    "a storage of another dtype": (STORAGE % (b"HalfStorage", 2), "its storage '0' has 2 elements"),
    "a storage that is missing": (STORAGE.replace(b"0X", b"1X") % (b"FloatStorage", 2), "its storage '1' has 2"),
    "a later protocol": (b"\x8c\x01a", "opcode SHORT_BINUNICODE"),
    "nothing on the stack": (b"R", "IndexError in its structure"),
    "half a string": (b"X\xff\x00\x00\x00a", "ValueError in its structure"),
    "an unknown opcode": (b"\xff", "ValueError in its structure"),
    "a memo that is empty": (b"h\x07", "KeyError in its structure"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_asks_for_too_much_or_makes_no_sense(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, problem = PICKLES[kind]
    if "steps" in problem:
        monkeypatch.setattr(structure, "MOST_OPCODES", 500)
    monkeypatch.setattr(torch, "load", pytest.fail)  # it is refused before anything is made of it
    started = time.process_time()
    with pytest.raises(CheckpointError, match=problem) as caught:
        read(zipped(tmp_path / "c.pt", b"\x80\x02" + body + b"."))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.process_time() - started < 5


class WithState(torch.Tensor):
    """A tensor of another class."""


def attributed(tensor: torch.Tensor) -> torch.Tensor:
    tensor.remark = "kept"  # type: ignore[attr-defined]
    return tensor


TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "complex": lambda tensor: tensor.to(torch.complex64),
    "integer": lambda tensor: tensor.to(torch.int32),
    "bool": lambda tensor: tensor > 0,
    "float8": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor]),
    "sparse": lambda tensor: tensor.to_sparse(),
    "compressed": lambda tensor: tensor.to_sparse_csr(),
    "quantised": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "meta": lambda tensor: tensor.to("meta"),
    "of a class of its own": lambda tensor: tensor.as_subclass(WithState),
    "with attributes": attributed,
    "expanded": lambda tensor: tensor[:1].expand(tensor.shape),
    "transposed": lambda tensor: tensor.T.contiguous().T,
    "negated": lambda tensor: torch.complex(tensor, tensor).conj().imag,
    "no tensor": lambda _: [1.0],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TENSORS)
def test_a_tensor_of_another_kind(kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    name = "encoder.layers.0.fc1.weight"

    def change(state: dict[str, Any]) -> None:
        state[name] = TENSORS[kind](state[name])

    path = edited(tiny_checkpoint, tmp_path / "c.pt", state=change)
    with pytest.raises(CheckpointError, match=r"fc1\.weight|is not dense|contains code or objects") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["encoder.\x1b[31mred\x07", "a\u202eb", "x" * 1000, "", "../../x"])
def test_a_name_of_a_tensor_that_is_none(name: str, tmp_path: Path) -> None:
    torch.save({"model": {name: torch.ones(2)}}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="has a tensor with the name") as caught:
        read(tmp_path / "c.pt")
    assert str(caught.value).isprintable()


def test_a_tensor_in_place_of_the_optimizers_state(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "last_optimizer_state": torch.ones(2)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="other than the state of an optimizer"):
        read(tmp_path / "c.pt")


def test_a_setting_whose_text_would_have_no_end(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", task={"left_pad_source": nested(15)})
    problem = inspect(path).problem
    assert "left_pad_source = ((" in problem
    assert len(problem) < 200


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_would_be_waited_for_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.pt" if kind == "pipe" else Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        read(path)


@pytest.mark.parametrize("words", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}"])
def test_what_a_wrapper_put_before_names_is_left_out_and_said(
    words: str, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    def wrap(state: dict[str, Any]) -> None:
        for name in list(state):
            state[words.format(name)] = state.pop(name)

    path = edited(tiny_checkpoint, tmp_path / "c.pt", state=wrap)
    model, plain = (open_checkpoint(each, tiny_data, device="cpu") for each in (path, tiny_checkpoint))
    assert values(model) == values(plain)
    assert "names without " in model.provenance.framework
    assert any("which a wrapper put there" in note for note in model.notes)
    assert inspect(path).tied == inspect(tiny_checkpoint).tied


def test_a_part_of_a_compiled_model_and_a_name_that_stands_twice(tmp_path: Path) -> None:
    names = ["encoder.layers.0._orig_mod.fc1.weight", "encoder.version"]
    torch.save({"model": {name: torch.ones(2) for name in names}}, tmp_path / "c.pt")
    assert list(read(tmp_path / "c.pt").state) == ["encoder.layers.0.fc1.weight", "encoder.version"]
    torch.save({"model": {"module.w": torch.ones(2), "w": torch.zeros(2)}}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="twice, with and without module"):
        read(tmp_path / "c.pt")


def test_a_shard_is_told_by_what_it_is(tmp_path: Path) -> None:
    torch.save({"model": {"flat_param_0": torch.ones(2), "decoder.version": torch.ones(1)}}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"-shard0.*put them together first"):
        read(tmp_path / "c.pt")


def test_settings_of_omegaconf_are_refused_with_what_the_owner_can_do(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    content, path = content_of(tiny_checkpoint), tmp_path / "c.pt"
    plain = {name: vars(part) if isinstance(part, Namespace) else part for name, part in content["cfg"].items()}
    content["cfg"] = OmegaConf.create(plain)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"omegaconf\.dictconfig\.DictConfig.*OmegaConf\.to_container"):
        read(path)
    mended = torch.load(path, weights_only=False)
    mended["cfg"] = OmegaConf.to_container(mended["cfg"], enum_to_str=True)
    torch.save(mended, path)
    opened = [open_checkpoint(each, tiny_data, device="cpu") for each in (path, tiny_checkpoint)]
    assert values(opened[0]) == values(opened[1])


def test_a_number_that_fairseq_keeps_as_text(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint, tmp_path / "c.pt", model={"decoder_output_dim": "32"})
    opened = [open_checkpoint(each, tiny_data, device="cpu") for each in (path, tiny_checkpoint)]
    assert values(opened[0]) == values(opened[1])
