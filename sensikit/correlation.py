"""Pearson correlation of sensitivities between languages, for the most sensitive 10 % of the parameters and the rest.

With each correlation stand its noise ceiling, from two sentence-disjoint halves of the batches, and its interval over
batches, from the stored block means. Neither reads the data again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import stats

from sensikit.sensitivity import sample_of
from sensikit.store import Run
from sensikit.streaming import Cut, Float, Keys, Moments, keys, selected, smallest

HIGH = 0.1
"""The share of the parameters in the high group (section 3.2 of the paper)."""

GROUPS = ("all", "high", "low")

COLUMNS = (
    "task",
    "group",
    "language_a",
    "language_b",
    "pcc",
    "pcc_low",
    "pcc_high",
    "ceiling",
    "reliability_a",
    "reliability_b",
    "parameters",
)

STEP = 1 << 16
"""Sampled parameters whose blocks are read at a time."""


def correlation_table(run: Run, task: str = "mt", high: float = HIGH) -> pd.DataFrame:
    """Return the PCC of every ordered pair of languages in each group, tidy.

    The high group is the share `high` of the parameters with the largest mean over languages of S_l scaled to sum
    one: one set for every pair. `ceiling` is √(r_a·r_b), r the PCC between the two halves of one language, stepped
    up to the full number of batches (Spearman-Brown, 2r/(1+r)); `pcc_low` and `pcc_high` bound the PCC at 95 % over
    batches (see `intervals`).
    """
    languages = run.languages(task)
    between, halves, sampled_high = _moments(run, task, languages, high)
    bounds = intervals(run, task, languages, sampled_high)
    rows = []
    for group in GROUPS:
        pcc = between[group].pearson()
        reliability = [_spearman_brown(float(h.pearson()[0, 1])) for h in halves[group]]
        for a, first in enumerate(languages):
            for b, second in enumerate(languages):
                low, upper = _around(pcc[a, b], bounds[group][a, b]) if a != b else (np.nan, np.nan)
                ceiling = float(np.sqrt(max(reliability[a], 0) * max(reliability[b], 0)))
                pair = (reliability[a], reliability[b])
                rows.append((task, group, first, second, pcc[a, b], low, upper, ceiling, *pair, between[group].count))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _moments(
    run: Run, task: str, languages: list[str], high: float
) -> tuple[dict[str, Moments], dict[str, list[Moments]], np.ndarray]:
    """One pass: moments between languages and between halves, by group, and which sampled parameters are high."""
    full = [run.vector(task, language) for language in languages]
    half = [run.vector(task, language, "half") for language in languages]
    sets = [run.manifest["sets"][f"{task}/{language}"] for language in languages]
    n = np.array([entry["batches"] for entry in sets], dtype=float)[:, None]
    n1 = np.array([entry["half_batches"] for entry in sets], dtype=float)[:, None]
    cut, scores = high_group(run, task, languages, high)
    between = {group: Moments.zero(len(languages)) for group in GROUPS}
    halves = {group: [Moments.zero(2) for _ in languages] for group in GROUPS}
    sample = sample_of(run.parameters)
    sampled = []
    chunks = zip(run.pieces(full + half), selected(scores(), cut), strict=True)
    for ((parameter, offset), block), is_high in chunks:
        own, first = block[: len(languages)].astype(np.float64), block[len(languages) :].astype(np.float64)
        second = (n * own - n1 * first) / (n - n1)
        inside = sample[parameter.name]
        inside = inside[(inside >= offset) & (inside < offset + len(is_high))] - offset
        sampled.append(is_high[inside])
        for group, members in (("all", slice(None)), ("high", is_high), ("low", ~is_high)):
            between[group].add(own[:, members])
            for language, moments in enumerate(halves[group]):
                moments.add(np.stack([first[language, members], second[language, members]]))
    return between, halves, np.concatenate(sampled)


def high_group(
    run: Run, task: str, languages: list[str], high: float = HIGH
) -> tuple[Cut, Callable[[], Iterator[Keys]]]:
    """Return the cut of the high group and the stream of keys it cuts: ⌊high·P⌋ parameters, ties by index."""
    vectors = [run.vector(task, language) for language in languages]
    sums = np.zeros((len(vectors), 1))
    for block in run.stream(vectors):
        sums += block.sum(axis=1, keepdims=True, dtype=np.float64)
    sums[sums == 0] = 1

    def scores() -> Iterator[Keys]:
        # the largest mean is the smallest key
        return (keys(-(block / sums).mean(axis=0)) for block in run.stream(vectors))

    count = sum(parameter.numel for parameter in run.parameters)
    return smallest(scores, [int(high * count)])[0], scores


def intervals(run: Run, task: str, languages: list[str], is_high: np.ndarray) -> dict[str, Float]:
    """Return the half width of a 95 % interval of Fisher's z over batches, per group, (L, L).

    Delete-one-block jackknife: block g is left out of every language at once, which keeps what paired blocks share;
    with t on G − 1 degrees of freedom. A percentile bootstrap over so few blocks covers far too little.

    Args:
        run: with the block means of the sampled parameters.
        task: of the sensitivities.
        languages: L of them.
        is_high: (M,) bool, which sampled parameters are in the high group.
    """
    count = _block_count(run, task, languages)
    left_out = {group: [Moments.zero(len(languages)) for _ in range(count)] for group in GROUPS}
    for start, sums in _block_sums(run, task, languages, len(is_high)):
        inside = is_high[start : start + sums.shape[2]]
        total = sums.sum(axis=1)
        for g in range(count):
            # S is a mean, but the sum of what is left will do: a correlation does not see the scale
            kept = total - sums[:, g]
            for group, members in (("all", slice(None)), ("high", inside), ("low", ~inside)):
                left_out[group][g].add(kept[:, members])
    return {group: jackknife(np.stack([fisher(m.pearson()) for m in found])) for group, found in left_out.items()}


def jackknife(left_out: Float, confidence: float = 0.95) -> Float:
    """Return the half width of an interval from G delete-one estimates, (G, ...) → (...)."""
    count = len(left_out)
    with np.errstate(invalid="ignore"):
        spread = left_out - left_out.mean(axis=0)
        error = np.sqrt((count - 1) / count * (spread**2).sum(axis=0))
    return np.asarray(stats.t.ppf((1 + confidence) / 2, count - 1) * error)


def fisher(pcc: Float) -> Float:
    """Return Fisher's z = artanh(r); infinite at ±1."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.arctanh(pcc))


