from __future__ import annotations

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from sensikit import figures
from sensikit.errors import SensikitError
from sensikit.figures import correlation, grids, words
from tests.support import synthetic_run, synthetic_tables
from tests.support.drawn import LANGUAGES, ORDER, cells, maps, numbers, texts, two


def test_languages_stand_by_family_then_tier_then_size() -> None:
    assert figures.order(LANGUAGES) == ORDER
    shuffled = {code: LANGUAGES[code] for code in sorted(LANGUAGES, reverse=True)}
    assert figures.order(shuffled) == ORDER


def test_heat_map_cells_are_the_pcc_of_the_frame_with_the_reliability_on_the_diagonal() -> None:
    frame = synthetic_run.correlation(LANGUAGES).sample(frac=1, random_state=3)  # the order of rows does not matter
    figure = figures.correlation_heatmaps(frame, LANGUAGES, ("high", "low"), value="pcc").figure
    for ax, subset in zip(maps(figure), ("high", "low"), strict=True):
        at = frame[frame["subset"] == subset].set_index(["group_a", "group_b"])
        wanted = [[at.loc[(a, b), "pcc" if a != b else "reliability_a"] for b in ORDER] for a in ORDER]
        np.testing.assert_allclose(cells(ax), wanted)
        assert [label.get_text() for label in ax.get_xticklabels()] == ORDER
        assert [label.get_text() for label in ax.get_yticklabels()] == ORDER


def test_heat_maps_of_runs_share_one_scale_in_each_group_and_not_between_groups() -> None:
    frame = two(lambda seed: synthetic_run.correlation(LANGUAGES, seed, 0.12 * seed))
    figure, _, caption = figures.correlation_heatmaps(frame, LANGUAGES)
    scales = [ax.collections[0].get_clim() for ax in maps(figure)]
    assert len(scales) == 6
    assert scales[0::2] == scales[1::2]
    assert scales[0] != scales[2]
    for (low, high), subset in zip(scales[0::2], words.SUBSETS, strict=True):
        at = frame[frame["subset"] == subset]
        shown = at["corrected"]
        assert low <= shown.min() < low + 0.05
        assert high - 0.05 < shown.max() <= high
        assert f"{low:.2f} to {high:.2f} for {words.subset_names(frame)[subset]}" in caption


def test_runs_keep_their_order_and_stand_above_their_column() -> None:
    frame = two(lambda seed: synthetic_run.correlation(LANGUAGES, seed))
    figure = figures.correlation_heatmaps(frame, LANGUAGES, ("low",)).figure
    assert [ax.get_title() for ax in maps(figure)] == ["regular", "distilled"]
    of_first = correlation.matrix(frame[(frame["run"] == "regular") & (frame["subset"] == "low")], ORDER)
    np.testing.assert_allclose(cells(maps(figure)[0]), of_first)


@pytest.mark.parametrize("value", ["corrected", "pcc", "spearman"])
def test_dots_mark_the_pairs_whose_corrected_pcc_may_be_1_and_no_others(value: str) -> None:
    frame = synthetic_run.correlation(LANGUAGES).query("subset == 'low'").copy()
    frame["corrected_high"] = 0.99
    reached = frame["group_a"].isin(["cat", "nso"]) & frame["group_b"].isin(["cat", "nso"])
    frame.loc[reached, "corrected_high"] = 1.0
    figure, _, caption = figures.correlation_heatmaps(frame, LANGUAGES, value=value)
    (dots,) = (each for each in maps(figure)[0].collections if isinstance(each, PathCollection))
    places = {(ORDER[int(y)], ORDER[int(x)]) for x, y in dots.get_offsets()}
    told = value != "spearman"  # of which no noise is known
    assert places == ({("cat", "nso"), ("nso", "cat")} if told else set())
    assert ("dot marks" in caption) == told


