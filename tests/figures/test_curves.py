from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from sensikit import figures
from sensikit.figures import curves, style
from sensikit.figures import points as points_of
from tests.support import synthetic_run, synthetic_tables
from tests.support.drawn import LANGUAGES, ORDER, lines, two


def row(order: str, group: str, ratio: float, value: float, seed: str = "", metric: str = "bleu") -> dict[str, Any]:
    bounds = {"value_low": value - 1, "value_high": value + 2}
    cell = {"order": order, "seed": seed, "group": group, "ratio": ratio, "metric": metric, "sentences": 9}
    return {**cell, "value": value, **bounds}


def test_curve_is_the_mean_over_languages_and_starts_at_the_unpruned_model() -> None:
    frame = pd.DataFrame(
        [row("none", "cat", 0, 20), row("none", "fao", 0, 10), row("specificity", "cat", 0.5, 12),
         row("specificity", "fao", 0.5, 4), row("random", "cat", 0.5, 3, "1"), row("random", "fao", 0.5, 1, "1"),
         row("random", "cat", 0.5, 7, "2"), row("random", "fao", 0.5, 5, "2")]
    )  # fmt: skip
    points = curves.curve(frame).set_index(["order", "ratio"])
    assert points["value"].to_dict() == {
        ("specificity", 0.0): 15, ("specificity", 0.5): 8, ("random", 0.0): 15, ("random", 0.5): 4
    }  # fmt: skip
    assert points.loc[("specificity", 0.5), ["low", "high"]].tolist() == [7, 10]
    assert points.loc[("random", 0.5), ["spread_low", "spread_high", "seeds"]].tolist() == [2, 6, 2]
    both = pd.concat([frame.assign(metric="chrf", value=frame["value"] + 20), frame])
    assert curves.curve(both, "chrf").set_index(["order", "ratio"]).loc[("specificity", 0.5), "value"] == 28
    pd.testing.assert_frame_equal(curves.curve(both), curves.curve(frame))  # BLEU, wherever it stands


def test_a_ratio_that_lacks_a_language_is_no_point_of_the_mean() -> None:
    frame = pd.DataFrame(
        [row("none", "cat", 0, 20), row("none", "fao", 0, 10), row("specificity", "cat", 0.5, 12),
         row("specificity", "fao", 0.5, 4), row("specificity", "cat", 0.9, 11)]
    )  # fmt: skip
    assert curves.curve(frame)["ratio"].tolist() == [0, 0.5]


def test_change_is_from_the_unpruned_model_of_the_same_run_and_has_no_bounds_of_a_score() -> None:
    frame = two(lambda seed: synthetic_run.pruning(LANGUAGES, strength=1 + seed))
    score, change = curves.curve(frame), curves.curve(frame, change=True)
    start = score["run"].map(score[score["ratio"] == 0].groupby("run")["value"].first())
    np.testing.assert_allclose(change["value"], score["value"] - start)
    assert (change.loc[change["ratio"] == 0, "value"] == 0).all()
    assert change[["low", "high"]].isna().all(axis=None)
    assert score[["low", "high"]].notna().all(axis=None)


def test_lines_are_the_points_of_the_curve() -> None:
    frame = two(lambda seed: synthetic_run.pruning(LANGUAGES, strength=1 + seed / 10))
    figure = figures.pruning_curves(frame).figure
    points = curves.curve(frame)
    for ax, label in zip(figure.axes, ("regular", "distilled"), strict=True):
        assert ax.get_title() == label
        found = lines(ax)
        assert len(found) == 5
        for name, of_name in points[points["run"] == label].groupby("order"):
            wanted = sorted(zip(of_name["ratio"], of_name["value"], strict=True))
            np.testing.assert_allclose(found[curves.line_of(str(name)).name], wanted)


def test_small_panels_share_one_scale_that_holds_every_point() -> None:
    # the first language in order is the worst: a limit set with its panel would cut off the others
    figure = figures.pruning_curves_by_group(synthetic_run.pruning(LANGUAGES), LANGUAGES).figure
    axes = [ax for ax in figure.axes if ax.lines]
    assert [ax.get_title()[:3] for ax in axes] == ORDER
    assert len({ax.get_ylim() for ax in axes}) == 1
    low, high = axes[0].get_ylim()
    values = [y for ax in axes for line in lines(ax).values() for _, y in line]
    assert low == 0
    assert max(values) == pytest.approx(21.6)
    assert all(low <= value <= high for value in values)


