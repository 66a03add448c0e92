"""What fairseq's age costs: its import, its duplicate parameters, its files, its threads."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.abc
import json
import logging
import subprocess
import sys
import types
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.opening import FairseqModel, open_checkpoint
from sensikit.errors import MissingDependencyError
from sensikit.parameters import registry
from tests.conftest import PLAIN, train_checkpoint
from tests.support.checkpoints import edited, translation


def run(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process, every warning shown; `path` comes first in its module path."""
    prefix = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    command = [sys.executable, "-W", "default", "-c", prefix + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# the import


def test_fairseq_is_loaded_only_when_asked_for_and_without_a_word() -> None:
    """It would print warnings of hydra and torch, and takes seconds."""
    code = """
import logging, sensikit, sensikit.backends.fairseq.inspection, sensikit.backends.fairseq.opening
from sensikit.backends.fairseq import compat
assert not [name for name in sys.modules if name.split(".")[0] in ("fairseq", "transformers")]
compat.load()
assert "fairseq" in sys.modules
logging.getLogger("another library").debug("nothing that anyone asked for")
"""
    found = run("import sys\n" + code)
    assert found.returncode == 0, found.stderr
    assert found.stdout == ""
    assert found.stderr == ""


class Blocked(importlib.abc.MetaPathFinder):
    """Finds no module of some packages, as if they were not installed."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def no_fairseq(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "fairseq"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Blocked("fairseq"), *sys.meta_path])


@pytest.mark.usefixtures("no_fairseq")
def test_missing_fairseq_says_what_to_install(tiny_checkpoint: Path, tiny_data: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r'fairseq: is not installed; pip install "sensikit\[fairseq\]"'):
        open_checkpoint(tiny_checkpoint, tiny_data, device="cpu")


def fake_fairseq(root: Path, task: str) -> Path:
    """Write a package named fairseq with what `load` takes from it, `task` being the text of the task's module."""
    files = {
        "__init__.py": "",
        "tasks/__init__.py": "",
        "tasks/translation_multi_simple_epoch.py": task,
        "data/__init__.py": "Dictionary = 1",
        "data/data_utils.py": "batch_by_size = 2",
        "utils.py": "softmax = 4",
        "data/multilingual/__init__.py": "",
        "data/multilingual/multilingual_utils.py": "get_lang_tok = 3",
    }
    for name, content in files.items():
        (root / "fairseq" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fairseq" / name).write_text(content)
    return root


OLD_DATACLASSES = """
from dataclasses import dataclass, field

@dataclass
class CommonConfig:
    seed: int = 1

@dataclass
class FairseqConfig:
    common: CommonConfig = CommonConfig()
"""


def test_a_fairseq_that_cannot_be_imported_is_told_of_and_that_of_0_12_2_can_be(tmp_path: Path) -> None:
    """Since Python 3.11 a default of a dataclass must be hashable: ValueError: mutable default."""
    tasks = ["import hydra_that_is_missing", "raise ImportError('undefined symbol')"]
    tasks += [OLD_DATACLASSES + "class TranslationMultiSimpleEpochTask: pass\n"]
    places = [str(fake_fairseq(tmp_path / str(number), task)) for number, task in enumerate(tasks)]
    plain = run("import fairseq.tasks.translation_multi_simple_epoch", path=Path(places[2]))
    assert "mutable default" in plain.stderr
    found = run(f"""
import dataclasses, sys
from sensikit.backends.fairseq import compat
for place in {places}:
    sys.path.insert(0, place)
    for name in [name for name in sys.modules if name.split(".")[0] == "fairseq"]:
        del sys.modules[name]
    try:
        print(compat.load())
    except compat.MissingDependencyError as error:
        print(error)
print(dataclasses._process_class.__name__)
""")
    lacking, broken, old, process = found.stdout.splitlines()
    assert lacking.startswith("fairseq: needs hydra_that_is_missing, which is not installed; pip install")
    assert broken.startswith("fairseq: cannot be imported (undefined symbol); pip install")
    assert "TranslationMultiSimpleEpochTask" in old
    assert process == "_process_class"


def test_dataclasses_of_others_stay_as_strict_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dataclasses._process_class  # type: ignore[attr-defined]
    for name in ("fairseq.pretended", "mine"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    with compat.hashable_dataclasses():
        exec(OLD_DATACLASSES, sys.modules["fairseq.pretended"].__dict__)
        with pytest.raises(ValueError, match="mutable default"):
            exec(OLD_DATACLASSES, sys.modules["mine"].__dict__)
    assert dataclasses._process_class is before  # type: ignore[attr-defined]


def test_its_logging_is_quiet() -> None:
    compat.load()
    assert not logging.getLogger("fairseq.tasks.anything").isEnabledFor(logging.INFO)


def test_only_the_known_warning_is_silenced() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with compat.quiet():
            warnings.warn("Support for mismatched key_padding_mask and attn_mask is deprecated", stacklevel=1)
            warnings.warn("the weights are on fire", stacklevel=1)
    assert [str(each.message) for each in caught] == ["the weights are on fire"]


# the duplicates of 0.12.2


class OldEncoderLayer(nn.Module):
    """An encoder layer with the eight duplicates of 0.12.2, and a fast path that reads them in evaluation, unpadded."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, child in layer.named_children():
            self.add_module(name, child)
        self.can_use_fastpath = 1
        self.inner = [layer]
        copies = self.duplicates()
        for name, (_, tensor) in copies.items():
            self.register_parameter(name, nn.Parameter(tensor.detach().clone()))

    def upgrade_state_dict_named(self, state: dict[str, torch.Tensor], name: str) -> None:
        """Do nothing: what is loaded is new."""

    def duplicates(self) -> dict[str, tuple[Sequence[str], torch.Tensor]]:
        """Return each duplicate's name, the names of the tensors it repeats, and its value."""
        real = dict(self.inner[0].named_parameters())
        names: dict[str, list[str]] = {}
        for kind in ("weight", "bias"):
            names[f"in_proj_{kind}"] = [f"self_attn.{part}_proj.{kind}" for part in "qkv"]
            names[f"out_proj_{kind}"] = [f"self_attn.out_proj.{kind}"]
            names |= {f"fc{number}_{kind}": [f"fc{number}.{kind}"] for number in (1, 2)}
        return {name: (of, torch.cat([real[each] for each in of])) for name, of in names.items()}

    def forward(self, x: torch.Tensor, encoder_padding_mask: torch.Tensor | None) -> torch.Tensor:
        layer = self.inner[0]
        if self.training or not self.can_use_fastpath or encoder_padding_mask is not None:
            result: torch.Tensor = layer(x, encoder_padding_mask)
            return result
        swapped = {}
        for name, (of, _) in self.duplicates().items():
            swapped |= dict(zip(of, self.get_parameter(name).chunk(len(of)), strict=True))
        fast: torch.Tensor = torch.func.functional_call(layer, swapped, (x, None))
        return fast


@pytest.fixture
def old_backend(tiny_backend: FairseqModel) -> FairseqModel:
    """A backend whose encoder has duplicates and a fast path, as 0.12.2 builds it."""
    layers = tiny_backend.module.encoder.layers
    for number, layer in enumerate(layers):
        layers[number] = OldEncoderLayer(layer)
    tiny_backend.module.eval()
    return tiny_backend


def zero_the_encoder(module: nn.Module, ghosts: frozenset[str]) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("encoder.layers") and "norm" not in name and name not in ghosts:
                parameter.zero_()


def output(backend: FairseqModel) -> torch.Tensor:
    piece = translation(backend).collate([("cat", 0)])
    with torch.no_grad():
        logits: torch.Tensor = backend.module(**piece.net_input)[0]
    return logits


def test_zeroing_the_encoder_changes_the_output(old_backend: FairseqModel) -> None:
    """In 0.12.2's evaluation mode it does not: the fast path reads the duplicates, and every pruning curve is flat."""
    ghosts = compat.ghosts(old_backend.module)
    before = output(old_backend)
    compat.disable_fast_path(old_backend.module)
    torch.testing.assert_close(output(old_backend), before)
    zero_the_encoder(old_backend.module, ghosts)
    assert (output(old_backend) - before).abs().max() > 0.1


def test_the_fast_path_left_on_would_hide_it(old_backend: FairseqModel) -> None:
    before = output(old_backend)
    zero_the_encoder(old_backend.module, compat.ghosts(old_backend.module))
    torch.testing.assert_close(output(old_backend), before, rtol=0, atol=0)


def test_the_backend_turns_the_fast_path_off_and_names_the_ghosts(
    tiny_checkpoint: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = compat.load().Task
    build = task.build_model

    def build_old(self: object, args: argparse.Namespace, from_checkpoint: bool = False) -> nn.Module:
        module: nn.Module = build(self, args)
        for number, layer in enumerate(module.encoder.layers):
            module.encoder.layers[number] = OldEncoderLayer(layer)
        return module

    monkeypatch.setattr(task, "build_model", build_old)
    found = open_checkpoint(tiny_checkpoint, tiny_data, device="cpu")
    assert found.ghosts == {f"encoder.layers.{n}.{ghost}" for n in (0, 1) for ghost in compat.GHOSTS}
    names = {parameter.name for parameter in registry(found.module, found.ghosts)}
    assert names.isdisjoint(found.ghosts)
    assert "encoder.layers.0.fc1.weight" in names
    before = output(found)
    zero_the_encoder(found.module, found.ghosts)
    assert (output(found) - before).abs().max() > 0.1


def test_no_ghosts_where_there_are_none(tiny_backend: FairseqModel) -> None:
    assert tiny_backend.ghosts == frozenset()


def test_checkpoint_that_0_12_2_wrote(
    tiny_checkpoint: Path, tiny_backend: FairseqModel, tiny_data: Path, tmp_path: Path
) -> None:
    """It stores the duplicates, and beside sinusoidal positions one number that nobody ever set."""

    def age(state: dict[str, torch.Tensor]) -> None:
        for name, layer in (("encoder.layers.0", 0), ("encoder.layers.1", 1)):
            old = OldEncoderLayer(tiny_backend.module.encoder.layers[layer])
            state.update({f"{name}.{ghost}": tensor for ghost, (_, tensor) in old.duplicates().items()})
        for side in ("encoder", "decoder"):
            state[f"{side}.embed_positions._float_tensor"] = torch.full((1,), float("nan"))

    path = edited(tiny_checkpoint, tmp_path / "old.pt", state=age)
    found = open_checkpoint(path, tiny_data, device="cpu")
    assert torch.equal(output(found), output(tiny_backend))


def test_state_for_a_module_of_0_12_2(old_backend: FairseqModel) -> None:
    """A checkpoint of the newer fairseq has no duplicates; the older one's loading insists on them."""
    module = old_backend.module
    own = module.state_dict()
    stored = {name: tensor + 1 for name, tensor in compat.weights(own).items()}
    fitted = compat.fitted(stored, module)
    assert fitted.keys() == own.keys()
    assert all(torch.equal(fitted[name], own[name] + (name in stored)) for name in own)


# training


@pytest.fixture
def multiples(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The --required-batch-size-multiple of each run of fairseq-train, which does nothing here."""
    compat.load()
    train = importlib.import_module("fairseq_cli.train")
    seen: list[int] = []
    monkeypatch.setattr(train, "main", lambda cfg: seen.append(cfg.dataset.required_batch_size_multiple))
    return seen


def test_training_loses_no_batch_unless_told_so(multiples: list[int]) -> None:
    from sensikit.backends.fairseq.train import train

    flags = [
        "data",
        "--cpu",
        "--task",
        "translation_multi_simple_epoch",
        "--arch",
        "transformer",
        "--optimizer",
        "adam",
    ]
    train(flags)
    train([*flags, "--required-batch-size-multiple", "8"])
    assert multiples == [1, 8]


def test_a_training_run_can_be_resumed_on_todays_torch(tiny_data: Path, tmp_path: Path) -> None:
    """Stock fairseq-train fails with an UnpicklingError: its own Namespace is not allowed."""
    torch.serialization.clear_safe_globals()
    train_checkpoint(tiny_data / "bin", tmp_path, *PLAIN, updates=2)
    torch.serialization.clear_safe_globals()
    last = train_checkpoint(tiny_data / "bin", tmp_path, *PLAIN, updates=5)
    from sensikit.backends.fairseq.inspection import inspect

    assert inspect(last).updates == 5
    assert json.dumps(inspect(last).problem) == '""'
