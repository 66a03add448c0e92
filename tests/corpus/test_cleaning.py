import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensikit.corpus.cleaning import (
    LONGEST,
    RATIO,
    SLACK,
    Tally,
    clean,
    fault_of_pair,
    fault_of_sentence,
    fingerprint,
    letters,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two   words ", "two words"),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("no\u00a0break", "no break"),
        ("tab\tand\r\nline", "tab and line"),
        ("para\u2029graph", "para graph"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\ufeffmark", "mark"),
        ("zero\u200bwidth", "zerowidth"),
        ("\u202ebidi\u202c", "bidi"),
        ("bell\x07", "bell"),
        ("private\ue000", "private"),
        ("join\u200der \u0645\u06cc\u200c\u062e", "join\u200der \u0645\u06cc\u200c\u062e"),
        ("a\u2581b", "a b"),
        ("… m² ﬁ", "… m² ﬁ"),
        ("\x00", ""),
    ],
)
def test_text_is_made_uniform(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(st.text())
def test_a_clean_sentence_is_one_line_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned.splitlines()) <= 1
    assert len(cleaned.split()) == len(cleaned.split(" ")) or not cleaned
    assert clean(cleaned) == cleaned


def test_sentences_with_the_same_letters_are_the_same() -> None:
    assert letters("Page 1 of %d") == letters("page 2 of %d!")
    assert letters("ＦＵＬＬ ﬁle") == letters("full file")
    assert letters("Straße") == letters("STRASSE")


def test_vowel_signs_tell_words_apart() -> None:
    assert letters("की") != letters("का")


def test_a_fingerprint_depends_on_letters_and_seed_alone() -> None:
    assert fingerprint("Page 1", 1) == fingerprint("page 2.", 1)
    assert fingerprint("Page 1", 1) != fingerprint("Page 1", 2)
    assert fingerprint("Page 1", 1) != fingerprint("Pages 1", 1)


@pytest.mark.parametrize(
    ("english", "other", "fault"),
    [
        ("A good pair", "Una bona parella", None),
        ("", "Res", "empty side"),
        ("Nothing", "", "empty side"),
        ("1 + 2", "Un", "no letters"),
        ("One", "1.", "no letters"),
        ("Email", "email", "identical sides"),
        ("Version 2.0:", "version 2.1", "identical sides"),
        ("x" * LONGEST, "y" * LONGEST, None),
        ("x" * LONGEST, "y" * (LONGEST + 1), "too long"),
        ("abc", "y" * (3 * RATIO + SLACK), None),
        ("abc", "y" * (3 * RATIO + SLACK + 1), "length ratio"),
        ("y" * (3 * RATIO + SLACK + 1), "abc", "length ratio"),
    ],
)
def test_what_is_wrong_with_a_pair_is_named(english: str, other: str, fault: str | None) -> None:
    assert fault_of_pair(english, other) == fault


@pytest.mark.parametrize(
    ("text", "fault"), [("Bé", None), ("", "empty"), ("12", "no letters"), ("x" * (LONGEST + 1), "too long")]
)
def test_what_is_wrong_with_a_sentence_is_named(text: str, fault: str | None) -> None:
    assert fault_of_sentence(text) == fault


def test_a_tally_counts_every_dropped_line_and_shows_the_first_three() -> None:
    tally = Tally()
    tally.read = 9
    for number in range(5):
        tally.drop("too long", f"{number} " + "x" * 1000)
    tally.drop("no tab", "odd")
    counts = tally.as_dict()
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values()) == 9
    assert counts["dropped"] == {"too long": 5, "no tab": 1}
    assert [example[0] for example in counts["examples"]["too long"]] == ["0", "1", "2"]
    assert max(map(len, counts["examples"]["too long"])) == 200
    assert str(tally) == "3 of 9 lines usable (dropped: 5 too long, 1 no tab)"
