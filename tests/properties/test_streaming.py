"""What is computed in one pass over chunks equals what numpy computes on the whole, for any values and any chunking."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sensikit.pruning.masks import sorted_levels
from sensikit.statistics.ranks import Sorted, between, ranks_of
from sensikit.statistics.streaming import (
    Cut,
    Moments,
    keys,
    levels,
    order_statistics,
    selected,
    smallest,
    values_of,
)

quiet = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    # a machine that is busy is no error
    suppress_health_check=[HealthCheck.too_slow],
)

NOTHING = 1e-300
"""Squares of less than this are rounded to the nearest 5e-324, and so have no relative precision."""

TINY = [0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308]
LARGE = [float("inf"), -float("inf"), 1.7976931348623157e308]
FLOATS = {
    np.float64: st.sampled_from([*TINY, *LARGE, 1.0, -1.0, 0.1]) | st.floats(allow_nan=False),
    np.float32: st.sampled_from([*TINY[:2], float(np.float32(1e-45)), *LARGE[:2], 1.0, -1.0, 0.5])
    | st.floats(width=32, allow_nan=False),
}


@st.composite
def vectors(draw: st.DrawFn, smallest: int = 0) -> np.ndarray:
    """Up to 80 floats of one precision, many of them equal."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    few = draw(st.lists(FLOATS[dtype], min_size=1, max_size=6))
    elements = draw(st.sampled_from([FLOATS[dtype], st.sampled_from(few)]))
    return draw(hnp.arrays(dtype, st.integers(smallest, 80), elements=elements, fill=st.nothing()))


Cutting = Callable[[np.ndarray], Callable[[], Iterator[np.ndarray]]]


@st.composite
def cuttings(draw: st.DrawFn) -> Cutting:
    """A way of cutting the last axis of an array into chunks, some of them empty."""
    places = draw(st.lists(st.integers(0, 80), max_size=8))

    def cut(values: np.ndarray) -> Callable[[], Iterator[np.ndarray]]:
        length = values.shape[-1]
        edges = [0, *sorted(min(place, length) for place in places), length]
        return lambda: (values[..., a:b] for a, b in itertools.pairwise(edges))

    return cut


@quiet
@given(vectors(), st.data())
def test_selection_is_the_prefix_of_a_stable_argsort(values: np.ndarray, data: st.DataObject) -> None:
    counts = [*data.draw(st.lists(st.integers(0, len(values)), max_size=4)), 0, len(values)]
    stream, again = data.draw(cuttings())(values), data.draw(cuttings())(values)
    order = np.argsort(values, kind="stable")
    with mock.patch("sensikit.statistics.streaming.HELD", data.draw(st.sampled_from([0, 3, 1 << 27]))):
        cuts = smallest(lambda: (keys(chunk) for chunk in stream()), counts)
        level = levels(lambda: (keys(chunk) for chunk in again()), sorted(counts))
    sorted_once = sorted_levels(lambda: map(keys, again()), sorted(counts), torch.device("cpu"))
    assert sorted_once.dtype == level.dtype
    assert sorted_once.tolist() == level.tolist()
    places = np.empty(len(values), dtype=int)
    places[order] = np.arange(len(values))
    assert level.tolist() == np.searchsorted(sorted(counts), places, side="right").tolist()
    assert len(cuts) == len(counts)
    for count, cut in zip(counts, cuts, strict=True):
        expected = np.zeros(len(values), dtype=bool)
        expected[order[:count]] = True
        # the cut is found on one chunking and applied on another
        found = np.concatenate([np.zeros(0, dtype=bool), *selected(map(keys, again()), cut)])
        assert np.array_equal(found, expected)


@quiet
@given(vectors(smallest=1), st.data())
def test_more_than_there_is_cannot_be_selected(values: np.ndarray, data: st.DataObject) -> None:
    stream = data.draw(cuttings())(values)
    with pytest.raises(ValueError, match=f"{len(values) + 1} keys asked for, {len(values)} there"):
        smallest(lambda: map(keys, stream()), [0, len(values) + 1])


@quiet
@given(vectors(smallest=1), st.data())
def test_order_statistics_are_those_of_the_sorted_vector(values: np.ndarray, data: st.DataObject) -> None:
    ranks = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=5))
    assert order_statistics(data.draw(cuttings())(values), ranks) == np.sort(values)[ranks].tolist()


