from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from sensikit.statistics.specificity import overlap_table, specificity
from tests.support import handmade

SHAPES = {"a.weight": (20, 10), "a.bias": (7,), "b.weight": (13, 1)}
CODES = ("cat", "nob", "fao")
KEY = ["share", "group_a", "group_b"]


def tops(own: np.ndarray, rest: np.ndarray, sigma: float, share: float) -> set[int]:
    order = np.argsort(-specificity(own, rest, sigma), kind="stable")
    return set(order[: int(np.floor(share * len(order)))].tolist())


def test_overlap_by_hand(tmp_path: Path) -> None:
    # of ten parameters, the three with the largest D are 0, 1, 2 in cat and 1, 2, 3 in nob: two of four
    ones = np.ones(10)
    cat, nob = ones.copy(), ones.copy()
    cat[[0, 1, 2]], nob[[1, 2, 3]] = (5, 3, 2), (2, 9, 4)
    run = handmade.run(tmp_path / "run", {"cat": cat, "nob": nob}, {"cat": ones, "nob": ones})
    found = overlap_table(run, "mt", shares=[0.3]).set_index(KEY)
    assert found.at[(0.3, "cat", "nob"), "jaccard"] == 0.5
    assert found.at[(0.3, "nob", "cat"), "jaccard"] == 0.5
    # drawn independently they would have 3·3/10 in common: 0.9 of 5.1
    assert found.at[(0.3, "cat", "nob"), "expected"] == pytest.approx(0.9 / 5.1, rel=1e-12)
    assert len(found) == 2


@pytest.mark.parametrize("chunk", [3, 1 << 18])
def test_table_is_the_obvious_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("sensikit.run.CHUNK", chunk)
    rng = np.random.default_rng(0)
    shared = rng.lognormal(0, 1, 220)
    own = {code: (shared * rng.lognormal(0, 0.5, 220)).astype(np.float32) for code in CODES}
    rest = {code: rng.lognormal(0, 0.3, 220).astype(np.float32) for code in CODES}
    sigma = {"cat": 0.1, "nob": 3.0, "fao": 1e-6}
    found = overlap_table(handmade.run(tmp_path / "run", own, rest, shapes=SHAPES, sigma=sigma), "mt").set_index(KEY)
    for share, (a, b) in itertools.product((0.01, 0.05, 0.1), itertools.permutations(CODES, 2)):
        first, second = (tops(own[code], rest[code], sigma[code], share) for code in (a, b))
        assert found.at[(share, a, b), "jaccard"] == len(first & second) / len(first | second)


def test_ties_at_the_edge_go_by_index(tmp_path: Path) -> None:
    # four share the second place; of three, 0 and the first two of them are taken
    own = {"cat": [9, 1, 4, 4, 1, 4, 4, 1, 1, 1], "nob": [9, 1, 4, 4, 1, 1, 1, 1, 1, 1]}
    run = handmade.run(tmp_path / "run", own, {code: np.ones(10) for code in own})
    assert overlap_table(run, "mt", shares=[0.3])["jaccard"].tolist() == [1, 1]


def test_expected_is_what_sets_drawn_at_random_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ones = np.ones(20_000)
    own = {code: rng.random(20_000) for code in ("cat", "nob", "fao", "tgl", "nso", "ind")}
    run = handmade.run(tmp_path / "run", own, dict.fromkeys(own, ones))
    found = overlap_table(run, "mt", shares=[0.1])
    # fifteen pairs, each of 2,000 parameters: the mean is known to about half a point
    assert found["jaccard"].mean() == pytest.approx(found["expected"].iloc[0], abs=0.004)
    assert found["expected"].iloc[0] == pytest.approx(0.1 / 1.9, rel=1e-12)


def test_a_share_too_small_for_a_single_parameter_is_undefined(tmp_path: Path) -> None:
    run = handmade.run(tmp_path / "run", {"cat": [1, 2, 3], "nob": [3, 2, 1]})
    assert overlap_table(run, "mt", shares=[0.1])[["jaccard", "expected"]].isna().all(axis=None)
