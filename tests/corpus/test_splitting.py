import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensikit.corpus.cleaning import fingerprint
from sensikit.corpus.splitting import Pair, Sentence, Texts, split
from sensikit.errors import DataError
from tests.support.corpus_text import english, translated

DEFAULT: dict[str, int | None] = {"valid": None, "test": None}


def sentence(text: str, seed: int = 1) -> Sentence:
    return Sentence(text, fingerprint(text, seed))


def pair(one: str, code: str = "cat", seed: int = 1) -> Pair:
    return Pair(sentence(one, seed), sentence(translated(one, code), seed))


def texts_of(pairs: dict[str, list[Pair]], mono: list[Sentence] | None = None) -> Texts:
    texts = Texts()
    texts.pairs.update({part: list(each) for part, each in pairs.items()})
    texts.tally.read = sum(map(len, pairs.values()))
    texts.mono["train"] = list(mono or [])
    texts.mono_tally.read = len(mono or [])
    return texts


def keys(texts: Texts, part: str) -> set[bytes]:
    return {each.key for one in texts.pairs[part] for each in one}


def sizes(texts: Texts) -> dict[str, int]:
    return {part: len(pairs) for part, pairs in texts.pairs.items()}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12))
def test_no_held_out_sentence_is_in_any_training_set(seed: int, valid: int, test: int) -> None:
    draw = random.Random(seed)
    shared = english(160, seed)
    corpora = {
        code: texts_of(
            {"train": [pair(one, code, seed) for one in draw.sample(shared, draw.randint(60, 150))]},
            [sentence(translated(one, code), seed) for one in draw.sample(shared, 50)],
        )
        for code in ("cat", "glg", "isl")
    }
    corpora["eng"] = texts_of({}, [sentence(one, seed) for one in shared])
    split(corpora, {"valid": valid, "test": test})
    tests = set().union(*(keys(each, "test") for each in corpora.values()))
    valids = set().union(*(keys(each, "valid") for each in corpora.values()))
    trained = set().union(*(keys(each, "train") for each in corpora.values()))
    trained |= {each.key for one in corpora.values() for each in one.mono["train"]}
    assert not tests & valids
    assert not (tests | valids) & trained
    for code in ("cat", "glg", "isl"):
        assert sizes(corpora[code])["valid"] == valid
        assert sizes(corpora[code])["test"] == test
    for each in corpora.values():
        assert each.tally.kept == sum(sizes(each).values())
        assert each.mono_tally.kept == sum(map(len, each.mono.values()))


def test_english_held_out_for_one_language_leaves_the_training_text_of_all() -> None:
    shared = english(100)
    corpora = {
        "cat": texts_of({"train": [pair(one) for one in shared[:80]], "test": [pair(one) for one in shared[80:]]}),
        "glg": texts_of({"train": [pair(one, "glg") for one in shared]}),
    }
    split(corpora, {"valid": 5, "test": 10})
    held = {each.english.key for each in corpora["cat"].pairs["test"]}
    assert held == {sentence(one).key for one in shared[80:]}
    assert not held & {each.english.key for each in corpora["glg"].pairs["train"]}
    assert corpora["glg"].tally.dropped["held out"] > 0


def test_the_translation_of_a_held_out_sentence_leaves_training_too() -> None:
    shared = english(60)
    other_english = Pair(sentence("Entirely different words here"), sentence(translated(shared[0], "cat").upper()))
    texts = texts_of({"train": [*map(pair, shared[1:]), other_english], "test": [pair(shared[0])]})
    split({"cat": texts}, {"valid": 5, "test": None})
    assert other_english not in texts.pairs["train"] + texts.pairs["valid"]


def test_a_given_split_is_respected_and_training_cleared_of_it() -> None:
    shared = english(60)
    given_test, given_valid = [pair(one) for one in shared[:10]], [pair(one) for one in shared[8:20]]
    texts = texts_of({"train": [pair(one) for one in shared], "valid": given_valid, "test": given_test})
    split({"cat": texts}, {"valid": 3, "test": 3})
    assert texts.pairs["test"] == given_test
    assert texts.pairs["valid"] == given_valid[2:]
    assert texts.pairs["train"] == [pair(one) for one in shared[20:]]
    assert texts.tally.dropped == {"held out": 22}


