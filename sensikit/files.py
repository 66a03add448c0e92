"""Files: written beside their place and then renamed, and known by their SHA-256."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sensikit.errors import DataError, SensikitError

CHUNK = 1 << 20
SPLITS = {"train": "train", "valid": "valid", "dev": "valid", "test": "test"}
"""What the name of a file calls a split, and what it is called everywhere else."""

_NO_NAME = re.compile(r"""[/\\:*?"<>|]|^[.~ ]""")
"""What has a meaning of its own in the name of a file, on one system or another."""


def safe_name(text: str) -> str:
    """Return text of unknown origin as one part of a path: itself where it may be, else cleaned, with a hash of it.

    >>> safe_name("cat-fra"), safe_name("../../notes")
    ('cat-fra', '_._.._notes-df16d059')
    """
    cleaned = _NO_NAME.sub("_", "".join(sign if sign.isprintable() else "_" for sign in text))
    if cleaned == text and 0 < len(text.encode()) <= 150:
        return text
    kept = cleaned.encode()[:100].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading. A pipe, device or directory in its place is an OSError, and is not waited for."""

    def opener(name: str, flags: int) -> int:
        handle = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "it is not a file", name)
        return handle

    return path.open("rb") if os.name == "nt" else open(path, "rb", opener=opener)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path` in one step.

    Whatever stood at `path` stays whole until the new file is complete and on disk. On any error, a kill included,
    `path` is as it was. What the system refuses is a SensikitError.
    """
    with _beside(Path(path)) as partial:
        partial.parent.mkdir(parents=True, exist_ok=True)
        yield partial


@contextlib.contextmanager
def appearing(directory: Path) -> Iterator[Path]:
    """Yield a new directory beside `directory`, which must not exist; on success it becomes that, on any error it goes.

    What the system refuses is a SensikitError.
    """
    with _beside(directory) as partial:
        partial.mkdir(parents=True)
        yield partial


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield where to write; what was written takes the place of `path` once it is on disk, and goes on any error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        # what is renamed before it is on disk may be empty after a power cut
        for each in (partial, *partial.rglob("*")):
            if each.is_file():
                with each.open("rb+") as file:
                    os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except Exception as error:
        if (refusal := _refusal(error)) is None:
            raise
        raise unwritable(path, refusal) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _refusal(error: Exception) -> OSError | None:
    """Return what the system said, if an error is of its making: torch hides it, and safetensors has it as text."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        return error.__context__
    code = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return OSError(int(code[1]), os.strerror(int(code[1]))) if code else None


def unwritable(path: Path, error: OSError) -> SensikitError:
    """The one-line error for a file that the system refused to write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SensikitError(path, "the disk is full", "free some space or choose another --out")
    problem = error.strerror or str(error)
    return SensikitError(path, f"cannot be written ({problem})", "choose another place")


def unreadable(path: Path, error: OSError, kind: type[SensikitError] = DataError) -> SensikitError:
    """The one-line error for a file that the system refused to read."""
    if isinstance(error, FileNotFoundError):
        return kind(path, "does not exist", "check the path")
    return kind(path, f"cannot be read ({error.strerror or error})", "check that it is a file you may read")


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
        with open_file(path) as file:
            return json.loads(file.read().decode("utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise unreadable(path, error, kind) from error
    except (ValueError, RecursionError) as error:
        raise kind(path, "is not valid JSON", "it is damaged; make it again") from error


def _no_number(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity, which are no JSON


def size_text(count: float) -> str:
    """Return bytes in a unit that leaves at most three digits.

    >>> size_text(12_345_678)
    '12.3 MB'
    """
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def seal_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in which the order of its names counts."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of the bytes of `path`, in hexadecimal."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of(*parts: str) -> str:
    """Return the SHA-256 of some strings, kept apart from each other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


LONGEST_LINE = 16 << 20
"""Bytes of a line of text: no sentence is as long, and a file without line ends is not read into memory."""

UNPACKED = 16 << 20, 300
"""Bytes that a gzipped file may unpack to in any case, and as a multiple of its own size: text has 3 to 20 times."""


def raw_lines(path: Path) -> Iterator[bytes]:
    """Yield each line of a file, gzipped or not, without its end; only a line feed ends a line.

    Raises:
        DataError: if the file is missing, damaged or empty, has a line of over `LONGEST_LINE`, or unpacks without end.
    """
    number = size = 0
    try:
        with open_file(path) as file:
            packed = path.suffix == ".gz"
            most = max(UNPACKED[0], UNPACKED[1] * os.fstat(file.fileno()).st_size)
            text = io.BufferedReader(gzip.GzipFile(fileobj=file)) if packed else file
            while line := text.readline(LONGEST_LINE + 1):
                number, size = number + 1, size + len(line)
                if len(line) > LONGEST_LINE:
                    problem = f"has a line of over {LONGEST_LINE >> 20} MB, its line {number}"
                    raise DataError(path, problem, "give text with a sentence in each line")
                if packed and size > most:
                    problem = f"unpacks to over {UNPACKED[1]} times its size"
                    raise DataError(path, problem, "it is no text; leave it out")
                yield line.rstrip(b"\r\n")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(path, f"is damaged after line {number} ({error})", "get it again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not number:
        raise DataError(path, "is empty", "leave it out or make it again")


def lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file; only a line feed ends a line, as in the tools that made it."""
    try:
        with open_file(path) as file:
            text = file.read().decode("utf-8")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise DataError(path, "is not UTF-8 text", "make the data again") from error
    parts = text.split("\n")
    return parts[:-1] if parts[-1] == "" else parts
