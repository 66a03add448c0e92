from __future__ import annotations

import base64
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from sensikit import figures
from sensikit.errors import SensikitError
from sensikit.figures import Drawn, style
from tests.support import synthetic_run, synthetic_tables
from tests.support.drawn import LANGUAGES, texts, two

FEW = {code: LANGUAGES[code] for code in ("cat", "fao", "nob")}


def every_figure() -> dict[str, Callable[[], Drawn]]:
    few, tables = FEW, synthetic_tables
    pruning = two(lambda seed: synthetic_run.pruning(few, strength=1 + seed / 10))
    scores = tables.evaluation(few)
    pieces = ["▁a", "b"]
    return {
        "correlation": lambda: figures.correlation_heatmaps(synthetic_run.correlation(few), few, ("high", "low")),
        "pruning": lambda: figures.pruning_curves(pruning),
        "comparison": lambda: figures.pruning_comparison(pruning),
        "by-group": lambda: figures.pruning_curves_by_group(pruning, few),
        "specificity": lambda: figures.specificity(synthetic_run.specificity(few), few),
        "balance": lambda: figures.balance(synthetic_run.balance(few), few),
        "data": lambda: figures.data_statistics(few),
        "similarity": lambda: figures.task_similarity(tables.similarity(few), few),
        "convergence": lambda: figures.convergence_curves(tables.convergence(few), few),
        "components": lambda: figures.component_heatmaps(tables.components(few)),
        "component-groups": lambda: figures.specificity_by_component(tables.components(few), few),
        "component-correlation": lambda: figures.component_correlation(tables.components_correlation(few)),
        "overlap": lambda: figures.overlap_heatmaps(tables.overlap(few), few),
        "dendrogram": lambda: figures.dendrogram(synthetic_run.correlation(few), few),
        "violins": lambda: figures.sensitivity_violins(tables.distribution(few), synthetic_run.balance(few), few),
        "cross": lambda: figures.cross_matrix(tables.cross(few), few),
        "audit": lambda: figures.audit_scatter(tables.audit(few), tables.audit_summary(few), few),
        "gains": lambda: figures.quality_gains(scores["significance.csv"]),
        "masking": lambda: figures.masking_ratio(
            scores["tiers.csv"]
            .query("metric == 'bleu'")
            .assign(mask_ratio=0.3, method="cd", seeds=1, mean=10.0, low=9.0, high=11.0)
        ),
        "tokens": lambda: figures.token_layout(synthetic_tables.layout(pieces, ["", "b"], pieces, ["", "b"])),
    }


@pytest.fixture(scope="module")
def under_other_settings() -> dict[str, Drawn]:
    with matplotlib.rc_context({"font.size": 17, "svg.fonttype": "none"}):
        before = dict(matplotlib.rcParams)
        found = {name: draw() for name, draw in every_figure().items()}
        assert dict(matplotlib.rcParams) == before
    return found


def test_figures_leave_pyplot_and_the_settings_of_the_caller_alone(under_other_settings: dict[str, Drawn]) -> None:
    assert plt.get_fignums() == []
    # nor do the caller's settings reach into a figure that is drawn under them
    drawn = [drawn.figure for drawn in under_other_settings.values()]
    assert all(text.get_fontsize() < 9 for figure in drawn for text in figure.findobj(Text))


def test_ticks_on_logarithmic_axes_are_plain_numbers_and_not_unparsed_mathtext(
    under_other_settings: dict[str, Drawn],
) -> None:
    found = {name: drawn.figure for name, drawn in under_other_settings.items()}
    assert not [text for figure in found.values() for text in texts(figure) if "$" in text]
    assert {"10K", "100K"} <= set(texts(found["data"]))
    assert {"−1", "0", "1"} <= set(texts(found["specificity"]))
    assert {"0.1", "1"} <= set(texts(found["balance"]))


def test_a_run_called_like_an_equation_is_not_one(tmp_path: Path) -> None:
    frame = synthetic_run.pruning(LANGUAGES).assign(run="a$\\frac{$ 中文")
    second = synthetic_run.pruning(LANGUAGES).assign(run="b")
    drawn = figures.pruning_curves(pd.concat([frame, second]))
    figures.save(drawn, tmp_path / "odd", kinds=("svg",))
    assert drawn.figure.axes[0].get_title() == "a$\\frac{$ 中文"


@pytest.mark.parametrize("name", ["data", "correlation", "audit", "violins", "tokens"])
def test_the_same_data_give_the_same_bytes(tmp_path: Path, name: str, under_other_settings: dict[str, Drawn]) -> None:
    kinds = ("svg", "png", "pdf") if name == "data" else ("svg",)

    def saved(figure: Drawn, place: Path) -> dict[str, bytes]:
        found = figures.save(figure, place / name, title="a title", note="S|task:mt", kinds=kinds)
        return {path.name: path.read_bytes() for path in found}

    first = saved(under_other_settings[name], tmp_path / "first")
    assert saved(every_figure()[name](), tmp_path / "second") == first
    assert len(first) == len(kinds) + 1  # and the data


def test_files_hold_their_signature_and_need_no_font_of_the_reader(
    tmp_path: Path, every_kind: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "KINDS", every_kind)
    figure = figures.data_statistics(LANGUAGES)
    svg, png, pdf, csv = figures.save(figure, tmp_path / "data", title="Data", note="S|task:mt|ckpt:5e1f")
    assert "S|task:mt|ckpt:5e1f" in svg.read_text()
    assert b"S|task:mt|ckpt:5e1f" in png.read_bytes()
    assert "<text" not in svg.read_text()
    assert b"/Type3" not in pdf.read_bytes()
    assert b"/CIDFontType2" in pdf.read_bytes()
    assert pd.read_csv(csv)["train"].tolist() == figure.data["train"].tolist()


def test_every_figure_brings_its_data_and_a_caption_and_a_notebook_shows_it(
    under_other_settings: dict[str, Drawn],
) -> None:
    for name, drawn in under_other_settings.items():
        assert len(drawn.data), name
        assert len(drawn.caption) > 60, name
        assert drawn.caption.endswith("."), name
    shown = under_other_settings["data"]._repr_mimebundle_()
    assert shown["text/plain"] == under_other_settings["data"].caption
    image = shown["text/html"].split("data:image/svg+xml;base64,")[1].split('"')[0]
    assert base64.b64decode(image).startswith(b"<?xml")


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
