"""A pruning sweep: cells of (order, seed, group, ratio), each scored once, in a ledger that survives a kill."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd

from sensikit.backends.base import Model, task_of
from sensikit.distributed import Part, Share, Work, dealt
from sensikit.errors import OptionError
from sensikit.evaluation.metrics import LENGTHS, Metric, bleu_metric, check_scored, chosen, lengths
from sensikit.evaluation.resampling import Float, Ids, Sampled, resampled, save_ids, save_sums
from sensikit.evaluation.shared import Made
from sensikit.languages import chosen_groups
from sensikit.progress import progress
from sensikit.pruning.ledger import CROSS, PRUNING, SEEDED, SEGMENTS, UNPRUNED, Cell, Ledger, Line, cells, record
from sensikit.pruning.masks import Order, Plan, check_ratios, pruned, pruning_plan
from sensikit.pruning.scorers import measure_missing, scorer_of
from sensikit.run import Run, sets_of
from sensikit.sensitivity.planning import check_source
from sensikit.settings import SweepSettings
from sensikit.signature import signature


def prune(
    run: Run,
    model: Model,
    ratios: Sequence[float],
    orders: Sequence[str] = ("specificity",),
    *,
    seeds: Sequence[int] = (1,),
    groups: Sequence[str] | None = None,
    settings: SweepSettings | None = None,
    cross: bool = False,
    resume: bool = False,
    command: str = "",
    share: Share | None = None,
) -> pd.DataFrame:
    """Prune, translate where a metric needs it, and score every cell; return (and write as pruning.csv) the tidy table.

    Each cell's hypotheses and sums over sentences are stored, then its lines are added to pruning/ledger.jsonl. Where
    two cells prune the same parameters (the largest ratio of all orders), the second one's are copied. A killed sweep
    goes on with `resume` and ends with the same bytes; a later sweep may add orders, seeds, ratios, groups and metrics
    to the ledger, but not change the other `settings`. Scores that an order needs beside S and D are measured first,
    and stored in the run.

    >>> settings = SweepSettings(metrics=("loss",))
    >>> table = prune(run, model, [0, 0.5], ["specificity", "random"], groups=["cat", "fur"], settings=settings)
    >>> table.groupby(["order", "ratio"])["pruned"].max().to_dict()
    {('none', 0.0): 0, ('random', 0.5): 828, ('specificity', 0.5): 828}

    Args:
        run: with the sensitivities of the groups.
        model: the checkpoint and data that the run was measured on.
        ratios: pruned / prunable, each in [0, 1 - protect].
        orders: names of `scorers.SCORERS`.
        seeds: of the random orders, one curve each.
        groups: those of the run by default.
        settings: see `SweepSettings`; by default of the run's first task.
        cross: score every group with what is left by each one's order, for pruning-cross.csv.
        resume: go on with, or add to, what the ledger holds.
        command: the command line, noted beside the ledger.
        share: which of several processes this is, all called alike; the first one writes the run.

    Raises:
        OptionError: for a ratio, an order, a group or a metric that does not exist.
        RunError: if the run belongs to another checkpoint or other data, or its ledger stands already (without
            `resume`).
    """
    settings = settings or SweepSettings(task=run.tasks[0])
    orders = [orders] if isinstance(orders, str) else orders
    check_source(run, model)
    keys, metrics = chosen_groups(run.groups(settings.task), groups), chosen(settings.scored)
    check_asked(ratios, orders, seeds, settings)
    noted = _noted(settings, metrics)
    check_scored(settings.scored, model, settings.task, settings.split)
    wanted = cells(keys, ratios, orders, seeds, cross)
    work = _work(run, share or Share(), wanted, settings, noted)
    if not work.share.leads:
        return _give(run, model, wanted, settings, work)
    with run.locked(), Ledger.begun(run.path / "pruning", noted, resume) as ledger:
        todo = [cell for cell in wanted if ledger.missing(cell, settings.scored)]
        run.check(settings.task, sets_of(keys) if todo else [])
        # an order that the model does not allow is refused before there is a ledger
        measure_missing(run, model, [(cell.order, cell.group) for cell in todo], settings.task)
        ledger.save()
        record(ledger.path, command)
        number = {cell: unit for unit, cell in enumerate(wanted)}
        with work, _Pruner(run, model, todo, settings) as pruner, progress(len(todo), "pruning", "cells") as bar:
            for cell in todo:
                lacking = ledger.missing(cell, settings.scored)
                part = work.take(number[cell])
                what = pruner.prune(cell) if part is None else {name: part.facts[name] for name in ("pruned", "mask")}
                found = [line for metric in lacking if (line := _shared(run, ledger, cell, what["mask"], metric))]
                if left := [name for name in lacking if name not in {line["metric"] for line in found}]:
                    made = _made(run, model, cell, settings, chosen(left)) if part is None else Made.of(part)
                    found += _lines(run, model, cell, what, settings, chosen(left), made)
                ledger.add(cell, found)
                bar.advance()
        table, crossed = ledger.table(), ledger.cross_table()
        run.write_table(PRUNING, table)
        if len(crossed):
            run.write_table(CROSS, crossed)
    return table


def parse_ratios(text: str) -> list[float]:
    """Return the ratios of "0:0.9:0.1" (first:last:step, both ends included) or "0,0.3,0.6".

    Raises:
        OptionError: if it is neither.
    """
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if step <= 0 or not 0 <= last - first <= 1000 * step:
                raise ValueError
            return [round(first + i * step, 10) for i in range(int((last - first) / step + 1e-9) + 1)]
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"--ratios {text}", "is not a list of ratios", "write 0:0.9:0.1 or 0,0.3,0.6") from error


def check_asked(ratios: Sequence[float], orders: Sequence[str], seeds: Sequence[int], settings: SweepSettings) -> None:
    """Refuse a sweep of nothing, a ratio that is out of range, an order, metric or tokenizer that does not exist.

    Raises:
        OptionError: naming the option.
    """
    seeded = seeds if set(SEEDED) & set(orders) else [1]
    for option, given in (("--ratios", ratios), ("--order", orders), ("--seeds", seeded)):
        if not len(given):
            raise OptionError(option, "names nothing to do", "give at least one")
    check_ratios(ratios, settings.protect)
    for order in orders:
        scorer_of(order)
    chosen(settings.scored)
    if "bleu" in settings.scored:
        bleu_metric(settings.tokenizer, settings.spm_model)


def _noted(settings: SweepSettings, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return what a ledger's cells have in common; a SentencePiece model by what is in it, not by where it is."""
    noted: dict[str, Any] = asdict(settings)
    noted["max_sentences"] = settings.decoding.max_sentences
    del noted["metrics"], noted["tokenizer"], noted["spm_model"]
    if not any(metric.decodes for metric in metrics):
        del noted["decoding"]
    if "bleu" in settings.scored:
        noted["tokenizer"] = bleu_metric(settings.tokenizer, settings.spm_model).tokenizer_signature
    return noted


