"""Reports of runs that are training seeds of a recipe."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sensikit import figures
from sensikit.errors import OptionError
from sensikit.figures.frames import averaged
from sensikit.figures.spread import densities
from sensikit.files import write_text
from sensikit.report import inputs, sections, tables
from sensikit.report import text as summary
from sensikit.report.page import report
from sensikit.statistics.correlation import correlation_table
from sensikit.tables import Table, csv_of
from tests.support import handmade, synthetic_run
from tests.support.batched import SHAPES, batches
from tests.support.command import call
from tests.support.page import FEW, Page
from tests.support.stored import sealed

LABELS = ("r1", "r2", "r3", "i1", "i2", "i3")
GROUPS = ("regular=r1,r2,r3", "id=i1,i2,i3")
ONLY = ("correlation", "specificity", "balance", "pruning", "similarity", "distribution")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("seeds")
    return [
        synthetic_run.write_run(root / label, FEW, seed=seed, drop=seed // 3 / 10, strength=1 + seed / 20, only=ONLY)
        for seed, label in enumerate(LABELS)
    ]


@pytest.fixture(scope="module")
def gathered(seeds: list[Path]) -> inputs.Inputs:
    return inputs.gather(seeds, groups=GROUPS)


def marked(figure: matplotlib.figure.Figure) -> int:
    """How many single seeds are drawn."""
    return sum(len(line.get_xdata()) for ax in figure.axes for line in ax.lines if line.get_gid() == "seeds")


def titles(figure: matplotlib.figure.Figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


BOTH = ["regular (3 seeds)", "id (3 seeds)"]


def test_a_heat_map_has_a_column_for_each_recipe_and_its_data_every_run(gathered: inputs.Inputs) -> None:
    frame = gathered.tables["correlation.csv"]
    drawn = figures.correlation_heatmaps(frame, gathered.groups)
    assert titles(drawn.figure) == BOTH
    assert list(dict.fromkeys(drawn.data["run"])) == ["regular", "id", *LABELS]
    where = "subset == 'low' and group_a == 'cat' and group_b == 'nob'"
    at = drawn.data.query(where).set_index("run")["corrected"]
    assert at["id"] == pytest.approx(at[["i1", "i2", "i3"]].mean())


def test_curves_are_means_with_bands_of_t_and_a_mark_for_each_seed(gathered: inputs.Inputs) -> None:
    frame = gathered.tables["pruning.csv"]
    drawn = figures.pruning_curves(frame)
    assert titles(drawn.figure) == BOTH
    assert marked(drawn.figure) == 2 * 3 * 5 * 2  # recipes, seeds, ratios, orders with a band
    rows = drawn.data.query("order == 'specificity' and ratio == 0.5").set_index("run")
    values = rows.loc[["r1", "r2", "r3"], "value"]
    half = stats.t.ppf(0.975, 2) * values.std() / 3**0.5
    expected = [values.mean(), max(0, values.mean() - half), values.mean() + half]
    assert rows.loc["regular", ["value", "low", "high"]].tolist() == pytest.approx(expected)
    assert "hollow: single seeds" in drawn.caption
    assert "one training run" not in drawn.caption
    assert marked(figures.pruning_curves_by_group(frame, gathered.groups).figure) == 4 * 2 * 3 * 5
    assert marked(figures.pruning_comparison(frame).figure) == 2 * 3 * 5


def test_similarity_and_balance_have_a_mark_for_each_seed(gathered: inputs.Inputs) -> None:
    known, found = gathered.groups, gathered.tables
    similar = figures.task_similarity(found["similarity.csv"], known)
    assert marked(similar.figure) == 3 * 6 * 4
    # the bars of a recipe are over its seeds; whether noise keeps it from 1 is told by those over batches
    low = found["similarity.csv"].query("subset == 'low'").groupby("recipe")[["corrected_low", "corrected_high"]].mean()
    assert all(
        f"{row['corrected_low']:.3f} to {row['corrected_high']:.3f}" in similar.caption for _, row in low.iterrows()
    )
    for drawn in (figures.balance(found["balance.csv"], known), figures.specificity(found["specificity.csv"], known)):
        assert marked(drawn.figure) in (6 * 5, 6 * 4)
        assert {"regular", "r1"} <= set(drawn.data["run"])
    violins = figures.sensitivity_violins(found["distribution.csv"], found["balance.csv"], known)
    assert marked(violins.figure) == 6 * 5


def test_a_violin_of_a_recipe_is_the_mean_of_those_of_its_seeds() -> None:
    rows = [("a", 0.0, 1.0, 3), ("a", 1.0, 2.0, 1), ("b", 0.0, 2.0, 1), ("b", 2.0, 4.0, 1)]
    frame = pd.DataFrame(rows, columns=["run", "low", "high", "count"]).assign(group="cat", recipe="r")
    found = densities(frame)
    # by halves of 0 to 4: all of a and a half of b are below 2
    assert found[["run", "low", "high", "density"]].to_numpy().tolist() == [["r", 0, 2, 0.375], ["r", 2, 4, 0.125]]


def test_what_one_seed_lacks_has_no_mean() -> None:
    frame = pd.DataFrame({"run": ["a", "b", "a"], "recipe": "r", "key": [1, 1, 2], "value": [1.0, 2.0, 3.0]})
    assert averaged(frame, ["key"])[["key", "value", "runs"]].to_numpy().tolist() == [[1, 1.5, 2]]
    frame.loc[1, "value"] = np.nan
    assert averaged(frame, ["key"])["value"].isna().all()


def test_tables_say_of_how_many_seeds_a_mean_is(gathered: inputs.Inputs) -> None:
    headline = tables.headline(gathered.tables, gathered.recipes).shown()
    assert headline[["Run", "Seeds"]].to_numpy().tolist() == [
        ["regular", "3"], ["id", "3"], *([label, "1"] for label in LABELS),
    ]  # fmt: skip
    assert set(tables.correlation(gathered.tables["correlation.csv"]).shown()["Seeds"]) == {"3"}
    assert set(tables.pruning(gathered.tables["pruning.csv"]).shown()["Run"]) == {"regular", "id"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs with their vectors: two seeds of one recipe, two of another, and one more."""
    root = tmp_path_factory.mktemp("measured")
    for seed, label in enumerate(("r1", "r2", "i1", "i2", "alone"), start=1):
        run = handmade.run_of_batches(root / label, batches(seed), shapes=SHAPES)
        for noted in run.manifest["sets"].values():
            noted.setdefault("tokens_mean", 10.0)
        write_text(run.path / "correlation.csv", csv_of(correlation_table(run)))
        sealed(run.path, run.manifest)
    return [root / label for label in ("r1", "r2", "i1", "i2", "alone")]


