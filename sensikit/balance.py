"""How evenly each language's sensitivity is spread over the parameters (Appendix B of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from sensikit.specificity import LEVELS
from sensikit.store import Run
from sensikit.streaming import Moments, order_statistics, quantiles

TOP = 0.1


def balance_table(run: Run, task: str = "mt") -> pd.DataFrame:
    """Return the distribution of S(θ, B_l) of each language, tidy: task, language, statistic, value.

    `cv` is the standard deviation over the mean: unlike `std` it does not move with the scale of the loss.
    `share_top10` is the share of the sum of S that its largest 10 % of parameters hold.
    """
    rows = []
    for language in run.languages(task):
        moments, zero = Moments.zero(1), 0
        for block in run.stream([run.vector(task, language)]):
            moments.add(block)
            zero += int((block == 0).sum())
        mean, std = float(moments.mean[0]), float(np.sqrt(moments.products[0, 0] / moments.count))

        def values(language: str = language) -> Iterator[np.ndarray]:
            return (block[0] for block in run.stream([run.vector(task, language)]))

        facts = {
            "mean": mean,
            "std": std,
            "cv": std / mean if mean else np.nan,
            "share_top10": _share_of_top(values, moments.count, mean * moments.count),
            "zero_share": zero / moments.count,
            **dict(zip(LEVELS, quantiles(values, moments.count, list(LEVELS.values())), strict=True)),
        }
        rows += [(task, language, statistic, value) for statistic, value in facts.items()]
    return pd.DataFrame(rows, columns=["task", "language", "statistic", "value"])


def _share_of_top(values: Callable[[], Iterator[np.ndarray]], count: int, total: float) -> float:
    top = int(TOP * count)
    if not top or not total:
        return float("nan")
    (edge,) = order_statistics(values, [count - top])
    above, held = 0, 0.0
    for chunk in values():
        inside = chunk > edge
        above += int(inside.sum())
        held += float(chunk[inside].sum(dtype=np.float64))
    return (held + (top - above) * edge) / total
