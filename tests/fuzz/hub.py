"""Hugging Face directories that are damaged or put together wrongly: refused, or the model that they were."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.fuzz import Outcome, Result
from tests.fuzz.checkpoints import VALUES
from tests.fuzz.judging import judged, tried
from tests.support import directories
from tests.support.command import call

Draw = random.Random
WEIGHTS = "model.safetensors"
PLAIN = (
    *(value for value in VALUES if isinstance(value, bool | int | float | str | type(None))),
    [], [1, 2], {}, {"a": {"b": []}}, 10**9, 10**12, -(10**9), "auto", "gelu", [[]] * 3, {"rope_type": "yarn"},
)  # fmt: skip
"""What JSON can hold."""


@lru_cache
def sound(family: str) -> tuple[Path, Path]:
    """Return a directory of a family, and text for it."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    text = directories.write_text(root / "text")
    return directories.write_directory(family, text, root / family), text


def _changed(path: Path, draw: Draw) -> str:
    """Change one file of a directory; return what was done."""
    kind = draw.choice(("setting", "setting", "setting", "bytes", "tensor", "gone", "pipe", "other"))
    files = sorted(each for each in path.iterdir() if each.is_file())
    file = draw.choice(files)
    if kind == "setting":
        file = draw.choice([each for each in files if each.suffix == ".json"])
        content = json.loads(file.read_text(encoding="utf-8"))
        name = draw.choice(list(content)) if isinstance(content, dict) else "all"
        value = draw.choice(PLAIN)
        changed = {**content, name: value} if isinstance(content, dict) else value
        file.write_text(json.dumps(changed), encoding="utf-8")
        return f"{file.name} {name} = {str(value)[:20]!r}"
    if kind == "tensor":
        state = load_file(path / WEIGHTS)
        name = draw.choice(sorted(state))
        made: dict[str, Any] = {
            "complex": state[name].to(torch.complex64), "float8": state[name].to(torch.float8_e4m3fn),
            "int": state[name].to(torch.int32), "bool": state[name] > 0, "empty": state[name][:0].clone(),
            "flat": state[name].flatten().clone(), "not finite": state[name] / 0,
        }  # fmt: skip
        what = draw.choice([*made, "without"])
        tensor = state.pop(name)
        save_file(state if what == "without" else {**state, name: made[what]}, path / WEIGHTS, {"format": "pt"})
        return f"tensor {name} {tuple(tensor.shape)} {what}"
    if kind == "bytes":
        data = bytearray(file.read_bytes())
        if draw.random() < 0.5:
            del data[draw.randrange(len(data)) :]
        else:  # of the weights, the head: bits of what follows are other weights, and nothing says so
            for _ in range(draw.choice((1, 20))):
                data[draw.randrange(min(len(data), 2000))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
    else:
        file.unlink()
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "other":
            draw.choice((lambda: file.write_text("[]"), file.mkdir, lambda: file.symlink_to(file)))()
    return f"{kind} {file.name}"


def damages(count: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcomes of changed directories."""
    for number in range(count):
        family = ("nllb", "gpt2")[number % 2]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            source, text = sound(family)
            shutil.copytree(source, path)
            what = f"{number} {family}: {_changed(path, Draw(f'{seed} {number}'))}"
            yield tried(what, ("inspect", path, "--json"), lambda _, p=path, t=text, w=what: _opened(p, t, w))


def _opened(path: Path, text: Path, what: str) -> tuple[Result, str]:
    """Judge a directory that is inspected: analyze takes or refuses it; a tensor of another kind is not taken."""
    language = ("--direction", "xxx-fra") if "nllb" in what else ()
    done = call(
        "analyze", path, "--data", text, "--out", path / "x", "--tokens", 64, "--batches", 4, *language, "--dry-run"
    )
    if refused := judged(done):
        return refused
    return ("wrong", "a tensor of another kind was taken") if ": tensor " in what else ("same", "")
