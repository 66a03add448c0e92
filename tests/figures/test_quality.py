from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text
from scipy import stats

from sensikit import figures
from sensikit.figures import data, quality
from tests.support import synthetic_tables
from tests.support.drawn import LANGUAGES

# systems


def test_gains_are_differences_to_the_baseline_by_tier_and_filled_where_they_are_sure() -> None:
    tests = synthetic_tables.evaluation(LANGUAGES, gain=1.5)["significance.csv"]
    figure, _, caption = figures.quality_gains(tests)
    assert [ax.get_title() for ax in figure.axes] == ["High", "Low", "Very Low", "all languages"]
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    for ax in figure.axes:
        filled = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
        (mark,) = filled
        assert mark.get_xdata().tolist() == [1.5]
        assert (mark.get_markerfacecolor() == "white") == (ax.get_title() == "Very Low")
        np.testing.assert_allclose(ax.collections[0].get_segments()[0][:, 0], [0.8, 2.2])
    assert "minus that of regular" in caption
    one = figures.quality_gains(tests[tests["tier"].isin(["", "Low", "All"])])  # of one level, which all languages are
    assert [ax.get_title() for ax in one.figure.axes] == ["all languages"]


def test_seeds_of_a_recipe_are_drawn_beside_their_mean_and_who_is_one_against_one_is_said() -> None:
    tables = synthetic_tables.evaluation(LANGUAGES, gain=1.5)
    tests, tiers = tables["significance.csv"].assign(seeds_b=2), tables["tiers.csv"]
    seeds = [tiers[tiers["system"] == "regular"].assign(system=name, value=tiers["value"] + plus)
             for name, plus in (("s1", 1.0), ("s2", 2.0))]  # fmt: skip
    figure, rows, caption = figures.quality_gains(
        tests, tiers=pd.concat([tiers, *seeds]), recipes={"cd+id": ["s1", "s2"], "regular": []}
    )
    for ax in figure.axes:
        (strokes,) = [line for line in ax.lines if line.get_gid() == "seeds"]
        assert strokes.get_xdata().tolist() == pytest.approx([1, 2])
    assert rows["seed"].dropna().tolist() == ["s1", "s2"] * 4
    assert "over training seeds and test sentences" in caption
    assert "one training run" not in caption.lower()
    alone = figures.quality_gains(tables["significance.csv"]).caption
    assert "One training run against one" in alone
    assert "nothing is filled" not in alone
    assert "nothing is filled" in figures.quality_gains(tests.assign(segments=199)).caption


def test_gains_are_of_one_metric_and_of_tiers_alone() -> None:
    tests = synthetic_tables.evaluation(LANGUAGES)["significance.csv"]
    found = quality.gains(tests.replace({"group": {"": np.nan}, "tier": {"": np.nan}}))
    assert found["tier"].tolist() == ["High", "Low", "Very Low", "All"]
    assert set(found["metric"]) == {"bleu"}


def test_a_gain_in_loss_is_said_to_be_better_below_zero() -> None:
    tests = synthetic_tables.evaluation(LANGUAGES)["significance.csv"].query("metric == 'bleu'").assign(metric="loss")
    drawn = figures.quality_gains(tests)
    assert drawn.caption.startswith("Loss of each system minus that of regular: below 0, the system is better")
    assert drawn.figure.get_supxlabel() == "change in loss (nats per token) from regular"


def ratios(
    systems: dict[str, tuple[str | None, float | None, str]],
) -> tuple[pd.DataFrame, dict[str, dict[str, object]]]:
    """Rows of tiers.csv and facts of systems: name → (method, masking ratio, direction)."""
    rows = [
        (name, of[2], "All", "bleu", 10.0 + place, 9.0, 11.0, 3) for place, (name, of) in enumerate(systems.items())
    ]
    columns = ["system", "direction", "tier", "metric", "value", "value_low", "value_high", "groups"]
    facts: dict[str, dict[str, object]] = {
        name: {"method": method, "mask_ratio": ratio} for name, (method, ratio, _) in systems.items()
    }
    return pd.DataFrame(rows, columns=columns), facts


def test_only_systems_of_one_method_and_direction_tell_of_the_masking_ratio() -> None:
    given = {"regular": ("regular", None, "xxx-eng"), "b": ("cd", 0.5, "xxx-eng"), "a": ("cd", 0.1, "xxx-eng"),
             "id": ("cd+id", 0.3, "xxx-eng"), "back": ("cd", 0.3, "eng-xxx")}  # fmt: skip
    rows = quality.by_ratio(*ratios(given))
    assert rows["system"].tolist() == ["a", "b"]
    assert rows["mask_ratio"].tolist() == [0.1, 0.5]


def test_systems_that_differ_in_something_else_are_no_points_of_one_line() -> None:
    given = {name: ("cd", ratio, "xxx-eng") for name, ratio in {"a": 0.3, "own": 0.3, "b": 0.5, "again": 0.5}.items()}
    tiers, systems = ratios(given)
    systems["own"]["separate_projection"] = True
    systems["b"] |= {"checkpoint": "b.pt", "sha256": "b", "updates": 7}
    assert quality.by_ratio(tiers, systems)["system"].tolist() == ["a", "b", "again"]
    systems["b"]["separate_projection"] = True
    rows = quality.by_ratio(tiers, systems)
    assert [subset["system"].tolist() for _, subset in rows.groupby("design")] == [["a", "again"], ["own", "b"]]


