"""A directory of binarised text: which files it has, what they hash to, and the raw text beside them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sensikit.errors import DataError
from sensikit.files import read_json, sha256, sha256_of

SPLITS = ("train", "valid", "test")
_MAGIC = b"MMIDIDX\x00\x00"


@dataclass(frozen=True)
class DataBin:
    """What `sensikit corpus` wrote (with a manifest and raw text), or a bare fairseq data directory.

    `root` is the directory that was given, `bin` the one with dict.LANG.txt and the binarised pairs.
    """

    root: Path
    bin: Path
    manifest: dict[str, Any] = field(default_factory=dict)

    def dictionary(self, language: str) -> Path:
        """Return the dictionary of `language`.

        Raises:
            DataError: if there is none.
        """
        path = self.bin / f"dict.{language}.txt"
        if not path.is_file():
            raise DataError(path, "does not exist", f"does {self.root} hold the data of this checkpoint?")
        return path

    def prefix(self, split: str, source: str, target: str) -> Path | None:
        """Return the common start of the files of a pair, whichever way round it is named, or None if there are none."""
        for first, second in ((source, target), (target, source)):
            path = self.bin / f"{split}.{first}-{second}."
            if all(Path(f"{path}{lang}.{end}").is_file() for lang in (source, target) for end in ("idx", "bin")):
                return path
        return None

    def counts(self, source: str, target: str) -> dict[str, int]:
        """Return sentence pairs by split, of those splits that exist.

        Raises:
            DataError: if no split has the pair, or an index is damaged.
        """
        found = {split: self.prefix(split, source, target) for split in SPLITS}
        counts = {split: _length(Path(f"{prefix}{source}.idx")) for split, prefix in found.items() if prefix}
        if not counts:
            raise DataError(
                self.root, f"has no binarised {source}-{target}", "give the data that the checkpoint was trained on"
            )
        return counts

    def text(self, split: str, source: str, target: str, language: str) -> Path | None:
        """Return the raw text of one side of a pair, or None if there is none."""
        names = (f"{split}.{a}-{b}.{language}" for a, b in ((source, target), (target, source)))
        return next((path for name in names if (path := self.root / "text" / name).is_file()), None)

    def fingerprint(self, pairs: Iterable[tuple[str, str]]) -> str:
        """Return one SHA-256 of all files that the pairs are read from: dictionaries, binarised splits, held-out text.

        Raises:
            DataError: if a file is not what the manifest says it was.
        """
        noted = self.manifest.get("files")
        known = noted if isinstance(noted, dict) else {}
        parts = []
        for path in sorted(self._files(pairs)):
            name = path.relative_to(self.root).as_posix()
            digest = sha256(path)
            if known.get(name, digest) != digest:
                raise DataError(
                    path, "is not what the manifest says it was", "make the data again with sensikit corpus"
                )
            parts.append(f"{path.name}={digest}")
        return sha256_of(*parts)

    def _files(self, pairs: Iterable[tuple[str, str]]) -> set[Path]:
        files = set()
        for source, target in pairs:
            files |= {self.dictionary(source), self.dictionary(target)}
            for split in SPLITS:
                if prefix := self.prefix(split, source, target):
                    files |= {Path(f"{prefix}{lang}.{end}") for lang in (source, target) for end in ("idx", "bin")}
            texts = (self.text(split, source, target, lang) for split in ("valid", "test") for lang in (source, target))
            files |= {path for path in texts if path}
        return files


def open_data(path: Path) -> DataBin:
    """Return the data directory at `path`.

    Raises:
        DataError: if it is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(path, "is not a directory" if path.exists() else "does not exist", "give a data directory")
    if (path / "manifest.json").is_file():
        manifest = read_json(path / "manifest.json", DataError)
        if not isinstance(manifest, dict) or not isinstance(manifest.get("languages", {}), dict):
            raise DataError(path / "manifest.json", "is not a manifest of sensikit corpus", "make the data again")
        return DataBin(path, path / "bin", manifest)
    if not any(path.glob("dict.*.txt")):
        inside = any(path.glob("bin/dict.*.txt"))
        remedy = f"give {path / 'bin'}" if inside else "give what sensikit corpus or fairseq-preprocess wrote"
        raise DataError(path, "has no manifest.json and no dict.LANG.txt", remedy)
    return DataBin(path, path)


def _length(index: Path) -> int:
    """Return how many sentences a memory-mapped index counts."""
    with index.open("rb") as file:
        start = file.read(26)
    if len(start) < 26 or start[:9] != _MAGIC:
        raise DataError(index, "is not an index of --dataset-impl mmap", "binarise the text again")
    return int(struct.unpack("<Q", start[18:26])[0])


def lines(path: Path) -> list[str]:
    """Return the lines of a text file; only a line feed ends a line, as in the tools that made it.

    Raises:
        DataError: if it is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(path, "is not UTF-8 text", "make the data again") from error
    parts = text.split("\n")
    return parts[:-1] if parts[-1] == "" else parts
