"""One model, some groups → a run directory: S of each group and of the others, and the tables made of it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensikit.backends.base import Model, task_of
from sensikit.distributed import Part, Share, Work, dealt
from sensikit.errors import OptionError, RunError, SensikitError
from sensikit.files import sha256_of
from sensikit.parameters import Parameter, in_mode, sample_of
from sensikit.progress import Bar, progress, quiet, say
from sensikit.run import BLOCK_KEY, MIXED, Run, rest_of
from sensikit.sensitivity import planning
from sensikit.sensitivity.batches import Batch, fingerprint
from sensikit.sensitivity.planning import Plan, make_plan
from sensikit.sensitivity.taylor import Blocks, Sensitivity, Sums, Tensors, blocks_of, joined, measure
from sensikit.settings import AnalysisSettings, MemorySettings
from sensikit.sharding import Shards, bound
from sensikit.statistics.results import write_results
from sensikit.statistics.specificity import sigma_for
from sensikit.tables import Schema
from sensikit.version import __version__

LAYOUT = Schema(
    "layout.csv", "a sentence under concurrent denoising", "denoise",
    key=("group", "position"),
    numbers=("position",),
    text=("source", "encoder_target", "decoder_input", "decoder_target"),
    empty=("encoder_target", "decoder_target"),  # nothing is to be predicted there
)  # fmt: skip
"""Of the data alone, and so the one table that only a model that learned concurrent denoising has."""


def analyze(
    model: Model,
    out: str | Path,
    settings: AnalysisSettings | None = None,
    *,
    groups: Sequence[str] | None = None,
    resume: bool = False,
    command: str = "",
    share: Share | None = None,
    memory: MemorySettings | None = None,
) -> Run:
    """Measure S(θ,B_l), S(θ,B_-l) and S(θ,B) of one task, write the tables, and return the run.

    Each set is stored as soon as it is measured, so a killed analysis goes on with `resume` from the set it was in
    and ends with the same bytes. A run takes up a second task, of the same checkpoint, data and languages, in the same
    way: with `resume`. The tables hold both.

    >>> run = analyze(model, folder / "analysis", AnalysisSettings(batches=4, tokens=64), groups=["cat", "fur"])
    >>> run.groups(), run.analysis()["signature"].split("|")[1:4]
    (['cat', 'fur'], ['task:mt', 'dir:xxx-eng', 'groups:cat+fur'])
    >>> list(run.manifest["sets"])
    ['mt/cat', 'mt/fur', 'mt/cat.rest', 'mt/fur.rest', 'mt/all.groups']

    Args:
        model: with its data.
        out: the run directory.
        settings: what decides the numbers; by default of the model's first task.
        groups: those to measure, by key; all that there are data of by default. B_-l are the others of these.
        resume: go on with what stands at `out`, or add a task to it.
        command: the command line, noted in the manifest.
        share: which of several processes this is, all called alike; the first one writes the run.
        memory: how it fits into memory.

    Raises:
        OptionError: for a task that the model was not trained on, or for passes beside `skip_nonfinite`.
        RunError: if `out` exists (without `resume`), or was made with other settings or of something else (with it).
        EndedError: if one of the processes that hold the model together has ended.
    """
    out, settings = Path(out), settings or AnalysisSettings(task=model.tasks[0])
    if resume and (out / Run.NOTE).is_file():
        planning.recall_lengths(Run.open(out), model, task_of(model, settings.task, settings.seed), settings.split)
    plan = make_plan(model, settings, groups)
    analysis = {
        "signature": planning.run_signature(model, settings, plan),
        "settings": asdict(settings),
        "tokens": plan.tokens,
        "notes": plan.notes,
        "command": command,
    }
    facts = {**_facts(model, plan), "analyses": {settings.task: analysis}, "sets": {}}
    facts["parameters"] = [asdict(parameter) for parameter in plan.parameters]
    share = share or Share()
    job = job_of(model, plan, settings, memory or MemorySettings())
    work = _work(out, share, facts, job)
    if not share.leads:
        with bound(), quiet(bool(share.place)):
            if share.rank:
                _give(out, job, work)
            else:
                _measure_all(None, job, work)
        return Run.open(out)
    for note in plan.notes:
        say(note)
    with bound(), Run.begun(out, facts, resume) as run:
        _check_disk(run, settings.task, planning.disk_of(facts["parameter_count"], plan, settings))
        run.manifest["analyses"].setdefault(settings.task, analysis)
        run.save()
        planning.keep_lengths(run, plan.task)
        _measure_all(run, job, work)
        layout = plan.task.layout(plan.measured, settings.split)
        if layout is not None:
            run.write_table(LAYOUT, layout)
        write_results(run)
    return run


def _facts(model: Model, plan: Plan) -> dict[str, Any]:
    """Return what all tasks of a run have in common."""
    return {
        "version": __version__,
        "direction": plan.task.direction,
        "provenance": asdict(model.provenance),
        "groups": {key: plan.task.groups[key].facts() for key in plan.measured},
        "parameter_count": sum(parameter.numel for parameter in plan.parameters),
        "prunable_count": sum(parameter.numel for parameter in plan.parameters if parameter.prunable),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def _check_disk(run: Run, task: str, wanted: int) -> None:
    held = sum(path.stat().st_size for path in run.vector(task, MIXED).parent.glob("*.safetensors"))
    free = shutil.disk_usage(run.path).free
    if free < wanted - held:
        problem = f"the disk has {free / 1e9:.2g} GB free and the run takes {(wanted - held) / 1e9:.2g} GB more"
        raise SensikitError(run.path, problem, "free some space or choose another --out")


# measuring


@dataclass(frozen=True)
class Job:
    """What is measured: in which passes over the parameters, where their sums are, and in how many parts."""

    model: Model
    plan: Plan
    settings: AnalysisSettings
    passes: list[list[Parameter]]
    sums: str
    shard: int = 1

    def how(self, batches: Sequence[Batch], number: int = 0, name: str = "") -> dict[str, Any]:
        """Return what `measure` is told of a pass over some batches; of a set, by its name, its dropout's seed too."""
        plan, settings = self.plan, self.settings
        # in train mode each set has its own, reproducible noise, whichever was measured before it
        seed = int(sha256_of(str(settings.seed), planning.purpose_of(name))[:15], 16) if name else None
        return {
            "module": self.model.module,
            "parameters": self.passes[number],
            "batches": batches,
            "collate": lambda items: plan.task.collate(items, settings.split),
            "loss": lambda micro_batch: plan.task.loss(micro_batch, settings.loss),
            "per_token": settings.reduction == "token",
            "skip_nonfinite": settings.skip_nonfinite,
            "seed": seed,
            "sums": self.sums,
        }

    def vectors(self) -> int:
        """Return the bytes of the device that the sums and a held gradient take."""
        count, width = planning.largest(self.passes) // self.shard, planning.width_of(self.model)
        return planning.device_memory(
            self.sums, count, width, planning.held_gradient(self.plan, self.settings, self.shard)
        )

    def units(self) -> list[tuple[str, int, int]]:
        """Return (set, pass, block) of all there is to sum: what processes share."""
        found = []
        for name, batches in self.plan.sets.items():
            both = itertools.product(range(len(self.passes)), range(len(blocks_of(len(batches)))))
            found += [(name, number, block) for number, block in both]
        return found


