"""Eq. 4: D(θ,l) = (S_l − S_-l) / (S_-l + σ), how much more a parameter matters to one group than to the others."""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.errors import DamagedError
from sensikit.parameters import Parameter
from sensikit.run import Run, rest_of
from sensikit.settings import SIGMA
from sensikit.statistics.ranks import Sorted, between, ranks_of
from sensikit.statistics.streaming import Float
from sensikit.tables import PAIR, Schema

LEVELS = {"q01": 0.01, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "q99": 0.99}
"""Quantiles that the tables of D and of S hold, by the names of their statistics."""

SPECIFICITY = Schema(
    "specificity.csv", "Language specificity", "analyze",
    key=("task", "group", "statistic"),
    numbers=("value",),
    statistics=("mean", "share_positive", "share_small_denominator", "share_ties_at_zero", *LEVELS),
)  # fmt: skip

OVERLAP = Schema(
    "overlap.csv", "Overlap of the most specific parameters", "analyze",
    key=("task", "share", *PAIR),
    numbers=("share", "jaccard", "expected"),
    empty=("jaccard", "expected"),
    groups=PAIR,
)  # fmt: skip

SHARES = (0.01, 0.05, 0.1)
"""The shares of the parameters whose overlap is measured."""


def specificity(own: np.ndarray, rest: np.ndarray, sigma: float) -> Float:
    """Return D(θ,l) = (S_l − S_-l) / (S_-l + σ) (Eq. 4): signed, float64, in the shape of its arguments.

    It is −1 where a parameter matters to the others alone, 0 where it matters alike, and large where it matters to l.

    >>> specificity(np.array([3e-6, 1e-6, 0.0]), np.array([1e-6, 1e-6, 2e-6]), sigma=1e-12).round(3).tolist()
    [2.0, 0.0, -1.0]

    Args:
        own: S(θ,B_l), any shape and real dtype, in nats (per target token, where the loss is).
        rest: S(θ,B_-l), the same shape and unit.
        sigma: σ > 0, in the same unit (see `sigma_for`).
    """
    # in place: memory that is asked for anew at every chunk costs more than the arithmetic
    others = rest.astype(np.float64)
    score = np.asarray(own - others)
    others += sigma
    score /= others
    return np.asarray(score)


def sigma_for(per_token: bool, tokens: float, sigma: float = SIGMA) -> float:
    """Return σ in the unit of the measured loss: `sigma` itself where it is summed, `sigma` / `tokens` where per token.

    Dividing the loss and σ by the same number leaves D unchanged.

    >>> sigma_for(per_token=True, tokens=4096, sigma=4.096e-9)
    1e-12
    >>> sigma_for(per_token=False, tokens=4096)
    1e-08

    Args:
        per_token: whether the loss of a batch is divided by its target tokens.
        tokens: the mean number of target tokens in the batches of B_-l.
        sigma: of the loss summed over a batch, in nats.
    """
    return sigma / tokens if per_token else sigma


@dataclass(frozen=True)
class Scores:
    """What the tables say of D(θ,l) of one group.

    Attributes:
        group: l.
        sigma: σ.
        sums: for each tensor, by name, (6,) float64: its parameters, the sums of S and of D over them, and how many
            have D > 0, D = 0, and S_-l < 10σ.
        quantiles: of D, at `LEVELS`.
        medians: of D in each part of the model that was asked for.
        tops: where D is cut for each share: all above this, and of those equal to it the first so many.
    """

    group: str
    sigma: float
    sums: dict[str, Float]
    quantiles: list[float]
    medians: dict[Any, float]
    tops: list[tuple[float, int]]

    def total(self, names: Iterable[str]) -> Float:
        """Return the sums over some tensors, (6,)."""
        return np.asarray(np.sum([self.sums[name] for name in names], axis=0))


def scores_of(
    run: Run,
    task: str,
    parts: Mapping[Any, Collection[Parameter]] = types.MappingProxyType({}),
    shares: Sequence[float] = SHARES,
) -> list[Scores]:
    """Return what the tables say of D(θ,l) of each group: S(θ,B_l) and S(θ,B_-l) are read, and D is sorted, once.

    `parts` are tensors whose median is wanted, under any key, and `shares` those of the parameters with the largest D
    whose cut is.
    """
    return [_scores(run, task, group, parts, shares) for group in run.groups(task)]


