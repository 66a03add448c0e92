"""Pearson correlation of sensitivities between groups, for the most sensitive 10 % of the parameters and the rest.

Each correlation comes with its noise ceiling, from two halves of the batches that share no sentence, and its interval
over batches, from the stored block means. Neither reads the data again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.parameters import sample_of
from sensikit.run import Run
from sensikit.statistics.noise import Set, interval, left_out
from sensikit.statistics.streaming import Float, Keys, Moments, keys, selected, smallest
from sensikit.tables import PAIR, Schema

HIGH = 0.1
"""The share of the parameters in the high subset (section 3.2 of the paper)."""

SUBSETS = ("all", "high", "low")

_NOISY = ("pcc", "pcc_low", "pcc_high", "ceiling", "disattenuated", "reliability_a", "reliability_b")

CORRELATION = Schema(
    "correlation.csv", "Correlation between groups", "analyze",
    key=("task", "subset", *PAIR),
    numbers=(*_NOISY, "parameters"),
    empty=_NOISY,  # not defined for sensitivities that do not vary, or of too few batches
    groups=PAIR,
)  # fmt: skip

SIMILARITY = Schema(
    "similarity.csv", "Similarity of the two tasks", "denoise",
    key=("task_a", "task_b", "subset", "group"),
    numbers=("pcc", "pcc_low", "pcc_high", "ceiling"),
    empty=("pcc", "pcc_low", "pcc_high", "ceiling"),
)  # fmt: skip

Masks = Callable[[], Iterator[NDArray[np.bool_]]]
"""A stream of masks over the parameters, chunk by chunk as `Run.stream` yields them."""


@dataclass(frozen=True)
class Correlation:
    """The correlations between N sets over one subset of the parameters.

    Attributes:
        pcc: (N, N) float64.
        reliability: of each set, (N,) float64: the PCC between its two halves, stepped up to its full number of batches
            by Spearman and Brown, 2r / (1 + r).
        parameters: in the subset.
    """

    pcc: Float
    reliability: Float
    parameters: int

    @property
    def ceiling(self) -> Float:
        """The noise ceiling of each pair, √(r_a·r_b) of their reliabilities, (N, N)."""
        root = np.sqrt(np.maximum(self.reliability, 0))
        return np.outer(root, root)

    @property
    def disattenuated(self) -> Float:
        """The PCC divided by its ceiling, (N, N); NaN where the ceiling is 0."""
        return np.divide(self.pcc, self.ceiling, out=np.full_like(self.pcc, np.nan), where=self.ceiling > 0)


def correlation_table(run: Run, task: str = "mt", high: float = HIGH) -> pd.DataFrame:
    """Return correlation.csv: the PCC between S(θ,B_a) and S(θ,B_b) of every ordered pair of groups in each subset.

    `pcc_low` and `pcc_high` bound the PCC at 95 % over batches (see `sensikit.statistics.noise`). `reliability_a` and
    `reliability_b` are how well each S agrees with itself, `ceiling` is √(r_a·r_b) of the two (see `Correlation`), and
    `disattenuated` is pcc / ceiling: the estimate of the PCC of infinitely many batches, which may come out above 1.

    >>> table = correlation_table(run)
    >>> len(table), table.groupby("subset")["parameters"].first().to_dict()
    (48, {'all': 1720, 'high': 172, 'low': 1548})

    Args:
        run: with S, the halves and the blocks of its groups.
        task: mt, denoise or lm.
        high: the share of the parameters in the high subset (see `high_subset`).

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    groups = run.groups(task)
    sets = [(task, group) for group in groups]
    masks = high_subset(run, task, high)
    without = left_out(run, sets, in_sample(run, masks()))
    rows = []
    for subset, found in correlations(run, sets, masks()).items():
        low, upper = interval(found.pcc, without[subset])
        for (a, first), (b, second) in product(enumerate(groups), repeat=2):
            noise = (low[a, b], upper[a, b], found.ceiling[a, b], found.disattenuated[a, b])
            if a == b:  # over the same batches: there is nothing to bound or to correct
                noise = (np.nan, np.nan, found.ceiling[a, b], np.nan)
            pair = (found.reliability[a], found.reliability[b])
            rows.append((task, subset, first, second, found.pcc[a, b], *noise, *pair, found.parameters))
    return CORRELATION.frame(rows)


