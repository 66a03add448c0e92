from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from sensikit import figures
from sensikit.errors import SensikitError
from sensikit.figures import curves, distributions, heatmaps, sizes, style
from tests import synthetic_run

LANGUAGES = synthetic_run.LANGUAGES
ORDER = ["nso", "ind", "msa", "tgl", "nob", "fao", "cat", "fur"]  # by family as in Table 7, then tier


def two(make: Callable[[int], pd.DataFrame]) -> pd.DataFrame:
    """Return two runs whose names do not stand in alphabetical order."""
    return pd.concat([make(0).assign(run="regular"), make(1).assign(run="distilled")], ignore_index=True)


def panels(figure: Figure) -> list[Axes]:
    return [
        ax for ax in figure.axes if any(isinstance(mesh, QuadMesh) for mesh in ax.collections) and ax.get_yticks().size
    ]


def maps(figure: Figure) -> list[Axes]:
    return [ax for ax in panels(figure) if ax.get_label() != "<colorbar>"]


def cells(ax: Axes) -> np.ndarray:
    (mesh,) = (each for each in ax.collections if isinstance(each, QuadMesh))
    values = np.asarray(np.ma.filled(mesh.get_array(), np.nan), dtype=float)
    side = round(len(values.ravel()) ** 0.5)
    return values.reshape(side, side)


def numbers(figure: Figure) -> list[str]:
    return [text.get_text() for ax in maps(figure) for text in ax.texts]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


# languages


def test_languages_stand_by_family_then_tier_then_size() -> None:
    assert figures.order(LANGUAGES) == ORDER
    shuffled = {code: LANGUAGES[code] for code in sorted(LANGUAGES, reverse=True)}
    assert figures.order(shuffled) == ORDER


# heat maps


def test_heat_map_cells_are_the_pcc_of_the_frame_with_the_reliability_on_the_diagonal() -> None:
    frame = synthetic_run.correlation(LANGUAGES).sample(frac=1, random_state=3)  # the order of rows does not matter
    figure = figures.correlation_heatmaps(frame, LANGUAGES, ("high", "low"))
    for ax, group in zip(maps(figure), ("high", "low"), strict=True):
        at = frame[frame["group"] == group].set_index(["language_a", "language_b"])
        wanted = [[at.loc[(a, b), "pcc" if a != b else "reliability_a"] for b in ORDER] for a in ORDER]
        np.testing.assert_allclose(cells(ax), wanted)
        assert [label.get_text() for label in ax.get_xticklabels()] == ORDER
        assert [label.get_text() for label in ax.get_yticklabels()] == ORDER


def test_heat_maps_of_runs_share_one_scale_in_each_group_and_not_between_groups() -> None:
    frame = two(lambda seed: synthetic_run.correlation(LANGUAGES, seed, 0.12 * seed))
    figure = figures.correlation_heatmaps(frame, LANGUAGES)
    scales = [ax.collections[0].get_clim() for ax in maps(figure)]
    assert len(scales) == 6
    assert scales[0::2] == scales[1::2]
    assert scales[0] != scales[2]
    for (low, high), group in zip(scales[0::2], heatmaps.GROUPS, strict=True):
        at = frame[frame["group"] == group]
        shown = at["pcc"].where(at["language_a"] != at["language_b"], at["ceiling"])
        assert low <= shown.min() < low + 0.05
        assert high - 0.05 < shown.max() <= high
        assert f"{low:.2f} to {high:.2f} for {heatmaps.GROUPS[group]}" in heatmaps.caption(frame, LANGUAGES)


def test_runs_keep_their_order_and_stand_above_their_column() -> None:
    frame = two(lambda seed: synthetic_run.correlation(LANGUAGES, seed))
    figure = figures.correlation_heatmaps(frame, LANGUAGES, ("low",))
    assert [ax.get_title() for ax in maps(figure)] == ["regular", "distilled"]
    of_first = heatmaps.matrix(frame[(frame["run"] == "regular") & (frame["group"] == "low")], ORDER)
    np.testing.assert_allclose(cells(maps(figure)[0]), of_first)


