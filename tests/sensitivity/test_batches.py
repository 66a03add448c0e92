"""Which sentences make which batch."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from sensikit.backends.base import Item
from sensikit.errors import DataError
from sensikit.sensitivity.batches import COUNTS, Batch, common_tokens, draw, pack
from sensikit.sensitivity.taylor import blocks_of
from tests.support import toy


def lengths(count: int, seed: int = 0, longest: int = 60) -> np.ndarray:
    """Source and target tokens of `count` sentences, skewed as real ones are; the two columns differ."""
    generator = np.random.default_rng(seed)
    target = np.clip(generator.lognormal(2.5, 0.6, count).astype(np.int64), 1, longest)
    source = np.clip(target + generator.integers(-3, 9, count), 1, longest)
    return np.stack([source, target], axis=1)


POOL = {"cat": lengths(900, 1), "fur": lengths(300, 2), "nso": lengths(100, 3)}


def items_of(batches: list[Batch]) -> list[Item]:
    return [item for batch in batches for item in batch.items]


# drawing


def test_at_temperature_1_every_sentence_of_the_pool_comes_exactly_once() -> None:
    drawn = list(draw(POOL, 1, "mt/all.groups"))
    assert Counter(drawn) == Counter((code, i) for code, size in POOL.items() for i in range(len(size)))


def test_at_temperature_1_languages_come_in_proportion_all_along() -> None:
    drawn = [code for code, _ in draw(POOL, 1, "mt/all.groups")]
    for start in (0, 400, 800):
        share = np.mean([code == "cat" for code in drawn[start : start + 400]])
        # without replacement, 400 of 1300, 900 of them Catalan: the standard deviation of the share
        deviation = np.sqrt(0.692 * 0.308 / 400 * (900 / 1299))
        assert abs(share - 900 / 1300) < 4 * deviation


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0, 100.0])
def test_at_another_temperature_the_share_of_a_language_is_its_size_to_the_power_of_one_over_it(
    temperature: float,
) -> None:
    pool = {"cat": lengths(9000), "fur": lengths(3000), "nso": lengths(1000)}
    sizes = np.array([9000.0, 3000.0, 1000.0]) ** (1 / temperature)
    drawn = Counter(code for code, _ in itertools.islice(draw(pool, 7, "mt/all.groups", temperature), 1000))
    for code, expected in zip(pool, sizes / sizes.sum(), strict=True):
        deviation = np.sqrt(expected * (1 - expected) / 1000)
        assert abs(drawn[code] / 1000 - expected) < 4 * deviation, code


@pytest.mark.parametrize("temperature", [0.3, 5.0])
def test_the_stream_ends_when_the_language_whose_turn_it_is_has_none_left(temperature: float) -> None:
    drawn = list(draw(POOL, 3, "mt/all.groups", temperature))
    taken = Counter(code for code, _ in drawn)
    assert len(set(drawn)) == len(drawn) < sum(map(len, POOL.values()))
    emptied = [code for code, size in POOL.items() if taken[code] == len(size)]
    assert emptied == (["nso"] if temperature > 1 else ["cat"])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_language_draws_the_same_sentences_whichever_others_are_drawn_with_it(temperature: float) -> None:
    def of_fur(pool: dict[str, np.ndarray]) -> list[int]:
        return [index for code, index in draw(pool, 5, "mt/x", temperature) if code == "fur"]

    alone = of_fur({"fur": POOL["fur"]})
    assert len(alone) == 300
    for pool in (POOL, dict(reversed(POOL.items())), {"nso": POOL["nso"], "fur": POOL["fur"]}):
        among = of_fur(pool)
        assert among
        assert among == alone[: len(among)]


def test_a_seed_gives_the_same_draw_again_and_another_seed_another() -> None:
    assert list(draw(POOL, 1, "mt/cat")) == list(draw(POOL, 1, "mt/cat"))
    assert list(draw(POOL, 1, "mt/cat")) != list(draw(POOL, 2, "mt/cat"))


def test_two_purposes_of_one_seed_draw_differently() -> None:
    assert list(draw(POOL, 1, "mt/cat")) != list(draw(POOL, 1, "mt/cat.rest"))
    first, second = (
        [index for code, index in draw(POOL, 1, purpose) if code == "cat"] for purpose in ("mt/cat", "mt/cat.rest")
    )
    assert first != second


def test_two_languages_of_one_size_do_not_draw_the_same_rows() -> None:
    pool = {"cat": POOL["fur"], "fur": POOL["fur"]}
    orders = {code: [index for other, index in draw(pool, 1, "mt/all.groups") if other == code] for code in pool}
    assert sorted(orders["cat"]) == sorted(orders["fur"])
    assert orders["cat"] != orders["fur"]


def test_a_draw_is_random_not_the_order_of_the_corpus() -> None:
    order = [index for _, index in draw({"cat": POOL["cat"]}, 1, "mt/cat")]
    # the rank correlation of a random permutation of 900 has a standard deviation of 1/30
    assert abs(np.corrcoef(order, np.arange(900))[0, 1]) < 4 / 30


def test_a_draw_leaves_numpys_global_state_alone() -> None:
    np.random.seed(0)  # noqa: NPY002  (the state that must not be read)
    first = list(draw(POOL, 1, "mt/all.groups", 2.0))
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002  # type: ignore[index]
    assert list(draw(POOL, 1, "mt/all.groups", 2.0)) == first
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


# packing


def test_a_batch_counts_the_target_tokens_of_its_sentences() -> None:
    for batch in pack(draw(POOL, 1, "mt/all.groups"), POOL, 200, 50, micro_batches=3):
        assert batch.tokens == sum(POOL[code][index, 1] for code, index in batch.items)


def test_every_batch_is_as_near_to_T_as_its_last_sentence_allows() -> None:
    batches = pack(draw(POOL, 1, "mt/all.groups"), POOL, 200, 10**6)
    assert max(abs(batch.tokens - 200) for batch in batches) <= 60 / 2


def test_batches_hold_T_tokens_on_average() -> None:
    pool = {"cat": lengths(6000)}
    held = np.array([batch.tokens for batch in pack(draw(pool, 1, "mt/cat"), pool, 150, 10**6)])
    assert len(held) > 400
    # closing always after (or always before) the sentence that crosses T would be off by some 30 of these
    assert abs(held.mean() - 150) < 4 * held.std() / np.sqrt(len(held))


def test_no_sentence_comes_twice_and_none_but_the_unfilled_tail_is_lost() -> None:
    drawn = list(draw(POOL, 1, "mt/all.groups"))
    batches = pack(iter(drawn), POOL, 200, 10**6, micro_batches=4)
    packed = items_of(batches)
    assert len(set(packed)) == len(packed)
    assert set(packed) == set(drawn[: len(packed)])
    tail = sum(int(POOL[code][index, 1]) for code, index in drawn[len(packed) :])
    assert tail < 200


def test_batches_follow_the_draw() -> None:
    drawn = list(draw(POOL, 1, "mt/all.groups"))
    assert items_of(pack(iter(drawn), POOL, 200, 5))[:10] != drawn[:10], "sorted by length within a batch"
    at = 0
    for batch in pack(iter(drawn), POOL, 200, 5):
        assert set(batch.items) == set(drawn[at : at + len(batch.items)])
        at += len(batch.items)


def test_a_sentence_longer_than_T_is_a_batch_of_its_own() -> None:
    sizes = {"cat": np.array([[9, 4], [9, 50], [9, 4], [9, 6], [9, 10]])}
    batches = pack(iter([("cat", i) for i in range(5)]), sizes, 10, 10)
    # 4 is nearer to 10 than 54 is, so the batch closes before the long sentence
    assert [[index for _, index in batch.items] for batch in batches] == [[0], [1], [2, 3], [4]]
    assert [batch.tokens for batch in batches] == [4, 50, 10, 10]


def test_a_crossing_sentence_goes_where_it_brings_the_batch_nearer_to_T() -> None:
    sizes = {"cat": np.array([[1, 8], [1, 5], [1, 8], [1, 3], [1, 7]])}
    batches = pack(iter([("cat", i) for i in range(5)]), sizes, 10, 10)
    # 8 + 5 = 13 is farther from 10 than 8: before. 5 + 8 = 13 is nearer than 5: after. 3 + 7 = 10 is T itself.
    assert [batch.tokens for batch in batches] == [8, 13, 10]


def test_at_most_so_many_batches_as_asked_for() -> None:
    assert len(pack(draw(POOL, 1, "mt/all.groups"), POOL, 100, 7)) == 7


def test_the_last_batch_is_left_out_when_it_is_not_full() -> None:
    sizes = {"cat": np.full((25, 2), 4)}
    batches = pack(iter([("cat", i) for i in range(25)]), sizes, 12, 100)
    assert [batch.tokens for batch in batches] == [12] * 8


@pytest.mark.parametrize("sentences", [0, 1, 5])
def test_too_little_data_is_refused_in_one_line_that_says_what_to_do(sentences: int) -> None:
    sizes = {"nso": np.full((sentences, 2), 4)}
    with pytest.raises(DataError, match=r"^nso: fills [01] batches of 12 target tokens; .*--tokens") as caught:
        pack(draw(sizes, 1, "mt/nso"), sizes, 12, 100)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"fills [01] batches of 1 target tokens; two are needed: add text"):
        pack(iter([("nso", row) for row in range(sentences)][:1]), sizes, 1, 100)


def test_the_halves_of_the_batches_share_no_sentence() -> None:
    batches = pack(draw(POOL, 1, "mt/all.groups"), POOL, 150, 500, micro_batches=4)
    layout = blocks_of(len(batches))
    edge = sum(layout[: len(layout) // 2])
    first, second = items_of(batches[:edge]), items_of(batches[edge:])
    assert first
    assert second
    assert not set(first) & set(second)


# micro-batches


@pytest.mark.parametrize("micro_batches", [1, 2, 4, 7, 100])
def test_the_pieces_of_a_batch_hold_each_of_its_sentences_once(micro_batches: int) -> None:
    drawn = list(draw(POOL, 1, "mt/all.groups"))
    whole = pack(iter(drawn), POOL, 300, 10)
    cut = pack(iter(drawn), POOL, 300, 10, micro_batches=micro_batches)
    for one, several in zip(whole, cut, strict=True):
        assert Counter(one.items) == Counter(several.items)
        assert one.tokens == several.tokens
        assert len(one.micro_batches) == 1
        assert 1 <= len(several.micro_batches) <= micro_batches
        assert all(several.micro_batches)


def padded(batches: list[Batch]) -> int:
    """Cells of the padded source and target matrices of all micro-batches."""
    sizes = [
        np.array([POOL[code][index] for code, index in micro_batch])
        for batch in batches
        for micro_batch in batch.micro_batches
    ]
    return int(sum(len(micro_batch) * micro_batch.max(axis=0).sum() for micro_batch in sizes))


def test_more_pieces_mean_less_padding() -> None:
    cells = [
        padded(pack(draw(POOL, 1, "mt/all.groups"), POOL, 600, 20, micro_batches=micro_batches))
        for micro_batches in (1, 2, 4, 8)
    ]
    assert cells == sorted(cells, reverse=True)
    real = sum(int(POOL[c][i].sum()) for c, i in items_of(pack(draw(POOL, 1, "mt/all.groups"), POOL, 600, 20)))
    assert cells[0] > 2 * real, "a batch of random sentences is mostly padding"
    assert cells[2] - real < (cells[0] - real) / 2


def test_a_piece_holds_sentences_of_like_length_and_about_its_share_of_the_tokens() -> None:
    for batch in pack(draw(POOL, 1, "mt/all.groups"), POOL, 600, 10, micro_batches=4):
        sizes = [np.array([POOL[code][index] for code, index in micro_batch]) for micro_batch in batch.micro_batches]
        for shorter, longer in itertools.pairwise(sizes):
            assert shorter.max() <= longer.max(axis=1).min()
        held = np.array([micro_batch.sum() for micro_batch in sizes])
        assert len(held) == 4
        assert np.abs(held - held.sum() / 4).max() <= 2 * 60


@pytest.mark.parametrize("overhead", [0, 40, 10_000])
def test_no_other_number_of_micro_batches_costs_less(overhead: int) -> None:
    drawn = list(draw(POOL, 1, "mt/all.groups"))

    def cut(count: int | None) -> list[Batch]:
        return pack(iter(drawn), POOL, 300, 10, count, overhead)

    def cost(batch: Batch) -> int:
        return padded([batch]) + overhead * len(batch.micro_batches)

    tried = [[cost(batch) for batch in cut(count)] for count in COUNTS]
    assert [cost(batch) for batch in cut(None)] == np.min(tried, axis=0).tolist()
    assert {len(batch.micro_batches) == 1 for batch in cut(None)} == {overhead == 10_000}


# T


def test_T_is_what_was_asked_for_where_the_data_suffice() -> None:
    assert common_tokens({"cat": np.full((100, 2), 50)}, 100, minimum=40) == 100


def test_T_is_lowered_to_the_smallest_language_in_target_tokens() -> None:
    # Friulian has more sentences and source tokens, but 40 · 15 target tokens
    sizes = {"cat": np.full((100, 2), 50), "fur": np.tile([90, 3], (200, 1))}
    assert common_tokens(sizes, 4096, minimum=40) == 15
    assert common_tokens(sizes, 4096, minimum=20) == 30
    assert common_tokens(sizes, 10, minimum=40) == 10


def test_T_is_at_least_one_token() -> None:
    assert common_tokens({"cat": np.array([[3, 5]])}, 4096) == 1


def test_the_toy_languages_all_fill_their_batches_at_the_common_T() -> None:
    backend = toy.ToyBackend()
    sizes = {code: backend.sizes(code) for code in backend.groups}
    tokens = common_tokens(sizes, 4096)
    assert tokens == int(sizes["nso"][:, 1].sum()) // 40
    for code in sizes:
        batches = pack(draw({code: sizes[code]}, 1, f"mt/{code}"), sizes, tokens, 500)
        # T is what batches hold on average, so the 40 may come out one or two short
        assert len(batches) >= 38
