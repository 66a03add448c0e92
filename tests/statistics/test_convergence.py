from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sensikit.figures.conclusions import enough
from sensikit.sensitivity.taylor import blocks_of
from sensikit.statistics.convergence import convergence_table, needed, reliability
from sensikit.statistics.streaming import Moments
from tests.support import handmade
from tests.support.batched import CODES, SHAPES, batches, groups_of

KEY = ["subset", "group", "batches"]


def over_all_ways(means: np.ndarray, size: int) -> float:
    """Draw two disjoint sets of `size` blocks in every way: the mean covariance of the two over their mean variance."""
    covariance, variance = [], []
    for first in itertools.combinations(range(len(means)), size):
        for second in itertools.combinations(sorted(set(range(len(means))) - set(first)), size):
            c = np.cov(means[list(first)].mean(axis=0), means[list(second)].mean(axis=0), ddof=0)
            covariance.append(c[0, 1])
            variance += [c[0, 0], c[1, 1]]
    return float(np.mean(covariance) / np.mean(variance))


def moments_of(means: np.ndarray) -> Moments:
    moments = Moments.zero(len(means))
    moments.add(means)
    return moments


def test_reliability_by_hand() -> None:
    # two blocks of a batch each: covariance 0.6 of a variance of 1, so 0.6; of twice as many 1.2/1.6
    found = reliability(moments_of(np.array([[1.0, 2, 3, 4], [2.0, 1, 4, 3]])), np.array([1, 1]), [1, 2])
    assert found == pytest.approx([0.6, 0.75], rel=1e-12)


def test_reliability_is_the_mean_over_every_way_of_drawing_two_disjoint_sets() -> None:
    means = batches(1, ("cat",), (6,))["cat"]
    found = reliability(moments_of(means), np.ones(6), [1, 2, 3])
    assert found == pytest.approx([over_all_ways(means, size) for size in (1, 2, 3)], rel=1e-12)


def test_reliability_is_the_pcc_that_two_fresh_sets_of_batches_have() -> None:
    rng = np.random.default_rng(2)
    truth = rng.lognormal(0, 1, 3000)

    def drawn(count: int) -> np.ndarray:
        return truth * rng.exponential(1, (count, 3000))

    found = [reliability(moments_of(drawn(20)), np.ones(20), [5])[0] for _ in range(30)]
    fresh = [np.corrcoef(drawn(5).mean(axis=0), drawn(5).mean(axis=0))[0, 1] for _ in range(60)]
    error = np.hypot(np.std(found) / np.sqrt(30), np.std(fresh) / np.sqrt(60))
    assert abs(np.mean(found) - np.mean(fresh)) < 4 * error
    assert error < 0.01, "tells apart what matters"


def test_blocks_of_unequal_size_do_not_lean_the_estimate(tmp_path: Path) -> None:
    # thirty batches in twenty blocks: ten of one batch, ten of two
    rng = np.random.default_rng(3)
    rows = rng.lognormal(0, 1, 5000) * rng.exponential(1, (30, 5000))
    layout = blocks_of(30)
    means = np.stack([part.mean(axis=0) for part in np.split(rows, np.cumsum(layout)[:-1])])
    one_by_one = reliability(moments_of(rows), np.ones(30), [1, 10])
    in_blocks = reliability(moments_of(means), np.array(layout), [1, 10])
    assert in_blocks == pytest.approx(one_by_one, abs=0.01)
    assert abs(reliability(moments_of(means), np.full(20, 1.5), [1])[0] - one_by_one[0]) > 0.015, "tells them apart"


