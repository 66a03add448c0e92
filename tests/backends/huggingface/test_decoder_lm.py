"""The example of a decoder language model: trained on real text, and measured by language."""

from __future__ import annotations

import runpy
from pathlib import Path

import pandas as pd
import pytest

from sensikit.corpus import build
from sensikit.demo import Recipe, catalogues
from tests.support.command import done
from tests.support.page import Page

EXAMPLE = Path(__file__).parents[3] / "notebooks" / "decoder_lm.py"


@pytest.mark.slow
def test_the_example_is_measured_by_language(tmp_path: Path) -> None:
    pytest.importorskip("wagtail")
    data, model, run = (tmp_path / name for name in ("data", "lm", "run"))
    build([catalogues(name) for name in Recipe.packages], data, languages=["cat", "glg", "isl"], binarise=False)
    runpy.run_path(str(EXAMPLE))["train"](data, model, updates=150, width=64, layers=2, vocabulary=600)
    done("analyze", model, "--data", data, "--out", run, "--batches", "20", "--tokens", "300")
    sweep = ("--metric", "loss,bpb", "--order", "specificity,random", "--max-sentences", "60")
    done("prune", run, "--ratios", "0,0.3,0.6", *sweep)
    done("prune", run, "--ratios", "0.6", *sweep, "--cross", "--resume")
    curves = pd.read_csv(run / "pruning.csv").set_index(["metric", "order", "ratio", "group"])["value"].sort_index()
    assert curves["loss", "none", 0.0].max() < 5.5  # nats; a model that knew nothing would lose ln 600 = 6.4
    assert (curves["loss", "specificity", 0.6] > curves["loss", "none", 0.0]).all()
    pcc = pd.read_csv(run / "correlation.csv").set_index(["subset", "group_a", "group_b"])["pcc"].sort_index()
    assert pcc["high", "cat", "glg"] > max(pcc["high", "cat", "isl"], pcc["high", "glg", "isl"])
    done("report", run, "--out", tmp_path / "page")
    text = Page(tmp_path / "page" / "report.html").text
    for wrong in ("pairs for training", "Sentence pairs", "translat", "xxx→", "bits per byte (nats", "denoise"):
        assert wrong not in text
    assert "of 4 languages (cat, eng, glg and isl)" in text