class _Pruner(contextlib.ExitStack):
    """Prunes a model as one cell after another says, and puts every bit back at the end.

    The plan of an order is made once for all its ratios, and the model pruned once for all groups that it is scored on.
    """

    def __init__(self, run: Run, model: Model, todo: Sequence[Cell], settings: SweepSettings) -> None:
        super().__init__()
        self.run, self.model, self.todo, self.settings = run, model, todo, settings
        self.plan: Plan | None = None
        self.of: tuple[Any, ...] = ()
        self.ratio: float | None = None
        self.what: Line = {}

    def prune(self, cell: Cell) -> Line:
        """Prune the model accordingly; return the `pruned` and `mask` of its lines."""
        run, module = self.run, self.model.module
        if _order(cell) != self.of:
            self.close()
            how = self.settings.protect, self.settings.task, self.settings.protect_among
            order = Order(cell.order, cell.group, cell.seed, *how)
            ratios = list(dict.fromkeys(each.ratio for each in self.todo if _order(each) == _order(cell)))
            self.plan = None if cell.order == UNPRUNED else pruning_plan(run, module, order, ratios)
            self.of, self.ratio = _order(cell), None
        if cell.ratio != self.ratio:
            self.close()
            zeroed = pruned(run, module, self.plan, cell.ratio) if self.plan else contextlib.nullcontext(0)
            mask = self.plan.digest(cell.ratio) if self.plan else UNPRUNED
            self.what, self.ratio = {"pruned": self.enter_context(zeroed), "mask": mask}, cell.ratio
        return self.what