def test_each_small_panel_shows_its_own_language() -> None:
    frame = synthetic_run.pruning(LANGUAGES)
    figure = figures.pruning_curves_by_group(frame, LANGUAGES).figure
    for ax, code in zip(figure.axes, ORDER, strict=True):
        at = frame[(frame["group"] == code) & (frame["order"].isin(["none", "specificity"]))].query("metric == 'bleu'")
        np.testing.assert_allclose(lines(ax)["least specific first"], at[["ratio", "value"]].sort_values("ratio"))


def test_bands_are_the_bounds_of_specificity_and_the_extremes_of_the_seeds() -> None:
    frame = synthetic_run.pruning(LANGUAGES)
    (ax,) = figures.pruning_curves(frame).figure.axes
    points = curves.curve(frame).set_index("order")
    bands = [each.get_paths()[0].vertices[:, 1] for each in ax.collections]
    assert len(bands) == 2
    wanted = [points.loc["specificity", ["low", "high"]], points.loc["random", ["spread_low", "spread_high"]]]
    for band, of_order in zip(bands, wanted, strict=True):
        assert {round(y, 6) for y in band} == {round(y, 6) for y in of_order.to_numpy(dtype=float).ravel()}


def test_one_random_seed_has_no_band_that_the_caption_would_not_explain() -> None:
    frame = synthetic_run.pruning(LANGUAGES).query("seed in ('', '1')")
    (ax,) = figures.pruning_curves(frame).figure.axes
    assert len(ax.collections) == 1
    assert "seeds" not in figures.pruning_curves(frame).caption.replace("training seeds", "")
    assert "mean of 3 seeds" in figures.pruning_curves(synthetic_run.pruning(LANGUAGES)).caption


def test_controls_are_muted_and_the_question_is_on_top() -> None:
    (ax,) = figures.pruning_curves(synthetic_run.pruning(LANGUAGES)).figure.axes
    lines = {str(line.get_label()): line for line in ax.lines}
    chosen = lines.pop("least specific first")
    assert all(line.get_linewidth() < chosen.get_linewidth() for line in lines.values())
    assert all(line.get_zorder() < chosen.get_zorder() for line in lines.values())
    assert len({(line.get_marker(), str(line.get_linestyle())) for line in [chosen, *lines.values()]}) == 5


def test_an_order_without_a_line_of_its_own_is_drawn_under_its_name() -> None:
    frame = synthetic_run.pruning(LANGUAGES).replace({"order": {"magnitude": "snip"}})
    assert "snip" in lines(figures.pruning_curves(frame).figure.axes[0])


def test_a_run_has_one_colour_in_every_figure() -> None:
    frame = two(lambda seed: synthetic_run.pruning(LANGUAGES, strength=1 + seed / 10))
    compared = {
        str(line.get_label()): line.get_color() for line in figures.pruning_comparison(frame).figure.axes[0].lines
    }
    spread = two(lambda seed: synthetic_run.balance(LANGUAGES, seed))
    dots = {str(line.get_label()): line.get_color() for line in figures.balance(spread, LANGUAGES).figure.axes[1].lines}
    assert (
        {label: compared[label] for label in dots}
        == dots
        == dict(zip(("regular", "distilled"), style.COLOURS, strict=False))
    )


def test_a_change_between_models_is_told_to_favour_the_one_that_starts_lower() -> None:
    one = synthetic_run.pruning(LANGUAGES).assign(run="regular")
    two = pd.concat([one, one.assign(run="cd")])
    assert "starts lower" in figures.pruning_curves(two, change=True).caption
    assert "starts lower" not in figures.pruning_curves(two).caption
    assert "starts lower" not in figures.pruning_curves(one, change=True).caption


def test_caption_says_what_is_spared_from_the_signature_alone() -> None:
    frame = synthetic_run.pruning(LANGUAGES)
    assert "spares the 10%" in figures.pruning_curves(frame).caption
    other = frame.replace({"signature": {"protect:0.1": "protect:0.25"}}, regex=True)
    assert "spares the 25%" in figures.pruning_curves(other).caption
    released = frame.replace({"signature": {"protect:0.1": "protect:0.1|among:all"}}, regex=True)
    assert "spares the 10% of all parameters with the highest" in figures.pruning_curves(released).caption
    assert "spares" not in figures.pruning_curves(frame.drop(columns="signature")).caption


