"""A run directory of vectors drawn by seed: what is stored can be told without reading it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sensikit.files import read_json, seal_of, sha256, write_json
from sensikit.folder import SEAL
from sensikit.parameters import Parameter, registry
from sensikit.run import BLOCK_KEY, Run

SHAPES = [(), (1,), (7,), (3, 5), (2, 40), (40, 2), (2, 3, 4), (3, 1, 17), (1, 1, 1), (2, 2, 2, 3)]


class Shapes(nn.Module):
    def __init__(self, shapes: Sequence[tuple[int, ...]] = SHAPES) -> None:
        super().__init__()
        for number, shape in enumerate(shapes):
            self.register_parameter(f"p{number}", nn.Parameter(torch.zeros(shape)))
        self.linear = nn.Linear(3, 2)


PARAMETERS = registry(Shapes())
SIZE = sum(parameter.numel for parameter in PARAMETERS)
MANIFEST = {
    "version": "0",
    "versions": {},
    "direction": "xxx-eng",
    "provenance": {
        "framework": "none", "checkpoint": "a.pt", "checkpoint_sha256": "0" * 64, "data": "d", "data_sha256": "1" * 64,
        "loading": {},
    },
    "groups": {
        code: {"name": name, "family": "", "tier": "Low", "sizes": {"train": 9}}
        for code, name in (("nob", "Norwegian"), ("cat", "Catalan"))
    },
    "parameter_count": SIZE,
    "prunable_count": 8,
    "analyses": {"mt": {"signature": "S|task:mt", "settings": {"seed": 1}, "tokens": 9, "notes": [], "command": ""}},
}  # fmt: skip


def vector(seed: int, parameters: Sequence[Parameter] = PARAMETERS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {p.name: torch.rand(p.shape, generator=generator) for p in parameters}


def flat(tensors: dict[str, torch.Tensor], parameters: Sequence[Parameter] = PARAMETERS) -> np.ndarray:
    return np.concatenate([tensors[p.name].reshape(-1).numpy() for p in parameters])


def empty(path: Path, facts: Mapping[str, Any] = MANIFEST, parameters: Sequence[Parameter] = PARAMETERS) -> Run:
    """A run that holds nothing yet, not even on disk."""
    listed = [json.loads(json.dumps(asdict(parameter))) for parameter in parameters]
    return Run(path, {"format": Run.FORMAT, **facts, "sets": {}, "parameters": listed})


def filled(path: Path) -> Run:
    run = empty(path)
    for seed, code in enumerate(["cat", "nob"]):
        blocks = torch.rand(4, SIZE, generator=torch.Generator().manual_seed(seed))
        run.write_set(
            "mt",
            code,
            {"": vector(seed), "half": vector(seed + 10), "blocks": {BLOCK_KEY: blocks}},
            {"batches": 4, "block_batches": [1] * 4, "loss": 2.5},
        )
    return run


def everything(path: Path) -> dict[str, bytes | None]:
    """All that stands below a place, the hidden too."""
    return {str(each.relative_to(path)): None if each.is_dir() else each.read_bytes() for each in path.rglob("*")}


def sealed(path: Path, manifest: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    """Write the manifest of a folder, the present one by default, as if it and all tables had been made like that."""
    manifest = {**(read_json(path / "manifest.json") if manifest is None else manifest), **changes}
    tables = {table.name: [sha256(table)] for table in sorted(path.glob("*.csv")) if table.is_file()}
    manifest = {name: value for name, value in {**manifest, "tables": tables}.items() if value is not None}
    manifest.pop(SEAL, None)
    write_json(path / "manifest.json", {**manifest, SEAL: seal_of(json.loads(json.dumps(manifest)))})
    return path