def _block_count(run: Run, task: str, languages: list[str]) -> int:
    """Return G: the blocks of the language that has the fewest."""
    return min(len(run.manifest["sets"][f"{task}/{language}"]["block_batches"]) for language in languages)


def _block_sums(run: Run, task: str, languages: list[str], size: int) -> Iterator[tuple[int, Float]]:
    """Yield (start, (L, G, m)): the sums over the batches of each block at sampled parameters start … start + m."""
    noted = [run.manifest["sets"][f"{task}/{language}"]["block_batches"] for language in languages]
    readers = [run.block_reader(task, language) for language in languages]
    count = _block_count(run, task, languages)
    for start in range(0, size, STEP):
        means = [reader(start, min(start + STEP, size)).astype(np.float64) for reader in readers]
        weighted = (block * np.array(batches)[:, None] for block, batches in zip(means, noted, strict=True))
        yield start, np.stack([_joined(block, count) for block in weighted])


def _joined(blocks: Float, count: int) -> Float:
    """Add up neighbours until `count` blocks are left: blocks are paired between languages, which takes as many."""
    return np.asarray(np.add.reduceat(blocks, np.arange(count) * len(blocks) // count, axis=0))


def _around(pcc: float, width: float) -> tuple[float, float]:
    centre = np.arctanh(min(max(pcc, -1 + 1e-15), 1 - 1e-15))
    return float(np.tanh(centre - width)), float(np.tanh(centre + width))


def _spearman_brown(r: float) -> float:
    return 2 * r / (1 + r) if r > -1 else np.nan
