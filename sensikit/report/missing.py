"""What a report could show and does not, each with the command that would make it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from sensikit.evaluation.scoring import BY_TIER
from sensikit.figures.curves import ORDERS
from sensikit.figures.frames import of_metric
from sensikit.figures.quality import by_ratio
from sensikit.figures.words import joined
from sensikit.pruning.ledger import PRUNING, UNPRUNED
from sensikit.report.inputs import TABLES, Evaluated, Inputs, Subject
from sensikit.sensitivity.analysis import LAYOUT


@dataclass(frozen=True)
class Missing:
    """Something that a report could show and does not, and the command that would make it."""

    what: str
    command: str


def missing(inputs: Inputs) -> list[Missing]:
    """Return what the runs and evaluations do not have, with the command that makes it."""
    found: list[Missing] = []
    for subject in inputs.subjects:
        name = f" of {subject.label}" if len(inputs.subjects) > 1 else ""
        found += _tables(subject, name)
        if PRUNING.name in subject.tables:
            found += _unpruned(subject.tables[PRUNING.name], subject, name)
    found += _uncompared(inputs)
    for subject in inputs.curves.lacking:
        what = f"Intervals and paired tests of the pruning curves of {subject.label}"
        found.append(Missing(what, resumed_command(subject)))
    if inputs.subjects and not inputs.evaluations:
        found.append(_evaluation(inputs.subjects))
    for each in inputs.evaluations:
        found += _ratios(each)
    return found


GROUPS = ("--groups", "--languages")

OPENING = ("--direction", "--pairs", *GROUPS, "--device", "--dtype", "--revision", "--prompt", "--tiers", "--tier")
"""Options that decide which model and which groups a command is about."""


def _opened(subject: Subject) -> list[str]:
    """Return those of `OPENING` that a run was analysed with, each with its value."""
    words = next((_words(of["command"]) for of in subject.manifest["analyses"].values()), [])
    kept: list[str] = []
    for word, value in pairwise([*words, ""]):
        kept += [word, value] if word in OPENING else [word] if word.partition("=")[0] in OPENING else []
    return kept


def analyze_command(subject: Subject, *more: str) -> str:
    """Return the command that continues the analysis of a run, from where it is now, with the options it was made with.

    One that another program recorded, such as the demo, is not repeated.
    """
    origin = subject.manifest["provenance"]
    words = ["sensikit", "analyze", origin["checkpoint"], "--data", origin["data"]]
    for analysis in subject.manifest["analyses"].values():
        noted = _words(analysis["command"])
        if noted[:2] == words[:2]:
            words = _without(noted, ("--out",), ("--resume", "--dry-run"))
            break
    return shlex.join([*words, "--out", subject.path, "--resume", *more])


def prune_command(subject: Subject, *more: str, without: Sequence[str] = ()) -> str:
    """Return the command that prunes the checkpoint of a run, with the options that it was pruned with before.

    Those in `without`, which have a value each, are left out.
    """
    kept: list[str] = []
    for command in subject.prunings:
        words = _words(command)
        if words[:2] == ["sensikit", "prune"] and len(words) > 2 and not words[2].startswith("-"):
            kept = _without(words[3:], ("--order", "--ratios", *without), ("--cross", "--resume"))
            break
    return shlex.join(["sensikit", "prune", subject.path, *kept, *more])


def orders_command(subject: Subject, orders: Sequence[str], without: Sequence[str] = ()) -> str:
    """Return the command that adds orders to the sweep of a run, at the ratios and with the options that it has."""
    ratios = sorted(set(subject.tables[PRUNING.name]["ratio"]))
    more = "--order", ",".join(orders), "--ratios", ",".join(f"{r:g}" for r in ratios), "--resume"
    return prune_command(subject, *more, without=without)


def resumed_command(subject: Subject, without: Sequence[str] = ()) -> str:
    """Return the command that goes on with the sweep of a run: its orders, ratios and options."""
    orders = [order for order in dict.fromkeys(subject.tables[PRUNING.name]["order"]) if order != UNPRUNED]
    return orders_command(subject, orders, without) if orders else prune_command(subject, "--resume", without=without)


def _words(command: str) -> list[str]:
    """Return the words of a recorded command; none of one that no shell could parse."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _without(words: Sequence[str], options: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the words without some options, which have a value each, and flags, which have none."""
    kept, left = [], iter(words)
    for word in left:
        if word in options:
            next(left, None)
        elif word not in flags and word.split("=")[0] not in options:
            kept.append(word)
    return kept


