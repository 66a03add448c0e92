"""The manifest: what a run says of itself, and what is refused as damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sensikit.errors import RunError
from sensikit.run import Run
from tests.support.stored import MANIFEST, PARAMETERS, filled


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return filled(tmp_path / "run")


def test_a_run_is_opened_as_it_was_made(run: Run) -> None:
    again = Run.open(run.path)
    assert again.parameters == PARAMETERS
    assert again.manifest == json.loads(json.dumps(run.manifest))
    assert list(again.manifest["groups"]) == ["nob", "cat"]
    assert again.manifest["sets"]["mt/cat"]["loss"] == 2.5
    assert again.manifest["format"] == 4


def test_groups_come_in_the_order_of_the_manifest_and_only_once_measured(run: Run) -> None:
    assert Run.open(run.path).groups() == ["nob", "cat"]
    assert Run.open(run.path).groups("denoise") == []
    del run.manifest["sets"]["mt/nob"]
    assert run.groups() == ["cat"]


def test_a_task_that_was_not_analysed_is_one_line(run: Run) -> None:
    assert run.tasks == ["mt"]
    assert run.analysis("mt") == run.analysis() == MANIFEST["analyses"]["mt"]
    with pytest.raises(RunError, match=f"^{run.path}: holds no analysis of denoise; .*--task denoise --resume$"):
        run.analysis("denoise")


def damaged(run: Run, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((run.path / "manifest.json").read_text())
    changed = change(manifest)
    (run.path / "manifest.json").write_text(json.dumps(manifest if changed is None else changed))


def without(
    field: str, of: Callable[[dict[str, Any]], dict[str, Any]] = lambda m: m
) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        del of(manifest)[field]

    return change


KINDS = ("", ".half", ".blocks")
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "of an earlier format": (lambda m: m.update(format=3), "is not of format 4"),
    "of a later format": (lambda m: m.update(format=5), "is not of format 4"),
    "without a format": (without("format"), "is not of format 4"),
    "a list": (lambda m: [m], "is not of format 4"),
    "with parameters that are none": (lambda m: m.update(parameters=[3]), "damaged list of parameters"),
    "with half a parameter": (without("shape", of=lambda m: m["parameters"][0]), "damaged list of parameters"),
    "with more than a parameter": (lambda m: m["parameters"][0].update(colour="red"), "damaged list of parameters"),
    "with sets that are none": (lambda m: m.update(sets=[]), "lacks sets"),
    "with a set that is none": (lambda m: m["sets"].update({"mt/cat": 3}), "lacks mt/cat's files"),
    "with a set without files": (without("files", of=lambda m: m["sets"]["mt/cat"]), "lacks mt/cat's files"),
    "with a rest without σ": (lambda m: m["sets"].update({"mt/cat.rest": {"files": {}}}), "lacks mt/cat.rest's sigma"),
    "with a set whose files are not listed": (
        lambda m: m["sets"]["mt/cat"].update(files={}), "lacks the hashes of mt/cat"
    ),
    "with a file of another place": (
        lambda m: m["sets"]["mt/cat"]["files"].update({"../notes": "0" * 64}), "lacks the hashes of mt/cat"
    ),
    "with a set of no group": (
        lambda m: m["sets"].update({"mt/zul": {"files": {f"sensitivity/mt/zul{k}.safetensors": "" for k in KINDS}}}),
        "has a set mt/zul, of no group",
    ),
    "without one of its parameters": (lambda m: m["parameters"].__delitem__(-1), "has another parameter_count than"),
    "with a parameter twice": (lambda m: m["parameters"].append(m["parameters"][0]), "one is listed twice"),
    "with a hole in the flat order": (lambda m: m["parameters"].__delitem__(2), "p3 does not start where"),
    "with a parameter of another part": (
        lambda m: m["parameters"][0].update(component="norm"), "p0 is in another part of the model"
    ),
    "with a prunable flag turned": (
        lambda m: m["parameters"][1].update(prunable=True), "has another prunable_count than its parameters"
    ),
    "with another number of blocks": (
        lambda m: m["sets"]["mt/cat"].update(block_batches=[1, 1]), "has other batches of mt/cat in its blocks"
    ),
    "with another seed": (lambda m: m["analyses"]["mt"]["settings"].update(seed=2), "is not as it was written"),
    "with groups in another order": (
        lambda m: m.update(groups=dict(reversed(m["groups"].items()))), "is not as it was written"
    ),
    "without its own hash": (without("seal"), "is not as it was written"),
    "with no group": (lambda m: m.update(groups={}), "lacks any groups"),
    "with a group that is none": (lambda m: m["groups"].update(cat="Catalan"), "lacks cat's name"),
    "with a size of monolingual text in words": (lambda m: m["groups"]["cat"].update(mono="many"), "lacks cat's sizes"),
    "with a size in words": (lambda m: m["groups"]["cat"]["sizes"].update(test="many"), "lacks cat's sizes"),
    "with no analysis": (lambda m: m.update(analyses={}), "lacks any analyses"),
    "with an analysis that is none": (lambda m: m.update(analyses={"mt": "S"}), "lacks the mt analysis's signature"),
    "with a count in words": (lambda m: m.update(prunable_count="8"), "lacks prunable_count"),
    "with a count that is a truth": (lambda m: m.update(prunable_count=True), "lacks prunable_count"),
    **{f"without {field}": (without(field), f"lacks {field}") for field in (*MANIFEST, "sets", "parameters", "tables")},
    **{
        f"without the provenance's {field}": (
            without(field, of=lambda m: m["provenance"]), f"lacks the provenance's {field}"
        )
        for field in MANIFEST["provenance"]
    },
    **{
        f"without the analysis's {field}": (
            without(field, of=lambda m: m["analyses"]["mt"]), f"lacks the mt analysis's {field}"
        )
        for field in MANIFEST["analyses"]["mt"]
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_manifest_that_is_not_ours_is_one_line(run: Run, name: str) -> None:
    change, problem = CHANGES[name]
    damaged(run, change)
    with pytest.raises(RunError, match=problem) as caught:
        Run.open(run.path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{run.path}/manifest.json: ")


@pytest.mark.parametrize("text", ["", "{", "\x00\x00"])
def test_a_manifest_that_is_damaged_is_one_line(run: Run, text: str) -> None:
    (run.path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest.json: is not valid JSON"):
        Run.open(run.path)


def test_what_is_no_run_directory_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match=f"^{path}: is not a run directory"):
            Run.open(path)
