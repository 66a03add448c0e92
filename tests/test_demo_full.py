"""The full demo: two systems that differ in the method alone, side by side, at toy size."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sensikit import demo as demo_module
from sensikit.backends.fairseq.plugin import launch
from sensikit.demo import demo
from sensikit.demo.full import demo_full
from sensikit.errors import RunError
from sensikit.files import read_json, sha256
from sensikit.report import page
from sensikit.run import Run
from tests.support.command import call
from tests.support.corpus_text import english
from tests.test_demo import TINY, write_package

FEW = replace(TINY, updates=4, ratios=(0.0, 0.5))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packages")
    sentences = english(240)
    write_package(root, "pages", sentences[:160])
    write_package(root, "shop", sentences[120:])
    out = tmp_path_factory.mktemp("finished") / "demo-full"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        patch.setattr(demo_module, "DESIGN", demo_module.DESIGN.replace("sensikit_small", "sensikit_tiny"))
        assert demo_full(out, FEW) == out / "report.html"
        before = {
            path: sha256(path) for path in out.rglob("*") if path.is_file() and path.suffix not in (".svg", ".png")
        }
        patch.setattr(launch, "train", refuse)
        patch.setattr("sensikit.corpus.build", refuse)
        patch.setattr("sensikit.backends.fairseq.translation.Translation.translate", refuse)
        patch.setattr(page, "report", lambda runs, out, **_: out / "report.html")
        demo_full(out, FEW)  # it is finished: nothing is done twice
        assert {path: sha256(path) for path in before} == before
    return out


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("done before")


@pytest.mark.slow
def test_the_systems_differ_in_the_method_alone(finished: Path) -> None:
    regular, other = (read_json(finished / "training" / name / "recipe.json")["flags"] for name in ("regular", "cd+id"))
    added = ["--denoise", "cd", "--distill", "translation,encoder,decoder"]
    assert not set(added) & set(regular)
    assert [word for word in other if word not in added] == regular
    assert len(other) == len(regular) + len(added)


@pytest.mark.slow
def test_they_saw_the_same_translation(finished: Path) -> None:
    logs = [
        [json.loads(line) for line in (finished / "training" / name / "log.jsonl").read_text().splitlines()]
        for name in ("regular", "cd+id")
    ]
    epochs = [[line for line in log if line["set"] == "train"] for log in logs]
    assert [line["num_updates"] for line in epochs[0]] == [line["num_updates"] for line in epochs[1]]
    assert [line["translation_tokens"] for line in epochs[0]] == [line["translation_tokens"] for line in epochs[1]]
    assert all("encoder" in line and "decoder_x" in line for line in epochs[1])
    assert all("encoder" not in line and line["translation_x"] == 0 for line in epochs[0])


@pytest.mark.slow
def test_both_are_evaluated_analysed_and_pruned(finished: Path) -> None:
    scores = pd.read_csv(finished / "evaluation" / "evaluation.csv")
    assert set(scores["system"]) == {"Regular", "CD+ID"}
    assert (finished / "evaluation" / "significance.csv").is_file()
    for name, tasks in (("regular", ("mt",)), ("cd+id", ("mt", "denoise"))):
        run = Run.open(finished / "runs" / name)
        assert tuple(run.tasks) == tasks
        assert len(run.read_table("pruning.csv")) == 2 * 2 * len(FEW.ratios)  # two groups, two metrics
        best = finished / "training" / name / "checkpoint_best.pt"
        assert run.manifest["provenance"]["checkpoint_sha256"] == sha256(best)


@pytest.mark.slow
def test_the_report_shows_them_side_by_side(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Regular" in page
    assert "CD+ID" in page


@pytest.mark.slow
def test_a_demo_is_no_full_demo(finished: Path) -> None:
    with pytest.raises(RunError, match="was made with another methods"):
        demo(finished, FEW)


def test_the_command_takes_the_directory_of_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("sensikit.demo.full.demo_full", lambda out, command: asked.append(("full", str(out))))
    monkeypatch.setattr("sensikit.demo.demo", lambda out, command: asked.append(("demo", str(out))))
    for words in (["--full"], ["--full", "--out", "x"], [], ["--out", "y"]):
        assert call("demo", *words).code == 0
    assert asked == [("full", "demo-full"), ("full", "x"), ("demo", "demo"), ("demo", "y")]
