"""Reading checkpoints: what is taken, and every file that is refused, each with one line."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sensikit.backends.fairseq import checkpoint as checkpoints
from sensikit.backends.fairseq.checkpoint import namespace, read
from sensikit.backends.fairseq.values import Settings
from sensikit.errors import CheckpointError


def save(path: Path, model: object = None, **others: object) -> Path:
    torch.save({"model": {"weight": torch.arange(6.0)} if model is None else model, **others}, path)
    return path


def rezipped(path: Path, out: Path, compression: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
    """Write the entries of the checkpoint at `path`, and more of them, as another archive."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        for name, content in more.items():
            new.writestr(name, content)
    return out


def refused(path: Path, problem: str) -> CheckpointError:
    """Return the error that reading raises: one line that names the file, the problem and what to do."""
    with pytest.raises(CheckpointError, match=re.escape(problem)) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return caught.value


def test_weights_and_the_rest_are_taken_and_the_optimizer_is_not(tmp_path: Path) -> None:
    tied = torch.ones(2, 3)
    path = save(tmp_path / "c.pt", {"a": tied, "b": tied}, args=1, last_optimizer_state={"m": torch.zeros(9)})
    found = read(path)
    assert found.state["a"] is found.state["b"]
    torch.testing.assert_close(found.state["a"], tied, rtol=0, atol=0)
    assert found.content == {"args": 1}
    assert found.has_optimizer
    assert not read(save(tmp_path / "d.pt")).has_optimizer
    assert found.bytes == path.stat().st_size
    assert len(found.sha256) == 64


def test_the_tensors_outlive_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt")
    found = read(path)
    path.write_bytes(b"")
    assert found.state["weight"].tolist() == [0, 1, 2, 3, 4, 5]


def test_real_checkpoint(tiny_checkpoint: Path) -> None:
    found = read(tiny_checkpoint)
    assert found.has_optimizer
    assert {tensor.dtype for tensor in found.state.values()} == {torch.float32}
    assert set(found.content) >= {"cfg", "optimizer_history"}


def test_missing_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.pt", "does not exist")


def test_directory(tmp_path: Path) -> None:
    assert refused(tmp_path, "is a directory")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "c.pt").touch()
    assert refused(tmp_path / "c.pt", "is empty")


def test_device(tmp_path: Path) -> None:
    assert refused(Path("/dev/null"), "is not a regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt")
    path.chmod(0)
    assert refused(path, "cannot be read")


def test_text_file(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_text("not a checkpoint")
    assert refused(tmp_path / "c.pt", "is not a checkpoint")


def test_safetensors_under_a_wrong_name(tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.ones(3)}, tmp_path / "c.pt")
    assert refused(tmp_path / "c.pt", "is not a checkpoint")


def test_old_torch_format(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(3)}}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    assert "torch.save of torch 1.6" in refused(tmp_path / "c.pt", "format of torch before 1.6").remedy


def test_bare_pickle(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "c.pt").write_bytes(pickle.dumps({"model": {}}, protocol))
        assert refused(tmp_path / "c.pt", "is not a checkpoint" if protocol < 2 else "format of torch before 1.6")


def test_other_zip_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert refused(tmp_path / "c.pt", "is a zip archive but not a checkpoint")


def test_truncated(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt")
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(path, "is truncated or damaged")


def test_a_flipped_bit_in_a_weight_is_found_though_torch_would_load_it(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", {"w": torch.full((64,), 1.5)})
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((64,), 1.5).numpy().tobytes()) + 8] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["model"]["w"][2] != 1.5
    assert refused(path, "wrong checksum")


def test_compressed_entries_as_in_a_zip_bomb(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", {"w": torch.zeros(1_000_000)})
    assert refused(rezipped(path, tmp_path / "d.pt", zipfile.ZIP_DEFLATED), "compressed entries")


def test_entries_that_overlap_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", {f"w{i}": torch.full((5000,), float(i)) for i in range(3)})
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        offsets = {info.filename: info.header_offset for info in archive.infolist()}
    first = offsets["c/data/0"].to_bytes(4, "little")
    for name in ("c/data/1", "c/data/2"):
        directory = data.rindex(name.encode()) - 46
        data = data[: directory + 42] + first + data[directory + 46 :]
    (tmp_path / "d.pt").write_bytes(data)
    with pytest.raises(CheckpointError):
        read(tmp_path / "d.pt")


def test_claimed_sizes_beyond_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt")
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"c/data/0") - 46
    data[directory + 20 : directory + 28] = (1 << 30).to_bytes(4, "little") * 2
    path.write_bytes(data)
    assert refused(path, "claims to hold more than its own size")


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt")
    with pytest.warns(UserWarning, match="Duplicate name"):
        rezipped(path, tmp_path / "d.pt", **{"c/data/0": b"x"})
    assert refused(tmp_path / "d.pt", "torch.save did not write")


