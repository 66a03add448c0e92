"""What another model or recipe changed: the difference in the corrected PCC, with its noise or that of its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pandas as pd
from scipy import stats

from sensikit.errors import RunError
from sensikit.run import Run
from sensikit.statistics.correlation import Correlation, correlations, high_subset
from sensikit.statistics.halves import DESIGNS, in_halves
from sensikit.statistics.noise import SUBSETS, block_batches, sampled
from sensikit.statistics.streaming import Float
from sensikit.tables import PAIR

SETTINGS = ("split", "loss", "reduction", "mode", "high")
"""Settings that change a PCC; T and the number of batches, which do too, are compared as they came out."""


def correlation_difference(
    runs_a: Run | Sequence[Run],
    runs_b: Run | Sequence[Run],
    task: str = "",
    beside: Sequence[Run] = (),
) -> pd.DataFrame:
    """Return the corrected PCC in b minus that in a, for every ordered pair of groups in each subset, tidy.

    The last row of a subset, which names no groups, is the mean over pairs; its `without_low` and `without_high` are
    the least and the largest mean difference when one group is left out. a and b are a run each, or all training seeds
    of a recipe (`seeds_a`, `seeds_b`). `corrected_a` and `corrected_b`, means over the runs, are as in correlation.csv
    (see `correlation_table`) but that all runs of one shape share one border between the subsets, which is drawn from
    all of them.

    **One run against one**: the intervals are 95 % over batches, of half-samples: the blocks are split in two halves in
    19 balanced ways, each half has a border and correlations of its own, and t of 19 degrees of freedom times the root
    of the mean square of half the difference between the two halves is the width. A difference that the two share, of
    the same batches (`paired`), cancels. They are of the stored sample of the parameters, and speak of these two
    trained models alone: another training seed gives another model.

    In simulation (280 pairs of measurements of 14 pairs of models of 10,000 parameters, the same batches) they hold the
    true difference of a pair over all, high and low in .98, .98 and .96 of cases with 200 batches and in .95, .94 and
    .97 with 40; of the mean over pairs in .96, .96 and .94, and in .96, .95 and .96. A jackknife of the difference in
    the PCC of these batches, each run with a border of its own, holds that of the mean over the low subset in .60 with
    200 batches and in .10 with 40 (80 pairs of measurements).

    **Training seeds**: the intervals are 95 % over seeds, of t with s²/k of the k runs of each recipe and the degrees
    of freedom of Welch and Satterthwaite. What noise of batches each run has is part of how the runs vary, and is not
    added; that of batches which all runs share cancels. A single run is taken to vary as the seeds of the other do:
    s²·(1 + 1/k) with k − 1 degrees of freedom.

    Args:
        runs_a: the first run or recipe, with S, the halves and the blocks of its groups.
        runs_b: the second.
        task: mt, denoise or lm; by default the first that was analysed of a.
        beside: runs that the border is drawn from too.

    Raises:
        RunError: if the runs differ in their groups, direction, T, loss, mode, number of batches or share of the high
            subset, each of which changes a PCC; or if a vector is missing, damaged, or of another model.
    """
    ours, theirs = ([each] if isinstance(each, Run) else list(each) for each in (runs_a, runs_b))
    both, first, task = [*ours, *theirs], ours[0], task or ours[0].tasks[0]
    for run in both[1:]:
        check_comparable(first, run, task)
    groups, same = first.groups(task), all(paired(first, run, task) for run in both[1:])
    sets, more = [(task, group) for group in groups], [run for run in beside if run not in both]
    count = _blocks([*both, *more], task)  # one for all: the splits of both sides are subtracted
    found: dict[int, dict[str, Correlation]] = {}
    halves: dict[int, dict[str, Float]] = {}
    for places in _alike(both):
        sharing = [*(both[i] for i in places), *(run for run in more if _shape(run) == _shape(both[places[0]]))]
        is_high = high_subset(sharing, task)
        found |= {i: correlations(both[i], sets, is_high) for i in places}
        if len(both) == 2:  # else the seeds say how much noise there is
            measured = [(run, sets if run in both else [(task, group) for group in run.groups(task)])
                        for run in sharing]  # fmt: skip
            halves |= zip(places, in_halves(measured, is_high[sampled(sharing[0])], count), strict=False)
    rows = []
    for subset in SUBSETS:
        values = np.stack([found[i][subset].corrected for i in range(len(both))])
        of_a, of_b = np.split(_pairs(values), [len(ours)])
        change = of_b.mean(axis=0) - of_a.mean(axis=0)
        width = _width(_pairs(halves[1][subset] - halves[0][subset])) if halves else _width_over_seeds(of_a, of_b)
        without = _without_one(values[len(ours) :].mean(axis=0) - values[: len(ours)].mean(axis=0))
        for i, pair in enumerate([*permutations(groups, 2), ("", "")]):
            means, ends = (of_a[:, i].mean(), of_b[:, i].mean()), (change[i] - width[i], change[i] + width[i])
            known = without if i == len(change) - 1 else (np.nan, np.nan)
            numbers = (*means, change[i], *ends, *known, len(ours), len(theirs), same, found[0][subset].parameters)
            rows.append((task, subset, *pair, *numbers))
    return pd.DataFrame(rows, columns=["task", "subset", *PAIR, *NUMBERS])


NUMBERS = (
    "corrected_a", "corrected_b", "difference", "difference_low", "difference_high", "without_low", "without_high",
    "seeds_a", "seeds_b", "paired", "parameters",
)  # fmt: skip


def _alike(runs: Sequence[Run]) -> list[list[int]]:
    """Return the places of the runs of each shape."""
    found: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, run in enumerate(runs):
        found.setdefault(_shape(run), []).append(place)
    return list(found.values())


def _width_over_seeds(a: Float, b: Float) -> Float:
    """Return the half width of the 95 % interval of the difference of two means over runs, (k, P) each → (P,)."""
    counts = [len(side) for side in (a, b)]
    known = [side.var(axis=0, ddof=1) / len(side) for side in (a, b) if len(side) > 1]
    if min(counts) == 1:  # what the one varies by is not known but from the others
        variance, freedom = known[0] * (1 + max(counts)), np.full(a.shape[1], max(counts) - 1.0)
    else:
        variance = known[0] + known[1]
        with np.errstate(invalid="ignore"):
            freedom = variance**2 / sum(each**2 / (n - 1) for each, n in zip(known, counts, strict=True))
    return np.asarray(np.where(variance > 0, stats.t.ppf(0.975, freedom) * np.sqrt(variance), variance))


def _without_one(difference: Float) -> tuple[float, float]:
    """Return the extremes of the mean over pairs, of (N, N), when one group is left out; NaN of fewer than three."""
    count = len(difference)
    if count < 3:
        return np.nan, np.nan
    means = [_pairs(np.delete(np.delete(difference, i, axis=0), i, axis=1))[-1] for i in range(count)]
    return float(np.min(means)), float(np.max(means))


def paired(run_a: Run, run_b: Run, task: str) -> bool:
    """Return whether two runs measured the same sentences of every group, in the same blocks of batches."""

    def measured(run: Run) -> list[object]:
        sets = [run.manifest["sets"][f"{task}/{group}"] for group in run_a.groups(task)]
        return [run.manifest["provenance"]["data_sha256"], *((of["drawn"], of["block_batches"]) for of in sets)]

    return measured(run_a) == measured(run_b)


def check_comparable(run_a: Run, run_b: Run, task: str) -> None:
    """Refuse two runs whose correlations would differ even if their models did not.

    Raises:
        RunError: naming the first thing that differs.
    """
    there, here = _conditions(run_a, task), _conditions(run_b, task)
    if len(run_a.groups(task)) < 2:
        raise RunError(run_a.path, "holds a single group, so there is no pair to compare", "analyze more groups")
    for name, value in there.items():
        if here[name] != value:
            problem = f"cannot be compared with {run_a.path}: {name} {here[name]} here and {value} there"
            raise RunError(run_b.path, problem, "analyze both models in the same way")


def _conditions(run: Run, task: str) -> dict[str, object]:
    analysis, groups = run.analysis(task), sorted(run.groups(task))
    sets = [run.manifest["sets"][f"{task}/{group}"] for group in groups]
    return {
        "the groups are": ", ".join(groups),
        "the direction is": run.manifest["direction"],
        "T is": analysis["tokens"],
        **{f"the {field} is": analysis["settings"].get(field) for field in SETTINGS},
        "the batches are": ", ".join(str(of["batches"] + of.get("skipped", 0)) for of in sets),
    }


def _shape(run: Run) -> tuple[tuple[int, ...], ...]:
    return tuple(parameter.shape for parameter in run.parameters)


def _blocks(runs: Sequence[Run], task: str) -> int:
    """Return into how many blocks the batches of every set are joined: as many as there are balanced halves of."""
    least = min(len(block_batches(run, (task, group))) for run in runs for group in run.groups(task))
    return next((count for count in DESIGNS if count <= least), 0)


def _width(halves: Float) -> Float:
    """Return the half width of a 95 % interval from the values in both halves of S splits, (S, 2, ...) → (...)."""
    apart = (halves[:, 0] - halves[:, 1]) / 2
    return np.asarray(stats.t.ppf(0.975, len(apart)) * np.sqrt((apart**2).mean(axis=0)))


def _pairs(matrices: Float) -> Float:
    """Return the entries off the diagonal and, last, their mean: (..., N, N) → (..., N·(N − 1) + 1)."""
    entries = matrices[..., ~np.eye(matrices.shape[-1], dtype=bool)]
    return np.concatenate([entries, entries.mean(axis=-1, keepdims=True)], axis=-1)
