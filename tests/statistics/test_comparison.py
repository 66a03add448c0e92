from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sensikit.errors import RunError
from sensikit.parameters import sample_of
from sensikit.run import Run
from sensikit.sensitivity.taylor import blocks_of
from sensikit.statistics.comparison import check_comparable, correlation_difference, paired
from sensikit.statistics.correlation import correlation_table
from tests.support import handmade
from tests.support.batched import CODES, SHAPES, batches, groups_of

KEY = ["subset", "group_a", "group_b"]


def two(path: Path) -> tuple[Run, Run, list[dict[str, np.ndarray]]]:
    drawn = [batches(1), batches(2)]
    runs = [handmade.run_of_batches(path / name, each, shapes=SHAPES) for name, each in zip("ab", drawn, strict=True)]
    return runs[0], runs[1], drawn


def left(drawn: dict[str, np.ndarray], a: str, b: str, inside: np.ndarray) -> np.ndarray:
    """The PCC of two languages without each of twenty blocks of batches, computed anew each time."""
    found = []
    for block in range(20):
        kept = []
        for code in (a, b):
            edges = np.cumsum([0, *blocks_of(len(drawn[code]))])
            rows = np.delete(drawn[code], np.s_[edges[block] : edges[block + 1]], axis=0)
            kept.append(rows.mean(axis=0)[inside])
        found.append(np.corrcoef(*kept)[0, 1])
    return np.array(found)


def error(without: np.ndarray) -> float:
    return float(np.sqrt(19 / 20 * ((without - without.mean()) ** 2).sum()))


