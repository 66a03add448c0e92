"""What a report says in words: the headline numbers, what is missing, and where two runs are not alike."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from sensikit.figures.curves import ORDERS, UNPRUNED, curve
from sensikit.figures.heatmaps import GROUPS, pairs
from sensikit.figures.style import joined
from sensikit.material import TABLES, Material, Subject
from sensikit.tables import percent

MATTERS = {
    # fields of the signature of S that make two runs measure different things; the number of batches, the seed and
    # σ (which follows from T) do not, and the checkpoint is what is compared
    "S": ("task", "dir", "langs", "split", "loss", "mode", "abs", "tokens", "rest", "dtype", "data"),
    "P": ("protect", "scope", "dir", "split", "beam", "lenpen", "maxlen", "sents", "refs"),
}


@dataclass(frozen=True)
class Missing:
    """Something that a report could show and does not, and the command that would make it."""

    what: str
    command: str


def sentences(subject: Subject) -> list[str]:
    """Return what was measured and the headline numbers of one run, a sentence each."""
    manifest = subject.manifest
    return [
        _measured(manifest),
        *(_correlation(subject.tables["correlation.csv"]) if "correlation.csv" in subject.tables else ()),
        *(_pruning(subject.tables["pruning.csv"]) if "pruning.csv" in subject.tables else ()),
    ]


def _measured(manifest: dict[str, Any]) -> str:
    codes, english = list(manifest["languages"]), manifest["direction"].split("-")
    many = f"{len(codes)} language{'s' if len(codes) > 1 else ''}"
    into = f"from {many} into English" if english[-1] == "eng" else f"from English into {many}"
    sets = [manifest["sets"][f"mt/{code}"] for code in codes if f"mt/{code}" in manifest["sets"]]
    batches = [entry["batches"] for entry in sets if "batches" in entry]
    text = (
        f"A {manifest['provenance']['framework']} model of {manifest['parameter_count']:,} parameters, "
        f"{manifest['prunable_count']:,} of them prunable, translating {into} ({joined(sorted(codes))})."
    )
    if batches:
        tokens = sum(entry["tokens_mean"] for entry in sets) / len(sets)
        span = f"{min(batches)}" if min(batches) == max(batches) else f"{min(batches)} to {max(batches)}"
        text += f" Sensitivities are means over {span} batches a language, of {tokens:,.0f} target tokens on average."
    return text


def _correlation(frame: pd.DataFrame) -> Iterator[str]:
    found = pairs(frame[frame["task"] == "mt"])
    found = found[found["language_a"] < found["language_b"]]
    for group in ("high", "low"):
        at = found[found["group"] == group]
        if not at["pcc"].notna().any():
            continue
        text = f"Mean PCC between two languages, {GROUPS[group]}: {at['pcc'].mean():.3f} over {len(at)} pairs"
        if at["ceiling"].notna().any():
            text += f", with a noise ceiling of {at['ceiling'].mean():.3f}"
        decided = at["at_ceiling"].dropna()
        if len(decided):
            text += (
                f"; {int(decided.sum()) or 'none'} of the pairs {'is' if decided.sum() == 1 else 'are'} at the ceiling"
            )
        yield text + "."


def _pruning(frame: pd.DataFrame) -> Iterator[str]:
    start = frame[frame["order"] == UNPRUNED]
    points = curve(frame)
    points = points[(points["order"] == "specificity") & (points["ratio"] > 0)]
    text = f"Unpruned, BLEU is {start['bleu'].mean():.2f}, the mean over {start['language'].nunique()} languages"
    if len(points):
        last = points.sort_values("ratio").iloc[-1]
        text += (
            f"; with {percent(last['ratio'])} of the prunable parameters set to zero, the least specific first, it is "
            f"{last['value']:.2f}"
        )
    yield text + "."


def missing(material: Material) -> list[Missing]:
    """Return what the runs do not have, with the command that makes it."""
    found = []
    for subject in material.subjects:
        name = f" of {subject.label}" if len(material.subjects) > 1 else ""
        run, origin = shlex.quote(subject.path), subject.manifest["provenance"]
        analyze = (
            f"sensikit analyze {shlex.quote(origin['checkpoint'])} --data {shlex.quote(origin['data'])} --out {run}"
        )
        for table in TABLES:
            if table not in subject.tables:
                pruned = table == "pruning.csv"
                command = f"sensikit prune {run}" if pruned else f"{analyze} --resume"
                found.append(Missing(f"{'Pruning curves' if pruned else table}{name}", command))
        if "pruning.csv" in subject.tables:
            found += _unpruned(subject.tables["pruning.csv"], subject, run, name)
    return found


def _unpruned(frame: pd.DataFrame, subject: Subject, run: str, name: str) -> Iterator[Missing]:
    absent = [order for order in ORDERS if order not in set(frame["order"])]
    if absent:
        what = f"Pruning curves{name} in the orders {joined(absent)}"
        yield Missing(what, f"sensikit prune {run} --order {','.join(absent)} --resume")
    lacking = [code for code in subject.manifest["languages"] if code not in set(frame["language"])]
    if lacking:
        yield Missing(f"Pruning curves{name} for {joined(sorted(lacking))}", f"sensikit prune {run} --resume")
    cells = frame[frame["order"] != UNPRUNED].assign(seed=frame["seed"].astype("string").fillna(""))
    counts = cells.groupby(["order", "seed", "ratio"])["language"].nunique()
    partial = counts[counts < frame["language"].nunique()]
    if len(partial):
        points = f"{len(partial)} point{'s' if len(partial) > 1 else ''}"
        what = f"{points} of the pruning curves{name}, left out because not every language was decoded there"
        yield Missing(what, f"sensikit prune {run} --resume")


def differences(material: Material) -> list[str]:
    """Return in what the runs differ so that their numbers do not measure the same thing, a sentence each."""
    found = []
    for first, second in pairwise(material.subjects):
        named = f"{first.label} and {second.label}"
        for head, signatures in (("S", _analysis), ("P", _sweep)):
            a, b = _fields(signatures(first)), _fields(signatures(second))
            if a and b:
                unlike = [key for key in MATTERS[head] if a.get(key) != b.get(key)]
                found += [f"{named} differ in {key}: {a.get(key)} and {b.get(key)}." for key in unlike]
        scores = [_only(subject, "bleu_signature") for subject in (first, second)]
        if all(scores) and scores[0] != scores[1]:
            found.append(f"BLEU of {named} is not the same score: {scores[0]} and {scores[1]}.")
        languages = [set(subject.manifest["languages"]) for subject in (first, second)]
        if languages[0] != languages[1]:
            found.append(
                f"{named} are of different languages: {joined(sorted(languages[0] ^ languages[1]))} in one alone."
            )
    return found


def _analysis(subject: Subject) -> str:
    return str(subject.manifest["signature"])


def _sweep(subject: Subject) -> str:
    return _only(subject, "signature")


def _only(subject: Subject, column: str) -> str:
    frame = subject.tables.get("pruning.csv")
    if frame is None or column not in frame:
        return ""
    return " ".join(sorted(frame[column].dropna().astype(str).unique()))


def _fields(signature: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