def test_without_intervals_nothing_is_said_to_be_at_the_ceiling() -> None:
    frame = synthetic_run.correlation(LANGUAGES).assign(corrected_low=np.nan, corrected_high=np.nan)
    figure, _, caption = figures.correlation_heatmaps(frame, LANGUAGES)
    assert all(not len(each.get_offsets()) for each in figure.findobj(PathCollection))
    assert correlation.pairs(frame)["at_ceiling"].isna().all()
    assert "dot" not in caption


def test_without_a_ceiling_the_diagonal_is_empty_and_not_one() -> None:
    frame = synthetic_run.correlation(LANGUAGES).assign(ceiling=np.nan)
    drawn = figures.correlation_heatmaps(frame, LANGUAGES, ("low",), value="pcc")
    assert np.isnan(np.diag(cells(maps(drawn.figure)[0]))).all()
    assert "No noise ceiling" in drawn.caption


@pytest.mark.parametrize(
    ("value", "decimals", "short", "text"),
    [(0.614, 2, False, "0.61"), (0.9996, 2, False, "0.99"), (0.9996, 3, False, "0.999"), (1.0, 2, False, "1.00"),
     (0.614, 2, True, ".61"), (-0.052, 2, True, "-.05"), (np.nan, 2, False, "")],
)  # fmt: skip
def test_a_correlation_is_never_rounded_up_to_one(value: float, decimals: int, short: bool, text: str) -> None:
    assert correlation.number(value, decimals, short) == text


def test_values_near_one_get_a_third_digit() -> None:
    frame = synthetic_run.correlation(LANGUAGES).query("subset == 'high'").copy()
    frame["ceiling"], frame["pcc"] = 0.9912, 0.9942
    assert numbers(figures.correlation_heatmaps(frame, LANGUAGES, value="pcc").figure).count("0.99") == 8 * 8
    frame["ceiling"], frame["pcc"] = 0.9988, 0.9881  # two digits would show a pair at its ceiling that is far below it
    found = numbers(figures.correlation_heatmaps(frame, LANGUAGES, value="pcc").figure)
    assert (found.count(".999"), found.count(".988")) == (8, 8 * 7)


def test_many_languages_get_short_numbers_that_fit_their_cells() -> None:
    many = synthetic_run.more_languages(24)
    figure = figures.correlation_heatmaps(synthetic_run.correlation(many), many, value="pcc").figure
    renderer = matplotlib.backends.backend_agg.FigureCanvasAgg(figure).get_renderer()
    for ax in maps(figure):
        width = ax.get_window_extent(renderer).width / 24
        assert len(ax.texts) == 24 * 24
        assert all(text.get_window_extent(renderer).width <= width for text in ax.texts)
        assert all(not text.get_text().startswith("0") for text in ax.texts)


def test_a_pair_that_was_not_measured_is_an_empty_cell() -> None:
    frame = synthetic_run.correlation(LANGUAGES)
    frame = frame[~((frame["group_a"] == "cat") & (frame["group_b"] == "fao"))]
    values = cells(maps(figures.correlation_heatmaps(frame, LANGUAGES, ("all",), value="pcc").figure)[0])
    assert np.argwhere(np.isnan(values)).tolist() == [[ORDER.index("cat"), ORDER.index("fao")]]


def test_a_task_that_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(SensikitError, match="task denoise: has no correlation"):
        figures.correlation_heatmaps(synthetic_run.correlation(LANGUAGES), LANGUAGES, task="denoise")