def test_dots_mark_the_pairs_whose_interval_reaches_the_ceiling_and_no_others() -> None:
    frame = synthetic_run.correlation(LANGUAGES).query("group == 'low'").copy()
    frame["pcc_high"] = frame["ceiling"] - 0.01
    reached = frame["language_a"].isin(["cat", "nso"]) & frame["language_b"].isin(["cat", "nso"])
    frame.loc[reached, "pcc_high"] = frame["ceiling"]
    figure = figures.correlation_heatmaps(frame, LANGUAGES)
    (dots,) = (each for each in maps(figure)[0].collections if isinstance(each, PathCollection))
    places = {(ORDER[int(y)], ORDER[int(x)]) for x, y in dots.get_offsets()}
    assert places == {("cat", "nso"), ("nso", "cat")}
    assert "dot marks" in heatmaps.caption(frame, LANGUAGES)


def test_without_intervals_nothing_is_said_to_be_at_the_ceiling() -> None:
    frame = synthetic_run.correlation(LANGUAGES).assign(pcc_low=np.nan, pcc_high=np.nan)
    figure = figures.correlation_heatmaps(frame, LANGUAGES)
    assert all(not len(each.get_offsets()) for each in figure.findobj(PathCollection))
    assert heatmaps.pairs(frame)["at_ceiling"].isna().all()
    assert "dot" not in heatmaps.caption(frame, LANGUAGES)


def test_without_a_ceiling_the_diagonal_is_empty_and_not_one() -> None:
    frame = synthetic_run.correlation(LANGUAGES).assign(ceiling=np.nan)
    figure = figures.correlation_heatmaps(frame, LANGUAGES, ("low",))
    assert np.isnan(np.diag(cells(maps(figure)[0]))).all()
    assert "No noise ceiling" in heatmaps.caption(frame, LANGUAGES)


@pytest.mark.parametrize(
    ("value", "decimals", "short", "text"),
    [(0.614, 2, False, "0.61"), (0.9996, 2, False, "0.99"), (0.9996, 3, False, "0.999"), (1.0, 2, False, "1.00"),
     (0.614, 2, True, ".61"), (-0.052, 2, True, "-.05"), (np.nan, 2, False, "")],
)  # fmt: skip
def test_a_correlation_is_never_rounded_up_to_one(value: float, decimals: int, short: bool, text: str) -> None:
    assert heatmaps.number(value, decimals, short) == text


def test_values_near_one_get_a_third_digit() -> None:
    frame = synthetic_run.correlation(LANGUAGES).query("group == 'high'").copy()
    frame["ceiling"], frame["pcc"] = 0.9912, 0.9942
    assert numbers(figures.correlation_heatmaps(frame, LANGUAGES)).count("0.99") == 8 * 8
    frame["ceiling"], frame["pcc"] = 0.9988, 0.9881  # two digits would show a pair at its ceiling that is far below it
    found = numbers(figures.correlation_heatmaps(frame, LANGUAGES))
    assert (found.count(".999"), found.count(".988")) == (8, 8 * 7)


def test_many_languages_get_short_numbers_that_fit_their_cells() -> None:
    many = synthetic_run.more_languages(24)
    figure = figures.correlation_heatmaps(synthetic_run.correlation(many), many)
    renderer = matplotlib.backends.backend_agg.FigureCanvasAgg(figure).get_renderer()
    for ax in maps(figure):
        width = ax.get_window_extent(renderer).width / 24
        assert len(ax.texts) == 24 * 24
        assert all(text.get_window_extent(renderer).width <= width for text in ax.texts)
        assert all(not text.get_text().startswith("0") for text in ax.texts)


def test_a_pair_that_was_not_measured_is_an_empty_cell() -> None:
    frame = synthetic_run.correlation(LANGUAGES)
    frame = frame[~((frame["language_a"] == "cat") & (frame["language_b"] == "fao"))]
    values = cells(maps(figures.correlation_heatmaps(frame, LANGUAGES, ("all",)))[0])
    assert np.argwhere(np.isnan(values)).tolist() == [[ORDER.index("cat"), ORDER.index("fao")]]


def test_a_task_that_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(SensikitError, match="task denoise: has no correlation"):
        figures.correlation_heatmaps(synthetic_run.correlation(LANGUAGES), LANGUAGES, task="denoise")


# pruning curves


