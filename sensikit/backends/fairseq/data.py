"""A directory of binarised text: which files it has, what they hash to, and the raw text beside them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sensikit.backends.manifest import digest, read_manifest
from sensikit.errors import DataError
from sensikit.files import lines, sha256_of

SPLITS = ("train", "valid", "test")
HEADER = 26
"""Bytes before the sizes (int32) and offsets (int64) of the sentences in an index file."""
_MAGIC = b"MMIDIDX\x00\x00"
_TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16, 9: np.uint32, 10: np.uint64}
"""Codes of fairseq's index files; 6 and 7 are floating point."""


@dataclass(frozen=True)
class DataBin:
    """What `sensikit corpus` wrote (with a manifest and raw text), or a bare fairseq data directory.

    `root` is the directory that was given, `bin` the one with dict.LANG.txt and the binarised pairs.
    """

    root: Path
    bin: Path
    manifest: dict[str, Any] = field(default_factory=dict)

    def dictionary(self, language: str) -> Path:
        """Return the dictionary of `language`, which is there and is text."""
        path = self.bin / f"dict.{language}.txt"
        if not path.is_file():
            raise DataError(path, "does not exist", f"does {self.root} hold the data of this checkpoint?")
        lines(path)
        return path

    def prefix(self, split: str, source: str, target: str) -> Path | None:
        """Return the common start of a pair's files, whichever way round it is named, or None if there are none."""
        for first, second in ((source, target), (target, source)):
            path = self.bin / f"{split}.{first}-{second}."
            if all(each.is_file() for lang in (source, target) for each in files_of(f"{path}{lang}")):
                return path
        return None

    def monolingual(self, languages: Iterable[str]) -> dict[str, Path]:
        """Return the start of the two files of extra monolingual text of each language that has any."""
        stems = {language: self.bin / "mono" / f"mono.{language}" for language in languages}
        return {language: stem for language, stem in stems.items() if all(each.is_file() for each in files_of(stem))}

    def counts(self, source: str, target: str) -> dict[str, int]:
        """Return sentence pairs by split, of those splits that exist; refuse a second training set, train1."""
        if more := self.prefix("train1", source, target):
            problem = "is a second training set, which fairseq-train reads with the first, and sensikit does not"
            remedy = "join the text of both and binarise it again, or take these files away"
            raise DataError(f"{more}*", problem, remedy)
        found = {split: self.prefix(split, source, target) for split in SPLITS}
        return {split: _header(Path(f"{prefix}{source}.idx"))[0] for split, prefix in found.items() if prefix}

    def check(self, stem: Path, vocabulary: int) -> int:
        """Return the sentences of one binarised side; refuse one that is damaged, empty or of another `vocabulary`."""
        index, tokens = files_of(stem)
        count, code = _header(index)
        if count == 0:
            raise DataError(index, "holds no sentences", "choose another split or language")
        kind = _TYPES.get(code)
        if kind is None or index.stat().st_size != HEADER + 12 * count:
            raise DataError(index, "is truncated or damaged", "binarise the text again")
        sizes = np.fromfile(index, dtype=np.int32, count=count, offset=HEADER)
        if (sizes < 1).any() or tokens.stat().st_size != int(sizes.sum(dtype=np.int64)) * np.dtype(kind).itemsize:
            raise DataError(tokens, "has another length than its index says", "binarise the text again")
        starts = np.fromfile(index, dtype=np.int64, count=count, offset=HEADER + 4 * count)
        ends = np.cumsum(sizes, dtype=np.int64) * np.dtype(kind).itemsize
        if starts[0] != 0 or (starts[1:] != ends[:-1]).any():
            raise DataError(index, "has sentences that do not follow each other", "binarise the text again")
        values = np.memmap(tokens, dtype=kind, mode="r")
        if int(values.max()) >= vocabulary or int(values.min()) < 0:
            problem = f"has tokens beyond the dictionary's {vocabulary}"
            raise DataError(tokens, problem, "give the data of this checkpoint")
        return count

    def text(self, split: str, source: str, target: str, language: str) -> Path | None:
        """Return the raw text of one side of a pair, or None if there is none."""
        names = (f"{split}.{a}-{b}.{language}" for a, b in ((source, target), (target, source)))
        return next((path for name in names if (path := self.root / "text" / name).is_file()), None)

    def fingerprint(self, pairs: Iterable[tuple[str, str]]) -> str:
        """Return one SHA-256 of all files that pairs are read from: dictionaries, binarised splits, held-out text."""
        files = set()
        for source, target in pairs:
            files |= {self.dictionary(source), self.dictionary(target)}
            for split in SPLITS:
                if prefix := self.prefix(split, source, target):
                    files |= {each for lang in (source, target) for each in files_of(f"{prefix}{lang}")}
            texts = (self.text(split, source, target, lang) for split in ("valid", "test") for lang in (source, target))
            files |= {path for path in texts if path}
        return sha256_of(*(f"{path.name}={self.digest(path)}" for path in sorted(files)))

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file of the data, which is what the manifest says it was."""
        return digest(path, self.root, self.manifest)


def files_of(stem: str | Path) -> tuple[Path, Path]:
    """Return the index and the tokens of one binarised side."""
    return Path(f"{stem}.idx"), Path(f"{stem}.bin")


def open_data(path: Path) -> DataBin:
    """Return the data directory at `path`; DATA/bin of what `sensikit corpus` wrote is DATA, with text and names."""
    path = Path(path)
    if not path.exists() and any(Path(part).is_dir() for part in str(path).split(":")):
        raise DataError(path, "is several directories, as fairseq takes shards", "binarise their text into one")
    manifest = read_manifest(path)
    if manifest is not None:
        if not (path / "bin").is_dir():
            raise DataError(path, "is text that is not binarised", "make the data again, without --no-binarise")
        return DataBin(path, path / "bin", manifest)
    if path.name == "bin" and read_manifest(path.parent) is not None:
        return open_data(path.parent)
    if not any(path.glob("dict.*.txt")):
        inside = any(path.glob("bin/dict.*.txt"))
        remedy = f"give {path / 'bin'}" if inside else "give what sensikit corpus or fairseq-preprocess wrote"
        raise DataError(path, "has no manifest.json and no dict.LANG.txt", remedy)
    return DataBin(path, path)


def _header(index: Path) -> tuple[int, int]:
    """Return how many sentences a memory-mapped index counts, and the code of the type of its tokens."""
    with index.open("rb") as file:
        start = file.read(HEADER)
    if len(start) < HEADER or start[:9] != _MAGIC:
        raise DataError(index, "is not an index of --dataset-impl mmap", "binarise the text again")
    return int(struct.unpack("<Q", start[18:])[0]), start[17]