def job_of(model: Model, plan: Plan, settings: AnalysisSettings, memory: MemorySettings) -> Job:
    """Return what is measured, as it fits into memory; refuse options that do not go together."""
    if settings.skip_nonfinite and memory.parameter_passes > 1:
        problem = "goes with one pass alone: another might skip other batches"
        raise OptionError("--skip-nonfinite", problem, "leave out --parameter-passes")
    parts = Shards.of(model.module).size
    if parts != memory.shard and not any(tensor.is_meta for tensor in model.module.parameters()):
        raise OptionError("--shard", f"is {memory.shard}, and the model is in {parts} parts", f"give {parts}")
    if parts > 1 and settings.mode == "train":
        # layers that are left out at random would be waited for by the processes that do not leave them out
        raise OptionError("--shard", "goes with --mode eval alone", "leave out --mode train and --preset")
    passes = planning.passes_of(plan.parameters, memory.parameter_passes)
    count, held = planning.largest(passes) // memory.shard, planning.held_gradient(plan, settings, memory.shard)
    where = planning.place_of(memory, model.device, count, planning.width_of(model), held)
    return Job(model, plan, settings, passes, where, memory.shard)


def _measure_all(run: Run | None, job: Job, work: Work) -> None:
    """Measure what is left. Of several processes that hold one model, all do; the first one has the run."""
    plan, settings, shards = job.plan, job.settings, Shards.of(job.model.module)
    units = {unit: number for number, unit in enumerate(job.units())}
    sizes = {name: len(of) * len(job.passes) for name, of in plan.sets.items()}
    left = {name: size for name, size in sizes.items() if run is not None and not run.has(settings.task, name)}
    left = shards.told(left)
    batches = f"{sum(left.values()):,} batches of about {plan.tokens} target tokens"
    say(f"{len(plan.sets)} sets of batches, {batches} to come")
    if any(len(batch.micro_batches) % job.shard for of in plan.sets.values() for batch in of):
        say(
            f"of some batches not all processes have a part to compute: --micro-batches {job.shard} would give each one"
        )

    def take(name: str, number: int, block: int) -> Part | None:
        return None if run is None else work.take(units[name, number, block])

    with _measuring(job), contextlib.nullcontext() if run is None else work:
        for name in plan.sets:
            if name not in left:
                say(f"{name}: already measured")
                continue
            size = left.pop(name)
            with progress(size, f"{_label(settings)} {name}", after=sum(left.values())) as bar:
                _measure_set(run, job, name, functools.partial(take, name), bar)
    if run is not None and settings.rest == "pooled":
        for name in plan.measured:
            if not run.has(settings.task, rest_of(name)):
                _pool(run, settings, name, [other for other in plan.measured if other != name])


