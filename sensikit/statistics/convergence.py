"""How S settles as batches are added, and so whether there are enough of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sensikit.run import Run
from sensikit.statistics.correlation import Subsets, subsets_of
from sensikit.statistics.noise import SUBSETS, block_batches, fisher, half_width
from sensikit.statistics.streaming import Float, Moments
from sensikit.tables import Schema

CONVERGENCE = Schema(
    "convergence.csv", "Convergence with the number of batches", "analyze",
    key=("task", "subset", "group", "batches"),
    numbers=("batches", "reliability", "reliability_low", "reliability_high"),
    empty=("reliability", "reliability_low", "reliability_high"),
)  # fmt: skip

ENOUGH = (0.95, 0.99)
"""Reliabilities of S that the number of batches is given for."""


def convergence_table(run: Run, task: str, subsets: Subsets | None = None) -> pd.DataFrame:
    """Return convergence.csv: the PCC between S of two disjoint sets of n batches, for each group, subset and n.

    The sets are of 1, 2, … blocks, up to half of them: n batches, rounded where blocks differ in size. `reliability`
    stands for every way to draw two such sets: it is the mean covariance of the two divided by their mean variance (see
    `reliability`). The interval is 95 % over batches, a jackknife of Fisher's z over blocks; it does not shrink with
    the number of ways, since these share their batches.

    Args:
        run: with S and the blocks of its groups.
        task: mt, denoise or lm.
        subsets: as `correlation.subsets_of` returned them, where they are there already.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    moments = (subsets or subsets_of(run, task)).blocks
    of_group = {group: block_batches(run, (task, group)) for group in run.groups(task)}
    ends = np.cumsum([len(blocks) for blocks in of_group.values()])
    rows = []
    for (group, blocks), own in zip(of_group.items(), np.split(np.eye(ends[-1]), ends[:-1]), strict=True):
        sizes = [round(blocks.sum() * count / len(blocks)) for count in range(1, len(blocks) // 2 + 1)]
        for subset in SUBSETS:
            means = moments[subset].combined(own / blocks[:, None])
            found = reliability(means, blocks, sizes)
            others = [np.delete(np.arange(len(blocks)), block) for block in range(len(blocks))]
            without = [reliability(means.combined(np.eye(len(blocks))[kept]), blocks[kept], sizes) for kept in others]
            centre, width = fisher(found), half_width(fisher(np.stack(without)))
            columns = zip(sizes, found, np.tanh(centre - width), np.tanh(centre + width), strict=True)
            rows += [(task, subset, group, *column) for column in columns]
    return CONVERGENCE.frame(rows)


def reliability(means: Moments, batches: np.ndarray, sizes: Sequence[int]) -> Float:
    """Return the PCC between S of two disjoint sets of n batches for each n of `sizes`: c / (c + s/n), (len(sizes),).

    c, the mean covariance of two blocks, is what two sets share: the variance of S over the parameters. s is what the
    noise of a single batch adds to it, for the mean variance of a block of n batches is c + s/n. Blocks that differ in
    size count alike: c is the plain mean, and 1/n that of theirs. NaN where there are
    fewer than two blocks, or where one does not vary.

    >>> means = Moments.zero(2)
    >>> means.add(np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]]))
    >>> reliability(means, np.array([1, 1]), [1, 2, 10]).round(3).tolist()
    [0.8, 0.889, 0.976]

    Args:
        means: moments of G block means over the parameters.
        batches: of each block, (G,).
        sizes: n.
    """
    count = len(batches)
    if count < 2 or np.isnan(means.pearson()).any():
        return np.full(len(sizes), np.nan)
    own = float(np.trace(means.products))
    shared = (float(means.products.sum()) - own) / (count * (count - 1))
    noise = max(own / count - shared, 0.0) / np.mean(1 / batches)
    return np.asarray(shared / (shared + noise / np.array(sizes)))


def needed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how reliable S is over all batches of each group (convergence.csv), and how many would make it more so.

    task, subset, group, batches, reliability, and for each level of `ENOUGH` the batches that it takes, by Spearman and
    Brown; NaN where no number would do.
    """
    last = frame.sort_values("batches", kind="stable").groupby(["task", "subset", "group"], sort=False).tail(1)
    half = last["reliability"].where(last["reliability"] > 0)
    # Spearman and Brown: r_kn = k·r_n / (1 + (k − 1)·r_n), with k = 2 from half of the batches to all
    facts = {"batches": 2 * last["batches"], "reliability": 2 * half / (1 + half)}
    levels = {str(level): np.ceil(last["batches"] * (1 - half) / half * level / (1 - level)) for level in ENOUGH}
    return last[["task", "subset", "group"]].assign(**facts, **levels).sort_index(ignore_index=True)
