"""A pruning sweep: cells of (order, seed, group, ratio), each scored once, in a ledger that survives a kill."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from sensikit.backends.base import Model, task_of, translation_of
from sensikit.errors import OptionError
from sensikit.evaluation.metrics import (
    Metric,
    bleu_metric,
    check_scored,
    chosen,
    ids_of,
    length_ratio,
    losses,
)  # fmt: skip
from sensikit.evaluation.resampling import Float, Ids, Sampled, resampled, save_ids, save_sums
from sensikit.languages import chosen_groups
from sensikit.progress import progress
from sensikit.pruning.ledger import CROSS, PRUNING, SEGMENTS, UNPRUNED, Cell, Ledger, Line, cells, record
from sensikit.pruning.masks import Order, check_ratios, pruned, pruning_plan
from sensikit.pruning.scorers import measure_missing, scorer_of
from sensikit.run import Run, rest_of
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
) -> pd.DataFrame:
    """Prune, translate where a metric needs it, and score every cell; return (and write as pruning.csv) the tidy table.

    Each cell's hypotheses and sums over sentences are stored, then its lines are added to pruning/ledger.jsonl. A
    killed sweep goes on with `resume` and ends with the same bytes; a later sweep may add orders, seeds, ratios, groups
    and metrics to the ledger, but not change the other `settings`. Scores that an order needs beside S and D are
    measured first, and stored in the run.

    >>> settings = SweepSettings(metrics=("loss",))
    >>> table = prune(run, model, [0, 0.5], ["specificity", "random"], groups=["cat", "fur"], settings=settings)
    >>> table.groupby(["order", "ratio"])["pruned"].max().to_dict()
    {('none', 0.0): 0, ('random', 0.5): 828, ('specificity', 0.5): 828}

    Args:
        run: with the sensitivities of the groups.
        model: the checkpoint and data that the run was measured on.
        ratios: pruned / prunable, each in [0, 1 - protect].
        orders: names of `scorers.SCORERS`.
        seeds: of the random order, one curve each.
        groups: those of the run by default.
        settings: see `SweepSettings`.
        cross: score every group with what is left by each one's order, for pruning-cross.csv.
        resume: go on with, or add to, what the ledger holds.
        command: the command line, noted beside the ledger.

    Raises:
        OptionError: for a ratio, an order, a group or a metric that does not exist.
        RunError: if the run belongs to another checkpoint or other data, or its ledger stands already (without
            `resume`).
    """
    settings = settings or SweepSettings()
    check_source(run, model)
    keys, metrics = chosen_groups(run.groups(settings.task), groups), chosen(settings.scored)
    check_asked(ratios, orders, seeds, settings)
    noted = _noted(settings, metrics)  # a tokenizer that does not exist is refused before the work begins
    check_scored(settings.scored, model, settings.task, settings.split)
    wanted = cells(keys, ratios, orders, seeds, cross)
    with run.locked(), Ledger.begun(run.path / "pruning", noted, resume) as ledger:
        todo = [cell for cell in wanted if ledger.missing(cell, settings.scored)]
        run.check(settings.task, [name for key in keys for name in (key, rest_of(key))] if todo else [])
        # an order that the model does not allow is refused before there is a ledger
        measure_missing(run, model, [(cell.order, cell.group) for cell in todo], settings.task)
        ledger.save()
        record(ledger.path, command)
        with progress(len(todo), "pruning", "cells") as bar:
            for cell, count in _pruned(run, model, todo, settings):
                lacking = ledger.missing(cell, settings.scored)
                ledger.add(cell, _lines(run, model, cell, count, settings, chosen(lacking)))
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
    for option, given in (("--ratios", ratios), ("--order", orders), ("--seeds", seeds if "random" in orders else [1])):
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
    noted["tokenizer"] = noted.pop("spm_model") or noted["tokenizer"]
    if not any(metric.decodes for metric in metrics):
        del noted["decoding"]
    del noted["metrics"]
    if "bleu" in settings.scored:
        noted["tokenizer"] = bleu_metric(settings.tokenizer, settings.spm_model).tokenizer_signature
    else:
        del noted["tokenizer"]
    return noted


def _pruned(run: Run, model: Model, todo: Sequence[Cell], settings: SweepSettings) -> Iterator[tuple[Cell, int]]:
    """Yield each cell, and how many parameters are pruned, while the model is pruned accordingly.

    The plan of an order is made once for all its ratios, and the model pruned once for all groups that it is scored on.
    """
    for (name, seed, group), of_order in itertools.groupby(todo, lambda cell: (cell.order, cell.seed, cell.group)):
        those = list(of_order)
        order = Order(name, group, seed, settings.protect, settings.task)
        plan = None if name == UNPRUNED else pruning_plan(run, model.module, order, [cell.ratio for cell in those])
        for ratio, same in itertools.groupby(those, lambda cell: cell.ratio):
            with pruned(run, model.module, plan, ratio) if plan else contextlib.nullcontext(0) as count:
                for cell in same:
                    model.module.eval()
                    yield cell, count


def _lines(
    run: Run, model: Model, cell: Cell, count: int, settings: SweepSettings, metrics: Sequence[Metric]
) -> list[Line]:
    """Score one cell; store its translations and sums, and return a line of the ledger for each metric."""
    rows: dict[Metric, Float] = {}
    ids: dict[bool, Ids] = {}
    facts: dict[bool, Line] = {}
    of_texts = [metric for metric in metrics if metric.decodes]
    if of_texts:
        translation = translation_of(model, settings.task)
        found = translation.translate(cell.evaluated, settings.split, settings.decoding)
        texts = found.hypotheses, found.references
        rows |= {metric: metric.sums(*texts, settings.tokenizer, settings.spm_model) for metric in of_texts}
        ids[True], known_by = ids_of(translation, cell.evaluated, settings.split, len(found.hypotheses), True)
        facts[True] = {
            "truncated": found.truncated,
            "mean_length_ratio": length_ratio(*texts),
            "signature": cell_signature(run, settings, known_by, found.references_from),
            "hypotheses": cell.hypotheses,
            "sha256": run.write_lines(cell.hypotheses, found.hypotheses),
            "test_set": save_ids(run.path / SEGMENTS, ids[True]),
        }
    for metric in (metric for metric in metrics if not metric.decodes):
        task = task_of(model, settings.task, _seed(run, settings))
        rows[metric] = losses(task, cell.evaluated, settings.split, settings.decoding)
        ids[False], known_by = ids_of(task, cell.evaluated, settings.split, len(rows[metric]), False)
        facts[False] = {
            "truncated": 0,
            **dict.fromkeys(("mean_length_ratio", "hypotheses", "sha256")),
            "signature": cell_signature(run, settings, known_by, noise=task.choices()),
            "test_set": save_ids(run.path / SEGMENTS, ids[False]),
        }
    scores = resampled([metric.scored(ids[metric.decodes], sums) for metric, sums in rows.items()], settings.bootstrap)
    return [
        _line(run, cell, count, settings, metric, rows[metric], score, facts[metric.decodes])
        for metric, score in zip(rows, scores, strict=True)
    ]


def _line(
    run: Run, cell: Cell, count: int, settings: SweepSettings, metric: Metric, sums: Float, score: Sampled, facts: Line
) -> Line:
    low, high = score.interval()
    return {
        "order": cell.order,
        "seed": cell.seed,
        "group": cell.group,
        "evaluated": cell.evaluated,
        "ratio": cell.ratio,
        "metric": metric.name,
        "value": score.value,
        "value_low": low,
        "value_high": high,
        "pruned": count,
        "prunable": run.manifest["prunable_count"],
        "sentences": len(sums),
        "metric_signature": metric.signature(settings.bootstrap, settings.tokenizer, settings.spm_model),
        **facts,
        "sums": cell.sums(metric.name),
        "sums_sha256": save_sums(run.path / cell.sums(metric.name), sums),
    }


def cell_signature(
    run: Run, settings: SweepSettings, known_by: str, references: str = "", noise: Mapping[str, str] | None = None
) -> str:
    """Return the signature of a sweep's numbers beside that of their metric: how the model was pruned, and what scored.

    Args:
        run: that was pruned.
        settings: of the sweep.
        known_by: what tells the sentences apart, see `Segments`.
        references: where the references of the translations come from; empty where nothing was translated.
        noise: what the task has to say of its sentences.
    """
    return signature(
        "P",
        task=settings.task,
        protect=settings.protect,
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
