"""Intervals over batches, against the obvious way: leave a block of batches out, and compute everything again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sensikit.parameters import Parameter
from sensikit.sensitivity.taylor import blocks_of
from sensikit.statistics.correlation import correlation_table, mean_correlation
from sensikit.statistics.noise import block_moments, half_width, interval, left_out
from tests.support import handmade
from tests.support.batched import CODES, SHAPES, SIZE, batches, groups_of, high_of

PAIR = [("mt", "cat"), ("mt", "nob")]


def table(run: handmade.Run) -> pd.DataFrame:
    return correlation_table(run).set_index(["subset", "group_a", "group_b"]).sort_index()


def obvious_interval(
    drawn: dict[str, np.ndarray], a: str, b: str, sample: np.ndarray, pcc: float, blocks: int = 20
) -> tuple[float, float]:
    """Leave each block of batches out of both languages, correlate what is left, and spread Fisher's z over that."""
    left = []
    for block in range(blocks):
        kept = []
        for code in (a, b):
            edges = np.cumsum([0, *blocks_of(len(drawn[code]))])
            edges = edges[np.arange(blocks + 1) * (len(edges) - 1) // blocks]
            rows = np.delete(drawn[code], np.s_[edges[block] : edges[block + 1]], axis=0)
            kept.append(rows.mean(axis=0)[sample])
        left.append(np.arctanh(np.corrcoef(*kept)[0, 1]))
    error = np.sqrt((blocks - 1) / blocks * ((left - np.mean(left)) ** 2).sum())
    width = stats.t.ppf(0.975, blocks - 1) * error
    return float(np.tanh(np.arctanh(pcc) - width)), float(np.tanh(np.arctanh(pcc) + width))


@pytest.mark.parametrize("step", [4, 1 << 16])
def test_interval_is_the_obvious_leave_one_block_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr("sensikit.statistics.noise.CACHED", 1)
    monkeypatch.setattr("sensikit.statistics.noise.LEAST", step)
    drawn = batches(9)
    run = handmade.run_of_batches(tmp_path / "run", drawn, shapes=SHAPES)
    found = table(run)
    for subset, inside in groups_of([handmade.flat(run, code) for code in CODES]).items():
        for a, b in itertools.permutations(CODES, 2):
            row = found.loc[(subset, a, b)]
            low, high = obvious_interval(drawn, a, b, np.flatnonzero(inside), row["pcc"])
            assert row["pcc_low"] == pytest.approx(low, abs=1e-5)
            assert row["pcc_high"] == pytest.approx(high, abs=1e-5)
            assert row["pcc_low"] < row["pcc"] < row["pcc_high"]


def test_interval_of_a_sample_stands_around_the_pcc_of_all_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = batches(10)
    run = handmade.run_of_batches(tmp_path / "run", drawn, shapes=SHAPES)
    monkeypatch.setattr("sensikit.run.CHUNK", 6)

    def every_second(parameters: Sequence[Parameter]) -> dict[str, np.ndarray]:
        return {p.name: np.arange(p.numel)[(np.arange(p.start, p.stop) % 2) == 0] for p in parameters}

    sample = np.arange(0, SIZE, 2)
    for code in CODES:
        blocks = handmade.torch.from_numpy(run.block_reader("mt", code)(0, SIZE)[:, sample].copy())
        vectors = {kind: handmade.shaped(run.parameters, handmade.flat(run, code, kind)) for kind in ("", "half")}
        facts = dict(run.manifest["sets"][f"mt/{code}"])
        run.write_set("mt", code, {**vectors, "blocks": {handmade.BLOCK_KEY: blocks}}, facts)
    monkeypatch.setattr("sensikit.statistics.noise.sample_of", every_second)
    found = table(run)
    for subset, inside in groups_of([handmade.flat(run, code) for code in CODES]).items():
        row = found.loc[(subset, "nob", "cat")]
        low, high = obvious_interval(drawn, "nob", "cat", sample[inside[sample]], row["pcc"])
        assert row["pcc_low"] == pytest.approx(low, abs=1e-5)
        assert row["pcc_high"] == pytest.approx(high, abs=1e-5)


def obvious_corrected(drawn: Sequence[np.ndarray], layouts: Sequence[Sequence[int]]) -> float:
    """cov_ab/√(c_a·c_b) of two sets from block means (G, P) and batches by block; c over all pairs of two blocks."""
    shared = []
    for blocks, counts in zip(drawn, layouts, strict=True):
        weights = np.outer(counts, counts) * (1 - np.eye(len(counts)))
        shared.append(np.average(np.cov(blocks), weights=weights))
    means = [np.average(blocks, axis=0, weights=counts) for blocks, counts in zip(drawn, layouts, strict=True)]
    return float(np.cov(*means)[0, 1] / np.sqrt(shared[0] * shared[1]))


def test_the_corrected_pcc_and_its_interval_by_hand(tmp_path: Path) -> None:
    # three blocks of one batch over four parameters: Σ (x − x̄)(y − ȳ) of cat's blocks are 3 (first and second), 4 and
    # 4, with nob's 5, 3 and 4; nob's blocks are all the same, 5
    cat, nob = np.array([[1.0, 2, 3, 4], [2.0, 1, 4, 3], [1.0, 2, 4, 3]]), np.array([[1.0, 2, 3, 4]] * 3)
    blocks, counts = {"cat": cat, "nob": nob}, {code: (3, 1, [1, 1, 1]) for code in ("cat", "nob")}
    whole, halves = ({code: of(rows) for code, rows in blocks.items()} for of in (lambda x: x.mean(0), lambda x: x[0]))
    row = table(handmade.run(tmp_path / "run", whole, halves=halves, blocks=blocks, counts=counts)).loc[
        ("all", "cat", "nob")
    ]
    # the first batch against the two others is c of cat: (3 + 4)/2
    assert row["corrected"] == pytest.approx(4 / np.sqrt(3.5 * 5), rel=1e-6)
    # without the first, second and third block; t on two degrees of freedom
    left = np.array([3.5 / np.sqrt(4 * 5), 4.5 / np.sqrt(4 * 5), 4 / np.sqrt(3 * 5)])
    width = 4.302652729911275 * np.sqrt(2 / 3 * ((left - left.mean()) ** 2).sum())
    assert row["corrected_high"] - row["corrected"] == pytest.approx(width, rel=1e-6)
    assert row["corrected"] - row["corrected_low"] == pytest.approx(width, rel=1e-6)


def test_the_intervals_of_the_corrected_pcc_and_of_its_mean_are_the_obvious_jackknife(tmp_path: Path) -> None:
    drawn = batches(9)
    run = handmade.run_of_batches(tmp_path / "run", drawn, shapes=SHAPES)
    found, means = table(run), mean_correlation(run, correlation_table(run), "mt").set_index("subset")
    layouts = [blocks_of(len(drawn[code])) for code in CODES]
    stored = [run.block_reader("mt", code)(0, SIZE).astype(np.float64) for code in CODES]
    for subset, inside in groups_of([handmade.flat(run, code) for code in CODES]).items():
        by_pair = []
        for a, b in itertools.combinations(range(3), 2):
            left = [
                obvious_corrected(
                    [np.delete(stored[i][:, inside], g, axis=0) for i in (a, b)],
                    [np.delete(layouts[i], g) for i in (a, b)],
                )
                for g in range(20)
            ]
            by_pair.append((found.loc[(subset, CODES[a], CODES[b])], np.array(left)))
        rows, lefts = zip(*by_pair, strict=True)
        mean = means.loc[subset]
        assert mean["pairs"] == 3
        for name in ("corrected", "pcc", "ceiling"):
            assert mean[name] == pytest.approx(np.mean([row[name] for row in rows]), rel=1e-12)
        for row, left in [*by_pair, (mean, np.mean(lefts, axis=0))]:
            width = stats.t.ppf(0.975, 19) * np.sqrt(19 / 20 * ((left - np.mean(left)) ** 2).sum())
            assert row["corrected_high"] - row["corrected"] == pytest.approx(width, rel=1e-4)
            assert row["corrected"] - row["corrected_low"] == pytest.approx(width, rel=1e-4)


def test_a_language_with_fewer_batches_than_blocks_has_intervals_too(tmp_path: Path) -> None:
    # 12 batches make 12 blocks; the 20 blocks of the others are joined to 12, for blocks are left out in pairs
    drawn = batches(11, CODES, (60, 12, 200))
    found = table(handmade.run_of_batches(tmp_path / "run", drawn, shapes=SHAPES)).loc["all"]
    for a, b in itertools.permutations(CODES, 2):
        row = found.loc[(a, b)]
        low, high = obvious_interval(drawn, a, b, np.arange(SIZE), row["pcc"], blocks=12)
        assert row["pcc_low"] == pytest.approx(low, abs=1e-5)
        assert row["pcc_high"] == pytest.approx(high, abs=1e-5)


def test_jackknife_of_a_mean_is_the_standard_error_by_hand() -> None:
    # of (1, 2, 3, 6), whose mean has the standard error √(14/3)/2 = 1.0801; t on three degrees of freedom
    values = np.array([1.0, 2, 3, 6])
    left_out = (values.sum() - values) / 3
    assert half_width(left_out) == pytest.approx(3.182446305284263 * np.sqrt(14 / 3) / 2, rel=1e-12)


def test_without_one_block_by_hand(tmp_path: Path) -> None:
    # two blocks of one batch each: without the first, the second is left, and the other way about
    blocks = {"cat": [[1.0, 2, 3, 4], [2.0, 1, 4, 3]], "nob": [[1.0, 2, 3, 4], [1.0, 2, 3, 4]]}
    whole = {code: np.mean(table, axis=0) for code, table in blocks.items()}
    counts = {code: (2, 1, [1, 1]) for code in blocks}
    run = handmade.run(tmp_path / "run", whole, blocks=blocks, counts=counts)
    found = left_out(run, PAIR, block_moments(run, PAIR, np.array([True, True, False, False])))
    assert found["all"].pcc[:, 0, 1] == pytest.approx([0.6, 1.0], rel=1e-12)
    assert found["high"].pcc[:, 0, 1] == pytest.approx([-1, 1], rel=1e-12)
    assert found["low"].pcc[:, 0, 1] == pytest.approx([-1, 1], rel=1e-12)
    assert np.isnan(found["all"].corrected).all()  # of one block, nothing tells S from noise


def test_blocks_weigh_as_many_batches_as_they_hold(tmp_path: Path) -> None:
    # cat without its second block: one batch of (0, 0, 3) and two of (3, 3, 0) on average, so (2, 2, 1)
    blocks = {"cat": [[0.0, 0, 3], [9.0, 9, 1], [3.0, 3, 0]], "nob": [[0.0, 1, 0], [0.0, 1, 0], [1.0, 0, 0]]}
    whole = {code: np.average(table, axis=0, weights=[1, 1, 2]) for code, table in blocks.items()}
    counts = {code: (4, 1, [1, 1, 2]) for code in blocks}
    run = handmade.run(tmp_path / "run", whole, blocks=blocks, counts=counts)
    found = left_out(run, PAIR, block_moments(run, PAIR, np.zeros(3, dtype=bool)))["all"].pcc
    assert found[1, 0, 1] == pytest.approx(np.corrcoef([2, 2, 1], [2, 1, 0])[0, 1], rel=1e-6)


def test_intervals_are_symmetric_in_the_two_languages(tmp_path: Path) -> None:
    run = handmade.run_of_batches(tmp_path / "run", batches(12), shapes=SHAPES)
    is_high = high_of([handmade.flat(run, c) for c in CODES])
    sets = [("mt", code) for code in CODES]
    for without in left_out(run, sets, block_moments(run, sets, is_high)).values():
        assert all(np.array_equal(each, each.transpose(0, 2, 1)) for each in without)


def test_a_perfect_correlation_has_no_interval_and_does_not_crash() -> None:
    low, high = interval(np.array([1.0, 0.5]), np.array([[1.0, 0.4], [1.0, 0.6], [1.0, 0.5]]))
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] < 0.5 < high[1]