def row(order: str, language: str, ratio: float, bleu: float, seed: str = "") -> dict[str, Any]:
    bounds = {"bleu_low": bleu - 1, "bleu_high": bleu + 2, "chrf": bleu + 20}
    return {"order": order, "seed": seed, "language": language, "ratio": ratio, "bleu": bleu, **bounds, "sentences": 9}


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
    assert curves.curve(frame, "chrf").set_index(["order", "ratio"]).loc[("specificity", 0.5), "value"] == 28


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


def drawn(ax: Axes) -> dict[str, list[tuple[float, float]]]:
    return {
        str(line.get_label()): list(zip(*line.get_data(), strict=True))
        for line in ax.lines
        if len(line.get_xdata()) > 2
    }


def test_lines_are_the_points_of_the_curve() -> None:
    frame = two(lambda seed: synthetic_run.pruning(LANGUAGES, strength=1 + seed / 10))
    figure = figures.pruning_curves(frame)
    points = curves.curve(frame)
    for ax, label in zip(figure.axes, ("regular", "distilled"), strict=True):
        assert ax.get_title() == label
        found = drawn(ax)
        assert len(found) == 5
        for name, of_name in points[points["run"] == label].groupby("order"):
            wanted = sorted(zip(of_name["ratio"], of_name["value"], strict=True))
            np.testing.assert_allclose(found[curves.line_of(str(name)).name], wanted)


def test_small_panels_share_one_scale_that_holds_every_point() -> None:
    # the first language in order is the worst: a limit set with its panel would cut off the others
    figure = figures.pruning_curves_by_language(synthetic_run.pruning(LANGUAGES), LANGUAGES)
    axes = [ax for ax in figure.axes if ax.lines]
    assert [ax.get_title()[:3] for ax in axes] == ORDER
    assert len({ax.get_ylim() for ax in axes}) == 1
    low, high = axes[0].get_ylim()
    values = [y for ax in axes for line in drawn(ax).values() for _, y in line]
    assert low == 0
    assert max(values) == pytest.approx(21.6)
    assert all(low <= value <= high for value in values)


def test_each_small_panel_shows_its_own_language() -> None:
    frame = synthetic_run.pruning(LANGUAGES)
    figure = figures.pruning_curves_by_language(frame, LANGUAGES)
    for ax, code in zip(figure.axes, ORDER, strict=True):
        at = frame[(frame["language"] == code) & (frame["order"].isin(["none", "specificity"]))]
        np.testing.assert_allclose(drawn(ax)["least specific first"], at[["ratio", "bleu"]].sort_values("ratio"))


def test_bands_are_the_bounds_of_specificity_and_the_extremes_of_the_seeds() -> None:
    frame = synthetic_run.pruning(LANGUAGES)
    (ax,) = figures.pruning_curves(frame).axes
    points = curves.curve(frame).set_index("order")
    bands = [each.get_paths()[0].vertices[:, 1] for each in ax.collections]
    assert len(bands) == 2
    wanted = [points.loc["specificity", ["low", "high"]], points.loc["random", ["spread_low", "spread_high"]]]
    for band, of_order in zip(bands, wanted, strict=True):
        assert {round(y, 6) for y in band} == {round(y, 6) for y in of_order.to_numpy(dtype=float).ravel()}


def test_one_random_seed_has_no_band_that_the_caption_would_not_explain() -> None:
    frame = synthetic_run.pruning(LANGUAGES).query("seed in ('', '1')")
    (ax,) = figures.pruning_curves(frame).axes
    assert len(ax.collections) == 1
    assert "seeds" not in curves.caption(frame).replace("training seeds", "")
    assert "mean of 3 seeds" in curves.caption(synthetic_run.pruning(LANGUAGES))


def test_controls_are_muted_and_the_question_is_on_top() -> None:
    (ax,) = figures.pruning_curves(synthetic_run.pruning(LANGUAGES)).axes
    lines = {str(line.get_label()): line for line in ax.lines}
    chosen = lines.pop("least specific first")
    assert all(line.get_linewidth() < chosen.get_linewidth() for line in lines.values())
    assert all(line.get_zorder() < chosen.get_zorder() for line in lines.values())
    assert len({(line.get_marker(), str(line.get_linestyle())) for line in [chosen, *lines.values()]}) == 5


