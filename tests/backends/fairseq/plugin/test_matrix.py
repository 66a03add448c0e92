"""Every system of the paper through the command line: trained, resumed, evaluated, analysed."""

import pandas as pd
import pytest

from sensikit.backends import open_model
from sensikit.files import read_json
from sensikit.run import Run
from sensikit.settings import Decoding
from sensikit.training.recipes import METHODS
from tests.support.command import call
from tests.support.training_run import FEW, journal, train

SYSTEMS = ("regular", "id", "dae", "dae+mlm", "mass", "cd", "cd+id")
"""Of Tables 1 to 3."""


def done(*words):
    called = call(*words)
    assert called.code == 0, called.error
    return called


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name == "cd+id" else pytest.mark.slow) for name in SYSTEMS]
)
def test_a_system_is_trained_resumed_evaluated_and_analysed(tiny_data, tmp_path, method):
    trained = ["train", tiny_data, "--out", tmp_path / "system", "--method", method, "--arch", "tiny", "--updates"]
    done(*trained, 4, "--", *FEW)
    best = done(*trained, 6, "--resume", "--", *FEW).output.splitlines()[0]
    assert [line["num_updates"] for line in journal(tmp_path / "system") if line["set"] == "valid"] == [4, 6]

    done("evaluate", best, "--data", tiny_data, "--out", tmp_path / "scores", "--tokenizer", "13a", "--beam", 2)
    scores = pd.read_csv(tmp_path / "scores" / "evaluation.csv")
    assert set(scores["group"]) == {"cat", "nob", "fao"}
    (noted,) = read_json(tmp_path / "scores" / "manifest.json")["systems"].values()
    assert (noted["method"], noted["updates"]) == (method, 6)

    analysed = ["analyze", best, "--data", tiny_data, "--out", tmp_path / "run", "--batches", 4, "--tokens", 60]
    denoises = bool(METHODS[method].denoise)
    done(*analysed, "--task", "mt,denoise" if denoises else "mt")
    run = Run.open(tmp_path / "run")
    assert set(run.read_table("correlation.csv")["task"]) == ({"mt", "denoise"} if denoises else {"mt"})
    if not denoises:
        refused = call(*analysed, "--task", "denoise", "--resume")
        assert refused.code == 2
        assert "denoise" in refused.error


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["xxx-eng", "eng-xxx", "both"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_resumes_and_is_opened_in_every_direction(tiny_data, tmp_path, method, direction):
    train(tiny_data, tmp_path / "run", "--direction", direction, method=method, updates=4)
    train(tiny_data, tmp_path / "run", "--direction", direction, "--resume", method=method, updates=6)
    assert [line["num_updates"] for line in journal(tmp_path / "run") if line["set"] == "valid"] == [4, 6]
    for asked in ("xxx-eng", "eng-xxx"):
        if direction in (asked, "both"):
            task = open_model(tmp_path / "run" / "checkpoint_last.pt", tiny_data, asked, device="cpu").task("mt")
            assert len(task.translate("fao", "test", Decoding(beam=1)).hypotheses) == 12