def test_two_structures(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt")
    assert refused(rezipped(path, tmp_path / "d.pt", **{"d/data.pkl": b"x"}), "not a checkpoint")


def test_huge_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PICKLE_LIMIT", 1 << 20)
    assert refused(save(tmp_path / "c.pt", note="x" * (2 << 20)), "2 MB of structure")


@pytest.mark.parametrize("content", [[1, 2], {"weights": {}}, {"model": [torch.ones(2)]}])
def test_content_without_a_model(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "c.pt")
    assert refused(tmp_path / "c.pt", "holds no 'model'")


def test_empty_model(tmp_path: Path) -> None:
    assert refused(save(tmp_path / "c.pt", {}), "has an empty model")


@pytest.mark.parametrize("value", [1.0, "text", None, [torch.ones(2)]])
def test_something_other_than_tensors_in_the_model(tmp_path: Path, value: object) -> None:
    assert refused(save(tmp_path / "c.pt", {"w": value}), "something other than a tensor")


def test_tensor_that_would_grow_when_copied(tmp_path: Path) -> None:
    assert refused(save(tmp_path / "c.pt", {"w": torch.zeros(1).expand(1 << 40)}), "not dense")


def test_sparse_tensor(tmp_path: Path) -> None:
    assert refused(save(tmp_path / "c.pt", {"w": torch.eye(3).to_sparse()}), "not dense")


def test_many_views_of_one_memory(tmp_path: Path) -> None:
    whole = torch.zeros(10_000)
    assert refused(save(tmp_path / "c.pt", {f"w{i}": whole[i:] for i in range(100)}), "overlap in memory")


def test_namespace_gives_named_values_alone() -> None:
    assert namespace(argparse.Namespace(a=1)) == {"a": 1}
    assert namespace({"a": 1, 2: 3}) == {"a": 1}
    assert namespace([1]) == {}
    assert namespace(None) == {}


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda s: s.integer("x", 1, 10), 0),
        (lambda s: s.integer("x", 1, 10), 11),
        (lambda s: s.integer("x", 1, 10), True),
        (lambda s: s.integer("x", 1, 10), 1.5),
        (lambda s: s.number("x", 0, 1), float("nan")),
        (lambda s: s.number("x", 0, 1), float("inf")),
        (lambda s: s.number("x", 0, 1), 1.01),
        (lambda s: s.number("x", 0, 1), True),
        (lambda s: s.number("x", 0, 1), torch.ones(1)),
        (lambda s: s.flag("x"), "__import__('os')"),
        (lambda s: s.flag("x"), 2),
        (lambda s: s.flag("x"), "true or true"),
        (lambda s: s.choice("x", ("a", "b")), "c"),
        (lambda s: s.choice("x", ("a", "b")), ["a"]),
        (lambda s: s.codes("x"), "cat,no b"),
        (lambda s: s.codes("x"), ["cat", 1]),
        (lambda s: s.codes("x"), "../cat"),
        (lambda s: s.codes("x"), {"cat": 1}),
        (lambda s: s.pairs("x"), "cat"),
        (lambda s: s.pairs("x"), "cat-eng-fra"),
        (lambda s: s.pairs("x"), ["cat-eng", 1]),
        (lambda s: s.pairs("x"), ["cat-../eng"]),
        (lambda s: s.pairs("x"), 7),
    ],
)
def test_setting_out_of_bounds(call, value) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CheckpointError, match=r"has the setting x = .*expected"):
        call(Settings(Path("c.pt"), {"x": value}))


def test_settings_within_bounds() -> None:
    settings = Settings(
        Path("c.pt"),
        {"n": 5, "f": 0.25, "whole": 6.0, "yes": "True", "on": True, "langs": "cat,en_XX", "pairs": ["cat-eng"]},
    )
    assert settings.integer("n", 1, 10) == 5
    assert settings.integer("whole", 1, 10) == 6
    assert Settings(Path("c.pt"), {"text": "5"}).integer("text", 1, 10) == 5  # as fairseq keeps --decoder-output-dim
    assert settings.integer("none", 1, 10, 3) == 3
    assert settings.number("f", 0, 1) == 0.25
    assert settings.number("none", 0, 1, 0.5) == 0.5
    assert settings.flag("yes") is settings.flag("on") is settings.flag("none", True) is True
    assert settings.choice("none", ("a",), "a") == "a"
    assert settings.codes("langs") == ("cat", "en_XX")
    assert settings.codes("none") == settings.pairs("none") == ()
    assert settings.pairs("pairs") == (("cat", "eng"),)


def test_a_refusal_shows_a_hostile_value_in_one_short_line() -> None:
    settings = Settings(Path("c.pt"), {"x": "\x1b[31m\n" * 1000})
    with pytest.raises(CheckpointError) as caught:
        settings.integer("x", 0, 1)
    assert len(str(caught.value)) < 200
    assert "\x1b" not in str(caught.value)
