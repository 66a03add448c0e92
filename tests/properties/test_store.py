"""A tensor of any shape is read in flat order, no more of it at once than allowed."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensikit import run as store

quiet = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=200,
    # a machine that is busy is no error
    suppress_health_check=[HealthCheck.too_slow],
)


@quiet
@given(st.lists(st.integers(1, 7), max_size=4).map(tuple), st.integers(1, 60))
def test_the_places_of_a_tensor_are_all_of_it_once_in_flat_order(shape: tuple[int, ...], chunk: int) -> None:
    whole = np.arange(math.prod(shape)).reshape(shape)
    kept = store.CHUNK
    store.CHUNK = chunk
    try:
        parts = [np.asarray(whole[place]).reshape(-1) for place in store._places(shape)]
    finally:
        store.CHUNK = kept
    assert np.array_equal(np.concatenate(parts), whole.reshape(-1))
    assert max(map(len, parts)) <= chunk
