"""A folder of text: which languages and pairs it has in which splits, read as lines that the model tokenises itself.

A file is understood by its name: SPLIT.SRC-TGT.LANG (two of them), LANG.SPLIT.tsv (English first) or SPLIT.SRC-TGT.tsv,
SPLIT.LANG or LANG.SPLIT.txt, any of them with .gz, and train where no split is named; or FLORES-200's
dev/LANG.dev and devtest/LANG.devtest, which are parallel in all languages.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sensikit.backends.manifest import digest, read_manifest
from sensikit.errors import DataError, OptionError
from sensikit.files import SPLITS, raw_lines, sha256_of, unreadable
from sensikit.languages import ENGLISH, Pair, canonical, common_side, language_in, matching, standard

PARALLEL = ("dev", "devtest")
"""FLORES-200's splits, which are called what their folders are."""
ORDER = ("train", "valid", "dev", "test", "devtest")
_NAMES = {**SPLITS, "mono": "train", "mono-valid": "valid"}
_SUFFIXES = {"bak", "bin", "bpe", "csv", "hyp", "idx", "log", "npy", "ref", "src", "tgt", "tok", "zip"}
"""Codes of languages that are more likely what kind of file it is, at the end of its name."""
_LAYOUTS = "train.cat-fra.cat and train.cat-fra.fra, cat.train.tsv, train.cat-fra.tsv, cat.txt, or dev/cat_Latn.dev"
_SHOWN = 8


class Column(NamedTuple):
    """Text of one language: all of a file, or what stands before (0) or after (1) the tab in each line of it."""

    path: Path
    place: int | None = None


