from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sensikit import figures
from sensikit.figures import components, cross, grids, overlap, style
from sensikit.languages import family_of
from tests.support import synthetic_run, synthetic_tables
from tests.support.drawn import LANGUAGES, ORDER, cells, maps, numbers, texts, two

FEW = {code: LANGUAGES[code] for code in ("cat", "fao", "nob")}

# components


def test_components_are_means_over_languages_without_the_rows_that_sum_them_up() -> None:
    frame = synthetic_tables.components(FEW)
    share, median = (cells(ax) for ax in maps(figures.component_heatmaps(frame).figure))
    rows = ["shared embedding", "encoder q", "encoder out", "encoder fc", "encoder norm", "decoder q",
            "decoder cross-q", "decoder fc", "decoder norm"]  # fmt: skip
    assert [label.get_text() for label in maps(figures.component_heatmaps(frame).figure)[0].get_yticklabels()] == rows
    assert share.shape == median.shape == (9, 3)  # outside the layers, and two layers
    at = frame.set_index(["stack", "layer", "component"]).sort_index()
    assert share[3, 2] == pytest.approx(at.loc[("encoder", "1", "fc"), "sensitivity_share"].mean())
    assert median[6, 1] == pytest.approx(at.loc[("decoder", "0", "cross-q"), "specificity_median"].mean())
    assert share[0, 0] == pytest.approx(at.loc[("shared", "", "embedding"), "sensitivity_share"].mean())
    assert np.isnan(share[0, 1:]).all()
    assert np.isnan(share[1:, 0]).all()


def test_an_empty_layer_read_from_a_file_is_outside_the_layers() -> None:
    frame = synthetic_tables.components(FEW)
    read = frame.assign(layer=frame["layer"].replace("", np.nan))
    pd.testing.assert_frame_equal(components.by_layer(read), components.by_layer(frame))


def test_components_of_runs_share_one_scale() -> None:
    frame = two(lambda seed: synthetic_tables.components(FEW, seed, layers=2 + 2 * seed))
    first, second, third, fourth = (
        ax.collections[0].get_clim() for ax in maps(figures.component_heatmaps(frame).figure)
    )
    assert first == third
    assert second == fourth
    assert second[0] == -second[1]


def test_each_language_has_a_column_and_all_layers_are_together() -> None:
    frame = synthetic_tables.components(FEW)
    (ax,) = maps(figures.specificity_by_component(frame, FEW).figure)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["nob", "fao", "cat"]
    at = frame[frame["layer"] == "all"].set_index(["stack", "component", "group"])["specificity_median"]
    np.testing.assert_allclose(cells(ax)[3], [at["encoder", "fc", code] for code in ("nob", "fao", "cat")])


def test_correlation_within_components_is_the_mean_over_pairs_with_its_span() -> None:
    frame = synthetic_tables.components_correlation(FEW)
    (ax,) = figures.component_correlation(frame).figure.axes
    once = frame[frame["group_a"] < frame["group_b"]]
    of_fc = once[(once["stack"] == "decoder") & (once["component"] == "fc")]["pcc"]
    place = [label.get_text() for label in ax.get_yticklabels()].index("decoder fc")
    assert ax.lines[0].get_xdata()[place] == pytest.approx(of_fc.mean())
    segment = ax.collections[0].get_segments()[place]
    np.testing.assert_allclose(segment[:, 0], [of_fc.min(), of_fc.max()])


# overlap


def test_overlap_is_drawn_both_ways_round_on_one_scale_with_what_chance_gives() -> None:
    frame = synthetic_tables.overlap(FEW)
    once = frame[frame["group_a"] < frame["group_b"]]
    figure = figures.overlap_heatmaps(once, FEW).figure
    first, second = maps(figure)
    at = once[once["share"] == 0.1].set_index(["group_a", "group_b"])["jaccard"]
    wanted = [[np.nan if a == b else at[min(a, b), max(a, b)] for b in ("nob", "fao", "cat")] for a in
              ("nob", "fao", "cat")]  # fmt: skip
    np.testing.assert_allclose(cells(second), wanted)
    assert first.collections[0].get_clim() == second.collections[0].get_clim()
    assert second.get_title() == "top 10% by D (by chance .053)"


