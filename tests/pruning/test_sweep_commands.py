"""The command lines of a sweep stand beside its ledger, and in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensikit.pruning.ledger import recorded
from sensikit.pruning.sweep import prune
from sensikit.report import page, sections
from sensikit.run import Run
from tests.support.command import Called, call
from tests.support.watched import SCORING, undisturbed


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tests.support.watched import Watched

    monkeypatch.setattr("sensikit.backends.open_model", lambda *_: Watched())
    return undisturbed(tmp_path / "run")


def swept(run: Path, *options: object) -> Called:
    done = call("prune", run, "--ratios", "0,0.5", "--languages", "cat", "--tokenizer", "none", *options)
    assert done.code == 0, done.error
    return done


def test_every_command_is_noted_once_and_in_order(run: Path) -> None:
    swept(run)
    swept(run, "--resume")
    swept(run, "--resume", "--order", "reverse")
    swept(run, "--resume")
    common = f"sensikit prune {run} --ratios 0,0.5 --languages cat --tokenizer none"
    assert recorded(run / "pruning") == [common, f"{common} --resume", f"{common} --resume --order reverse"]


def test_the_ledger_does_not_depend_on_how_often_a_sweep_was_begun(run: Path) -> None:
    swept(run)
    once = (run / "pruning" / "ledger.jsonl").read_bytes()
    swept(run, "--resume")
    assert (run / "pruning" / "ledger.jsonl").read_bytes() == once
    assert b"sensikit prune" not in once


def test_a_sweep_from_python_notes_nothing(tmp_path: Path) -> None:
    from tests.support.watched import Watched

    run = Run.open(undisturbed(tmp_path / "run"))
    prune(run, Watched(), [0], groups=["cat"], settings=SCORING)
    assert recorded(run.path / "pruning") == []
    assert not (run.path / "pruning" / "commands.json").exists()


def test_the_report_shows_the_commands_that_were_given(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(run, "--beam", "3")
    monkeypatch.setattr(page, "SECTIONS", [each for each in page.SECTIONS if each[1] is sections.pruning])
    page.report([run])
    (command,) = recorded(run / "pruning")
    assert command.endswith("--beam 3")
    assert command in (run / "tables" / "pruning.txt").read_text()


def test_damaged_commands_are_one_line(run: Path) -> None:
    swept(run)
    again = ["--ratios", "0,0.5", "--languages", "cat", "--tokenizer", "none", "--resume"]
    for content in ("{", "{}", "[3]", '{"commands": ["sensikit prune"], "seal": ""}'):
        (run / "pruning" / "commands.json").write_text(content)
        for done in (call("report", run), call("prune", run, *again)):
            assert done.code == 2, content
            assert done.error.count("\n") == 1, content
            assert "pruning/commands.json" in done.error, content
