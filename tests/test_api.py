"""What Python has beside the steps: what is refused, and figures of several runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import sensikit
from sensikit.errors import DamagedError, OptionError
from sensikit.report import page, tables
from tests.support import toy


def test_what_cannot_be_opened_or_drawn_says_why(analysed: Path) -> None:
    run = sensikit.Run.open(analysed)
    with pytest.raises(OptionError, match=r"data: is not given; say where the text is: open\(model, data\)"):
        sensikit.open("nllb")
    with pytest.raises(OptionError, match="is measured with choices of its own; leave out direction, "):
        sensikit.open(run, direction="eng-xxx")
    with pytest.raises(OptionError, match="runs: there is none"):
        sensikit.plot_specificity()
    with pytest.raises(OptionError, match="task: lm was not analysed; choose mt"):
        sensikit.plot_specificity(run, task="lm")
    for plot in (sensikit.plot_correlation, sensikit.plot_dendrogram):
        with pytest.raises(OptionError, match="correlation: kendall is not one of them; choose corrected or"):
            plot(run, value="kendall")
    with pytest.raises(DamagedError, match=r"pruning\.csv: does not exist; make it with sensikit prune"):
        sensikit.plot_pruning(analysed)


def test_two_runs_stand_side_by_side_with_their_difference(analysed: Path, tmp_path: Path) -> None:
    other = shutil.copytree(analysed, tmp_path / "other")
    figure = sensikit.plot_correlation(analysed, str(other))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["run", "other", "other − run"]
    assert "− run" not in "".join(
        axes.get_title() for axes in sensikit.plot_correlation(analysed, other, value="pcc").axes
    )


def test_the_function_is_not_hidden_by_its_package() -> None:
    assert tables.__name__ == "sensikit.report.tables"  # imported: the package would now stand in its place
    assert sensikit.report.__name__ == "report"
    assert callable(sensikit.report)


def test_one_run_is_reported_however_it_is_given(
    analysed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(analysed, tmp_path / "run"))
    monkeypatch.setattr(page, "SECTIONS", ())
    for given in (path, str(path), [path], sensikit.Run.open(path), [sensikit.Run.open(path)]):
        assert sensikit.report(given) == path / "report.html"


def test_no_step_changes_the_mode_of_a_module_or_the_seed_of_torch(analysed: Path, tmp_path: Path) -> None:
    model, run = toy.backend(), sensikit.Run.open(shutil.copytree(analysed, tmp_path / "run"))
    model.module.train()
    model.module.encoder["layers"][0].eval()

    def state() -> tuple[list[bool], list[int]]:
        return [part.training for part in model.module.modules()], torch.get_rng_state().tolist()

    before, losses = state(), sensikit.SweepSettings(metrics=("loss",), bootstrap=100)
    sensikit.analyze(model, tmp_path / "again", sensikit.AnalysisSettings(batches=2, tokens=64))
    assert state() == before
    sensikit.audit(run, model, parameters=60)
    assert state() == before
    table = sensikit.prune(run, model, [0, 0.5], ["fisher", "wanda"], settings=losses)
    assert state() == before
    model.module.eval()  # what is scored is so in evaluation mode, whatever the module was in
    shutil.rmtree(run.path / "pruning")
    assert sensikit.prune(run, model, [0, 0.5], ["fisher", "wanda"], settings=losses).equals(table)


def test_a_notebook_shows_what_a_model_is(tiny_checkpoint: Path, tiny_data: Path) -> None:
    shown = repr(sensikit.open(tiny_checkpoint, tiny_data)).splitlines()
    assert shown[0] == f"Model {tiny_checkpoint}"
    assert shown[1].startswith("  model: fairseq (")
    assert shown[2:] == [f"  data: {tiny_data}", "  mt: cat, nob, fao"]