def test_difference_is_b_minus_a_of_what_each_run_says_itself(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    found = correlation_difference(a, b).set_index(KEY)
    tables = [correlation_table(run).set_index(KEY)["pcc"] for run in (a, b)]
    for key in itertools.product(("all", "high", "low"), CODES, CODES):
        if key[1] != key[2]:
            assert found.at[key, "pcc_a"] == tables[0][key]
            assert found.at[key, "pcc_b"] == tables[1][key]
            assert found.at[key, "difference"] == tables[1][key] - tables[0][key]
    assert len(found) == 3 * (6 + 1)


@pytest.mark.parametrize("together", [True, False])
def test_interval_is_that_of_the_difference_without_each_block(tmp_path: Path, together: bool) -> None:
    a, b, drawn = two(tmp_path)
    if not together:
        b.manifest["sets"]["mt/cat"]["drawn"] = "other sentences"
    found = correlation_difference(a, b).set_index(KEY)
    assert (found["paired"] == together).all()
    subsets = [groups_of([handmade.flat(run, code) for code in CODES]) for run in (a, b)]
    for subset, first, second in itertools.product(("all", "high", "low"), CODES, CODES):
        if first == second:
            continue
        sides = [left(each, first, second, of[subset]) for each, of in zip(drawn, subsets, strict=True)]
        spread = error(sides[1] - sides[0]) if together else np.hypot(error(sides[0]), error(sides[1]))
        row = found.loc[(subset, first, second)]
        width = stats.t.ppf(0.975, 19) * spread
        assert row["difference_high"] - row["difference"] == pytest.approx(width, rel=1e-4)
        assert row["difference"] - row["difference_low"] == pytest.approx(width, rel=1e-4)


def test_the_mean_over_pairs_has_an_interval_of_its_own(tmp_path: Path) -> None:
    a, b, drawn = two(tmp_path)
    found = correlation_difference(a, b).set_index(KEY)
    pairs = list(itertools.combinations(CODES, 2))
    everything = np.ones(71, dtype=bool)
    sides = [np.mean([left(each, *pair, everything) for pair in pairs], axis=0) for each in drawn]
    mean = found.loc[("all", "", "")]
    assert mean["difference"] == pytest.approx(np.mean([found.at[("all", *pair), "difference"] for pair in pairs]))
    width = stats.t.ppf(0.975, 19) * error(sides[1] - sides[0])
    assert mean["difference_high"] - mean["difference"] == pytest.approx(width, rel=1e-4)


def test_a_run_against_itself_differs_by_nothing_without_doubt(tmp_path: Path) -> None:
    a, _, _ = two(tmp_path)
    found = correlation_difference(a, a)
    assert (found[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)


def test_what_makes_a_block_unusual_for_both_models_cancels(tmp_path: Path) -> None:
    drawn = batches(3)
    much = {code: rows * np.linspace(1, 1.2, rows.shape[1]) for code, rows in drawn.items()}
    a, b = (handmade.run_of_batches(tmp_path / name, rows) for name, rows in (("a", drawn), ("b", much)))
    together = correlation_difference(a, b)
    b.manifest["provenance"]["data_sha256"] = "2" * 64
    apart = correlation_difference(a, b)

    def width(found: pd.DataFrame) -> pd.Series:
        return found["difference_high"] - found["difference_low"]

    assert (width(together) < width(apart) / 2).all()
    assert not apart["paired"].any()


def changed(field: str, value: object) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        places = {"direction": run.manifest, "tokens": run.analysis()}
        (places.get(field) or run.analysis()["settings"])[field] = value

    return change


def one_more_batch(run: Run) -> None:
    run.manifest["sets"]["mt/fur"]["batches"] += 1


def one_group_less(run: Run) -> None:
    del run.manifest["sets"]["mt/fur"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (changed("tokens", 2), "T is 2 here and 1 there"),
        (changed("direction", "eng-xxx"), "the direction is eng-xxx here and xxx-eng there"),
        (changed("loss", "train"), "the loss is train here"),
        (changed("mode", "train"), "the mode is train here"),
        (changed("split", "valid"), "the split is valid here"),
        (changed("reduction", "sum"), "the reduction is sum here"),
        (one_more_batch, "the batches are 43, 26, 40 here and 43, 25, 40 there"),
        (one_group_less, "the groups are cat, nob here and cat, fur, nob there"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(
    tmp_path: Path, change: Callable[[Run], None], named: str
) -> None:
    a, b, _ = two(tmp_path)
    check_comparable(a, b)
    change(b)
    with pytest.raises(RunError, match=named):
        correlation_difference(a, b)


def test_a_skipped_batch_is_one_that_was_drawn(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    b.manifest["sets"]["mt/fur"] |= {"batches": 24, "skipped": 1}
    check_comparable(a, b)


def test_a_run_without_the_task_or_of_one_language_is_refused(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    with pytest.raises(RunError, match="denoise"):
        correlation_difference(a, b, "denoise")
    alone = handmade.run_of_batches(tmp_path / "alone", {"cat": batches(1)["cat"]})
    with pytest.raises(RunError, match="a single group"):
        correlation_difference(alone, alone)


@pytest.mark.parametrize("field", ["drawn", "block_batches"])
def test_other_sentences_or_other_blocks_are_not_paired(tmp_path: Path, field: str) -> None:
    a, b, _ = two(tmp_path)
    assert paired(a, b)
    b.manifest["sets"]["mt/nob"][field] = b.manifest["sets"]["mt/cat"][field]
    assert not paired(a, b)


def test_models_of_one_shape_have_the_same_sample_of_parameters(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    first, second = (sample_of(run.parameters, limit=20) for run in (a, b))
    assert {name: list(at) for name, at in first.items()} == {name: list(at) for name, at in second.items()}
    assert sum(map(len, first.values())) == 20


def test_models_of_two_shapes_can_be_compared(tmp_path: Path) -> None:
    drawn = batches(4)
    a = handmade.run_of_batches(tmp_path / "a", drawn)
    b = handmade.run_of_batches(tmp_path / "b", {code: rows[:, :50] for code, rows in drawn.items()})
    found = correlation_difference(a, b)
    assert found["paired"].all()
    assert found["difference_low"].notna().all()