def _order(cell: Cell) -> tuple[str, int | None, str]:
    return cell.order, cell.seed, cell.group


# several processes: the unit is a cell, and those of one order, seed and group are of one process


def _work(run: Run, share: Share, wanted: Sequence[Cell], settings: SweepSettings, noted: dict[str, Any]) -> Work:
    sizes = [len(list(same)) for _, same in itertools.groupby(wanted, _order)]
    owners = [owner for owner, size in zip(dealt(sizes, share.size), sizes, strict=True) for _ in range(size)]
    scope = {"cells": [asdict(cell) for cell in wanted], "metrics": settings.scored, "settings": noted}
    scope |= {"sensitivities": run.analysis(settings.task)["signature"], "provenance": run.manifest["provenance"]}
    return Work(run.path, share, scope, owners)


def _give(run: Run, model: Model, wanted: Sequence[Cell], settings: SweepSettings, work: Work) -> pd.DataFrame:
    """Measure this process's cells for the first one; return the table that it ends with."""

    def ledger() -> Ledger:
        path = run.path / "pruning"
        # a damaged line is one that the first process has yet to drop: its cell is missing
        return Ledger.taken(path) if (path / Ledger.NOTE).exists() else Ledger(path, {})

    def lacking(found: Ledger, cell: Cell) -> list[str]:
        # what is damaged too: the first process makes it again, and may not have said so yet
        gone = found.missing(cell, settings.scored)
        return [name for name in settings.scored if name in gone or found.problem(cell, name)]

    def left(mine: Collection[int]) -> list[int]:
        found = ledger()
        return [unit for unit in mine if lacking(found, wanted[unit])]

    def make(unit: int) -> Part:
        cell, metrics = wanted[unit], chosen(lacking(ledger(), wanted[unit]))
        if _order(cell) != pruner.of:  # the first process may have measured what it needs since the run was opened
            run.manifest = Run.open(run.path).manifest
        what = pruner.prune(cell)
        bar.advance()
        return _made(run, model, cell, settings, metrics).part(**what)

    with _Pruner(run, model, wanted, settings) as pruner, progress(None, "pruning, a share", "cells") as bar:
        work.give(make, left)
    return ledger().table()


def _made(run: Run, model: Model, cell: Cell, settings: SweepSettings, metrics: Sequence[Metric]) -> Made:
    """Return what the pruned model makes of a test set."""
    decodes = {metric.decodes for metric in metrics}
    return Made.by(model, settings, cell.evaluated, decodes, _seed(run, settings))


def _shared(run: Run, ledger: Ledger, cell: Cell, mask: str, metric: str) -> Line | None:
    """Return the line of a cell whose very model was scored before, with its own copy of what that gave; or none."""
    line = ledger.alike(cell, mask, metric)
    if line is None:
        return None
    places = {"sums": (cell.sums(metric), "sums_sha256"), "hypotheses": (cell.hypotheses, "sha256")}
    copied = {name: place for name, (place, _) in places.items() if line[name]}
    if not all(run.whole(line[name], line[places[name][1]]) for name in copied):
        return None
    for name, place in copied.items():
        run.write(place, partial(shutil.copyfile, run.path / line[name]))
    return line | _of(cell) | copied


