"""`--task denoise` on fairseq checkpoints: the loss is the one that was trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.denoising import Denoising
from sensikit.backends.fairseq.opening import FairseqModel, open_checkpoint
from sensikit.errors import CheckpointError, DataError
from sensikit.parameters import registry
from sensikit.run import rest_of
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.planning import make_plan
from sensikit.sensitivity.taylor import measure
from sensikit.settings import AnalysisSettings
from tests.support import training_system
from tests.support.checkpoints import translation, values
from tests.support.command import call
from tests.support.denoised import ITEMS, METHODS, denoising, opened, parts, per_token
from tests.test_devices import DevicesNamed

# the loss


@pytest.mark.parametrize(
    ("method", "direction"), [*((method, "xxx-eng") for method in METHODS), ("cd", "eng-xxx"), ("dae+mlm", "eng-xxx")]
)
def test_the_loss_is_the_criterions_of_the_same_examples(
    tiny_data: Path, tmp_path: Path, method: str, direction: str
) -> None:
    system, model = opened(tiny_data, tmp_path / "c.pt", *METHODS[method], direction=direction)
    task = denoising(model)
    # a batch of training holds translation too: the first pairs of one language
    language = next(iter(model.task("mt").groups))
    numbers = np.arange(4)
    pairs = system.data["translation", 1, numbers]
    sample = {"parts": [pairs, *parts(system, task, ITEMS)]}
    mt = translation(model)
    translated, tokens = mt.loss(mt.collate([(language, int(n)) for n in numbers]), "train")
    for kind in ("train", "nll"):
        if kind == "nll":
            system.criterion.cfg.label_smoothing = 0.0
            translated, tokens = mt.loss(mt.collate([(language, int(n)) for n in numbers]))
        with torch.no_grad(), compat.quiet():
            loss, size, _ = system.criterion(system.model, sample)
        found = float(translated.detach()) / tokens + per_token(task, ITEMS, kind)
        assert found == pytest.approx(float(loss) / size, rel=1e-6)
        assert per_token(task, ITEMS, kind) > 1  # nats: it is not translation alone that agrees


def test_each_term_is_divided_by_its_own_tokens(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "dae+mlm")
    task = denoising(model)
    assert task.terms == ("decoder", "encoder")
    sizes = np.stack([task.sizes(code)[row] for code, row in ITEMS])
    _, counts = task.loss(task.collate(ITEMS))
    assert counts == tuple(sizes[:, 1:].sum(axis=0))
    # DAE predicts the whole sentence, MLM three words in ten of it
    assert counts[0] > 2 * counts[1] > 0


def test_encoder_and_decoder_of_cd_predict_the_same_tokens(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd")
    task = denoising(model)
    # the segments of a test set are those of translation, though what is denoised is the other side
    found, known = task.segments("cat", "test"), model.task("mt").segments("cat", "test")
    assert (found.texts, found.known_by) == (known.texts, "eng")
    assert len(found.rows) == len(task.sizes("cat", "test"))
    assert task.segments("cat", "train").known_by == "own"
    (part,) = task.collate(ITEMS)
    assert torch.equal(part.targets["encoder"], part.targets["decoder"])
    assert int(part.targets["encoder"].ne(model.opened.task.source_dictionary.pad()).sum()) > 0


def test_a_piece_without_a_target_has_no_loss_and_a_gradient_of_zero(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd")
    task = denoising(model)
    empty = int(np.flatnonzero(task.sizes("cat")[:, 1] == 0)[0])
    terms, counts = task.loss(task.collate([("cat", empty)]))
    assert (terms.tolist(), counts) == ([0.0, 0.0], (0, 0))
    terms.sum().backward()  # type: ignore[no-untyped-call]
    gradients = [tensor.grad for tensor in model.module.parameters() if tensor.grad is not None]
    assert gradients
    assert all(not gradient.any() for gradient in gradients)


def test_a_module_in_float64_has_a_loss_in_float64(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd", "--separate-projection")
    task = denoising(model)
    single = per_token(task, ITEMS, "train")
    model.module.double()
    terms, _ = task.loss(task.collate(ITEMS))
    assert terms.dtype == torch.float64
    assert per_token(task, ITEMS, "train") == pytest.approx(single, rel=1e-6)


def test_every_tensor_is_made_on_a_device_that_is_named(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "dae+mlm", "--separate-projection")
    task = denoising(model)
    with DevicesNamed():
        terms, _ = task.loss(task.collate(ITEMS), "train")
        terms.sum().backward()  # type: ignore[no-untyped-call]
    assert terms.isfinite().all()


# S


def obvious(model: FairseqModel, task: Denoising, batches: list[Batch]) -> dict[str, torch.Tensor]:
    """S by definition: whole batches, whole gradients, the absolute value of each θ·∇, the mean at the end."""
    named = {p.name: model.module.get_parameter(p.name) for p in registry(model.module, model.ghosts)}
    total = {name: torch.zeros_like(tensor) for name, tensor in named.items()}
    for batch in batches:
        terms, counts = task.loss(task.collate(batch.items))
        loss = sum(term / count for term, count in zip(terms, counts, strict=True))
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)  # type: ignore[arg-type]
        for (name, tensor), gradient in zip(named.items(), gradients, strict=True):
            total[name] += 0 if gradient is None else (tensor.detach() * gradient).abs()
    return {name: each / len(batches) for name, each in total.items()}


@pytest.mark.parametrize("method", ["cd", "dae", "dae+mlm", "mass"])
def test_S_equals_the_obvious_loop_with_a_full_gradient(tiny_data: Path, tmp_path: Path, method: str) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", method)
    model.module.double()
    settings = AnalysisSettings(task="denoise", batches=5, tokens=24, micro_batches=3)
    plan = make_plan(model, settings)
    task, batches = plan.task, plan.sets[rest_of("cat")]
    assert isinstance(task, Denoising)
    found = measure(model.module, plan.parameters, batches, task.collate, task.loss).mean
    expected = obvious(model, task, batches)
    largest = max(float(tensor.max()) for tensor in expected.values())
    assert largest > 0
    for name, tensor in found.items():
        assert torch.allclose(tensor.double(), expected[name], rtol=2**-22, atol=1e-13 * largest), name


def test_a_parameter_that_the_task_does_not_use_has_S_zero(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", *METHODS["mlm alone"])
    settings = AnalysisSettings(task="denoise", batches=3, tokens=24)
    plan = make_plan(model, settings)
    found = measure(model.module, plan.parameters, plan.sets["cat"], plan.task.collate, plan.task.loss).mean
    silent = {name for name, tensor in found.items() if not tensor.any()}
    assert {name for name in found if name.startswith("decoder.layer")} <= silent
    assert not any(name.startswith("encoder.layers.0.fc") for name in silent)


def test_both_tasks_have_one_registry_without_the_encoders_own_projection(tiny_data: Path, tmp_path: Path) -> None:
    _, shared = opened(tiny_data, tmp_path / "shared.pt", "cd")
    _, separate = opened(tiny_data, tmp_path / "separate.pt", "cd", "--separate-projection")
    names = [p.name for p in registry(separate.module, separate.ghosts)]
    assert names == [p.name for p in registry(shared.module, shared.ghosts)]
    assert not any("projection" in name and "encoder" in name for name in names)
    assert separate.opened.projection is not None
    assert shared.opened.projection is None
    before = per_token(denoising(separate), ITEMS, "nll")
    translated = values(separate, ITEMS)
    separate.opened.projection.mul_(2)
    assert per_token(denoising(separate), ITEMS, "nll") != pytest.approx(before, rel=1e-3)
    assert values(separate, ITEMS) == translated


# what is refused


def test_a_checkpoint_that_never_denoised_is_refused(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    regular = training_system.build(tiny_data, "id")
    mine = training_system.saved(regular, tmp_path / "id.pt")
    for path in (tiny_checkpoint, mine):
        model = open_checkpoint(path, tiny_data, device="cpu")
        assert model.tasks == ("mt",)
        done = call(
            "analyze", path, "--data", tiny_data, "--out", tmp_path / "run", "--task", "mt,denoise", "--device", "cpu"
        )
        assert done.code == 2
        assert done.error.count("\n") == 1
        assert "--task: the model was not trained on denoise (it was trained on mt)" in done.error
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["missing", "shape", "nan"])
def test_a_damaged_projection_of_the_encoder_is_one_line(tiny_data: Path, tmp_path: Path, damage: str) -> None:
    system = training_system.build(tiny_data, "cd", "--separate-projection")
    path = training_system.saved(system, tmp_path / "c.pt")
    content = {"args": system.task.args, "model": system.model.state_dict()}
    weight = content["model"].pop("encoder_projection.weight")
    if damage != "missing":
        content["model"]["encoder_projection.weight"] = weight[:-1] if damage == "shape" else weight * float("nan")
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="not finite" if damage == "nan" else "--separate-projection") as caught:
        open_checkpoint(path, tiny_data, device="cpu")
    assert "encoder_projection.weight" in str(caught.value)


@pytest.mark.parametrize("setting", [{"mono": "all"}, {"mono": 3}, {"denoise": "cd,xyz"}, {"mask_ratio": -1.0}])
def test_settings_of_denoising_that_cannot_be_are_one_line(
    tiny_data: Path, tmp_path: Path, setting: dict[str, Any]
) -> None:
    system = training_system.build(tiny_data, "cd")
    vars(system.task.args).update(setting)
    path = training_system.saved(system, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=f"has the setting {next(iter(setting))} = "):
        open_checkpoint(path, tiny_data, device="cpu")


def test_data_without_a_mask_in_the_dictionary_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    system = training_system.build(tiny_data, "cd")
    path = training_system.saved(system, tmp_path / "c.pt")
    shutil.copytree(tiny_data / "bin", tmp_path / "bin")
    for dictionary in (tmp_path / "bin").glob("dict.*.txt"):
        dictionary.write_text(dictionary.read_text("utf-8").replace("<mask> 1", "else 1"), "utf-8")
    model = open_checkpoint(path, tmp_path / "bin", device="cpu")
    with pytest.raises(DataError, match=r"<mask> is in no dictionary"):
        model.task("denoise")
