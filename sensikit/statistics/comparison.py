"""What a second model changed: the difference in PCC between two runs, with the noise of both."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd

from sensikit.errors import RunError
from sensikit.run import Run
from sensikit.statistics.correlation import HIGH, SUBSETS, correlations, high_subset, in_sample
from sensikit.statistics.noise import half_width, left_out
from sensikit.statistics.streaming import Float
from sensikit.tables import PAIR

SETTINGS = ("split", "loss", "reduction", "mode")
"""Settings that change a PCC; T and the number of batches, which do too, are compared as they came out."""


def correlation_difference(run_a: Run, run_b: Run, task: str = "mt", high: float = HIGH) -> pd.DataFrame:
    """Return the PCC in run b minus that in run a, for every ordered pair of different groups in each subset, tidy.

    The last row of a subset, which names no groups, is the mean over pairs. Each run has its own high subset.
    The intervals are 95 % over batches, by a jackknife: where both runs measured the same sentences in the same
    blocks (`paired`), the difference is taken without each block, so that what makes a block unusual for both models
    cancels; where they did not, the two variances add up. They speak of these two trained models alone: another
    training seed gives another model. By simulation (20 pairs of models of 10,000 parameters, 50 measurements of each)
    they cover .95 to .98 with 40 batches and .96 to .97 with 200, over the low subset .88 with 200: the border between
    the subsets is drawn from the same batches, which the jackknife does not see.

    Args:
        run_a: the first run, with S, the halves and the blocks of its groups.
        run_b: the second.
        task: mt, denoise or lm.
        high: the share of the parameters in the high subset.

    Raises:
        RunError: if the runs differ in their groups, direction, T, loss, mode or number of batches, each of which
            changes a PCC; or if a vector is missing, damaged, or of another model.
    """
    check_comparable(run_a, run_b, task)
    groups, same = run_a.groups(task), paired(run_a, run_b, task)
    names = list(permutations(groups, 2))
    side_a, side_b = (_pccs(run, task, groups, high) for run in (run_a, run_b))
    rows = []
    for subset in SUBSETS:
        (pcc_a, without_a), (pcc_b, without_b) = side_a[subset], side_b[subset]
        width = half_width(without_b - without_a) if same else np.hypot(half_width(without_a), half_width(without_b))
        for i, pair in enumerate([*names, ("", "")]):
            difference = pcc_b[i] - pcc_a[i]
            ends = (difference - width[i], difference + width[i])
            rows.append((task, subset, *pair, pcc_a[i], pcc_b[i], difference, *ends, same))
    columns = ["pcc_a", "pcc_b", "difference", "difference_low", "difference_high", "paired"]
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


def _pccs(run: Run, task: str, groups: list[str], high: float) -> dict[str, tuple[Float, Float]]:
    """Return, by subset, the PCC of each ordered pair of different groups and their mean, and the same without a block.

    (N·(N − 1) + 1,) and (G, N·(N − 1) + 1), for N groups and G blocks.
    """
    sets = [(task, group) for group in groups]
    masks = high_subset(run, task, high)
    without = left_out(run, sets, in_sample(run, masks()))
    found = correlations(run, sets, masks())
    return {subset: (_pairs(found[subset].pcc), _pairs(without[subset])) for subset in SUBSETS}


def _pairs(matrices: Float) -> Float:
    """Return the entries off the diagonal and, last, their mean: (..., N, N) → (..., N·(N − 1) + 1)."""
    entries = matrices[..., ~np.eye(matrices.shape[-1], dtype=bool)]
    return np.concatenate([entries, entries.mean(axis=-1, keepdims=True)], axis=-1)
