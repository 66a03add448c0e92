"""Training, validation and test text: drawn by a seed, and no held-out sentence anywhere in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from sensikit.corpus.cleaning import Tally
from sensikit.errors import DataError

LEAVE_OUT = "give it more text, or name the other languages with --languages"
HELD_OUT = ("test", "valid")  # in this order: what is in a test set is no validation text either
SHARES = {"valid": 0.05, "test": 0.1}
MOST = {"valid": 500, "test": 1000}
"""Held out where nobody says how much: a share of the language's pairs, and at most so many."""


class Sentence(NamedTuple):
    """Text and the fingerprint of its letters."""

    text: str
    key: bytes


class Pair(NamedTuple):
    """An English sentence and its translation."""

    english: Sentence
    other: Sentence


Item = TypeVar("Item", Pair, Sentence)


@dataclass
class Texts:
    """What one language has: pairs by split, sentences without a translation, and what was dropped of both."""

    pairs: dict[str, list[Pair]] = field(default_factory=lambda: {"train": [], "valid": [], "test": []})
    mono: dict[str, list[Sentence]] = field(default_factory=lambda: {"train": [], "valid": []})
    tally: Tally = field(default_factory=Tally)
    mono_tally: Tally = field(default_factory=Tally)


def split(texts: Mapping[str, Texts], sizes: Mapping[str, int | None]) -> None:
    """Draw the missing splits of every language from its training pairs and clear training of what is held out.

    Drawn are the sentences that come first in the order of their fingerprints. That order is the same in all
    languages, so that languages which share their English hold out the same of it. A sentence of a test set, English or
    not, of whatever language, is in no validation or training set, and one of a validation set in no training set;
    sentences without a translation are treated alike.

    Args:
        texts: by language; changed in place, and what is taken away is counted as "duplicate" or "held out".
        sizes: pairs of "valid" and "test" for languages that have none; None for the shares above.

    Raises:
        DataError: if a language has too little.
    """
    for each in texts.values():
        # of each English sentence, and of each translation, the first pair in a split stays
        for part, pairs in each.pairs.items():
            each.pairs[part] = _sifted(pairs, _repeated(), each.tally, "duplicate")
        each.mono["train"] = _sifted(each.mono["train"], _repeated(), each.mono_tally, "duplicate")
    for part in HELD_OUT:
        _clear(texts, part)
    for part in HELD_OUT:
        for code, each in texts.items():
            if each.tally.read and not each.pairs[part]:
                _draw(code, each, part, sizes.get(part))
        _clear(texts, part)
    for code, each in texts.items():
        if each.tally.read and not each.pairs["train"]:
            raise DataError(code, f"nothing is left to train on: {each.tally}", LEAVE_OUT)
    _split_mono(texts, sizes.get("valid"))


def _repeated() -> Callable[[Pair | Sentence], bool]:
    """Return a test that says of each pair (or sentence) whether either side was in one that passed before."""
    seen: tuple[set[bytes], set[bytes]] = (set(), set())

    def repeated(item: Pair | Sentence) -> bool:
        keys = _keys(item)
        if any(key in side for key, side in zip(keys, seen, strict=False)):
            return True
        for key, side in zip(keys, seen, strict=False):
            side.add(key)
        return False

    return repeated


def _draw(code: str, texts: Texts, part: str, size: int | None) -> None:
    pairs = texts.pairs["train"]
    if size is None:
        size = max(1, min(MOST[part], int(len(pairs) * SHARES[part])))
    if size > len(pairs) // 2:
        problem = f"{len(pairs)} training pairs are too few to hold out {size} for {part}: {texts.tally}"
        raise DataError(code, problem, f"lower --{part}, {LEAVE_OUT}")
    drawn = {pair.english.key for pair in sorted(pairs, key=lambda pair: pair.english.key)[:size]}
    texts.pairs[part] = [pair for pair in pairs if pair.english.key in drawn]
    texts.pairs["train"] = [pair for pair in pairs if pair.english.key not in drawn]


def _clear(texts: Mapping[str, Texts], part: str) -> None:
    """Take what is in `part` of any language out of the splits before it, of all languages."""
    held = {key for each in texts.values() for pair in each.pairs[part] for key in _keys(pair)}

    def leaks(item: Pair | Sentence) -> bool:
        return not held.isdisjoint(_keys(item))

    for each in texts.values():
        for earlier in ("valid", "train") if part == "test" else ("train",):
            each.pairs[earlier] = _sifted(each.pairs[earlier], leaks, each.tally, "held out")
        each.mono["train"] = _sifted(each.mono["train"], leaks, each.mono_tally, "held out")


def _sifted(items: list[Item], unwanted: Callable[[Item], bool], tally: Tally, reason: str) -> list[Item]:
    """Return the wanted items; the others are counted."""
    kept = []
    for item in items:
        if unwanted(item):
            tally.drop(reason, item.text if isinstance(item, Sentence) else " | ".join(side.text for side in item))
        else:
            kept.append(item)
    return kept


def _keys(item: Pair | Sentence) -> tuple[bytes, ...]:
    return (item.key,) if isinstance(item, Sentence) else (item.english.key, item.other.key)


def _split_mono(texts: Mapping[str, Texts], size: int | None) -> None:
    """Hold out some of the sentences without a translation, none of which any training pair has."""
    trained = {sentence.key for each in texts.values() for pair in each.pairs["train"] for sentence in pair}
    for each in texts.values():
        sentences = each.mono["train"]
        number = min(MOST["valid"] if size is None else size, int(len(sentences) * SHARES["valid"]))
        free = sorted(sentence.key for sentence in sentences if sentence.key not in trained)
        drawn = set(free[:number])
        each.mono = {
            "train": [sentence for sentence in sentences if sentence.key not in drawn],
            "valid": [sentence for sentence in sentences if sentence.key in drawn],
        }
