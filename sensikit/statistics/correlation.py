"""Correlation of sensitivities between groups, for the most sensitive 10 % of the parameters, the rest, and all.

What a reader means by the PCC of two groups is that of endless batches. The PCC of the n batches that were measured
is lower, for each S has noise of its own; the corrected PCC stands beside it, both with intervals. The estimates are of
all parameters, the widths of the intervals of the stored block means. Nothing reads the data again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.errors import RunError
from sensikit.run import Run
from sensikit.settings import HIGH
from sensikit.statistics.halves import borders
from sensikit.statistics.measures import measures
from sensikit.statistics.noise import (
    Leaves,
    Set,
    block_moments,
    corrected,
    half_width,
    interval,
    left_out,
    moments_of,
    reliabilities,
    reliability,
    sampled,
)
from sensikit.statistics.streaming import Float, Keys, Moments, held, keys, levels
from sensikit.tables import PAIR, Schema

_ESTIMATES = ("corrected", "corrected_low", "corrected_high", "pcc", "pcc_low", "pcc_high", "ceiling")

_EMPTY = (*_ESTIMATES, "reliability_a", "reliability_b", "spearman", "log_pcc")

CORRELATION = Schema(
    "correlation.csv", "Correlation between groups", "analyze",
    key=("task", "subset", *PAIR),
    numbers=(*_EMPTY, "positive", "half_variance_a", "parameters"),
    empty=_EMPTY,  # not defined for sensitivities that do not vary, or of too few batches
    groups=PAIR,
)  # fmt: skip

SIMILARITY = Schema(
    "similarity.csv", "Similarity of the two tasks", "denoise",
    key=("task_a", "task_b", "subset", "group"),
    numbers=(*_ESTIMATES, "parameters"),
    empty=_ESTIMATES,
)  # fmt: skip


@dataclass(frozen=True)
class Correlation:
    """The correlations between N sets over one subset of the parameters.

    Attributes:
        pcc: of these batches, (N, N) float64.
        reliability: of each set, (N,) float64: c / var(S), c the covariance of the two halves of its batches.
        mean, deviation: of each S over the parameters, (N,) float64; a constant S has a deviation of 0.
        parameters: in the subset.
    """

    pcc: Float
    reliability: Float
    mean: Float
    deviation: Float
    parameters: int

    @property
    def ceiling(self) -> Float:
        """The noise ceiling of each pair, √(r_a·r_b) of their reliabilities, (N, N)."""
        root = np.sqrt(np.maximum(self.reliability, 0))
        return np.outer(root, root)

    @property
    def corrected(self) -> Float:
        """The PCC of endless batches, cov_ab / √(c_a·c_b), (N, N): the PCC over its ceiling; NaN where that is 0."""
        return corrected(self.pcc, self.reliability)

    def estimates(self, a: int, b: int, leaves: Leaves) -> tuple[float, ...]:
        """Return the columns `_ESTIMATES` of a pair, `leaves` being of the same N sets."""
        if a == b:  # over the same batches: there is nothing to bound or to correct
            return (np.nan, np.nan, np.nan, self.pcc[a, b], np.nan, np.nan, self.ceiling[a, b])
        low, high = interval(self.pcc[a, b], leaves.pcc[:, a, b])
        found, width = self.corrected[a, b], half_width(leaves.corrected[:, a, b])
        return (found, found - width, found + width, self.pcc[a, b], float(low), float(high), self.ceiling[a, b])


class Subsets(NamedTuple):
    """The high subset of a run, and what its block means are in each subset.

    Attributes:
        is_high: which of the P parameters are in the high subset, (P,).
        blocks: as `block_moments` returns them, of the groups of the run.
    """

    is_high: NDArray[np.bool_]
    blocks: dict[str, Moments]


def subsets_of(run: Run, task: str, high: float | None = None) -> Subsets:
    """Return what the tables of correlation and of convergence share (see `high_subset`)."""
    is_high = high_subset([run], task, high)
    sets = [(task, group) for group in run.groups(task)]
    return Subsets(is_high, block_moments(run, sets, is_high[sampled(run)]))


def correlation_table(
    run: Run, task: str = "", subsets: Subsets | None = None, high: float | None = None
) -> pd.DataFrame:
    """Return correlation.csv: how S(θ,B_a) and S(θ,B_b) correlate, for every ordered pair of groups in each subset.

    `pcc` is the Pearson correlation of S of these n batches, and `reliability_a` and `reliability_b` the share of the
    variance of each S that is not noise: c / var(S), c the covariance of two halves of its batches, which share no
    sentence. `ceiling` is √(r_a·r_b), what the PCC would be of two groups that differ in nothing but their batches.

    `corrected` = pcc / ceiling = cov_ab / √(c_a·c_b) estimates the PCC of endless batches. It is of all parameters, and
    not cut at ±1: an estimate of 1 must be free to exceed it. NaN where an S does not agree with itself (c ≤ 0).

    The bounds are at 95 % over batches, delete-one jackknives over the stored blocks of a sample of at most a million
    parameters, around the estimate of all: of Fisher's z for `pcc`; for `corrected` of the ratio itself, with c the
    mean covariance of all pairs of blocks, each weighted by its pairs of batches. In simulation (280 measurements of 14
    models of 10,000 parameters) those of `corrected` hold the PCC of endless batches over all, high and low in .95, .94
    and .95 of cases with 200 batches and in .96, .95 and .95 with 40. Those of `pcc` say what as many other batches
    would give (.95 to .98); they hold the PCC of endless batches in .23, .25 and .49 with 200, and never with 40.

    Beside them stand `spearman`, `log_pcc`, `positive` and `half_variance_a` (see `measures`), of these n batches.

    >>> table = correlation_table(run)
    >>> len(table), table.groupby("subset")["parameters"].first().to_dict()
    (48, {'all': 1720, 'high': 172, 'low': 1548})

    Args:
        run: with S, the halves and the blocks of its groups.
        task: mt, denoise or lm; by default the first that was analysed.
        subsets: as `subsets_of` returned them, where they are there already.
        high: the share of the parameters in the high subset (see `high_subset`); by default as the run was analysed.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    task = task or run.tasks[0]
    groups = run.groups(task)
    sets = [(task, group) for group in groups]
    is_high, blocks = subsets or subsets_of(run, task, high)
    without = left_out(run, sets, blocks)
    known = correlations(run, sets, is_high, blocks)
    others = measures(run, sets, is_high, {subset: (of.mean, of.deviation) for subset, of in known.items()})
    rows = []
    for subset, found in known.items():
        other = others[subset]
        for (a, first), (b, second) in product(enumerate(groups), repeat=2):
            pair = (found.reliability[a], found.reliability[b], other.spearman[a, b], other.log_pcc[a, b])
            counts = (other.positive[a, b], other.half_variance[a], found.parameters)
            rows.append((task, subset, first, second, *found.estimates(a, b, without[subset]), *pair, *counts))
    return CORRELATION.frame(rows)


