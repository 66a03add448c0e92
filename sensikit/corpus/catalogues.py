"""Gettext catalogues: the message identifiers are English, the messages are their translations."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from gettext import c2py
from pathlib import Path

from sensikit.languages import ENGLISH, canonical
from sensikit.progress import say

SUFFIXES = (".mo", ".po")
DAMAGE = (OSError, UnicodeDecodeError, ValueError, IndexError, LookupError, struct.error)
"""What a damaged catalogue makes the parser raise."""

MANY = 100
"""A number that takes the general plural in the languages that have several (few, dual, …)."""

_ENTITY = re.compile(r"&#?\w+;")
_IN_BRACKETS = re.compile(r"\s*\([&_~]\w\)")


def tree(directory: Path) -> Iterator[tuple[Path, str]]:
    """Yield each catalogue below `directory` with its language, in a fixed order.

    English ones are passed over, and so is a .po beside its own .mo. Those whose place names no language are passed
    over too, and a line says so.
    """
    unknown: dict[str, None] = {}
    paths = sorted(path for path in directory.rglob("*.[mp]o") if path.is_file())
    # one name in several directories is not that of a language: te/app.po and ur/app.po are not Apma
    often = Counter(name for name, _ in {(path.stem, path.parent) for path in paths})
    for path in paths:
        parent = path.parent.name
        by_folder = parent != "LC_MESSAGES" and often[path.stem] > 1 and canonical(parent)
        code = by_folder or language_of(path)
        compiled = path.suffix == ".po" and path.with_suffix(".mo").exists()
        if code is None:
            unknown[_named(path)] = None
        elif code.split("_")[0] != ENGLISH and not compiled:
            yield path, code
    if unknown:
        say(f"{directory}: no language code, so passed over: catalogues of {', '.join(unknown)}")


def language_of(path: Path) -> str | None:
    """Return the language of ca/LC_MESSAGES/any.mo or of ca.po, or None."""
    return canonical(_named(path))


def _named(path: Path) -> str:
    return path.parent.parent.name if path.parent.name == "LC_MESSAGES" else path.stem


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """Yield English and translation of each message; an untranslated one has an empty translation.

    Of plural forms, the one for 1 belongs to the English singular and the one for many to the plural. Fuzzy and
    obsolete messages are guesses and left-overs: they are none. Accelerators (&File, _File, ~File) are taken out.

    Raises:
        OSError, UnicodeDecodeError, ValueError, LookupError, struct.error: if the file is damaged (see `DAMAGE`).
    """
    import polib

    catalogue = polib.mofile(str(path)) if path.suffix == ".mo" else polib.pofile(str(path))
    one, many = _forms(catalogue.metadata.get("Plural-Forms", ""))
    for entry in catalogue:
        if entry.obsolete or "fuzzy" in entry.flags:
            continue
        if not entry.msgid_plural:
            yield without_accelerators(entry.msgid, entry.msgstr)
            continue
        forms = entry.msgstr_plural
        if one != many:
            yield without_accelerators(entry.msgid, forms.get(one, ""))
        yield without_accelerators(entry.msgid_plural, forms.get(many, ""))


def _forms(header: str) -> tuple[int, int]:
    """Return the indices of the forms for 1 and for many; 0 and 1 where the header does not say."""
    rule = re.search(r"plural\s*=\s*([^;]+)", header)
    try:
        form = c2py(rule.group(1)) if rule else None
        return (form(1), form(MANY)) if form else (0, 1)
    except (ValueError, ArithmeticError):  # a rule such as n/0 too
        return 0, 1


def without_accelerators(english: str, other: str) -> tuple[str, str]:
    """Return both sides without the mark of a keyboard accelerator: &, _ or ~ before a letter.

    A mark counts only if each side has it in exactly one word, and not in the same one: a file_name stays what it is.
    """
    for mark in "&_~":
        found = [_marked(side, mark) for side in (english, other)]
        if found[0] and found[1] and (found[0] != found[1] or found[0].startswith(mark)):
            english, other = (_unmarked(side, mark) for side in (english, other))
    return english, other


def _marked(text: str, mark: str) -> str | None:
    """Return the word that holds the only `mark` before a letter of `text`, or None."""
    text = _ENTITY.sub("", text)
    words = re.findall(rf"\S*{mark}\w\S*", text)
    return words[0] if len(words) == 1 and words[0].count(mark) == 1 else None


def _unmarked(text: str, mark: str) -> str:
    without = _IN_BRACKETS.sub("", text)
    return without if without != text else re.sub(rf"{mark}(?=\w)(?!#?\w+;)", "", text)
