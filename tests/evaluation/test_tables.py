"""The tables of an evaluation: the paper's shape, marks where a difference is real, and what is said beneath."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sensikit.evaluation import tables as quality_tables
from sensikit.evaluation.resampling import Sampled
from sensikit.evaluation.scoring import Scores, evaluation_table, significance_table, tiers_table

METRICS = ("bleu", "chrf")
TIERS = {"cat": "High", "nob": "High", "fao": "Very Low"}
VALUES = {"base": (30.0, 20.0, 4.0), "m_cd": (32.0, 21.0, 4.0), "worse": (29.9, 10.0, 3.0)}
SPREAD = {"cat": 0.1, "nob": 0.9, "fao": 0.1}
"""Of the differences, over resamples: a change of 1 is real in cat, and is not in nob."""


def scores(systems: tuple[str, ...] = tuple(VALUES), metrics: tuple[str, ...] = METRICS) -> Scores:
    rng = np.random.default_rng(0)
    values = {}
    for metric in metrics:
        for system in systems:
            for code, value in zip(TIERS, VALUES[system], strict=True):
                noise = rng.normal(0, SPREAD[code], 200)
                values[metric, system, code] = Sampled(value, value + noise)
    signatures = {"bleu": "tok:none|v", "chrf": "nw:2|v", "loss": "kind:nll|v"}
    sentences = {(metric, code): 100 for metric in metrics for code in TIERS}
    return Scores("xxx-eng", TIERS, {metric: signatures[metric] for metric in metrics}, sentences, values)


def frames(*systems: str, baseline: str = "base", metrics: tuple[str, ...] = METRICS) -> dict[str, pd.DataFrame]:
    found = scores(systems or tuple(VALUES), metrics)
    tables = {"evaluation.csv": evaluation_table(found), "tiers.csv": tiers_table(found)}
    if len(found.systems) > 1:
        tables["significance.csv"] = significance_table(found, baseline)
    return tables


MANIFEST: dict[str, Any] = {
    "baseline": "base", "signature": "E|dir:xxx-eng|v", "command": "sensikit evaluate 50% a_b", "notes": ["a note"],
    "systems": {system: {"sha256": f"{number}" * 64} for number, system in enumerate(VALUES)},
}  # fmt: skip


def shown(name: str, tables: dict[str, pd.DataFrame]) -> list[list[str]]:
    table = quality_tables.tables(tables)[name][1].shown()
    return [list(table), *([cell.strip() for cell in row] for row in table.to_numpy())]


def test_systems_are_rows_and_tiers_are_columns_as_in_the_paper() -> None:
    assert shown("bleu-tiers", frames()) == [
        ["System", "High", "Very Low", "All"],
        ["base", "25.00", "4.00", "18.00"],
        ["m_cd", "26.50*", "4.00", "19.00*"],
        ["worse", "19.95*", "3.00*", "14.30*"],
    ]


def test_a_language_is_marked_where_its_difference_is_real() -> None:
    assert shown("bleu-groups", frames()) == [
        ["System", "cat", "nob", "fao"],
        ["base", "30.00", "20.00", "4.00"],
        ["m_cd", "32.00*", "21.00", "4.00"],
        ["worse", "29.90", "10.00*", "3.00*"],
    ]
    # against another baseline, another row has no marks
    rows = shown("bleu-groups", frames(baseline="worse"))
    assert rows[3] == ["worse", "29.90", "10.00", "3.00"]
    assert rows[1] == ["base", "30.00", "20.00*", "4.00*"]


def test_marks_are_those_of_the_metric() -> None:
    tables = frames()
    tests = tables["significance.csv"]
    tables["significance.csv"] = tests.assign(p=tests["p"].where(tests["metric"] != "chrf", 1.0))
    assert "*" in str(shown("bleu-tiers", tables))
    assert "*" not in str(shown("chrf-tiers", tables))


def test_the_loss_has_tables_of_its_own_that_say_that_lower_is_better() -> None:
    found = quality_tables.tables(frames(metrics=("loss",)))
    assert list(found) == ["loss-tiers", "loss-differences", "loss-groups"]
    assert all(title.startswith("Loss (lower is better)") for title, _ in found.values())
    assert shown("loss-tiers", frames(metrics=("loss",)))[2] == ["m_cd", "26.500*", "4.000", "19.000*"]
    assert not any("lower" in title for title, _ in quality_tables.tables(frames()).values())


def test_differences_stand_with_their_intervals_and_p() -> None:
    tables = frames()
    head, *rows = shown("bleu-differences", tables)
    assert head == [
        "System",
        "Tier",
        "Groups",
        "BLEU",
        "95% from",
        "to",
        "Change",
        "Change 95% from",
        "Change to",
        "p",
    ]
    assert rows[0] == ["base", "High", "2", "25.00", *rows[0][4:6], *["–"] * 4]
    tests = tables["significance.csv"]
    found = tests[(tests["system_b"] == "m_cd") & (tests["tier"] == "All") & (tests["metric"] == "bleu")].iloc[0]
    low, high, p = found["difference_low"], found["difference_high"], found["p"]
    assert rows[5][6:] == ["+1.00", f"{low:+.2f}", f"{high:+.2f}", f"{p:.3f}"]
    assert 0 < low < 1 < high


def test_one_system_alone_has_scores_with_intervals_and_no_marks() -> None:
    tables = frames("base")
    assert shown("bleu-tiers", tables)[1:] == [["base", "25.00", "4.00", "18.00"]]
    assert shown("bleu-differences", tables)[0] == ["System", "Tier", "Groups", "BLEU", "95% from", "to"]
    assert "*" not in quality_tables.text(MANIFEST, tables)


def test_tables_made_of_what_was_written_are_the_same(tmp_path: Path) -> None:
    tables = frames()
    for name, table in tables.items():
        table.to_csv(tmp_path / name, index=False)
    again = {name: pd.read_csv(tmp_path / name) for name in tables}
    assert quality_tables.text(MANIFEST, again) == quality_tables.text(MANIFEST, tables)


def test_what_is_printed_says_what_marks_and_intervals_are_and_are_not() -> None:
    text = quality_tables.text(MANIFEST, frames())
    for part in (
        "* differs from base with p < 0.05: paired bootstrap, two-sided", "one in twenty is marked by chance",
        "they do not speak of other training seeds", "E|dir:xxx-eng|v", "BLEU|tok:none|v", "chrF++|nw:2|v",
        "m_cd: ckpt 11111111", "a note",
    ):  # fmt: skip
        assert part in text
    assert text.index("BLEU, mean over groups\n") < text.index("BLEU by group") < text.index("chrF++ by group")


@pytest.mark.parametrize("name", ["tiers", "groups", "differences"])
def test_every_table_is_written_as_text_csv_and_latex(name: str, tmp_path: Path) -> None:
    quality_tables.save(tmp_path, MANIFEST, frames())
    for metric in METRICS:
        stem = tmp_path / f"{metric}-{name}"
        latex = stem.with_suffix(".tex").read_text()
        assert latex.count(r"\toprule") == latex.count(r"\midrule") == latex.count(r"\bottomrule") == 1
        body = [line for line in latex.splitlines() if not line.startswith("%")]
        assert r"m\_cd & " in latex
        assert not any("_" in line.replace(r"\_", "") or "%" in line.replace(r"\%", "") for line in body)
        columns = {line.count("&") for line in body if line.endswith(r"\\")}
        assert len(columns) == 1
        numbers = pd.read_csv(stem.with_suffix(".csv"))
        assert all(
            pd.api.types.is_numeric_dtype(numbers[column]) for column in numbers if column not in ("System", "Tier")
        )
        assert "sensikit evaluate 50% a_b" in stem.with_suffix(".txt").read_text()
