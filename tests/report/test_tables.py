from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensikit.figures.curves import curve
from sensikit.report import costs, inputs, tables
from tests.support import synthetic_run, synthetic_tables
from tests.support.page import FEW


def test_quality_is_averaged_by_tier_and_a_tier_that_no_group_is_of_has_no_column(reported: Path) -> None:
    table = pd.read_csv(reported / "tables" / "quality.csv", index_col="Score")
    assert table.loc["BLEU"].round(6).to_dict() == {"High": 19.45, "Low": 15.1, "Very Low": 12.4, "All": 16.6}
    found = inputs.gather([synthetic_run.write_run(reported.parent / "high", {"cat": FEW["cat"], "nob": FEW["nob"]})])
    shown = tables.quality_by_tier(found.tables["pruning.csv"], found.groups).shown()
    assert shown.iloc[0].to_dict() == {"Score": "BLEU", "High": "19.45", "All": "19.45"}


def test_each_pair_of_languages_counts_once_and_none_with_itself(reported: Path) -> None:
    table = pd.read_csv(reported / "tables" / "correlation.csv", index_col="Subset")
    assert (table["Pairs"] == 6).all()
    assert (table["Most"] < 1).all()


def test_tables_are_written_for_text_and_latex_with_numbers_flush_right(reported: Path) -> None:
    latex = (reported / "tables" / "quality.tex").read_text()
    assert r"\begin{tabular}{lrrrr}" in latex
    assert r"BLEU & 19.45 & 15.10 & 12.40 & 16.60 \\" in latex
    text = (reported / "tables" / "quality.txt").read_text()
    assert text.splitlines()[1].split() == ["BLEU", "19.45", "15.10", "12.40", "16.60"]
    frame = pd.read_csv(io.StringIO((reported / "tables" / "pruning.csv").read_text()))
    assert list(frame) == ["Order", "0%", "10%", "30%", "50%", "70%", "90%"]


# the systems of the paper

TABLE_4 = [
    ("", "", "L_MMT"),
    ("", "translation", "L′_MMT + α L_id_MMT"),
    ("dae", "", "L_MMT + L_d"),
    ("dae", "decoder", "L′_MMT + L′_d + α L_id_d"),
    ("dae", "translation,decoder", "L′_MMT + L′_d + α (L_id_MMT + L_id_d)"),
    ("cd", "", "L_MMT + L_e + L_d"),
    ("cd", "encoder,decoder", "L′_MMT + L′_e + L′_d + α (L_id_e + L_id_d)"),
    ("cd", "translation,encoder,decoder", "L′_MMT + L′_e + L′_d + α (L_id_MMT + L_id_e + L_id_d)"),
    ("dae,mlm", "", "L_MMT + L_e + L_d"),
    ("mass", "", "L_MMT + L_d"),
]


@pytest.mark.parametrize(("denoise", "distill", "loss"), TABLE_4)
def test_the_rows_of_table_4_are_written_as_the_paper_has_them(denoise: str, distill: str, loss: str) -> None:
    assert tables.loss_terms(denoise, distill) == loss


def test_the_table_of_systems_says_what_each_is_and_leaves_out_what_none_has() -> None:
    facts = {name: {**of, "sha256": "ab12cd34" * 8} for name, of in synthetic_tables.TRAINED.items()}
    shown = tables.systems(facts).shown()
    assert shown.iloc[1].tolist() == [
        "cd+id", "L′_MMT + L′_e + L′_d + α (L_id_MMT + L_id_e + L_id_d)", "cd", "30%", "2", "5", "shared", "4,000",
        "ab12cd34",
    ]  # fmt: skip
    assert shown.iloc[0].tolist()[1:7] == ["L_MMT", "–", "–", "–", "–", "–"]
    assert list(tables.systems({"regular": facts["regular"]}).shown()) == ["System", "Loss", "Updates", "Checkpoint"]


# two runs