@pytest.mark.parametrize("count", [2, 4, 8])
def test_no_title_is_cut_off_whatever_the_number_of_languages(count: int) -> None:
    languages = {code: LANGUAGES[code] for code in ORDER[:count]}
    figure = figures.correlation_heatmaps(synthetic_run.correlation(languages), languages).figure
    height = figure.bbox.height
    tops = [ax.title.get_window_extent().y1 for ax in maps(figure)]
    assert len(tops) == 3
    assert max(tops) <= height


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_no_name_of_a_group_runs_into_another_whatever_the_number_of_runs(count: int) -> None:
    frame = pd.concat([synthetic_run.correlation(LANGUAGES, seed).assign(run=f"run {seed}") for seed in range(count)])
    figure = figures.correlation_heatmaps(frame, LANGUAGES).figure
    names = [ax.yaxis.label.get_window_extent() for ax in figure.axes if "parameters" in ax.get_ylabel()]
    assert len(names) == 3
    for above, below in itertools.pairwise(names):
        assert above.y0 > below.y1
    assert names[0].y1 <= figure.bbox.height


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.95, 1.0, [0.95, 0.96, 0.97, 0.98, 0.99, 1.0]),
        (0.8, 1.0, [0.8, 0.85, 0.9, 0.95, 1.0]),
        (0.6, 1.0, [0.6, 0.7, 0.8, 0.9, 1.0]),
        (-0.03, 0.03, [-0.03, 0.0, 0.03]),
        (-0.05, 0.05, [-0.05, 0.0, 0.05]),
        (-0.1, 0.1, [-0.1, -0.05, 0.0, 0.05, 0.1]),
    ],
)
def test_ticks_of_the_colour_scale_are_evenly_apart(low: float, high: float, ticks: list[float]) -> None:
    assert grids.bar_ticks(low, high) == ticks


# two runs