def _lines(
    run: Run, model: Model, cell: Cell, what: Line, settings: SweepSettings, metrics: Sequence[Metric], made: Made
) -> list[Line]:
    """Store what was made of a cell, score it, and return a line of the ledger for each metric."""
    rows: dict[Metric, Float] = {}
    ids: dict[bool, Ids] = {}
    facts: dict[bool, Line] = {}
    if made.translations:
        found, ids[True], known_by = made.translations
        texts = found.hypotheses, found.references
        for metric in (metric for metric in metrics if metric.decodes):
            rows[metric] = metric.sums(*texts, settings.tokenizer, settings.spm_model)
        facts[True] = {
            "truncated": found.truncated,
            "signature": cell_signature(run, settings, known_by, found.references_from),
            "hypotheses": cell.hypotheses,
            "sha256": run.write_lines(cell.hypotheses, found.hypotheses),
            "test_set": save_ids(run.path / SEGMENTS, ids[True]),
        }
    if made.losses:
        sums, ids[False], known_by = made.losses
        rows |= dict.fromkeys((metric for metric in metrics if not metric.decodes), sums)
        task = task_of(model, settings.task, _seed(run, settings))
        facts[False] = {
            "truncated": 0,
            **dict.fromkeys(("hypotheses", "sha256")),
            "signature": cell_signature(run, settings, known_by, noise=task.choices()),
            "test_set": save_ids(run.path / SEGMENTS, ids[False]),
        }
    scores = resampled([metric.scored(ids[metric.decodes], sums) for metric, sums in rows.items()], settings.bootstrap)
    return [
        _line(run, cell, settings, metric, rows[metric], score, what | facts[metric.decodes])
        for metric, score in zip(rows, scores, strict=True)
    ]


def _of(cell: Cell) -> Line:
    """Return what of a line is its cell's alone."""
    return {"order": cell.order, "seed": cell.seed, "group": cell.group, "ratio": cell.ratio}


def _line(
    run: Run, cell: Cell, settings: SweepSettings, metric: Metric, sums: Float, score: Sampled, facts: Line
) -> Line:
    low, high = score.interval()
    return {
        **_of(cell),
        "evaluated": cell.evaluated,
        "metric": metric.name,
        "value": score.value,
        "value_low": low,
        "value_high": high,
        "prunable": run.manifest["prunable_count"],
        "sentences": len(sums),
        "metric_signature": metric.signature(settings.bootstrap, settings.tokenizer, settings.spm_model),
        **facts,
        **dict(zip(LENGTHS, lengths(metric, sums), strict=True)),
        "sums": cell.sums(metric.name),
        "sums_sha256": save_sums(run.path / cell.sums(metric.name), sums),
    }


def cell_signature(
    run: Run, settings: SweepSettings, known_by: str, references: str = "", noise: Mapping[str, str] | None = None
) -> str:
    """Return the signature of a sweep's numbers beside that of their metric: how the model was pruned, and what scored.

    `known_by` is what tells the sentences apart (see `Segments`); `references` says where those of translations come
    from, and is empty where nothing was translated; `noise` is what the task has to say of its sentences.
    """
    return signature(
        "P",
        task=settings.task,
        protect=settings.protect,
        among=settings.protect_among,
        scope="global",
        dir=run.manifest["direction"],
        **settings.decoding.choices(settings.split, references),
        seg=known_by,
        **(noise or {}),
        seed=_seed(run, settings) if noise else None,
        ckpt=run.manifest["provenance"]["checkpoint_sha256"][:8],
        data=run.manifest["provenance"]["data_sha256"][:8],
    )


def _seed(run: Run, settings: SweepSettings) -> int:
    """Return the seed of the noise that the sensitivities were measured on."""
    return int(run.analysis(settings.task)["settings"]["seed"])
