"""S of modules of other kinds: dropout, half precision, unused parameters, sparse gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sensikit.parameters import registry, sample_of
from sensikit.sensitivity import taylor
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.taylor import measure
from tests.support import toy
from tests.support.measured import (
    ROUNDING,
    assert_close,
    batches_of,
    registry_of,
    sensitivity,
)


def test_dropout_may_be_on_and_stays_on() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 4)
    calm = sensitivity(backend, batches).mean
    backend.module.train()
    torch.manual_seed(1)
    first = sensitivity(backend, batches).mean
    torch.manual_seed(1)
    again = sensitivity(backend, batches).mean
    other = sensitivity(backend, batches).mean
    assert backend.module.training
    name = "encoder.layers.0.fc1.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], calm[name])


def test_S_is_float32_on_the_cpu_whatever_the_module() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        backend = toy.ToyBackend(dtype=dtype)
        found = sensitivity(backend, batches_of(backend, 2))
        for vector in (found.mean, found.half):
            for parameter in registry_of(backend):
                tensor = vector[parameter.name]
                assert (tensor.dtype, tensor.device.type, tuple(tensor.shape)) == (
                    torch.float32,
                    "cpu",
                    parameter.shape,
                )
                assert tensor.is_contiguous()
                assert not tensor.requires_grad


class Constant(nn.Module):
    """Its gradient is 1 in every batch."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, dtype=dtype))

    def loss(self, _: Any) -> tuple[torch.Tensor, int]:
        return self.weight.sum(), 1


@pytest.mark.parametrize("skip", [False, True])
def test_sums_of_half_precision_gradients_do_not_saturate(skip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # in bfloat16, 256 + 1 = 256, and there is no 301
    monkeypatch.setattr(taylor, "blocks_of", lambda count: [count // 2] * 2)
    model = Constant(torch.bfloat16)
    batches = [Batch(((("cat", 0),),), 1)] * 602
    found = measure(model, registry(model), batches, len, model.loss, skip_nonfinite=skip)
    assert found.mean["weight"].tolist() == [1.0, 1.0]


class Partly(nn.Module):
    """`used` in every sentence, `first` in the first micro-batch alone, `never` in none."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.first, self.never = (nn.Parameter(torch.tensor(value)) for value in (2.0, 3.0, 5.0))

    def loss(self, rows: list[int]) -> tuple[torch.Tensor, int]:
        total = self.used * len(rows)
        for row in rows:
            if row == 0:
                total = total + self.first * 7
        return total, len(rows)


@pytest.mark.parametrize("skip", [False, True])
def test_a_parameter_without_a_gradient_has_S_zero(skip: bool) -> None:
    model = Partly()
    both = Batch(((("cat", 0),), (("cat", 1),)), 2)
    later = Batch(((("cat", 1),), (("cat", 2),)), 2)
    parameters = registry(model)
    found = measure(
        model,
        parameters,
        [both, later],
        lambda items: [index for _, index in items],
        model.loss,
        sample=sample_of(parameters),
        skip_nonfinite=skip,
    )
    # `first` has its gradient before the last micro-batch of the first batch, and none in the second: 3·(7/2 + 0)/2
    assert {name: float(tensor) for name, tensor in found.mean.items()} == {"used": 2.0, "first": 5.25, "never": 0.0}
    assert found.blocks.tolist() == [[2.0, 10.5, 0.0], [2.0, 0.0, 0.0]]


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("skip", [False, True])
def test_sparse_gradients_of_an_embedding_count_like_dense_ones(micro_batches: int, skip: bool) -> None:
    def found(sparse: bool) -> dict[str, torch.Tensor]:
        embedding = nn.Embedding(toy.vocabulary_size(), 4, sparse=sparse)
        generator = torch.Generator().manual_seed(0)
        embedding.weight.data.copy_(torch.randn(embedding.weight.shape, generator=generator))
        backend = toy.ToyBackend(Bag(embedding), ghosts=[])
        return sensitivity(backend, batches_of(backend, 5, micro_batches), skip_nonfinite=skip).mean

    dense, sparse = found(sparse=False), found(sparse=True)
    assert float(dense["embedding.weight"].max()) > 0
    assert_close(sparse, dense, 4 * ROUNDING)


class Bag(nn.Module):
    """Predicts each target token from the source token at its place, through an embedding that is not tied."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.project = toy.initialised(nn.Linear(4, toy.vocabulary_size()))

    def forward(self, source: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        longest = max(source.shape[1], previous.shape[1])
        wide = nn.functional.pad(source, (0, longest - source.shape[1]))[:, : previous.shape[1]]
        return self.project(self.embedding(wide))
