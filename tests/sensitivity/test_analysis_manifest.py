"""What a run records of itself, its signature, and what is known of it before it is begun."""

from __future__ import annotations

import copy
import json
import math
import re
import weakref
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensikit.files import sha256, sha256_of
from sensikit.parameters import registry
from sensikit.run import MIXED, Run
from sensikit.sensitivity import analysis
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.cost import estimate
from sensikit.sensitivity.planning import disk_of, make_plan
from sensikit.settings import AnalysisSettings
from sensikit.version import __version__
from tests.support import toy
from tests.support.watched import CHANGES, QUICK, SIZES, Both, Watched, signature_of, undisturbed


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never disturbed."""
    return undisturbed(tmp_path_factory.mktemp("straight") / "run")


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Batch]]:
    return make_plan(Watched(), QUICK).sets


# what is recorded


def test_manifest_says_what_was_measured_of_what_and_how(straight: Path) -> None:
    backend = Watched()
    found = json.loads((straight / "manifest.json").read_text("utf-8"))
    assert found["format"] == 4
    assert found["version"] == __version__
    assert found["direction"] == "xxx-eng"
    (analysis,) = found["analyses"].values()
    assert set(found["analyses"]) == {"mt"}
    assert analysis["settings"] == asdict(QUICK)
    assert analysis["settings"]["seed"] == 1
    assert analysis["command"] == "sensikit analyze"
    assert analysis["signature"] == signature_of(backend, QUICK)
    assert analysis["tokens"] == QUICK.tokens
    assert analysis["notes"] == []
    assert found["provenance"] == asdict(backend.provenance)
    assert list(found["groups"]) == list(SIZES)
    assert found["groups"]["cat"] == {
        "source": "cat", "target": "eng", "name": "Cat", "family": "Romance", "tier": "Low",
        "sizes": {"train": 60, "test": 5}, "mono": None,
    }  # fmt: skip
    parameters = registry(backend.module, backend.ghosts)
    assert [(p["name"], tuple(p["shape"]), p["prunable"]) for p in found["parameters"]] == [
        (p.name, p.shape, p.prunable) for p in parameters
    ]
    assert toy.GHOST not in {p["name"] for p in found["parameters"]}
    assert found["parameter_count"] == sum(p.numel for p in parameters)
    assert found["prunable_count"] == sum(p.numel for p in parameters if p.prunable)
    assert {"python", "torch", "numpy"} <= set(found["versions"])
    assert set(found["sets"]) == {f"mt/{name}" for code in SIZES for name in (code, f"{code}.rest")} | {"mt/all.groups"}


def test_every_set_records_its_counts_its_loss_and_the_hashes_of_its_files(
    straight: Path, drawn: dict[str, list[Batch]]
) -> None:
    run, backend = Run.open(straight), Watched()
    for name, batches in drawn.items():
        entry = run.manifest["sets"][f"mt/{name}"]
        items = [item for batch in batches for item in batch.items]
        assert entry["tokens_mean"] == np.mean([batch.tokens for batch in batches])
        assert entry["sentences"] == {c: n for c in SIZES if (n := sum(code == c for code, _ in items))}
        assert entry["skipped"] == 0
        with torch.no_grad():
            losses = [toy.ToyBackend.loss(backend, backend.collate(batch.items)) for batch in batches]
        assert entry["loss"] == pytest.approx(np.mean([float(total) / count for total, count in losses]), rel=1e-5)
        assert entry["sigma"] == pytest.approx(1e-8 / entry["tokens_mean"], rel=1e-15)
        assert entry["drawn"] == sha256_of(*(f"{language}:{index}" for language, index in items))
        kinds = {f"sensitivity/mt/{name}{kind}.safetensors" for kind in ([""] + [".half", ".blocks"] * (name in SIZES))}
        assert set(entry["files"]) == kinds
        assert all(sha256(straight / file) == digest for file, digest in entry["files"].items())


def test_the_seed_decides_which_sentences_are_drawn(straight: Path, tmp_path: Path) -> None:
    def hashes(run: Run) -> dict[str, str]:
        return {name: entry["drawn"] for name, entry in run.manifest["sets"].items()}

    first = Run.open(straight)
    again = analyze(Watched(), tmp_path / "again", QUICK)
    other = analyze(Watched(), tmp_path / "other", replace(QUICK, seed=2))
    assert hashes(first) == hashes(again)
    assert not set(hashes(first).values()) & set(hashes(other).values())
    assert len(set(hashes(first).values())) == len(hashes(first))


# the signature


@pytest.mark.parametrize("name", CHANGES)
def test_every_choice_that_moves_a_number_is_in_the_signature(name: str) -> None:
    assert set(CHANGES) | {"task", "micro_batches"} == set(asdict(QUICK)), "a new setting must be thought about"
    backend = Both()
    assert signature_of(backend, QUICK) != signature_of(backend, replace(QUICK, **CHANGES[name]))


def test_pieces_draw_other_dropout_and_are_in_the_signature_of_training_mode_alone() -> None:
    backend = Watched()
    assert signature_of(backend, QUICK) == signature_of(backend, replace(QUICK, micro_batches=2))
    trained = replace(QUICK, mode="train")
    others = [signature_of(backend, replace(trained, micro_batches=count)) for count in (2, None)]
    assert len({signature_of(backend, trained), *others}) == 3


def test_temperature_moves_the_batches_of_all_languages_under_pooled_too() -> None:
    backend, pooled = Watched(), replace(QUICK, rest="pooled")
    flatter = replace(pooled, rest_temperature=5.0)
    assert make_plan(backend, pooled).sets[MIXED] != make_plan(backend, flatter).sets[MIXED]
    assert signature_of(backend, pooled) != signature_of(backend, flatter)


def test_signature_is_written_out_in_full() -> None:
    backend = Watched()
    checkpoint, data = backend.provenance.checkpoint_sha256[:8], backend.provenance.data_sha256[:8]
    assert signature_of(backend, replace(QUICK, mode="train", skip_nonfinite=True)) == (
        "S|task:mt|dir:xxx-eng|groups:3|split:train|loss:nll/token|mode:train|abs:batch|batches:6|tokens:40|"
        "rest:mixed/T1|sigma:2.5e-10|high:0.1|seed:1|nonfinite:skipped|micro_batches:4|dtype:fp32|"
        f"ckpt:{checkpoint}|data:{data}|v:{__version__}"
    )


def test_signature_tells_checkpoint_data_direction_and_languages() -> None:
    whole = signature_of(Watched(), QUICK)
    assert whole != signature_of(Watched(seed=1), QUICK)
    assert whole != signature_of(Watched({**SIZES, "fur": 51}), QUICK)
    assert whole != signature_of(Watched(direction="eng-xxx"), QUICK)
    assert whole != signature_of(Watched(), QUICK, ["cat", "nob"])
    assert signature_of(Watched(), QUICK, ["nob", "fur"]) != signature_of(Watched(), QUICK, ["cat", "nob"])
    assert whole.startswith("S|task:mt|dir:xxx-eng|")
    assert whole.endswith(f"|v:{__version__}")
    assert f"|ckpt:{Watched().provenance.checkpoint_sha256[:8]}|" in whole


# before it is begun


@pytest.mark.parametrize(
    "settings",
    [
        *(QUICK, replace(QUICK, rest="pooled"), AnalysisSettings(batches=44, tokens=9), replace(QUICK, batches=3)),
        *(replace(QUICK, halves=False), replace(QUICK, rest="pooled", store="bf16")),
    ],
)
@pytest.mark.parametrize("asked", [None, ["cat", "nob"]])
def test_a_dry_run_knows_the_disk_and_the_batches_a_run_takes(
    tmp_path: Path, settings: AnalysisSettings, asked: list[str] | None
) -> None:
    cost = estimate(Watched(), settings, asked)
    run = analyze(Watched(), tmp_path / "run", settings, groups=asked)
    taken = 0
    for path in (tmp_path / "run").rglob("*.safetensors"):
        content = path.read_bytes()
        header = int.from_bytes(content[:8], "little")  # names and shapes, beside the numbers
        taken += len(content) - 8 - header
    assert cost.disk == taken
    measured = [entry for entry in run.manifest["sets"].values() if "pooled" not in entry]
    assert cost.batches == sum(entry["batches"] for entry in measured)
    assert cost.seconds > 0
    assert cost.memory >= 4 * 4 * run.manifest["parameter_count"]


def test_a_dry_run_writes_nothing_and_leaves_the_model_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for settings in (QUICK, replace(QUICK, mode="train")):
        backend = Watched()
        before = copy.deepcopy(backend.module.state_dict())
        state = torch.random.get_rng_state()
        estimate(backend, settings)
        assert list(tmp_path.iterdir()) == []
        assert all(torch.equal(before[name], tensor) for name, tensor in backend.module.state_dict().items())
        assert all(parameter.grad is None for parameter in backend.module.parameters())
        assert not backend.module.training
        assert torch.equal(torch.random.get_rng_state(), state)
        assert len(backend.calls) <= 5 * settings.micro_batches  # of the 42 batches of a run


def test_a_dry_run_does_not_stumble_over_what_the_run_would_skip() -> None:
    backend = Watched(before=lambda _: math.inf)
    assert estimate(backend, replace(QUICK, skip_nonfinite=True)).batches > 0


def test_what_a_set_has_held_is_gone_before_the_next_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the memory that a dry run measures, on one set, is too little."""
    held: list[weakref.ref[torch.Tensor]] = []
    real = analysis.measure

    def watched(*given: Any, **named: Any) -> Any:
        assert not any(each() is not None for each in held)
        found = real(*given, **named)
        held.extend(weakref.ref(tensor) for vector in (found.mean, found.half) for tensor in vector.values())
        return found

    monkeypatch.setattr(analysis, "measure", watched)
    analyze(Watched(), tmp_path / "run", QUICK)
    assert len(held) > 20


def test_block_means_of_large_models_are_those_of_a_sample() -> None:
    plan = make_plan(Watched(), AnalysisSettings(batches=44, tokens=9))
    for count in (999_999, 1_000_000, 5_000_000):
        vectors = 3 * 3 + 1
        assert disk_of(count, plan, AnalysisSettings()) == 4 * (count * vectors + min(count, 1_000_000) * 20 * 3)


def test_notes_are_said_once_each_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = analyze(Watched({"nob": 400, "cat": 20}), tmp_path / "run", AnalysisSettings(batches=9, tokens=40))
    said = capsys.readouterr().err
    for note in run.analysis()["notes"]:
        assert len(re.findall(re.escape(note), said)) == 1