def _measure_set(run: Run | None, job: Job, name: str, take: Callable[[int, int], Part | None], bar: Bar) -> None:
    """Measure and store one set: what it has held in memory is gone before the next one begins."""
    plan, settings = job.plan, job.settings
    batches, sample, parts = plan.sets[name], sample_of(plan.parameters), []

    def elsewhere(number: int, block: int) -> Sums | None:
        return Sums.of(take(number, block), job.model.module, job.passes[number])

    for number, parameters in enumerate(job.passes):
        own = {p.name: sample[p.name] for p in parameters if name in plan.measured and p.name in sample}
        how = job.how(batches, number, name) | {"elsewhere": functools.partial(elsewhere, number)}
        parts.append(measure(**how, sample=own, advance=bar.advance, halves=settings.halves))
    found = joined(parts)
    if run is not None:
        vectors = {"": _rounded(found.mean, settings)}
        if name in plan.measured:  # the others have neither halves nor blocks
            vectors |= {"half": _rounded(found.half, settings)} if settings.halves else {}
            vectors["blocks"] = {BLOCK_KEY: torch.from_numpy(found.blocks)}
        run.write_set(settings.task, name, vectors, _noted(found, batches, settings))


def _label(settings: AnalysisSettings) -> str:
    return "S(θ,B)" if settings.task == "mt" else f"S(θ,B) {settings.task}"


@contextlib.contextmanager
def _measuring(job: Job) -> Iterator[None]:
    """Put the module in the mode of the analysis, then back; tell in one line that memory is too small."""
    try:
        with in_mode(job.model.module, job.settings.mode == "train"):
            yield
    except torch.OutOfMemoryError as error:
        problem = "the device ran out of memory"
        raise SensikitError("--tokens", problem, "raise --micro-batches or lower --tokens") from error


