from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensikit.run import MIXED, Run
from sensikit.statistics.spread import balance_table, distribution_table
from tests.support import handmade

SHAPES = {"a.weight": (6, 5), "a.bias": (7,), "b.weight": (4, 4), "scale": ()}
SIZE = 54
QUANTILES = {"q01": 0.01, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "q99": 0.99}


def table(run: handmade.Run) -> pd.DataFrame:
    return balance_table(run).set_index(["group", "statistic"])["value"].unstack()


def vectors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {name: rng.lognormal(-9, 2, SIZE).astype(np.float32) for name in ("nob", "cat")}
    found["cat"][::9] = 0
    return found


def test_balance_by_hand(tmp_path: Path) -> None:
    found = table(handmade.run(tmp_path / "run", {"cat": [0, 0, 0, 0, 0, 0, 0, 0, 4, 6]})).loc["cat"]
    assert found["mean"] == 1.0
    assert found["std"] == pytest.approx(np.sqrt(4.2), rel=1e-15)  # (8·1 + 9 + 25)/10, of the whole, not of a sample
    assert found["cv"] == found["std"]
    assert found["share_top10"] == 0.6
    assert found["zero_share"] == 0.8
    assert found["median"] == 0


@pytest.mark.parametrize("chunk", [1, 5, 1 << 18])
def test_table_equals_the_in_memory_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    monkeypatch.setattr("sensikit.statistics.ranks.HELD", chunk)  # all, or nothing
    own = vectors(1)
    found = table(handmade.run(tmp_path / "run", own, shapes=SHAPES))
    for code, vector in own.items():
        values = vector.astype(np.float64)
        expected = {
            "mean": values.mean(),
            "std": values.std(),
            "cv": values.std() / values.mean(),
            "zero_share": (values == 0).mean(),
            "share_top10": np.sort(values)[-5:].sum() / values.sum(),
            # of fewer than a hundred parameters, the top 1 % is none
            "mean_below_top1": values.mean(),
            "std_below_top1": values.std(),
            "cv_below_top1": values.std() / values.mean(),
            **{name: np.quantile(values, level) for name, level in QUANTILES.items()},
        }
        assert set(found.columns) == set(expected)
        for name, value in expected.items():
            assert found.at[code, name] == pytest.approx(value, rel=1e-12), name


def test_ties_at_the_edge_of_the_top_are_counted_as_often_as_they_fit(tmp_path: Path) -> None:
    # twenty parameters, so the top is two; three share the second place
    run = handmade.run(tmp_path / "run", {"cat": [8, 2, 2, 2, *[0] * 16]})
    assert table(run).at["cat", "share_top10"] == 10 / 14


def test_cv_and_share_top10_do_not_move_with_the_scale_of_the_loss_but_std_does(tmp_path: Path) -> None:
    own = vectors(2)
    one = table(handmade.run(tmp_path / "one", own, shapes=SHAPES))
    eight = table(handmade.run(tmp_path / "eight", {code: vector * 8 for code, vector in own.items()}, shapes=SHAPES))
    same = ["cv", "share_top10", "zero_share"]
    assert one[same].equals(eight[same])
    assert (one["std"] * 8).equals(eight["std"])


def test_permuting_the_parameters_leaves_the_balance_as_it_was(tmp_path: Path) -> None:
    own, order = vectors(3), np.random.default_rng(0).permutation(SIZE)
    before = table(handmade.run(tmp_path / "one", own, shapes=SHAPES))
    after = table(handmade.run(tmp_path / "two", {code: v[order] for code, v in own.items()}, shapes=SHAPES))
    pd.testing.assert_frame_equal(before, after, rtol=1e-12)


def test_a_language_without_any_sensitivity_has_undefined_shares_and_no_crash(tmp_path: Path) -> None:
    found = table(handmade.run(tmp_path / "run", {"cat": [0] * 20})).loc["cat"]
    assert found["zero_share"] == 1
    assert np.isnan(found["cv"])
    assert np.isnan(found["share_top10"])


def test_other_languages_and_the_mixed_set_do_not_enter(tmp_path: Path) -> None:
    own = vectors(4)
    before = table(handmade.run(tmp_path / "one", own, shapes=SHAPES))
    after = table(handmade.run(tmp_path / "two", {**own, "nob": own["nob"] * 4}, shapes=SHAPES, rest=vectors(9)))
    assert before.loc["cat"].equals(after.loc["cat"])
    assert list(after.index) == ["cat", "nob"]


# without the top 1 %

LONG = {"a.weight": (30, 10), "b.weight": (51,)}


def long(path: Path, seed: int = 5) -> tuple[Run, np.ndarray]:
    vector = np.random.default_rng(seed).lognormal(-9, 2, 351).astype(np.float32)
    return handmade.run(path, {"cat": vector}, shapes=LONG), vector.astype(np.float64)


@pytest.mark.parametrize("chunk", [4, 1 << 18])
def test_below_the_top_is_without_the_largest_hundredth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    monkeypatch.setattr("sensikit.statistics.ranks.HELD", chunk)  # all, or nothing
    run, values = long(tmp_path / "run")
    kept = np.sort(values)[:-3]  # 1 % of 351 is three and a half
    found = table(run).loc["cat"]
    assert found["mean_below_top1"] == pytest.approx(kept.mean(), rel=1e-12)
    assert found["std_below_top1"] == pytest.approx(kept.std(), rel=1e-12)
    assert found["cv_below_top1"] == pytest.approx(kept.std() / kept.mean(), rel=1e-12)


def test_ties_at_the_top_are_left_out_as_often_as_they_fit(tmp_path: Path) -> None:
    # of two hundred the top is two; three share the first place, so one of them stays
    run = handmade.run(tmp_path / "run", {"cat": [8, 8, 8, *[1] * 197]})
    assert table(run).at["cat", "mean_below_top1"] == pytest.approx(205 / 198, rel=1e-14)
    counts = distribution_table(run, "mt")["count"]
    assert counts.sum() == 198
    assert counts.iloc[-1] == 1


@pytest.mark.parametrize("chunk", [4, 1 << 18])
def test_distribution_is_the_histogram_of_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    monkeypatch.setattr("sensikit.statistics.ranks.HELD", chunk)  # all, or nothing
    run, values = long(tmp_path / "run")
    kept = np.sort(values)[:-3]
    counts, edges = np.histogram(kept, bins=100, range=(0, kept.max()))
    found = distribution_table(run, "mt")
    assert found["count"].tolist() == counts.tolist()
    np.testing.assert_allclose(found["low"], edges[:-1], rtol=1e-15)
    np.testing.assert_allclose(found["high"], edges[1:], rtol=1e-15)
    assert found["count"].sum() == 348


def test_a_language_whose_sensitivities_are_all_zero_has_no_histogram(tmp_path: Path) -> None:
    run = handmade.run(tmp_path / "run", {"cat": [0] * 20, "nob": [1] * 20})
    assert set(distribution_table(run, "mt")["group"]) == {"nob"}


def test_the_mixed_batches_stand_beside_the_languages_where_there_are_some(tmp_path: Path) -> None:
    run, values = long(tmp_path / "run")
    assert list(table(run).index) == ["cat"]
    run.write_set("mt", MIXED, {"": handmade.shaped(run.parameters, values * 4)}, {})
    found = table(run)
    assert list(found.index) == sorted(["cat", MIXED])
    assert found.at[MIXED, "mean"] == pytest.approx(4 * found.at["cat", "mean"], rel=1e-6)
    assert set(distribution_table(run, "mt")["group"]) == {"cat", MIXED}