@dataclass(frozen=True)
class TextData:
    """A folder of text. Languages may be asked for by any spelling, and are returned as the files spell them.

    `texts` has split → columns, by the code of a language alone, or by those of a pair, one column for each. A file
    that `manifest`, which may be empty, names is checked as it is read. `notes` are what a user should know.
    """

    root: Path
    texts: Mapping[tuple[str, ...], Mapping[str, tuple[Column, ...]]]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def languages(self) -> list[str]:
        """Return every language that has text, alone or as one side of a pair."""
        return sorted({code for codes in self.texts for code in codes})

    def code(self, language: str) -> str:
        """Return a language as the files spell it; refuse one that is not there, or a name that fits several."""
        found = matching(language, self.languages())
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(self.root, f"{language} is several of its languages", f"give {' or '.join(found)}")
        raise DataError(self.root, f"has no text in {language}", f"there are {_some(self.languages())}")

    def pairs(self, wanted: Sequence[str] | None = None) -> list[Pair]:
        """Return the pairs that there are, first as the files are named, then the other way round.

        Those that are `wanted`, in alphabetical order: "cat-fra", several joined by +, or a direction such as
        "xxx-fra". Where text is parallel in all languages, some must be.
        """
        named = [(codes[0], codes[1]) for codes in self.texts if len(codes) == 2]
        if wanted is not None:
            parts = [part for each in wanted for part in each.split("+")]
            if not parts:
                raise OptionError("--pairs", "names no pair", f"give {self._hint()}")
            return sorted({pair for part in parts for pair in self._wanted(part)})
        if not named:
            number = sum(not {*PARALLEL}.isdisjoint(splits) for splits in self.texts.values())
            if number > 1:
                problem = f"is needed: the text of {self.root} is parallel in {number} languages"
                raise OptionError("--pairs", problem, "give some, such as cat-fra, or --direction xxx-fra")
            raise DataError(self.root, "has no parallel text", "give text of pairs, or measure languages alone")
        return [*named, *((target, source) for source, target in named)]

    def counts(self, *codes: str) -> dict[str, int]:
        """Return the lines of a pair (source, target), or the sentences of a language, by split."""
        if len(codes) == 1:
            return {split: len(self.sentences(codes[0], split)) for split in self._alone(self.code(codes[0]))}
        source, target = map(self.code, codes)
        return {split: len(self.pair(source, target, split)[0]) for split in self._sides(source, target)}

    def pair(self, source: str, target: str, split: str) -> tuple[list[str], list[str]]:
        """Return the lines of both sides, aligned: every line of the files, "" where a side is blank."""
        codes = self.code(source), self.code(target)
        return self._aligned(*self._split(self._sides(*codes), split, "-".join(codes)))

    def sentences(self, language: str, split: str) -> list[str]:
        """Return the sentences of a language, none of them blank.

        Of text in that language alone, all lines; where the split has none, its side of each pair, every distinct
        sentence once, in the order of first appearance.
        """
        code = self.code(language)
        columns = self._split(self._alone(code), split, code)
        found = [line for column in columns for line in self._lines(column) if line]
        alone = columns in self.texts.get((code,), {}).values()
        return found if alone else list(dict.fromkeys(found))

    def segments(self, codes: Sequence[str], split: str, pairs: Collection[Pair] = ()) -> tuple[list[str], str]:
        """Return what tells apart the lines of `pair`, or of `sentences` of a language alone, and what it is known by.

        Of text that is parallel in all languages, it is the English sentence, or else the line; see
        `sensikit.languages.common_side` for other pairs. Sentences of one language have themselves.

        `codes` are (source, target) or one language, `pairs` all that are looked at.
        """
        own = [self.code(code) for code in codes]
        there = self._alone(own[0]) if len(own) == 1 else self._sides(own[0], own[1])
        columns = self._split(there, split, "-".join(own))
        name = split if split in there else SPLITS.get(split, split)
        if name in PARALLEL and columns == sum((self.texts.get((code,), {}).get(name, ()) for code in own), ()):
            english = [code for code in self.languages() if standard(code) == ENGLISH]
            common = [column for code in english for column in self.texts.get((code,), {}).get(name, ())][:1]
            lines, texts = self._aligned(columns[0], (common or columns)[0])
            texts = texts if common else [f"{name} {row}" for row in range(len(lines))]
            kept = [text for line, text in zip(lines, texts, strict=True) if line or len(own) == 2]
            return kept, ENGLISH if common else "line"
        if len(own) == 1:
            return self.sentences(own[0], split), "own"
        language, known_by = common_side((own[0], own[1]), pairs)
        return self.pair(own[0], own[1], split)[own.index(language)], known_by

    def fingerprint(self, pairs: Iterable[Pair] | None = None) -> str:
        """Return one SHA-256 of all files of text, or of those that pairs are read from: their names and hashes."""
        of = self.texts.values() if pairs is None else (self._sides(*map(self.code, pair)) for pair in pairs)
        files = {column.path for splits in of for columns in splits.values() for column in columns}
        names = {path.relative_to(self.root).as_posix(): path for path in files}
        return sha256_of(*(f"{name}={digest(names[name], self.root, self.manifest)}" for name in sorted(names)))

    def _aligned(self, first: Column, second: Column) -> tuple[list[str], list[str]]:
        """Return the lines of two columns, which must be as many."""
        lines, others = self._lines(first), self._lines(second)
        if len(lines) != len(others):
            problem = f"has {len(lines)} lines, and {second.path.name} has {len(others)}"
            raise DataError(first.path, problem, "the two must have the same lines")
        return lines, others

    def _wanted(self, name: str) -> list[Pair]:
        """Return the pairs of one name, which may be a direction."""
        option = "--direction" if "xxx" in name.split("-") else "--pairs"
        if name.count("-") != 1 or name == "xxx-xxx":
            raise OptionError(option, f"{name!r} is no pair and no direction", f"give {self._hint()}")
        sides = [self.languages() if side == "xxx" else [self.code(side)] for side in name.split("-")]
        pairs = [(source, target) for source in sides[0] for target in sides[1] if self._sides(source, target)]
        if not pairs:
            raise OptionError(option, f"{self.root} has no {name}", f"give {self._hint()}")
        return pairs

    def _hint(self) -> str:
        named = ["-".join(codes) for codes in self.texts if len(codes) == 2]
        return _some(named) if named else f"two of {_some(self.languages())}"

    def _sides(self, source: str, target: str) -> dict[str, tuple[Column, ...]]:
        """Return the two columns of a pair in every split that it has."""
        one, other, named, turned = (
            self.texts.get(codes, {}) for codes in ((source,), (target,), (source, target), (target, source))
        )
        common = [split for split in PARALLEL if split in one and split in other and source != target]
        return _in_order(
            {split: one[split] + other[split] for split in common}
            | {split: columns[::-1] for split, columns in turned.items()}
            | dict(named)
        )

    def _alone(self, code: str) -> dict[str, tuple[Column, ...]]:
        """Return what the sentences of a language are read from in each split."""
        found: dict[str, tuple[Column, ...]] = {}
        for codes, splits in self.texts.items():
            if len(codes) == 2 and code in codes:
                for split, columns in splits.items():
                    found[split] = (*found.get(split, ()), columns[codes.index(code)])
        return _in_order(found | dict(self.texts.get((code,), {})))

    def _split(self, there: Mapping[str, tuple[Column, ...]], split: str, what: str) -> tuple[Column, ...]:
        name = split if split in there else SPLITS.get(split, split)
        if name not in there:
            remedy = f"give --split {' or '.join(there)}" if there else f"give {self._hint()}"
            raise DataError(self.root, f"has no {split} set of {what}", remedy)
        return there[name]

    def _lines(self, column: Column) -> list[str]:
        """Return the text of a column, line by line; "" where it is blank."""
        path, place = column
        if self.manifest:
            digest(path, self.root, self.manifest)
        found = []
        for number, line in enumerate(raw_lines(path), 1):
            if b"\0" in line:
                remedy = "convert it to UTF-8 where it is UTF-16, or leave it out"
                raise DataError(path, f"is not text (there is a NUL in line {number})", remedy)
            try:
                text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode()
            except UnicodeDecodeError as error:
                raise DataError(path, f"is not UTF-8 in line {number}", "convert it to UTF-8") from error
            if place is not None and text.strip():
                columns = text.split("\t")
                if len(columns) != 2:
                    problem = f"has {len(columns)} columns in line {number}"
                    raise DataError(path, problem, "two are wanted, with a tab between them")
                text = columns[place]
            found.append(text if text.strip() else "")
        return found


