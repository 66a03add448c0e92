"""What an analysis would take: measured on a few of its batches, or on paper where a model has no weights."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch._subclasses import FakeTensorMode

from sensikit.backends.base import Item, Model
from sensikit.errors import NonFiniteError
from sensikit.progress import say
from sensikit.sensitivity.analysis import Job, job_of
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.planning import disk_of, largest, make_plan, passes_of
from sensikit.sensitivity.taylor import measure
from sensikit.settings import AnalysisSettings, MemorySettings
from sensikit.sharding import bound, gathered

PROBED = 5
"""Batches that are measured to tell what all of them will take."""

SHARDS = (1, 2, 4, 8, 16, 32, 64)
"""Of how many devices a model without weights is reckoned."""


@dataclass(frozen=True)
class Cost:
    """What an analysis takes: bytes of memory and of disk, seconds, and batches in all.

    `memory` is what was in use at the most while a few batches were measured, the largest among them: of a GPU, or else
    of this process. Of a model without weights it is reckoned, of one device, and there are no seconds. `others` is
    the same for other options, which were not tried.
    """

    memory: int
    others: dict[str, int]
    disk: int
    seconds: float | None
    batches: int

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of one after the other."""
        memory, others = max(self.memory, other.memory), {**self.others}
        for name, value in other.others.items():
            others[name] = max(value, others.get(name, 0))
        seconds = None if self.seconds is None or other.seconds is None else self.seconds + other.seconds
        return Cost(memory, others, self.disk + other.disk, seconds, self.batches + other.batches)


def estimate(
    model: Model,
    settings: AnalysisSettings,
    groups: Sequence[str] | None = None,
    memory: MemorySettings | None = None,
) -> Cost:
    """Return what `analyze` would take, after running a few batches to measure it; nothing is written.

    Of a model whose weights are on torch's meta device nothing is run: its weights, sums and gradients are counted, and
    what the largest micro-batch keeps for its backward pass.
    """
    plan = make_plan(model, settings, groups)
    job = job_of(model, plan, settings, memory or MemorySettings())
    sizes = {key: plan.task.sizes(key, settings.split) for key in plan.measured}
    every = [batch for batches in plan.sets.values() for batch in batches]
    widest = max(every, key=lambda batch: max(padded(sizes, items) for items in batch.micro_batches))
    batches, seconds = len(every) * len(job.passes), None
    without = any(tensor.is_meta for tensor in model.module.parameters())
    if without:
        peak = _held(job) + _kept(job, max(widest.micro_batches, key=functools.partial(padded, sizes)))
    else:
        with bound():
            seconds = batches * _probe(job, [widest, *plan.sets[plan.measured[0]][: PROBED - 1]])
        peak = _peak(model.device)
    others, places = {}, without or model.device.type == "cuda"
    for passes, where in itertools.product((1, 2, 4, 8), ("device", "split", "cpu")):
        if places or where == "device":
            name = f"--parameter-passes {passes}" + f" --sums {where}" * places
            other = replace(job, passes=passes_of(plan.parameters, passes), sums=where)
            others[name] = peak - job.vectors() + other.vectors()
    if without:
        others |= {f"--shard {n}": peak - _held(job) + _held(replace(job, shard=n)) for n in SHARDS}
    return Cost(peak, others, disk_of(largest([plan.parameters]), plan, settings), seconds, batches)


def padded(sizes: Mapping[str, NDArray[np.int64]], items: Sequence[Item]) -> int:
    """Return how many tokens a micro-batch takes, padding included."""
    return len(items) * int(np.max([sizes[key][row, :2] for key, row in items], axis=0).sum())


def _probe(job: Job, batches: Sequence[Batch]) -> float:
    """Measure a few batches; return the seconds of one."""
    done: list[float] = []
    try:
        # the first one also pays for what is loaded and allocated once
        measure(**job.how(batches), advance=lambda: done.append(time.monotonic()), halves=job.settings.halves)
    except NonFiniteError:
        if not job.settings.skip_nonfinite:
            raise
    return (done[-1] - done[0]) / max(len(done) - 1, 1)


def _peak(device: torch.device) -> int:
    """Return the most bytes that were in use so far: of a GPU, or else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # Windows has none

    scale = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * scale


def _held(job: Job) -> int:
    """Return the bytes of one device for weights, sums and gradients."""
    module = job.model.module
    weights, buffers = (sum(tensor.nbytes for tensor in each) for each in (module.parameters(), module.buffers()))
    together = gathered(module) if job.shard > 1 else 0
    return weights // job.shard + buffers + together + job.vectors()


def _kept(job: Job, items: Sequence[Item]) -> int:
    """Return the bytes that a micro-batch keeps for its backward pass."""
    module, how = job.model.module, job.how([])
    micro_batch = how["collate"](items)
    try:
        with _pretended(module) as kept:
            how["loss"](micro_batch)
    except Exception as error:  # what a model does with numbers that are not there is its own
        say(f"without what its layers keep for the backward pass, which cannot be told ({type(error).__name__})")
        return 0
    # the gradient of the logits is made in two steps, while all else is still there
    return sum(kept.values()) + 2 * max(kept.values())


@contextlib.contextmanager
def _pretended(module: nn.Module) -> Iterator[dict[int, int]]:
    """Let a module without weights compute shapes; yield the bytes that the backward pass needs, by storage."""
    parts = [
        (part.__dict__, kind, part.__dict__[kind]) for part in module.modules() for kind in ("_parameters", "_buffers")
    ]
    mode, fakes, kept = FakeTensorMode(allow_non_fake_inputs=True), {}, {}
    for _, _, tensors in parts:
        for tensor in filter(lambda each: each is not None, tensors.values()):
            with mode:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            fakes[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
    own = {fake.untyped_storage()._cdata for fake in fakes.values()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    try:
        for place, kind, tensors in parts:
            place[kind] = {name: None if each is None else fakes[id(each)] for name, each in tensors.items()}
        with mode, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield kept
    finally:
        for place, kind, tensors in parts:
            place[kind] = tensors
