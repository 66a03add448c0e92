"""Halves, blocks and the sample: what the noise is estimated from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sensikit.backends.base import Item
from sensikit.parameters import sample_of
from sensikit.sensitivity.taylor import BLOCKS, blocks_of
from tests.support import toy
from tests.support.measured import (
    ROUNDING,
    assert_consistent,
    batches_of,
    doubled,
    obvious,
    registry_of,
    sensitivity,
)


@pytest.fixture
def double() -> toy.ToyBackend:
    return doubled()


@pytest.mark.parametrize("count", [2, 3, 7, 19, 20, 21, 39, 40, 41, 500, 501])
def test_blocks_hold_every_batch_in_order_and_make_two_halves(count: int) -> None:
    layout = blocks_of(count)
    assert sum(layout) == count
    assert len(layout) == min(BLOCKS, count - count % 2)
    assert len(layout) % 2 == 0
    assert max(layout) - min(layout) <= 1
    half = sum(layout[: len(layout) // 2])
    assert abs(2 * half - count) <= 1


@pytest.mark.parametrize("count", [2, 5, 20, 41])
def test_halves_and_blocks_agree_with_the_mean(double: toy.ToyBackend, count: int) -> None:
    parameters = registry_of(double)
    found = sensitivity(double, batches_of(double, count), sample=sample_of(parameters))
    assert found.blocks.shape == (min(20, count - count % 2), sum(p.numel for p in parameters))
    assert found.blocks.dtype == np.float32
    assert found.block_batches == blocks_of(count)
    assert_consistent(found, parameters)


def test_block_means_are_those_of_the_sampled_parameters_in_the_order_of_the_registry(double: toy.ToyBackend) -> None:
    parameters = registry_of(double)
    batches = batches_of(double, 4)
    sample = sample_of(parameters, limit=300)
    found = sensitivity(double, batches, sample=sample)
    assert found.blocks.shape == (4, 300)
    for number, batch in enumerate(batches):
        expected = obvious(double, [batch])
        flat = np.concatenate([expected[p.name].flatten().numpy()[sample[p.name]] for p in parameters])
        np.testing.assert_allclose(found.blocks[number], flat, rtol=4 * ROUNDING, atol=1e-30)


def test_the_two_halves_are_measured_on_different_sentences() -> None:
    backend = toy.backend()
    seen: list[Item] = []

    def collate(items: Sequence[Item]) -> Any:
        seen.extend(items)
        return backend.collate(items)

    batches = batches_of(backend, 11, micro_batches=3)
    found = sensitivity(backend, batches, collate=collate)
    edge = sum(len(batch.items) for batch in batches[: found.half_batches])
    assert 0 < edge < len(seen) == len(set(seen))
    assert not set(seen[:edge]) & set(seen[edge:])
