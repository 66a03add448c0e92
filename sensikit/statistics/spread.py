"""How evenly sensitivity is spread over the parameters (Appendix B and Figure 10 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.run import MIXED, Run
from sensikit.statistics.ranks import ALL, Sorted, between, ranks_of
from sensikit.statistics.specificity import LEVELS
from sensikit.statistics.streaming import Float
from sensikit.tables import Schema

TOP = 0.1

REMOVED = 0.01
"""The share of the parameters, those with the largest S, that Figure 10 leaves out."""

BINS = 100

BALANCE = Schema(
    "balance.csv", "Balance of sensitivity", "analyze",
    key=("task", "group", "statistic"),
    numbers=("value",),
    empty=("value",),
    statistics=("mean", "cv", "share_top10", "zero_share", "std_below_top1", "cv_below_top1", *LEVELS),
)  # fmt: skip

DISTRIBUTION = Schema(
    "distribution.csv", "Distribution of sensitivity", "analyze",
    key=("task", "group", "low"),
    numbers=("low", "high", "count"),
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """What the tables say of S of one set of batches.

    Attributes:
        name: of the set.
        balance: the statistics of balance.csv, by name.
        edges: of the bins of S without its top 1 %, (BINS + 1,), nats.
        counts: in each bin, (BINS,).
    """

    name: str
    balance: dict[str, float]
    edges: Float
    counts: NDArray[np.int64]


def spreads_of(run: Run, task: str) -> list[Spread]:
    """Return what the tables say of S of each group, and of S(θ,B) where it is measured: S is read and sorted once."""
    measured = run.groups(task) + [MIXED] * (f"{task}/{MIXED}" in run.manifest["sets"])
    return [_spread_of(run, task, name) for name in measured]


def _spread_of(run: Run, task: str, name: str) -> Spread:
    runs = Sorted(lambda: ((ALL, block[0]) for block in run.stream([run.vector(task, name)]))).read()
    levels, count = list(LEVELS.values()), runs.count
    below_top, kept = sizes = [count - int(share * count) for share in (TOP, REMOVED)]
    ((*places, top_edge, edge),) = runs.places([([ALL], [*ranks_of(count, levels), below_top - 1, kept - 1])])
    quantiles = dict(zip(LEVELS, between([place.value for place in places], count, levels), strict=True))
    edges, below = np.linspace(0, edge.value, BINS + 1), np.zeros(BINS, dtype=np.int64)
    # how many are below both edges, between them, and above, their sums of S − median, and of its square: about the
    # median, since squares of S itself would lose the digits of a deviation that is small beside the mean
    centre, sums, zero = np.float64(quantiles["median"]), np.zeros((3, 3)), 0
    for _, ordered in runs.runs():
        shifted = ordered - centre
        first, second = ordered.searchsorted(np.array([top_edge.value, edge.value], dtype=ordered.dtype))
        for total, layer in zip(sums, (shifted[:first], shifted[first:second], shifted[second:]), strict=True):
            total += np.array((len(layer), layer.sum(), layer @ layer))
        below += ordered.searchsorted(edges[:-1])
        zero += int(np.ptp([ordered.searchsorted(np.float32(0), side) for side in ("left", "right")]))
    lower, middle, whole = np.cumsum(sums, axis=0)
    for total, size, place in zip((lower, middle), sizes, (top_edge, edge), strict=True):
        # of those equal to the edge, as many as are within
        total += (size - total[0]) * (place.value - centre) ** np.arange(3)
    (mean, std, cv), (kept_mean, kept_std, kept_cv) = (_moments(centre, *total) for total in (whole, middle))
    total, rest = (centre * size + shifted for size, shifted, _ in (whole, lower))
    balance = {
        "mean": mean, "std": std, "cv": cv,
        "share_top10": (total - rest) / total if below_top < count and total else np.nan,
        "mean_below_top1": kept_mean, "std_below_top1": kept_std, "cv_below_top1": kept_cv,
        "zero_share": zero / count,
        **quantiles,
    }  # fmt: skip
    # some of those equal to the largest may belong to the top
    return Spread(name, balance, edges, np.diff(below, append=kept))


def _moments(centre: float, count: float, total: float, squares: float) -> tuple[float, float, float]:
    """Return the mean, the standard deviation of the population, and its ratio to the mean."""
    shifted = total / count
    mean, std = float(centre + shifted), float(np.sqrt(max(squares / count - shifted**2, 0.0)))
    return mean, std, std / mean if mean else np.nan


def balance_table(run: Run, task: str = "", spreads: Sequence[Spread] = ()) -> pd.DataFrame:
    """Return balance.csv: statistics of S(θ,B_l) over the parameters, for each group, and of S(θ,B), in nats.

    `mean`, `std` and the quantiles of `specificity.LEVELS`; `cv`, the standard deviation divided by the mean, which
    unlike `std` does not move with the scale of the loss; `share_top10`, the share of the sum of S that the 10 % of the
    parameters with the largest S hold; `zero_share`, the share of the parameters with S = 0. `mean_below_top1`,
    `std_below_top1` and `cv_below_top1` leave out the ⌊P/100⌋ parameters with the largest S.

    >>> table = balance_table(run).pivot(index="group", columns="statistic", values="value")
    >>> list(table.index), bool(table["share_top10"].between(0.1, 1).all())
    (['all.groups', 'cat', 'fur', 'nob', 'nso'], True)

    Args:
        run: with S of its groups.
        task: mt, denoise or lm; by default the first that was analysed.
        spreads: as `spreads_of` returned them, where they are there already.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    task = task or run.tasks[0]
    found = spreads or spreads_of(run, task)
    return BALANCE.frame([(task, of.name, *statistic) for of in found for statistic in of.balance.items()])


def distribution_table(run: Run, task: str, spreads: Sequence[Spread] = ()) -> pd.DataFrame:
    """Return distribution.csv: the histogram of S(θ,B_l) of each group, and of S(θ,B), without its top 1 % (Figure 10).

    `count` parameters have S from `low` to below `high` (nats), in bins of equal width from 0 to the largest S that is
    left; the last bin has its end too. Arguments and errors are those of `balance_table`.
    """
    rows = [
        (task, of.name, *row)
        for of in spreads or spreads_of(run, task)
        if of.edges[-1]  # else every S is 0
        for row in zip(of.edges[:-1], of.edges[1:], of.counts, strict=True)
    ]
    return DISTRIBUTION.frame(rows)
