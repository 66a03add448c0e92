"""What a report says in words: the headline numbers, what changed, and where two runs are not alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import pandas as pd

from sensikit.figures import differences as changed
from sensikit.figures.curves import UNPRUNED, curve
from sensikit.figures.heatmaps import SUBSETS, pairs
from sensikit.figures.quality import ALL, gains
from sensikit.figures.style import joined, percent, span
from sensikit.report.inputs import Material, Subject
from sensikit.report.sections.base import TASKS
from sensikit.statistics.convergence import needed

MATTERS = {
    # fields of the signature of S that make two runs measure different things; the number of batches, the seed and
    # σ (which follows from T) do not, and the checkpoint is what is compared
    "S": ("task", "dir", "langs", "split", "loss", "mode", "abs", "tokens", "rest", "dtype", "data"),
    "P": ("protect", "scope", "dir", "split", "beam", "lenpen", "maxlen", "sents", "refs"),
}


def sentences(subject: Subject) -> list[str]:
    """Return what was measured and the headline numbers of one run, a sentence each."""
    says: dict[str, Callable[[pd.DataFrame], Iterable[str]]] = {
        "correlation.csv": _correlation, "similarity.csv": _similarity, "pruning.csv": _pruning,
        "convergence.csv": _enough, "audit-summary.csv": _audit,
    }  # fmt: skip
    found = [text for name, say in says.items() if name in subject.tables for text in say(subject.tables[name])]
    return [_measured(subject.manifest), *found]


def changes(material: Material) -> list[str]:
    """Return what each later run changed in the correlations of the first, and each system in quality, a sentence each.

    A change whose interval reaches 0 is said to be none that can be told from noise.
    """
    found = []
    for each in material.comparisons:
        for _, mean in changed.means(each.table).iterrows() if each.table is not None else ():
            if mean["subset"] in ("high", "low"):
                what = f"Mean PCC, {SUBSETS[mean['subset']]}, {TASKS.get(each.task, each.task)}"
                found.append(_changed(what, each.second.label, each.first.label, mean, ".3f"))
    for evaluation in material.evaluations:
        tests = evaluation.tables.get("significance.csv")
        if tests is not None:
            rows = gains(tests)
            for _, row in rows[rows["tier"] == ALL].iterrows():
                what = f"BLEU {row['direction'].replace('-', '→')}, mean over all languages"
                found.append(_changed(what, row["system_b"], row["system_a"], row, ".2f"))
    return found


def _changed(what: str, second: str, first: str, row: pd.Series[Any], digits: str) -> str:
    low, high = row["difference_low"], row["difference_high"]
    moved = f"{row['difference']:+{digits}}" + (f" ({low:+{digits}} to {high:+{digits}})" if low == low else "")
    unsure = ", which cannot be told from no change" if low <= 0 <= high else ""
    return f"{what}: {second} minus {first} is {moved.replace('-', '−')}{unsure}."


def _measured(manifest: dict[str, Any]) -> str:
    codes, english = list(manifest["groups"]), manifest["direction"].split("-")
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
        text += (
            f" Sensitivities are means over {span(batches, 'd')} batches a language, of {tokens:,.0f} target tokens "
        )
        text += "on average."
    return text


def _correlation(frame: pd.DataFrame) -> Iterator[str]:
    found = pairs(frame[frame["task"] == "mt"])
    found = found[found["group_a"] < found["group_b"]]
    for subset in ("high", "low"):
        at = found[found["subset"] == subset]
        if not at["pcc"].notna().any():
            continue
        text = f"Mean PCC between two languages, {SUBSETS[subset]}: {at['pcc'].mean():.3f} over {len(at)} pairs"
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
    if "truncated" in frame and (start["truncated"] > 0).any():
        cut = start[start["truncated"] > 0]
        found = [f"{row['language']} {row['truncated']:.0f}" for _, row in cut.iterrows()]
        yield f"Sources longer than the model takes were translated in part: {joined(found)}."


def _similarity(frame: pd.DataFrame) -> Iterator[str]:
    at = frame[frame["subset"] == "all"]["pcc"].dropna()
    if len(at):
        spread = span(at, ".3f")
        yield f"PCC between translating and denoising the same language, all parameters: {at.mean():.3f} ({spread})."


def _enough(frame: pd.DataFrame) -> Iterator[str]:
    found = needed(frame[frame["subset"] == "low"]).dropna(subset="reliability")
    for task in dict.fromkeys(found["task"]):
        at = found[found["task"] == task].sort_values("reliability", kind="stable")
        ends = [f"{row['reliability']:.3f} ({row['language']}, {row['batches']:.0f} batches)"
                for _, row in at.iloc[[0, -1]].iterrows()]  # fmt: skip
        text = (
            f"Measured again on as many other batches, S would correlate with itself at {' to '.join(ends)}, "
            f"{SUBSETS['low']}, {TASKS.get(task, task)}"
        )
        short = at[at["0.95"] > at["batches"]]["group"]
        yield f"{text}; 0.95 takes more batches than there are of {joined(short)}." if len(short) else f"{text}."


def _audit(frame: pd.DataFrame) -> Iterator[str]:
    rows = frame.pivot(index="group", columns="statistic", values="value")
    spearman, top = rows["spearman"], rows["top10_agreement"]
    if spearman.notna().any():
        yield (
            f"Taylor estimate against exact ablation of {frame['sampled'].max():.0f} parameters a language: Spearman "
            f"{span(spearman, '.3f')}; of the top 10%, {span(top, '.0%')} are the same."
        )


def differences(material: Material) -> list[str]:
    """Return in what the runs differ so that their numbers do not measure the same thing, a sentence each."""
    found = []
    for first, second in pairwise(material.subjects):
        named = f"{first.label} and {second.label}"
        for head, a, b in _signatures(first, second):
            unlike = [key for key in MATTERS[head] if a.get(key) != b.get(key)]
            found += [f"{named} differ in {key}: {a.get(key)} and {b.get(key)}." for key in unlike]
        scores = [_only(subject, "bleu_signature") for subject in (first, second)]
        if all(scores) and scores[0] != scores[1]:
            found.append(f"BLEU of {named} is not the same score: {scores[0]} and {scores[1]}.")
        languages = [set(subject.manifest["groups"]) for subject in (first, second)]
        if languages[0] != languages[1]:
            found.append(
                f"{named} are of different languages: {joined(sorted(languages[0] ^ languages[1]))} in one alone."
            )
    return found


def _signatures(first: Subject, second: Subject) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    """Yield what two runs both have a signature of: its head, and the fields of each of the two."""
    for task, analysis in first.manifest["analyses"].items():
        other = second.manifest["analyses"].get(task)
        if other:
            yield "S", _fields(analysis["signature"]), _fields(other["signature"])
    sweeps = _fields(_only(first, "signature")), _fields(_only(second, "signature"))
    if all(sweeps):
        yield "P", *sweeps


def _only(subject: Subject, column: str) -> str:
    frame = subject.tables.get("pruning.csv")
    if frame is None or column not in frame:
        return ""
    return " ".join(sorted(frame[column].dropna().astype(str).unique()))


def _fields(signature: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