def open_text(path: Path) -> TextData:
    """Return the folder of text at `path`, with nothing in it read yet but names and the manifest.

    Two files for the same text are refused, and one side of a pair without the other.
    """
    root = Path(path)
    manifest = read_manifest(root)
    found: dict[tuple[frozenset[str], str], dict[str, Column]] = {}
    named: dict[frozenset[str], tuple[str, ...]] = {}
    strays = []
    for file, texts in _understood(root if manifest is None else root / "text"):
        if not texts:
            strays.append(os.fsencode(file.name).decode(errors="replace"))
        for codes, split, code, column in texts:
            named.setdefault(frozenset(codes), codes)
            other = found.setdefault((frozenset(codes), split), {}).setdefault(code, column)
            if other.path != file:
                problem = f"is the {split} set of {'-'.join(codes)}, and so is {other.path.name}"
                raise DataError(file, problem, "leave one of them out")
    if not found:
        raise DataError(root, "has no text that is named in a known way", f"call it {_LAYOUTS}")
    texts_of: dict[tuple[str, ...], dict[str, tuple[Column, ...]]] = {}
    for (languages, split), columns in found.items():
        codes = named[languages]
        for code in languages - set(columns):
            present = next(iter(columns.values())).path
            raise DataError(present, f"has no other side in {code}", "add that file, or leave this one out")
        texts_of.setdefault(codes, {})[split] = tuple(columns[code] for code in codes)
    texts_of = {codes: _in_order(texts_of[codes]) for codes in sorted(texts_of)}
    notes = [f"passed over, not named as text: {_some(strays)}"] if strays else []
    return TextData(root, texts_of, manifest or {}, notes)


_Text = tuple[tuple[str, ...], str, str, Column]
"""The languages that a text belongs to (one, or a pair), its split, its own language, and where it stands."""


def _understood(folder: Path) -> Iterator[tuple[Path, list[_Text]]]:
    """Yield each file of a folder and of FLORES-200's within it, and the text in it; none if its name is not known."""
    within = [name for name in PARALLEL if (folder / name).is_dir()]
    for file in _files(folder):
        if file.name not in within:
            yield file, _texts(file)
    for split in within:
        for file in _files(folder / split):
            others = [part for part in _parts(file) if part != split]
            known = len(others) == 1 and len(_parts(file)) == 2 and canonical(others[0])
            yield file, [((others[0],), split, others[0], Column(file))] if known else []


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def _parts(file: Path) -> list[str]:
    return file.name.removesuffix(".gz").split(".")


def _texts(file: Path) -> list[_Text]:
    """Return the text that a file is named after."""
    *rest, last = _parts(file)
    split = next((_NAMES[part] for part in rest if part in _NAMES), "train")
    pair = next((match.groups() for part in rest if (match := re.fullmatch(r"(\w+)-(\w+)", part))), ("", ""))
    if all(map(language_in, pair)) and pair[0] != pair[1]:
        if last == "tsv":
            return [(pair, split, code, Column(file, place)) for place, code in enumerate(pair)]
        return [(pair, split, last, Column(file))] if last in pair else []
    code = next((part for part in rest if part not in _NAMES), "") if last in ("tsv", "txt") else ""
    if last == "tsv" and language_in(code) not in (None, ENGLISH):
        return [((code, ENGLISH), split, each, Column(file, place)) for place, each in enumerate((ENGLISH, code))]
    if last == "txt" and language_in(code):
        return [((code,), split, code, Column(file))]
    if len(rest) == 1 and rest[0] in _NAMES and language_in(last) and last not in _SUFFIXES | {"tsv", "txt"}:
        return [((last,), split, last, Column(file))]
    return []


def _in_order(splits: Mapping[str, tuple[Column, ...]]) -> dict[str, tuple[Column, ...]]:
    return {split: splits[split] for split in ORDER if split in splits}


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
