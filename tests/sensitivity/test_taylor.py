"""Eq. 2-3, against numbers worked out by hand, exact zeroing, and the obvious loop with a full gradient."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sensikit.backends.base import Item
from sensikit.parameters import Parameter, registry, sample_of
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.taylor import measure
from tests.support import toy
from tests.support.measured import (
    ROUNDING,
    assert_close,
    batches_of,
    doubled,
    full_gradient,
    obvious,
    registry_of,
    sensitivity,
)


@pytest.fixture
def double() -> toy.ToyBackend:
    return doubled()


# by hand


class Line(nn.Module):
    """r = w·x + v − y for (x, y), loss ½r²: ∂/∂w = r·x, ∂/∂v = r."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-3.0))

    def loss(self, points: torch.Tensor) -> tuple[torch.Tensor, int]:
        residual = self.w * points[:, 0] + self.v - points[:, 1]
        return (residual**2).sum() / 2, len(points)


POINTS = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, -3.0]])


def points(items: Sequence[Item]) -> torch.Tensor:
    return POINTS[[index for _, index in items]]


ONE_PIECE = [Batch(((("cat", 0),),), 1), Batch(((("cat", 1), ("cat", 2)),), 2)]
TWO_PIECES = [Batch(((("cat", 0),),), 1), Batch(((("cat", 1),), (("cat", 2),)), 2)]


@pytest.mark.parametrize("batches", [ONE_PIECE, TWO_PIECES], ids=["one micro-batch", "two micro-batches"])
@pytest.mark.parametrize("skip", [False, True])
def test_two_parameters_worked_out_by_hand(batches: list[Batch], skip: bool) -> None:
    # batch 0, (1, 0): r = 2·1 − 3 − 0 = −1, so ∇w = −1, ∇v = −1; one token
    # batch 1, (2, 0): r = 2·2 − 3 − 0 = 1, so ∇w = 2, ∇v = 1
    #        (−1, −3): r = −2 − 3 + 3 = −2, so ∇w = 2, ∇v = −2; in all ∇w = 4, ∇v = −1; two tokens: 2 and −½
    # S(w) = |2|·(|−1| + |2|)/2 = 3,  S(v) = |−3|·(|−1| + |−½|)/2 = 2.25
    # (the absolute value per sentence would give S(v) = 3·(1 + 1.5)/2 = 3.75, after the mean S(w) = 1)
    model = Line()
    parameters = registry(model)
    found = measure(model, parameters, batches, points, model.loss, sample=sample_of(parameters), skip_nonfinite=skip)
    assert {name: float(tensor) for name, tensor in found.mean.items()} == {"w": 3.0, "v": 2.25}
    assert {name: float(tensor) for name, tensor in found.half.items()} == {"w": 2.0, "v": 3.0}
    assert found.blocks.tolist() == [[2.0, 3.0], [4.0, 1.5]]
    assert (found.batches, found.half_batches, found.block_batches) == (2, 1, [1, 1])
    # ½·1, and (½·1 + ½·4)/2
    assert (found.losses, found.tokens, found.skipped) == ([0.5, 1.25], [1, 2], [])


def test_a_summed_loss_is_not_divided_by_tokens() -> None:
    # as above, without the division by two: S(w) = 2·(1 + 4)/2 = 5, S(v) = 3·(1 + 1)/2 = 3
    model = Line()
    found = measure(model, registry(model), ONE_PIECE, points, model.loss, per_token=False)
    assert {name: float(tensor) for name, tensor in found.mean.items()} == {"w": 5.0, "v": 3.0}
    assert found.losses == [0.5, 2.5]


def test_without_a_sample_no_block_means_are_kept() -> None:
    model = Line()
    found = measure(model, registry(model), ONE_PIECE, points, model.loss)
    assert found.blocks.shape == (2, 0)


# Eq. 1


