"""What decides a number: its signature, in sacreBLEU's manner, and the random streams of a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensikit.files import sha256_of
from sensikit.version import __version__

if TYPE_CHECKING:
    import numpy as np  # loaded when a number is drawn: the command line answers before it


def signature(head: str, **choices: Any) -> str:
    """Return head|name:value|…|v:VERSION, in the order given; what is None is left out."""
    parts = [head, *(f"{name}:{_short(value)}" for name, value in choices.items() if value is not None)]
    return "|".join([*parts, f"v:{__version__}"])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def rng(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of one purpose: the same seed gives each name its own, independent stream."""
    import numpy as np

    return np.random.default_rng([seed, int(sha256_of(*names)[:15], 16)])
