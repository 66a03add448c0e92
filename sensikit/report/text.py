"""What a report says in words: the headline numbers, what changed, and where two runs are not alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import pandas as pd

from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.scoring import ALL, SIGNIFICANCE
from sensikit.evaluation.tables import DECODED, decoded
from sensikit.figures.conclusions import beyond_noise, bounded_mean
from sensikit.figures.correlation import VALUES, mean_changes, pairs
from sensikit.figures.curves import short
from sensikit.figures.frames import averaged, of_metric, of_run, of_task, runs
from sensikit.figures.points import CHOSEN, CONTROL, MATCHED, verdicts
from sensikit.figures.quality import gains
from sensikit.figures.words import SUBSETS, TASKS, arrow, bounded, joined, percent, span, subset_names
from sensikit.languages import ALONE
from sensikit.pruning.ledger import PRUNING, UNPRUNED
from sensikit.report.costs import costs, curves_changed, order_costs
from sensikit.report.inputs import Inputs, Subject
from sensikit.sensitivity.ablation import SUMMARY
from sensikit.settings import CORRELATIONS
from sensikit.statistics.convergence import CONVERGENCE, needed
from sensikit.statistics.correlation import CORRELATION, SIMILARITY
from sensikit.tables import Table

MATTERS = {
    # fields of the signature of S that make two runs measure different things; the number of batches, the seed and
    # σ (which follows from T) do not, and the checkpoint is what is compared
    "S": (
        "task", "noise", "mono", "dir", "groups", "split", "loss", "mode", "abs", "tokens", "rest", "high", "dtype",
        "data",
    ),
    "P": ("task", "protect", "among", "scope", "dir", "split", "beam", "lenpen", "maxlen", "engine", "sents", "refs"),
}  # fmt: skip


def results(inputs: Inputs) -> list[tuple[str, list[str], Table | None]]:
    """Return the main results: of each question a heading, its sentences, and a table where there is one."""
    found = [
        ("How alike are the languages, and is that noise?", _alike(inputs), None),
        ("What does pruning cost?", costs(inputs), order_costs(inputs)),
        ("What differs between the models?", changes(inputs), None),
    ]
    return [each for each in found if each[1]]


def _alike(inputs: Inputs) -> list[str]:
    """Return how alike languages are in each run and recipe, a sentence each."""
    found: list[str] = []
    for schema, say in ((CORRELATION, _correlation), (SIMILARITY, _similarity)):
        if schema.name in inputs.tables:
            frame = averaged(inputs.tables[schema.name], schema.key)
            for label in runs(frame):
                said = " ".join(say(of_run(frame, label).drop(columns="run", errors="ignore")))
                found += [f"{label}: {said}" if label and said else said]
    return [text for text in found if text]


def sentences(subject: Subject) -> list[str]:
    """Return what was measured in one run and what to bear in mind, a sentence each."""
    says: dict[str, Callable[[pd.DataFrame], Iterable[str]]] = {
        PRUNING.name: _pruned, CONVERGENCE.name: _enough, SUMMARY.name: _audit,
    }  # fmt: skip
    said = [text for name, say in says.items() if name in subject.tables for text in say(subject.tables[name])]
    return [_measured(subject.manifest), *said]


def measured(inputs: Inputs) -> list[str]:
    """Return `sentences` and notes of all runs: each once, with the labels of the runs that it is true of."""
    runs_of: dict[str, list[str]] = {}
    for subject in inputs.subjects:
        notes = [f"{'; '.join(of['notes'])}." for of in subject.manifest["analyses"].values() if of["notes"]]
        for text in (*sentences(subject), *notes):
            runs_of.setdefault(text, []).append(subject.label)
    alone = len(inputs.subjects) == 1
    return [text if alone else f"{joined(labels)}: {text}" for text, labels in runs_of.items()]


def changes(inputs: Inputs) -> list[str]:
    """Return what each later run changed in the correlations of the first, and each system in quality, a sentence each.

    Of a change whose interval reaches 0 it is said that it cannot be told from no change.
    """
    found = curves_changed(inputs)  # over training seeds first, as comparisons are
    for each in inputs.comparisons:
        if each.table is None:
            continue
        for _, mean in mean_changes(each.table).iterrows():
            if mean["subset"] in ("high", "low"):
                name = subset_names(each.table)[mean["subset"]]
                what = f"Mean PCC corrected for noise, {name}, {TASKS.get(each.task, each.task)}"
                found.append(_changed(what, each.second.label, each.first.label, mean, ".3f"))
    for evaluation in inputs.evaluations:
        if SIGNIFICANCE.name in evaluation.tables:
            rows = gains(evaluation.tables[SIGNIFICANCE.name])
            for _, row in rows[rows["tier"] == ALL].iterrows():
                what = f"{METRICS[row['metric']].label} {arrow(row['direction'])}, mean over all languages"
                found.append(_changed(what, row["system_b"], row["system_a"], row, METRICS[row["metric"]].digits))
    return found


def _changed(what: str, second: str, first: str, row: pd.Series[Any], shown: str) -> str:
    low, high = row["difference_low"], row["difference_high"]
    counts = int(row.get("seeds_a", 1)), int(row.get("seeds_b", 1))
    over = f", over {counts[1]} against {counts[0]} training seeds" if max(counts) > 1 else ""
    moved = bounded(row["difference"], low, high, f"+{shown}")
    unsure = ", which cannot be told from no change" if low <= 0 <= high else ""
    return f"{what}: {second} minus {first} is {moved}{over}{unsure}."


def _measured(manifest: dict[str, Any]) -> str:
    groups, task = manifest["groups"], next(iter(manifest["analyses"]))
    sets = [manifest["sets"][f"{task}/{key}"] for key in groups if f"{task}/{key}" in manifest["sets"]]
    batches = [entry["batches"] for entry in sets if "batches" in entry]
    text = (
        f"A {manifest['provenance']['framework']} model of {manifest['parameter_count']:,} parameters, "
        f"{manifest['prunable_count']:,} of them prunable, {_scope(manifest)}."
    )
    if batches:
        tokens = sum(entry["tokens_mean"] for entry in sets) / len(sets)
        text += (
            f" Sensitivities are means over {span(batches, 'd')} batches a language, of {tokens:,.0f} target tokens "
            "on average."
        )
    return text


def _scope(manifest: dict[str, Any]) -> str:
    """Return of what the model was measured: a direction with its languages, pairs, or languages by themselves."""
    groups, direction = manifest["groups"], manifest["direction"]
    many = f"{len(groups)} language{'s' if len(groups) > 1 else ''}"
    if ALONE in direction and direction != ALONE:
        return f"translating {arrow(direction)} in {many} ({joined(sorted(groups))})"
    pairs = [f"{of['source']}→{of['target']}" for of in groups.values() if of.get("source")]
    return f"translating {joined(sorted(pairs))}" if pairs else f"of {many} ({joined(sorted(groups))})"


def _correlation(frame: pd.DataFrame) -> Iterator[str]:
    names, found = subset_names(of_task(frame)), pairs(of_task(frame))
    for subset in ("high", "low"):
        at = found[(found["subset"] == subset) & (found["group_a"] < found["group_b"])]
        if not at["pcc"].notna().any():
            continue
        observed = f"{at['pcc'].mean():.3f} of these batches, whose noise ceiling is {at['ceiling'].mean():.3f}"
        text = f"Mean PCC between two languages, {names[subset]}"
        if at["corrected"].notna().any():
            text += f": {bounded_mean(at)} over {len(at)} pairs, corrected for noise ({observed})"
        else:
            text += f": {observed}, over {len(at)} pairs; there is too much noise to correct it"
        yield f"{text}; {beyond_noise(at, {subset: ''}, 'pair')}."
    yield from _contrast(found.groupby("subset")[list(CORRELATIONS)].mean())
    own = of_task(frame).drop_duplicates(["subset", "group_a"])
    few = [f"{span(at['half_variance_a'], ',.0f')} of {at['parameters'].max():,.0f} ({names[subset]})"
           for subset in ("high", "all") for at in [own[own["subset"] == subset]] if len(at)]  # fmt: skip
    if few:
        yield f"Half of the variance of S over the parameters, which decides a PCC, is that of {joined(few)}."


def _contrast(means: pd.DataFrame) -> Iterator[str]:
    """Say by which measures it is the other subset, high or low, whose languages are more alike than by the PCC.

    `means` are over pairs, a row for each subset and a column for each measure.
    """
    if not {"high", "low"} <= set(means.index):
        return
    values = means.loc[["high", "low"], list(CORRELATIONS)].to_numpy(dtype=float)
    high, low = (dict(zip(CORRELATIONS, row.tolist(), strict=True)) for row in values)
    ahead = {name: high[name] - low[name] for name in high}
    turned = [name for name in ("spearman", "log_pcc") if ahead[name] * ahead["corrected"] < 0]
    if turned:
        shown = {name: f"{high[name]:.3f} against {low[name]:.3f}" for name in high}
        others = joined(f"{VALUES[name]} ({shown[name]})" for name in turned)
        more = "more" if ahead["corrected"] > 0 else "less"
        yield (
            f"By the PCC languages are {more} alike in the high subset than in the low one ({shown['corrected']}); by "
            f"{others} it is the other way about: the contrast hangs on the measure."
        )


def _pruned(frame: pd.DataFrame) -> Iterator[str]:
    frame = of_metric(frame)
    metric, start = frame["metric"].iloc[0], frame[frame["order"] == UNPRUNED]
    if METRICS[metric].decodes and frame["signature"].dropna().map(decoded).any():
        yield DECODED
    if "truncated" in frame and (start["truncated"] > 0).any():
        cut = [f"{row['group']} {row['truncated']:.0f}" for _, row in start[start["truncated"] > 0].iterrows()]
        yield f"Sources longer than the model takes were translated in part: {joined(cut)}."


JUDGED = (("matched", "matched-random"), ("matched", "matched-reverse"), (CHOSEN, CONTROL), (CHOSEN, "sensitivity"))
"""The questions that a sweep answers: is the first of two orders the better one?"""


def judgements(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts on the orders of `JUDGED`, one question after the other."""
    found = verdicts(tests)
    asked = [found[(found["order"] == order) & (found["control"] == control)] for order, control in JUDGED]
    return pd.concat(asked, ignore_index=True)