@pytest.mark.usefixtures("undrawn")
def test_recipes_are_compared_with_the_first_and_lead(measured: list[Path]) -> None:
    found = inputs.gather([*measured[4:], *measured[:4]], compare=True, groups=["id=i1,i2"])
    assert [(each.first.label, each.second.label) for each in found.comparisons] == [
        ("alone", "id"), ("alone", "r1"), ("alone", "r2"),
    ]  # fmt: skip
    said = summary.changes(found)
    assert ["over 2 against 1 training seeds" in text for text in said] == [True] * 2 + [False] * 4
    difference = next(each for each in sections.correlation(found) if each.stem == "difference")
    assert isinstance(difference.content, Table)
    assert difference.content.frame["Seeds"].unique().tolist() == ["2 against 1", "1 against 1"]
    assert "Of one run against one, it speaks of these two trained models" in difference.caption


def test_two_recipes_have_their_difference_beside_them_under_one_border(measured: list[Path]) -> None:
    found = inputs.gather(measured[:4], compare=True, groups=["regular=r1,r2", "id=i1,i2"])
    assert found.labels == ["regular", "id"]
    drawn = next(each.content for each in sections.correlation(found) if each.stem == "correlation-mt")
    assert titles(drawn.figure) == ["regular (2 seeds)", "id (2 seeds)", "id − regular"]
    at = drawn.data.set_index(["run", "subset", "group_a", "group_b"])["corrected"]
    change = drawn.data.set_index(["run", "subset", "group_a", "group_b"])["difference"]
    for subset in ("all", "high", "low"):
        where = subset, "cat", "nob"
        assert at["id", *where] - at["regular", *where] == pytest.approx(change["id", *where])
    assert "95% interval over training seeds (2 against 2) excludes 0" in drawn.caption


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_two_recipes_is_made(measured: list[Path], tmp_path: Path) -> None:
    text = Page(report(measured[:4], tmp_path / "out", groups=["regular=r1,r2", "id=i1,i2"])).text
    assert text.startswith("regular and id – sensikit report")
    assert text.count("over 2 against 2 training seeds") == 2
    assert "Of a recipe they are over its training seeds too, but for a mean PCC." in text


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        (["regular=r1,r9"], "names r9, which is not there"),
        (["regular=r1,r2", "id=r2,i1"], "names r2 twice"),
        (["regular"], "is not NAME=LABEL,LABEL,…"),
    ],
)
def test_a_group_of_no_such_runs_is_refused(groups: list[str], problem: str, seeds: list[Path]) -> None:
    with pytest.raises(OptionError, match=problem):
        inputs.gather(seeds, groups=groups)
    options = [word for group in groups for word in ("--group", group)]
    done = call("report", *seeds, *options, "--out", seeds[0].parent / "out")
    assert done.code == 2
    assert problem in done.error
    assert not (seeds[0].parent / "out").exists()