def compared(half: float = 0.02) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two runs, the low subset of the second 0.05 lower in every pair, cat and fao 0.01; and their difference."""
    first = synthetic_run.correlation(LANGUAGES)
    second = first.copy()
    fell = (first["group_a"] != first["group_b"]) & (first["subset"] == "low")
    spared = first["group_a"].isin(["cat", "fao"]) & first["group_b"].isin(["cat", "fao"])
    second["corrected"] -= 0.05 * (fell & ~spared) + 0.01 * (fell & spared)
    return two(lambda place: (first, second)[place]), synthetic_tables.comparison(first, second, half)


def test_the_difference_stands_beside_the_two_runs_on_a_scale_of_its_own_around_zero() -> None:
    frame, difference = compared()
    figure = figures.correlation_heatmaps(frame, LANGUAGES, ("high", "low"), difference=difference).figure
    found = maps(figure)
    assert [ax.get_title() for ax in found] == ["regular", "distilled", "distilled − regular", "", "", ""]
    low = cells(found[5])
    assert np.isnan(np.diag(low)).all()
    place = ORDER.index("cat"), ORDER.index("fao")
    assert low[place] == pytest.approx(-0.01)
    assert np.isclose(low[~np.eye(8, dtype=bool)], -0.05).sum() == 8 * 7 - 2
    assert found[5].collections[0].get_clim() == (-0.05, 0.05)
    assert found[3].collections[0].get_clim() == found[4].collections[0].get_clim()


def test_a_turned_corner_marks_the_pairs_whose_interval_excludes_zero_and_no_others() -> None:
    frame, difference = compared()
    figure, _, text = figures.correlation_heatmaps(frame, LANGUAGES, difference=difference)
    marks = [[each for each in ax.patches if each.get_gid() == "significant"] for ax in maps(figure)]
    assert [len(each) for each in marks] == [0, 0, 0, 0, 0, 8 * 7 - 2, 0, 0, 0]
    places = {tuple(np.floor(each.get_xy()[0]).astype(int)) for each in marks[5]}
    assert (ORDER.index("cat"), ORDER.index("fao")) not in places
    assert "0 of 28 pairs (high)" in text
    assert "27 of 28 pairs (low)" in text


def test_the_data_hold_the_difference_beside_the_rows_of_the_second_run() -> None:
    frame, difference = compared()
    data = figures.correlation_heatmaps(frame, LANGUAGES, ("low",), difference=difference).data
    assert len(data) == len(frame)
    first, second = (data[data["run"] == label].reset_index(drop=True) for label in ("regular", "distilled"))
    assert first["difference"].isna().all()
    changes = second["corrected"] - first["corrected"]
    other = second["group_a"] != second["group_b"]
    np.testing.assert_allclose(second.loc[other, "difference"], changes[other])


def test_the_mean_over_pairs_is_no_pair() -> None:
    frame, difference = compared()
    mean = difference.iloc[:1].assign(subset="low", group_a=np.nan, group_b=np.nan, difference=-0.9)
    both = pd.concat([difference, mean], ignore_index=True)
    figure, _, caption = figures.correlation_heatmaps(frame, LANGUAGES, ("low",), difference=both)
    assert maps(figure)[2].collections[0].get_clim() == (-0.05, 0.05)
    assert correlation.mean_changes(both)["difference"].tolist() == [-0.9]
    assert "27 of 28" in caption


def test_without_intervals_no_difference_is_marked() -> None:
    frame, difference = compared()
    difference[["difference_low", "difference_high"]] = np.nan
    figure, _, caption = figures.correlation_heatmaps(frame, LANGUAGES, ("low",), difference=difference)
    assert not [patch for patch in maps(figure)[2].patches if patch.get_gid() == "significant"]
    assert "No interval" in caption


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(-0.0312, 2, "−.03"), (0.0312, 3, "+.031"), (0.001, 2, ".00"), (-0.001, 2, ".00"), (np.nan, 2, "")],
)
def test_a_difference_has_its_sign_and_nothing_has_none(value: float, decimals: int, text: str) -> None:
    assert correlation.signed(value, decimals) == text


# corrected for noise


def test_the_corrected_correlation_may_exceed_one_and_has_no_diagonal() -> None:
    frame = synthetic_run.correlation(LANGUAGES)
    frame.loc[(frame["subset"] == "low") & (frame["group_a"] == "nso") & (frame["group_b"] == "fao"),
              "corrected"] = 1.07  # fmt: skip
    figure = figures.correlation_heatmaps(frame, LANGUAGES, ("low",)).figure
    (ax,) = maps(figure)
    at = frame[frame["subset"] == "low"].set_index(["group_a", "group_b"])["corrected"]
    wanted = np.array([[np.nan if a == b else at[a, b] for b in ORDER] for a in ORDER])
    np.testing.assert_allclose(cells(ax), wanted)
    assert "1.07" in numbers(figure)
    assert ax.collections[0].get_clim()[1] == pytest.approx(1.1)


@pytest.mark.parametrize("value", list(correlation.VALUES))
def test_each_measure_has_its_column_its_scale_and_its_meaning(value: str) -> None:
    frame = synthetic_run.correlation(LANGUAGES)
    drawn = figures.correlation_heatmaps(frame, LANGUAGES, ("low",), value=value)
    (ax,) = maps(drawn.figure)
    at = frame[frame["subset"] == "low"].set_index(["group_a", "group_b"])[value]
    assert cells(ax)[0, 1] == pytest.approx(at[ORDER[0], ORDER[1]])
    assert correlation.VALUES[value] in texts(drawn.figure)
    assert drawn.caption.startswith(correlation.MEANINGS[value])
    assert figures.dendrogram(frame, LANGUAGES, value=value).data["distance"].iloc[0] == pytest.approx(
        1 - at[at.index.get_level_values(0) != at.index.get_level_values(1)].max()
    )


def test_subsets_are_called_by_their_share_where_every_run_has_the_same() -> None:
    frame = synthetic_run.correlation(LANGUAGES)
    assert words.subset_names(frame)["low"] == "90% low-sensitive parameters"
    other = frame.assign(run="b", parameters=frame["parameters"].where(frame["subset"] != "high", 200_000))
    assert words.subset_names(other)["high"] == "20% high-sensitive parameters"
    for unknown in (pd.concat([frame.assign(run="a"), other]), frame[frame["subset"] == "low"]):
        assert words.subset_names(unknown) == words.SUBSETS
