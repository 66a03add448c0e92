"""Pearson correlation of sensitivities between languages, for the most sensitive 10 % of the parameters and the rest.

With each correlation stand its noise ceiling, from two sentence-disjoint halves of the batches, and its interval over
batches, from the stored block means. Neither reads the data again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.parameters import sample_of
from sensikit.run import Run
from sensikit.statistics.noise import Set, interval, left_out
from sensikit.statistics.streaming import Float, Keys, Moments, keys, selected, smallest

HIGH = 0.1
"""The share of the parameters in the high subset (section 3.2 of the paper)."""

SUBSETS = ("all", "high", "low")

COLUMNS = (
    "task",
    "subset",
    "group_a",
    "group_b",
    "pcc",
    "pcc_low",
    "pcc_high",
    "ceiling",
    "disattenuated",
    "reliability_a",
    "reliability_b",
    "parameters",
)

Masks = Callable[[], Iterator[NDArray[np.bool_]]]
"""A stream of masks over the parameters, chunk by chunk as `Run.stream` yields them."""


@dataclass(frozen=True)
class Correlation:
    """What the vectors of N sets say over one subset of the parameters: their PCC (N, N), and the reliability r (N,).

    r is the PCC between the two halves of one set, stepped up to its full number of batches (Spearman-Brown).
    """

    pcc: Float
    reliability: Float
    parameters: int

    @property
    def ceiling(self) -> Float:
        """The noise ceiling of each pair, √(r_a·r_b), (N, N)."""
        root = np.sqrt(np.maximum(self.reliability, 0))
        return np.outer(root, root)

    @property
    def disattenuated(self) -> Float:
        """The PCC over its ceiling, (N, N); undefined where the ceiling is 0."""
        return np.divide(self.pcc, self.ceiling, out=np.full_like(self.pcc, np.nan), where=self.ceiling > 0)


def correlation_table(run: Run, task: str = "mt", high: float = HIGH) -> pd.DataFrame:
    """Return the PCC of every ordered pair of languages in each subset, tidy.

    The high subset is the share `high` of the parameters with the largest mean over languages of S_l scaled to sum
    one: one set for every pair. `ceiling` is √(r_a·r_b), r the PCC between the two halves of one language, stepped
    up to the full number of batches (Spearman-Brown, 2r/(1+r)). `disattenuated` is pcc / ceiling, the estimate of the
    PCC of endless batches: as it comes out, which may be above 1. `pcc_low` and `pcc_high` bound the PCC at 95 % over
    batches (see `sensikit.statistics.noise`).
    """
    languages = run.groups(task)
    sets = [(task, language) for language in languages]
    masks = high_subset(run, task, high)
    without = left_out(run, sets, in_sample(run, masks()))
    rows = []
    for subset, found in correlations(run, sets, masks()).items():
        low, upper = interval(found.pcc, without[subset])
        for a, first in enumerate(languages):
            for b, second in enumerate(languages):
                # of a language with itself, over the same batches, there is nothing to bound or to correct
                noise = (low[a, b], upper[a, b], found.ceiling[a, b], found.disattenuated[a, b])
                if a == b:
                    noise = (np.nan, np.nan, found.ceiling[a, b], np.nan)
                pair = (found.reliability[a], found.reliability[b])
                rows.append((task, subset, first, second, found.pcc[a, b], *noise, *pair, found.parameters))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def correlations(run: Run, sets: Sequence[Set], masks: Iterable[NDArray[np.bool_]]) -> dict[str, Correlation]:
    """Return the correlations between sets by subset, in one pass.

    Args:
        run: with the vectors and the halves of the sets.
        sets: N of them.
        masks: which parameters are in the high subset, of the stream `high_subset` returns.
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
    """Return a stream of which parameters are in the high subset of a task: ⌊high·P⌋ of them, ties by index."""
    vectors = [run.vector(task, language) for language in run.groups(task)]
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
    """Return which of the M parameters with block means the masks take, (M,) bool."""
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

SIMILARITY_COLUMNS = ("task_a", "task_b", "subset", "group", "pcc", "pcc_low", "pcc_high", "ceiling")


def similarity_table(run: Run, high: float = HIGH) -> pd.DataFrame:
    """Return the PCC between S of the two tasks for each language that has both, tidy; empty where none has.

    The high subset is that of translation, over all its languages, so that it is the one of correlation.csv.
    `ceiling` is √(r_mt·r_denoise), r the reliability of each task's S; `pcc_low` and `pcc_high` bound the PCC at 95 %
    over batches (see `sensikit.statistics.noise`).
    """
    first, second = TASKS
    languages = [code for code in run.groups(first) if code in run.groups(second)]
    if not languages:
        return pd.DataFrame(columns=list(SIMILARITY_COLUMNS))
    masks = high_subset(run, first, high)
    is_high = in_sample(run, masks())
    found = correlations(run, [(task, code) for task in TASKS for code in languages], masks())
    rows = []
    for a, code in enumerate(languages):
        b = a + len(languages)
        without = left_out(run, [(first, code), (second, code)], is_high)
        for subset, of in found.items():
            low, upper = interval(of.pcc[a, b], without[subset][:, 0, 1])
            rows.append((first, second, subset, code, of.pcc[a, b], float(low), float(upper), of.ceiling[a, b]))
    return pd.DataFrame(rows, columns=list(SIMILARITY_COLUMNS))