MEANS = ("subset", "pairs", "corrected", "corrected_low", "corrected_high", "pcc", "ceiling")


def mean_correlation(run: Run, table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the means over pairs of different groups: a row for each subset, in the columns `MEANS`.

    `table` has the rows of correlation.csv. The interval of the mean corrected PCC is a delete-one jackknife over the
    stored blocks, as that of each pair. It reads nothing but the block means of sampled parameters, among which the
    high subset is drawn for its width.

    >>> mean_correlation(run, correlation_table(run), "mt")[["subset", "pairs"]].values.tolist()
    [['all', 6], ['high', 6], ['low', 6]]
    """
    sets = [(task, group) for group in run.groups(task)]
    size = len(sampled(run))
    (is_high,) = borders([(run, each) for each in sets], size, int(high_share(run, task) * size), np.ones((1, 1)))
    first, second = np.triu_indices(len(sets), 1)
    rows = []
    for subset, leaves in left_out(run, sets, block_moments(run, sets, is_high)).items():
        once = (table["task"] == task) & (table["subset"] == subset) & (table["group_a"] < table["group_b"])
        mean = table.loc[once, ["corrected", "pcc", "ceiling"]].mean()
        width = half_width(leaves.corrected[:, first, second].mean(axis=1))
        bounds = mean["corrected"] - width, mean["corrected"] + width
        rows.append((subset, len(first), mean["corrected"], *bounds, mean["pcc"], mean["ceiling"]))
    return pd.DataFrame(rows, columns=MEANS)


def correlations(
    run: Run, sets: Sequence[Set], is_high: NDArray[np.bool_], blocks: Mapping[str, Moments] | None = None
) -> dict[str, Correlation]:
    """Return the correlations between sets by subset (see `high_subset`), in one pass.

    The reliability of a set is that of its two halves; where a set has none, that of its blocks, of the sample alone:
    `blocks`, as `block_moments` returned them, where they are there already.
    """
    vectors = [run.vector(*each) for each in sets]
    if not all(run.halved(task) for task, _ in sets):
        known = reliabilities(run, sets, blocks or block_moments(run, sets, is_high[sampled(run)]))
        moments = moments_of(run.stream(vectors), is_high, len(sets))
        return {subset: _correlation(of, known[subset]) for subset, of in moments.items()}
    vectors += [run.vector(*each, "half") for each in sets]
    entries = [run.manifest["sets"]["/".join(each)] for each in sets]
    moments = moments_of(run.stream(vectors), is_high, len(vectors))
    n, n1 = (np.array([entry[key] for entry in entries], dtype=float) for key in ("batches", "half_batches"))
    return {subset: _of_halves(of, n, n1) for subset, of in moments.items()}


def _of_halves(moments: Moments, n: Float, n1: Float) -> Correlation:
    """Return the correlations between N sets from the moments of S of each, of n batches, and then of its first n₁."""
    eye, none = np.eye(len(n)), np.zeros((len(n), len(n)))
    whole = moments.combined(np.hstack([eye, none]))
    sums = moments.combined(np.block([[none, np.diag(n1)], [np.diag(n), -np.diag(n1)]]))  # over each half
    own = np.diag(sums.products).reshape(2, -1).sum(axis=0)
    return _correlation(whole, reliability(n**2 * np.diag(whole.products), own, np.stack([n1, n - n1], axis=1)))


def _correlation(moments: Moments, reliability: Float) -> Correlation:
    pcc = moments.pearson()
    constant = np.isnan(np.diag(pcc))
    deviation = np.sqrt(np.where(constant, 0, np.diag(moments.products)) / max(moments.count, 1))
    return Correlation(pcc, np.where(constant, np.nan, reliability), moments.mean, deviation, moments.count)


def high_subset(runs: Sequence[Run], task: str, high: float | None = None) -> NDArray[np.bool_]:
    """Return which of the P parameters are in the high subset of a task, (P,).

    It holds the ⌊high·P⌋ parameters with the largest mean over groups of S(θ,B_l) scaled to sum one, ties by index:
    one subset for every pair of groups, and for all runs where there are several, of models of one shape. `high` is by
    default the share with which the first run was analysed.
    """
    vectors = [[run.vector(task, group) for group in run.groups(task)] for run in runs]
    sums = np.zeros((sum(map(len, vectors)), 1))

    def stream() -> Iterator[np.ndarray]:
        return map(np.concatenate, zip(*(run.stream(of) for run, of in zip(runs, vectors, strict=True)), strict=True))

    for block in stream():
        sums += block.sum(axis=1, keepdims=True, dtype=np.float64)
    sums[sums == 0] = 1  # a group whose S is 0 throughout has no say

    def scores() -> Iterator[Keys]:
        # the largest mean is the smallest key
        return (keys(-(block / sums).mean(axis=0)) for block in stream())

    count = sum(parameter.numel for parameter in runs[0].parameters)
    size = int((high_share(runs[0], task) if high is None else high) * count)
    return np.asarray(levels(held(scores, count), [size]) == 0)


def high_share(run: Run, task: str) -> float:
    """Return the share of the parameters in the high subset with which a task was analysed (`--high`)."""
    share = run.analysis(task)["settings"].get("high", HIGH)
    if not isinstance(share, float) or not 0 < share < 1:
        raise RunError(run.path, f"was analysed with {share!r} for the share of the high subset", "analyze again")
    return share


TASKS = ("mt", "denoise")
"""The tasks whose similarity is measured."""


def similarity_table(run: Run) -> pd.DataFrame:
    """Return similarity.csv: the PCC between S of the two tasks for each group that has both; no rows where none has.

    The high subset is that of translation, over all its groups, and the columns are of those of `correlation_table`:
    `ceiling` is √(r_mt·r_denoise), r the reliability of each task's S.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    first, second = TASKS
    groups = [group for group in run.groups(first) if group in run.groups(second)]
    if not groups:
        return SIMILARITY.frame([])
    is_high = high_subset([run], first)
    in_sample = is_high[sampled(run)]
    rows = []
    for group in groups:
        pair = [(first, group), (second, group)]
        blocks = block_moments(run, pair, in_sample)
        without = left_out(run, pair, blocks)
        for subset, of in correlations(run, pair, is_high, blocks).items():
            rows.append((first, second, subset, group, *of.estimates(0, 1, without[subset]), of.parameters))
    return SIMILARITY.frame(rows)
