from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.text import Annotation
from scipy.special import logit

from sensikit import figures
from sensikit.figures import audit, style
from tests.support import synthetic_tables
from tests.support.drawn import LANGUAGES, ORDER, two

# convergence


def test_growth_as_of_independent_batches_is_a_straight_line() -> None:
    frame = synthetic_tables.convergence(LANGUAGES)
    figure = figures.convergence_curves(frame, LANGUAGES).figure
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    assert len(figure.axes) == 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(style.TIERS)
    for line in figure.axes[1].lines:
        x, y = np.log(np.asarray(line.get_xdata())), logit(np.asarray(line.get_ydata()))
        np.testing.assert_allclose(np.diff(y) / np.diff(x), 1.0)
    (line,) = (line for line in figure.axes[1].lines if line.get_gid() == "cat")
    at = frame[(frame["group"] == "cat") & (frame["subset"] == "low")]
    np.testing.assert_allclose(line.get_data(), at[["batches", "reliability"]].T)


def test_names_at_the_ends_of_lines_do_not_cover_each_other() -> None:
    frame = synthetic_tables.convergence(LANGUAGES)
    frame["reliability"] = frame.groupby(["subset", "batches"])["reliability"].transform("mean")  # all end as one
    figure = figures.convergence_curves(frame, LANGUAGES).figure
    for ax in figure.axes:
        names = [each for each in ax.texts if isinstance(each, Annotation)]
        assert sorted(each.get_text() for each in names) == sorted(ORDER)
        boxes = [each.get_window_extent() for each in names]
        assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
        assert all(box.y1 <= ax.get_window_extent().y1 + 1 for box in boxes)


def test_a_reliability_that_is_not_positive_or_not_defined_is_not_drawn() -> None:
    frame = synthetic_tables.convergence(LANGUAGES)
    frame.loc[frame["group"] == "fao", "reliability"] = -0.1
    frame.loc[frame["group"] == "nso", "reliability"] = np.nan
    figure = figures.convergence_curves(frame, LANGUAGES).figure
    assert "fao" not in [text.get_text() for text in figure.axes[0].texts]
    assert "nso" not in [text.get_text() for text in figure.axes[0].texts]
    figures.convergence_curves(frame.assign(reliability=np.nan), LANGUAGES)


def test_runs_have_a_row_of_panels_each() -> None:
    frame = two(lambda seed: synthetic_tables.convergence({"cat": LANGUAGES["cat"]}, seed))
    axes = figures.convergence_curves(frame, LANGUAGES).figure.axes
    assert [ax.get_title() for ax in axes] == [
        "high-sensitive parameters", "low-sensitive parameters", "all parameters", "", "", "",
    ]  # fmt: skip
    assert [ax.get_ylabel().split("\n")[0] for ax in axes] == ["regular", "", "", "distilled", "", ""]


# audit

FEW = {code: LANGUAGES[code] for code in ("cat", "fao")}


def test_points_are_estimate_and_exact_value_on_one_scale_with_their_agreement() -> None:
    frame, summary = synthetic_tables.audit(FEW), synthetic_tables.audit_summary(FEW)
    figure = figures.audit_scatter(frame, summary, FEW).figure
    assert [ax.get_title() for ax in figure.axes] == ["fao", "cat"]
    for ax in figure.axes:
        (points,) = (each for each in ax.collections if isinstance(each, PathCollection))
        at = frame[frame["group"] == ax.get_title()]
        np.testing.assert_allclose(points.get_offsets(), at[["taylor", "exact"]])
        assert ax.get_xlim() == ax.get_ylim()
        assert "Spearman .970 (.960–.975)" in ax.texts[0].get_text()
        assert "top 10% 91% (90%–92%)" in ax.texts[0].get_text()
        low, high = ax.get_xlim()
        assert (at[["taylor", "exact"]] <= high).all(axis=None)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert low < frame[["taylor", "exact"]].to_numpy().min()


def test_a_value_of_zero_has_no_place_on_a_logarithmic_axis_and_is_told_of() -> None:
    frame, summary = synthetic_tables.audit(FEW), synthetic_tables.audit_summary(FEW)
    frame.loc[[0, 3], "exact"] = 0.0
    figure, _, caption = figures.audit_scatter(frame, summary, FEW)
    counts = [len(each.get_offsets()) for each in figure.findobj(PathCollection)]
    assert sorted(counts) == [58, 60]
    assert "Not drawn: 2 with a value of 0" in caption
    figures.audit_scatter(frame.assign(exact=0.0, taylor=0.0), summary, FEW)


def test_agreement_that_is_not_defined_is_left_without_bounds() -> None:
    summary = synthetic_tables.audit_summary(FEW).assign(value_low=np.nan, value_high=np.nan)
    figure, _, caption = figures.audit_scatter(synthetic_tables.audit(FEW), summary, FEW)
    assert figure.axes[0].texts[0].get_text().splitlines()[0] == "Spearman .970"
    assert "none has an interval (one of fewer than 100 parameters would not hold" in caption
    summary.loc[summary["statistic"] == "spearman", ["value_low", "value_high"]] = 0.9
    caption = figures.audit_scatter(synthetic_tables.audit(FEW), summary, FEW).caption
    assert "intervals are 95%, of Spearman (one of fewer" in caption


@pytest.mark.parametrize("count", [audit.MANY, audit.MANY + 1])
def test_very_many_points_are_an_image_inside_the_vector_file(count: int) -> None:
    one = {"cat": LANGUAGES["cat"]}
    figure = figures.audit_scatter(
        synthetic_tables.audit(one, count=count), synthetic_tables.audit_summary(one), one
    ).figure
    (points,) = figure.findobj(PathCollection)
    assert bool(points.get_rasterized()) == (count > audit.MANY)


def test_the_caption_counts_what_was_sampled() -> None:
    frame, summary = synthetic_tables.audit(FEW), synthetic_tables.audit_summary(FEW)
    summary.loc[summary["group"] == "cat", "sampled"] = 1200
    text = figures.audit_scatter(frame, summary, FEW).caption
    assert "60 to 1,200 parameters were sampled; batches: 20" in text
    assert "Result: Spearman is 0.970 (0.960 to 0.975) in cat, the lowest of 2 languages; 91% of" in text
    assert isinstance(frame, pd.DataFrame)
