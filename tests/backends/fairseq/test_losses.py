"""The loss of each sentence adds up to the loss of them all, of translation and of denoising."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensikit.backends.base import Item, Task
from sensikit.backends.fairseq.opening import FairseqModel, open_checkpoint
from tests.support.checkpoints import edited, translation
from tests.support.denoised import METHODS, denoising, opened
from tests.test_devices import DevicesNamed

ITEMS: list[Item] = [("fao", 5), ("cat", 0), ("nob", 7), ("cat", 9), ("fao", 1), ("cat", 2), ("cat", 0), ("fao", 30)]
"""Of all languages in turn, of all lengths, one of them twice."""


def check(task: Task, items: list[Item], kind: str, split: str = "train") -> np.ndarray:
    """Compare the losses of sentences with those of the sentences alone and of them all; return them."""
    found = task.losses(items, split, kind)
    assert found.dtype == np.float64
    for group in (items, *([item] for item in items)):
        nats, tokens = task.loss(task.collate(group, split), kind)
        rows = found if group is items else found[[items.index(group[0])]]
        np.testing.assert_allclose(rows[:, ::2].sum(axis=0), nats.detach().numpy().reshape(-1), rtol=1e-5)
        assert rows[:, 1::2].sum(axis=0).tolist() == np.reshape(tokens, -1).tolist()
    lengths = np.stack([task.sizes(key, split)[row] for key, row in items])
    assert len(set(lengths[:, 0])) > 2
    np.testing.assert_array_equal(found[:, 1::2], lengths[:, 1:])
    return found


@pytest.mark.parametrize("kind", ["nll", "train"])
def test_of_translation(any_design: FairseqModel, kind: str) -> None:
    found = check(translation(any_design), ITEMS, kind)
    assert (found[:, 0] > 0).all()
    np.testing.assert_allclose(found[1], found[6], rtol=1e-6)  # the same sentence twice
    backwards = translation(any_design).losses(ITEMS[::-1], "train", kind)
    np.testing.assert_allclose(backwards[::-1], found, rtol=1e-5)


def test_of_a_held_out_split(tiny_backend: FairseqModel) -> None:
    found = check(translation(tiny_backend), [("fao", 3), ("cat", 1), ("fao", 0), ("nob", 11)], "nll", "test")
    assert (found[:, 0] > 0).all()


@pytest.mark.parametrize("kind", ["nll", "train"])
def test_without_the_ignored_prefix(plain_checkpoint: Path, tiny_data: Path, tmp_path: Path, kind: str) -> None:
    path = edited(plain_checkpoint, tmp_path / "c.pt", criterion={"ignore_prefix_size": 1})
    whole = translation(open_checkpoint(plain_checkpoint, tiny_data, device="cpu"))
    ignoring = translation(open_checkpoint(path, tiny_data, device="cpu"))
    found = check(ignoring, ITEMS, kind)
    assert (found[:, 1] + 1 == whole.losses(ITEMS, "train", kind)[:, 1]).all()


def test_label_smoothing_is_in_the_training_loss_alone(tiny_backend: FairseqModel) -> None:
    task = translation(tiny_backend)
    nll, train = (task.losses(ITEMS, "train", kind) for kind in ("nll", "train"))
    assert train[:, 0].sum() > 1.01 * nll[:, 0].sum()
    assert (train[:, 1] == nll[:, 1]).all()


@pytest.mark.parametrize("kind", ["nll", "train"])
@pytest.mark.parametrize(("method", "terms"), [("mlm alone", 1), ("dae", 1), ("cd", 2), ("dae+mlm", 2)])
def test_of_denoising(tiny_data: Path, tmp_path: Path, method: str, terms: int, kind: str) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", *METHODS[method])
    task = denoising(model)
    found = check(task, ITEMS, kind)
    assert found.shape == (len(ITEMS), 2 * terms)
    assert (found[:, ::2].sum(axis=0) > 0).all()
    backwards = task.losses(ITEMS[::-1], "train", kind)
    np.testing.assert_allclose(backwards[::-1], found, rtol=1e-5)


def test_every_tensor_is_made_on_a_device_that_is_named(tiny_data: Path, tmp_path: Path) -> None:
    _, model = opened(tiny_data, tmp_path / "c.pt", "cd")
    tasks: tuple[Any, ...] = (translation(model), denoising(model))
    for task in tasks:
        with DevicesNamed():
            found = task.losses(ITEMS, "train")
        assert np.isfinite(found).all()
