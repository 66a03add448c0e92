"""Measuring S of a toy, and the obvious slow ways to the same numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from sensikit.parameters import Parameter, registry
from sensikit.sensitivity.batches import Batch, draw, pack
from sensikit.sensitivity.taylor import Sensitivity, measure
from tests.support import toy

ROUNDING = 2.0**-23
"""Of one float32 operation, relative: S is stored in float32 even where it was computed in float64."""


def batches_of(
    backend: toy.ToyBackend,
    count: int,
    micro_batches: int = 1,
    tokens: int = 40,
    groups: Sequence[str] = ("cat", "nob"),
) -> list[Batch]:
    sizes = {code: backend.sizes(code) for code in groups}
    found = pack(draw(sizes, 1, "test"), sizes, tokens, count, micro_batches)
    assert len(found) == count
    return found


def sensitivity(backend: toy.ToyBackend, batches: Sequence[Batch], **options: Any) -> Sensitivity:
    options = {"collate": backend.collate, "loss": backend.loss, **options}
    parameters = options.pop("parameters", None) or registry(backend.module, backend.ghosts)
    return measure(backend.module, parameters, batches, **options)


def full_gradient(backend: toy.ToyBackend, batch: Batch, per_token: bool = True) -> dict[str, torch.Tensor]:
    """The gradient of a whole batch in one micro-batch, by autograd alone."""
    named = dict(backend.module.named_parameters())
    total, tokens = backend.loss(backend.collate(batch.items))
    gradients = torch.autograd.grad(total / (tokens if per_token else 1), list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(named.items(), gradients, strict=True)
    }


def obvious(backend: toy.ToyBackend, batches: Sequence[Batch], per_token: bool = True) -> dict[str, torch.Tensor]:
    """S by definition: every gradient held, the absolute value of each θ·∇, the mean at the end."""
    named = dict(backend.module.named_parameters())
    each = [full_gradient(backend, batch, per_token) for batch in batches]
    return {
        name: torch.stack([(tensor.detach() * gradient[name]).abs() for gradient in each]).mean(dim=0)
        for name, tensor in named.items()
    }


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Equal but for rounding, relative to the largest entry of each tensor.

    A tensor without influence (the bias of keys, to which softmax is blind) is left with the rounding of float64.
    """
    assert found
    nothing = 1e-13 * max(float(tensor.max()) for tensor in expected.values()) if tolerance else 0.0
    for name, tensor in found.items():
        wanted = expected[name].to(torch.float64)
        scale = max(float(wanted.abs().max()), nothing / ROUNDING)
        assert tensor.shape == wanted.shape
        assert float((tensor.to(torch.float64) - wanted).abs().max()) <= tolerance * scale, name


def doubled() -> toy.ToyBackend:
    """Return a trained toy in float64: what differs from it by more than rounding is wrong."""
    backend = toy.backend()
    backend.module.double()
    return backend


def registry_of(backend: toy.ToyBackend) -> tuple[Parameter, ...]:
    return registry(backend.module, backend.ghosts)


def spoiled(
    backend: toy.ToyBackend, bad: set[int], value: float = math.nan, only: str | None = None, micro_batch: int = 0
) -> Callable[[Any], tuple[torch.Tensor, int]]:
    """A loss that spoils batches by number, in all gradients or in that of one parameter; one micro-batch a batch."""
    calls = itertools.count()

    def loss(data: Any) -> tuple[torch.Tensor, int]:
        total, tokens = backend.loss(data)
        if next(calls) not in bad:
            return total, tokens
        if only is None:
            return total * value, tokens
        # adds 0 to the loss, and `value` to one element of one gradient
        element = backend.module.get_parameter(only).flatten()[0] * 1
        element.register_hook(lambda gradient: gradient * value)
        return total + element - element.detach(), tokens

    return loss


def assert_consistent(found: Sensitivity, parameters: Sequence[Parameter]) -> None:
    """Block means, weighted by their batches, make the half and the whole (all parameters are in the sample)."""
    weights = np.array(found.block_batches, dtype=np.float64)[:, None]
    middle = len(weights) // 2
    for vector, rows in ((found.mean, slice(None)), (found.half, slice(middle))):
        flat = torch.cat([vector[p.name].flatten() for p in parameters]).double().numpy()
        blocks = (found.blocks[rows] * weights[rows]).sum(axis=0) / weights[rows].sum()
        np.testing.assert_allclose(blocks, flat, rtol=4 * ROUNDING, atol=1e-30)
    assert found.half_batches == weights[:middle].sum()
    assert found.batches == weights.sum()
