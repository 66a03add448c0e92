"""Files: written beside their place and then renamed, and known by their SHA-256."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensikit.errors import DataError, SensikitError

CHUNK = 1 << 20
SPLITS = {"train": "train", "valid": "valid", "dev": "valid", "test": "test"}
"""What the name of a file calls a split, and what it is called everywhere else."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path` in one step.

    Whatever stood at `path` stays whole until the new file is complete and on disk. On any error,
    a kill included, `path` is as it was.

    Raises:
        SensikitError: if the disk is full or the place cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def appearing(directory: Path) -> Iterator[Path]:
    """Yield a new directory beside `directory`; on success it becomes `directory`, on any error it goes.

    Raises:
        SensikitError: if the disk is full or the place cannot be written.
    """
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in (path for path in partial.rglob("*") if path.is_file()):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        partial.rename(directory)
        sync_directory(directory.parent)
    except OSError as error:
        raise unwritable(directory, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unwritable(path: Path, error: OSError) -> SensikitError:
    """The one-line error for a file that the system refused to write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SensikitError(path, "the disk is full", "free some space or choose another --out")
    problem = error.strerror or str(error)
    return SensikitError(path, f"cannot be written ({problem})", "choose another place")


def unreadable(path: Path, error: OSError) -> DataError:
    """The one-line error for a file of text that the system refused to read."""
    if isinstance(error, FileNotFoundError):
        return DataError(path, "does not exist", "check the path")
    return DataError(path, f"cannot be read ({error.strerror or error})", "check that it is a file you may read")


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut, where the system lets a directory be opened."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` in one step; the same bytes on every system."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` in one step; mappings keep their order, which is the order of languages everywhere."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, kind: type[SensikitError] = SensikitError) -> Any:
    """Return the value stored in `path`; `kind` is raised if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise kind(path, "does not exist", "check the path") from error
    except OSError as error:
        raise kind(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise kind(path, "is not valid JSON", "it is damaged; make it again") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of the bytes of `path`, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of(*parts: str) -> str:
    """Return the SHA-256 of some strings, kept apart from each other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def raw_lines(path: Path) -> Iterator[bytes]:
    """Yield each line of a file, gzipped or not, without its end; only a line feed ends a line.

    Raises:
        DataError: if the file is missing, damaged or empty.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                number += 1
                yield line.rstrip(b"\r\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(path, f"is damaged after line {number} ({error})", "get it again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not number:
        raise DataError(path, "is empty", "leave it out or make it again")


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
