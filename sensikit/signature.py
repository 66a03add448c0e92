"""What decides a number: its signature, in sacreBLEU's manner, and the random streams of a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensikit.files import sha256_of
from sensikit.version import __version__

if TYPE_CHECKING:
    import numpy as np  # loaded when a number is drawn: the command line answers before it
    from numpy.typing import NDArray


def signature(head: str, **choices: Any) -> str:
    """Return head|name:value|…|v:VERSION, in the order given; what is None is left out."""
    parts = [head, *(f"{name}:{_short(value)}" for name, value in choices.items() if value is not None)]
    return "|".join([*parts, f"v:{__version__}"])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def splitmix(start: NDArray[np.uint64] | np.uint64, steps: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 random bits for each of some steps from a start on, uint64: SplitMix64 (Steele et al., 2014).

    However the steps are cut in parts, each has the same bits. The shapes of `start` and `steps` are broadcast.
    """
    import numpy as np

    bits = start + steps * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits ^= bits >> np.uint64(shift)
        bits *= np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    return bits


def rng(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of one purpose: the same seed gives each name its own, independent stream."""
    import numpy as np

    return np.random.default_rng([seed, int(sha256_of(*names)[:15], 16)])
