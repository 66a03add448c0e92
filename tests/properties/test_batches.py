"""Whatever the sentences: batches hold T target tokens, no sentence twice, and lose nothing but their unfilled tail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensikit.backends.base import Item
from sensikit.errors import DataError
from sensikit.sensitivity.batches import draw, pack

quiet = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    # a machine that is busy is no error
    suppress_health_check=[HealthCheck.too_slow],
)

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=40)
POOLS = st.dictionaries(st.sampled_from(["cat", "fur", "nob"]), LENGTHS, min_size=1)


@quiet
@given(POOLS, st.integers(1, 60), st.integers(2, 30), st.integers(1, 6), st.sampled_from([0.4, 1.0, 5.0]))
def test_batches_keep_their_promises(
    pool: dict[str, list[tuple[int, int]]], tokens: int, count: int, micro_batches: int, temperature: float
) -> None:
    sizes = {code: np.array(lengths) for code, lengths in pool.items()}
    drawn = list(draw(sizes, 1, "test", temperature))
    assert len(set(drawn)) == len(drawn)

    def target(item: Item) -> int:
        return int(sizes[item[0]][item[1], 1])

    try:
        batches = pack(iter(drawn), sizes, tokens, count, micro_batches)
    except DataError:
        # two batches take at most two times T and what their last sentences have too much
        assert sum(map(target, drawn)) < 2 * tokens + 40
        return
    assert 2 <= len(batches) <= count
    at = 0
    for batch in batches:
        assert all(batch.micro_batches)
        assert len(batch.micro_batches) <= micro_batches
        # the next sentences of the draw, in any order within the batch
        assert sorted(batch.items) == sorted(drawn[at : at + len(batch.items)])
        at += len(batch.items)
        assert batch.tokens == sum(map(target, batch.items))
        assert abs(batch.tokens - tokens) <= max(map(target, drawn)) / 2 or len(batch.items) == 1
    if len(batches) < count:
        assert sum(map(target, drawn[at:])) < tokens


@quiet
@given(POOLS, st.integers(0, 2**63 - 1), st.sampled_from([0.4, 1.0, 5.0]))
def test_a_draw_depends_on_its_seed_and_purpose_alone(
    pool: dict[str, list[tuple[int, int]]], seed: int, temperature: float
) -> None:
    sizes = {code: np.array(lengths) for code, lengths in pool.items()}
    first = list(draw(sizes, seed, "mt/a", temperature))
    assert first == list(draw(sizes, seed, "mt/a", temperature))
    for code in sizes:
        alone = [index for _, index in draw({code: sizes[code]}, seed, "mt/a", temperature)]
        among = [index for language, index in first if language == code]
        assert among == alone[: len(among)]


@quiet
@given(st.integers(1, 60))
def test_sentences_that_do_not_fill_two_batches_are_refused(tokens: int) -> None:
    sizes = {"cat": np.array([[5, tokens], [5, tokens - 1]])} if tokens > 1 else {"cat": np.array([[5, 1]])}
    with pytest.raises(DataError, match="two are needed"):
        pack(iter([("cat", i) for i in range(len(sizes["cat"]))]), sizes, tokens, 10)