def listed(ratios: Iterable[float]) -> str:
    """Return some ratios as text, "30%, 60% and 90%"; nothing for none."""
    return joined(map(percent, sorted(ratios)))


def answers(tests: pd.DataFrame) -> list[str]:
    """Return whether specificity matters, a sentence for each question and run, by curve tests of one metric."""
    found, said = judgements(tests), []
    several = tests["run_b"].nunique() > 1
    words = {"better": "is better than {}", "worse": "is worse than {}", "alike": "cannot be told from {}"}
    for (order, control), of in found.groupby(["order", "control"], sort=False):
        for run, at in of.groupby("run", sort=False):
            first, second = (short(str(name)).name for name in (order, control))
            where = f"At equal sensitivity, {first}" if order == MATCHED else first[0].upper() + first[1:]
            parts = [
                f"{text.format(second if not i else 'it')} at {listed(at[at['verdict'] == name]['ratio'])} pruned"
                for i, (name, text) in enumerate((n, t) for n, t in words.items() if (at["verdict"] == n).any())
            ]
            said.append(f"{f'{run}: ' if several else ''}{where} {joined(parts)}.")
    return said


def _similarity(frame: pd.DataFrame) -> Iterator[str]:
    at = frame[frame["subset"] == "all"].dropna(subset="corrected")
    if len(at):
        what = "PCC between translating and denoising the same language, all parameters, corrected for noise"
        yield f"{what}: {bounded_mean(at)}, by language {span(at['corrected'], '.3f')}."