# noise


def noisy(like_random: tuple[float, ...] = (0.1, 0.9)) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Two runs with their bands and tests: at `like_random` specificity cannot be told from random."""
    frame = two(lambda seed: synthetic_run.pruning(LANGUAGES, strength=1 + seed / 10))
    points = curves.curve(frame)
    return frame, synthetic_tables.bands(points), synthetic_tables.curve_tests(points, like_random)


def marked(ax: Axes, verdict: str = "alike") -> list[float]:
    return [float(x) for line in ax.lines if line.get_gid() == verdict for x in line.get_xdata()]


def test_bands_of_the_mean_take_the_place_of_means_of_bounds() -> None:
    frame, bands, _ = noisy()
    points = curves.banded(curves.curve(frame), bands)
    np.testing.assert_allclose(points["high"] - points["value"], 0.6)
    change = curves.banded(curves.curve(frame, change=True), bands, change=True)
    start = change["ratio"] == 0
    assert (change.loc[start, ["low", "high"]] == 0).all(axis=None)
    np.testing.assert_allclose(change.loc[~start, "value"] - change.loc[~start, "low"], 0.6)
    assert "95% interval of the mean" in figures.pruning_curves(frame, bands=bands).caption


def test_a_single_run_finds_its_bands_under_whatever_name_they_have() -> None:
    frame = synthetic_run.pruning(LANGUAGES)
    points = curves.curve(frame)
    bands = synthetic_tables.bands(points).assign(run="my run")
    assert curves.banded(points, bands)["low"].notna().all()
    tests = synthetic_tables.curve_tests(points).assign(run_a="my run", run_b="my run")
    assert (curves.judged(points, tests.assign(p_holm=1.0)) == "alike").sum() == 5


def test_marks_say_better_worse_or_not_told_apart_without_colour() -> None:
    frame, bands, tests = noisy()
    tests.loc[tests["ratio"] == 0.7, "difference"] *= -1
    drawn = figures.pruning_curves(frame, bands=bands, tests=tests[tests["ratio"] != 0.5])
    for ax in drawn.figure.axes:
        found = {name: marked(ax, name) for name in curves.MARKS}
        assert found == {"better": [0.3], "worse": [0.7], "alike": [0.1, 0.9]}
        looks = {(line.get_marker(), line.get_markerfacecolor() == "white") for line in ax.lines if line.get_gid()}
        assert looks == {("^", False), ("v", False), ("o", True)}
    (legend,) = drawn.figure.legends
    assert [text.get_text() for text in legend.get_texts()][-3:] == [
        "better than random", "worse than random", "not told from random",
    ]  # fmt: skip
    assert "▲ better than random, ▼ worse, ○ not told from it" in drawn.caption
    assert drawn.data.set_index(["run", "order", "ratio"])["verdict"]["regular", "specificity", 0.5] == ""
    without = figures.pruning_curves(frame)
    assert not any(marked(without.figure.axes[0], name) for name in curves.MARKS)
    assert "▲" not in without.caption


def test_of_a_loss_less_is_better() -> None:
    tests = synthetic_tables.curve_tests(curves.curve(losses()), (0.1,))  # the difference is below 0: less loss
    assert points_of.verdicts(tests).set_index("ratio")["verdict"].to_dict() == {
        0.1: "alike", 0.3: "better", 0.5: "better", 0.7: "better", 0.9: "better",
    }  # fmt: skip
    assert points_of.verdicts(tests.assign(p_holm=np.nan)).empty


def test_orders_at_equal_sensitivity_have_a_figure_and_a_control_of_their_own() -> None:
    plain = synthetic_run.pruning(LANGUAGES)
    names = {"specificity": "matched", "reverse": "matched-reverse", "random": "matched-random"}
    of_names = plain[plain["order"].isin(names)]
    frame = pd.concat([plain, of_names.assign(order=of_names["order"].map(names))])
    tests = synthetic_tables.curve_tests(curves.curve(plain), (0.1,))
    tests = pd.concat([tests, tests.assign(order_a="matched-random", order_b="matched", p_holm=0.9)])
    both = [figures.pruning_curves(frame, tests=tests, matched=matched) for matched in (True, False)]
    assert [set(drawn.data["order"]) for drawn in both] == [set(names.values()), set(plain["order"]) - {"none"}]
    assert [marked(drawn.figure.axes[0]) for drawn in both] == [[0.1, 0.3, 0.5, 0.7, 0.9], [0.1]]
    assert "each of 100 strata of equal sensitivity" in both[0].caption
    assert "strata" not in both[1].caption
    assert all("Random is the mean of 3 seeds" in drawn.caption for drawn in both)
    assert not set(figures.pruning_curves_by_group(frame, LANGUAGES).data["order"]) & set(names.values())
    alone = figures.pruning_curves_by_group(frame[~frame["order"].isin(set(plain["order"]) - {"none"})], LANGUAGES)
    assert set(alone.data["order"]) == set(names.values())


def test_a_test_between_runs_is_none_against_random() -> None:
    frame, _, tests = noisy(())
    between = tests[tests["run_a"] != tests["run_b"]]
    assert len(between) == 6
    assert not curves.judged(curves.curve(frame), between.assign(p_holm=1.0)).any()


def test_without_a_random_order_no_mark_is_open() -> None:
    frame, _, tests = noisy()
    frame = frame[frame["order"] != "random"]
    assert not marked(figures.pruning_curves(frame, tests=tests).figure.axes[0])
    assert "○" not in figures.pruning_curves(frame, tests=tests).caption


def test_the_change_of_both_runs_stands_in_one_panel_with_their_controls() -> None:
    frame, bands, tests = noisy()
    figure = figures.pruning_comparison(frame, bands=bands, tests=tests).figure
    (ax,) = figure.axes
    points = curves.curve(frame, change=True).set_index(["run", "order"])
    for index, label in enumerate(("regular", "distilled")):
        of_run = [line for line in ax.lines if line.get_color() == style.COLOURS[index]]
        for name in ("random", "reverse"):
            (line,) = (line for line in of_run if line.get_gid() == name)
            wanted = points.loc[(label, name)].sort_values("ratio")[["ratio", "value"]]
            np.testing.assert_allclose(np.column_stack(line.get_data()), wanted)
        (line,) = (line for line in of_run if line.get_label() == label)
        np.testing.assert_allclose(line.get_ydata(), points.loc[(label, "specificity"), "value"].sort_index())
    assert len(ax.collections) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "regular", "distilled", "random", "most specific first", "better than random", "not told from random",
    ]  # fmt: skip


# other metrics than BLEU


def losses(**more: Any) -> pd.DataFrame:
    return synthetic_run.pruning(LANGUAGES, metrics=("loss",), **more)


def test_a_table_without_bleu_is_drawn_in_what_it_has() -> None:
    drawn = figures.pruning_curves(losses())
    (ax,) = drawn.figure.axes
    assert ax.get_ylabel() == "loss (nats per token)"
    assert set(drawn.data["metric"]) == {"loss"}
    assert drawn.caption.startswith("Loss (nats per token), lower is better, mean over 8 languages")
    chrf = figures.pruning_curves(synthetic_run.pruning(LANGUAGES), "chrf")
    assert chrf.figure.axes[0].get_ylabel() == "chrF++"
    assert chrf.caption.startswith("chrF++, mean over 8")


def test_a_loss_starts_at_its_unpruned_value_and_not_at_zero() -> None:
    frame = losses()
    (ax,) = figures.pruning_curves(frame).figure.axes
    start = frame.loc[frame["order"] == "none", "value"].mean()
    (baseline,) = (line for line in ax.lines if line.get_gid() == "unpruned")
    np.testing.assert_allclose(baseline.get_ydata(), start)
    assert ax.get_ylim()[0] > 0
    (change,) = figures.pruning_comparison(frame).figure.axes
    assert change.get_ylabel() == "change in loss (nats per token)"
    assert max(y for line in change.lines for y in line.get_ydata()) > 0  # pruning adds to it


def test_bands_and_tests_of_bleu_say_nothing_of_the_loss() -> None:
    frame = pd.concat([synthetic_run.pruning(LANGUAGES, metrics=("bleu", "loss"))])
    points = curves.curve(frame, "bleu")
    noise = {"bands": synthetic_tables.bands(points), "tests": synthetic_tables.curve_tests(points, (0.1,))}
    assert marked(figures.pruning_curves(frame, **noise).figure.axes[0]) == [0.1]
    loss = figures.pruning_curves(frame, "loss", **noise)
    assert not marked(loss.figure.axes[0])
    assert "○" not in loss.caption
    assert "interval of the mean" not in loss.caption
