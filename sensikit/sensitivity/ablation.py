"""Eq. 1: the exact |L(θ) − L(θ with θ_i = 0)| of a sample of parameters, beside its Taylor estimate |θ_i·∂L/∂θ_i|.

In float64 from end to end: at a loss of 5 nats one step of a float32 is 5e-7, more than most parameters matter.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from sensikit.backends.base import Model
from sensikit.distributed import Part, Share, Work
from sensikit.errors import NonFiniteError, OptionError
from sensikit.languages import chosen_groups
from sensikit.parameters import Parameter, in_mode
from sensikit.progress import progress
from sensikit.run import Run
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.planning import Plan, check_source, redrawn
from sensikit.sensitivity.strata import LEVELS, STATISTICS, Sample, intervals, sample
from sensikit.sensitivity.taylor import added
from sensikit.settings import AnalysisSettings
from sensikit.signature import signature
from sensikit.statistics.streaming import Float
from sensikit.tables import Schema

PARAMETERS = 200
"""Ablated for each language by default; see `BATCHES`."""

BATCHES = 1
"""Of each language by default: with `PARAMETERS`, half a minute for four languages of a model of 1M parameters."""

AUDIT = Schema(
    "audit.csv", "Audit of the Taylor estimate", "audit",
    key=("task", "group", "parameter", "index", "stratum"),
    numbers=("index", "weight", "taylor", "exact"),
)  # fmt: skip
SUMMARY = Schema(
    "audit-summary.csv", "its agreement with exact ablation", "audit",
    key=("task", "group", "statistic"),
    numbers=("value", "value_low", "value_high", "sampled", "batches"),
    text=("signature", "command"),
    empty=("value", "value_low", "value_high", "command"),
    statistics=tuple(STATISTICS),
)  # fmt: skip
"""Written last: where it stands, the audit is whole."""

Place = tuple[torch.Tensor, int]
"""A tensor and a flat index in it."""


def audit(
    run: Run,
    model: Model,
    *,
    groups: Sequence[str] | None = None,
    parameters: int = PARAMETERS,
    batches: int = BATCHES,
    task: str | None = None,
    command: str = "",
    share: Share | None = None,
) -> pd.DataFrame:
    """Return (and write as audit-summary.csv, beside audit.csv) how far the Taylor estimate agrees with Eq. 1.

    For each language, a stratified sample of parameters is ablated one by one on the first batches that S(θ, B_l) was
    measured on, and the agreement is weighted by stratum: see `sensikit.sensitivity.strata`. Both tables hold the
    last audit of each task.

    >>> agreement = audit(run, model, groups=["cat"], parameters=40)
    >>> agreement[["group", "statistic", "sampled"]].to_dict("split")["data"]
    [['cat', 'spearman', 40], ['cat', 'pearson', 40], ['cat', 'top10_agreement', 40]]

    Args:
        run: with S of the languages, which decides the strata.
        model: the checkpoint and data that the run was measured on.
        groups: those of the run by default.
        parameters: how many are ablated, for each language.
        batches: of each language, at most.
        task: whose loss; by default the first of the run.
        command: the command line, noted in the summary.
        share: which of several processes this is, all called alike; the first one writes the run, and alone returns
            rows.

    Raises:
        OptionError: for a group that was not measured, or too few batches or parameters.
        RunError: if the run belongs to another checkpoint or other data, or its batches cannot be drawn again.
        NonFiniteError: if a loss or a gradient is not finite.
    """
    if batches < 1:
        raise OptionError("--batches", f"{batches} is too few", "give 1 or more")
    check_source(run, model)
    task = task or run.tasks[0]
    chosen = chosen_groups(run.groups(task), groups)
    run.check(task, chosen)
    settings, plan = redrawn(run, model, chosen, task)
    samples = {code: sample(run, code, parameters, settings.seed, task) for code in chosen}
    used = {code: plan.sets[code][:batches] for code in chosen}
    rows: list[pd.DataFrame] = []
    summary: list[dict[str, Any]] = []
    # several processes: each ablates its part of every sample, and no value depends on which others are with it
    share = share or Share()
    shared = [(code, rank) for code in chosen for rank in range(share.size)]
    signatures = {code: audit_signature(run, settings, parameters, len(used[code])) for code in chosen}
    work = Work(run.path, share, {"size": share.size, **signatures}, [rank for _, rank in shared])

    def measured(unit: int) -> Part:
        code, rank = shared[unit]
        edges = [len(samples[code].places) * i // share.size for i in (rank, rank + 1)]
        return Part({}, _measured(model, plan, settings, samples[code].places[slice(*edges)], used[code], bar.advance))

    steps = sum(len(samples[code].places) * len(used[code]) for code in chosen)
    if not share.leads:
        with progress(None, "audit, a share", "ablations") as bar:
            work.give(measured, lambda mine: mine)
        return SUMMARY.frame([])
    with run.locked(), work, progress(steps, "audit", "ablations") as bar:
        work.forget()  # an audit is made anew: no table says what of it there is
        found = [[*(work.take(unit) or measured(unit)).arrays] for unit in range(len(shared))]
        others = {schema: _of_other_tasks(run, schema, task) for schema in (AUDIT, SUMMARY)}
        for code in chosen:
            own = [arrays for arrays, (other, _) in zip(found, shared, strict=True) if other == code]
            taylor, exact = (np.concatenate(values) for values in zip(*own, strict=True))
            rows.append(_rows(task, code, samples[code], taylor, exact))
            facts: dict[str, Any] = {"sampled": len(taylor), "batches": len(used[code])}
            facts |= {"signature": signatures[code], "command": command}
            for name, (value, low, high) in intervals(taylor, exact, samples[code]).items():
                statistic = {"statistic": name, "value": value, "value_low": low, "value_high": high}
                summary.append({"task": task, "group": code, **statistic, **facts})
        table = SUMMARY.frame(summary)
        for schema, parts in ((AUDIT, rows), (SUMMARY, [table])):
            run.write_table(schema, pd.concat([*others[schema], *parts], ignore_index=True))
    return table


def _of_other_tasks(run: Run, schema: Schema, task: str) -> list[pd.DataFrame]:
    """Return what a table of the run holds of each other task."""
    if not (run.path / schema.name).exists():
        return []
    return [rows for other, rows in run.read_table(schema).groupby("task", sort=False) if other != task]


def audit_signature(run: Run, settings: AnalysisSettings, parameters: int, batches: int) -> str:
    """Return the signature of an audit: every choice that moves its numbers."""
    return signature(
        "A",
        task=settings.task,
        dir=run.manifest["direction"],
        split=settings.split,
        loss=f"{settings.loss}/{settings.reduction}",
        mode=settings.mode,
        abs="batch",
        batches=batches,
        tokens=run.analysis(settings.task)["tokens"],
        params=parameters,
        strata=f"component*S@{'/'.join(map(str, LEVELS))}",
        ci="jackknife",
        seed=settings.seed,
        dtype="fp64",
        ckpt=run.manifest["provenance"]["checkpoint_sha256"][:8],
        data=run.manifest["provenance"]["data_sha256"][:8],
    )


def _measured(
    model: Model,
    plan: Plan,
    settings: AnalysisSettings,
    places: Sequence[tuple[Parameter, int]],
    batches: Sequence[Batch],
    advance: Callable[[], None],
) -> tuple[Float, Float]:
    """Return (taylor, exact) of some parameters in float64, with the loss and the mode of the run."""
    module = model.module
    named = dict(module.named_parameters())
    with in_mode(module, settings.mode == "train"), in_float64(module):
        return ablate(
            module,
            [(named[parameter.name], index) for parameter, index in places],
            batches,
            lambda items: plan.task.collate(items, settings.split),
            lambda micro_batch: plan.task.loss(micro_batch, settings.loss),
            per_token=settings.reduction == "token",
            seed=settings.seed,
            advance=advance,
        )


def ablate(
    module: nn.Module,
    places: Sequence[Place],
    batches: Sequence[Batch],
    collate: Callable[[Any], Any],
    loss: Callable[[Any], tuple[torch.Tensor, Any]],
    *,
    per_token: bool = True,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Float, Float]:
    """Return, of each place, the Taylor estimate (Eq. 3) and the exact sensitivity (Eq. 1), (M,) each, float64.

    Both are means over the batches of an absolute value per batch: of θ_i·∂L/∂θ_i, and of L(θ) − L(θ with θ_i = 0).
    `module` is left as it was, bit for bit.

    Args:
        module: in the mode and the dtype that is to be measured.
        places: M (tensor of `module`, flat index in it).
        batches: with their target tokens.
        collate: the sentences of one micro-batch → what `loss` takes.
        loss: → the *summed* loss (nats) and the number of its target tokens; see `sensitivity.measure`.
        per_token: divide the loss of a batch by its target tokens, or leave the sum.
        seed: of the dropout, where there is any: each batch has its own, the same for every loss that is compared.
        advance: called after each ablation.

    Raises:
        NonFiniteError: naming the batch.
    """

    def losses(number: int, batch: Batch, micro_batches: Sequence[Any]) -> Iterator[torch.Tensor]:
        torch.manual_seed(seed + number)
        for micro_batch in micro_batches:
            yield added(loss(micro_batch)[0], batch, per_token)

    taylor, exact = np.zeros(len(places)), np.zeros(len(places))
    for number, batch in enumerate(batches):
        # what its micro-batches add to the loss of the batch, computed anew at every call
        parts = partial(losses, number, batch, [collate(items) for items in batch.micro_batches])
        taylor += np.abs(_products(module, places, parts()))
        with torch.no_grad():
            whole = sum(float(part) for part in parts())
            for i, (tensor, index) in enumerate(places):
                with _zeroed(tensor, index):
                    exact[i] += abs(whole - sum(float(part) for part in parts()))
                advance()
        if not (np.isfinite(taylor).all() and np.isfinite(exact).all()):
            raise NonFiniteError(f"batch {number}", "its loss or gradient is not finite", "audit another language")
    return taylor / len(batches), exact / len(batches)


def _products(module: nn.Module, places: Sequence[Place], parts: Iterator[torch.Tensor]) -> Float:
    """Return θ_i·∂L/∂θ_i of the sum of the parts, (M,)."""
    module.zero_grad(set_to_none=True)
    for part in parts:
        part.backward()  # type: ignore[no-untyped-call]
    gradients = {id(tensor): tensor.grad.to_dense().flatten() for tensor, _ in places if tensor.grad is not None}
    module.zero_grad(set_to_none=True)
    values = [(tensor.detach().flatten()[index], gradients.get(id(tensor)), index) for tensor, index in places]
    return np.array([0.0 if gradient is None else float(value * gradient[index]) for value, gradient, index in values])


@contextlib.contextmanager
def _zeroed(tensor: torch.Tensor, index: int) -> Iterator[None]:
    """Set one element to zero while the block runs."""
    flat = tensor.detach().view(-1)
    kept = flat[index].clone()
    flat[index] = 0
    try:
        yield
    finally:
        flat[index] = kept


@contextlib.contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """Have `module` in float64 while the block runs, and put every bit back afterwards."""
    held = [*module.parameters(), *module.buffers()]
    dtypes = [tensor.dtype for tensor in held]
    module.double()
    try:
        yield
    finally:
        for tensor, dtype in zip(itertools.chain(module.parameters(), module.buffers()), dtypes, strict=True):
            tensor.data = tensor.data.to(dtype)


def _rows(task: str, language: str, drawn: Sample, taylor: Float, exact: Float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": task,
            "group": language,
            "parameter": [parameter.name for parameter, _ in drawn.places],
            "index": [index for _, index in drawn.places],
            "stratum": drawn.strata,
            "weight": drawn.weights,
            "taylor": taylor,
            "exact": exact,
        }
    )
