"""How evenly sensitivity is spread over the parameters (Appendix B and Figure 10 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from sensikit.run import MIXED, Run
from sensikit.statistics.specificity import LEVELS
from sensikit.statistics.streaming import Moments, order_statistics, quantiles
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

Values = Callable[[], Iterator[np.ndarray]]


def balance_table(run: Run, task: str = "mt") -> pd.DataFrame:
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
        task: mt, denoise or lm.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    rows = []
    for group in _measured(run, task):
        values = _values(run, task, group)
        moments, zero = Moments.zero(1), 0
        for chunk in values():
            moments.add(chunk[None])
            zero += int((chunk == 0).sum())
        top = int(TOP * moments.count)
        below_top, kept = _smallest(values, [moments.count - top, _kept(moments.count)])
        total, rest = (float(each.mean[0]) * each.count for each in (moments, below_top))
        facts = {
            **dict(zip(("mean", "std", "cv"), _spread(moments), strict=True)),
            "share_top10": (total - rest) / total if top and total else np.nan,
            **dict(zip(("mean_below_top1", "std_below_top1", "cv_below_top1"), _spread(kept), strict=True)),
            "zero_share": zero / moments.count,
            **dict(zip(LEVELS, quantiles(values, moments.count, list(LEVELS.values())), strict=True)),
        }
        rows += [(task, group, statistic, value) for statistic, value in facts.items()]
    return BALANCE.frame(rows)


def distribution_table(run: Run, task: str = "mt") -> pd.DataFrame:
    """Return distribution.csv: the histogram of S(θ,B_l) of each group, and of S(θ,B), without its top 1 % (Figure 10).

    `count` parameters have S from `low` to below `high` (nats), in bins of equal width from 0 to the largest S that is
    left.

    Args:
        run: with S of its groups.
        task: mt, denoise or lm.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    rows = []
    count = sum(parameter.numel for parameter in run.parameters)
    for group in _measured(run, task):
        values = _values(run, task, group)
        (largest,) = order_statistics(values, [_kept(count) - 1])
        if not largest:
            continue
        edges, counts = np.linspace(0, largest, BINS + 1), np.zeros(BINS, dtype=np.int64)
        for chunk in values():
            counts += np.histogram(chunk[chunk <= largest].astype(np.float64), bins=edges)[0]
        # some of those equal to the largest may belong to the top
        counts[-1] -= counts.sum() - _kept(count)
        rows += [(task, group, *row) for row in zip(edges[:-1], edges[1:], counts, strict=True)]
    return DISTRIBUTION.frame(rows)


def _measured(run: Run, task: str) -> list[str]:
    """Return the groups, and last the set of all of them together, where it is measured."""
    return run.groups(task) + [MIXED] * (f"{task}/{MIXED}" in run.manifest["sets"])


def _values(run: Run, task: str, name: str) -> Values:
    return lambda: (block[0] for block in run.stream([run.vector(task, name)]))


def _kept(count: int) -> int:
    return count - int(REMOVED * count)


def _spread(moments: Moments) -> tuple[float, float, float]:
    """Return the mean, the standard deviation of the population, and its ratio to the mean."""
    mean, std = float(moments.mean[0]), float(np.sqrt(moments.products[0, 0] / moments.count))
    return mean, std, std / mean if mean else np.nan


def _smallest(values: Values, counts: Sequence[int]) -> list[Moments]:
    """Return the moments of the k smallest values for each k of `counts`."""
    edges = order_statistics(values, [count - 1 for count in counts])
    found = [Moments.zero(1) for _ in counts]
    for chunk in values():
        for moments, edge in zip(found, edges, strict=True):
            moments.add(chunk[None, chunk < edge])
    for moments, edge, count in zip(found, edges, counts, strict=True):
        moments.merge(Moments(count - moments.count, np.array([edge]), np.zeros((1, 1))))
    return found
