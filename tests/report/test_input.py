from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sensikit.errors import SensikitError
from sensikit.files import read_json, write_json, write_text
from sensikit.report.page import report
from tests.support import synthetic_run, synthetic_tables
from tests.support.command import call
from tests.support.page import FEW, Page
from tests.support.stored import sealed

# bad input


def edited(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        frame = pd.read_csv(run / name, dtype=object)
        write_text(run / name, change(frame).to_csv(index=False))

    return edit


def cell(line: int, column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[line - 2, column] = value
        return frame

    return change


def manifest_of(**changes: Any) -> Callable[[Path], object]:
    return lambda run: sealed(run, **changes)


def resealed(name: str, column: str, value: str) -> Callable[[Path], object]:
    """Have a value in a cell as if the table had been written like that."""
    return lambda run: (edited(name, cell(4, column, value))(run), sealed(run))  # type: ignore[func-returns-value]


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame.iloc[:5], frame.iloc[:1], frame.iloc[5:]])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda run: (run / "manifest.json").unlink(), "is not a run directory"),
    "another format": (manifest_of(format=1), "manifest.json: is not of format 4"),
    "no analysis": (manifest_of(analyses={}), "manifest.json: lacks any analyses"),
    "no signature": (manifest_of(analyses={"mt": {}}), "manifest.json: lacks the mt analysis's signature"),
    "no groups": (manifest_of(groups={}), "manifest.json: lacks any groups"),
    "a group without a family": (manifest_of(groups={"cat": {"name": "C"}}), "lacks cat's family"),
    "a size in words": (
        manifest_of(groups={"cat": {**FEW["cat"], "sizes": {"train": "many"}}}), "lacks cat's sizes"
    ),
    "a set without tokens": (
        manifest_of(sets={"mt/cat": {"batches": 3, "files": {}}}), "manifest.json: lacks the hashes of mt/cat"
    ),
    "no hash": (manifest_of(provenance={"framework": "fairseq"}), "lacks the provenance's checkpoint"),
    "not JSON": (lambda run: (run / "manifest.json").write_text("{"), "manifest.json: is not valid JSON"),
    "a score that was edited": (
        edited("pruning.csv", cell(7, "value", 77.7)), "pruning.csv: is not as it was written; remove it and make it"
    ),
    "a correlation that was edited": (
        edited("correlation.csv", cell(4, "pcc", 0.5)), "correlation.csv: is not as it was written"
    ),
    "a table that is gone": (lambda run: (run / "balance.csv").unlink(), "balance.csv: does not exist; make it with"),
    "a task that leads elsewhere": (
        resealed("correlation.csv", "task", "x/../../victim/notes"), "names x/../../victim/notes, which is no task"
    ),
    "an order that does not exist": (
        resealed("pruning-cross.csv", "order", "../a"), "pruning-cross.csv: names ../a, which is no order"
    ),
    "a command that was edited": (
        lambda run: write_text(run / "pruning" / "commands.json", '{"commands": ["b"]}'),
        "commands.json: is not as it was written",
    ),
    "a missing column": (
        edited("correlation.csv", lambda frame: frame.drop(columns="ceiling")),
        "correlation.csv: lacks the column ceiling",
    ),
    "a column that is only in the key": (
        edited("pruning.csv", lambda frame: frame.drop(columns="seed")), "pruning.csv: lacks the column seed"
    ),
    "an empty file": (lambda run: (run / "balance.csv").write_bytes(b""), "balance.csv: is not a table"),
    "no rows": (edited("balance.csv", lambda frame: frame.iloc[:0]), "balance.csv: has no rows"),
    "a directory": (
        lambda run: ((run / "balance.csv").unlink(), (run / "balance.csv").mkdir()), "balance.csv: is not a file"
    ),
    "bytes that are no text": (
        lambda run: (run / "balance.csv").write_bytes(b"task\n\xff\xfe\n"), "balance.csv: is not a table"
    ),
    "one cell too many": (
        lambda run: (run / "balance.csv").write_text("task,group,statistic,value\nmt,cat,mean,1\nmt,cat,std,1,2\n"),
        "balance.csv: is not a table",
    ),
    "a word for a number": (edited("pruning.csv", cell(7, "value", "many")), "pruning.csv:7: has many for value"),
    "an infinite number": (edited("correlation.csv", cell(4, "pcc", "inf")), "correlation.csv:4: has inf for pcc"),
    "a number that is not there": (
        edited("pruning.csv", cell(3, "ratio", None)), "pruning.csv:3: has nothing for ratio"
    ),
    "a group that is not there": (
        edited("pruning.csv", cell(3, "group", None)), "pruning.csv:3: has nothing for group"
    ),
    "a group of another run": (
        edited("specificity.csv", cell(3, "group", "zul")), "specificity.csv: names zul, which is no group"
    ),
    "a row twice": (edited("correlation.csv", repeated), "correlation.csv:7: repeats an earlier line"),
    "a statistic that is not there": (
        edited("specificity.csv", lambda frame: frame[(frame["statistic"] != "q75") | (frame["group"] != "fao")]),
        "specificity.csv: lacks the statistic q75 of fao",
    ),
    "a component without its stack": (
        edited("components.csv", cell(3, "stack", None)), "components.csv:3: has nothing for stack"
    ),
    "an unpruned score that the cross matrix needs": (
        edited("pruning-cross.csv", lambda frame: frame[(frame["order"] != "none") | (frame["group"] != "fur")]),
        "pruning-cross.csv: lacks the unpruned bleu of fur",
    ),
    "an audit without a statistic": (
        edited("audit-summary.csv", lambda frame: frame[frame["statistic"] != "pearson"]),
        "audit-summary.csv: lacks the statistic pearson of cat",
    ),
    "no unpruned score": (
        edited("pruning.csv", lambda frame: frame[(frame["order"] != "none") | (frame["group"] != "fur")]),
        "pruning.csv: lacks the unpruned bleu of fur",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused_in_one_line_and_the_earlier_report_stays(tmp_path: Path, damage: str) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=synthetic_run.EVERY)
    write_text(run / "report.html", "an earlier report")
    harm, said = DAMAGE[damage]
    harm(run)
    done = call("report", run)
    assert done.code == 2
    assert said in done.error
    assert len(done.error.splitlines()) == 1
    assert (run / "report.html").read_text() == "an earlier report"
    assert not (run / "figures").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere"], "nowhere: does not exist"), (["a", "b"], "--out: several directories share no place"),
     (["a", "a", "--out", "out"], "a: is given twice"), (["a", "../here/a/", "--out", "out"], "a: is given twice"),
     (["a", "--label", "x", "--label", "y"], "--label: there are 2 for 1 runs"),
     (["a", "--out", "file"], "--out file: is not a directory"),
     (["a", "b", "--out", "out", "--label", "x", "--label", "x"], "--label: two runs would have the same name")],
)  # fmt: skip
def test_bad_arguments_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    here = tmp_path / "here"
    for name in ("a", "b"):
        synthetic_run.write_run(here / name, FEW, only=["correlation"])
    (here / "file").write_text("mine")
    monkeypatch.chdir(here)
    before = sorted(path.relative_to(here) for path in here.rglob("*"))
    done = call("report", *arguments)
    assert done.code == 2
    assert said in done.error
    assert len(done.error.splitlines()) == 1
    assert sorted(path.relative_to(here) for path in here.rglob("*")) == before


