"""A stored vector: one tensor per parameter in a safetensors file, float32 or bfloat16, read a piece at a time.

The library checks the file and copies whole slices; reading into memory that is there already takes a quarter of its
time, which counts where every number is read in several passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from sensikit.errors import DamagedError, RunError
from sensikit.parameters import Parameter

WIDTHS = {"F32": 4, "BF16": 2}
"""Bytes of a number, by what safetensors calls its type."""


class Vector:
    """A file of tensors that was found whole, open for reading until its `with` block ends."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, path.open("rb", buffering=0)
        length = int.from_bytes(self._file.read(8), "little")
        self._header, self._start = json.loads(self._file.read(length)), 8 + length

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def reader(self, parameter: Parameter) -> Callable[[int, np.ndarray], None]:
        """Return a function (offset in the parameter, array) that fills a contiguous float32 array from there on."""
        entry = self._header.get(parameter.name)
        if entry is None:
            raise RunError(self.path, f"lacks {parameter.name}", "it belongs to another model; analyze again")
        width = WIDTHS.get(entry["dtype"], 0)
        for kind, fits in (("shape", tuple(entry["shape"]) == parameter.shape), ("type", width > 0)):
            if not fits:
                problem = f"holds {parameter.name} in another {kind}"
                raise RunError(self.path, problem, "it belongs to another model; analyze again")
        return partial(self._read, self._start + int(entry["data_offsets"][0]), width)

    def _read(self, start: int, width: int, offset: int, into: np.ndarray) -> None:
        self._file.seek(start + width * offset)
        bits = into.view(np.uint32)
        found = bits if width == into.itemsize else np.empty(len(into), dtype=np.uint16)
        if self._file.readinto(found.data.cast("B")) != found.nbytes:
            raise DamagedError(self.path, "is missing or damaged", "measure it again: analyze --resume")
        if found is not bits:  # bfloat16 is the upper half of a float32
            bits[:] = found
            bits <<= 16
