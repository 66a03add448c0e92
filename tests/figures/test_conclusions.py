"""What captions conclude, by numbers that are worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from sensikit.figures import conclusions, outcomes
from sensikit.pruning.curves import TESTS

NAMES = {"high": "high", "low": "low"}
KIN = {key: {"family": family, "tier": "", "sizes": {}} for key, family in (("a", "X"), ("b", "X"), ("c", "Y"))}


def pairs(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Rows of run, subset, group_a, group_b, corrected, half the width of its interval."""
    frame = pd.DataFrame(rows, columns=["run", "subset", "group_a", "group_b", "corrected", "half"])
    low, high = frame["corrected"] - frame["half"], frame["corrected"] + frame["half"]
    may = (high >= 1).astype("boolean").where(high.notna())
    return frame.assign(corrected_low=low, corrected_high=high, at_ceiling=may, pcc=0.5, ceiling=0.75, spearman=0.25)


def test_likeness_is_concluded_with_its_noise() -> None:
    frame = pairs(("x", "low", "a", "b", 0.8, 0.1), ("x", "low", "a", "c", 0.95, 0.1), ("x", "low", "b", "a", 0.8, 0.1),
                  ("y", "low", "a", "b", 0.4, 0.1), ("y", "low", "a", "c", 0.6, 0.3))  # fmt: skip
    assert conclusions.alike(frame, "corrected", NAMES) == (
        "by the 95% intervals, noise alone may keep the PCC from 1 in 1 of 2 pairs (low, x); in every other pair it "
        "is below 1 by more than noise. Mean PCC of 2 pairs, in brackets the mean of their 95% bounds: "
        "low: x 0.875 (0.775 to 0.975), y 0.500 (0.300 to 0.700)"
    )
    one = frame[frame["run"] == "x"].drop(columns="run")
    assert conclusions.alike(one, "pcc", NAMES) == "mean of 2 pairs: low 0.500, where noise alone would leave 0.750"
    assert conclusions.alike(one, "spearman", NAMES).startswith("mean of 2 pairs: low 0.250, without an interval")
    assert conclusions.alike(one.assign(at_ceiling=True), "corrected", NAMES).startswith(
        "in no pair is the PCC below 1"
    )
    unknown = one.assign(at_ceiling=pd.NA, corrected_low=np.nan, corrected_high=np.nan)
    assert conclusions.alike(unknown, "corrected", NAMES) == (
        "whether noise alone keeps them from 1 is not known. Mean PCC of 2 pairs: low 0.875"
    )


def test_a_change_of_likeness_has_its_interval_and_is_of_one_model_against_one() -> None:
    rows = [("high", "", -0.05, -0.06, -0.04), ("low", "", 0.01, -0.01, 0.03), ("low", "a", 9, 9, 9)]
    columns = ["subset", "group_a", "difference", "difference_low", "difference_high"]
    frame, moved = pd.DataFrame(rows, columns=columns), (
        "y minus x, mean over pairs: high −0.050 (−0.060 to −0.040); low +0.010 (−0.010 to +0.030), not told apart "
    )  # fmt: skip
    assert conclusions.changed(frame, "x", "y", NAMES) == f"{moved}(one model against one)"
    seeds = frame.assign(seeds_a=3, seeds_b=2)
    assert conclusions.changed(seeds, "x", "y", NAMES) == f"{moved}(training seeds, 2 against 3)"


def test_a_tree_says_which_families_are_branches_and_what_noise_leaves_open() -> None:
    merges = pd.DataFrame(
        [("", "a", "b", 0.1), ("", "c", "(a b)", 0.4)], columns=["run", "first", "second", "distance"]
    )
    told = "the first to join are a and b (0.100); the family of several languages has a branch of its own"
    assert conclusions.tree(merges, KIN, 0.02) == f"{told}. A pair is known to ±0.020: joins that differ by less " \
                                                  "may be noise"  # fmt: skip
    merges.loc[0, "second"] = "c"
    assert "languages has no branch of its own" in conclusions.tree(merges, KIN, np.nan)
    merges["distance"] = 0.0
    assert conclusions.tree(merges, KIN, np.nan).startswith("2 joins come first, all at 0.000; ")
    assert conclusions.tree(merges[:0], KIN, 0.02) == ""


