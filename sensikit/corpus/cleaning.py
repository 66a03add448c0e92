"""One line at a time: made uniform, judged, and counted by what is wrong with it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from typing import Any

LONGEST = 1000
"""Characters of the longest sentence: it cannot have more pieces than the 1,024 positions of a fairseq model."""

RATIO, SLACK = 4, 10
"""A side may have `RATIO` times the characters of the other and `SLACK` more: short strings vary most."""

EXAMPLES = 3
"""Lines that are shown of each kind of fault, and the characters that are shown of each."""
EXAMPLE_LENGTH = 200


class _Visible(dict[int, str | int | None]):
    """What becomes of a character, filled as characters are met."""

    def __missing__(self, point: int) -> str | int | None:
        character = chr(point)
        category = unicodedata.category(character)
        if character == "▁" or character.isspace():
            self[point] = " "  # SentencePiece writes spaces as ▁, so it is one
        elif category in ("Cc", "Cs", "Co") or (category == "Cf" and character not in "\u200c\u200d"):
            self[point] = None  # the two joiners are spelling, in Persian as in Hindi
        else:
            self[point] = point
        return self[point]


class _Letters(dict[int, int | None]):
    """Keeps letters and their marks, drops the rest."""

    def __missing__(self, point: int) -> int | None:
        self[point] = point if unicodedata.category(chr(point))[0] in "LM" else None
        return self[point]


_VISIBLE, _LETTERS = _Visible(), _Letters()


def clean(text: str) -> str:
    """Return `text` in NFC, without control characters, with single spaces and none at the ends.

    NFC, not NFKC: the text stays what its translators wrote (… is not three dots, m² not m2), and pieces decode to it
    exactly, so that references and hypotheses are written alike.
    """
    if "▁" in text or not text.isprintable():
        text = text.translate(_VISIBLE)
    return " ".join(unicodedata.normalize("NFC", text).split())


@lru_cache(maxsize=4)
def letters(text: str) -> str:
    """Return the letters of `text` in one case, without compatibility variants: what makes two sentences the same.

    Digits, spaces and punctuation are left out: "Page 1 of %d" and "page 2 of %d!" are one sentence.
    """
    return unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS)


def fingerprint(text: str, seed: int) -> bytes:
    """Return 16 bytes that stand for the letters of `text`; in their order, sentences are shuffled by the seed."""
    return blake2b(letters(text).encode(), digest_size=16, key=str(seed).encode()).digest()


def fault_of_sentence(text: str) -> str | None:
    """Return what is wrong with a cleaned sentence that stands alone, or None."""
    if not text:
        return "empty"
    if len(text) > LONGEST:
        return "too long"
    return None if letters(text) else "no letters"


def fault_of_pair(english: str, other: str) -> str | None:
    """Return what is wrong with a cleaned pair, or None."""
    if not english or not other:
        return "empty side"
    if not letters(english) or not letters(other):
        return "no letters"
    if letters(english) == letters(other):
        return "identical sides"
    shorter, longer = sorted((len(english), len(other)))
    if longer > LONGEST:
        return "too long"
    return "length ratio" if longer > RATIO * shorter + SLACK else None


class Tally:
    """Lines read, kept and dropped, by reason and with examples: read = kept + all dropped."""

    def __init__(self) -> None:
        self.read = 0
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    @property
    def kept(self) -> int:
        """How many lines are still there."""
        return self.read - self.dropped.total()

    def drop(self, reason: str, line: str) -> None:
        """Count a line as dropped."""
        self.dropped[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(line[:EXAMPLE_LENGTH])

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as they stand in the manifest."""
        return {"read": self.read, "kept": self.kept, "dropped": dict(self.dropped), "examples": self.examples}

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())
        return f"{self.kept} of {self.read} lines usable" + (f" (dropped: {reasons})" if reasons else "")
