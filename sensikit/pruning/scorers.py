"""The orders of pruning, one line of `SCORERS` each: what is read of each parameter, and the key it is ranked by.

The smallest key goes first. What all orders share (the protected top by S(θ, B_l), the ratio, ties by parameter index)
is in `masks`, so a new order is one line here and, where S and D do not suffice, one pass over the language's batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sensikit.backends.base import Backend
from sensikit.errors import OptionError
from sensikit.files import sha256_of
from sensikit.progress import progress
from sensikit.pruning.calibration import Measure, fisher, wanda
from sensikit.sensitivity.batches import fingerprint
from sensikit.sensitivity.redrawing import redrawn
from sensikit.statistics.specificity import specificity
from sensikit.statistics.streaming import Float, Keys, keys
from sensikit.store.run import Run

LAST = np.uint64((1 << 64) - 1)
"""The key of a protected parameter: after every score."""


@dataclass(frozen=True)
class Chunk:
    """Some prunable parameters beside each other in the flat order.

    Attributes:
        vectors: (V, n) float32, what the scorer reads, in its order.
        weights: (n,) θ.
        start: the place of the first among all prunable parameters.
        sigma: σ of the language's D.
        seed: of the order.
    """

    vectors: np.ndarray
    weights: torch.Tensor
    start: int
    sigma: float
    seed: int


@dataclass(frozen=True)
class Scorer:
    """An order.

    Attributes:
        says: the order in words.
        reads: stored vectors as (task, name), with {} for the language.
        keys: (n,) uint64 of a chunk; the smallest goes first.
        measure: the pass over the language's batches that makes the vector, where `analyze` did not.
    """

    says: str
    reads: tuple[tuple[str, str], ...]
    keys: Callable[[Chunk], Keys]
    measure: Measure | None = None


def _specificity(chunk: Chunk) -> Float:
    return specificity(chunk.vectors[0], chunk.vectors[1], chunk.sigma)


def _stored(chunk: Chunk) -> Keys:
    return keys(chunk.vectors[0])


def _magnitude(chunk: Chunk) -> Keys:
    return keys(chunk.weights.abs().to("cpu", torch.float64).numpy())


def random_keys(seed: int, start: int, size: int) -> Keys:
    """Return keys of flat indices start..start+size: splitmix64 of (seed, index), the same however chunked."""
    with np.errstate(over="ignore"):
        z = np.arange(start, start + size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(int(sha256_of("random order", str(seed))[:16], 16))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.minimum(z ^ (z >> np.uint64(31)), LAST - np.uint64(1))


_S, _BOTH = (("mt", "{}"),), (("mt", "{}"), ("mt", "rest-{}"))

SCORERS = {
    "specificity": Scorer(
        "ascending signed D(θ,l): the least language-specific first", _BOTH, lambda chunk: keys(_specificity(chunk))
    ),
    "reverse": Scorer(
        "descending D(θ,l): the most language-specific first", _BOTH, lambda chunk: keys(-_specificity(chunk))
    ),
    "sensitivity": Scorer("ascending S(θ,B_l)", _S, _stored),
    "magnitude": Scorer("ascending |θ|", _S, _magnitude),
    "random": Scorer(
        "uniformly at random, by seed", _S, lambda chunk: random_keys(chunk.seed, chunk.start, len(chunk.weights))
    ),
    "fisher": Scorer("ascending mean over B_l of (∂L/∂θ)²", (("fisher", "{}"),), _stored, fisher),
    "wanda": Scorer(
        "ascending rank of |W_ij|·‖x_j‖ among the inputs of one output, x over B_l", (("wanda", "{}"),), _stored, wanda
    ),
}
"""By the name that --order takes."""


def scorer_of(name: str) -> Scorer:
    """Return the scorer of an order.

    Raises:
        OptionError: if there is none of that name.
    """
    if name not in SCORERS:
        raise OptionError("--order", f"{name} is not an order", f"choose among {', '.join(SCORERS)}")
    return SCORERS[name]


def measure_missing(run: Run, backend: Backend, wanted: Sequence[tuple[str, str]]) -> None:
    """Measure what the orders of `wanted` need beside S and D, on the run's own batches, and store it in the run.

    Each score is stored as soon as it is there; what the run has whole is not measured again.

    Args:
        run: to be written; of the backend's checkpoint and data.
        backend: the model and its data.
        wanted: (order, language); "none" is no order.

    Raises:
        RunError: if the batches of the run cannot be drawn again.
    """
    missing = [
        (name, code)
        for name, code in dict.fromkeys(wanted)
        if name in SCORERS and SCORERS[name].measure and not run.has(name, code)
    ]
    if not missing:
        return
    settings, sets = redrawn(run, backend, sorted({code for _, code in missing}))
    for name, code in missing:
        measure, batches = SCORERS[name].measure, sets[code]
        assert measure is not None
        with progress(len(batches), f"{name} {code}") as bar:
            found = measure(backend, run.parameters, settings, batches, bar.advance)
        tokens = [batch.tokens for batch in batches]
        facts = {"batches": len(batches), "tokens_mean": float(np.mean(tokens)), "drawn": fingerprint(batches)}
        run.write_set(name, code, {"": found}, facts)
