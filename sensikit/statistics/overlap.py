"""Which languages share their most specific parameters: the overlap of the tops of D(θ,l)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sensikit.statistics.specificity import sigma_of, specificity
from sensikit.statistics.streaming import Keys, keys, selected, smallest
from sensikit.store.run import Run

SHARES = (0.01, 0.05, 0.1)

COLUMNS = ("task", "share", "language_a", "language_b", "jaccard", "expected")


def overlap_table(run: Run, task: str = "mt", shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Return the Jaccard overlap |A ∩ B| / |A ∪ B| of every ordered pair of different languages, tidy.

    A and B are the ⌊share·P⌋ parameters with the largest D of each language, ties by index. `expected` is the overlap
    of two such sets drawn independently: they would have k²/P parameters in common.
    """
    languages = run.languages(task)
    count = sum(parameter.numel for parameter in run.parameters)
    sizes = [int(share * count) for share in shares]
    common = np.zeros((len(shares), len(languages), len(languages)))
    for masks in zip(*(_tops(run, task, language, sizes) for language in languages), strict=True):
        inside = np.stack(masks, axis=1).astype(np.float64)
        common += inside @ inside.transpose(0, 2, 1)
    rows = []
    for share, size, of_size in zip(shares, sizes, common, strict=True):
        expected = _jaccard(size * size / count, size)
        rows += [
            (task, share, first, second, _jaccard(of_size[a, b], size), expected)
            for a, first in enumerate(languages)
            for b, second in enumerate(languages)
            if a != b
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _tops(run: Run, task: str, language: str, sizes: Sequence[int]) -> Iterator[NDArray[np.bool_]]:
    """Yield, chunk by chunk, which parameters are among the `sizes` largest of D: (len(sizes), n) bool."""
    vectors, sigma = [run.vector(task, language), run.vector(task, f"rest-{language}")], sigma_of(run, language, task)

    def scores() -> Iterator[Keys]:
        # the largest D is the smallest key
        return (keys(-specificity(own, rest, sigma)) for own, rest in run.stream(vectors))

    cuts = smallest(scores, sizes)
    streams = itertools.tee(scores(), len(sizes))
    return map(np.stack, zip(*(selected(each, cut) for each, cut in zip(streams, cuts, strict=True)), strict=True))


def _jaccard(common: float, size: int) -> float:
    return common / (2 * size - common) if size else np.nan