# several processes: the unit is a block of a set, in one pass


def _work(out: Path, share: Share, facts: dict[str, Any], job: Job) -> Work:
    """Return the work of an analysis: of each process, two blocks at most wait on the disk."""
    analysis, origin = facts["analyses"][job.settings.task], facts["provenance"]
    scope = {name: analysis[name] for name in ("signature", "settings")} | {"passes": len(job.passes)}
    scope |= {name: origin[name] for name in ("checkpoint_sha256", "data_sha256")}
    sizes = {name: blocks_of(len(batches)) for name, batches in job.plan.sets.items()}
    owners = dealt((sizes[name][block] for name, _, block in job.units()), share.size)
    return Work(out, share, scope, owners, ahead=2 * share.size)


def _give(out: Path, job: Job, work: Work) -> None:
    """Sum this process's blocks for the first one; of several that hold one model, the first says which."""
    units, settings, shards = job.units(), job.settings, Shards.of(job.model.module)

    @functools.lru_cache(maxsize=1)
    def blocks(name: str, number: int) -> Blocks:
        return Blocks(**job.how(job.plan.sets[name], number, name))

    def left(mine: Collection[int]) -> list[int]:
        try:
            run = Run.open(out)
        except RunError:  # the first process has not begun it
            return [*mine]
        held = {name for name in {units[unit][0] for unit in mine} if run.has(settings.task, name)}
        return [unit for unit in mine if units[unit][0] not in held]

    def make(unit: int) -> Part:
        name, number, block = units[unit]
        return blocks(name, number).sums(block, bar.advance).part(job.model.module, job.passes[number])

    with _measuring(job), progress(None, f"{_label(settings)}, a share") as bar:
        if shards.leads:
            work.give(lambda unit: make(shards.told(unit)), left)
            shards.told(-1)
        else:
            while (unit := shards.told(-1)) >= 0:
                assert not [*make(unit).arrays]  # they go to the first


def _rounded(vector: Tensors, settings: AnalysisSettings) -> Tensors:
    """Return a vector as it is stored: to the nearest, a tie to the even."""
    return {name: tensor.to(planning.STORED[settings.store]) for name, tensor in vector.items()}


def _noted(found: Sensitivity, batches: Sequence[Batch], settings: AnalysisSettings) -> dict[str, Any]:
    """Return what the manifest says of a set."""
    tokens = float(np.mean(found.tokens))
    return {
        "batches": found.batches,
        "half_batches": found.half_batches,
        "block_batches": found.block_batches,
        "tokens_mean": tokens,
        "tokens_min": min(found.tokens),
        "tokens_max": max(found.tokens),
        "sentences": dict(Counter(key for batch in batches for key, _ in batch.items)),
        "skipped": len(found.skipped),
        "loss": float(np.mean(found.losses)),
        "sigma": sigma_for(settings.reduction == "token", tokens, settings.sigma),
        "drawn": fingerprint(batches),
    }


def _pool(run: Run, settings: AnalysisSettings, name: str, others: Sequence[str]) -> None:
    """Store S(θ,B_-l) as the plain mean of the other languages' S."""
    entries = [run.manifest["sets"][f"{settings.task}/{other}"] for other in others]
    vectors = [run.vector(settings.task, other) for other in others]
    pooled = {p.name: np.empty(p.numel, dtype=np.float32) for p in run.parameters}
    for (parameter, offset), block in run.chunks(vectors):
        pooled[parameter.name][offset : offset + block.shape[1]] = block.mean(axis=0, dtype=np.float64)
    shaped = {p.name: torch.from_numpy(pooled[p.name]).reshape(p.shape) for p in run.parameters}
    tokens = float(np.mean([entry["tokens_mean"] for entry in entries]))
    facts = {"pooled": list(others), "tokens_mean": tokens}
    facts["sigma"] = sigma_for(settings.reduction == "token", tokens, settings.sigma)
    run.write_set(settings.task, rest_of(name), {"": _rounded(shaped, settings)}, facts)
