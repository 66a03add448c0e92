"""A model of your own through the verbs: SENSIKIT_NLLB and SENSIKIT_LM name a directory, or owner/model of the hub.

SENSIKIT_NLLB=~/nllb-200-distilled-600M SENSIKIT_LM=~/Qwen2.5-0.5B pytest tests/backends/huggingface/test_own_models.py
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pandas as pd
import pytest

from sensikit.run import Run
from tests.support.command import done
from tests.support.directories import WORDS

TASKS = {"SENSIKIT_NLLB": ("mt", ["--direction", "xxx-fra"]), "SENSIKIT_LM": ("lm", ["--direction", "xxx"])}


@pytest.fixture(scope="module")
def flores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dev/cat_Latn.dev and so on, parallel in all languages."""
    root, draw = tmp_path_factory.mktemp("flores"), random.Random(1)
    for split in ("dev", "devtest"):
        (root / split).mkdir()
        rows = [[draw.randrange(18) for _ in range(draw.randint(4, 12))] for _ in range(60)]
        for code, words in WORDS.items():
            text = "".join(" ".join(words.split()[number] for number in row) + "\n" for row in rows)
            (root / split / f"{code}_Latn.{split}").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("variable", TASKS)
def test_a_model_of_your_own(variable: str, flores: Path, tmp_path: Path) -> None:
    model = os.environ.get(variable)
    if not model:
        pytest.skip(f"{variable} names no model")
    task, direction = TASKS[variable]
    shown, run = json.loads(done("inspect", model, "--json")), tmp_path / "run"
    done("analyze", model, "--data", flores, "--out", run, "--split", "dev", *direction, "--batches", 3, "--tokens", 60)
    manifest = Run.open(run).manifest
    assert list(manifest["analyses"]) == [task]
    assert list(manifest["groups"]) == [code for code in WORDS if task == "lm" or code != "fra"]
    assert manifest["parameter_count"] == shown["parameters"]
    assert manifest["provenance"]["checkpoint_sha256"] == shown["sha256"]
    sweep = ("--split", "devtest", "--ratios", "0,0.9", "--order", "specificity", "--groups", "cat")
    done("prune", run, "--metric", "loss", *sweep)
    curve = pd.read_csv(run / "pruning.csv").set_index("ratio")["value"]
    assert curve[0.0] > 0 < curve[0.9] != curve[0.0]
