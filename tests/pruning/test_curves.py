"""Pruning curves against each other, from what sweeps of toys have stored."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensikit.errors import RunError
from sensikit.evaluation.metrics import METRICS, evaluate
from sensikit.evaluation.resampling import (
    Sampled,
    Scored,
    holm,
    identified,
    load_ids,
    load_sums,
    mean,
    over_seeds,
    resampled,
    swapped,
)
from sensikit.pruning import curves as pruning_curves
from sensikit.pruning.curves import curve_bands, curve_tests
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.settings import AnalysisSettings, Decoding, SweepSettings
from tests.support import toy
from tests.support.watched import ledger

SETTINGS = SweepSettings(tokenizer="none", bootstrap=60)
SWEEP = {"ratios": [0, 0.3, 0.7], "orders": ["specificity", "reverse", "random"], "seeds": [1, 2]}


def swept(path: Path, backend: toy.ToyBackend, settings: SweepSettings = SETTINGS) -> Path:
    run = analyze(backend, path, AnalysisSettings(batches=4, tokens=64))
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


def models(run: Run, order: str, ratio: float, metric: str = "bleu") -> list[list[Scored]]:
    """The test sets of one point, of each seed, scored again from the stored hypotheses."""
    table = run.read_table("pruning.csv")
    rows = table[(table["order"] == order) & (table["ratio"] == ratio) & (table["metric"] == metric)]
    found: dict[str, list[Scored]] = {}
    for file, code, seed in zip(rows["hypotheses"], rows["group"], rows["seed"], strict=True):
        references = [toy.text_of(pair.target) for pair in toy.backend().pairs[code, "test"]]
        sums = METRICS[metric].sums((run.path / file).read_text().splitlines(), references, "none")
        found.setdefault(str(seed), []).append(METRICS[metric].scored(identified(references), sums))
    return list(found.values())


def stored(run: Run, order: str, ratio: float, metric: str = "bleu") -> Sampled:
    """The mean over groups and seeds of one point."""
    return over_seeds([mean(resampled(sets, 60)) for sets in models(run, order, ratio, metric)])


def swaps(run_a: Run, run_b: Run, order_a: str, order_b: str, ratio: float) -> np.ndarray:
    """The difference of two points of one seed, swapped."""
    a, b = models(run_a, order_a, ratio)[0], models(run_b, order_b, ratio)[0]
    return np.mean([swapped(x, y, 60) for x, y in zip(a, b, strict=True)], axis=0)


def test_a_sweep_keeps_the_sums_of_each_cell_and_metric(runs: dict[str, Run]) -> None:
    run = runs["regular"]
    lines = ledger(run)
    kept = sorted(path.relative_to(run.path).as_posix() for path in run.path.glob("pruning/sums/*"))
    assert kept == sorted(line["sums"] for line in lines)
    assert len(kept) == 2 * 2 * (1 + 2 * (2 + 2))
    for line in lines:
        sums = load_sums(run.path / line["sums"], line["sums_sha256"], "prune again")
        assert sums.shape == (24, {"bleu": 10, "chrf": 24}[line["metric"]])
        ids = load_ids(run.path / "pruning/segments" / line["test_set"], "prune again")
        assert "|seg:eng|" in line["signature"]
        (found,) = resampled([METRICS[line["metric"]].scored(ids, sums)], 60)
        assert (found.value, *found.interval()) == (line["value"], line["value_low"], line["value_high"])


def of(metric: str, frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["metric"] == metric].drop(columns="metric")


def test_bands_are_of_the_mean_over_languages_and_seeds(runs: dict[str, Run]) -> None:
    bands = curve_bands(runs)
    assert list(bands) == [
        "run", "order", "ratio", "metric", "value", "value_low", "value_high", "change_low", "change_high",
        "margin", "margin_low", "margin_high",
    ]  # fmt: skip
    assert len(bands) == 2 * 2 * 3 * 3
    at = of("bleu", bands).set_index(["run", "order", "ratio"])
    start = stored(runs["id"], "none", 0.0)
    for order in ("specificity", "random"):
        whole = stored(runs["id"], order, 0.3)
        margin = whole - stored(runs["id"], "random", 0.3)
        margins = [np.nan] * 3 if order == "random" else [margin.value, *margin.interval()]
        expected = [whole.value, *whole.interval(), *(whole - start).interval(), *margins]
        assert at.loc[("id", order, 0.3)].tolist() == pytest.approx(expected, abs=1e-9, nan_ok=True)
    for order in ("specificity", "reverse", "random"):
        expected = [start.value, *start.interval(), 0, 0, *[np.nan] * 3]
        assert at.loc[("id", order, 0.0)].tolist() == pytest.approx(expected, abs=1e-9, nan_ok=True)
    chrf = of("chrf", bands).set_index(["run", "order", "ratio"]).loc[("id", "reverse", 0.7)]
    whole = stored(runs["id"], "reverse", 0.7, metric="chrf")
    assert chrf.tolist()[:3] == pytest.approx([whole.value, *whole.interval()], abs=1e-9)
    table = of("bleu", runs["id"].read_table("pruning.csv"))
    of_cells = table[(table["order"] == "specificity") & (table["ratio"] == 0.3)]
    assert at.loc[("id", "specificity", 0.3), "value"] == pytest.approx(of_cells["value"].mean())
    width = at.loc[("id", "specificity", 0.3), "value_high"] - at.loc[("id", "specificity", 0.3), "value_low"]
    assert width < (of_cells["value_high"] - of_cells["value_low"]).mean()


def test_orders_of_a_run_are_tested_against_specificity_at_each_ratio(runs: dict[str, Run]) -> None:
    found = of("bleu", curve_tests({"regular": runs["regular"]}))
    assert set(zip(found["order_a"], found["order_b"], found["ratio"], strict=True)) == {
        (order, "specificity", ratio) for order in ("reverse", "random") for ratio in (0.3, 0.7)
    }
    assert set(found["run_a"]) == set(found["run_b"]) == {"regular"}
    for row in found.itertuples():
        run = runs["regular"]
        b, a = (stored(run, order, row.ratio) for order in ("specificity", row.order_a))
        expected = (b - a).tested(swaps(run, run, row.order_a, "specificity", row.ratio))
        assert (row.seeds_a, row.seeds_b) == (2 if row.order_a == "random" else 1, 1)
        assert bool(b.seeds or a.seeds) == (row.order_a == "random")
        assert (row.difference, row.difference_low, row.difference_high, row.p) == pytest.approx(expected, abs=1e-9)
        assert (row.change, row.change_low, row.change_high, row.change_p) == pytest.approx(expected, abs=1e-9)


def test_runs_are_tested_against_the_first_in_each_order(runs: dict[str, Run]) -> None:
    found = of("bleu", curve_tests(runs))
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
        order = row.order_a if row.ratio else "none"
        null = swaps(runs["regular"], runs["id"], order, order, row.ratio)
        start = swaps(runs["regular"], runs["id"], "none", "none", 0.0)
        expected = [*(b - a).tested(null), *((b - b0) - (a - a0)).tested(null - start)]
        assert list(row)[6:14] == pytest.approx(expected, abs=1e-9)
    begin = between[between["ratio"] == 0]
    assert (begin[["change", "change_low", "change_high"]] == 0).all(axis=None)
    assert (begin["change_p"] == 1).all()
    assert (between.loc[between["ratio"] > 0, "change"] != between.loc[between["ratio"] > 0, "difference"]).all()


def test_orders_can_be_told_apart_and_the_seeds_of_random_count(runs: dict[str, Run]) -> None:
    found = of("bleu", curve_tests(runs))
    rows = found[(found["run_a"] == found["run_b"]) & (found["run_a"] == "regular") & (found["ratio"] == 0.3)]
    of_order = rows.set_index("order_a")
    assert (of_order["difference_low"] > 0).any()
    assert of_order.loc["reverse", "p"] == pytest.approx(1 / 61)
    one, other = (mean(resampled(sets, 60)).value for sets in models(runs["regular"], "random", 0.3))
    width = of_order.loc["random", "difference_high"] - of_order.loc["random", "difference_low"]
    assert width > 2 * 1.96 * abs(one - other) / 2  # of s / √2, were there no test sentences and many seeds


def test_training_seeds_of_a_recipe_are_one_curve(runs: dict[str, Run], tmp_path: Path) -> None:
    third = {"other": Run.open(swept(tmp_path / "c", toy.ToyBackend(seed=2).train(12)))}
    recipes = {"both": ["regular", "id"]}
    at = of("bleu", curve_bands({**runs, **third}, recipes)).set_index(["run", "order", "ratio"])
    assert set(at.index.get_level_values("run")) == {"both", "other"}
    start, whole = ([stored(run, order, ratio) for run in runs.values()]
                    for order, ratio in (("none", 0.0), ("random", 0.3)))  # fmt: skip
    over, change = over_seeds(whole), over_seeds([b - a for a, b in zip(start, whole, strict=True)])
    expected = [over.value, *over.interval(), *change.interval()]
    assert at.loc[("both", "random", 0.3)].tolist()[:5] == pytest.approx(expected)

    found = of("bleu", curve_tests({**runs, **third}, recipes)).set_index(["run_a", "run_b", "order_a", "ratio"])
    within = found.loc[("both", "both", "random", 0.3)]
    each = [stored(run, "specificity", 0.3) - stored(run, "random", 0.3) for run in runs.values()]
    margin = over_seeds(each)  # paired in each seed
    assert list(within)[1:5] == pytest.approx([*margin.tested(np.empty(0))])
    margins = [margin.value, *margin.interval()]
    assert at.loc[("both", "specificity", 0.3)].tolist()[5:] == pytest.approx(margins)
    between = found.loc[("both", "other", "specificity", 0.3)]
    ours = over_seeds([stored(run, "specificity", 0.3) for run in runs.values()])
    theirs = stored(third["other"], "specificity", 0.3)
    assert list(between)[1:5] == pytest.approx([*(theirs - ours).tested(np.empty(0))])
    assert (within["seeds_a"], within["seeds_b"], between["seeds_a"], between["seeds_b"]) == (2, 2, 2, 1)


def test_p_is_corrected_for_all_tests_of_a_metric_and_there_is_none_of_few_sentences(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = curve_tests(runs)
    assert few[["p_holm", "change_p_holm"]].isna().all(axis=None)
    assert (few["segments"] == 48).all()
    monkeypatch.setattr(pruning_curves, "FEWEST", 48)
    found = of("bleu", curve_tests(runs))
    between = (found["run_a"] != found["run_b"]) & (found["ratio"] > 0)
    expected = holm([*found["p"], *found.loc[between, "change_p"]])
    assert [*found["p_holm"], *found.loc[between, "change_p_holm"]] == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ("settings", "alike"),
    [
        (replace(SETTINGS, decoding=Decoding(max_sentences=20)), set()),
        (replace(SETTINGS, tokenizer="char"), {"chrf"}),
        (replace(SETTINGS, protect=0.2), set()),
    ],
    ids=["sentences", "tokenizer", "protect"],
)
def test_sweeps_that_are_not_of_the_same_are_not_compared(
    settings: SweepSettings, alike: set[str], runs: dict[str, Run], tmp_path: Path
) -> None:
    other = Run.open(swept(tmp_path / "c", toy.backend(1), settings))
    found = curve_tests({"regular": runs["regular"], "other": other})
    assert set(found.loc[found["run_a"] != found["run_b"], "metric"]) == alike
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
    assert bands["value"].notna().all()
    assert bands[["value_low", "value_high"]].isna().all(axis=None)
    assert curve_tests({"run": run})["p"].isna().all()


def test_curves_of_the_loss_go_up_and_are_tested_without_translations(tmp_path: Path) -> None:
    settings = replace(SETTINGS, metrics=("loss",))
    runs = {name: Run.open(swept(tmp_path / name, toy.backend(seed), settings)) for seed, name in enumerate("ab")}
    bands, tests = curve_bands(runs), curve_tests(runs)
    assert set(bands["metric"]) == set(tests["metric"]) == {"loss"}
    assert set(zip(tests["run_a"], tests["run_b"], strict=True)) == {("a", "a"), ("b", "b"), ("a", "b")}
    at = bands.set_index(["run", "order", "ratio"])
    assert at.loc[("a", "random", 0.7), "value"] > at.loc[("a", "random", 0.0), "value"]
    assert at.loc[("a", "random", 0.7), "change_low"] > 0
    assert (bands["value_low"] >= 0).all()


def test_a_metric_that_one_run_lacks_is_not_compared(
    paths: dict[str, Path], runs: dict[str, Run], tmp_path: Path
) -> None:
    other = Run.open(swept(tmp_path / "c", toy.backend(1), replace(SETTINGS, metrics=("bleu", "loss"))))
    found = curve_tests({"regular": runs["regular"], "other": other})
    between = found[found["run_a"] != found["run_b"]]
    assert set(between["metric"]) == {"bleu"}
    assert set(found["metric"]) == {"bleu", "chrf", "loss"}


@pytest.mark.parametrize("kind", ["missing", "of another cell"])
def test_sums_that_are_not_those_of_the_cells_are_refused(kind: str, paths: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(paths["regular"], tmp_path / "run")
    folder = tmp_path / "run" / "pruning" / "sums"
    path = folder / "cat.specificity.0.3.bleu.npy"
    if kind == "missing":
        path.unlink()
    else:
        shutil.copy(folder / "cat.reverse.0.7.bleu.npy", path)
    with pytest.raises(RunError) as caught:
        curve_bands({"run": Run.open(tmp_path / "run")})
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_ledger_that_is_missing_or_lacks_the_start_is_refused_and_not_touched(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(paths["regular"], tmp_path / "run")
    path = tmp_path / "run" / "pruning" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    torn = b"".join(lines[1:]) + lines[0][:20]
    path.write_bytes(torn)
    with pytest.raises(RunError, match=r"ledger\.jsonl: lacks the unpruned score of a group"):
        curve_bands({"run": Run.open(tmp_path / "run")})
    assert path.read_bytes() == torn
    shutil.rmtree(path.parent)
    with pytest.raises(RunError, match=r"is not a pruning sweep"):
        curve_bands({"run": Run.open(tmp_path / "run")})


def test_the_numbers_are_alive(runs: dict[str, Run]) -> None:
    found = of("bleu", curve_bands(runs))
    assert found["value"].between(0, 100).all()
    assert np.ptp(found["value"]) > 20
    references = [toy.text_of(pair.target) for pair in toy.backend().pairs["cat", "test"]]
    hypotheses = (runs["regular"].path / "hypotheses" / "cat.none.0.0.txt").read_text().splitlines()
    table = runs["regular"].read_table("pruning.csv")
    assert evaluate(hypotheses, references, "none", bootstrap=0)["bleu"].value == table["value"].iloc[0]
