"""How often a 95 % interval holds the truth, by simulation: what endless batches would give.

Each measurement draws its own border between the subsets, as a real one does; the truth has the border of the truth.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sensikit.run import Run
from sensikit.statistics.comparison import correlation_difference
from sensikit.statistics.correlation import correlation_table
from sensikit.statistics.noise import fisher
from tests.support.batched import groups_of
from tests.support.simulated import LANGUAGES, measured, models

PAIR = LANGUAGES[:2]


def single(run: Run, truth: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return estimate, ends and truth of the corrected PCC; the truth of the PCC of these batches is not known."""
    table = correlation_table(run).set_index(["group_a", "group_b", "subset"]).sort_index().loc[PAIR]
    found = {}
    for subset, inside in groups_of(list(truth)).items():
        row, true = table.loc[subset], np.corrcoef(truth[0, inside], truth[1, inside])[0, 1]
        found[f"corrected {subset}"] = (*row[["corrected", "corrected_low", "corrected_high"]], true)
        ends = fisher(row[["pcc", "pcc_low", "pcc_high"]].to_numpy(dtype=float))
        found |= {f"observed {subset}": (*ends, np.arctanh(true)), f"repeated {subset}": (*ends, np.nan)}
    return found


def difference(runs: list[Run], truth: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return estimate, ends and truth of the difference of two models, of a pair and of the mean over pairs."""
    table = correlation_difference(*runs).set_index(["group_a", "group_b", "subset"]).sort_index()
    found = {}
    for subset, inside in groups_of(list(truth.reshape(-1, truth.shape[-1]))).items():
        pccs = [np.corrcoef(model[:, inside]) for model in truth]
        changes = [(pccs[1] - pccs[0])[pair] for pair in combinations(range(len(LANGUAGES)), 2)]
        for name, key, true in (("pair", PAIR, changes[0]), ("mean", ("", ""), np.mean(changes))):
            row = table.loc[(*key, subset), ["difference", "difference_low", "difference_high"]]
            found[f"{name} {subset}"] = (*row, true)
    return found


def simulated(count: int, shape: tuple[int, int], together: bool = True) -> dict[str, np.ndarray]:
    """Return what was measured, by name: (pairs of models, trials of each, 4): estimate, ends of its interval, truth.

    Coverage differs between models more than by chance, so one pair of models would not do.
    """
    rng = np.random.default_rng(count)
    found: dict[str, list[tuple[float, ...]]] = {}
    for _ in range(shape[0]):
        truth = models(rng)
        for _ in range(shape[1]):
            runs: list[Run] = list(measured(rng, truth, count, together))
            for name, ends in {**single(runs[0], truth[0]), **difference(runs, truth)}.items():
                found.setdefault(name, []).append(ends)
    return {name: np.array(rows).reshape(*shape, 4) for name, rows in found.items()}


def hits(rows: np.ndarray, share: float = 1.0) -> int:
    """Return how many intervals, shrunk to `share` of their width, hold the truth.

    Where it is not known, it is the mean of their models' estimates: what as many other batches would give on average.
    """
    found, truth = rows[..., 0], rows[..., 3]
    target = np.where(np.isnan(truth), found.mean(axis=1, keepdims=True), truth)
    low, high = (found + share * (rows[..., end] - found) for end in (1, 2))
    return int(((low <= target) & (target <= high)).sum())


def too_few(found: int, trials: int, least: float = 0.93) -> bool:
    """Return whether so few hits would come of a coverage of `least` less than once in a thousand times."""
    return bool(stats.binom.cdf(found, trials, least) < 0.001)


def test_intervals_cover_the_truth_in_a_small_simulation() -> None:
    shape, trials = (2, 12), 24
    found = simulated(200, shape)
    wrong = {name for name, rows in found.items() if too_few(hits(rows), trials)}
    # the interval of the PCC of these batches is of what other batches would give, and the truth is higher
    assert wrong == {"observed all", "observed high", "observed low"}
    # and so few trials can tell: intervals of a quarter of the width would be caught
    assert all(too_few(hits(rows, 1 / 4), trials) for rows in found.values())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("together", [True, False], ids=["paired", "unpaired"])
@pytest.mark.parametrize("count", [40, 200])
def test_coverage_over_a_thousand_trials(count: int, together: bool, record_property: pytest.RecordProperty) -> None:
    shape, trials = (20, 50), 1000
    found = simulated(count, shape, together=together)
    coverage = {name: hits(rows) / trials for name, rows in found.items()}
    record_property("coverage", coverage)
    print(pd.Series(coverage))
    of_truth = {name: rows for name, rows in found.items() if not name.startswith("observed")}
    assert not any(too_few(hits(rows), trials) for rows in of_truth.values()), coverage
