"""Plain settings out of an untrusted file: each has a type and bounds, and what does not fit is refused."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sensikit.errors import CheckpointError

CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
"""A language code: `eng`, `en_XX`, `zho_Hans`."""
PAIR = re.compile(f"{CODE.pattern}-{CODE.pattern}")
DIGITS = re.compile(r"\d{1,12}", re.ASCII)


class _Shown(reprlib.Repr):
    """Writes a few parts of a value, two levels deep: a whole one may have no end."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 50, 50

    def repr_instance(self, x: object, level: int) -> str:
        """Return a number as it is, and of an object its type."""
        return repr(x) if x is None or type(x) in (bool, float) else f"<{type(x).__name__}>"


def shown(value: Any) -> str:
    """Return the beginning of how `value` is written; its type alone where that fails, as for a number without end."""
    try:
        return _Shown().repr(value)[:60]
    except (ValueError, TypeError, RecursionError):
        return type(value).__name__


class Settings:
    """The settings of the checkpoint at `path`; a missing one and one that is None read as the default.

    Every method raises `CheckpointError` for a value of another type or out of bounds.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, values

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def refusal(self, name: str, expected: str) -> CheckpointError:
        """The error for a setting that is not what it should be."""
        problem = f"has the setting {name} = {shown(self.values.get(name))}"
        return CheckpointError(self.path, problem, f"expected {expected}")

    def integer(self, name: str, low: int, high: int, default: int = 0) -> int:
        """Return a whole number within `low` and `high`."""
        value = self.values.get(name)
        if value is None:
            return default
        # fairseq keeps what has no type of its own, such as --decoder-output-dim, as text
        if (isinstance(value, float) and value.is_integer()) or (type(value) is str and DIGITS.fullmatch(value)):
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise self.refusal(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: float = 0.0) -> float:
        """Return a finite number within `low` and `high`."""
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            raise self.refusal(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return True or False; the words "True" and "False", as command lines have them, are taken for it."""
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is bool:
            return value
        if type(value) is str and value in ("True", "False"):
            return value == "True"
        if type(value) is int and value in (0, 1):
            return value == 1
        raise self.refusal(name, "True or False")

    def choice(self, name: str, allowed: Collection[str], default: str = "") -> str:
        """Return one of a few known words."""
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not str or value not in allowed:
            raise self.refusal(name, "one of " + ", ".join(sorted(allowed)))
        return value

    def codes(self, name: str) -> tuple[str, ...]:
        """Return language codes, from a list or joined by commas."""
        value = self.values.get(name)
        items = value.split(",") if type(value) is str else value
        if items is None:
            return ()
        if not isinstance(items, list | tuple) or not all(type(item) is str and CODE.fullmatch(item) for item in items):
            raise self.refusal(name, "language codes")
        return tuple(items)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return (source, target) of each language pair, from a list or joined by commas."""
        value = self.values.get(name)
        items = [item for item in value.split(",") if item] if type(value) is str else value
        if items is None:
            return ()
        if not isinstance(items, list | tuple) or not all(type(item) is str and PAIR.fullmatch(item) for item in items):
            raise self.refusal(name, "language pairs such as cat-eng")
        return tuple((source, target) for source, _, target in (item.partition("-") for item in items))
