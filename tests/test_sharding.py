"""A model that several processes hold together: S as of a whole one, in the same bytes from any number of replicas.

A process of its own loads torch once, and forks the processes of every case; what they found is judged here.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.testing._internal.distributed.fake_pg import FakeStore

from sensikit import sharding
from sensikit.backends import open_model
from sensikit.demo.partner import free_port
from sensikit.distributed import Share
from sensikit.errors import OptionError
from sensikit.parameters import registry, sample_of
from sensikit.sensitivity.analysis import analyze, job_of
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.planning import make_plan
from sensikit.sensitivity.taylor import Sensitivity, measure
from sensikit.settings import AnalysisSettings, MemorySettings
from tests.support import toy
from tests.support.command import alone, call
from tests.support.measured import batches_of
from tests.support.watched import Telling, snapshot

CLOSE = 1e-6
"""Of the largest S: what another order of additions may move in float32."""

SETTINGS = AnalysisSettings(batches=2, tokens=64, micro_batches=3)
CPU = torch.device("cpu")


class Cut(Telling):
    """A toy whose tensors are cut in two; it knows where it came from before that."""

    provenance: Any = None


class Experts(toy.FeedForward):
    """A layer with two experts, of which a sentence goes to one: a process may have none for the other."""

    def __init__(self) -> None:
        super().__init__(16, 24, 0.0)
        self.experts = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        for expert, chosen in zip(self.experts, (x[:, 0, 0] > 0, x[:, 0, 0] <= 0), strict=True):
            if chosen.any():
                x = x.index_put((chosen,), expert(x[chosen]))
        return x


def cut(module: nn.Module | None = None) -> Cut:
    backend = Cut(module=module)
    backend.provenance = Telling().provenance
    sharding.shard(backend.module, sharding.joined(2, CPU))
    return backend


def with_experts() -> nn.Module:
    module = toy.TokenModel(toy.vocabulary_size())
    module.encoder["layers"] = nn.ModuleList([Experts()])
    return toy.initialised(module)


def together(size: int, work: Callable[[], object]) -> list[int]:
    """Fork processes as a launcher starts them; return how each ended."""
    port, pids = free_port(), []
    for rank in range(size):
        if not (pid := os.fork()):
            try:
                told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
                os.environ.update({"MASTER_ADDR": "localhost", **{name: str(value) for name, value in told.items()}})
                work()
                os._exit(0)
            except BaseException as error:
                print(rank, f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(1)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


# what the processes do


def run(path: Path, resume: bool = False, kill: bool = False) -> None:
    """Analyze a toy that is cut in two; the second process may be killed in the second set."""
    backend, share, calls = cut(), Share.given(shard=2), itertools.count()
    if kill and share.place:
        backend.tell = lambda: next(calls) < 12 or os.kill(os.getpid(), signal.SIGKILL)
    memory = MemorySettings(parameter_passes=2, shard=2)
    analyze(backend, path, SETTINGS, groups=["cat", "nso"], resume=resume, share=share, memory=memory)


def batches_of_toy(backend: toy.ToyBackend) -> dict[str, Callable[[], Sensitivity]]:
    """Return what is measured of a toy: some batches, the same with one infinite, and pairs of them as one."""
    batches = batches_of(backend, 4, micro_batches=3)
    pairs = zip(batches[::2], batches[1::2], strict=True)
    mixed = [Batch((one.items, other.items), one.tokens + other.tokens) for one, other in pairs]
    return {
        "toy": lambda: of_toy(backend, batches),
        "bad": lambda: of_toy(backend, batches, bad=batches[1].items[-1]),
        "mixed": lambda: of_toy(backend, mixed if "RANK" in os.environ else batches, per_token=False),
    }


def compare(places: Mapping[str, list[str]], whole: Mapping[str, Sensitivity], out: Path) -> None:
    """Measure what is cut in two; the first process writes how far it is from what is whole."""
    parts = {name: measured(*place) for name, place in places.items()}
    parts |= {name: of() for name, of in batches_of_toy(cut()).items()}
    parts["experts"] = batches_of_toy(cut(with_experts()))["toy"]()
    if os.environ["RANK"] == "0":
        scale = {"mixed": 0.5}
        found = {name: apart(whole[name], parts[name], scale.get(name, 1)) for name in parts}
        out.write_text(json.dumps(found))


def measured(checkpoint: str, data: str, direction: str, task: str) -> Sensitivity:
    """Return S of a group of a model, which is cut in two where there are processes."""
    rank, shard = os.environ.get("RANK", "0"), 2 if "RANK" in os.environ else 1
    # the first process alone reads the weights of a directory
    with nullcontext() if rank == "0" else patch("sensikit.backends.huggingface.opening.build", None):
        model = open_model(Path(checkpoint), Path(data), direction, "cpu", shard=shard)
    settings = AnalysisSettings(task=task, batches=4, tokens=100, micro_batches=3)
    plan = make_plan(model, settings)
    batches = plan.sets[plan.measured[0]]
    assert [len(batch.micro_batches) for batch in batches] == [3] * 4  # one is missing where two are at work
    how = job_of(model, plan, settings, MemorySettings(shard=shard)).how(batches)
    return measure(**how, sample=sample_of(plan.parameters, 1000))


def of_toy(backend: toy.ToyBackend, batches: Sequence[Batch], bad: Any = None, per_token: bool = True) -> Sensitivity:
    parameters = registry(backend.module, backend.ghosts)

    def loss(items: Sequence[Any]) -> tuple[torch.Tensor, int]:
        value, count = backend.loss(backend.collate(items))
        return value * (math.inf if bad in items else 1), count

    with patch("sensikit.sensitivity.taylor.blocks_of", lambda count: [count // 2] * 2):
        return measure(
            backend.module, parameters, batches, lambda items: items, loss,
            skip_nonfinite=bad is not None, per_token=per_token, sample=sample_of(parameters, 1000),
        )  # fmt: skip


def apart(whole: Sensitivity, parts: Sensitivity, scale: float = 1.0) -> dict[str, Any]:
    """Return how far S of the parts is from that of the whole, by the largest; nothing of a process without it."""
    if not parts.mean:
        return {}
    far = {}
    for kind in ("mean", "half"):
        one, other = (torch.cat([*map(torch.ravel, getattr(each, kind).values())]) for each in (whole, parts))
        far[kind] = float((one - other * scale).abs().max() / one.max())
    if whole.blocks.shape == parts.blocks.shape:
        far["blocks"] = float(np.abs(whole.blocks - parts.blocks).max() / whole.blocks.max())
    return far | {"skipped": parts.skipped, "tokens": parts.tokens == whole.tokens, "loss": parts.losses[0]}


def warm() -> None:
    """Have FSDP2 load all that it loads when it is first used."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    backend = Telling()
    sharding.shard(backend.module, sharding.joined(1, CPU))
    of_toy(backend, batches_of(backend, 2))
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, models = Path(sys.argv[1]), json.loads(sys.argv[2])
    warm()
    whole = {name: measured(*place) for name, place in models.items()}
    whole |= {name: of() for name, of in batches_of_toy(Telling()).items()}
    whole["experts"] = batches_of_toy(toy.ToyBackend(with_experts()))["toy"]()
    assert together(2, lambda: (compare(models, whole, root / "found.json"), run(root / "2"))) == [0, 0]
    assert together(2, lambda: run(root / "4", kill=True)) == [1, -signal.SIGKILL]
    assert together(4, lambda: run(root / "4", resume=True)) == [0] * 4
    sys.exit()


