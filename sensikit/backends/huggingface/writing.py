"""A Hugging Face directory with some of its weights set to zero, which stock transformers loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from sensikit.backends.huggingface import compat
from sensikit.backends.huggingface.directory import TEXTS, Directory, read_directory
from sensikit.backends.huggingface.model import FLOATS, build, configuration, skeleton
from sensikit.errors import CheckpointError
from sensikit.files import appearing, write_json

NOTE = "sensikit.json"
"""The file in which a directory says how it was pruned."""


def write_pruned(source: Directory, sha256: str, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
    """Write `source` to `out` with what `masks` say set to zero; return how many scalars went, tied ones counted once.

    Every other weight keeps its value, and its dtype where all have one: of several it is the widest. The
    configuration and the tokenizer are copied as they stand.

    Args:
        source: a directory.
        sha256: which it must have.
        out: the directory to write.
        masks: parameter name → bool of its shape.
        note: kept in `NOTE`.

    Raises:
        CheckpointError: if `source` is not what it was.
        SensikitError: if the disk is full, or something stands at `out`.
    """
    fresh = read_directory(source.path)
    if fresh.sha256 != sha256:
        raise CheckpointError(source.name, "is not what it was when it was opened", "analyze it again")
    stored = {FLOATS[header.dtype] for header in fresh.tensors.values() if header.dtype in FLOATS}
    widest = "fp64" if "fp64" in stored else "fp32"
    config = configuration(fresh)
    module = build(fresh, config, skeleton(fresh, config), stored.pop() if len(stored) == 1 else widest)
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
