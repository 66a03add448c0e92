from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sensikit.settings import SIGMA
from sensikit.statistics.specificity import sigma_for, specificity, specificity_table
from tests.support import handmade

SCORES = arrays.arrays(np.float32, 12, elements=st.floats(0, 1, width=32))
SHAPES = {"a.weight": (5, 4), "a.bias": (3,), "b.weight": (2, 3, 2), "scale": ()}
SIZE = 36
QUANTILES = {"q01": 0.01, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "q99": 0.99}


def table(run: handmade.Run) -> pd.DataFrame:
    return specificity_table(run).set_index(["group", "statistic"])["value"].unstack()


def vectors(seed: int, *names: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.lognormal(-9, 2, SIZE).astype(np.float32) for name in names}


def test_equation_4_by_hand() -> None:
    own = np.array([3, 1, 0, 2, 0.5], dtype=np.float32)
    rest = np.array([1, 1, 0, 4, 0], dtype=np.float32)
    assert specificity(own, rest, 1.0).tolist() == [1.0, 0.0, 0.0, -0.4, 0.5]


def test_specificity_keeps_its_sign() -> None:
    # the authors' commented alternative takes |S_l − S_-l|, which cannot tell a language's own from the others'
    below = specificity(np.float32([1e-6]), np.float32([3e-6]), 1e-12)
    above = specificity(np.float32([3e-6]), np.float32([1e-6]), 1e-12)
    assert below[0] < 0 < above[0]
    assert below[0] >= -1


def test_a_difference_of_one_float32_step_is_not_lost() -> None:
    rest = np.float32([1.0])
    own = np.nextafter(rest, np.float32(2))
    assert specificity(own, rest, SIGMA).dtype == np.float64
    assert specificity(own, rest, SIGMA)[0] == 2.0**-23 / (1 + SIGMA)


def test_sigma_of_the_paper_belongs_to_a_summed_loss_and_is_divided_by_the_tokens() -> None:
    assert sigma_for(per_token=False, tokens=4096) == 1e-8
    assert sigma_for(per_token=True, tokens=4096) == 1e-8 / 4096
    assert sigma_for(per_token=True, tokens=100, sigma=3e-5) == pytest.approx(3e-7, rel=1e-15)


@given(SCORES, SCORES, st.integers(0, 14))
def test_dividing_loss_and_sigma_by_the_tokens_leaves_specificity_as_it_was(
    own: np.ndarray, rest: np.ndarray, power: int
) -> None:
    tokens = 2**power  # exact in binary, and so is the equality
    own, rest = own.astype(np.float64), rest.astype(np.float64)
    summed = specificity(own, rest, sigma_for(False, tokens, 2.0**-20))
    per_token = specificity(own / tokens, rest / tokens, sigma_for(True, tokens, 2.0**-20))
    assert np.array_equal(summed, per_token)


@given(SCORES, st.permutations(range(12)))
def test_permuting_the_parameters_permutes_specificity(own: np.ndarray, order: list[int]) -> None:
    rest = own[::-1].copy()
    assert np.array_equal(specificity(own, rest, 1e-3)[order], specificity(own[order], rest[order], 1e-3))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_table_equals_the_in_memory_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    monkeypatch.setattr("sensikit.statistics.ranks.HELD", 1 << 30 if chunk == 7 else 0)
    own, rest = vectors(1, "nob", "cat"), vectors(2, "nob", "cat")
    rest["cat"][:4] = own["cat"][:4]
    sigma = {"nob": 1e-7, "cat": 3e-6}
    found = table(handmade.run(tmp_path / "run", own, rest, shapes=SHAPES, sigma=sigma))
    assert sorted(found.index) == ["cat", "nob"]
    for code in own:
        other = rest[code].astype(np.float64)
        score = (own[code].astype(np.float64) - other) / (other + sigma[code])
        assert found.at[code, "sigma"] == sigma[code]
        assert found.at[code, "mean"] == pytest.approx(score.mean(), rel=1e-12)
        assert found.at[code, "share_positive"] == (score > 0).mean()
        assert found.at[code, "share_ties_at_zero"] == (score == 0).mean()
        assert found.at[code, "share_small_denominator"] == (other < 10 * sigma[code]).mean()
        for name, level in QUANTILES.items():
            assert found.at[code, name] == pytest.approx(np.quantile(score, level), rel=1e-12), name
    assert found.at["cat", "share_ties_at_zero"] == 4 / SIZE


def test_share_small_denominator_is_below_ten_sigma_of_the_others(tmp_path: Path) -> None:
    sigma = 2.0**-10  # ten of it is exact in float32
    rest = [9.9 * sigma, 10 * sigma, 10.1 * sigma, 0, 1]
    run = handmade.run(tmp_path / "run", {"cat": [0] * 5}, {"cat": rest}, sigma=sigma)
    assert table(run).at["cat", "share_small_denominator"] == 2 / 5


def test_ties_at_zero_are_counted_and_neither_positive_nor_negative(tmp_path: Path) -> None:
    run = handmade.run(tmp_path / "run", {"cat": [0, 2, 3, 1, 5]}, {"cat": [0, 2, 1, 3, 5]})
    found = table(run)
    assert found.at["cat", "share_ties_at_zero"] == 3 / 5
    assert found.at["cat", "share_positive"] == 1 / 5


def test_the_same_vector_for_a_language_and_the_others_is_zero_everywhere(tmp_path: Path) -> None:
    own = vectors(3, "cat", "nob")
    found = table(handmade.run(tmp_path / "run", own, rest=own, shapes=SHAPES))
    zero = found[["mean", "share_positive", "q01", "median", "q99"]]
    assert (zero == 0).all(axis=None)
    assert (found["share_ties_at_zero"] == 1).all()


def test_one_language_does_not_enter_another_ones_table(tmp_path: Path) -> None:
    own, rest = vectors(4, "cat", "nob"), vectors(5, "cat", "nob")
    before = table(handmade.run(tmp_path / "one", own, rest, shapes=SHAPES))
    after = table(handmade.run(tmp_path / "two", {**own, "nob": own["nob"] * 4}, rest, shapes=SHAPES))
    assert before.loc["cat"].equals(after.loc["cat"])
    assert not before.loc["nob"].equals(after.loc["nob"])
