"""`sensikit audit`, the scorers and the cross matrix of `sensikit prune`, from the command line."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

from sensikit.pruning.scorers import SCORERS
from sensikit.run import Run
from sensikit.sensitivity.ablation import BATCHES, PARAMETERS
from sensikit_cli.audit import audit as audit_command
from tests.support.command import call

pytestmark = pytest.mark.usefixtures("backend")


def test_audit_prints_a_line_for_each_language_and_its_signature(run: Path) -> None:
    done = call("audit", run, "--groups", "nso,cat", "--parameters", 100, "--batches", 2)
    assert done.code == 0, done.error
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == ["cat", "nso"]
    assert lines[-1] == f"Next: sensikit report {run}"
    lines.pop()
    table = Run.open(run).read_table("audit-summary.csv")
    first = table.iloc[0]
    assert f"spearman {first['value']:.3f} ({first['value_low']:.3f} to {first['value_high']:.3f})" in lines[0]
    assert re.search(r"pearson 0\.\d{3}  top10_agreement 0\.\d{3} \(", lines[1])  # Pearson's has no interval
    assert lines[-1] == first["signature"]
    typed = ["sensikit", "audit", str(run), "--groups", "nso,cat", "--parameters", "100", "--batches", "2"]
    assert first["command"] == shlex.join(typed)
    assert "|params:100|" in lines[-1]
    assert "|batches:2|" in lines[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--groups", "xyz"], ["--groups", "xyz", "cat, fur, nob, nso"]),
        (["--parameters", 3], ["--parameters", "too few"]),
        (["--batches", 0], ["--batches", "too few"]),
        (["--task", "denoise"], ["denoise"]),
        (["--parameters", "many"], ["--parameters"]),
    ],
)
def test_what_cannot_be_audited_is_one_line_and_code_2(run: Path, options: list[object], words: list[str]) -> None:
    done = call("audit", run, *options)
    assert done.code == 2
    (line,) = [line for line in done.error.splitlines() if line.startswith("sensikit: ")]
    assert all(word in line for word in words), line
    assert not (run / "audit.csv").exists()


def test_an_audit_of_nothing_is_one_line(tmp_path: Path) -> None:
    done = call("audit", tmp_path)
    assert done.code == 2
    assert "is not a run directory" in done.error


def test_every_order_prunes_from_the_command_line_and_scores_are_stored(run: Path) -> None:
    options = ["--order", ",".join(SCORERS), "--seeds", 1, "--ratios", "0,0.5", "--groups", "cat"]
    done = call("prune", run, *options, "--tokenizer", "none")
    assert done.code == 0, done.error
    found = Run.open(run)
    assert set(found.read_table("pruning.csv")["order"]) == {"none", *SCORERS}
    assert found.has("fisher-mt", "cat")
    assert found.has("wanda-mt", "cat")
    assert not (run / "pruning-cross.csv").exists()


def test_cross_reaches_the_sweep(run: Path) -> None:
    done = call("prune", run, "--cross", "--ratios", "0.5", "--languages", "cat,nso", "--tokenizer", "none")
    assert done.code == 0, done.error
    table = Run.open(run).read_table("pruning-cross.csv")
    assert set(zip(table["group"], table["evaluated"], strict=True)) == {
        (one, other) for one in ("cat", "nso") for other in ("cat", "nso")
    }


def test_an_unknown_order_is_refused_before_a_checkpoint_is_opened(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensikit.backends.open_model", None)
    done = call("prune", run, "--order", "specificity,alphabet")
    assert done.code == 2
    assert "--order: alphabet is not an order" in done.error


def test_help_names_every_order() -> None:
    done = call("prune", "--help")
    assert all(name in re.sub(r"-\n +", "-", done.output) for name in SCORERS)


def test_defaults_are_those_of_the_library() -> None:
    asked = inspect.signature(audit_command).parameters
    assert (asked["parameters"].default, asked["batches"].default) == (PARAMETERS, BATCHES)