@pytest.mark.parametrize("step", [4, 1 << 16])
def test_table_is_the_obvious_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr("sensikit.statistics.noise.CACHED", 1)
    monkeypatch.setattr("sensikit.statistics.noise.LEAST", step)
    drawn = batches(4)
    run = handmade.run_of_batches(tmp_path / "run", drawn, shapes=SHAPES)
    found = convergence_table(run, "mt").set_index(KEY)
    assert (found.groupby(["subset", "group"]).size() == 10).all()
    for subset, inside in groups_of([handmade.flat(run, code) for code in CODES]).items():
        # forty batches of nob in twenty blocks of two
        means = drawn["nob"].reshape(20, 2, -1).mean(axis=1)[:, inside]
        for size in (1, 7, 10):
            row = found.loc[(subset, "nob", 2 * size)]
            without = [obvious(np.delete(means, block, axis=0), size) for block in range(20)]
            z = np.arctanh(without)
            width = stats.t.ppf(0.975, 19) * np.sqrt(19 / 20 * ((z - z.mean()) ** 2).sum())
            assert row["reliability"] == pytest.approx(obvious(means, size), rel=1e-4)
            assert np.arctanh(row["reliability_high"]) - np.arctanh(row["reliability"]) == pytest.approx(
                width, rel=1e-3
            )
            assert np.arctanh(row["reliability"]) - np.arctanh(row["reliability_low"]) == pytest.approx(width, rel=1e-3)


def obvious(means: np.ndarray, size: int) -> float:
    """Spearman and Brown's formula from the mean covariance and the mean variance of blocks of one size."""
    c = np.cov(means, ddof=0)
    one = c[~np.eye(len(c), dtype=bool)].mean() / np.diag(c).mean()
    return float(size * one / (1 + (size - 1) * one))


def test_a_language_of_few_batches_has_fewer_points_and_no_crash(tmp_path: Path) -> None:
    drawn = batches(5, CODES, (40, 12, 2))
    run = handmade.run_of_batches(tmp_path / "run", drawn, shapes=SHAPES)
    found = convergence_table(run, "mt").set_index(KEY).sort_index()
    assert list(found.loc[("low", "cat")].index) == [1, 2, 3, 4, 5, 6]
    assert list(found.loc[("low", "fur")].index) == [1]
    assert found.loc[("low", "cat")].notna().all(axis=None)
    # of two blocks, none can be left out
    assert np.isnan(found.at[("low", "fur", 1), "reliability_low"])
    assert not np.isnan(found.at[("low", "fur", 1), "reliability"])


def test_constant_or_identical_blocks_have_no_interval_and_do_not_crash(tmp_path: Path) -> None:
    run = handmade.run(tmp_path / "run", {"cat": [1, 2, 3, 4], "nob": [1, 1, 1, 1]})
    found = convergence_table(run, "mt").drop(columns="task").set_index(KEY).loc["all"]
    assert found.at[("cat", 1), "reliability"] == 1
    assert found.loc["nob"].isna().all(axis=None)


def frame(**reliabilities: float) -> pd.DataFrame:
    rows = [
        ("mt", "low", code, batches, value if batches == 20 else value / 2)
        for code, value in reliabilities.items()
        for batches in (10, 20)
    ]
    return pd.DataFrame(rows, columns=["task", "subset", "group", "batches", "reliability"])


def test_batches_needed_by_hand() -> None:
    # 0.9 of twenty, so 1.8/1.9 of forty; 0.95 takes 20·(0.1/0.9)·(0.95/0.05) = 42.2, 0.99 takes 220
    found = needed(frame(cat=0.9)).iloc[0]
    assert found["batches"] == 40
    assert found["reliability"] == pytest.approx(1.8 / 1.9, rel=1e-12)
    assert (found["0.95"], found["0.99"]) == (43, 220)


def test_no_number_of_batches_helps_where_nothing_agrees() -> None:
    found = needed(frame(cat=0.9, nob=-0.1))
    assert found[["reliability", "0.95", "0.99"]].isna().loc[1].all()
    assert found["reliability"].notna().loc[0]
    assert "would not agree at all" in enough(frame(nob=-0.1))


def test_answer_names_the_groups_that_need_more() -> None:
    text = enough(frame(cat=0.999, nob=0.96, fao=0.9))
    assert "0.947 (fao, 40 batches) to 0.999 (cat, 40 batches)" in text
    assert "for 0.95 they are too few for fao (needed: 43)" in text
    assert text.endswith("for 0.99 they are enough for cat alone (needed by the others: nob 83 to fao 220)")
    none = enough(frame(nob=0.96, fao=0.9, isl=0.9))  # and no list of them all
    assert none.endswith("for 0.99 they are too few for every group (needed: nob 83 to isl 220)")
    assert enough(frame(cat=0.999)).endswith("for 0.99 they are enough for every group")