def test_two_tasks_are_compared_language_by_language() -> None:
    frame = pairs(("x", "all", "a", "", 0.5, 0.1), ("x", "all", "b", "", 0.6, 0.1),
                  ("y", "all", "a", "", 0.8, 0.1), ("y", "all", "b", "", 0.7, 0.1))  # fmt: skip
    frame = frame.rename(columns={"group_a": "group"})
    assert conclusions.similar(frame, frame, {"all": "all"}) == (
        "by the 95% intervals, the PCC is below 1 by more than noise in every language. Mean over languages, in "
        "brackets the mean of their 95% bounds: all: x 0.550 (0.450 to 0.650), y 0.750 (0.650 to 0.850). All: "
        "compared with x, y is higher in 1 and lower in 0 of 2 languages, by intervals that lie apart (one model "
        "against one)"
    )
    wide = frame.assign(corrected_low=0.0, corrected_high=2.0)  # two seeds that differ say nothing of the noise of each
    said = conclusions.similar(frame, wide, {"all": "all"})
    assert "below 1 by more than noise in every language" in said
    assert "higher in 0 and lower in 0 of 2 languages" in said


def test_measures_of_languages_have_their_span() -> None:
    table = pd.DataFrame({"run": [*"xxyy"], "group": [*"abab"], "median": [-0.2, 0.1, -0.1, -0.3],
                          "share_positive": [0.3, 0.6, 0.4, 0.4], "cv": [2.0, 3.0, 1.0, 4.0]})  # fmt: skip
    one = table[:2].drop(columns="run")
    assert conclusions.specific(one) == (
        "the median of D is −0.200 to 0.100, below 0 in 1 of 2 languages; 30% to 60% of the parameters matter more to "
        "a language than to the rest (without an interval)"
    )
    assert conclusions.even(table, "cv", "spread", ".1f") == (
        "spread, by language without an interval: x 2.0 to 3.0; y 1.0 to 4.0. Compared with x, y is lower in 1 of 2 "
        "languages (one model against one)"
    )
    amounts = pd.DataFrame({"group": [*"abc"], "train": [900, 90, 10]})
    assert conclusions.amounts(amounts) == "from 10 (c) to 900 (a), 90 times as many; a has 90% of all"


def test_parts_of_the_model_are_named_where_they_are_extreme() -> None:
    cells = pd.DataFrame(
        {"row": ["fc", "fc", "q", "q"], "group": [*"abab"], "parameters": [30, 30, 10, 10],
         "sensitivity_share": [0.6, 0.8, 0.4, 0.2], "specificity_median": [-0.2, 0.1, -0.1, -0.3],
         "pcc": [0.9, 0.7, 0.5, 0.3]}
    )  # fmt: skip
    assert conclusions.parts(cells) == (
        "fc has the most of S, 60% to 80% by language with 75% of the parameters; the median of D is highest in fc "
        "(−0.20 to +0.10) and lowest in q (−0.30 to −0.10)"
    )
    others = cells.assign(specificity_median=[0.2, 0.1, -0.1, -0.3])
    assert conclusions.favourite(others) == "fc has the highest median in 2 of 2 languages (without an interval)"
    assert conclusions.favourite(cells).startswith("no part has the highest median in more than 1 of 2 languages")
    tied = pd.concat([cells, cells.assign(group=[*"cdcd"])], ignore_index=True)
    assert conclusions.favourite(tied) == "q and fc have the highest median in 2 of 4 languages each " \
                                          "(without an interval)"  # fmt: skip
    assert conclusions.within(cells).startswith(
        "languages are most alike within fc (0.80, 0.70 to 0.90 over pairs) and least within q (0.40, 0.30 to 0.50"
    )
    overlap = pd.DataFrame([(0.1, "a", "b", 0.3, 0.1), (0.1, "a", "c", 0.1, 0.1), (0.1, "b", "c", 0.2, 0.1)],
                           columns=["share", "group_a", "group_b", "jaccard", "expected"])  # fmt: skip
    assert conclusions.overlapping(overlap, KIN) == (
        "overlap of the top 10% ÷ that by chance, mean of the pairs: 2.0 (1.0 to 3.0; 3.0 within families, 1.5 across)"
    )


# pruning


def compared(*rows: dict[str, Any]) -> pd.DataFrame:
    usual = {"run_a": "x", "order_a": "random", "run_b": "x", "order_b": "specificity", "metric": "bleu",
             "segments": 300, "p_holm": 0.01, "change_p_holm": 0.01}  # fmt: skip
    frame = pd.DataFrame([{**dict.fromkeys(TESTS, np.nan), **usual, **row} for row in rows])
    for column in ("difference", "change"):
        frame[f"{column}_low"], frame[f"{column}_high"] = frame[column] - 1, frame[column] + 1
    return frame