def test_an_overlap_has_as_many_decimals_as_that_by_chance_needs() -> None:
    frame = synthetic_tables.overlap(FEW, shares=(0.01,))
    figure = figures.overlap_heatmaps(frame, FEW).figure
    at = frame.set_index(["group_a", "group_b"])["jaccard"]
    assert f"{at['nob', 'fao']:.4f}"[1:] in numbers(figure)
    assert maps(figure)[0].get_title().endswith("(by chance .0050)")
    shown = [overlap.written(value, 0.005025) for value in (np.nan, 0, 0.00002, 0.0003, 0.5)]
    assert shown == ["", "0", "<.0001", ".0003", ".5000"]
    assert overlap.written(0.2, 1 / 3) == ".20"


def test_every_number_in_a_heat_map_stands_out_from_its_cell() -> None:
    values = pd.DataFrame(np.linspace(-1, 1, 60).reshape(6, 10))
    values.iloc[2, 3] = np.nan
    for palette in (grids.SEQUENTIAL, grids.DIVERGING):
        ax = Figure().subplots()
        grids.heat_map(ax, values, values.map("{:+.1f}".format), (-1, 1), 30, palette)
        colours = ax.collections[0].get_facecolors()[~values.isna().to_numpy().ravel()]
        assert len(ax.texts) == len(colours) == 59
        for text, colour in zip(ax.texts, colours, strict=True):
            assert style.contrast(text.get_color(), colour) >= 4.5
    assert all(style.contrast(line.colour, "white") >= 4.5 for line in (*style.TIERS.values(), style.NO_TIER))


# the tree of languages


def correlations(pcc: dict[tuple[str, str], float]) -> pd.DataFrame:
    both = {**pcc, **{(b, a): value for (a, b), value in pcc.items()}}
    frame = synthetic_run.correlation(FEW).query("subset == 'low'").set_index(["group_a", "group_b"])
    for pair, value in both.items():
        frame.loc[pair, "corrected"] = value
    return frame.reset_index()


def test_languages_join_at_the_mean_distance_of_their_members() -> None:
    frame = correlations({("nob", "fao"): 0.9, ("nob", "cat"): 0.6, ("fao", "cat"): 0.5})
    figure, found, _ = figures.dendrogram(frame, FEW)
    assert found[["first", "second"]].to_numpy().tolist() == [["nob", "fao"], ["cat", "(nob fao)"]]
    np.testing.assert_allclose(found["distance"], [0.1, 0.45])
    (ax,) = figure.axes
    assert [label.get_text()[:3] for label in ax.get_yticklabels()] == ["cat", "nob", "fao"]
    assert max(max(line.get_xdata()) for line in ax.lines) == pytest.approx(0.45)


def test_families_of_the_same_initials_are_told_apart_and_the_unknown_are_none() -> None:
    frame = correlations({("nob", "fao"): 0.9, ("nob", "cat"): 0.6, ("fao", "cat"): 0.5})
    kin = {"cat": "Semitic", "nob": "Sinitic", "fao": "Siberian Turkic"}
    drawn = figures.dendrogram(frame, {key: {**FEW[key], "family": family} for key, family in kin.items()})
    names = {label.get_text() for label in drawn.figure.axes[0].get_yticklabels()}
    assert names == {"cat · S", "nob · Si", "fao · ST"}
    assert all(said in drawn.caption for said in ("S Semitic", "Si Sinitic", "ST Siberian Turkic"))
    strangers = {key: {**FEW[key], "family": family_of("xyz" if key != "cat" else key)} for key in kin}
    assert "family" not in figures.dendrogram(frame, strangers).caption.partition("Result:")[2]


def test_a_correlation_above_1_counts_as_1_in_the_tree_and_that_is_said() -> None:
    below = correlations({("nob", "fao"): 1.0, ("nob", "cat"): 0.6, ("fao", "cat"): 0.5})
    above = correlations({("nob", "fao"): 1.1, ("nob", "cat"): 0.6, ("fao", "cat"): 0.5})
    figures_of = [figures.dendrogram(frame, FEW) for frame in (below, above)]
    assert [drawn.data["distance"].iloc[0] for drawn in figures_of] == [0, 0]
    assert ["A PCC above 1 counts as 1." in drawn.caption for drawn in figures_of] == [False, True]


def test_a_run_with_a_pair_that_has_no_correlation_has_no_tree() -> None:
    frame = correlations({("nob", "fao"): 0.9, ("nob", "cat"): np.nan, ("fao", "cat"): 0.5})
    figure, merges, _ = figures.dendrogram(frame, FEW)
    assert merges.empty
    assert not figure.axes[0].lines


# the cross matrix


