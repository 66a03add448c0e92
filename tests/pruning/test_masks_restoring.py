"""What pruning did to a model is undone bit for bit, however it ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sensikit.pruning.masks import Order, chosen, pruned, pruning_plan
from tests.support.tied import PRUNABLE, Tied, model, run_of, scores


def bits(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().view(np.uint32).copy() for name, tensor in module.named_parameters()}


def peculiar(module: Tied) -> Tied:
    """Give every prunable tensor negative zeros, infinities, subnormals and NaNs that carry something."""
    odd = np.array(
        [0x80000000, 0x7FC00000, 0x7FC12345, 0xFFC54321, 0xFF800000, 0x00000001, 0x7F800000], dtype=np.uint32
    )
    with torch.no_grad():
        for tensor in (module.embed_tokens.weight, module.fc1.weight, module.fc1.bias, module.fc2.weight):
            tensor.numpy().view(np.uint32).reshape(-1)[: len(odd)][:] = odd[: tensor.numel()]
    return module


@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.9])
def test_restore_is_bit_for_bit(tmp_path: Path, ratio: float) -> None:
    module = peculiar(model())
    run = run_of(tmp_path / "run", module, *scores(7, ties=False))
    plan = pruning_plan(run, module, Order("specificity", "cat"), [ratio])
    before = bits(module)
    with pruned(run, module, plan, ratio) as count:
        during = bits(module)
    after = bits(module)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    # what was pruned is +0, whatever it was: a NaN too
    changed = sum(int((before[name] != during[name]).sum()) for name in before)
    assert changed == count == round(ratio * PRUNABLE)
    assert all((during[name][before[name] != during[name]] == 0).all() for name in before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_restore_is_bit_for_bit_after_an_exception_in_the_block(tmp_path: Path, error: type[BaseException]) -> None:
    module = peculiar(model())
    run = run_of(tmp_path / "run", module, *scores(8, ties=False))
    plan = pruning_plan(run, module, Order("specificity", "cat"), [0.5])
    before = bits(module)
    with pytest.raises(error), pruned(run, module, plan, 0.5):
        raise error
    after = bits(module)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_restore_is_bit_for_bit_when_the_scores_break_off_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(9, ties=False))
    plan = pruning_plan(run, module, Order("specificity", "cat"), [0.9])
    before = bits(module)

    def breaks_off(*arguments: object):  # type: ignore[no-untyped-def]
        stream = chosen(*arguments)  # type: ignore[arg-type]
        yield next(stream)
        raise OSError("the disk is gone")

    monkeypatch.setattr("sensikit.pruning.masks.chosen", breaks_off)
    with pytest.raises(OSError, match="gone"), pruned(run, module, plan, 0.9):
        raise AssertionError("the block must not run")
    after = bits(module)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_same_tensors_stay_in_their_places(tmp_path: Path) -> None:
    module = model()
    run = run_of(tmp_path / "run", module, *scores(10, ties=False))
    plan = pruning_plan(run, module, Order("specificity", "cat"), [0.9])
    before = {name: tensor.data_ptr() for name, tensor in module.named_parameters()}
    with pruned(run, module, plan, 0.9):
        assert {name: tensor.data_ptr() for name, tensor in module.named_parameters()} == before
    assert {name: tensor.data_ptr() for name, tensor in module.named_parameters()} == before