def correlations(run: Run, sets: Sequence[Set], masks: Iterable[NDArray[np.bool_]]) -> dict[str, Correlation]:
    """Return the correlations between sets by subset, in one pass.

    Args:
        run: with the vectors and the halves of the sets.
        sets: N of them.
        masks: which parameters are in the high subset, chunk by chunk, as `high_subset` yields them.
    """
    count = len(sets)
    full = [run.vector(*each) for each in sets]
    half = [run.vector(*each, "half") for each in sets]
    entries = [run.manifest["sets"]["/".join(each)] for each in sets]
    n = np.array([entry["batches"] for entry in entries], dtype=float)
    n1 = np.array([entry["half_batches"] for entry in entries], dtype=float)
    moments = {subset: Moments.zero(2 * count) for subset in SUBSETS}
    for block, is_high in zip(run.stream(full + half), masks, strict=True):
        own, first = block[:count].astype(np.float64), block[count:].astype(np.float64)
        second = (n[:, None] * own - n1[:, None] * first) / (n - n1)[:, None]
        halves = np.concatenate([first, second])
        moments["high"].add(halves[:, is_high])
        moments["low"].add(halves[:, ~is_high])
    moments["all"].merge(moments["high"])
    moments["all"].merge(moments["low"])
    # S over all batches is the mean of the halves, each as often as it has batches
    whole = np.hstack([np.diag(n1 / n), np.diag(1 - n1 / n)])
    return {
        subset: Correlation(of.combined(whole).pearson(), _spearman_brown(np.diag(of.pearson(), count)), of.count)
        for subset, of in moments.items()
    }


def high_subset(run: Run, task: str, high: float = HIGH) -> Masks:
    """Return a stream of masks over the parameters: which are in the high subset of a task.

    It holds the ⌊high·P⌋ parameters with the largest mean over groups of S(θ,B_l) scaled to sum one, ties by index:
    one subset for every pair of groups.
    """
    vectors = [run.vector(task, group) for group in run.groups(task)]
    sums = np.zeros((len(vectors), 1))
    for block in run.stream(vectors):
        sums += block.sum(axis=1, keepdims=True, dtype=np.float64)
    sums[sums == 0] = 1

    def scores() -> Iterator[Keys]:
        # the largest mean is the smallest key
        return (keys(-(block / sums).mean(axis=0)) for block in run.stream(vectors))

    count = sum(parameter.numel for parameter in run.parameters)
    (cut,) = smallest(scores, [int(high * count)])
    return lambda: selected(scores(), cut)


def in_sample(run: Run, masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return which of the M parameters that have block means are within the masks, (M,) bool."""
    sample = sample_of(run.parameters)
    places = np.concatenate([parameter.start + sample[parameter.name] for parameter in run.parameters])
    found, start = [], 0
    for mask in masks:
        first, last = np.searchsorted(places, (start, start + len(mask)))
        found.append(mask[places[first:last] - start])
        start += len(mask)
    return np.concatenate(found)


def _spearman_brown(r: Float) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(r > -1, 2 * r / (1 + r), np.nan)


TASKS = ("mt", "denoise")
"""The tasks whose similarity is measured."""


def similarity_table(run: Run, high: float = HIGH) -> pd.DataFrame:
    """Return similarity.csv: the PCC between S of the two tasks for each group that has both; no rows where none has.

    The high subset is that of translation, over all its groups, as in correlation.csv. `ceiling` is √(r_mt·r_denoise),
    r the reliability of each task's S (see `Correlation`); `pcc_low` and `pcc_high` bound the PCC at 95 % over batches
    (see `sensikit.statistics.noise`).

    Args:
        run: with S, the halves and the blocks of both tasks.
        high: the share of the parameters in the high subset.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    first, second = TASKS
    groups = [group for group in run.groups(first) if group in run.groups(second)]
    if not groups:
        return SIMILARITY.frame([])
    masks = high_subset(run, first, high)
    is_high = in_sample(run, masks())
    found = correlations(run, [(task, group) for task in TASKS for group in groups], masks())
    rows = []
    for a, group in enumerate(groups):
        b = a + len(groups)
        without = left_out(run, [(first, group), (second, group)], is_high)
        for subset, of in found.items():
            low, upper = interval(of.pcc[a, b], without[subset][:, 0, 1])
            rows.append((first, second, subset, group, of.pcc[a, b], float(low), float(upper), of.ceiling[a, b]))
    return SIMILARITY.frame(rows)
