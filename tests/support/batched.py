"""Batches that a test draws, and what the obvious computation makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHAPES = {"a.weight": (7, 5), "a.bias": (3,), "b.weight": (4, 4, 2), "scale": ()}
SIZE = 71
CODES = ("nob", "cat", "fur")


def batches(seed: int, codes: Sequence[str] = CODES, counts: Sequence[int] = (40, 43, 25)) -> dict[str, np.ndarray]:
    """Noisy batches of heavy-tailed sensitivities, alike but not the same in every language; each on its own scale."""
    rng = np.random.default_rng(seed)
    shared = rng.lognormal(-9, 1.5, SIZE)
    return {
        code: shared * rng.lognormal(0, 0.7, SIZE) * rng.exponential(10.0**place, (count, SIZE))
        for place, (code, count) in enumerate(zip(codes, counts, strict=True))
    }


def high_of(vectors: Sequence[np.ndarray], share: float = 0.1) -> np.ndarray:
    """The obvious computation: a mask of the high group."""
    wide = [vector.astype(np.float64) for vector in vectors]
    mean = np.mean([vector / vector.sum() for vector in wide], axis=0)
    mask = np.zeros(len(mean), dtype=bool)
    mask[np.argsort(-mean, kind="stable")[: int(np.floor(share * len(mean)))]] = True
    return mask


def groups_of(vectors: Sequence[np.ndarray], share: float = 0.1) -> dict[str, np.ndarray]:
    high = high_of(vectors, share)
    return {"all": np.ones_like(high), "high": high, "low": ~high}
