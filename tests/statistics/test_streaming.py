"""Streams: what they cost, and the cases that random values are unlikely to hit (see also properties/)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from sensikit.statistics.ranks import between, ranks_of
from sensikit.statistics.streaming import (
    DIGIT,
    Cut,
    Keys,
    Moments,
    keys,
    order_statistics,
    selected,
    smallest,
)


def test_the_cut_of_a_handful_of_values() -> None:
    values = np.array([3.0, -1.0, 2.0, -1.0, 2.0, 2.0])
    two, four = smallest(lambda: [keys(values)], [2, 4])
    assert (two.ties, four.ties) == (2, 2)
    assert list(next(selected([keys(values)], four))) == [False, True, True, True, True, False]


def test_ties_go_by_index_across_chunks() -> None:
    chunks = [np.array([5.0, 1.0]), np.array([5.0]), np.array([]), np.array([5.0, 0.0, 5.0])]
    (cut,) = smallest(lambda: map(keys, chunks), [4])
    found = [mask.tolist() for mask in selected(map(keys, chunks), cut)]
    assert found == [[True, True], [True], [], [False, True, False]]


def test_none_of_nothing_can_be_selected() -> None:
    (cut,) = smallest(lambda: iter(()), [0])
    assert cut.ties == 0
    assert not next(selected([keys(np.array([0.0, -np.inf]))], cut)).any()


def test_selecting_none_selects_none_even_of_the_smallest_key_there_is() -> None:
    chunk = np.zeros(3, dtype=np.uint64)
    (cut,) = smallest(lambda: [chunk], [0])
    assert not next(selected([chunk], cut)).any()


def test_the_largest_key_there_is_can_be_selected() -> None:
    chunk = np.full(3, 2**64 - 1, dtype=np.uint64)
    (cut,) = smallest(lambda: [chunk], [2])
    assert cut == Cut(2**64 - 1, 2)
    assert next(selected([chunk], cut)).tolist() == [True, True, False]


@pytest.mark.parametrize("shift", range(0, 64, DIGIT))
def test_every_digit_of_the_key_counts(shift: int) -> None:
    chunk = np.array([7, 3, 5, 1], dtype=np.uint64) << np.uint64(shift)
    (cut,) = smallest(lambda: [chunk], [2])
    assert next(selected([chunk], cut)).tolist() == [False, True, False, True]


def test_many_counts_at_once_are_found_as_each_alone() -> None:
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32).round(2)
    counts = [0, 1, 17, 500, 500, 4999, 5000]
    together = smallest(lambda: [keys(values)], counts)
    assert together == [smallest(lambda: [keys(values)], [count])[0] for count in counts]


class Watched:
    """A stream of `count` random chunks that counts its passes, and how many of its chunks are still held."""

    def __init__(self, count: int = 50, size: int = 1000) -> None:
        self.count, self.size, self.passes, self.most = count, size, 0, 0
        self.held: list[weakref.ref[np.ndarray]] = []

    def __call__(self) -> Iterator[np.ndarray]:
        self.passes += 1
        generator = np.random.default_rng(0)
        for _ in range(self.count):
            chunk = generator.random(self.size)
            self.held = [ref for ref in self.held if ref() is not None] + [weakref.ref(chunk)]
            self.most = max(self.most, len(self.held))
            yield chunk

    def keys(self) -> Iterable[Keys]:
        return (keys(chunk) for chunk in self())


@pytest.mark.parametrize(("held", "passes"), [(1 << 27, 2), (100, 3), (0, 4)])
def test_selection_reads_two_to_four_times_and_holds_no_more_than_it_may(
    monkeypatch: pytest.MonkeyPatch, held: int, passes: int
) -> None:
    monkeypatch.setattr("sensikit.statistics.streaming.HELD", held)
    stream = Watched()
    (cut,) = smallest(stream.keys, [20_000])
    assert stream.passes == passes
    assert sum(int(mask.sum()) for mask in selected(stream.keys(), cut)) == 20_000
    assert stream.most <= 3


def test_quantiles_read_twice_however_many_they_are() -> None:
    stream = Watched()
    levels = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    found = between(order_statistics(stream, ranks_of(50_000, levels)), 50_000, levels)
    assert stream.passes == 2
    assert stream.most <= 3
    np.testing.assert_allclose(found, np.quantile(np.concatenate(list(stream())), levels), rtol=1e-14)


def test_a_quantile_of_one_value_is_that_value() -> None:
    found = order_statistics(lambda: [np.array([2.5])], ranks_of(1, [0.0, 0.3, 1.0]))
    assert between(found, 1, [0.0, 0.3, 1.0]) == [2.5, 2.5, 2.5]


def test_order_statistics_of_equal_values() -> None:
    assert order_statistics(lambda: [np.zeros(4), -np.zeros(4)], [0, 3, 7]) == [0.0, 0.0, 0.0]


def test_moments_of_float32_are_kept_in_float64() -> None:
    # the sum of squares of 10⁶ values around 10⁴ needs more than the 24 bits of a float32
    values = (1e4 + np.random.default_rng(0).random((2, 100_000))).astype(np.float32)
    moments = Moments.zero(2)
    for start in range(0, 100_000, 999):
        moments.add(values[:, start : start + 999])
    np.testing.assert_allclose(moments.pearson(), np.corrcoef(values.astype(np.float64)), atol=1e-12)
    np.testing.assert_allclose(moments.mean, values.mean(axis=1, dtype=np.float64), rtol=1e-14)


def test_moments_of_nothing_and_of_one_value_have_no_correlation() -> None:
    moments = Moments.zero(2)
    assert np.isnan(moments.pearson()).all()
    moments.add(np.empty((2, 0)))
    assert moments.count == 0
    moments.add(np.array([[1.0], [2.0]]))
    assert np.isnan(moments.pearson()).all()
    assert moments.mean.tolist() == [1.0, 2.0]


def test_vectors_that_differ_in_one_float32_step_of_one_value_are_not_constant() -> None:
    values = np.full((2, 1_000_000), 0.1, dtype=np.float32)
    values[:, 5] = np.nextafter(np.float32(0.1), np.float32(1))
    moments = Moments.zero(2)
    for start in range(0, 1_000_000, 65_536):
        moments.add(values[:, start : start + 65_536])
    np.testing.assert_allclose(moments.pearson(), np.ones((2, 2)), atol=1e-6)


def test_a_constant_vector_is_constant_in_any_number_of_chunks() -> None:
    other = np.random.default_rng(0).random(300_000)
    for value in (0.1, 1 / 3, 1e-9, 1e9 / 7, -0.7):
        moments = Moments.zero(2)
        for start in range(0, 300_000, 777):
            part = other[start : start + 777]
            moments.add(np.stack([np.full(len(part), value), part]))
        found = moments.pearson()
        assert np.isnan(found[0]).all()
        assert found[1, 1] == 1


def test_a_correlation_is_never_beyond_one() -> None:
    values = np.random.default_rng(1).random(1000)
    moments = Moments.zero(2)
    moments.add(np.stack([values, values * 3]))
    assert np.abs(moments.pearson()).max() <= 1
    assert moments.pearson()[0, 1] == pytest.approx(1, abs=1e-15)


def test_moments_of_two_parts_merge_to_those_of_the_whole() -> None:
    values = np.random.default_rng(1).lognormal(size=(3, 50))
    whole, first, second = (Moments.zero(3) for _ in range(3))
    whole.add(values)
    first.add(values[:, :20])
    second.add(values[:, 20:])
    first.merge(Moments.zero(3))
    first.merge(second)
    assert first.count == 50
    np.testing.assert_allclose(first.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(first.products, whole.products, rtol=1e-13)
    assert second.count == 30, "what is merged in stays as it was"


def test_moments_of_sums_are_those_of_the_vectors_added_up() -> None:
    values = np.random.default_rng(2).lognormal(size=(3, 50))
    weights = np.array([[1.0, 0, -2], [0.5, 3, 0]])
    moments, sums = Moments.zero(3), Moments.zero(2)
    moments.add(values)
    sums.add(weights @ values)
    found = moments.combined(weights)
    assert found.count == 50
    np.testing.assert_allclose(found.mean, sums.mean, rtol=1e-13)
    np.testing.assert_allclose(found.products, sums.products, rtol=1e-12)
    assert np.array_equal(found.products, found.products.T)
