"""`analyze --dry-run --device meta`: what a model would take, told from its configuration and tokenizer alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sensikit.backends import open_model
from sensikit.backends.huggingface import compat
from sensikit.parameters import registry
from sensikit.sensitivity import cost
from sensikit.sensitivity.analysis import Job
from sensikit.sensitivity.batches import Batch
from sensikit.settings import AnalysisSettings, MemorySettings
from tests.benchmarks import nllb
from tests.support.command import call

SMALL = ("--batches", 4, "--tokens", 40, "--direction", "xxx-fra", "--device", "meta")


@pytest.fixture
def bare(directory: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a directory without its weights."""
    return Path(shutil.copytree(directory("nllb"), tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")))


def test_it_needs_no_weights(bare: Path, directory: Callable[[str], Path], text: Path, tmp_path: Path) -> None:
    done = call("analyze", bare, "--data", text, "--out", tmp_path / "run", *SMALL, "--dry-run", "--json")
    assert done.code == 0, done.error
    found = json.loads(done.output)
    count = registry(open_model(directory("nllb"), text, "xxx-fra", "cpu").module)[-1].stop
    assert found["seconds"] is None
    assert found["memory"] == found["others"]["--parameter-passes 1 --sums device"] > 16 * count
    assert found["memory"] - found["others"]["--parameter-passes 1 --sums cpu"] == 8 * count
    assert not (tmp_path / "run").exists()


def test_a_device_of_several_takes_its_part_and_what_is_put_together(bare: Path, text: Path) -> None:
    model = open_model(bare, text, "xxx-fra", "meta")
    settings = AnalysisSettings(batches=4, tokens=40, micro_batches=2)
    memory = [cost.estimate(model, settings, memory=MemorySettings(shard=n)) for n in (1, 2)]
    module, count = model.module, registry(model.module)[-1].stop
    assert memory[1].memory == memory[0].others["--shard 2"] == memory[1].others["--shard 2"]
    layers = [sum(p.nbytes for p in layer.parameters()) for side in ("encoder", "decoder")
              for layer in getattr(module.model, side).layers]  # fmt: skip
    together = 2 * (4 * count - sum(layers)) + 4 * max(layers)
    # weights, sums and, where a batch has two parts on a device, its gradient
    assert memory[0].memory - memory[1].memory == (4 + 8 + 4) * count - (4 + 8) * count // 2 - together


def test_a_mixture_of_54_billion_is_reckoned_without_its_weights() -> None:
    """Of sixteen devices of 80 GB each has room for its part, and for a layer of 128 experts; of eight, none."""
    transformers = compat.load()
    with torch.device("meta"):
        module = transformers.NllbMoeForConditionalGeneration._from_config(nllb.config("54B"), dtype=torch.bfloat16)
    parameters = [*registry(module)]
    assert parameters[-1].stop == 54_500_569_088
    model: Any = SimpleNamespace(module=module)
    plan: Any = SimpleNamespace(sets={"cat": [Batch((("cat", 0),) * 8, 500)]})
    held = {n: cost._held(Job(model, plan, AnalysisSettings(), [parameters], "device", n)) for n in (8, 16)}
    aside = cost._held(Job(model, plan, AnalysisSettings(), [parameters], "cpu", 8))
    assert [round(size / 1e9) for size in (held[8], held[16], aside)] == [105, 71, 50]


def test_what_the_backward_pass_needs_is_what_the_weights_would_keep(
    bare: Path, directory: Callable[[str], Path], text: Path
) -> None:
    kept: list[dict[int, int]] = []
    for path, device in ((bare, "meta"), (directory("nllb"), "cpu")):
        model = open_model(path, text, "xxx-fra", device)
        task = model.task("mt")
        micro_batch = task.collate([("cat", row) for row in range(5)])
        if device == "meta":
            with cost._pretended(model.module) as found:
                task.loss(micro_batch)
            assert all(tensor.is_meta for tensor in model.module.parameters())
        else:
            own, found = {tensor.untyped_storage().data_ptr() for tensor in model.module.parameters()}, {}

            def keep(tensor: torch.Tensor, own: set[int] = own, found: dict[int, int] = found) -> torch.Tensor:
                if tensor.untyped_storage().data_ptr() not in own:
                    found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                task.loss(micro_batch)
        kept.append(found)
    assert sum(kept[0].values()) == pytest.approx(sum(kept[1].values()), rel=0.05)  # masks are made in other ways


def test_nothing_else_is_done_without_weights(directory: Callable[[str], Path], text: Path, tmp_path: Path) -> None:
    for verb in ("analyze", "evaluate"):
        more = SMALL if verb == "analyze" else ("--device", "meta", "--metric", "loss")
        done = call(verb, directory("nllb"), "--data", text, "--out", tmp_path / verb, *more)
        assert done.code == 2
        assert "--device meta: has no weights to compute with; it is for analyze --dry-run alone" in done.error
        assert not (tmp_path / verb).exists()
