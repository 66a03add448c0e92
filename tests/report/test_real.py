"""A report of real runs: what is compared from the sensitivities and resamples that they store."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sensikit.pruning.curves import curve_tests
from sensikit.run import Run
from sensikit.statistics.comparison import correlation_difference
from tests.support.command import done
from tests.support.page import Page


@pytest.fixture(scope="module")
def out(real_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    done("report", *(real_runs / name for name in ("first", "second", "evaluation")), "--out", place)
    return place


def test_the_report_opens_from_disk(real_runs: Path, out: Path) -> None:
    page = (out / "report.html").read_text()
    for name in ("first", "second"):
        assert Run.open(real_runs / name).analysis()["signature"] in page.replace("<wbr>", "")
    assert "data:image" in page


def test_the_difference_of_two_runs_is_in_the_summary_and_in_a_table(real_runs: Path, out: Path) -> None:
    runs = [Run.open(real_runs / name) for name in ("first", "second")]
    found = correlation_difference(*runs)
    mean = found[(found["group_a"] == "") & (found["subset"] == "low")].iloc[0]
    table = pd.read_csv(out / "tables" / "difference.csv").set_index("Subset")
    assert table.loc["90% low-sensitive parameters", "Change"] == pytest.approx(mean["difference"])
    text = Page(out / "report.html").text
    assert f"second minus first is {mean['difference']:+.3f}".replace("-", "−") in text
    assert "A turned corner marks" in text
    assert 'id="significant"' in (out / "figures" / "correlation-mt.svg").read_text()


def test_curves_of_real_runs_are_tested_against_each_other(real_runs: Path, out: Path) -> None:
    runs = {name: Run.open(real_runs / name) for name in ("first", "second")}
    found = curve_tests(runs).query("metric == 'bleu'")  # chrF++ has no table of its own beside it
    table = pd.read_csv(out / "tables" / "pruning-tests.csv")
    assert table["p"].tolist() == found["p"].tolist()
    assert "Under 200 test sentences (here " in Page(out / "report.html").text
    assert table["Difference"].tolist() == pytest.approx(found["difference"].tolist())
    assert not (out / "tables" / "pruning-verdicts.csv").exists()
    points = pd.read_csv(out / "figures" / "pruning-change.csv")
    changed = points[points["ratio"] == 0.5]
    assert (changed["low"] <= changed["value"]).all()
    assert (changed["value"] <= changed["high"]).all()


def test_what_only_one_run_has_is_listed_for_the_other(real_runs: Path, out: Path) -> None:
    text = Page(out / "report.html").text
    assert f"sensikit audit {real_runs / 'second'}" in text
    assert f"sensikit audit {real_runs / 'first'}" not in text.split("Contents")[0]
    assert f"sensikit prune {real_runs / 'second'} --seeds 1 --tokenizer 13a --beam 2 --cross" in text
    stems = {path.stem for path in (out / "figures").iterdir()}
    assert {"pruning-cross-specificity", "audit-mt", "convergence-mt", "components-mt", "gains-xxx-eng"} <= stems
