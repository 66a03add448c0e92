"""A Hugging Face directory with some of its weights set to zero, which stock transformers loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from sensikit.backends.huggingface import compat
from sensikit.backends.huggingface.directory import TEXTS, Directory, read_directory
from sensikit.backends.huggingface.model import build, configuration
from sensikit.errors import CheckpointError, OptionError
from sensikit.files import appearing, write_json

NOTE = "sensikit.json"
"""The file in which a directory says how it was pruned."""

_STORED = {"BF16": "bf16", "F16": "fp16"}


def write_pruned(source: Directory, sha256: str, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
    """Write `source` to `out` with what `masks` say set to zero; return how many scalars went, tied ones counted once.

    Every other weight keeps its bits and its dtype. The configuration and the tokenizer are copied as they stand.

    Args:
        source: a directory.
        sha256: which it must have.
        out: the directory to write.
        masks: parameter name → bool of its shape.
        note: kept in `NOTE`.

    Raises:
        CheckpointError: if `source` is not what it was.
        OptionError: if something stands at `out`.
        SensikitError: if the disk is full.
    """
    if out.exists() or out.is_symlink():
        raise OptionError(f"--out {out}", "already exists", "choose another name")
    fresh = read_directory(source.path)
    if fresh.sha256 != sha256:
        raise CheckpointError(source.name, "is not what it was when it was opened", "analyze it again")
    stored = {header.dtype for header in fresh.tensors.values()}
    # one dtype for all: a file of several is written in the widest, in which every value is exact
    dtype = _STORED.get(next(iter(stored)), "fp32") if len(stored) == 1 else "fp32"
    module = build(fresh, configuration(fresh), dtype)
    count = 0
    with torch.no_grad():
        named = dict(module.named_parameters())
        for name, mask in masks.items():
            named[name][mask] = 0
            count += int(mask.sum())
    with appearing(out) as partial:
        with compat.quiet():
            module.save_pretrained(partial)  # type: ignore[operator]
        for file in (path for pattern in TEXTS for path in fresh.path.glob(pattern) if path.is_file()):
            if not file.name.endswith(".index.json"):
                shutil.copyfile(file, partial / file.name)
        write_json(partial / NOTE, {"pruned": note})
    return count
