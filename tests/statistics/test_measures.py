"""Ranks, logarithms and half of the variance, against the obvious computation on whole vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sensikit.parameters import Parameter
from sensikit.statistics import measures
from sensikit.statistics.correlation import correlation_table
from tests.support import handmade
from tests.support.batched import CODES, SHAPES, SIZE, batches, groups_of

KEY = ["subset", "group_a", "group_b"]


@pytest.fixture
def run(tmp_path: Path) -> handmade.Run:
    """With zeros, some of them common to all languages, and so ties."""
    drawn = batches(1)
    for place, code in enumerate(CODES):
        drawn[code][:, [0, 10 + place, 20 + 2 * place]] = 0
    return handmade.run_of_batches(tmp_path / "run", drawn, shapes=SHAPES)


@pytest.mark.parametrize("chunk", [6, 1 << 18])
def test_measures_are_those_of_the_whole_vectors(
    run: handmade.Run, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    found = correlation_table(run).set_index(KEY)
    stored = {code: handmade.flat(run, code).astype(np.float64) for code in CODES}
    for subset, inside in groups_of(list(stored.values())).items():
        for a, b in itertools.product(CODES, repeat=2):
            one, other = stored[a][inside], stored[b][inside]
            both = (one > 0) & (other > 0)
            row = found.loc[(subset, a, b)]
            assert row["spearman"] == pytest.approx(stats.spearmanr(one, other)[0], abs=1e-12)
            assert row["log_pcc"] == pytest.approx(np.corrcoef(np.log(one[both]), np.log(other[both]))[0, 1], abs=1e-9)
            assert row["positive"] == both.sum()
            shares = np.cumsum(np.sort((one - one.mean()) ** 2)[::-1]) / ((one - one.mean()) ** 2).sum()
            assert row["half_variance_a"] == np.searchsorted(shares, 0.5) + 1
    assert found.at[("all", "cat", "fur"), "positive"] == SIZE - 5


def test_ranks_of_a_model_that_is_too_large_are_of_the_sample(
    run: handmade.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_second(parameters: Sequence[Parameter]) -> dict[str, np.ndarray]:
        return {p.name: np.arange(p.numel)[(np.arange(p.start, p.stop) % 2) == 0] for p in parameters}

    monkeypatch.setattr(measures, "WHOLE", 3 * SIZE - 1)
    monkeypatch.setattr("sensikit.statistics.noise.sample_of", every_second)
    monkeypatch.setattr("sensikit.run.CHUNK", 6)
    found = correlation_table(run).set_index(KEY)
    stored = {code: handmade.flat(run, code).astype(np.float64) for code in CODES}
    for subset, inside in groups_of(list(stored.values())).items():
        chosen = inside & (np.arange(SIZE) % 2 == 0)
        expected = stats.spearmanr(stored["cat"][chosen], stored["fur"][chosen])[0]
        assert found.at[(subset, "cat", "fur"), "spearman"] == pytest.approx(expected, abs=1e-12)


def test_half_of_the_variance_by_hand(tmp_path: Path) -> None:
    # cat: around the mean 1 a square of 81 and nine of 1, so one is enough; nob: ten of 1, so half of them; fao: as
    # cat, but the one is below the mean
    vectors = {"cat": [10.0, *[0.0] * 9], "nob": [1.0, 3.0] * 5, "fao": [0.0, *[10.0] * 9]}
    found = correlation_table(handmade.run(tmp_path / "run", vectors)).set_index(KEY).loc["all"]
    assert found.at[("cat", "nob"), "half_variance_a"] == 1
    assert found.at[("nob", "cat"), "half_variance_a"] == 5
    assert found.at[("fao", "cat"), "half_variance_a"] == 1
