from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensikit.errors import RunError
from sensikit.sensitivity.taylor import blocks_of
from sensikit.statistics.correlation import correlation_table
from tests.support import handmade
from tests.support.batched import CODES, SHAPES, SIZE, batches, groups_of, high_of


def table(run: handmade.Run, **options: float) -> pd.DataFrame:
    return correlation_table(run, **options).set_index(["subset", "group_a", "group_b"]).sort_index()


# the correlation itself


@pytest.mark.parametrize("chunk", [1, 6, 1 << 18])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_pcc_is_that_of_the_concatenated_vectors_in_every_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, share: float
) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    run = handmade.run_of_batches(tmp_path / "run", batches(1), shapes=SHAPES)
    stored = {code: handmade.flat(run, code).astype(np.float64) for code in CODES}
    found = table(run, high=share)
    assert len(found) == 3 * 9
    for subset, members in groups_of(list(stored.values()), share).items():
        for a, b in itertools.product(CODES, repeat=2):
            expected = np.corrcoef(stored[a][members], stored[b][members])[0, 1]
            assert found.at[(subset, a, b), "pcc"] == pytest.approx(expected, abs=1e-12)
            assert found.at[(subset, a, b), "parameters"] == members.sum()


def test_high_group_is_one_common_set_of_a_tenth_rounded_down(tmp_path: Path) -> None:
    run = handmade.run_of_batches(tmp_path / "run", batches(2), shapes=SHAPES)
    counts = table(run)["parameters"].unstack("subset")
    assert (counts["high"] == 7).all()
    assert (counts["low"] == 64).all()
    assert (counts["all"] == 71).all()


def test_high_group_does_not_move_with_the_scale_of_one_language(tmp_path: Path) -> None:
    drawn = batches(3)
    vectors = {code: rows.mean(axis=0).astype(np.float32) for code, rows in drawn.items()}
    unscaled = np.argsort(-np.mean(list(vectors.values()), axis=0))[:7]
    assert set(unscaled) != set(np.flatnonzero(high_of(list(vectors.values())))), "the fixture must tell them apart"
    one = table(handmade.run_of_batches(tmp_path / "one", drawn, shapes=SHAPES))
    two = table(handmade.run_of_batches(tmp_path / "two", {**drawn, "fur": drawn["fur"] / 1024}, shapes=SHAPES))
    pd.testing.assert_frame_equal(one, two, rtol=1e-12)


def test_ties_at_the_edge_of_the_high_group_go_by_index(tmp_path: Path) -> None:
    # three of thirty are high: parameter 0, and two of those at 2, 4 and 6, whose mean is the same. All sums are 64
    places, rest = [0, 2, 4, 6], [2.0] * 4 + [1.0] * 22
    cat, fur = np.empty(30), np.empty(30)
    for vector, values in ((cat, [16, 8, 4, 6]), (fur, [16, 4, 8, 6])):
        vector[places], vector[np.setdiff1d(np.arange(30), places)] = values, rest
    assert cat.sum() == fur.sum() == 64
    first, other = (np.corrcoef(cat[chosen], fur[chosen])[0, 1] for chosen in ([0, 2, 4], [0, 2, 6]))
    assert abs(first - other) > 0.01, "the fixture must tell them apart"
    found = table(handmade.run(tmp_path / "run", {"cat": cat, "fur": fur}))
    assert found.at[("high", "cat", "fur"), "pcc"] == pytest.approx(first, abs=1e-12)


def test_the_same_batches_under_two_names_correlate_perfectly(tmp_path: Path) -> None:
    rows = batches(4)["cat"]
    found = table(handmade.run_of_batches(tmp_path / "run", {"cat": rows, "nob": rows}, shapes=SHAPES))
    assert found["pcc"].to_numpy() == pytest.approx(np.ones(len(found)), abs=1e-14)


