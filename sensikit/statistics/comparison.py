"""What a second model changed: the difference in the corrected PCC between two runs, with the noise of both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pandas as pd
from scipy import stats

from sensikit.errors import RunError
from sensikit.run import Run
from sensikit.statistics.correlation import SUBSETS, correlations, high_subset, in_sample
from sensikit.statistics.halves import DESIGNS, in_halves
from sensikit.statistics.noise import block_batches
from sensikit.statistics.streaming import Float
from sensikit.tables import PAIR

SETTINGS = ("split", "loss", "reduction", "mode", "high")
"""Settings that change a PCC; T and the number of batches, which do too, are compared as they came out."""


def correlation_difference(
    run_a: Run, run_b: Run, task: str = "mt", beside: Sequence[Run] = (), high: float | None = None
) -> pd.DataFrame:
    """Return the corrected PCC in run b minus that in run a, for every ordered pair of groups in each subset, tidy.

    The last row of a subset, which names no groups, is the mean over pairs. `corrected_a` and `corrected_b` are as in
    correlation.csv (see `correlation_table`) but that all runs share one border between the subsets, which is drawn
    from all of them; models of different shapes have one each.

    The intervals are 95 % over batches, of half-samples: the blocks are split in two halves in 19 balanced ways, each
    half has a border and correlations of its own, and t of 19 degrees of freedom times the root of the mean square of
    half the difference between the two halves is the width. A difference that the two share, of the same batches
    (`paired`), cancels. They are of the stored sample of the parameters, and speak of these two trained models alone:
    another training seed gives another model.

    In simulation (280 pairs of measurements of 14 pairs of models of 10,000 parameters, the same batches) they hold the
    true difference of a pair over all, high and low in .98, .98 and .96 of cases with 200 batches and in .95, .94 and
    .97 with 40; of the mean over pairs in .96, .96 and .94, and in .96, .95 and .96. A jackknife of the difference in
    the PCC of these batches, each run with a border of its own, holds that of the mean over the low subset in .60 with
    200 batches and in .10 with 40 (80 pairs of measurements).

    Args:
        run_a: the first run, with S, the halves and the blocks of its groups.
        run_b: the second.
        task: mt, denoise or lm.
        beside: runs that the border is drawn from too.
        high: the share of the parameters in the high subset; by default as run a was analysed.

    Raises:
        RunError: if the runs differ in their groups, direction, T, loss, mode, number of batches or share of the high
            subset, each of which changes a PCC; or if a vector is missing, damaged, or of another model.
    """
    check_comparable(run_a, run_b, task)
    groups, same = run_a.groups(task), paired(run_a, run_b, task)
    sets, alike = [(task, group) for group in groups], _shape(run_a) == _shape(run_b)
    more = [run for run in beside if alike and run not in (run_a, run_b) and _shape(run) == _shape(run_a)]
    found, halves = [], []
    for sharing in [[run_a, run_b, *more]] if alike else [[run_a], [run_b]]:
        masks = high_subset(sharing, task, high)
        found += [correlations(run, sets, masks()) for run in sharing[:2]]
        measured = [(run, sets if run in sharing[:2] else [(task, group) for group in run.groups(task)])
                    for run in sharing]  # fmt: skip
        halves += in_halves(measured, in_sample(sharing[0], masks()), _blocks([run_a, run_b, *more], task))[:2]
    rows = []
    for subset in SUBSETS:
        value_a, value_b = (_pairs(of[subset].corrected) for of in found)
        width = _width(_pairs(halves[1][subset] - halves[0][subset]))
        for i, pair in enumerate([*permutations(groups, 2), ("", "")]):
            difference = value_b[i] - value_a[i]
            ends = (difference - width[i], difference + width[i])
            numbers = (value_a[i], value_b[i], difference, *ends, same, found[0][subset].parameters)
            rows.append((task, subset, *pair, *numbers))
    columns = ["corrected_a", "corrected_b", "difference", "difference_low", "difference_high", "paired", "parameters"]
    return pd.DataFrame(rows, columns=["task", "subset", *PAIR, *columns])


def paired(run_a: Run, run_b: Run, task: str = "mt") -> bool:
    """Return whether two runs measured the same sentences of every group, in the same blocks of batches."""

    def measured(run: Run) -> list[object]:
        sets = [run.manifest["sets"][f"{task}/{group}"] for group in run_a.groups(task)]
        return [run.manifest["provenance"]["data_sha256"], *((of["drawn"], of["block_batches"]) for of in sets)]

    return measured(run_a) == measured(run_b)


def check_comparable(run_a: Run, run_b: Run, task: str = "mt") -> None:
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


def _shape(run: Run) -> list[tuple[int, ...]]:
    return [parameter.shape for parameter in run.parameters]


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
