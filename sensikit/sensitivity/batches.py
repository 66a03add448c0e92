"""Which sentences make which batch: T target tokens each, drawn by seed, never a sentence twice.

The mean of |θ·∇L| over batches depends on how many tokens a batch holds (a larger batch averages more gradient noise
away before the absolute value is taken), so every set that is compared is packed to the same T. The number of batches
only decides how noisy the mean is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sensikit.backends.base import Item
from sensikit.errors import DataError
from sensikit.files import sha256_of
from sensikit.signature import rng

MINIMUM_BATCHES = 40
"""T is lowered until the smallest language has this many batches."""

COUNTS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of micro-batches of which the cheapest is taken."""

OVERHEAD = {"cpu": 60, "cuda": 1000}
"""Padded tokens, source and target, whose computation takes as long as what every micro-batch costs beside its own:
calls and adding gradients, as measured on a CPU with 1.4 million parameters; of a GPU it is an estimate."""


@dataclass(frozen=True)
class Batch:
    """Some sentences, in micro-batches of like length, and the target tokens in all of them.

    `others` are the target tokens of further terms of the loss, beside the first, which a batch is packed by.
    """

    micro_batches: tuple[tuple[Item, ...], ...]
    tokens: int
    others: tuple[int, ...] = ()

    @property
    def counts(self) -> tuple[int, ...]:
        """The target tokens of every term."""
        return (self.tokens, *self.others)

    @property
    def items(self) -> tuple[Item, ...]:
        """Every sentence of the batch."""
        return tuple(item for micro_batch in self.micro_batches for item in micro_batch)


def fingerprint(batches: Sequence[Batch]) -> str:
    """Return the SHA-256 of which sentences are in the batches, in their order."""
    return sha256_of(*(f"{language}:{index}" for batch in batches for language, index in batch.items))


def common_tokens(sizes: Mapping[str, np.ndarray], wanted: int, minimum: int = MINIMUM_BATCHES) -> int:
    """Return T: the `wanted` target tokens of a batch, lowered until the smallest language fills `minimum` batches.

    `sizes` has by language the source and target tokens of its sentences, (n, 1 + K) int64.
    """
    smallest = min(int(size[:, 1].sum()) for size in sizes.values())
    return max(1, min(wanted, smallest // minimum))


def draw(sizes: Mapping[str, np.ndarray], seed: int, purpose: str, temperature: float = 1.0) -> Iterator[Item]:
    """Yield sentences of the languages of `sizes` in random order, each at most once.

    The next sentence is of language l with probability ∝ n_l^(1/temperature); the stream ends when the language
    whose turn it is has none left, so that the proportions hold to the end. At temperature 1 this is a random order
    of the pool. `purpose` is a name that keeps two draws of one seed apart.
    """
    languages = list(sizes)
    orders = {language: rng(seed, purpose, language).permutation(len(sizes[language])) for language in languages}
    counts = np.array([len(sizes[language]) for language in languages], dtype=float)
    chooser = rng(seed, purpose, "languages", *languages)  # the stream of version 0.1
    if temperature == 1.0:
        turns = chooser.permutation(np.repeat(np.arange(len(languages)), counts.astype(int)))
    else:
        shares = counts ** (1 / temperature)
        turns = chooser.choice(len(languages), size=int(counts.sum()), p=shares / shares.sum())
    taken = dict.fromkeys(languages, 0)
    for turn in turns:
        language = languages[turn]
        if taken[language] == len(orders[language]):
            return
        yield language, int(orders[language][taken[language]])
        taken[language] += 1


def pack(
    items: Iterator[Item],
    sizes: Mapping[str, np.ndarray],
    tokens: int,
    count: int,
    micro_batches: int | None = 1,
    overhead: int = OVERHEAD["cpu"],
) -> list[Batch]:
    """Return at most `count` batches of about `tokens` target tokens each.

    A batch closes before or after the sentence that crosses T, whichever is nearer, so batches hold T on average. A
    last batch that is not full is left out: it would be one of another size. Each is cut into `micro_batches` parts
    (see `alike`), or where no number is given, where that costs the least (see `cheapest`).

    Raises:
        DataError: if the sentences do not fill two batches.
    """
    batches: list[Batch] = []
    held: list[Item] = []
    total = 0
    cut = partial(cheapest, overhead=overhead) if micro_batches is None else partial(alike, count=micro_batches)
    for item in items:
        size = int(sizes[item[0]][item[1], 1])
        if held and total + size - tokens > tokens - total:
            batches.append(_batch(held, sizes, cut))
            held, total = [], 0
        held.append(item)
        total += size
        if total >= tokens:
            batches.append(_batch(held, sizes, cut))
            held, total = [], 0
        if len(batches) >= count:
            break
    if len(batches) < 2:
        problem = f"fills {len(batches)} batches of {tokens} target tokens"
        remedy = "lower --tokens" if tokens > 1 else "add text, or leave the group out"
        raise DataError(", ".join(sizes), problem, f"two are needed: {remedy}")
    return batches[:count]


def _batch(items: Sequence[Item], sizes: Mapping[str, np.ndarray], cut: Callable[[np.ndarray], list[int]]) -> Batch:
    lengths = np.array([sizes[language][index] for language, index in items])
    order = np.lexsort((lengths[:, 1], lengths.max(axis=1)))
    parts = np.split(order, cut(lengths[order]))
    tokens, *others = (int(count) for count in lengths[:, 1:].sum(axis=0))
    return Batch(tuple(tuple(items[i] for i in part) for part in parts), tokens, tuple(others))


def alike(lengths: np.ndarray, count: int) -> list[int]:
    """Return where sentences are cut into at most `count` parts of equal tokens; `lengths` are theirs, (n, 1 + K).

    Not of equal sentences: the long ones are what padding costs.
    """
    filled = np.cumsum(lengths.sum(axis=1))
    return (np.flatnonzero(np.diff(filled * count // (filled[-1] + 1))) + 1).tolist()


def cheapest(lengths: np.ndarray, overhead: int) -> list[int]:
    """Return where sentences are cut into the number of parts of equal tokens that costs the least (see `alike`).

    A part costs its padded tokens, source and target, and `overhead`. Parts of unequal size, cut where padding is least
    of all, were no faster.

    >>> cheapest(np.array([[5, 5], [6, 6], [90, 80]]), overhead=100)
    [2]
    """

    def cost(cuts: list[int]) -> int:
        starts = [0, *cuts]
        longest = np.maximum.reduceat(lengths[:, :2], starts).sum(axis=1)
        return int(np.diff(starts, append=len(lengths)) @ longest) + overhead * len(starts)

    return min((alike(lengths, count) for count in COUNTS), key=cost)