def test_scaling_the_loss_leaves_every_number_as_it_was(tmp_path: Path) -> None:
    drawn = batches(5)
    one = table(handmade.run_of_batches(tmp_path / "one", drawn, shapes=SHAPES))
    two = table(handmade.run_of_batches(tmp_path / "two", {c: 64 * rows for c, rows in drawn.items()}, shapes=SHAPES))
    logs = [each.pop("log_pcc") for each in (one, two)]  # log 64 is no number that a float has
    pd.testing.assert_series_equal(*logs, rtol=1e-9)
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_permuting_the_parameters_leaves_every_number_as_it_was(tmp_path: Path) -> None:
    drawn, order = batches(6), np.random.default_rng(0).permutation(SIZE)
    one = table(handmade.run_of_batches(tmp_path / "one", drawn, shapes=SHAPES))
    permuted = {code: rows[:, order] for code, rows in drawn.items()}
    two = table(handmade.run_of_batches(tmp_path / "two", permuted, shapes=SHAPES))
    pd.testing.assert_frame_equal(one, two, rtol=1e-9)


def test_a_constant_language_has_no_correlation_and_does_not_crash(tmp_path: Path) -> None:
    rows = batches(7)["cat"]
    constant = np.ones_like(rows)
    found = table(handmade.run_of_batches(tmp_path / "run", {"cat": rows, "nob": constant}, shapes=SHAPES))
    assert found.loc[("all", "cat", "nob"), ["pcc", "pcc_low", "ceiling", "corrected", "spearman"]].isna().all()
    assert found.at[("all", "cat", "cat"), "pcc"] == 1


# the noise ceiling


def test_ceiling_by_hand_is_what_two_halves_share(tmp_path: Path) -> None:
    # cat: halves (1,2,3,4) and (2,1,4,3) have the covariance 0.6 of their variance, and their mean 0.8: 0.75 of it
    # nob: halves (1,2,3,4) and (1,3,2,4) 0.8, and their mean 0.9: 1.6/1.8
    first = {"cat": [1.0, 2, 3, 4], "nob": [1.0, 2, 3, 4]}
    whole = {"cat": [1.5, 1.5, 3.5, 3.5], "nob": [1.0, 2.5, 2.5, 4]}
    found = table(handmade.run(tmp_path / "run", whole, halves=first)).loc["all"]
    assert found.at[("cat", "nob"), "reliability_a"] == pytest.approx(0.75, rel=1e-12)
    assert found.at[("cat", "nob"), "reliability_b"] == pytest.approx(1.6 / 1.8, rel=1e-12)
    assert found.at[("cat", "nob"), "ceiling"] == pytest.approx(np.sqrt(0.75 * 1.6 / 1.8), rel=1e-12)
    assert found.at[("nob", "cat"), "reliability_a"] == pytest.approx(1.6 / 1.8, rel=1e-12)
    assert found.at[("cat", "cat"), "ceiling"] == pytest.approx(0.75, rel=1e-12)
    assert found.at[("cat", "cat"), "pcc"] == 1


def test_second_half_is_rebuilt_from_the_whole_by_batch_counts(tmp_path: Path) -> None:
    # one batch of three in the first half: whole = (first + 2·second)/3, whose variance is (1 + 4 + 4·0.6)/9 of that of
    # a half; taking whole − first instead gives another covariance than 0.6
    first, second = np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 4, 3])
    whole = {"cat": (first + 2 * second) / 3, "nob": (first + 2 * first) / 3}
    counts = {code: (3, 1, [1, 2]) for code in whole}
    blocks = {code: np.stack([first, second]) for code in whole}
    run = handmade.run(tmp_path / "run", whole, halves={"cat": first, "nob": first}, counts=counts, blocks=blocks)
    assert table(run).at[("all", "cat", "nob"), "reliability_a"] == pytest.approx(0.6 * 9 / 7.4, rel=1e-6)