@quiet
@given(
    hnp.arrays(np.float64, st.integers(1, 80), elements=st.floats(-1e12, 1e12)),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    cuttings(),
)
def test_quantiles_are_numpys(values: np.ndarray, levels: list[float], cut: Cutting) -> None:
    levels = [*levels, 0.0, 1.0, 0.5]
    runs = Sorted(lambda: ((0, chunk) for chunk in cut(values)())).read()
    (places,) = runs.places([([0], ranks_of(len(values), levels))])
    found = between([place.value for place in places], len(values), levels)
    # two ways of writing a + (b − a)·t differ by a rounding or two of what they add
    np.testing.assert_allclose(found, np.quantile(values, levels), rtol=0, atol=1e-15 * np.abs(values).max() + NOTHING)


@quiet
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 60)), elements=st.floats(-1e6, 1e6)), cuttings()
)
@example(
    np.array([[1.5e-162, 2.5e-162, 0.3e-162, 7e-163, -1e-162]]),
    lambda values: lambda: iter([values[:, :2], values[:, 2:]]),
)
def test_moments_are_those_of_the_whole(values: np.ndarray, cut: Cutting) -> None:
    moments = Moments.zero(len(values))
    for chunk in cut(values)():
        moments.add(chunk)
    size = np.abs(values).max()
    assert moments.count == values.shape[1]
    np.testing.assert_allclose(moments.mean, values.mean(axis=1), rtol=0, atol=1e-14 * size + NOTHING)
    products = np.cov(values, ddof=0) * values.shape[1]
    bound = 1e-13 * size**2 * len(values[0]) + NOTHING
    np.testing.assert_allclose(moments.products, np.atleast_2d(products), rtol=0, atol=bound)


@quiet
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(2, 4), st.integers(3, 60)), elements=st.floats(-100, 100, width=16)),
    st.sampled_from([0.0, 1.0, -1e5]),
    st.sampled_from([1e-12, 1.0, 1e6]),
    cuttings(),
)
def test_pearson_is_numpys_corrcoef_on_the_concatenation(
    values: np.ndarray, offset: float, scale: float, cut: Cutting
) -> None:
    wide = (values.astype(np.float64) + offset) * scale
    assume((wide.std(axis=1) > 1e-7 * np.abs(wide).max(axis=1)).all())
    moments = Moments.zero(len(values))
    for chunk in cut(wide)():
        moments.add(chunk)
    # an offset of 10^7 standard deviations costs seven digits, here and in numpy
    np.testing.assert_allclose(moments.pearson(), np.corrcoef(wide), rtol=0, atol=1e-8)


@quiet
@given(
    st.floats(-1e30, 1e30).filter(lambda value: value == 0 or abs(value) > 1e-30),
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
    cuttings(),
)
@example(0.1, 60, 0, lambda values: lambda: iter([values[:, :7], values[:, 7:10], values[:, 10:]]))
def test_a_constant_vector_correlates_with_nothing(value: float, count: int, seed: int, cut: Cutting) -> None:
    other = np.random.default_rng(seed).random(count)
    moments = Moments.zero(3)
    for chunk in cut(np.stack([np.full(count, value), other, np.full(count, 3.0)]))():
        moments.add(chunk)
    found = moments.pearson()
    assert np.isnan(found[0]).all()
    assert np.isnan(found[:, 0]).all()
    assert np.isnan(found[2]).all()
    assert found[1, 1] == 1 or count == 1


@quiet
@given(FLOATS[np.float64])
def test_a_key_tells_its_value(value: float) -> None:
    (key,) = keys(np.array([value]))
    # −0 comes back as 0
    assert np.float64(values_of(int(key))).tobytes() == np.float64(value + 0.0).tobytes()


@quiet
@given(FLOATS[np.float64], FLOATS[np.float64])
def test_keys_are_in_the_order_of_the_values(first: float, second: float) -> None:
    one, other = keys(np.array([first, second]))
    assert (one < other, one == other) == (first < second, first == second)


@quiet
@given(vectors())
def test_a_float32_has_the_key_of_the_float64_it_equals(values: np.ndarray) -> None:
    assert np.array_equal(keys(values), keys(values.astype(np.float64)))
    assert keys(values).dtype == np.uint64


@quiet
@given(vectors(smallest=1), st.integers(1, 80))
def test_a_cut_says_how_many_of_the_equal_ones_are_within(values: np.ndarray, count: int) -> None:
    count = min(count, len(values))
    (cut,) = smallest(lambda: [keys(values)], [count])
    edge = np.sort(values)[count - 1]
    assert cut == Cut(int(keys(np.array([edge]))[0]), count - int((values < edge).sum()))
