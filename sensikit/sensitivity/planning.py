"""What an analysis will do and take, before anything is measured: its settings, the batches of every set, its cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sensikit.backends.base import Counted, Model, Task, task_of
from sensikit.errors import DamagedError, DataError, OptionError, RunError
from sensikit.files import safe_name
from sensikit.languages import chosen_groups
from sensikit.parameters import FLOAT, SAMPLED, Parameter, disk_per_group, registry
from sensikit.run import MIXED, Run, rest_of
from sensikit.sensitivity.batches import MINIMUM_BATCHES, OVERHEAD, Batch, common_tokens, draw, fingerprint, pack
from sensikit.sensitivity.taylor import blocks_of
from sensikit.settings import AnalysisSettings, MemorySettings
from sensikit.sharding import Shards
from sensikit.signature import signature
from sensikit.statistics.specificity import sigma_for

TOKENS = 4096
"""T, the target tokens of a batch, where nothing else is asked for and the data suffice."""

STORED = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""The type of stored vectors, by what --store says."""


@dataclass(frozen=True)
class Plan:
    """What will be measured of one task of a model.

    `measured` are the keys of the groups, in order; `tokens` is T; `sets` are batches by the name of their set: B_l
    under the key of l, B_-l and B; `notes` are what a user should know.
    """

    task: Task
    parameters: tuple[Parameter, ...]
    measured: list[str]
    tokens: int
    sets: dict[str, list[Batch]]
    notes: list[str]


def make_plan(model: Model, settings: AnalysisSettings, groups: Sequence[str] | None = None) -> Plan:
    """Draw the batches of every set. B_-l are the other groups of `groups`, by default of all that there are data of.

    Groups without a sentence in the split are left out and noted, unless they are asked for by name.

    Raises:
        OptionError: for a task that the model was not trained on, or a group that it does not have.
        DataError: for a group without data that is asked for, or where B_-l has no other group.
    """
    task = task_of(model, settings.task, settings.seed)
    if settings.loss not in task.kinds:
        raise OptionError("--loss", "the criterion that the model was trained with is unknown", "give nll")
    measured, without = _with_data(task, settings.split, groups)
    notes = [*model.notes]
    if without:
        notes.append(f"{', '.join(without)}: left out, for the {settings.split} split has no sentence of them")
    sizes = {key: task.sizes(key, settings.split) for key in measured}

    overhead = OVERHEAD["cpu" if model.device.type == "cpu" else "cuda"]

    def packed(name: str, members: Sequence[str], tokens: int, count: int = settings.batches) -> list[Batch]:
        pool = {key: sizes[key] for key in members}
        items = draw(pool, settings.seed, f"{settings.task}/{purpose_of(name)}", settings.rest_temperature)
        return pack(items, pool, tokens, count, settings.micro_batches, overhead)

    left_out = {key: task.left_out(key, settings.split) for key in measured}
    what = "pairs" if settings.task == "mt" else "sentences"
    notes += [f"{key}: {n} {what} longer than the model takes are left out" for key, n in left_out.items() if n]
    tokens = settings.tokens or common_tokens(sizes, TOKENS)
    if not settings.tokens and tokens < TOKENS:
        smallest = min(sizes, key=lambda key: int(sizes[key][:, 1].sum()))
        # a batch closes between sentences, so the last of the 40 may be a few tokens short
        while tokens > 1 and len(packed(smallest, [smallest], tokens, MINIMUM_BATCHES)) < MINIMUM_BATCHES:
            tokens -= math.ceil(tokens / 200)
        lowered = f"T lowered from {TOKENS} to {tokens} target tokens a batch"
        notes.append(f"{lowered}, so that {smallest} fills {MINIMUM_BATCHES} batches")
    sets = {key: packed(key, [key], tokens) for key in measured}
    if settings.rest == "mixed":
        others = {key: [other for other in measured if other != key] for key in measured}
        sets |= {rest_of(key): packed(rest_of(key), others[key], tokens) for key in measured}
    sets[MIXED] = packed(MIXED, measured, tokens)
    short = [key for key in measured if len(sets[key]) < settings.batches]
    notes += [f"{key} has {len(sets[key])} batches of {tokens} target tokens, not {settings.batches}" for key in short]
    return Plan(task, registry(model.module, model.ghosts), measured, tokens, sets, notes)


