from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
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
from sensikit.statistics.halves import DESIGNS, balanced
from tests.statistics.test_noise import obvious_corrected
from tests.support import handmade
from tests.support.batched import CODES, SHAPES, batches, groups_of

KEY = ["subset", "group_a", "group_b"]


def two(path: Path) -> tuple[Run, Run, list[dict[str, np.ndarray]]]:
    drawn = [batches(1), batches(2)]
    runs = [handmade.run_of_batches(path / name, each, shapes=SHAPES) for name, each in zip("ab", drawn, strict=True)]
    return runs[0], runs[1], drawn


def in_halves(drawn: Sequence[dict[str, np.ndarray]], borders: Sequence[Sequence[int]]) -> np.ndarray:
    """The corrected PCC of each pair in both halves of 19 splits, computed anew: (19, 2, subsets, runs, pairs).

    `borders` are the runs that share one.
    """
    found = np.empty((19, 2, 3, len(drawn), 3))
    for split, first in enumerate(balanced(20)):
        for half, kept in enumerate((first, ~first)):
            stored = []
            for rows in drawn:
                for code in CODES:
                    layout = blocks_of(len(rows[code]))
                    edges = np.cumsum([0, *layout])
                    parts = [rows[code][edges[g] : edges[g + 1]].mean(axis=0) for g in np.flatnonzero(kept)]
                    stored.append((np.array(parts), np.array(layout)[kept]))
            means = [np.average(parts, axis=0, weights=layout) for parts, layout in stored]
            for sharing in borders:
                members = groups_of([means[3 * run + i] for run in sharing for i in range(3)])
                for run, (at, inside) in itertools.product(sharing, enumerate(members.values())):
                    for pair, sides in enumerate(itertools.combinations(range(3), 2)):
                        chosen = [stored[3 * run + i] for i in sides]
                        found[split, half, at, run, pair] = obvious_corrected(
                            [parts[:, inside] for parts, _ in chosen], [layout for _, layout in chosen]
                        )
    return found


def widths(found: np.ndarray) -> np.ndarray:
    """Half widths of the difference between two runs, (subsets, pairs + 1); the last is of the mean."""
    changes = found[:, :, :, 1] - found[:, :, :, 0]
    changes = np.concatenate([changes, changes.mean(axis=-1, keepdims=True)], axis=-1)
    return stats.t.ppf(0.975, 19) * np.sqrt(((changes[:, 0] - changes[:, 1]) ** 2 / 4).mean(axis=0))


