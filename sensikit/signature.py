"""Signatures, in sacreBLEU's manner: every choice that moves a number, in one line that travels with it."""

from __future__ import annotations

from typing import Any

from sensikit.version import __version__


def signature(head: str, **choices: Any) -> str:
    """Return head|name:value|…|v:VERSION, in the order given; what is None is left out."""
    parts = [head, *(f"{name}:{_short(value)}" for name, value in choices.items() if value is not None)]
    return "|".join([*parts, f"v:{__version__}"])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
