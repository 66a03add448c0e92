"""`sensikit inspect`: what a checkpoint holds, without fairseq and without running anything."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from sensikit.backends.fairseq.inspection import inspect
from sensikit.backends.fairseq.opening import FairseqModel
from sensikit.backends.inspection import describe
from sensikit.errors import CheckpointError
from sensikit.parameters import registry
from sensikit_cli.inspect import inspect as command
from sensikit_cli.options import with_options
from tests.support.checkpoints import edited

app = typer.Typer()
app.command()(with_options(command))


def test_it_agrees_with_the_registry_of_the_model(tiny_checkpoint: Path, tiny_backend: FairseqModel) -> None:
    contents = inspect(tiny_checkpoint)
    parameters = registry(tiny_backend.module, tiny_backend.ghosts)
    assert contents.tensors == len(parameters)
    assert contents.parameters == sum(parameter.numel for parameter in parameters)
    assert contents.prunable == sum(parameter.numel for parameter in parameters if parameter.prunable)
    by_place: dict[str, int] = {}
    for parameter in parameters:
        place = f"{parameter.stack} {parameter.component}"
        by_place[place] = by_place.get(place, 0) + parameter.numel
    assert contents.components == by_place
    assert contents.tied == [[parameters[0].name, *parameters[0].aliases]]
    assert contents.problem == ""


def test_what_it_says(tiny_checkpoint: Path) -> None:
    contents = inspect(tiny_checkpoint)
    assert contents.task == "translation_multi_simple_epoch"
    assert contents.arch == "transformer"
    assert contents.directions == {"xxx-eng": ["cat", "nob", "fao"]}
    assert contents.language_tags == "target language on the source, target language on the target (in place of </s>)"
    assert contents.criterion == "label_smoothed_cross_entropy, smoothing 0.1"
    assert contents.updates == 200
    assert contents.optimizer_state
    assert contents.layers == {"encoder": 2, "decoder": 2}
    assert contents.dtypes == {"float32": 91}
    assert contents.bytes == tiny_checkpoint.stat().st_size
    assert contents.memory == 6 * 4 * contents.parameters
    assert contents.disk_per_group == 3 * 4 * contents.parameters


def test_the_other_design_and_both_directions(plain_checkpoint: Path, tmp_path: Path) -> None:
    pairs = {"lang_pairs": "cat-en_XX,en_XX-cat,en_XX-nob"}
    contents = inspect(edited(plain_checkpoint, tmp_path / "c.pt", task=pairs, model=pairs))
    assert contents.directions == {"xxx-eng": ["cat"], "eng-xxx": ["cat", "nob"]}
    assert contents.language_tags == "source language on the source, target language on the target (in front)"
    assert not contents.optimizer_state
    assert "eng-xxx" in describe(contents)


def test_ties_that_a_gpu_stored_as_copies_count_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def copy(state: dict[str, torch.Tensor]) -> None:
        state.update({name: tensor.clone() for name, tensor in state.items()})

    assert (
        inspect(edited(tiny_checkpoint, tmp_path / "c.pt", state=copy)).parameters
        == inspect(tiny_checkpoint).parameters
    )


def test_duplicates_that_nothing_reads_count_not_at_all(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def age(state: dict[str, torch.Tensor]) -> None:
        state["encoder.layers.0.fc1_weight"] = state["encoder.layers.0.fc1.weight"].clone()
        state["encoder.embed_positions._float_tensor"] = torch.zeros(1)

    contents, plain = inspect(edited(tiny_checkpoint, tmp_path / "c.pt", state=age)), inspect(tiny_checkpoint)
    assert (contents.parameters, contents.tensors) == (plain.parameters, plain.tensors)
    assert contents.ghosts == 64 * 32
    assert "2,048 values that translation never reads" in describe(contents)


def test_a_checkpoint_that_cannot_be_analysed_is_still_described(tiny_checkpoint: Path, tmp_path: Path) -> None:
    contents = inspect(edited(tiny_checkpoint, tmp_path / "c.pt", task={"_name": "masked_lm"}))
    assert "masked_lm" in contents.problem
    assert contents.parameters > 0
    assert "cannot be analysed" in describe(contents)


def test_it_refuses_what_reading_refuses(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_text("no")
    with pytest.raises(CheckpointError):
        inspect(tmp_path / "c.pt")


def test_it_does_without_fairseq(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "fairseq"]:
        monkeypatch.delitem(sys.modules, name)
    inspect(tiny_checkpoint)
    assert "fairseq" not in sys.modules


def test_command(tiny_checkpoint: Path) -> None:
    shown = CliRunner().invoke(app, [str(tiny_checkpoint)])
    assert shown.exit_code == 0
    lines = dict(line.split("  ", 1) for line in shown.stdout.splitlines() if not line.startswith(" "))
    assert lines["architecture"].strip() == "transformer, 2+2 layers"
    assert lines["xxx-eng"].strip() == "cat, nob, fao"
    assert lines["updates"].strip() == "200"


def test_command_with_json(tiny_checkpoint: Path) -> None:
    shown = CliRunner().invoke(app, [str(tiny_checkpoint), "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.stdout) == {"verb": "inspect", **asdict(inspect(tiny_checkpoint)), "next": None}