def test_the_mean_change_stands_with_its_interval_and_the_pairs_that_moved_by_more_than_theirs() -> None:
    first = synthetic_run.correlation(FEW).query("subset == 'low'")
    second = first.assign(corrected=first["corrected"] - 0.05)
    second.loc[(second["group_a"] == "cat") & (second["group_b"] == "fao"), "corrected"] += 0.15
    frame = synthetic_tables.comparison(first, second)
    mean = {"task": "mt", "subset": "low", "corrected_a": 0.7, "corrected_b": 0.65, "difference": -0.05,
            "difference_low": -0.07, "difference_high": -0.03, "paired": True, "without_low": -0.06,
            "without_high": -0.04, "seeds_a": 2, "seeds_b": 3}  # fmt: skip
    frame = pd.concat([frame, pd.DataFrame([mean])], ignore_index=True).assign(run="b − a", first="a", second="b")
    (row,) = tables.differences(frame).shown().to_dict("records")
    assert row == {
        "Seeds": "3 against 2", "Subset": "low-sensitive parameters", "PCC, a": "0.700", "PCC, b": "0.650",
        "Change": "-0.050",
        "95% from": "-0.070", "to": "-0.030", "Without one from": "-0.060", "Without one to": "-0.040",
        "Pairs": "6", "Down": "5", "Up": "1",
    }  # fmt: skip


@pytest.mark.parametrize("several", [False, True])
def test_curves_against_each_other_name_their_runs_where_there_are_several(several: bool) -> None:
    frame = synthetic_run.pruning(FEW)
    points = pd.concat([curve(frame).assign(run=label) for label in (("a", "b") if several else ("a",))])
    shown = tables.curve_tests(synthetic_tables.curve_tests(points, (0.1,))).shown()
    if several:
        assert shown.iloc[0].tolist()[:3] == ["a, random", "a, least specific first", "10%"]
        assert shown.iloc[-1].tolist()[:2] == ["a, least specific first", "b, least specific first"]
    else:
        assert shown.iloc[0].tolist()[:3] == ["random", "least specific first", "10%"]
        assert "Change" not in shown
    assert shown["p"].tolist()[:2] == ["0.4000", "0.0020"]
    assert np.isclose(float(shown["Difference"].iloc[0]), float(f"{points_difference(points):.2f}"))


def points_difference(points: pd.DataFrame) -> float:
    at = points[(points["run"] == "a") & (points["ratio"] == 0.1)].set_index("order")["value"]
    return float(at["specificity"] - at["random"])


def test_what_orders_cost_is_told_at_30_and_60_per_cent_beside_random() -> None:
    rows = [("specificity", 0.0, 20, 0, 0), ("specificity", 0.3, 18, -3, -1), ("specificity", 0.5, 9, -13, -9),
            ("random", 0.3, 16.5, -5, -2), ("random", 0.5, 8.5, -13, -10)]  # fmt: skip
    bands = pd.DataFrame(rows, columns=["order", "ratio", "value", "change_low", "change_high"])
    bands["margin"] = [np.nan, 1.5, 0.5, np.nan, np.nan]
    bands = bands.assign(run="x", metric="bleu", margin_low=bands["margin"] - 1, margin_high=bands["margin"] + 1)
    swept = pd.DataFrame({"order": ["none"], "metric": ["bleu"], "value": [20.0]})
    found = costs.order_costs(inputs.Inputs([], {}, {"pruning.csv": swept}, curves=inputs.Curves(bands)))
    assert found is not None
    assert found.frame.to_numpy().tolist() == [
        ["least specific first", "−2.00 (−3.00 to −1.00)", "+1.50 (+0.50 to +2.50)",
         "−11.00 (−13.00 to −9.00)", "+0.50 (−0.50 to +1.50), not told apart"],
        ["random", "−3.50 (−5.00 to −2.00)", "–", "−11.50 (−13.00 to −10.00)", "–"],
    ]  # fmt: skip
    assert list(found.frame)[1:3] == ["Change in BLEU at 30%", "minus random at 30%"]
    assert "50% (nearest to 60%)" in list(found.frame)[3]