def _enough(frame: pd.DataFrame) -> Iterator[str]:
    known = needed(frame[frame["subset"] == "low"]).dropna(subset="reliability")
    for task in dict.fromkeys(known["task"]):
        at = known[known["task"] == task].sort_values("reliability", kind="stable")
        ends = [f"{row['reliability']:.3f} ({row['group']}, {row['batches']:.0f} batches)"
                for _, row in at.iloc[[0, -1]].iterrows()]  # fmt: skip
        text = (
            f"Measured again on as many other batches, S would correlate with itself at {' to '.join(ends)}, "
            f"{SUBSETS['low']}, {TASKS.get(task, task)}"
        )
        short = at[at["0.95"] > at["batches"]]["group"]
        lacking = "any language" if len(short) == len(at) > 1 else joined(short)
        yield f"{text}; 0.95 takes more batches than were measured of {lacking}." if lacking else f"{text}."


def _audit(frame: pd.DataFrame) -> Iterator[str]:
    tasks = list(dict.fromkeys(frame["task"]))
    for task in tasks:
        of = of_task(frame, task)
        rows, which = of.pivot(index="group", columns="statistic", values="value"), TASKS.get(task, task)
        spearman, top = rows["spearman"], rows["top10_agreement"]
        if spearman.notna().any():
            yield (
                f"Taylor estimate against exact ablation of {of['sampled'].max():.0f} parameters a language"
                f"{f', {which}' if len(tasks) > 1 else ''}: Spearman {span(spearman, '.3f')}; of the top 10%, "
                f"{span(top, '.0%')} are the same."
            )


def differences(inputs: Inputs) -> list[str]:
    """Return in what the runs differ so that their numbers do not measure the same thing, a sentence each."""
    found = []
    for first, second in pairwise(inputs.subjects):
        both = f"{first.label} and {second.label}"
        for head, a, b in _signatures(first, second):
            unlike = [key for key in MATTERS[head] if a.get(key) != b.get(key)]
            found += [f"{both} differ in {key}: {a.get(key)} and {b.get(key)}." for key in unlike]
        for metric in METRICS:
            one, other = (_only(subject, "metric_signature", metric) for subject in (first, second))
            if one and other and one != other:
                found.append(f"{METRICS[metric].label} of {both} is not the same score: {one} and {other}.")
        unlike = sorted(set(first.manifest["groups"]) ^ set(second.manifest["groups"]))
        if unlike:
            found.append(f"{both} are of different languages: {joined(unlike)} in one alone.")
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


def _only(subject: Subject, column: str, metric: str = "") -> str:
    """Return the values of a column of pruning.csv, of one metric or of all; nothing where it has none."""
    frame = subject.tables.get(PRUNING.name)
    if frame is None or column not in frame:
        return ""
    rows = frame[frame["metric"] == metric] if metric else frame
    return " ".join(sorted(rows[column].dropna().astype(str).unique()))


def _fields(signature: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