def _scores(
    run: Run, task: str, group: str, parts: Mapping[Any, Collection[Parameter]], shares: Sequence[float]
) -> Scores:
    names = [parameter.name for parameter in run.parameters]
    sums = {name: np.zeros(6) for name in names}
    sigma = sigma_of(run, group, task)
    runs = Sorted(lambda: ((parameter.name, score) for parameter, _, _, score in specificities(run, task, group)))
    for parameter, own, rest, score in specificities(run, task, group):
        ordered = runs.add(parameter.name, score)
        negative, up = (int(ordered.searchsorted(0.0, side)) for side in ("left", "right"))
        small = np.count_nonzero(rest < 10 * sigma)
        total = own.sum(dtype=np.float64), score.sum()
        sums[parameter.name] += np.array((own.size, *total, own.size - up, up - negative, small))
    sizes = [math.floor(share * runs.count) for share in shares]
    members = {key: [parameter.name for parameter in of] for key, of in parts.items()}
    counts = {key: sum(parameter.numel for parameter in of) for key, of in parts.items()}
    levels = list(LEVELS.values())
    quantiles, edges, *middles = runs.places(
        [
            (names, ranks_of(runs.count, levels)),
            (names, [runs.count - max(size, 1) for size in sizes]),  # of no parameters there is no edge: any rank
            *((members[key], [(count - 1) // 2, count // 2]) for key, count in counts.items()),
        ]
    )
    return Scores(
        group,
        sigma,
        sums,
        between([place.value for place in quantiles], runs.count, levels),
        {key: (low.value + high.value) / 2 for key, (low, high) in zip(counts, middles, strict=True)},
        [
            (edge.value, size - (runs.count - edge.below - edge.equal)) if size else (math.inf, 0)
            for edge, size in zip(edges, sizes, strict=True)
        ],
    )


def specificity_table(run: Run, task: str = "", scores: Sequence[Scores] = ()) -> pd.DataFrame:
    """Return specificity.csv: statistics of D(θ,l) (Eq. 4) over the parameters, for each group.

    `mean` and the quantiles of `LEVELS`; `share_positive`, the share of the parameters with D > 0;
    `share_small_denominator`, the share with S_-l < 10σ, where σ decides D; `share_ties_at_zero`, the share with D = 0
    exactly, which no order by D can tell apart; and `sigma`, the σ that was used.

    >>> table = specificity_table(run).pivot(index="group", columns="statistic", values="value")
    >>> list(table.index), list(table.columns)[-3:], bool(table["q01"].min() >= -1)
    (['cat', 'fur', 'nob', 'nso'], ['share_small_denominator', 'share_ties_at_zero', 'sigma'], True)

    Args:
        run: with S(θ,B_l) and S(θ,B_-l) of its groups.
        task: mt, denoise or lm; by default the first that was analysed.
        scores: as `scores_of` returned them, where they are there already.

    Raises:
        RunError: if a vector is missing, damaged, or of another model.
    """
    task, rows = task or run.tasks[0], []
    for of in scores or scores_of(run, task):
        count, _, score, positive, zero, small = of.total(of.sums)
        facts = {
            "sigma": of.sigma,
            "share_small_denominator": small / count,
            "share_ties_at_zero": zero / count,
            "share_positive": positive / count,
            "mean": score / count,
            **dict(zip(LEVELS, of.quantiles, strict=True)),
        }
        rows += [(task, of.group, statistic, value) for statistic, value in facts.items()]
    return SPECIFICITY.frame(rows)


def specificities(run: Run, task: str, group: str) -> Iterator[tuple[Parameter, np.ndarray, np.ndarray, Float]]:
    """Yield (parameter, S(θ,B_l), S(θ,B_-l), D(θ,l)) of a group (Eq. 4), chunk by chunk in flat order."""
    sigma, vectors = sigma_of(run, group, task), [run.vector(task, group), run.vector(task, rest_of(group))]
    for (parameter, _), (own, rest) in run.chunks(vectors):
        yield parameter, own, rest, specificity(own, rest, sigma)


def sigma_of(run: Run, group: str, task: str) -> float:
    """Return σ of one group's D, as the run noted it when S(θ,B_-l) was measured.

    Raises:
        DamagedError: if it is not what the settings and the tokens of the run give.
    """
    settings, noted = run.analysis(task)["settings"], run.manifest["sets"][f"{task}/{rest_of(group)}"]
    per_token, sigma = settings.get("reduction", "token") == "token", settings.get("sigma", SIGMA)
    if not math.isclose(noted["sigma"], sigma_for(per_token, noted["tokens_mean"], sigma), rel_tol=1e-9):
        where = run.path / run.NOTE
        raise DamagedError(where, f"has another σ of {group} than its settings and tokens give", "analyze again")
    return float(noted["sigma"])


def overlap_table(run: Run, task: str, scores: Sequence[Scores] = (), shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Return overlap.csv: the Jaccard overlap |A ∩ B| / |A ∪ B| of every ordered pair of different groups.

    A and B are the ⌊share·P⌋ parameters with the largest D of each group, ties by index. `expected` is the overlap of
    two such sets drawn independently: they would have k²/P of their k parameters in common. Arguments and errors are
    those of `specificity_table`, but that the scores are those of these shares of the parameters.
    """
    groups = run.groups(task)
    count = sum(parameter.numel for parameter in run.parameters)
    common = np.zeros((len(shares), len(groups), len(groups)))
    found = scores or scores_of(run, task, shares=shares)
    for masks in zip(*(_tops(run, task, of) for of in found), strict=True):
        words = np.stack(masks, axis=1)
        # 64 parameters at a time: one by one, every pair of groups would cost as much as reading them
        common += np.bitwise_count(words[:, :, None] & words[:, None]).sum(axis=-1)
    rows = [
        (task, share, first, second, _jaccard(of_share[a, b], size), _jaccard(size * size / count, size))
        for share, of_share in zip(shares, common, strict=True)
        for size in [math.floor(share * count)]
        for (a, first), (b, second) in itertools.permutations(enumerate(groups), 2)
    ]
    return OVERLAP.frame(rows)


def _tops(run: Run, task: str, scores: Scores) -> Iterator[NDArray[np.uint64]]:
    """Yield, chunk by chunk, which parameters are among the largest of D for each share: (shares, n/64), a bit each."""
    left = [ties for _, ties in scores.tops]
    for *_, score in specificities(run, task, scores.group):
        masks = [score > edge for edge, _ in scores.tops]
        for number, (edge, _) in enumerate(scores.tops):
            if left[number]:
                ties = np.flatnonzero(score == edge)[: left[number]]
                masks[number][ties] = True
                left[number] -= len(ties)
        bits = np.zeros((len(masks), -(-len(masks[0]) // 64) * 8), dtype=np.uint8)
        for row, mask in zip(bits, masks, strict=True):
            row[: -(-len(mask) // 8)] = np.packbits(mask)
        yield bits.view(np.uint64)


def _jaccard(common: float, size: int) -> float:
    return common / (2 * size - common) if size else np.nan
