"""Pruning curves against each other, from what sweeps of toys have stored."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensikit.errors import RunError
from sensikit.evaluation.metrics import bleu_metric, evaluate
from sensikit.evaluation.resampling import Sampled, mean, resampled
from sensikit.pruning.curves import curve_bands, curve_tests, curves
from sensikit.pruning.ledger import resamples_of
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from sensikit.sensitivity.analysis import Settings, analyze
from sensikit.settings import Decoding, SweepSettings
from tests.support import toy

SETTINGS = SweepSettings(tokenizer="none", bootstrap=60)
SWEEP = {"ratios": [0, 0.3, 0.7], "orders": ["specificity", "reverse", "random"], "seeds": [1, 2]}


def swept(path: Path, backend: toy.ToyBackend, settings: SweepSettings = SETTINGS) -> Path:
    run = analyze(backend, path, Settings(batches=4, tokens=64))
    prune(run, backend, **SWEEP, groups=["cat", "nso"], settings=settings)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("swept")
    half_trained = toy.ToyBackend(seed=1).train(8)
    return {"regular": swept(folder / "a", toy.backend()), "id": swept(folder / "b", half_trained)}


@pytest.fixture
def runs(paths: dict[str, Path]) -> dict[str, Run]:
    return {label: Run.open(path) for label, path in paths.items()}


def stored(run: Run, order: str, ratio: float, seed: int | None = None) -> Sampled:
    """The mean over languages of one point, scored again from the stored hypotheses."""
    table = run.read_table("pruning.csv")
    rows = table[(table["order"] == order) & (table["ratio"] == ratio)]
    rows = rows[rows["seed"] == seed] if seed else rows
    references = {
        code: [toy.text_of(pair.target) for pair in toy.backend().pairs[code, "test"]] for code in ("cat", "nso")
    }
    return mean(
        [
            resampled(bleu_metric("none"), (run.path / file).read_text().splitlines(), references[code], 60)
            for file, code in zip(rows["hypotheses"], rows["group"], strict=True)
        ]
    )


def test_a_sweep_keeps_the_resamples_of_each_cell(runs: dict[str, Run]) -> None:
    run = runs["regular"]
    table = run.read_table("pruning.csv")
    kept = sorted(path.relative_to(run.path).as_posix() for path in run.path.glob("pruning/resamples/*"))
    assert kept == sorted(resamples_of(file) for file in table["hypotheses"])
    assert len(kept) == 2 * (1 + 2 * (2 + 2))
    for row in table.itertuples():
        found = Sampled.load(run.path / resamples_of(str(row.hypotheses)))
        assert found.value == row.bleu
        assert found.interval() == pytest.approx((row.bleu_low, row.bleu_high), abs=1e-4)


def test_bands_are_of_the_mean_over_languages_and_seeds(runs: dict[str, Run]) -> None:
    bands = curve_bands(runs)
    assert list(bands) == ["run", "order", "ratio", "bleu", "bleu_low", "bleu_high", "change_low", "change_high"]
    assert len(bands) == 2 * 3 * 3
    at = bands.set_index(["run", "order", "ratio"])
    start = stored(runs["id"], "none", 0.0)
    for order in ("specificity", "random"):
        whole = stored(runs["id"], order, 0.3)
        expected = [whole.value, *whole.interval(), *(whole - start).tested()[1:3]]
        assert at.loc[("id", order, 0.3)].tolist() == pytest.approx(expected, abs=1e-9)
    for order in ("specificity", "reverse", "random"):
        expected = [start.value, *start.interval(), 0, 0]
        assert at.loc[("id", order, 0.0)].tolist() == pytest.approx(expected, abs=1e-9)
    table = runs["id"].read_table("pruning.csv")
    of_cells = table[(table["order"] == "specificity") & (table["ratio"] == 0.3)]
    assert at.loc[("id", "specificity", 0.3), "bleu"] == pytest.approx(of_cells["bleu"].mean())
    width = at.loc[("id", "specificity", 0.3), "bleu_high"] - at.loc[("id", "specificity", 0.3), "bleu_low"]
    assert width < (of_cells["bleu_high"] - of_cells["bleu_low"]).mean()


def test_orders_of_a_run_are_tested_against_specificity_at_each_ratio(runs: dict[str, Run]) -> None:
    found = curve_tests({"regular": runs["regular"]})
    assert set(zip(found["order_a"], found["order_b"], found["ratio"], strict=True)) == {
        (order, "specificity", ratio) for order in ("reverse", "random") for ratio in (0.3, 0.7)
    }
    assert set(found["run_a"]) == set(found["run_b"]) == {"regular"}
    for row in found.itertuples():
        b, a = (stored(runs["regular"], order, row.ratio) for order in ("specificity", row.order_a))
        expected = (b - a).tested()
        assert (row.difference, row.difference_low, row.difference_high, row.p) == pytest.approx(expected, abs=1e-9)
        assert (row.change, row.change_low, row.change_high, row.change_p) == pytest.approx(expected, abs=1e-9)


def test_runs_are_tested_against_the_first_in_each_order(runs: dict[str, Run]) -> None:
    found = curve_tests(runs)
    between = found[found["run_a"] != found["run_b"]]
    assert set(zip(between["run_a"], between["run_b"], strict=True)) == {("regular", "id")}
    assert (between["order_a"] == between["order_b"]).all()
    assert set(zip(between["order_a"], between["ratio"], strict=True)) == {
        (order, ratio) for order in ("specificity", "reverse", "random") for ratio in (0.0, 0.3, 0.7)
    }
    for row in between.itertuples():
        (a, b), (a0, b0) = (
            [stored(runs[label], order, ratio) for label in ("regular", "id")]
            for order, ratio in ((row.order_a if row.ratio else "none", row.ratio), ("none", 0.0))
        )
        expected = [*(b - a).tested(), *((b - b0) - (a - a0)).tested()]
        assert list(row)[6:] == pytest.approx(expected, abs=1e-9)
    start = between[between["ratio"] == 0]
    assert (start[["change", "change_low", "change_high"]] == 0).all(axis=None)
    assert (start["change_p"] == 1).all()
    assert (between.loc[between["ratio"] > 0, "change"] != between.loc[between["ratio"] > 0, "difference"]).all()


def test_random_and_specificity_can_be_told_apart(runs: dict[str, Run]) -> None:
    found = curve_tests(runs)
    row = found[(found["run_a"] == "regular") & (found["order_a"] == "random") & (found["ratio"] == 0.3)].iloc[0]
    assert row["difference_low"] > 0
    assert row["p"] == pytest.approx(2 / 61)


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, decoding=Decoding(max_sentences=20)),
        replace(SETTINGS, tokenizer="char"),
        replace(SETTINGS, protect=0.2),
    ],
    ids=["sentences", "tokenizer", "protect"],
)
def test_sweeps_that_are_not_of_the_same_are_not_compared(
    settings: SweepSettings, runs: dict[str, Run], tmp_path: Path
) -> None:
    other = Run.open(swept(tmp_path / "c", toy.backend(1), settings))
    found = curve_tests({"regular": runs["regular"], "other": other})
    assert (found["run_a"] == found["run_b"]).all()
    assert set(found["run_a"]) == {"regular", "other"}


def test_a_ratio_at_which_a_language_is_missing_is_left_out(paths: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(paths["regular"], tmp_path / "run")
    run, backend = Run.open(tmp_path / "run"), toy.backend()
    prune(run, backend, [0.5], ["specificity"], groups=["cat"], settings=SETTINGS, resume=True)
    assert 0.5 in set(run.read_table("pruning.csv")["ratio"])
    assert set(curve_bands({"run": run})["ratio"]) == {0.0, 0.3, 0.7}


def test_without_resamples_there_are_curves_and_no_bands(tmp_path: Path) -> None:
    run = Run.open(swept(tmp_path / "run", toy.backend(), replace(SETTINGS, bootstrap=0)))
    bands = curve_bands({"run": run})
    assert bands["bleu"].notna().all()
    assert bands[["bleu_low", "bleu_high"]].isna().all(axis=None)
    assert curve_tests({"run": run})["p"].isna().all()


@pytest.mark.parametrize("kind", ["missing", "of another cell"])
def test_resamples_that_are_not_those_of_the_scores_are_refused(
    kind: str, paths: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(paths["regular"], tmp_path / "run")
    folder = tmp_path / "run" / "pruning" / "resamples"
    path = folder / "cat.specificity.0.3.npy"
    if kind == "missing":
        path.unlink()
    else:
        shutil.copy(folder / "cat.reverse.0.7.npy", path)
    with pytest.raises(RunError) as caught:
        curves(Run.open(tmp_path / "run"))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_numbers_are_alive(runs: dict[str, Run]) -> None:
    found = curve_bands(runs)
    assert found["bleu"].between(0, 100).all()
    assert np.ptp(found["bleu"]) > 20
    assert isinstance(found, pd.DataFrame)
    references = [toy.text_of(pair.target) for pair in toy.backend().pairs["cat", "test"]]
    hypotheses = (runs["regular"].path / "hypotheses" / "cat.none.0.0.txt").read_text().splitlines()
    table = runs["regular"].read_table("pruning.csv")
    assert evaluate(hypotheses, references, "none", bootstrap=0).bleu == table["bleu"].iloc[0]