def test_systems_that_agree_in_all_are_seeds_of_one_point() -> None:
    given = {name: ("cd", ratio, "xxx-eng") for name, ratio in {"a": 0.3, "b": 0.5, "again": 0.5, "more": 0.5}.items()}
    tiers, systems = ratios(given)
    rows = quality.by_ratio(pd.concat([tiers, tiers.assign(system="a recipe", value=99.0)]), systems)
    assert rows["seeds"].tolist() == [1, 3, 3, 3]
    assert rows["mean"].tolist() == [10, 12, 12, 12]  # of 11, 12 and 13
    assert (rows.loc[0, "low"], rows.loc[0, "high"]) == (9, 11)
    no_sentences = rows["mean"] - stats.t.ppf(0.975, 2) * np.sqrt(1 / 3)
    same = quality.by_ratio(tiers.assign(value_low=tiers["value"], value_high=tiers["value"]), systems)
    assert same.loc[1, "low"] == pytest.approx(no_sentences[1])
    figure, _, caption = figures.masking_ratio(rows)
    (ax,) = figure.axes
    (strokes,) = [line for line in ax.lines if line.get_gid() == "seeds"]
    assert strokes.get_ydata().tolist() == [11, 12, 13]
    assert [line.get_ydata().tolist() for line in ax.lines if line.get_label() == "all languages"] == [[10, 12]]
    assert "several training seeds (up to 3)" in caption


def test_quality_against_the_masking_ratio_has_a_line_for_each_tier_with_its_band() -> None:
    rows = pd.concat(
        [synthetic_tables.evaluation(LANGUAGES)["tiers.csv"].query("system == 'cd+id' and metric == 'bleu'")
         .assign(mask_ratio=ratio, method="cd+id", seeds=1, mean=lambda of: of["value"], low=lambda of: of["value_low"],
                 high=lambda of: of["value_high"]) for ratio in (0.1, 0.3, 0.5)]
    )  # fmt: skip
    figure, _, caption = figures.masking_ratio(rows)
    (ax,) = figure.axes
    lines = [line for line in ax.lines if line.get_gid() != "seeds"]
    assert [str(line.get_label()) for line in lines] == ["all languages", "High", "Low", "Very Low"]
    assert lines[0].get_xdata().tolist() == [0.1, 0.3, 0.5]
    assert len(ax.collections) == 4
    assert ax.get_ylim()[0] == 0
    assert "3 masking ratios" in caption


# Figure 4

SOURCE = ["▁The", "▁<mask>", "ick", "▁cat", "__eng__"]
CLEAN = ["__eng__", "▁The", "▁qu", "ick", "▁dog"]
TARGET = ["", "▁qu", "ick", "▁dog", ""]


def layout() -> pd.DataFrame:
    return synthetic_tables.layout(SOURCE, TARGET, CLEAN, TARGET)


def pieces(kind: str) -> list[str]:
    figure = figures.token_layout(layout()).figure
    found = [text for text in figure.findobj(Text) if text.get_gid() == kind]
    return [text.get_text() for text in sorted(found, key=lambda text: text.get_position())]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("tag", ["__eng__", "__eng__"]),
        ("changed", ["▁<mask>", "▁cat"]),  # masked, and replaced by another word; the kept one looks as it was
        ("target", ["▁qu", "ick", "▁dog"] * 2),
        ("padding", ["PAD"] * 4),
        ("plain", ["▁The", "ick", "▁The", "▁qu", "ick", "▁dog"]),
    ],
)
def test_noise_tags_and_targets_are_told_apart(kind: str, wanted: list[str]) -> None:
    assert pieces(kind) == wanted


def test_encoder_and_decoder_predict_at_the_same_positions() -> None:
    figure = figures.token_layout(layout()).figure
    places = [text.get_position()[0] for text in figure.findobj(Text) if text.get_gid() == "target"]
    left, right = places[:3], places[3:]
    np.testing.assert_allclose(np.subtract(right, left), len(SOURCE) + data.GAP)


def test_every_piece_fits_into_its_box() -> None:
    long = synthetic_tables.layout(
        ["▁unimaginably", "__eng__"], ["▁unimaginably", ""], ["__eng__", "▁unimaginably"], ["", ""]
    )
    figure = figures.token_layout(long).figure
    boxes = [patch for patch in figure.findobj(FancyBboxPatch) if patch.get_width() < 1]
    renderer = matplotlib.backends.backend_agg.FigureCanvasAgg(figure).get_renderer()
    for text in (each for each in figure.findobj(Text) if each.get_gid() in data.FILL):
        extent = text.get_window_extent(renderer)
        assert any(
            box.get_window_extent(renderer).x0 <= extent.x0 and extent.x1 <= box.get_window_extent(renderer).x1
            for box in boxes
        )


def test_the_caption_counts_what_is_predicted() -> None:
    assert "3 of 4 pieces" in figures.token_layout(layout()).caption
    assert "3 of 4 pieces" in figures.token_layout(layout().replace("", np.nan)).caption


def test_of_several_sentences_and_runs_one_is_chosen() -> None:
    frames = [layout().assign(group=code, run=run) for run in ("b", "a") for code in ("fao", "cat")]
    frame = pd.concat(frames).sample(frac=1, random_state=1)
    first = frame["group"].iloc[0]
    for group, wanted in (("", first), ("cat", "cat"), ("fao", "fao")):
        rows = data.sentence(frame, group)
        assert rows["group"].unique().tolist() == [wanted]
        assert rows["run"].nunique() == 1
        assert rows["source"].tolist() == SOURCE
    assert f"({first})" in figures.token_layout(frame).caption