def test_no_run_at_all_is_refused() -> None:
    with pytest.raises(SensikitError, match="PATH: there is none"):
        report([])


@pytest.mark.usefixtures("undrawn")
def test_the_command_writes_the_page_and_says_where(tmp_path: Path) -> None:
    bare = synthetic_run.write_run(tmp_path / "bare", FEW, only=["overlap"])
    write_text(bare / "report.html", "an earlier report")
    done = call("report", bare, "--label", "A model")
    assert done.code == 0, done.error
    assert done.output == f"{bare / 'report.html'}\n"
    text = Page(bare / "report.html").text
    assert text.startswith("A model – sensikit report")
    assert f"sensikit report {bare} --label 'A model'" in text


# evaluations


def removed(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


def systems_of(**facts: Any) -> Callable[[Path], object]:
    return manifest_of(systems={"regular": {"checkpoint": "a.pt", "sha256": "1" * 64, **facts}})


EVALUATION: dict[str, tuple[Callable[[Path], object], str]] = {
    "another format": (manifest_of(format=1), "manifest.json: is not of format 3"),
    "not finished": (manifest_of(signature=None), "scores: was not finished"),
    "a group without a tier": (manifest_of(groups={"cat": {"name": "C"}}), "lacks cat's family"),
    "no hash of a checkpoint": (systems_of(sha256=None), "lacks regular's sha256"),
    "no hash of the data": (manifest_of(data={"path": "x"}), "lacks the data's sha256"),
    "a system that was added": (
        lambda path: write_json(path / "manifest.json", {**read_json(path / "manifest.json"), "baseline": "cd+id"}),
        "manifest.json: is not as it was written",
    ),
    "a score that was edited": (
        edited("evaluation.csv", cell(3, "value", 77.7)), "evaluation.csv: is not as it was written"
    ),
    "a translation that is gone": (removed("hypotheses/cd+id.fao.txt"), "cd+id.fao.txt: is missing or damaged"),
    "a reference that was edited": (
        lambda path: write_text(path / "references" / "fao.txt", "x"), "fao.txt: is missing or damaged"
    ),
    "a metric that does not exist": (
        resealed("tiers.csv", "metric", "ter"), "tiers.csv: names ter, which is no metric"
    ),
    "no scores": (removed("tiers.csv"), "tiers.csv: does not exist; make it with sensikit evaluate --resume"),
    "a word for a score": (edited("tiers.csv", cell(3, "value", "many")), "tiers.csv:3: has many for value"),
    "a system of another evaluation": (
        resealed("evaluation.csv", "system", "mass"), "evaluation.csv: names mass, which is no system"
    ),
    "a group of another evaluation": (
        edited("evaluation.csv", cell(3, "group", "zul")), "evaluation.csv: names zul, which is no group"
    ),
    "a difference twice": (edited("significance.csv", repeated), "significance.csv:7: repeats an earlier line"),
}  # fmt: skip


@pytest.mark.parametrize("damage", EVALUATION)
def test_a_damaged_evaluation_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = synthetic_tables.write_evaluation(tmp_path / "scores", FEW)
    harm, said = EVALUATION[damage]
    harm(path)
    done = call("report", path)
    assert done.code == 2
    assert said in done.error
    assert len(done.error.splitlines()) == 1
    assert not (path / "figures").exists()
