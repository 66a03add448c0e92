"""Run directories whose vectors a test writes itself, so that what is computed of them can be checked by hand.

run = handmade.run(tmp_path / "run", {"cat": [3, 1], "nob": [1, 1]}, rest={"cat": [1, 1], "nob": [3, 1]})
run = handmade.run_of_batches(tmp_path / "run", {"cat": (n, P), "nob": (m, P)})     halves and blocks as measured
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import ArrayLike

from sensikit.parameters import Parameter, component_of, layer_of, stack_of
from sensikit.run import BLOCK_KEY, Run, rest_of
from sensikit.sensitivity.taylor import blocks_of
from sensikit.settings import SIGMA
from tests.support.stored import empty

Shapes = Mapping[str, tuple[int, ...]]


def parameters_of(shapes: Shapes, spared: Iterable[str] = ()) -> tuple[Parameter, ...]:
    """Return a registry of tensors with these names and shapes, prunable but for those `spared`."""
    found, start = [], 0
    for name, shape in shapes.items():
        place = component_of(name), stack_of(name), layer_of(name)
        found.append(Parameter(name, shape, start, *place, name not in set(spared)))
        start = found[-1].stop
    return tuple(found)


def run(
    path: Path,
    own: Mapping[str, ArrayLike],
    rest: Mapping[str, ArrayLike] | None = None,
    *,
    halves: Mapping[str, ArrayLike] | None = None,
    blocks: Mapping[str, ArrayLike] | None = None,
    shapes: Shapes | None = None,
    spared: Iterable[str] = (),
    sigma: float | Mapping[str, float] = 1e-8,
    counts: Mapping[str, tuple[int, int, Sequence[int]]] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Run:
    """Write a run.

    Args:
        path: where to.
        own: group → S(θ,B_l), (P,).
        rest: group → S(θ,B_-l), (P,); by default S(θ,B_l) itself.
        halves: group → S of the first half, (P,); by default S(θ,B_l) itself.
        blocks: group → block means of all parameters, (G, P); by default S(θ,B_l) in each of four.
        shapes: of the tensors that the vectors are made of; one flat tensor by default.
        spared: names of tensors that may not be pruned.
        sigma: of D; by group where a mapping.
        counts: group → (batches, batches in the half, batches by block).
        manifest: fields beside those that are always there.
    """
    flat = {code: np.asarray(vector, dtype=np.float32) for code, vector in own.items()}
    size = len(next(iter(flat.values())))
    parameters = parameters_of(shapes or {"layer.weight": (size,)}, spared)
    assert parameters[-1].stop == size
    facts = {
        "groups": {
            code: {"name": code.title(), "family": "Romance", "tier": "High", "sizes": {"train": 100}} for code in flat
        },
        "version": "0",
        "versions": {},
        "direction": "xxx-eng",
        "analyses": {"mt": {"signature": "S|task:mt", "settings": {}, "tokens": 1, "notes": [], "command": ""}},
        "provenance": {
            "framework": "toy", "checkpoint": "a.pt", "checkpoint_sha256": "0" * 64,
            "data": "d", "data_sha256": "1" * 64, "loading": {},
        },
        "parameter_count": size,
        "prunable_count": sum(parameter.numel for parameter in parameters if parameter.prunable),
        **(manifest or {}),
    }  # fmt: skip
    made = empty(path, facts, parameters)
    # one manifest at the end, and nothing forced to the disk: these runs have many sets, and need not outlive a crash
    with mock.patch.object(made, "save"), mock.patch("os.fsync"):
        for code, vector in flat.items():
            table = np.asarray(blocks[code] if blocks else np.stack([vector] * 4), dtype=np.float32)
            batches, half_batches, block_batches = counts[code] if counts else (4, 2, [1] * len(table))
            vectors = {
                "": shaped(parameters, vector),
                "half": shaped(parameters, halves[code] if halves else vector),
                "blocks": {BLOCK_KEY: torch.from_numpy(table)},
            }
            noted = {"batches": batches, "half_batches": half_batches, "block_batches": list(block_batches)}
            noted["drawn"] = f"{code} {batches}"
            made.write_set("mt", code, vectors, noted)
        for code in flat:
            chosen = float(sigma if isinstance(sigma, float | int) else sigma[code])
            noted = {"sigma": chosen, "tokens_mean": SIGMA / chosen}
            made.write_set("mt", rest_of(code), {"": shaped(parameters, rest[code] if rest else flat[code])}, noted)
    made.save()
    return made


def run_of_batches(path: Path, batches: Mapping[str, np.ndarray], **options: Any) -> Run:
    """Write a run as if |θ·∇L| of each batch were the rows of `batches`: group → (n, P)."""
    made = {code: _of_batches(rows) for code, rows in batches.items()}
    own, halves, blocks, counts = ({code: each[i] for code, each in made.items()} for i in range(4))
    return run(path, own, halves=halves, blocks=blocks, counts=counts, **options)


def add_task(made: Run, task: str, batches: Mapping[str, np.ndarray]) -> Run:
    """Add the sets of another task to a run, as if |θ·∇L| of each batch were the rows: group → (n, P)."""
    made.manifest["analyses"][task] = {**made.manifest["analyses"]["mt"], "signature": f"S|task:{task}"}
    for code, rows in batches.items():
        own, half, blocks, (count, first, layout) = _of_batches(rows)
        vectors = {"": shaped(made.parameters, own), "half": shaped(made.parameters, half)}
        table = torch.from_numpy(blocks.astype(np.float32))
        noted = {"batches": count, "half_batches": first, "block_batches": layout, "drawn": f"{code} {count}"}
        made.write_set(task, code, {**vectors, "blocks": {BLOCK_KEY: table}}, noted)
    return made


def _of_batches(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int, list[int]]]:
    """Return S, that of the first half, the block means, and the counts of batches, of the rows (n, P)."""
    rows = np.asarray(rows, dtype=np.float64)
    layout = blocks_of(len(rows))
    edges = np.cumsum([0, *layout])
    first = int(edges[len(layout) // 2])
    blocks = np.stack([rows[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)])
    return rows.mean(axis=0), rows[:first].mean(axis=0), blocks, (len(rows), first, layout)


def shaped(parameters: Sequence[Parameter], vector: ArrayLike) -> dict[str, torch.Tensor]:
    """Return a flat vector (P,) as one float32 tensor per parameter."""
    flat = np.asarray(vector, dtype=np.float32)
    return {p.name: torch.from_numpy(flat[p.start : p.stop].copy()).reshape(p.shape) for p in parameters}


def flat(run: Run, name: str, kind: str = "") -> np.ndarray:
    """Return a stored vector of a run, (P,) float32, in flat order."""
    return np.concatenate([block[0] for block in run.stream([run.vector("mt", name, kind)])])