def test_an_order_without_a_line_of_its_own_is_drawn_under_its_name() -> None:
    frame = synthetic_run.pruning(LANGUAGES).replace({"order": {"magnitude": "wanda"}})
    assert "wanda" in drawn(figures.pruning_curves(frame).axes[0])


def test_a_run_has_one_colour_in_every_figure() -> None:
    frame = two(lambda seed: synthetic_run.pruning(LANGUAGES, strength=1 + seed / 10))
    compared = {str(line.get_label()): line.get_color() for line in figures.pruning_comparison(frame).axes[0].lines}
    spread = two(lambda seed: synthetic_run.balance(LANGUAGES, seed))
    dots = {str(line.get_label()): line.get_color() for line in figures.balance(spread, LANGUAGES).axes[1].lines}
    assert (
        {label: compared[label] for label in dots}
        == dots
        == dict(zip(("regular", "distilled"), style.COLOURS, strict=False))
    )


def test_caption_says_what_is_spared_from_the_signature_alone() -> None:
    frame = synthetic_run.pruning(LANGUAGES)
    assert "spares the 10%" in curves.caption(frame)
    assert "spares the 25%" in curves.caption(frame.replace({"signature": {"protect:0.1": "protect:0.25"}}, regex=True))
    assert "spares" not in curves.caption(frame.drop(columns="signature"))


# distributions and sizes


def test_boxes_are_the_quantiles_of_the_table() -> None:
    frame = synthetic_run.specificity(LANGUAGES)
    left, right = figures.specificity(frame, LANGUAGES).axes[:2]
    table = distributions.wide(frame).set_index("language").loc[ORDER]
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
    sized = scaled["statistic"].isin(["mean", *distributions.QUANTILES]) & (scaled["language"] == "cat")
    scaled.loc[sized, "value"] *= 1000
    axes = [figures.balance(each, LANGUAGES).axes[0] for each in (frame, scaled)]
    first, second = ([patch.get_path().vertices[:, 0].tolist() for patch in ax.patches] for ax in axes)
    np.testing.assert_allclose(first, second)


def test_sensitivities_of_zero_do_not_break_the_logarithmic_axis() -> None:
    frame = synthetic_run.balance(LANGUAGES)
    frame.loc[frame["statistic"].isin(["q01", "q10", "q25"]), "value"] = 0.0
    low, high = figures.balance(frame, LANGUAGES).axes[0].get_xlim()
    assert 1e-4 < low < high < 1e3


def test_bars_are_training_pairs_in_descending_order_coloured_by_tier() -> None:
    (ax,) = figures.data_statistics(LANGUAGES).axes
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == sorted((each["sizes"]["train"] for each in LANGUAGES.values()), reverse=True)
    codes = [label.get_text() for label in ax.get_xticklabels()]
    assert codes == sizes.sizes(LANGUAGES)["language"].tolist()
    assert ax.get_yscale() == "log"
    for bar, code in zip(ax.patches, codes, strict=True):
        assert matplotlib.colors.to_hex(bar.get_facecolor()) == style.TIERS[LANGUAGES[code]["tier"]]


def test_monolingual_text_is_drawn_where_it_is_known() -> None:
    mono = {code: {**language, "mono": 5000 if code == "cat" else 0} for code, language in LANGUAGES.items()}
    (line,) = figures.data_statistics(mono).axes[0].lines
    assert np.asarray(line.get_ydata(), dtype=float)[~np.isnan(np.asarray(line.get_ydata(), dtype=float))].tolist() == [
        5000
    ]
    assert not figures.data_statistics(LANGUAGES).axes[0].lines


# all figures


def every_figure() -> dict[str, Figure]:
    few = {code: LANGUAGES[code] for code in ("cat", "fao", "nob")}
    pruning = two(lambda seed: synthetic_run.pruning(few, strength=1 + seed / 10))
    return {
        "correlation": figures.correlation_heatmaps(synthetic_run.correlation(few), few, ("high", "low")),
        "pruning": figures.pruning_curves(pruning),
        "comparison": figures.pruning_comparison(pruning),
        "by-language": figures.pruning_curves_by_language(pruning, few),
        "specificity": figures.specificity(synthetic_run.specificity(few), few),
        "balance": figures.balance(synthetic_run.balance(few), few),
        "data": figures.data_statistics(few),
    }