@pytest.mark.parametrize(
    ("row", "said"),
    [({"difference": 2.0}, "better"), ({"difference": -2.0}, "worse"),
     ({"difference": -2.0, "metric": "loss"}, "better"), ({"difference": 2.0, "p_holm": 0.05}, "not told apart"),
     ({"difference": 2.0, "p_holm": np.nan, "segments": 199}, "no test under 200 sentences")],
)  # fmt: skip
def test_a_verdict_rests_on_the_corrected_p(row: dict[str, Any], said: str) -> None:
    assert outcomes.verdict(compared(row).iloc[0]) == said


def test_orders_are_compared_at_30_and_60_per_cent_or_the_nearest() -> None:
    frame = compared({"ratio": 0.3, "difference": 2.0}, {"ratio": 0.5, "difference": 0.5, "p_holm": 0.4},
                   {"ratio": 0.9, "difference": 9.0},
                   {"ratio": 0.3, "difference": 7.0, "order_a": "reverse"})  # fmt: skip
    assert outcomes.against(frame, "specificity", "random", ("chosen", "random")) == (
        "chosen minus random in BLEU: +2.00 (+1.00 to +3.00) at 30%, better; +0.50 (−0.50 to +1.50) at 50%, not told "
        "apart"
    )
    few = frame.assign(p_holm=np.nan, segments=20)
    assert outcomes.against(few, "specificity", "random", ("chosen", "random")).endswith(
        "at 30% and +0.50 (−0.50 to +1.50) at 50%, no test under 200 sentences"
    )
    assert outcomes.against(frame, "matched", "matched-random", ("", "")) == ""
    assert outcomes.told([0, 0.5]) == {0.5: "50% (nearest to 30%)"}
    assert outcomes.told([0]) == {}
    other = frame.assign(run_b="y", change=-2.0, change_low=-3.0, change_high=-1.0, seeds_a=2, seeds_b=3)[:1]
    assert outcomes.between(other, "specificity", "chosen") == (
        "y minus x in the change of BLEU, chosen: −2.00 (−3.00 to −1.00) at 30%, loses more (training seeds, 3 against "
        "2)"
    )


def test_what_is_left_and_who_loses_most() -> None:
    values = {"a": {0: 20, 0.6: 10}, "b": {0: 10, 0.6: 8}}
    rows = [(ratio, key, at, at - 1, at + 1) for key, of in values.items() for ratio, at in of.items()]
    points = pd.DataFrame(rows, columns=["ratio", "group", "value", "low", "high"]).assign(
        run="", order="specificity", metric="bleu"
    )
    assert (
        outcomes.left(points[:2], "specificity", "chosen")
        == "BLEU, chosen: 20.00 unpruned, 10.00 (9.00 to 11.00) at 60%"
    )
    assert outcomes.extremes(points, "specificity", "chosen") == (
        "share of BLEU, chosen: at 60% b keeps the most, 8.00 (7.00 to 9.00) of 10.00, and a the least, 10.00 (9.00 to "
        "11.00) of 20.00"
    )
    loss = points.assign(metric="loss", value=1 / points["value"], low=np.nan)
    assert outcomes.extremes(loss, "specificity", "chosen") == (
        "loss, chosen: at 60% b rises the least, from 0.100 to 0.125, and a the most, from 0.050 to 0.100"
    )


def test_a_language_spares_itself_where_its_bound_is_beyond_the_others() -> None:
    cells = pd.DataFrame(
        [("a", "a", 0.5, 0.8, 7.0), ("a", "b", 0.5, 0.6, 0.0), ("b", "b", 0.5, 0.7, 5.0), ("b", "a", 0.5, 0.6, 0.0)],
        columns=["group", "evaluated", "ratio", "effect", "value_low"],
    ).assign(unpruned=10.0)
    assert outcomes.spared(cells, "bleu", [0.5]) == (
        "kept on average: 50% pruned, 75% by the language itself and 60% by the others (apart, by its 95% interval, in "
        "1 of 2 rows)"
    )


def test_gains_and_masking_ratios_are_told_with_what_they_are_not_told_from() -> None:
    rows = compared({"difference": 1.5}, {"difference": 0.5, "p_holm": 0.2}).assign(system_b=["cd", "id"])
    assert outcomes.gained(rows) == "mean over all languages: cd +1.50 (+0.50 to +2.50), better; id +0.50 (−0.50 to " \
                                    "+1.50), not told apart"  # fmt: skip
    ratios = pd.DataFrame({"mask_ratio": [0.1, 0.3, 0.5], "mean": [10.0, 12.0, 11.0], "metric": "bleu"})
    ratios = ratios.assign(low=ratios["mean"] - 0.6, high=ratios["mean"] + 0.6)
    assert outcomes.best(ratios) == "over all languages BLEU is best at 30%, 12.00 (11.40 to 12.60); not told apart " \
                                    "from 50%, whose intervals overlap with it"  # fmt: skip
