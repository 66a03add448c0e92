"""The tables of an evaluation: the paper's shape, marks where a difference is real, and what is said beneath."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sensikit.evaluation import tables as quality_tables
from sensikit.evaluation.resampling import Scored, holm, resampled
from sensikit.evaluation.scoring import Scores, evaluation_table, significance_table, tiers_table

METRICS = ("bleu", "chrf")
TIERS = {"cat": "High", "nob": "High", "fao": "Very Low"}
VALUES = {"base": (30.0, 20.0, 4.0), "m_cd": (32.0, 21.0, 4.0), "worse": (29.9, 10.0, 3.0)}
SPREAD = {"cat": 1.0, "nob": 7.0, "fao": 1.0}
"""Of a system's sentences: a change of 1 is real in cat, and is not in nob."""
RECIPES = {"ID": ("one", "two", "three")}


def sentences(value: float, spread: float, rng: np.random.Generator, count: int) -> Scored:
    """Sentences whose mean is the score."""
    noise = rng.normal(0, spread, count)
    ids = np.arange(count, dtype=np.uint64)
    return Scored(
        lambda sums: sums[..., 0] / sums[..., 1], ids, np.column_stack([value + noise - noise.mean(), ids >= 0])
    )


def scores(
    systems: tuple[str, ...] = tuple(VALUES), metrics: tuple[str, ...] = METRICS, count: int = 250,
    recipes: Mapping[str, tuple[str, ...]] | None = None, values: Mapping[str, tuple[float, ...]] = VALUES,
) -> Scores:  # fmt: skip
    rng, draws = np.random.default_rng(0), 2000
    sets = {
        (metric, system, code): sentences(value, SPREAD[code], rng, count)
        for metric in metrics
        for system in systems
        for code, value in zip(TIERS, values[system], strict=True)
    }
    signatures = {"bleu": "tok:none|v", "chrf": "nw:2|v", "loss": "kind:nll|v"}
    return Scores(
        "xxx-eng", TIERS, {metric: signatures[metric] for metric in metrics},
        {(metric, code): count for metric in metrics for code in TIERS}, sets,
        dict(zip(sets, resampled(list(sets.values()), draws), strict=True)), recipes or {}, draws,
    )  # fmt: skip


def frames(
    *systems: str, baseline: str = "base", metrics: tuple[str, ...] = METRICS, **options: Any
) -> dict[str, pd.DataFrame]:
    found = scores(systems or tuple(VALUES), metrics, **options)
    tables = {"evaluation.csv": evaluation_table(found), "tiers.csv": tiers_table(found)}
    if len(found.systems) > 1:
        tables["significance.csv"] = significance_table(found, baseline)
    return tables


MANIFEST: dict[str, Any] = {
    "baseline": "base", "signature": "E|dir:xxx-eng|v", "command": "sensikit evaluate 50% a_b", "notes": ["a note"],
    "recipes": {},
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
    tables["significance.csv"] = tests.assign(p_holm=tests["p_holm"].where(tests["metric"] != "chrf", 1.0))
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
        "Seeds",
        "Groups",
        "BLEU",
        "95% from",
        "to",
        "Change",
        "Change 95% from",
        "Change to",
        "p",
        "p Holm",
        "Without one from",
        "Without one to",
    ]
    assert rows[0] == ["base", "High", "1", "2", "25.00", *rows[0][5:7], *["–"] * 7]
    tests = tables["significance.csv"]
    found = tests[(tests["system_b"] == "m_cd") & (tests["tier"] == "All") & (tests["metric"] == "bleu")].iloc[0]
    low, high, p, corrected = (found[name] for name in ("difference_low", "difference_high", "p", "p_holm"))
    ends = f"{low:+.2f}", f"{high:+.2f}", f"{p:.4f}", f"{corrected:.4f}"
    assert rows[5][7:] == ["+1.00", *ends, "+0.50", "+1.50"]  # without cat 1 and 0, without fao 2 and 1
    assert low < 1 < high
    assert corrected > p


def test_p_is_corrected_for_all_tests_of_a_metric() -> None:
    tests = frames()["significance.csv"]
    for _, rows in tests.groupby("metric"):
        assert len(rows) == 2 * (3 + 3)
        assert rows["p_holm"].tolist() == holm(rows["p"]).tolist()
    assert tests["p"].min() == 1 / 2001
    assert tests["p_holm"].min() >= 6 / 2001


def test_under_200_sentences_nothing_is_marked_and_it_is_said() -> None:
    tables = frames(count=199)
    assert tables["significance.csv"]["p_holm"].isna().all()
    assert tables["significance.csv"]["p"].min() == 1 / 2001
    text = quality_tables.text(MANIFEST, tables)
    assert "Only 199 test sentences" in text
    assert "*" not in text
    assert "What is tested against base: approximate randomisation" in text
    assert "Only" not in quality_tables.text(MANIFEST, frames())
    # the mean over test sets of which each has too few may have enough
    tests = tables["significance.csv"]
    tables["significance.csv"] = tests.assign(segments=tests["segments"].where(tests["tier"] != "All", 300))
    assert "nothing is marked there." in quality_tables.text(MANIFEST, tables)


SEEDS = {"base": (30.0, 20.0, 4.0), "one": (31.9, 22.0, 5.0), "two": (32.1, 22.0, 6.0), "three": (32.0, 23.0, 7.0)}


def test_a_recipe_is_the_mean_of_its_seeds_and_is_what_is_tested() -> None:
    tables = frames(*SEEDS, recipes=RECIPES, values=SEEDS, metrics=("bleu",))
    assert shown("bleu-groups", tables)[5] == ["ID", "32.00*", "22.33*", "6.00"]
    tests = tables["significance.csv"]
    assert set(zip(tests["system_a"], tests["system_b"], tests["seeds_a"], tests["seeds_b"], strict=True)) == {
        ("base", "ID", 1, 3)
    }
    fao = tests[tests["group"] == "fao"].iloc[0]
    # the seeds' own variance of 1, and nearly nothing of the sentences': t of nearly 2 degrees of freedom
    assert fao["difference"] == pytest.approx(2)
    assert fao["difference_high"] - 2 == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt(1 / 3), rel=0.1)
    rows = tables["evaluation.csv"].set_index(["system", "group"])
    assert rows["seeds"].to_dict() == {
        (name, code): 3 if name == "ID" else 1 for name in (*SEEDS, "ID") for code in TIERS
    }
    assert 6 - rows.loc[("ID", "fao"), "value_low"] > 5 * (5 - rows.loc[("one", "fao"), "value_low"])
    text = quality_tables.text({**MANIFEST, "recipes": RECIPES}, tables)
    assert "those of ID also over training seeds" in text
    assert "One model against one" not in text
    assert "t over training seeds and test sentences (Welch)" in text
    assert "One training run of base: p does not know how it varies with the seed" in text


def test_one_system_alone_has_scores_with_intervals_and_no_marks() -> None:
    tables = frames("base")
    assert shown("bleu-tiers", tables)[1:] == [["base", "25.00", "4.00", "18.00"]]
    assert shown("bleu-differences", tables)[0] == ["System", "Tier", "Seeds", "Groups", "BLEU", "95% from", "to"]
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
        "* differs from base with p < 0.05 after Holm over 12 tests: approximate randomisation over test sentences",
        "One model against one (m_cd, worse against base)", "they say nothing of other seeds",
        "E|dir:xxx-eng|v", "BLEU|tok:none|v", "chrF++|nw:2|v",
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