class Multilinear(nn.Module):
    """Linear in each single parameter: zeroing one changes the loss by θ·∇ exactly."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.inner = nn.Parameter(torch.randn(4, 5, generator=generator, dtype=torch.float64))
        self.outer = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))
        self.inputs = torch.randn(12, 5, generator=generator, dtype=torch.float64)

    def collate(self, items: Sequence[Item]) -> torch.Tensor:
        return self.inputs[[index for _, index in items]]

    def loss(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return ((x @ self.inner.T + self.bias) @ self.outer).sum(), len(x)


def zeroed(
    module: nn.Module, parameter: Parameter, index: int, value: Callable[[], np.ndarray], before: np.ndarray
) -> float:
    """Eq. 1: the mean over batches of |L(θ) − L(θ without this one)|."""
    flat = module.get_parameter(parameter.name).detach().view(-1)
    kept = float(flat[index])
    flat[index] = 0
    change = np.abs(value() - before).mean()
    flat[index] = kept
    return float(change)


def losses(module: nn.Module, batches: Sequence[Batch], collate: Any, loss: Any) -> np.ndarray:
    with torch.no_grad():
        return np.array([float(loss(collate(batch.items))[0]) / batch.tokens for batch in batches])


def test_S_equals_zeroing_where_the_model_is_linear_in_each_parameter() -> None:
    model = Multilinear()
    batches = [Batch((tuple(("cat", i) for i in range(3 * b, 3 * b + 3)),), 3) for b in range(4)]
    found = measure(model, registry(model), batches, model.collate, model.loss)

    def value() -> np.ndarray:
        return losses(model, batches, model.collate, model.loss)

    before = value()
    for parameter in registry(model):
        exact = [zeroed(model, parameter, i, value, before) for i in range(parameter.numel)]
        # both sides are float64 but for the last step, in which S becomes float32
        np.testing.assert_allclose(found.mean[parameter.name].flatten(), exact, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("steps", [0, 80], ids=["untrained", "trained"])
def test_on_a_small_transformer_S_ranks_parameters_as_exact_zeroing_does(
    steps: int, record_property: Callable[[str, object], None]
) -> None:
    languages = {code: toy.LANGUAGES[code] for code in ("cat", "nob")}
    module = toy.initialised(toy.TinyTransformer(toy.vocabulary_size(2), width=8, hidden=12))
    backend = toy.ToyBackend(module, languages).train(steps)
    backend.module.double()
    batches = batches_of(backend, 4)
    found = sensitivity(backend, batches)
    micro_batches = [(backend.collate(batch.items), batch.tokens) for batch in batches]

    @torch.no_grad()
    def value() -> np.ndarray:
        return np.array([float(backend.loss(micro_batch)[0]) / tokens for micro_batch, tokens in micro_batches])

    before = value()
    pairs = []
    for parameter in registry(backend.module):
        taylor = found.mean[parameter.name].flatten().tolist()
        # words that no batch holds have 0 on both sides: ties that would flatter the estimate
        chosen = [i for i, s in enumerate(taylor) if s > 0][::6]
        pairs += [(taylor[i], zeroed(backend.module, parameter, i, value, before)) for i in chosen]
    assert len(pairs) > 200
    spearman = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    record_property("spearman", spearman)
    print(f"Spearman of S with exact zeroing, {len(pairs)} parameters, {steps} steps of training: {spearman:.4f}")
    # what chance gives has a standard deviation of 1/√(n−1)
    assert spearman > 10 / math.sqrt(len(pairs) - 1)


# the obvious loop


@pytest.mark.parametrize("micro_batches", [1, 2, 5])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("per_token", [True, False])
def test_S_equals_the_obvious_loop_with_a_full_gradient(
    double: toy.ToyBackend, micro_batches: int, skip: bool, per_token: bool
) -> None:
    batches = batches_of(double, 9, micro_batches)
    found = sensitivity(double, batches, skip_nonfinite=skip, per_token=per_token)
    assert_close(found.mean, obvious(double, batches, per_token), 2 * ROUNDING)
    assert_close(found.half, obvious(double, batches[: found.half_batches], per_token), 2 * ROUNDING)
    assert found.half_batches == 4


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_S_of_a_transformer_equals_the_obvious_loop(micro_batches: int) -> None:
    module = toy.initialised(toy.TinyTransformer(toy.vocabulary_size(), layers=2))
    backend = toy.ToyBackend(module, dtype=torch.float64)
    batches = batches_of(backend, 6, micro_batches)
    assert_close(sensitivity(backend, batches).mean, obvious(backend, batches), 2 * ROUNDING)


def test_a_float32_module_gives_what_the_obvious_loop_gives_in_float32() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 100)
    # the same gradients bit for bit: what is left is the order in which 100 of them are added
    assert_close(sensitivity(backend, batches).mean, obvious(backend, batches), 16 * ROUNDING)


def test_a_tied_tensor_has_the_sensitivity_of_all_its_uses(double: toy.ToyBackend) -> None:
    batches = batches_of(double, 4)
    found = sensitivity(double, batches).mean["encoder.embed_tokens.weight"]
    model = double.module
    # untied, with the same weights: the gradient of the tied tensor is the sum of the two, before the absolute value
    apart = copy.deepcopy(double)
    apart.module.decoder["output_projection"].weight = nn.Parameter(
        model.encoder["embed_tokens"].weight.detach().clone()
    )
    names = ("encoder.embed_tokens.weight", "decoder.output_projection.weight")
    each = [full_gradient(apart, batch) for batch in batches]
    together = torch.stack([(gradient[names[0]] + gradient[names[1]]).abs() for gradient in each]).mean(0)
    expected = together * model.encoder["embed_tokens"].weight.abs()
    assert_close({"": found}, {"": expected.detach()}, 2 * ROUNDING)
    assert len(sensitivity(apart, batches).mean) == len(sensitivity(double, batches).mean) + 1


def test_the_absolute_value_is_taken_per_batch_not_after_gradients_are_accumulated(double: toy.ToyBackend) -> None:
    batches = batches_of(double, 20)
    found = torch.cat([tensor.flatten() for tensor in sensitivity(double, batches).mean.values()])
    total: dict[str, torch.Tensor] = {}
    for batch in batches:
        for name, gradient in full_gradient(double, batch).items():
            total[name] = total.get(name, 0) + gradient / len(batches)
    accumulated = torch.cat(
        [(double.module.get_parameter(p.name).detach() * total[p.name]).abs().flatten() for p in registry_of(double)]
    )
    assert bool((found >= accumulated * (1 - 4 * ROUNDING)).all())
    # and it is not one factor that they differ by: the orders differ
    assert stats.spearmanr(found, accumulated).statistic < 0.95


class Sum(nn.Module):
    """a and the output of tanh(c·x) meet in a sum: autograd hands both branches one and the same gradient tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.full((3,), 0.5, dtype=torch.float64))
        self.b = nn.Parameter(torch.full((3,), 0.25, dtype=torch.float64))
        self.c = nn.Parameter(torch.full((3,), -0.75, dtype=torch.float64))

    def loss(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return (-x * (self.a + torch.tanh(self.c * self.b) + self.b)).sum(), 1


@pytest.mark.parametrize("skip", [False, True])
def test_taking_one_gradient_leaves_those_that_share_its_memory_alone(skip: bool) -> None:
    model = Sum()
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    batches = [Batch(((("cat", 0),),), 1)] * 2
    found = measure(model, registry(model), batches, lambda _: x, model.loss, skip_nonfinite=skip)
    gradients = torch.autograd.grad(model.loss(x)[0], [model.a, model.b, model.c])
    expected = [(t * g).abs().detach() for t, g in zip((model.a, model.b, model.c), gradients, strict=True)]
    assert_close(found.mean, dict(zip("abc", expected, strict=True)), 2 * ROUNDING)