# what is said of it


@pytest.fixture(scope="module")
def found(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], str]:
    """Return the folder with the runs, how far what is cut is from what is whole, and what the processes said."""
    pytest.importorskip("transformers")
    from tests.support import directories

    root = tmp_path_factory.mktemp("shards")
    text = directories.write_text(root / "text")
    models = {"fairseq": [str(tiny_checkpoint), str(tiny_data), "xxx-eng", "mt"]}
    for family, direction, task in (("m2m", "xxx-fra", "mt"), ("mixtral", "xxx", "lm")):
        path = directories.write_directory(family, text, root / family)
        models[family] = [str(path), str(text), direction, task]
    told = alone("tests.test_sharding", root, json.dumps(models), limit=600).stderr
    return root, json.loads((root / "found.json").read_text()), told


@pytest.mark.parametrize("name", ["toy", "experts", "fairseq", "m2m", "mixtral"])
def test_s_is_that_of_the_whole_model(name: str, found: tuple[Path, dict[str, Any], str]) -> None:
    of = found[1][name]
    assert max(of["mean"], of["half"], of["blocks"]) < CLOSE
    assert of["tokens"]


def test_different_batches_in_one_group_would_give_the_absolute_value_of_a_sum(
    found: tuple[Path, dict[str, Any], str],
) -> None:
    assert found[1]["mixed"]["mean"] > 0.05  # |g + g'| in place of |g| + |g'|: far more than rounding


def test_a_batch_that_one_process_finds_infinite_is_left_out_by_all(found: tuple[Path, dict[str, Any], str]) -> None:
    of = found[1]["bad"]
    assert of["skipped"] == [1]
    assert max(of["mean"], of["blocks"]) < CLOSE


def test_bytes_depend_on_neither_replicas_nor_a_kill(found: tuple[Path, dict[str, Any], str]) -> None:
    root = found[0]
    expected = snapshot(root / "2")
    assert b"|shard:2|" in expected["manifest.json"]
    assert snapshot(root / "4") == expected
    assert "--micro-batches 2 would give each one" in found[2]
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_a_process_that_dies_ends_its_group_in_one_line(found: tuple[Path, dict[str, Any], str]) -> None:
    (line,) = (line for line in found[2].splitlines() if line.startswith("0 "))
    assert line.startswith("0 EndedError: --shard: another of the processes that hold this model has ended")


def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, tiny_checkpoint: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (tiny_checkpoint, "--data", tiny_data, "--out", tmp_path / "run", "--shard", 2)
    assert "--shard: 2 processes are needed" in call("analyze", *words).error
    assert "--share: goes without --shard" in call("analyze", *words, "--share", "1/2").error
    assert "--shard: is of analyze alone" in call("sweep", *words).error
    with pytest.raises(OptionError, match="--shard: is 2, and the model is in 1 parts"):
        analyze(Telling(), tmp_path / "run", SETTINGS, memory=MemorySettings(shard=2))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "--shard: 3 processes are no multiple of 2" in call("analyze", *words).error
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Share.given(shard=2) == Share(0, 2, 1)
    assert not Share.given(shard=2).leads
    assert "--device: cuda:0 is one device" in call("analyze", *words, "--device", "cuda:0").error
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with monkeypatch.context() as older:
        older.delattr(FSDPModule, "set_reduce_scatter_unused_params")
        assert "is too old for it; install torch 2.13 or later" in call("analyze", *words).error
    assert "--shard: its processes do not find each other" in call("analyze", *words).error
    assert not (tmp_path / "run").exists()