def test_ceiling_of_every_group_is_that_of_its_own_parameters(tmp_path: Path) -> None:
    drawn = batches(8)
    run = handmade.run_of_batches(tmp_path / "run", drawn, shapes=SHAPES)
    found = table(run)
    members = groups_of([handmade.flat(run, code) for code in CODES])
    for code, rows in drawn.items():
        middle = int(np.cumsum(blocks_of(len(rows)))[9]) if len(rows) >= 20 else len(rows) // 2
        first, second = rows[:middle].mean(axis=0), rows[middle:].mean(axis=0)
        for subset, inside in members.items():
            shared = np.cov(first[inside], second[inside])[0, 1] / np.var(rows.mean(axis=0)[inside], ddof=1)
            assert found.at[(subset, code, code), "reliability_a"] == pytest.approx(shared, abs=1e-5)


def test_ceiling_of_a_language_that_does_not_agree_with_itself_is_zero_not_imaginary(tmp_path: Path) -> None:
    halves = {"cat": [2.0, 1, 3, 4], "nob": [1.0, 2, 3, 4]}
    whole = {"cat": [2.5, 2, 2.5, 3], "nob": [1.0, 2, 3, 4]}  # cat's other half is (3, 3, 2, 2), r < 0
    found = table(handmade.run(tmp_path / "run", whole, halves=halves))
    assert found.at[("all", "cat", "nob"), "reliability_a"] < 0
    assert found.at[("all", "cat", "nob"), "ceiling"] == 0


# the correlation without the noise


def test_the_corrected_pcc_by_hand_may_exceed_one(tmp_path: Path) -> None:
    # reliabilities 0.75 and 1.6/1.8 as above; the PCC of (1.5, 1.5, 3.5, 3.5) and (1, 2.5, 2.5, 4) is 3/√18
    first = {"cat": [1.0, 2, 3, 4], "nob": [1.0, 2, 3, 4]}
    whole = {"cat": [1.5, 1.5, 3.5, 3.5], "nob": [1.0, 2.5, 2.5, 4]}
    found = table(handmade.run(tmp_path / "run", whole, halves=first)).loc["all"]
    assert found.at[("cat", "nob"), "pcc"] == pytest.approx(3 / np.sqrt(18), rel=1e-12)
    assert found.at[("cat", "nob"), "corrected"] == pytest.approx(3 / np.sqrt(18 * 0.75 * 1.6 / 1.8), rel=1e-12)
    # the same numbers under another name: no noise between the two, for all that there is in each
    whole["fur"], first["fur"] = whole["nob"], first["nob"]
    again = table(handmade.run(tmp_path / "alike", whole, halves=first)).loc["all"]
    assert again.at[("fur", "nob"), "corrected"] == pytest.approx(1.8 / 1.6, rel=1e-12)


def test_of_a_language_with_itself_or_without_a_ceiling_nothing_is_corrected(tmp_path: Path) -> None:
    halves = {"cat": [2.0, 1, 3, 4], "nob": [1.0, 2, 3, 4]}
    whole = {"cat": [2.5, 2, 2.5, 3], "nob": [1.0, 2, 3, 4]}  # cat does not agree with itself: the ceiling is 0
    found = table(handmade.run(tmp_path / "run", whole, halves=halves)).loc["all"]
    assert found["ceiling"].notna().all()
    assert found[["corrected", "corrected_low", "corrected_high"]].isna().all(axis=None)
    assert not np.isnan(found.at[("cat", "nob"), "pcc"])


def test_the_share_of_the_high_group_is_that_of_the_analysis_unless_another_is_asked_for(tmp_path: Path) -> None:
    run = handmade.run_of_batches(tmp_path / "run", batches(1), shapes=SHAPES)
    run.analysis()["settings"]["high"] = 0.3
    assert set(table(run)["parameters"]["high"]) == {21}
    assert set(table(run, high=0.2)["parameters"]["high"]) == {14}
    run.analysis()["settings"]["high"] = "much"
    with pytest.raises(RunError, match="was analysed with 'much'"):
        table(run)
