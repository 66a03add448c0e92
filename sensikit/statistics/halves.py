"""Half-samples of blocks: what both halves of the batches would have given, border between the subsets and all.

The border is drawn from the batches as the correlations are, which a jackknife takes as given: its intervals of a
difference over the low subset are too narrow, and too wide where it draws the border anew, for a border jumps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sensikit.run import Run
from sensikit.statistics.noise import SUBSETS, Set, block_batches, block_sums, corrected, joined, reliability
from sensikit.statistics.streaming import CONSTANT, Float

DESIGNS = (20, 12, 8, 4)
"""Numbers of blocks that `balanced` splits: of one more than a prime that leaves 3 when it is divided by 4."""


def balanced(count: int) -> NDArray[np.bool_]:
    """Return `count` − 1 splits of blocks into two halves, (count − 1, count), True for the first half.

    Any two splits have a quarter of the blocks in each of their four common parts (Plackett and Burman, 1946), so that
    half the squared difference between the halves, averaged over the splits, is exactly the variance of a mean.

    >>> balanced(4).astype(int).tolist()
    [[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]]
    """
    prime = count - 1
    squares = np.zeros(prime, dtype=bool)
    squares[np.arange(prime) ** 2 % prime] = True
    places = np.add.outer(np.arange(prime), np.arange(prime)) % prime
    return np.column_stack([squares[places], np.zeros(prime, dtype=bool)])


def in_halves(
    measured: Sequence[tuple[Run, Sequence[Set]]], is_high: NDArray[np.bool_], count: int
) -> list[dict[str, Float]]:
    """Return the corrected PCC of each half of the blocks, by run and subset: (count − 1, 2, N, N) for N sets.

    Each half draws its own border: as many of the M sampled parameters as are high in all the batches, those with the
    largest mean over all sets of all runs of S scaled to sum one. c is the mean covariance of all pairs of blocks in a
    half, as in `noise.reliability`. 152 bytes of memory for each sampled parameter are for the borders.

    Args:
        measured: runs of models of one shape, each with its sets.
        is_high: which of the sampled parameters are in the high subset by all batches, (M,).
        count: blocks, of `DESIGNS`; of fewer (0), nothing is known (NaN).
    """
    if not count:
        unknown = [np.full((1, 2, len(sets), len(sets)), np.nan) for _, sets in measured]
        return [dict.fromkeys(SUBSETS, each) for each in unknown]
    first = balanced(count)
    halves = np.stack([first, ~first], axis=1).reshape(-1, count).astype(np.float64)
    sources = [(run, each) for run, sets in measured for each in sets]
    inside = borders(sources, len(is_high), int(is_high.sum()), halves)
    totals: list[dict[str, list[Float]]] = [{} for _ in measured]
    edges = np.cumsum([len(sets) for _, sets in measured])[:-1]
    for start, sums_of_all in block_sums(sources, len(is_high), [count] * len(sources)):
        block = sums_of_all.reshape(len(sources), count, -1)
        here = inside[:, start : start + block.shape[2]]
        for of_run, rows in zip(totals, np.split(block, edges), strict=True):
            for subset, members in (("high", here), ("low", ~here)):
                sums = _sums(rows, halves, members.astype(np.float64))
                of_run[subset] = _added(of_run[subset], sums) if start else sums
    batches = np.stack([joined(block_batches(run, each), count) for run, each in sources])
    found = []
    for of_run, of in zip(totals, np.split(batches, edges), strict=True):
        of_run["all"] = _added(of_run["high"], of_run["low"])
        shape = -1, 2, len(of), len(of)
        found.append({subset: _corrected(sums, halves, of).reshape(shape) for subset, sums in of_run.items()})
    return found


def _added(one: list[Float], other: list[Float]) -> list[Float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def borders(sources: Sequence[tuple[Run, Set]], size: int, high: int, halves: Float) -> NDArray[np.bool_]:
    """Return which of `size` sampled parameters are the `high` ones of each of H halves, (H, size).

    `halves` says which blocks are in each, (H, G); the runs and their sets are taken together.
    """
    count = halves.shape[1]
    counts = [count] * len(sources)
    totals = sum(block.sum(axis=1) for _, block in block_sums(sources, size, counts)).reshape(-1, count) @ halves.T
    scores = np.empty((len(halves), size), dtype=np.float32)
    for start, block in block_sums(sources, size, counts):
        shares = halves @ block.reshape(len(sources), count, -1) / np.where(totals > 0, totals, 1)[:, :, None]
        scores[:, start : start + block.shape[1]] = shares.mean(axis=0)
    found = np.zeros(scores.shape, dtype=bool)
    for row, score in zip(found, scores, strict=True):
        row[np.argpartition(-score, high)[:high] if high < size else slice(None)] = True
    return found


def _sums(block: Float, halves: Float, members: Float) -> list[Float]:
    """Return what the moments of one chunk of parameters are made of, for each of H halves of the blocks.

    How many parameters, (H,); Σ s and Σ s·s′ of the sums s of N sets over a half, (H, N) and (H, N, N); Σ x and Σ x² of
    the sum x over each block, (N, G, H). `block` is x, (N, G, m); `halves` says which blocks are in each, (H, G), and
    `members` which parameters count for each, (H, m).
    """
    sums = np.moveaxis(halves @ block, 0, 1)
    counted = sums * members[:, None]
    of_blocks = [block @ members.T, block**2 @ members.T]
    return [members.sum(axis=1), counted.sum(axis=2), counted @ sums.transpose(0, 2, 1), *of_blocks]


def _corrected(sums: list[Float], halves: Float, batches: Float) -> Float:
    """Return the corrected PCC in each of H halves of the blocks, (H, N, N): see `_sums`; batches are (N, G)."""
    n, first, second, one, square = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = second - first[:, :, None] * first[:, None, :] / n[:, None, None]
        own = np.einsum("hg,ngh->hn", halves, square - one**2 / n)
        spread, raw = (np.diagonal(each, axis1=1, axis2=2) for each in (whole, second))
        # the rounding of the sums leaves equal values a spread of this size
        scale = np.sqrt(np.where(spread > CONSTANT * raw, spread, np.nan))
        pcc = whole / (scale[:, :, None] * scale[:, None, :])
        return corrected(pcc, reliability(spread, own, batches * halves[:, None]))
