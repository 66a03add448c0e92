"""What a real, if tiny, fairseq checkpoint leaves on its way through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from sensikit.files import sha256
from sensikit.run import Run
from tests.support.command import call


@pytest.fixture
def run(real_runs: Path) -> Path:
    return real_runs / "first"


def test_the_run_directory_holds_what_its_manifest_lists(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert set(manifest["groups"]) == {"cat", "nob", "fao"}
    assert set(manifest["sets"]) == {"mt/all.groups"} | {
        f"mt/{code}{end}" for code in ("cat", "nob", "fao") for end in ("", ".rest")
    }
    for entry in manifest["sets"].values():
        for name, digest in entry["files"].items():
            assert sha256(run / name) == digest


def test_every_parameter_has_a_finite_sensitivity_and_most_of_them_matter(run: Path) -> None:
    found = Run.open(run)
    vectors = load_file(run / "sensitivity" / "mt" / "cat.safetensors")
    assert {p.name: p.shape for p in found.parameters} == {name: value.shape for name, value in vectors.items()}
    flat = np.concatenate([value.ravel() for value in vectors.values()])
    assert np.isfinite(flat).all()
    assert (flat >= 0).all()
    assert (flat > 0).mean() > 0.5


def test_the_encoder_counts_it_is_not_read_from_ghosts(run: Path) -> None:
    vectors = load_file(run / "sensitivity" / "mt" / "cat.safetensors")
    weights = [
        value for name, value in vectors.items() if name.startswith("encoder.layers") and name.endswith("weight")
    ]
    assert weights
    assert all(value.max() > 0 for value in weights)


def test_correlations_are_correlations(run: Path) -> None:
    table = pd.read_csv(run / "correlation.csv")
    assert len(table) == 3 * 3 * 3
    assert table["pcc"].between(-1, 1).all()
    pairs = table[(table["group_a"] != table["group_b"]) & (table["subset"] == "all")]
    assert (pairs["pcc_low"] <= pairs["pcc"]).all()
    assert (pairs["pcc"] <= pairs["pcc_high"]).all()
    mirrored = pairs.set_index(["group_a", "group_b"])["pcc"]
    assert mirrored["cat", "fao"] == mirrored["fao", "cat"]


def test_pruning_goes_from_the_model_to_rubbish(run: Path) -> None:
    table = pd.read_csv(run / "pruning.csv")
    bleu = table[table["metric"] == "bleu"]
    mean = bleu.groupby(["order", "ratio"])["value"].mean()
    assert mean["none", 0.0] > 30
    assert mean["random", 0.9] < mean["none", 0.0] / 2
    assert mean["specificity", 0.9] < mean["none", 0.0]
    assert (table["sentences"] == 12).all()
    prunable = json.loads((run / "manifest.json").read_text())["prunable_count"]
    assert table[table["ratio"] == 0.9]["pruned"].eq(prunable - int(0.1 * prunable)).all()
    assert bleu["metric_signature"].str.contains("tok:13a").all()


def test_hypotheses_of_every_cell_are_kept(run: Path) -> None:
    table = pd.read_csv(run / "pruning.csv")
    for name in table["hypotheses"]:
        assert len((run / name).read_text().splitlines()) == 12


def test_analyzing_again_gives_the_same_bytes(
    run: Path, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    sizes = ("--batches", 12, "--tokens", 60, "--micro-batches", 1)
    call("analyze", tiny_checkpoint, "--data", tiny_data, "--out", again, *sizes)
    first, second = (sorted((path / "sensitivity").rglob("*.safetensors")) for path in (run, again))
    assert [path.name for path in first] == [path.name for path in second]
    assert [sha256(path) for path in first] == [sha256(path) for path in second]
    for table in ("correlation.csv", "specificity.csv", "balance.csv"):
        assert (run / table).read_bytes() == (again / table).read_bytes()


def test_both_directions_can_be_asked_for_and_one_that_was_not_trained_is_refused(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    done = call("analyze", tiny_checkpoint, "--data", tiny_data, "--out", tmp_path / "r", "--direction", "eng-xxx")
    assert done.code == 2
    assert "eng-xxx" in done.error
    assert not (tmp_path / "r").exists()


def test_a_sweep_of_checkpoints_makes_one_run_each_and_goes_on_when_called_again(
    tiny_checkpoint: Path, plain_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    options = ["--data", tiny_data, "--out", tmp_path, "--batches", 4, "--tokens", 60, "--ratios", "0,0.5"]
    options += ["--micro-batches", 1]
    options += ["--groups", "cat,fao", "--order", "magnitude", "--tokenizer", "13a", "--max-sentences", 4]
    assert call("sweep", tiny_checkpoint, plain_checkpoint, *options).code == 0
    runs = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert len(runs) == 2
    ledgers = [(path / "pruning" / "ledger.jsonl").read_bytes() for path in runs]
    assert all(ledger.count(b"\n") == 2 * 2 * 2 for ledger in ledgers)
    assert call("sweep", tiny_checkpoint, plain_checkpoint, *options).code == 0
    assert [(path / "pruning" / "ledger.jsonl").read_bytes() for path in runs] == ledgers