def purpose_of(name: str) -> str:
    """Return what the random streams of a set are called: its name in version 0.1, so that a seed draws the same."""
    group = name.partition(".")[0]
    return {MIXED: "all", rest_of(group): f"rest-{group}"}.get(name, name)


def _with_data(task: Task, split: str, groups: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the groups that are asked for in the order of the task, and those left out for want of data."""
    chosen = chosen_groups(list(task.groups), groups)
    empty = [key for key in chosen if not task.groups[key].sizes.get(split) or not task.sizes(key, split)[:, 1].sum()]
    if empty and groups is not None:
        raise DataError(empty[0], f"has no sentence in the {split} split", "leave it out of --groups")
    measured = [key for key in chosen if key not in empty]
    if not measured:
        splits = dict.fromkeys(name for key in chosen for name, count in task.groups[key].sizes.items() if count)
        raise OptionError(f"--split {split}", "no group has a sentence in it", f"give {' or '.join(splits)}")
    if len(measured) < 2:
        none = f" (no sentence of {', '.join(empty)} is there, or short enough)" if empty else ""
        raise DataError(measured[0], f"is the only group with a {split} split{none}", "B_-l needs at least two groups")
    return measured, empty


def run_signature(model: Model, settings: AnalysisSettings, plan: Plan) -> str:
    """Return the signature of a task of a run: every choice that moves S or D."""
    whole = plan.measured == list(plan.task.groups)
    return signature(
        "S",
        task=settings.task,
        **plan.task.choices(),
        dir=plan.task.direction,
        groups=len(plan.measured) if whole else "+".join(plan.measured),
        split=settings.split,
        loss=f"{settings.loss}/{settings.reduction}",
        mode=settings.mode,
        abs="batch",
        batches=settings.batches,
        tokens=plan.tokens,
        rest=f"{settings.rest}/T{settings.rest_temperature:g}",
        sigma=sigma_for(settings.reduction == "token", plan.tokens, settings.sigma),
        high=settings.high,
        seed=settings.seed,
        nonfinite="skipped" if settings.skip_nonfinite else None,
        store=settings.store if settings.store != "fp32" else None,
        halves=None if settings.halves else "none",
        # each micro-batch draws its own dropout
        micro_batches=(settings.micro_batches or "cheapest") if settings.mode == "train" else None,
        dtype=model.provenance.loading.get("dtype", "fp32"),
        # the gradient of a batch is added up in another order
        shard=size if (size := Shards.of(model.module).size) > 1 else None,
        ckpt=model.provenance.checkpoint_sha256[:8],
        data=model.provenance.data_sha256[:8],
    )


def passes_of(parameters: Sequence[Parameter], count: int) -> list[list[Parameter]]:
    """Return the parameters in at most `count` runs of the flat order, the largest as small as it can be.

    A tensor is never cut: the embedding of a small model may be the larger part of it.
    """
    # the smallest bound on a run for which there are few enough of them, by bisection
    low, high = max(parameter.numel for parameter in parameters), sum(parameter.numel for parameter in parameters)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_runs(parameters, middle)) <= count else (middle + 1, high)
    return _runs(parameters, low)


def largest(passes: Sequence[Sequence[Parameter]]) -> int:
    """Return the scalars of the largest pass."""
    return max(sum(parameter.numel for parameter in each) for each in passes)


def width_of(model: Model) -> int:
    """Return the bytes of a weight, and of its gradient."""
    return max(tensor.element_size() for tensor in model.module.parameters())


def _runs(parameters: Sequence[Parameter], most: int) -> list[list[Parameter]]:
    runs: list[list[Parameter]] = [[]]
    held = 0
    for parameter in parameters:
        if held and held + parameter.numel > most:
            runs.append([])
            held = 0
        runs[-1].append(parameter)
        held += parameter.numel
    return runs


def device_memory(where: str, count: int, width: int, held: bool) -> int:
    """Return the bytes of a device that the sums and the gradient of `count` parameters take, beside the weights.

    `where` the sums are is as in `MemorySettings`; `width` is of a gradient, of which a whole one may be `held`.
    """
    return count * (FLOAT * {"device": 2, "split": 1, "cpu": 0}[where] + width * held)


def place_of(memory: MemorySettings, device: torch.device, count: int, width: int, held: bool) -> str:
    """Return where the sums go: as much of them as there is room for stays on the device."""
    if memory.sums != "auto":
        return memory.sums
    if device.type != "cuda":
        return "device"
    room = memory.memory * 1e9 if memory.memory else 0.6 * torch.cuda.mem_get_info(device)[0]
    fitting = (where for where in ("device", "split") if device_memory(where, count, width, held) <= room)
    return next(fitting, "cpu")


def held_gradient(plan: Plan, settings: AnalysisSettings, shard: int = 1) -> bool:
    """Return whether a whole gradient is held: of several parts on one device, or to be judged before it counts."""
    parts = (len(batch.micro_batches) for batches in plan.sets.values() for batch in batches)
    return settings.skip_nonfinite or any(part > shard for part in parts)


def disk_of(count: int, plan: Plan, settings: AnalysisSettings) -> int:
    """Return the bytes of disk that a task takes: the vectors of each group and of all, and the block means."""
    blocks = sum(len(blocks_of(len(plan.sets[code]))) for code in plan.measured)
    width = STORED[settings.store].itemsize
    vectors = disk_per_group(count, width, settings.halves) * len(plan.measured) + width * count
    return vectors + FLOAT * min(count, SAMPLED) * blocks


def check_source(run: Run, model: Model) -> None:
    """Refuse a checkpoint or data that are not what the run was measured on."""
    noted, found = run.manifest["provenance"], model.provenance
    if found.checkpoint_sha256 != noted["checkpoint_sha256"]:
        problem = f"was measured on another checkpoint ({noted['checkpoint_sha256'][:8]}) than {found.checkpoint}"
        raise RunError(run.path, problem, "give that one with --checkpoint")
    if registry(model.module, model.ghosts) != run.parameters:
        raise DamagedError(run.path / run.NOTE, "lists other parameters than its checkpoint has", "analyze again")
    if found.data_sha256 != noted["data_sha256"]:
        problem = f"was measured on other data ({noted['data_sha256'][:8]}) than {found.data}"
        raise RunError(run.path, problem, "give those with --data")


def redrawn(run: Run, model: Model, groups: Sequence[str], task: str) -> tuple[AnalysisSettings, Plan]:
    """Return the settings of a run's analysis and its plan, drawn again: B_l of `groups` is what S was measured on."""
    try:
        settings = AnalysisSettings(**run.analysis(task)["settings"])
    except TypeError as error:
        raise RunError(run.path / run.NOTE, "has settings of another version", "analyze again") from error
    recall_lengths(run, model, task_of(model, task, settings.seed), settings.split)
    plan = make_plan(model, settings, run.groups(task))
    for key in groups:
        if fingerprint(plan.sets[key]) != run.manifest["sets"][f"{task}/{key}"].get("drawn"):
            problem = f"was measured on other batches of {key} than its settings give"
            raise RunError(run.path, problem, "another version made it; analyze again")
    return settings, plan


# how long the sentences of a task are, kept with a run: whoever opens it again need not cut all text to count it


def keep_lengths(run: Run, task: Task) -> None:
    """Store what a task has counted, and note the hash of each file; tasks that count nothing keep nothing.

    lengths/TASK.GROUP.SPLIT.npy is (lines, 2) int32: the tokens of the input and of the target of every line.
    """
    if not isinstance(task, Counted):
        return
    noted = run.manifest.setdefault("lengths", {})
    for (group, split), found in task.lengths.items():
        name = _lengths_file(task, group, split)
        if not run.whole(name, noted.get(name)):
            noted[name] = run.write(name, partial(_save, found.astype(np.int32)))
    run.save()


def recall_lengths(run: Run, model: Model, task: Task, split: str) -> None:
    """Give a task what was counted of it, where the model and the data are those of the run.

    What is missing or not as it was written is counted again: it is no result.
    """
    noted, now = run.manifest["provenance"], model.provenance
    same = all(noted[name] == getattr(now, name) for name in ("checkpoint_sha256", "data_sha256", "loading"))
    if not same or not isinstance(task, Counted):
        return
    for group in task.groups:
        name = _lengths_file(task, group, split)
        if run.whole(name, run.manifest.get("lengths", {}).get(name)):
            task.lengths.setdefault((group, split), np.load(run.path / name).astype(np.int64))


def _lengths_file(task: Task, group: str, split: str) -> str:
    return f"lengths/{safe_name(f'{task.name}.{group}.{split}')}.npy"


def _save(found: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:  # of a path, numpy would make another that ends in .npy
        np.save(file, found)
