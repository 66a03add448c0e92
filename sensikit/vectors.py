"""A stored vector: one float32 tensor per parameter in a safetensors file, read a piece at a time.

The library checks the file and copies whole slices; reading into memory that is there already takes a quarter of its
time, which counts where every number is read in several passes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np

from sensikit.errors import DamagedError, RunError
from sensikit.parameters import Parameter


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

    def start(self, parameter: Parameter) -> int:
        """Return where the parameter's first element lies in the file, in bytes.

        Raises:
            RunError: if the file lacks the parameter, or has it in another shape or type.
        """
        entry = self._header.get(parameter.name)
        if entry is None:
            raise RunError(self.path, f"lacks {parameter.name}", "it belongs to another model; analyze again")
        for kind, found, wanted in (("shape", tuple(entry["shape"]), parameter.shape), ("type", entry["dtype"], "F32")):
            if found != wanted:
                problem = f"holds {parameter.name} in another {kind}"
                raise RunError(self.path, problem, "it belongs to another model; analyze again")
        return self._start + int(entry["data_offsets"][0])

    def read(self, place: int, into: np.ndarray) -> None:
        """Fill a contiguous float32 array with what begins at a place in the file, in bytes."""
        self._file.seek(place)
        if self._file.readinto(into.data.cast("B")) != into.nbytes:
            raise DamagedError(self.path, "is missing or damaged", "measure it again: analyze --resume")
