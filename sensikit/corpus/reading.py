"""Where parallel text comes from: TSV, two plain files, gettext catalogues; and text in one language."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from sensikit.corpus import catalogues
from sensikit.errors import DataError, OptionError
from sensikit.files import SPLITS, raw_lines
from sensikit.languages import ENGLISH, canonical, language_in, name_of
from sensikit.progress import say


class Row(NamedTuple):
    """A pair as it was read; `fault` says why it is none, and then `english` is what stood there."""

    english: str
    other: str
    fault: str | None = None


@dataclass(frozen=True)
class Source:
    """Parallel text of one language: a TSV file, a catalogue, or two plain files (English first).

    `split` is train, valid or test where the file's name says so, else None.
    """

    paths: tuple[Path, ...]
    language: str
    split: str | None = None

    def rows(self) -> Iterator[Row]:
        """Yield what stands in it, line by line; two plain files must have equally many."""
        if len(self.paths) == 2:
            return _plain_rows(*self.paths)
        path = self.paths[0]
        return _catalogue_rows(path) if path.suffix in catalogues.SUFFIXES else _tsv_rows(path)


def find(arguments: Sequence[str | Path], languages: Collection[str] | None = None) -> list[Source]:
    """Return the sources that some arguments name, those of `languages` alone if given.

    An argument is a TSV file, the common prefix of two plain files, a catalogue, or a directory of catalogues.

    Raises:
        DataError: if one is missing, is not named after a language other than English, or is the same split as another.
        OptionError: if a language is asked for that no source has.
    """
    found = [source for argument in arguments for source in _sources(str(argument))]
    if not found:
        where = " ".join(map(str, arguments)) or "SOURCE"
        remedy = "give TSV files or catalogues; text such as cat.txt goes to --mono, or to analyze as it is"
        raise DataError(where, "no parallel text", remedy)
    if languages is not None:
        wanted = [canonical(name) or name for name in languages]
        missing = [code for code in wanted if code not in {source.language for source in found}]
        if missing or not wanted:
            problem = f"no source has {missing[0]}" if missing else "names no language"
            there = sorted({source.language for source in found})
            raise OptionError("--languages", problem, f"there are {', '.join(there)}")
        found = [source for source in found if source.language in wanted]
    claimed: dict[tuple[str, str], Source] = {}
    for source in found:
        if source.language == ENGLISH:
            remedy = "name it after the other language; English comes first"
            raise DataError(source.paths[0], "is named after English", remedy)
        if source.split and (other := claimed.setdefault((source.language, source.split), source)) is not source:
            problem = f"is the {source.split} split of {source.language}, and so is {other.paths[0]}"
            raise DataError(source.paths[0], problem, "leave one of them out")
    return found


def _sources(argument: str) -> list[Source]:
    path = Path(argument)
    if path.is_dir():
        return [Source((file,), code) for file, code in catalogues.tree(path)]
    if pair := _plain_pair(argument):
        return [pair]
    if not path.exists():
        remedy = "give a file, a directory of catalogues, or the prefix of PREFIX.cat and PREFIX.eng"
        raise DataError(path, "does not exist", remedy)
    if not path.is_file():
        raise DataError(path, "is not a regular file", "give a file, or a directory of catalogues")
    if path.suffix in catalogues.SUFFIXES:
        return [Source((path,), catalogues.language_of(path) or _nameless(path))]
    parts = _parts(path)
    if "tsv" not in parts:
        remedy = "give LANG.tsv, the prefix of PREFIX.cat and PREFIX.eng, or a .po or .mo file"
        raise DataError(path, "is of no known kind", remedy)
    return [Source((path,), language_of(path), _split(parts))]


def language_of(path: Path) -> str:
    """Return the language that a file such as cat.train.tsv.gz is named after."""
    code = canonical(_parts(path)[0]) or _nameless(path)
    if language_in(_parts(path)[0]) is None:  # a code that is a word too, such as all or dev
        say(f"{path}: read as {name_of(code)}, whose code is {code}")
    return code


def _nameless(path: Path) -> str:
    raise DataError(path, "has no language in its name", "call it after its language, such as cat.tsv or cat.train.tsv")


def _parts(path: Path) -> list[str]:
    return path.name.removesuffix(".gz").split(".")


def _split(parts: Sequence[str]) -> str | None:
    return next((SPLITS[part] for part in parts if part in SPLITS), None)


def _plain_pair(prefix: str) -> Source | None:
    """Return the pair of a prefix such as news.cat-eng or OPUS's GNOME.ca-en, or None; each side keeps its spelling."""
    parts = Path(prefix).name.split(".")
    pair = next((part.split("-") for part in parts if re.fullmatch(r"\w+-\w+", part)), None)
    codes = [canonical(side) for side in pair or ()]
    if not pair or codes.count(ENGLISH) != 1:
        return None
    if codes[0] != ENGLISH:
        pair, codes = pair[::-1], codes[::-1]
    paths = [_plain_file(f"{prefix}.{side}") for side in pair]
    if paths == [None, None]:
        return None
    for path, side in zip(paths, pair, strict=True):
        if path is None:
            raise DataError(f"{prefix}.{side}", "does not exist", "a prefix needs both of its sides")
    english, other = (path for path in paths if path)
    return Source((english, other), codes[1] or _nameless(other), _split(parts))


def _plain_file(name: str) -> Path | None:
    return next((path for path in (Path(name), Path(f"{name}.gz")) if path.is_file()), None)


def lines(path: Path) -> Iterator[Row]:
    """Return each line of a UTF-8 file, gzipped or not, as the English side of a row."""
    return map(_decoded, raw_lines(path))


def _decoded(line: bytes) -> Row:
    try:
        return Row(line.decode(), "")
    except UnicodeDecodeError:
        return Row(line.decode(errors="backslashreplace"), "", "undecodable bytes")


def _tsv_rows(path: Path) -> Iterator[Row]:
    for row in lines(path):
        columns = row.english.split("\t")
        if row.fault or len(columns) != 2:
            yield Row(row.english, "", row.fault or ("no tab" if len(columns) == 1 else "more than one tab"))
        else:
            yield Row(columns[0], columns[1])


def _plain_rows(english_path: Path, other_path: Path) -> Iterator[Row]:
    for number, (english, other) in enumerate(zip_longest(lines(english_path), lines(other_path)), 1):
        if english is None or other is None:
            shorter, longer = (english_path, other_path) if english is None else (other_path, english_path)
            raise DataError(shorter, f"ends before line {number} of {longer}", "the two must have the same lines")
        if fault := english.fault or other.fault:
            yield Row(f"{english.english} | {other.english}", "", fault)
        else:
            yield Row(english.english, other.english)


def _catalogue_rows(path: Path) -> Iterator[Row]:
    try:
        for english, other in catalogues.messages(path):
            yield Row(english, other)
    except catalogues.DAMAGE as error:
        yield Row(f"{path.name}: {error}", "", "unreadable catalogue")