@pytest.fixture(scope="module")
def under_other_settings() -> dict[str, Figure]:
    with matplotlib.rc_context({"font.size": 17, "svg.fonttype": "none"}):
        before = dict(matplotlib.rcParams)
        found = every_figure()
        assert dict(matplotlib.rcParams) == before
    return found


def test_figures_leave_pyplot_and_the_settings_of_the_caller_alone(under_other_settings: dict[str, Figure]) -> None:
    assert plt.get_fignums() == []
    # nor do the caller's settings reach into a figure that is drawn under them
    assert all(text.get_fontsize() < 9 for figure in under_other_settings.values() for text in figure.findobj(Text))


def test_ticks_on_logarithmic_axes_are_plain_numbers_and_not_unparsed_mathtext(
    under_other_settings: dict[str, Figure],
) -> None:
    found = under_other_settings
    assert not [text for figure in found.values() for text in texts(figure) if "$" in text]
    assert {"10K", "100K"} <= set(texts(found["data"]))
    assert {"−1", "0", "1"} <= set(texts(found["specificity"]))
    assert {"0.1", "1"} <= set(texts(found["balance"]))


def test_a_run_called_like_an_equation_is_not_one(tmp_path: Path) -> None:
    frame = synthetic_run.pruning(LANGUAGES).assign(run="a$\\frac{$ 中文")
    second = synthetic_run.pruning(LANGUAGES).assign(run="b")
    figure = figures.pruning_curves(pd.concat([frame, second]))
    figures.save(figure, tmp_path / "odd")
    assert figure.axes[0].get_title() == "a$\\frac{$ 中文"


def test_the_same_data_give_the_same_bytes(tmp_path: Path, under_other_settings: dict[str, Figure]) -> None:
    for name, figure in under_other_settings.items():
        figures.save(figure, tmp_path / "first" / name, title=name, note="S|task:mt")
    for name, figure in every_figure().items():
        for path in figures.save(figure, tmp_path / "second" / name, title=name, note="S|task:mt"):
            assert path.read_bytes() == (tmp_path / "first" / path.name).read_bytes(), path.name
    assert len(list((tmp_path / "first").iterdir())) == 7 * 3


def test_files_hold_their_signature_and_need_no_font_of_the_reader(tmp_path: Path) -> None:
    figure = figures.data_statistics(LANGUAGES)
    svg, png, pdf = figures.save(figure, tmp_path / "data", title="Data", note="S|task:mt|ckpt:5e1f")
    assert "S|task:mt|ckpt:5e1f" in svg.read_text()
    assert b"S|task:mt|ckpt:5e1f" in png.read_bytes()
    assert "<text" not in svg.read_text()
    assert b"/Type3" not in pdf.read_bytes()
    assert b"/CIDFontType2" in pdf.read_bytes()


def test_a_full_disk_leaves_the_earlier_figure_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figures.data_statistics(LANGUAGES)
    figures.save(figure, tmp_path / "data")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self: Figure, path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half of ")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(SensikitError, match="the disk is full"):
        figures.save(figure, tmp_path / "data")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("count", [2, 4, 8])
def test_no_title_is_cut_off_whatever_the_number_of_languages(count: int) -> None:
    languages = {code: LANGUAGES[code] for code in ORDER[:count]}
    figure = figures.correlation_heatmaps(synthetic_run.correlation(languages), languages)
    figure.draw_without_rendering()
    height = figure.bbox.height
    tops = [ax.title.get_window_extent().y1 for ax in maps(figure)]
    assert len(tops) == 3
    assert max(tops) <= height


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.95, 1.0, [0.95, 0.96, 0.97, 0.98, 0.99, 1.0]),
        (0.8, 1.0, [0.8, 0.85, 0.9, 0.95, 1.0]),
        (0.6, 1.0, [0.6, 0.7, 0.8, 0.9, 1.0]),
    ],
)
def test_ticks_of_the_colour_scale_are_evenly_apart(low: float, high: float, ticks: list[float]) -> None:
    assert heatmaps.bar_ticks(low, high) == ticks
