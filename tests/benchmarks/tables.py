"""What the tables of an analysis cost: CPU seconds per million parameters with eight groups, and how that grows.

python -m tests.benchmarks.tables [MILLIONS [GROUPS]]     one size
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from sensikit.parameters import sample_of
from sensikit.run import BLOCK_KEY, MIXED, Run, rest_of
from sensikit.settings import SIGMA
from sensikit.statistics import ranks, results
from tests.benchmarks import peak
from tests.support import handmade
from tests.support.stored import MANIFEST, empty

GROUPS = 8
BLOCKS = 20


def shapes(millions: float) -> dict[str, tuple[int, ...]]:
    """The tensors of a translation model of so many million parameters, a third of them embeddings or more."""
    width = next(width for width in (64, 128, 256, 512, 1024) if 24 * 12 * width**2 > millions * 4e5)
    found: dict[str, tuple[int, ...]] = {}
    layers = int(millions * 6e5 / (2 * 13 * width**2)) or 1
    for side, number in ((side, number) for side in ("encoder", "decoder") for number in range(layers)):
        layer = f"{side}.layers.{number}"
        for attention in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                found[f"{layer}.{attention}.{part}.weight"] = (width, width)
                found[f"{layer}.{attention}.{part}.bias"] = (width,)
        found |= {f"{layer}.fc1.weight": (4 * width, width), f"{layer}.fc2.weight": (width, 4 * width)}
        found |= {f"{layer}.fc1.bias": (4 * width,), f"{layer}.final_layer_norm.weight": (width,)}
    rest = int(millions * 1e6) - sum(int(np.prod(shape)) for shape in found.values())
    return {"shared.weight": (rest // width, width), **found}


def made(path: Path, millions: float, groups: int = GROUPS) -> Run:
    """Write a run whose S is log-normal, alike in all groups, and zero for some parameters."""
    parameters = handmade.parameters_of(shapes(millions))
    count, codes = parameters[-1].stop, [f"x{number:02d}" for number in range(groups)]
    listed = {code: {"name": code, "family": "", "tier": "Low", "sizes": {"train": 9}} for code in codes}
    run = empty(path, {**MANIFEST, "groups": listed, "parameter_count": count, "prunable_count": count}, parameters)
    sample = sample_of(parameters)
    places = np.concatenate([parameter.start + sample[parameter.name] for parameter in parameters])
    generator = np.random.default_rng(0)

    def noise(sigma: float, *shape: int) -> np.ndarray:
        return np.exp(generator.standard_normal(shape, dtype=np.float32) * np.float32(sigma))

    shared = noise(1.5, count) * np.float32(1e-6)
    with mock.patch.object(run, "save"), mock.patch("os.fsync"):
        for name in (*codes, *map(rest_of, codes), MIXED):
            own = shared * noise(0.6 if name in codes else 0.2, count)
            own[generator.random(count, dtype=np.float32) < 0.03] = 0
            tensors = {"": handmade.shaped(parameters, own)}
            facts = {
                "tokens_mean": SIGMA / 2.4e-12,
                "batches": 40,
                "half_batches": 20,
                "block_batches": [2] * BLOCKS,
                "drawn": name,
                "sigma": 2.4e-12,
            }
            if name in codes:
                tensors["half"] = handmade.shaped(parameters, own * noise(0.1, count))
                blocks = own[places] * noise(0.3, BLOCKS, len(places))
                tensors["blocks"] = {BLOCK_KEY: torch.from_numpy(blocks)}
            run.write_set("mt", name, tensors, facts)
    run.save()
    return run


def costs(run: Run) -> Iterator[tuple[str, float]]:
    """Yield what each table takes, in CPU seconds; what several share comes first."""

    def taken(work: Callable[[], object]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    measured: dict[str, object] = {}
    yield "what tables share", taken(lambda: measured.update(results._measured(run, "mt")))
    for schema, make in results.BY_TASK.items():
        yield schema.name, taken(lambda: make(run, "mt", *measured.get(schema, ())))  # noqa: B023


def main(millions: float, groups: int = GROUPS) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = made(Path(folder) / "run", millions, groups)
        scale = millions * groups / GROUPS
        for held, what in ((0, "read and sorted twice"), (ranks.HELD, "sorted once and held")):
            before = peak(anew=True)
            with mock.patch.object(ranks, "HELD", held):
                found = dict(costs(run))
            more = (peak() - before) / 1e6
            print(
                f"tables of {millions:g} M parameters and {groups} groups, {what}: "
                f"{sum(found.values()) / scale:.2f} CPU s per million parameters and 8 groups, {more:.0f} MB more\n    "
                + ", ".join(f"{name} {seconds / scale:.3f}" for name, seconds in found.items())
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 1, int(sys.argv[2]) if sys.argv[2:] else GROUPS)