def test_a_language_keeps_a_share_of_its_own_unpruned_score() -> None:
    rows = [("none", code, code, 0.0, bleu) for code, bleu in (("cat", 20.0), ("fao", 10.0), ("nob", 0.0))]
    rows += [("specificity", "cat", "cat", 0.5, 15.0), ("specificity", "cat", "fao", 0.5, 2.0),
             ("specificity", "fao", "cat", 0.5, 4.0), ("specificity", "fao", "nob", 0.5, 0.0)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["order", "group", "evaluated", "ratio", "value"])
    found = cross.effect(frame.assign(metric="bleu")).set_index(["group", "evaluated"])["effect"]
    assert found["cat", "cat"] == 0.75
    assert found["cat", "fao"] == 0.2
    assert found["fao", "cat"] == 0.2
    assert np.isnan(found["fao", "nob"])  # nothing was there to be kept


def test_the_cross_matrix_has_the_language_pruned_for_in_its_rows() -> None:
    frame = synthetic_tables.cross(FEW)
    frame.loc[(frame["group"] == "cat") & (frame["evaluated"] == "nob") & (frame["ratio"] == 0.3), "value"] = 0.11 * 14
    figure, _, caption = figures.cross_matrix(frame, FEW)
    first, second = maps(figure)
    assert cells(first)[2, 0] == pytest.approx(0.11)  # cat is last, nob is first
    assert cells(first)[0, 2] == pytest.approx(0.35)
    assert (first.get_title(), second.get_title()) == ("30% pruned", "50% pruned")
    np.testing.assert_allclose(np.diag(cells(second)), 0.5)
    assert "50% pruned, 50% by the language itself and 28% by the others" in caption


def test_of_a_loss_the_cross_matrix_shows_what_pruning_adds() -> None:
    frame = synthetic_tables.cross(FEW, metrics=("loss",))
    drawn = figures.cross_matrix(frame, FEW)
    first, second = maps(drawn.figure)
    np.testing.assert_allclose(np.diag(cells(second)), 14 * 0.5 / 10)  # half of 14 BLEU is lost: see `scores`
    assert cells(first)[0, 2] > cells(first)[0, 0] > 0
    assert "0.70 by the language itself" in drawn.caption
    assert "increase of the loss, nats per token" in texts(drawn.figure)
    assert first.collections[0].get_clim() == (0.0, 1.05)


def test_a_model_that_had_nothing_to_lose_has_an_empty_matrix_that_says_so() -> None:
    frame = synthetic_tables.cross(FEW).assign(value=0.0, value_low=0.0, value_high=0.0)
    drawn = figures.cross_matrix(frame, FEW)
    assert all(np.isnan(cells(ax)).all() for ax in maps(drawn.figure))
    assert "the unpruned BLEU is 0" in drawn.caption
    assert "on average" not in drawn.caption


def test_the_ratios_shown_are_those_where_the_language_itself_stands_out() -> None:
    rows = [
        ("cat", other, ratio, kept)
        for ratio, own, others in ((0.1, 1.0, 0.99), (0.3, 0.9, 0.5), (0.5, 0.7, 0.2), (0.7, 0.3, 0.1), (0.9, 0, 0))
        for other, kept in (("cat", own), ("fao", others))
    ]
    cells_ = pd.DataFrame(rows, columns=["group", "evaluated", "ratio", "effect"])
    assert cross.telling(cells_) == [0.3, 0.5, 0.7]


# translation and denoising


def test_similarity_of_the_tasks_has_a_mark_for_each_run_on_one_scale() -> None:
    frame = two(lambda seed: synthetic_tables.similarity(LANGUAGES, seed))
    figure, _, caption = figures.task_similarity(frame, LANGUAGES)
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ORDER
    for ax, subset in zip(figure.axes, ("high", "low", "all"), strict=True):
        for label in ("regular", "distilled"):
            (marks,) = (line for line in ax.lines if line.get_label() == label)
            at = frame[(frame["run"] == label) & (frame["subset"] == subset)].set_index("group")
            np.testing.assert_allclose(marks.get_xdata(), at["corrected"].reindex(ORDER))
    assert "translation and denoising" in caption


def test_a_similarity_without_intervals_says_nothing_of_them() -> None:
    frame = synthetic_tables.similarity(LANGUAGES).assign(corrected_low=np.nan, corrected_high=np.nan)
    assert "interval" not in figures.task_similarity(frame, LANGUAGES).caption