def test_duplicates_are_dropped_on_both_sides_and_held_out_text_stays_held_out() -> None:
    shared = english(60)
    same_english = Pair(sentence(shared[0].upper() + " 12"), sentence("Another translation"))
    same_other = Pair(sentence("Another source"), pair(shared[1]).other)
    texts = texts_of({"train": [*map(pair, shared), same_english, same_other], "test": [pair(shared[2])]})
    split({"cat": texts}, {"valid": 5, "test": None})
    kept = [each for part in texts.pairs.values() for each in part]
    assert len(kept) == len(shared)
    assert same_english not in kept
    assert same_other not in kept
    assert texts.pairs["test"] == [pair(shared[2])]
    assert texts.tally.dropped == {"duplicate": 2, "held out": 1}


def test_languages_with_the_same_english_hold_out_the_same_of_it() -> None:
    shared = english(400)
    corpora = {code: texts_of({"train": [pair(one, code) for one in shared]}) for code in ("cat", "isl")}
    split(corpora, {"valid": 20, "test": 40})
    for part in ("valid", "test"):
        assert keys(corpora["cat"], part) & {sentence(one).key for one in shared} == keys(corpora["isl"], part) & {
            sentence(one).key for one in shared
        }
    assert not corpora["cat"].tally.dropped


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_lines() -> None:
    shared = english(200)

    def tests(lines: list[str], seed: int) -> set[str]:
        texts = texts_of({"train": [pair(one, "cat", seed) for one in lines]})
        split({"cat": texts}, DEFAULT)
        return {each.english.text for each in texts.pairs["test"]}

    assert tests(shared, 1) == tests(shared[::-1], 1)
    assert tests(shared, 1) != tests(shared, 2)


@pytest.mark.parametrize(("lines", "valid", "test"), [(100, 4, 10), (20, 1, 2), (12_000, 500, 1_000)])
def test_by_default_a_share_is_held_out_up_to_a_limit(lines: int, valid: int, test: int) -> None:
    pairs = [Pair(*(Sentence(f"{side}{n}", f"{side}{n}".encode()) for side in "ex")) for n in range(lines)]
    texts = texts_of({"train": pairs})
    split({"cat": texts}, DEFAULT)
    assert sizes(texts) == {"train": lines - valid - test, "valid": valid, "test": test}


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_too_little_to_split_is_refused(lines: int) -> None:
    texts = texts_of({"train": [pair(one) for one in english(lines)]})
    texts.tally.read += 3
    texts.tally.dropped["no tab"] = 3
    with pytest.raises(DataError, match=r"cat: .* too few .* lines usable \(dropped: 3 no tab\)"):
        split({"cat": texts}, DEFAULT)


def test_more_than_half_is_never_held_out() -> None:
    with pytest.raises(DataError, match="60 training pairs are too few to hold out 31 for test"):
        split({"cat": texts_of({"train": [pair(one) for one in english(60)]})}, {"valid": 1, "test": 31})


def test_training_text_that_is_all_held_out_is_refused() -> None:
    pairs = [pair(one) for one in english(10)]
    with pytest.raises(DataError, match="nothing is left to train on"):
        split({"cat": texts_of({"train": pairs, "valid": pairs[:5], "test": pairs[5:]})}, DEFAULT)


def test_some_text_without_translation_is_held_out_that_no_training_pair_has() -> None:
    shared = english(400)
    texts = texts_of(
        {"train": [pair(one) for one in shared[:200]]}, [sentence(translated(one, "cat")) for one in shared[:390]]
    )
    split({"cat": texts}, {"valid": 10, "test": 20})
    valid = {each.key for each in texts.mono["valid"]}
    assert len(valid) == 10
    assert not valid & keys(texts, "train")
    assert not valid & {each.key for each in texts.mono["train"]}
    assert texts.mono_tally.dropped == {"held out": 30}


def test_duplicate_text_without_translation_is_dropped() -> None:
    texts = texts_of(
        {"train": [pair(one) for one in english(60)]}, [sentence("Once"), sentence("once 2"), sentence("Two")]
    )
    split({"cat": texts}, DEFAULT)
    assert [each.text for each in texts.mono["train"]] == ["Once", "Two"]
    assert texts.mono_tally.dropped == {"duplicate": 1}


def test_a_given_validation_set_loses_nothing_to_a_drawn_test_set() -> None:
    shared = english(60)
    given_valid = [pair(one) for one in shared[:25]]
    texts = texts_of({"train": [pair(one) for one in shared], "valid": given_valid})
    split({"cat": texts}, {"valid": None, "test": 15})
    assert texts.pairs["valid"] == given_valid
    assert sizes(texts) == {"train": 20, "valid": 25, "test": 15}
