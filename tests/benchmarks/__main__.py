"""Print every benchmark: what is compared, both figures, their ratio."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from sensikit.parameters import Parameter, registry, sample_of
from sensikit.pruning.masks import Order, pruning_plan
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.taylor import measure
from sensikit.statistics import streaming
from sensikit.statistics.noise import SUBSETS
from sensikit.statistics.streaming import Moments, keys, selected, smallest
from tests.benchmarks import peak, tables, training
from tests.benchmarks.models import batches, collate, loss_of, translator
from tests.support import handmade
from tests.support.stored import empty

ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(what: str, ours: Callable[[], object], other: Callable[[], object], than: str) -> None:
    """Time both in turns, so that a busy machine hurts both, and print the medians."""
    ours()
    pairs = [(seconds(ours), seconds(other)) for _ in range(ROUNDS)]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(f"{what}: {first:.2f} s against {second:.2f} s for {than}: {first / second:.2f} times")
    print(f"    ratios of the {ROUNDS} rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


def analyze_against_loops() -> None:
    """Batches cut where that costs the least, against the bare passes of the same, and of batches that are not cut."""
    model, drawn, whole = translator(), batches(5, 4096, None), batches(5, 4096, 1)
    parameters, loss = registry(model), loss_of(model)
    sample = sample_of(parameters)

    def bare(drawn: Sequence[Batch]) -> None:
        for batch in drawn:
            for micro_batch in batch.micro_batches:
                loss(collate(micro_batch))[0].backward()
            model.zero_grad(set_to_none=True)

    def obvious() -> None:
        """Each batch padded to its longest sentence, and |θ·∇L| added up."""
        total = {name: torch.zeros_like(tensor) for name, tensor in model.named_parameters()}
        for batch in whole:
            (loss(collate(batch.items))[0] / batch.tokens).backward()
            for name, tensor in model.named_parameters():
                total[name] += (tensor.detach() * tensor.grad).abs()
            model.zero_grad(set_to_none=True)

    what = (
        f"S(θ,B) of 5 batches of 4,096 tokens, {np.mean([len(batch.micro_batches) for batch in drawn]):.1f} parts each"
    )
    ours = partial(measure, model, parameters, drawn, collate, loss, sample=sample)
    side_by_side(what, ours, partial(bare, drawn), "forward and backward of the same micro-batches alone")
    side_by_side(what, ours, obvious, "a loop over batches that are padded to their longest sentence")


def selection_against_sorting() -> None:
    values = np.random.default_rng(0).lognormal(size=10_000_000).astype(np.float32)
    chunks = np.array_split(values, 40)
    ranks = [len(values) * i // 10 for i in range(1, 10)]

    def ours() -> None:
        cuts = smallest(lambda: (keys(chunk) for chunk in chunks), ranks)
        sum(int(mask.sum()) for mask in selected((keys(chunk) for chunk in chunks), cuts[0]))

    side_by_side(
        "nine exact cuts of 10 M scores, in chunks", ours, lambda: np.argsort(values, kind="stable"), "sorting"
    )


def masks_held_against_streamed() -> None:
    """A plan of nine ratios over 20 M parameters: keys in memory, and digit by digit, as where they do not fit."""
    size, generator = 20_000_000, np.random.default_rng(0)
    own = generator.lognormal(-9, 2, size).astype(np.float32)
    rest = (own * generator.lognormal(0, 1, size)).astype(np.float32)
    module = torch.nn.Linear(1000, size // 1000, bias=False)
    with tempfile.TemporaryDirectory() as folder:
        run = handmade.run(
            Path(folder) / "run", {"cat": own}, {"cat": rest}, shapes={"weight": (size // 1000, 1000)}, sigma=1e-12
        )

        def plan(held: int) -> None:
            with mock.patch.object(streaming, "HELD", held):
                pruning_plan(run, module, Order("specificity", "cat"), [i / 10 for i in range(1, 10)])

        side_by_side(
            "a plan of nine ratios over 20 M parameters",
            partial(plan, 1 << 27),
            partial(plan, 0),
            "digit by digit, in four passes and without a key in memory",
        )


def correlation_against_numpy() -> None:
    vectors = np.random.default_rng(0).lognormal(size=(8, 4_000_000)).astype(np.float32)

    def ours() -> None:
        moments = Moments.zero(8)
        for start in range(0, vectors.shape[1], 1 << 18):
            moments.add(vectors[:, start : start + (1 << 18)])
        moments.pearson()

    side_by_side("PCC of 8 vectors of 4 M, in chunks", ours, lambda: np.corrcoef(vectors), "np.corrcoef on all of them")


def memory_of(kind: str) -> int:
    """Return the bytes that a subprocess had in memory at the most, above what it had before its work."""
    command = [sys.executable, "-m", "tests.benchmarks", "memory", kind]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_against_whole() -> None:
    """Peak memory: correlation in chunks, against all vectors in memory."""
    ours, whole = memory_of("chunks"), memory_of("whole")
    print(
        f"memory of {len(SUBSETS)} groups' PCC of 8 vectors of 8 M: {ours / 1e6:.0f} MB in chunks against "
        f"{whole / 1e6:.0f} MB in memory: {ours / whole:.3f} times"
    )


def memory_probe(kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parameter = Parameter("weight", (8000, 1000), 0, "other", "shared", None, True)
        run = empty(Path(folder) / "run", {"groups": {}}, [parameter])
        run.write_set("mt", "cat", {"": {"weight": torch.zeros(parameter.shape)}}, {})
        paths = [run.vector("mt", "cat")] * 8
        before = peak(anew=True)
        if kind == "chunks":
            moments = Moments.zero(8)
            for block in run.stream(paths):
                moments.add(block)
        else:
            np.corrcoef(np.concatenate(list(run.stream(paths)), axis=1))
    print(peak() - before)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        memory_probe(sys.argv[2])
    else:
        for benchmark in (
            analyze_against_loops,
            selection_against_sorting,
            masks_held_against_streamed,
            correlation_against_numpy,
            memory_against_whole,
            *(partial(tables.main, millions, groups) for millions, groups in ((1, 2), (1, 8), (1, 32), (10, 8))),
            training.main,
        ):
            benchmark()