def test_difference_is_of_the_corrected_pcc_with_one_border_for_all_runs(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    third = handmade.run_of_batches(tmp_path / "c", batches(3), shapes=SHAPES)
    for runs, beside in (((a, b), ()), ((a, b, third), (b, third))):
        found = correlation_difference(a, b, beside=beside).set_index(KEY)
        members = groups_of([handmade.flat(run, code) for run in runs for code in CODES])
        for (subset, inside), pair in itertools.product(members.items(), itertools.permutations(CODES, 2)):
            values = []
            for run in (a, b):
                stored = {
                    code: (handmade.flat(run, code)[inside], handmade.flat(run, code, "half")[inside]) for code in pair
                }
                shared = []
                for code, (whole, first) in stored.items():
                    noted = run.manifest["sets"][f"mt/{code}"]
                    n, n1 = noted["batches"], noted["half_batches"]
                    shared.append(np.cov(first, (n * whole - n1 * first) / (n - n1))[0, 1])
                values.append(np.cov(*(whole for whole, _ in stored.values()))[0, 1] / np.sqrt(np.prod(shared)))
            row = found.loc[(subset, *pair)]
            assert [row["corrected_a"], row["corrected_b"]] == pytest.approx(values, rel=1e-4)
            assert row["difference"] == row["corrected_b"] - row["corrected_a"]
            assert row["parameters"] == inside.sum()
    assert len(found) == 3 * (6 + 1)


@pytest.mark.parametrize("third", [False, True])
def test_interval_is_of_both_halves_of_the_batches_each_with_its_border(tmp_path: Path, third: bool) -> None:
    a, b, drawn = two(tmp_path)
    drawn += [batches(3)] * third
    beside = [handmade.run_of_batches(tmp_path / "c", drawn[2], shapes=SHAPES)] if third else []
    found = correlation_difference(a, b, beside=beside).set_index(KEY)
    expected = widths(in_halves(drawn, [range(len(drawn))]))
    for at, subset in enumerate(("all", "high", "low")):
        for pair, sides in enumerate([*itertools.combinations(CODES, 2), ("", "")]):
            row = found.loc[(subset, *sides)]
            assert row["difference_high"] - row["difference"] == pytest.approx(expected[at, pair], rel=1e-3)
            assert row["difference"] - row["difference_low"] == pytest.approx(expected[at, pair], rel=1e-3)
    mean = found.loc[("all", "", "")]
    sides = list(itertools.combinations(CODES, 2))
    assert mean["difference"] == pytest.approx(np.mean([found.at[("all", *pair), "difference"] for pair in sides]))


@pytest.mark.parametrize("count", DESIGNS)
def test_splits_into_halves_are_even_and_balanced(count: int) -> None:
    signs = np.where(balanced(count), 1, -1)
    assert not signs.sum(axis=1).any()
    assert np.array_equal(signs @ signs.T, count * np.eye(count - 1))
    # so that of a mean they give its variance, exactly
    values = np.random.default_rng(0).normal(size=count)
    assert ((signs @ values / count) ** 2).mean() == pytest.approx(values.var(ddof=1) / count)


def test_a_language_of_too_few_blocks_has_differences_without_intervals(tmp_path: Path) -> None:
    drawn = [batches(seed, counts=(40, 2, 30)) for seed in (1, 2)]
    a, b = (handmade.run_of_batches(tmp_path / name, each) for name, each in zip("ab", drawn, strict=True))
    found = correlation_difference(a, b)
    assert found["difference_low"].isna().all()
    assert found["difference"].notna().any()


def test_a_run_against_itself_differs_by_nothing_without_doubt(tmp_path: Path) -> None:
    a, _, _ = two(tmp_path)
    found = correlation_difference(a, a)
    assert (found[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)


def test_what_makes_a_block_unusual_for_both_models_cancels(tmp_path: Path) -> None:
    drawn, other = batches(3), batches(3)
    much, apart = ({code: rows * np.linspace(1, 1.2, rows.shape[1]) for code, rows in each.items()}
                   for each in (drawn, {code: np.roll(rows, 7, axis=0) for code, rows in other.items()}))  # fmt: skip
    runs = [handmade.run_of_batches(tmp_path / str(i), rows) for i, rows in enumerate((drawn, much, apart))]

    def width(found: pd.DataFrame) -> pd.Series:
        return found["difference_high"] - found["difference_low"]

    assert (width(correlation_difference(*runs[:2])) < width(correlation_difference(runs[0], runs[2])) / 2).all()


def test_recipes_are_compared_over_their_training_seeds(tmp_path: Path) -> None:
    runs = [handmade.run_of_batches(tmp_path / str(seed), batches(seed), shapes=SHAPES) for seed in range(1, 6)]
    one, other = runs[:2], runs[2:]
    # every run under the same border
    each = [correlation_difference(one[0], run, beside=runs).set_index(KEY)["corrected_b"] for run in runs]
    values = np.array(each)
    found = correlation_difference(one, other, beside=runs).set_index(KEY)
    assert set(zip(found["seeds_a"], found["seeds_b"], strict=True)) == {(2, 3)}
    for at, (key, row) in enumerate(found.iterrows()):
        a, b = values[:2, at], values[2:, at]
        parts = a.var(ddof=1) / 2, b.var(ddof=1) / 3
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / 1 + parts[1] ** 2 / 2)
        half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
        expected = [a.mean(), b.mean(), b.mean() - a.mean(), b.mean() - a.mean() - half, b.mean() - a.mean() + half]
        assert row.tolist()[1:6] == pytest.approx(expected), key
    single = correlation_difference(one[0], other, beside=runs).set_index(KEY)  # taken to vary as the others do
    half = stats.t.ppf(0.975, 2) * values[2:].std(axis=0, ddof=1) * (1 + 1 / 3) ** 0.5
    assert (single["difference_high"] - single["difference"]).tolist() == pytest.approx(half.tolist())


def test_a_mean_stands_with_its_extremes_where_one_language_is_left_out(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    found = correlation_difference(a, b).set_index(KEY)
    assert found["without_low"].notna().sum() == 3
    for subset in ("all", "high", "low"):  # of three languages, one pair is left
        left = [found.at[(subset, *pair), "difference"] for pair in itertools.combinations(CODES, 2)]
        ends = found.loc[(subset, "", ""), ["without_low", "without_high"]].tolist()
        assert ends == pytest.approx([min(left), max(left)])


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
        (changed("high", 0.2), "the high is 0.2 here"),
        (one_more_batch, "the batches are 43, 26, 40 here and 43, 25, 40 there"),
        (one_group_less, "the groups are cat, nob here and cat, fur, nob there"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(
    tmp_path: Path, change: Callable[[Run], None], named: str
) -> None:
    a, b, _ = two(tmp_path)
    check_comparable(a, b, "mt")
    change(b)
    with pytest.raises(RunError, match=named):
        correlation_difference(a, b)


def test_a_skipped_batch_is_one_that_was_drawn(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    b.manifest["sets"]["mt/fur"] |= {"batches": 24, "skipped": 1}
    check_comparable(a, b, "mt")


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
    assert paired(a, b, "mt")
    b.manifest["sets"]["mt/nob"][field] = b.manifest["sets"]["mt/cat"][field]
    assert not paired(a, b, "mt")


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
    fewer = handmade.run_of_batches(tmp_path / "c", {code: rows[:12, :50] for code, rows in drawn.items()})
    found = correlation_difference(a, b, beside=[fewer])  # both are split as the fewer blocks are
    assert found.loc[found["subset"] == "all", "difference_low"].notna().all()