def _tables(subject: Subject, name: str) -> Iterator[Missing]:
    """Yield the tables that are not there, those of one command together."""
    absent: dict[str, list[str]] = {}
    alone = len(subject.manifest["groups"]) == 1  # and so there is no pair
    for schema in TABLES.values():
        pairless = alone and len(schema.groups) > 1
        other = schema is LAYOUT and "denoise" in subject.manifest["analyses"]  # it learned to denoise in another way
        other |= schema.verb == "denoise" and not subject.manifest["provenance"]["framework"].startswith("fairseq")
        if schema.name not in subject.tables and not pairless and not other:
            absent.setdefault(schema.verb, []).append(schema.what)
    commands = {
        "analyze": analyze_command(subject),
        "denoise": analyze_command(subject, "--task", "denoise"),
        "audit": shlex.join(["sensikit", "audit", subject.path]),
        "prune": prune_command(subject),
        "cross": prune_command(subject, "--cross", "--ratios", "0.3,0.6", "--resume"),
    }
    for verb, what in absent.items():
        only = " (of a model that was trained to denoise)" if verb == "denoise" else ""
        yield Missing(f"{joined(what)}{name}{only}", commands[verb])


def _unpruned(frame: pd.DataFrame, subject: Subject, name: str) -> Iterator[Missing]:
    absent = [order for order in ORDERS if order not in set(frame["order"])]
    if absent:
        what = f"Pruning curves{name} in the orders {joined(absent)}"
        yield Missing(what, orders_command(subject, absent))
    lacking = [code for code in subject.manifest["groups"] if code not in set(frame["group"])]
    if lacking:
        yield Missing(f"Pruning curves{name} for {joined(sorted(lacking))}", resumed_command(subject, GROUPS))
    frame = of_metric(frame)
    cells = frame[frame["order"] != UNPRUNED].assign(seed=frame["seed"].astype("string").fillna(""))
    counts = cells.groupby(["order", "seed", "ratio"])["group"].nunique()
    partial = counts[counts < frame["group"].nunique()]
    if len(partial):
        points = f"{len(partial)} point{'s' if len(partial) > 1 else ''}"
        what = f"{points} of the pruning curves{name}, left out because not every language was scored there"
        yield Missing(what, resumed_command(subject))


def _uncompared(inputs: Inputs) -> Iterator[Missing]:
    for each in inputs.comparisons:
        if each.table is None:
            what = f"The difference between {each.first.label} and {each.second.label}: {each.problem}"
            yield Missing(what, _alike(each.first, each.second, each.task))


def _alike(first: Subject, second: Subject, task: str) -> str:
    """Return the command that analyzes the checkpoint of `second` as that of `first` was."""
    analysis, origin = first.manifest["analyses"][task], second.manifest["provenance"]
    words = ["sensikit", "analyze", origin["checkpoint"], "--data", origin["data"], "--out", f"{second.path}-alike"]
    words += ["--tokens", str(analysis["tokens"]), "--batches", str(analysis["settings"].get("batches", 500))]
    return shlex.join([*words, *(("--task", task) if task != "mt" else ()), *_opened(first)])


def _evaluation(subjects: list[Subject]) -> Missing:
    origins = [subject.manifest["provenance"] for subject in subjects]
    checkpoints = list(dict.fromkeys(origin["checkpoint"] for origin in origins))
    command = ["sensikit", "evaluate", *checkpoints, "--data", origins[0]["data"], "--out", "EVALUATION"]
    command += _opened(subjects[0])
    if any("mt" in subject.manifest["analyses"] for subject in subjects):
        return Missing("Translation quality on whole test sets, with intervals and paired tests", shlex.join(command))
    command += ["--task", "lm", "--metric", "loss,bpb"]
    return Missing("Loss on whole test sets, with intervals and paired tests", shlex.join(command))


def _ratios(each: Evaluated) -> Iterator[Missing]:
    """Yield quality against the masking ratio, where a system masks and none masks another share."""
    masked = [name for name, of in each.manifest["systems"].items() if of.get("mask_ratio") is not None]
    if masked and by_ratio(each.tables[BY_TIER.name], each.manifest["systems"]).empty:
        method = each.manifest["systems"][masked[0]].get("method") or "cd+id"
        words = ["sensikit", "train", each.manifest["data"]["path"], "--method", method]
        words += ["--out", f"{method}-50", "--", "--mask-ratio", "0.5"]
        yield Missing(f"Quality against the masking ratio of {masked[0]}: systems that mask more", shlex.join(words))
