"""A pruning sweep: cells of (order, seed, language, ratio), each decoded once, in a ledger that survives a kill."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from sensikit.backends.base import Model, translation_of
from sensikit.errors import OptionError
from sensikit.evaluation.metrics import bleu_metric, evaluate_resampled, length_ratio
from sensikit.progress import Bar, progress
from sensikit.pruning.ledger import CROSS, PRUNING, Cell, Ledger, cells, record
from sensikit.pruning.masks import Order, check_ratios, pruned, pruning_plan
from sensikit.pruning.scorers import measure_missing, scorer_of
from sensikit.run import Run, rest_of
from sensikit.sensitivity.planning import check_source, measured_groups
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
    """Prune, decode and score every cell; return (and write as pruning.csv) the tidy table.

    Each cell's hypotheses are stored, then its line is added to pruning/ledger.jsonl. A killed sweep goes on with
    `resume` and ends with the same bytes; a later sweep may add orders, seeds, ratios and languages to the ledger,
    but not change `settings`. Scores that an order needs beside S and D are measured first, and stored in the run.

    Args:
        run: with the sensitivities of the languages.
        model: the checkpoint and data that the run was measured on.
        ratios: pruned / prunable, each in [0, 1 - protect].
        orders: names of `scorers.SCORERS`.
        seeds: of the random order, one curve each.
        groups: those of the run by default.
        settings: see `SweepSettings`.
        cross: decode every language with what is left by each one's order, for pruning-cross.csv.
        resume: go on with, or add to, what the ledger holds.
        command: the command line, noted beside the ledger.

    Raises:
        OptionError: for a ratio, an order or a language that cannot be.
        RunError: if the run belongs to another checkpoint or other data, or its ledger stands already (without
            `resume`).
    """
    settings = settings or SweepSettings()
    check_source(run, model)
    chosen = measured_groups(run, groups)
    check_asked(ratios, orders, seeds, settings)
    noted = _noted(settings)  # a tokenizer that cannot be had is told of before anything is decoded
    wanted = cells(chosen, ratios, orders, seeds, cross)
    with run.locked(), Ledger.begun(run.path / "pruning", noted, resume) as ledger:
        todo = [cell for cell in wanted if cell not in ledger.lines]
        run.check("mt", [name for code in chosen for name in (code, rest_of(code))] if todo else [])
        ledger.save()
        record(ledger.path, command)
        measure_missing(run, model, [(cell.order, cell.language) for cell in todo])
        with progress(len(todo), "pruning", "cells") as bar:
            for cell, line in _decoded(run, model, todo, settings, bar):
                ledger.add(cell, line)
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
    """Refuse a sweep of nothing, a ratio that is out of range, an order that is not there.

    Raises:
        OptionError: naming the option.
    """
    for option, given in (("--ratios", ratios), ("--order", orders), ("--seeds", seeds if "random" in orders else [1])):
        if not len(given):
            raise OptionError(option, "names nothing to do", "give at least one")
    check_ratios(ratios, settings.protect)
    for order in orders:
        scorer_of(order)


def _noted(settings: SweepSettings) -> dict[str, Any]:
    """Return what a ledger's cells have in common; a SentencePiece model by what is in it, not by where it is."""
    choices = asdict(settings)
    choices["tokenizer"] = bleu_metric(settings.tokenizer, settings.spm_model).tokenizer_signature
    del choices["spm_model"]
    return choices


def _decoded(
    run: Run, model: Model, todo: Sequence[Cell], settings: SweepSettings, bar: Bar
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Decode cells, making the plan of an order once for all its ratios, and a pruned model once for all languages."""
    for (name, seed, language), of_order in itertools.groupby(
        todo, lambda cell: (cell.order, cell.seed, cell.language)
    ):
        group = list(of_order)
        order = Order(name, language, seed, settings.protect)
        plan = None if name == "none" else pruning_plan(run, model.module, order, [cell.ratio for cell in group])
        for ratio, same in itertools.groupby(group, lambda cell: cell.ratio):
            with pruned(run, model.module, plan, ratio) if plan else contextlib.nullcontext(0) as count:
                for cell in same:
                    yield cell, _line(run, model, cell, count, settings)
                    bar.advance()


def _line(run: Run, model: Model, cell: Cell, count: int, settings: SweepSettings) -> dict[str, Any]:
    model.module.eval()
    found = translation_of(model).translate(cell.evaluated, settings.split, settings.decoding)
    scored_by = settings.tokenizer, settings.spm_model, settings.bootstrap
    quality, resamples = evaluate_resampled(found.hypotheses, found.references, *scored_by)
    resamples.save(run.path / cell.resamples)
    digest = run.write_lines(cell.file, found.hypotheses)
    return {
        "order": cell.order,
        "seed": cell.seed,
        "group": cell.language,
        "evaluated": cell.evaluated,
        "ratio": cell.ratio,
        **asdict(quality),
        "pruned": count,
        "prunable": run.manifest["prunable_count"],
        "sentences": len(found.hypotheses),
        "truncated": found.truncated,
        "mean_length_ratio": length_ratio(found.hypotheses, found.references),
        "signature": cell_signature(run, settings, found.references_from),
        "hypotheses": cell.file,
        "sha256": digest,
    }


def cell_signature(run: Run, settings: SweepSettings, references: str) -> str:
    """Return the signature of a sweep's numbers beside sacreBLEU's: how was pruned and decoded."""
    return signature(
        "P",
        protect=settings.protect,
        scope="global",
        dir=run.manifest["direction"],
        **settings.decoding.choices(settings.split, references),
        ckpt=run.manifest["provenance"]["checkpoint_sha256"][:8],
        data=run.manifest["provenance"]["data_sha256"][:8],
    )
