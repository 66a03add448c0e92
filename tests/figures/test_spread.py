from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from sensikit import figures
from sensikit.figures import data, spread, style
from sensikit.run import MIXED
from sensikit.statistics.specificity import LEVELS
from tests.support import synthetic_run, synthetic_tables
from tests.support.drawn import LANGUAGES, ORDER, two


def test_boxes_are_the_quantiles_of_the_table() -> None:
    frame = synthetic_run.specificity(LANGUAGES)
    left, right = figures.specificity(frame, LANGUAGES).figure.axes[:2]
    table = spread.wide(frame).set_index("group").loc[ORDER]
    boxes = [patch.get_path().vertices[:, 0] for patch in left.patches]
    np.testing.assert_allclose([box.min() for box in boxes], table["q25"])
    np.testing.assert_allclose([box.max() for box in boxes], table["q75"])
    ends = {round(float(x), 9) for line in left.lines for x in np.asarray(line.get_xdata())}
    assert ends >= {round(x, 9) for name in ("q10", "median", "q90") for x in table[name]}
    thin = left.collections[0].get_segments()
    np.testing.assert_allclose([[segment[0, 0], segment[1, 0]] for segment in thin], table[["q01", "q99"]])
    np.testing.assert_allclose(right.lines[0].get_xdata(), table["share_positive"])
    assert [label.get_text() for label in left.get_yticklabels()] == ORDER


def test_balance_is_relative_to_the_mean_of_each_language() -> None:
    frame = synthetic_run.balance(LANGUAGES)
    scaled = frame.copy()
    sized = scaled["statistic"].isin(["mean", *LEVELS]) & (scaled["group"] == "cat")
    scaled.loc[sized, "value"] *= 1000
    axes = [figures.balance(each, LANGUAGES).figure.axes[0] for each in (frame, scaled)]
    first, second = ([patch.get_path().vertices[:, 0].tolist() for patch in ax.patches] for ax in axes)
    np.testing.assert_allclose(first, second)


def test_sensitivities_of_zero_do_not_break_the_logarithmic_axis() -> None:
    frame = synthetic_run.balance(LANGUAGES)
    frame.loc[frame["statistic"].isin(["q01", "q10", "q25"]), "value"] = 0.0
    low, high = figures.balance(frame, LANGUAGES).figure.axes[0].get_xlim()
    assert 1e-4 < low < high < 1e3


def test_training_pairs_are_points_in_descending_order_coloured_by_tier() -> None:
    (ax,) = figures.data_statistics(LANGUAGES).figure.axes
    assert not ax.patches  # a logarithmic axis has no 0 for a bar to stand on
    codes = [label.get_text() for label in ax.get_xticklabels()]
    assert codes == data.sizes(LANGUAGES)["group"].tolist()
    assert ax.get_yscale() == "log"
    found = {codes[int(x)]: (y, line.get_color()) for line in ax.lines for x, y in line.get_xydata()}
    assert found == {
        code: (of["sizes"]["train"], style.TIERS[of["tier"]].colour) for code, of in LANGUAGES.items()
    }  # fmt: skip
    assert sorted(found.values(), reverse=True) == [found[code] for code in codes]
    (unknown,) = figures.data_statistics({"cat": {**LANGUAGES["cat"], "tier": "Unknown"}}).figure.axes[0].lines
    assert unknown.get_color() == style.MUTED


@pytest.mark.parametrize(
    ("sizes", "labels"), [((1056, 1900, 2200), {"1K", "2K"}), ((120, 9000, 2_000_000), {"100", "10K", "1M"})]
)
def test_small_corpora_have_their_sizes_in_plain_numbers(sizes: tuple[int, ...], labels: set[str]) -> None:
    few = {code: {**LANGUAGES[code], "sizes": {"train": size}} for code, size in zip(LANGUAGES, sizes, strict=False)}
    (ax,) = figures.data_statistics(few).figure.axes
    ax.figure.draw_without_rendering()
    shown = {label.get_text() for label in (*ax.get_yticklabels(), *ax.get_yticklabels(minor=True))}
    assert labels <= shown
    assert not any("$" in text for text in shown)


