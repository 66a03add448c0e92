"""Runs of which the truth is known: block means drawn from models whose gradients look like those of real ones.

What was copied from a translation model of 1.4M parameters, before any interval was looked at: S spreads over orders
of magnitude (its 99th percentile is some twenty times its median); languages correlate at about .9 over the high subset
and .8 over the low one; a batch shows more noise than it shows of S (its reliability is .2 to .3); and the noise of an
interval is mostly shared, as parameters of a module move together: shuffling the blocks of each parameter by itself
leaves a sixth of the jackknife's variance over the low subset and half of it over the high one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensikit.parameters import Parameter
from sensikit.run import Run
from sensikit.sensitivity.taylor import blocks_of

LANGUAGES = ("cat", "fao", "tgl")
SIZE = 10_000
MODULES = 100


class Held(Run):
    """A run whose block means are held in memory, and whose vectors are made of them: what reads it cannot tell."""

    def __init__(self, blocks: Mapping[str, np.ndarray], layout: Sequence[int]) -> None:
        self.path, self.blocks = Path("simulated"), blocks
        size = next(iter(blocks.values())).shape[1]
        self.parameters = (Parameter("weight", (size,), 0, "ffn", "encoder", 0, True),)
        middle = len(layout) // 2
        self.vectors = {}
        for code, means in blocks.items():
            for kind, count in (("", len(layout)), ("half", middle)):
                mean = np.average(means[:count], axis=0, weights=layout[:count])
                self.vectors[self.vector("mt", code, kind)] = mean.astype(np.float32)
        noted = {"batches": sum(layout), "half_batches": sum(layout[:middle]), "block_batches": list(layout)}
        self.manifest = {
            "groups": {code: {} for code in blocks}, "direction": "xxx-eng", "provenance": {"data_sha256": ""},
            "analyses": {"mt": {"tokens": 4096, "settings": {}}},
            "sets": {f"mt/{code}": {**noted, "drawn": code} for code in blocks},
        }  # fmt: skip

    def stream(self, vectors: Sequence[Path], parameters: Sequence[Parameter] | None = None) -> Iterator[np.ndarray]:
        yield np.stack([self.vectors[path] for path in vectors])

    def block_reader(self, task: str, name: str) -> Any:
        return lambda start, stop: self.blocks[name][:, start:stop]


def models(rng: np.random.Generator) -> np.ndarray:
    """Return the S of endless batches of two models, (2, L, SIZE): the second has more of its own in each language.

    Languages differ less in what is large, as they do in real models.
    """
    weight, gradient = np.abs(rng.normal(size=SIZE)), _by_module(rng) * 1.1
    own = np.stack([_by_module(rng) for _ in LANGUAGES]) * np.exp(-np.maximum(gradient, 0) / 2)
    return weight * np.exp(np.stack([gradient + own * 0.4, gradient + own * 0.6]))


def _by_module(rng: np.random.Generator) -> np.ndarray:
    """Return a normal number for each parameter, of whose variance four fifths are of its module."""
    module = np.repeat(rng.normal(size=MODULES), SIZE // MODULES)
    return np.sqrt(0.8) * module + np.sqrt(0.2) * rng.normal(size=SIZE)


def measured(rng: np.random.Generator, truth: np.ndarray, count: int, together: bool = True) -> list[Held]:
    """Return both models measured on `count` batches of each language: the same batches, or (not `together`) others.

    |θ·∇L| of a batch is the truth times the mean of two squares of normals, times a factor of its module. A block is
    drawn at once: the sum of its squares is a gamma. One of the two squares is the same in both models where the batch
    is, and so are the factors of the modules.
    """
    layout = blocks_of(count)
    held: list[dict[str, np.ndarray]] = [{}, {}]
    for number, code in enumerate(LANGUAGES):
        batches = [_draw(rng, layout)]
        batches.append(batches[0] if together else _draw(rng, layout))
        for model, (modules, shared) in enumerate(batches):
            noise = shared + _gamma(rng, layout)
            held[model][code] = (truth[model, number] * modules * noise).astype(np.float32)
    return [Held(each, layout) for each in held]


def _draw(rng: np.random.Generator, layout: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    spread = 0.6 / np.sqrt(layout)[:, None]
    return np.repeat(np.exp(rng.normal(0, spread, (len(layout), MODULES))), SIZE // MODULES, axis=1), _gamma(
        rng, layout
    )


def _gamma(rng: np.random.Generator, layout: Sequence[int]) -> np.ndarray:
    """Return half of the mean of k squares of normals, for each block of k batches and each parameter."""
    batches = np.array(layout, dtype=np.float32)[:, None]
    shape = np.broadcast_to(batches / 2, (len(layout), SIZE))
    return rng.standard_gamma(shape, dtype=np.float32) / batches
