"""Checkpoints that want to run something: none does, and there is no way round."""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import io
import operator
import os
import pickle
import runpy
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensikit.backends.fairseq.checkpoint import read
from sensikit.backends.fairseq.opening import open_checkpoint
from sensikit.errors import CheckpointError, SensikitError
from tests.support.checkpoints import content_of


class Call:
    """Something that unpickles by calling a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def touching(marker: Path) -> dict[str, object]:
    """Return objects that write `marker` when they are unpickled, each in its own way."""
    python, shell = f"open({str(marker)!r}, 'w').close()", f"touch {marker}"
    script = marker.with_name("script.py")
    script.write_text(python)
    return {
        "os.system": Call(os.system, shell),
        "subprocess": Call(subprocess.check_call, ["touch", str(marker)]),
        "eval": Call(eval, python),
        "exec": Call(exec, python),
        "getattr": Call(getattr, Path, "touch"),
        "open": Call(open, str(marker), "w"),
        "partial": functools.partial(os.system, shell),
        "map": Call(list, Call(map, eval, [python])),
        "import": Call(importlib.import_module, "antigravity"),
        "runpy": Call(runpy.run_path, str(script)),
        "methodcaller": Call(operator.methodcaller("touch"), marker),
        "path": Call(Path.touch, marker),
        "namespace": argparse.Namespace(task=Call(eval, python), keys=Call(os.system, shell)),
        "numpy object array": np.array([Call(os.system, shell)], dtype=object),
        "numpy load": Call(np.load, str(marker), None, True),
        "nested pickle": Call(pickle.loads, pickle.dumps(Call(os.system, shell))),
        "nested torch": Call(torch.load, io.BytesIO(_saved(Call(os.system, shell))), "cpu"),
        "storage from bytes": Call(torch.storage._load_from_bytes, _saved(Call(os.system, shell))),
    }


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


KINDS = (
    "os.system", "subprocess", "eval", "exec", "getattr", "open", "partial", "map", "import", "runpy", "methodcaller",
    "path", "namespace", "numpy object array", "numpy load", "nested pickle", "nested torch", "storage from bytes",
)  # fmt: skip


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def test_every_kind_is_tried(marker: Path) -> None:
    assert set(touching(marker)) == set(KINDS)


@pytest.mark.parametrize("place", ["beside the model", "in the model", "as the file"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_runs(kind: str, place: str, marker: Path, tmp_path: Path) -> None:
    payload = touching(marker)[kind]
    content = {
        "beside the model": {"model": {"w": torch.ones(2)}, "cfg": payload},
        "in the model": {"model": {"w": payload}},
        "as the file": payload,
    }[place]
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path / "c.pt")
    assert not marker.exists()
    assert "contains code or objects" in str(caught.value)
    assert "nothing of it was run" in str(caught.value)


@pytest.mark.parametrize(
    "kind", sorted({*KINDS} - {"getattr", "import", "nested torch", "numpy load", "open", "partial"})
)
def test_the_payloads_would_run_if_they_were_let(kind: str, marker: Path, tmp_path: Path) -> None:
    torch.save(touching(marker)[kind], tmp_path / "c.pt")
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert marker.exists()


def test_the_name_of_what_it_wanted_is_told(marker: Path, tmp_path: Path) -> None:
    for kind, name in {"os.system": "posix.system", "eval": "eval", "numpy object array": "numpy"}.items():
        torch.save({"model": {}, "cfg": touching(marker)[kind]}, tmp_path / "c.pt")
        with pytest.raises(CheckpointError, match=name):
            read(tmp_path / "c.pt")


def test_old_formats_are_not_unpickled_either(marker: Path, tmp_path: Path) -> None:
    payload, path = touching(marker)["os.system"], tmp_path / "c.pt"
    torch.save({"model": payload}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before 1\.6"):
        read(path)
    path.write_bytes(pickle.dumps(payload, 0))
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        read(path)
    with tarfile.open(path, "w") as archive:  # torch's first format
        entry = tarfile.TarInfo("pickle")
        entry.size = len(pickle.dumps(payload))
        archive.addfile(entry, io.BytesIO(pickle.dumps(payload)))
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        read(path)
    assert not marker.exists()


def test_a_second_structure_is_not_looked_at(marker: Path, tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "c.pt", "a") as archive:
        archive.writestr("c/constants.pkl", pickle.dumps(touching(marker)["os.system"]))
        archive.writestr("c/code/__torch__.py", f"open({str(marker)!r}, 'w')")
    with pytest.raises(CheckpointError):
        read(tmp_path / "c.pt")
    assert not marker.exists()


def test_no_environment_variable_opens_a_way(marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"model": {}, "cfg": touching(marker)["os.system"]}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        read(tmp_path / "c.pt")
    assert not marker.exists()


def touch(path: str) -> None:
    """Do what a careless library may have allowed."""
    Path(path).touch()


def test_what_the_process_has_allowed_elsewhere_is_not_allowed_here(marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save({"model": {}, "cfg": Call(touch, str(marker))}, path)
    with torch.serialization.safe_globals([touch]):
        with pytest.raises(CheckpointError, match=r"test_malicious_checkpoint\.touch"):
            read(path)
        assert not marker.exists()
        assert touch in torch.serialization.get_safe_globals()
        torch.load(path, weights_only=True)
        assert marker.exists(), "it is allowed, and would have run"


def test_a_namespace_allowed_for_one_file_is_not_allowed_after_it(tiny_checkpoint: Path) -> None:
    torch.serialization.clear_safe_globals()
    read(tiny_checkpoint)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def text_settings(checkpoint: Path) -> list[str]:
    """Return the names of all settings of task and model that may hold text."""
    config = content_of(checkpoint)["cfg"]
    both = {**vars(config["model"]), **vars(config["task"])}
    flags = ("left_pad", "share")
    return [name for name, value in both.items() if not isinstance(value, int | float) or name.startswith(flags)]


def test_fairseq_evals_settings_but_never_those_of_the_file(
    tiny_checkpoint: Path, tiny_data: Path, marker: Path, tmp_path: Path
) -> None:
    """fairseq eval()s left_pad_source and others after a safe load; each setting in turn becomes an expression."""
    from fairseq.utils import eval_bool

    expression = f"open({str(marker)!r}, 'w').close()"
    eval_bool(expression)
    assert marker.exists(), "the expression does what it should not"
    marker.unlink()
    settings = text_settings(tiny_checkpoint)
    assert {"left_pad_source", "langs", "adam_betas", "lang_dict"} <= set(settings)
    content, path = content_of(tiny_checkpoint), tmp_path / "c.pt"
    refused = 0
    for name in settings:
        changed = copy.deepcopy(content)
        for part in ("task", "model"):
            setattr(changed["cfg"][part], name, expression)
        torch.save(changed, path)
        try:
            open_checkpoint(path, tiny_data, device="cpu")
        except SensikitError:
            refused += 1
        assert not marker.exists(), name
    assert refused >= 10


def test_expressions_within_lists_and_tables_of_settings(
    tiny_checkpoint: Path, tiny_data: Path, marker: Path, tmp_path: Path
) -> None:
    expression, path = f"open({str(marker)!r}, 'w').close()", tmp_path / "c.pt"
    for name, value in {
        "langs": ["cat", expression],
        "lang_pairs": [f"{expression}-eng"],
        "langtoks": {"main": (expression, "tgt")},
        "langtoks_specs": [expression],
        "extra_data": {"mined": expression},
        "sampling_weights": {expression: 1},
        "adaptive_softmax_cutoff": [expression],
    }.items():
        content = content_of(tiny_checkpoint)
        for part in ("task", "model"):
            vars(content["cfg"][part])[name] = value
        torch.save(content, path)
        if name in ("extra_data", "sampling_weights"):
            open_checkpoint(path, tiny_data, device="cpu")
        else:
            with pytest.raises(CheckpointError):
                open_checkpoint(path, tiny_data, device="cpu")
        assert not marker.exists(), name