def test_monolingual_text_is_drawn_where_it_is_known() -> None:
    mono = {code: {**language, "mono": 5000 if code == "cat" else 0} for code, language in LANGUAGES.items()}
    line = figures.data_statistics(mono).figure.axes[0].lines[-1]
    assert line.get_label() == "monolingual sentences"
    assert np.asarray(line.get_ydata(), dtype=float)[~np.isnan(np.asarray(line.get_ydata(), dtype=float))].tolist() == [
        5000
    ]
    assert {line.get_label() for line in figures.data_statistics(LANGUAGES).figure.axes[0].lines} <= {*style.TIERS}


# violins


def shapes(counts: dict[str, list[int]], edges: list[float]) -> pd.DataFrame:
    rows = [
        ("mt", code, low, high, count)
        for code, of in counts.items()
        for low, high, count in zip(edges[:-1], edges[1:], of, strict=True)
    ]
    return pd.DataFrame(rows, columns=["task", "group", "low", "high", "count"])


def test_violins_have_one_area_whatever_the_count_and_the_width_of_the_bins() -> None:
    found = spread.densities(shapes({"cat": [30, 10], "fao": [2, 2]}, [0.0, 1.0, 4.0]))
    assert found["density"].tolist() == [0.75, 0.25 / 3, 0.5, 0.5 / 3]
    area = (found["density"] * (found["high"] - found["low"])).groupby(found["group"]).sum()
    np.testing.assert_allclose(area, 1.0)


def test_violins_of_more_runs_stand_beside_each_other() -> None:
    few = {"cat": LANGUAGES["cat"], "fao": LANGUAGES["fao"]}
    labels = ["a", "b", "c", "d"]
    parts = [(synthetic_tables.distribution(few, n), synthetic_run.balance(few, n)) for n in range(len(labels))]
    frame, statistics = (
        pd.concat([each.assign(run=label) for label, each in zip(labels, found, strict=True)])
        for found in zip(*parts, strict=True)
    )
    upper = figures.sensitivity_violins(frame, statistics, few).figure.axes[0]
    spans = sorted((x.min(), x.max()) for x in (each.get_paths()[0].vertices[:, 0] for each in upper.collections))
    assert len(spans) == 4 * 3  # cat, fao, and all together
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end <= start + 1e-9


def test_two_runs_share_a_violin_and_the_first_is_on_its_left() -> None:
    few = {code: LANGUAGES[code] for code in ("cat", "fao")}
    frame = two(lambda seed: synthetic_tables.distribution(few, seed))
    figure = figures.sensitivity_violins(frame, two(lambda seed: synthetic_run.balance(few, seed)), few).figure
    bodies = [each.get_paths()[0].vertices[:, 0] for each in figure.axes[0].collections]
    assert len(bodies) == 2 * 3  # and the batches of all languages
    for index, body in enumerate(bodies):
        place = index % 3
        left, right = body.min() - place, body.max() - place
        assert (left < -0.2) == (index < 3)
        assert (right > 0.2) == (index >= 3)


def test_the_deviation_stands_on_an_axis_of_its_own_and_its_ratio_to_the_mean_below() -> None:
    statistics = synthetic_run.balance(LANGUAGES)
    figure, _, caption = figures.sensitivity_violins(synthetic_tables.distribution(LANGUAGES), statistics, LANGUAGES)
    _, lower, second = figure.axes
    wanted = spread.wide(statistics).set_index("group").loc[[*ORDER, MIXED]]
    assert [label.get_text() for label in lower.get_xticklabels()] == [*ORDER, "all"]
    np.testing.assert_allclose(second.lines[0].get_ydata(), wanted["std_below_top1"] / 1e-4)
    np.testing.assert_allclose(lower.lines[0].get_ydata(), wanted["cv_below_top1"])
    assert second.get_ylim()[1] > max(second.lines[0].get_ydata())
    least, most = wanted["cv_below_top1"].min(), wanted["cv_below_top1"].max()
    assert f"{least:.2f} to {most:.2f}" in caption
