"""Mixing: updates that hold translation and monolingual sentences, in an order that seed and epoch alone decide."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from fairseq.data import ConcatDataset, FairseqDataset, data_utils

from sensikit.errors import DataError
from sensikit.training.noise import OBJECTIVES, Example, Vocabulary, translation

_LOG = logging.getLogger(__name__)
TRANSLATION = "translation"
Part = tuple[str, int, np.ndarray]
"""Sentences that are computed together: the objective, the epoch (for the noise), their numbers in the data."""


class Text:
    """Sentences of several indexed datasets, one after the other, each with the tag of a language."""

    def __init__(self, datasets: Sequence[tuple[int, Any]]) -> None:
        self.data = ConcatDataset([dataset for _, dataset in datasets])
        counts = [len(dataset) for _, dataset in datasets]
        self.tags = np.repeat([tag for tag, _ in datasets], counts)
        self.sizes = np.concatenate([np.asarray(dataset.sizes, dtype=np.int64) for _, dataset in datasets])

    def __getitem__(self, number: int) -> np.ndarray:
        """Return the pieces of a sentence with its </s>, (n,) int64; never to be written to: the dataset keeps them."""
        pieces: np.ndarray = self.data[number].numpy()
        return pieces


class Mixture(FairseqDataset):  # type: ignore[misc]
    """Parallel text, and monolingual text with its objectives; an item is a `Part`, a batch the parts of one update.

    Args:
        sources: of the parallel text, each sentence with the tag of its *target* language.
        targets: the translations.
        vocabulary: of both.
        seed: of every draw and all noise.
        mono: monolingual text, or None.
        pools: language → the sentences of `mono` that it may be drawn from, (n,) int64.
        ratios: objective → share that it masks.
        temperature: T; a language is drawn in proportion to n_l^(1/T).
        share: of monolingual text in each update.
        by: "sentences" or "tokens": what the share counts.
    """

    def __init__(
        self,
        sources: Text,
        targets: Text,
        vocabulary: Vocabulary,
        seed: int,
        mono: Text | None = None,
        pools: Mapping[str, np.ndarray] | None = None,
        ratios: Mapping[str, float] | None = None,
        temperature: float = 10 / 7,
        share: float = 0.5,
        by: str = "sentences",
    ) -> None:
        self.sources, self.targets, self.vocabulary, self.seed = sources, targets, vocabulary, seed
        self.mono, self.pools, self.ratios = mono, dict(pools or {}), dict(ratios or {})
        self.temperature, self.share, self.by = temperature, share, by
        self.lengths = np.maximum(sources.sizes, targets.sizes)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, part: Part) -> dict[str, Any]:
        """Return a part as tensors."""
        objective, epoch, numbers = part
        if objective == TRANSLATION:
            examples = [translation(self.sources[n], self.targets[n], self.sources.tags[n]) for n in numbers]
        else:
            examples = [self.noised(objective, epoch, int(number)) for number in numbers]
        return self.tensors(objective, examples)

    def noised(self, objective: str, epoch: int, number: int) -> Example:
        """Return one monolingual sentence under an objective: the same at every call, another one in every epoch."""
        assert self.mono is not None
        rng = np.random.default_rng([self.seed, epoch, list(OBJECTIVES).index(objective), number])
        pieces = self.mono[number][:-1]
        return OBJECTIVES[objective].make(pieces, self.mono.tags[number], self.vocabulary, self.ratios[objective], rng)

    def tensors(self, objective: str, examples: Sequence[Example]) -> dict[str, Any]:
        """Return examples padded into one batch, with the loss-bearing positions of each term counted."""
        pad = self.vocabulary.pad
        rows = {
            name: data_utils.collate_tokens([torch.from_numpy(getattr(example, name)) for example in examples], pad)
            for name in Example._fields
            if getattr(examples[0], name) is not None
        }
        targets = {side: rows[f"{side}_target"] for side in ("encoder", "decoder") if f"{side}_target" in rows}
        counts = {side: int(target.ne(pad).sum()) for side, target in targets.items()}
        lengths = torch.tensor([len(example.source) for example in examples])
        net_input = {"src_tokens": rows["source"], "src_lengths": lengths, "prev_output_tokens": rows.get("previous")}
        terms = {TRANSLATION if objective == TRANSLATION else side: count for side, count in counts.items()}
        return {
            "objective": objective,
            "net_input": net_input,
            "targets": targets,
            "tokens": {**terms, "targets": max(counts.values())},
            "nsentences": len(examples),
            "source_tokens": int(lengths.sum()),
        }

    def collater(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return one update; nothing for no parts."""
        return {"parts": list(parts)} if parts else {}

    def updates(
        self,
        epoch: int,
        longest: tuple[int, int],
        max_tokens: int | None,
        max_sentences: int | None = None,
        batches: int = 1,
        shuffle: bool = True,
    ) -> list[list[Part]]:
        """Return the updates of an epoch: all sentence pairs once (T = 1), each update with its monolingual share.

        Pairs and monolingual sentences are both sorted by length and cut at the same quantiles, so that what meets in
        an update is of like length: little padding, and about as many tokens of either kind, whichever is counted.

        Args:
            epoch: from 1; decides, with the seed, what is drawn.
            longest: source and target; longer pairs are left out.
            max_tokens: of a batch: sentences times the longest of them.
            max_sentences: of a batch.
            batches: of translation in an update.
            shuffle: False keeps sentences of one length in the order of the data, and batches by length.
        """
        rng = np.random.default_rng([self.seed, epoch])
        fits = np.flatnonzero((self.sources.sizes <= longest[0]) & (self.targets.sizes <= longest[1]))
        if not len(fits):
            raise DataError("training data", f"no pair is within {longest} tokens", "raise --max-tokens")
        if len(fits) < len(self):
            long = len(self) - len(fits)
            _LOG.warning("%d of %d pairs are longer than %s tokens and left out", long, len(self), longest)
        order = rng.permutation(fits) if shuffle else fits
        order = order[np.lexsort((self.targets.sizes[order], self.sources.sizes[order]))]
        pairs = cut(order, self.lengths[order], max_tokens, max_sentences)
        updates: list[list[Part]] = [[(TRANSLATION, epoch, batch)] for batch in pairs]
        for update, sentences in zip(updates, self._monolingual(epoch, pairs, min(longest)), strict=False):
            for batch in cut(sentences, self.mono.sizes[sentences], max_tokens, max_sentences):  # type: ignore[union-attr]
                update += [(objective, epoch, batch) for objective in self.ratios]
        if shuffle and batches > 1:
            rng.shuffle(updates)
        return [list(chain(*updates[start : start + batches])) for start in range(0, len(updates), batches)]

    def _monolingual(self, epoch: int, pairs: Sequence[np.ndarray], longest: int) -> list[np.ndarray]:
        """Return the monolingual sentences that go with each batch of pairs, none empty."""
        if self.mono is None or not self.ratios:
            return []
        fits = (self.mono.sizes <= longest) & (self.mono.sizes > 1)
        pools = {name: pool[fits[pool]] for name, pool in self.pools.items()}
        shares = proportions({name: len(pool) for name, pool in pools.items()}, self.temperature)
        wanted = np.array([len(batch) if self.by == "sentences" else self.lengths[batch].sum() for batch in pairs])
        total = wanted.sum() * self.share / (1 - self.share)
        if self.by == "tokens":
            total /= sum(share * self.mono.sizes[pools[name]].mean() for name, share in shares.items())
        drawn = draw(pools, shares, max(round(total), len(pairs)), self.seed, epoch)
        drawn = drawn[np.argsort(self.mono.sizes[drawn], kind="stable")]
        size = np.ones(len(drawn)) if self.by == "sentences" else self.mono.sizes[drawn]
        # 1e-9: a bound that is met exactly is not passed over for the rounding of a sum
        bounds = np.searchsorted(size.cumsum() / size.sum(), wanted.cumsum()[:-1] / wanted.sum() - 1e-9)
        each = np.arange(len(bounds))  # the bound before update i + 1 is above i, and above the bound before
        bounds = np.maximum.accumulate(bounds - each) + each + 1
        return np.split(drawn, np.minimum(bounds, len(drawn) - len(bounds) + each))


def batches_of(tokens: int, max_tokens: int, processes: int) -> tuple[int, int]:
    """Return how many batches make a process's share of an update's `tokens`, and the tokens of one of them.

    The tokens of an update are what was asked for, on one device and on many; `max_tokens` is what fits into one.
    """
    batches = math.ceil(tokens / (processes * max_tokens))
    return batches, max(1, tokens // (processes * batches))


def proportions(sizes: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Return p_l ∝ n_l^(1/T), over the languages that have any sentence."""
    powers = {name: size ** (1 / temperature) for name, size in sizes.items() if size}
    if not powers:
        raise DataError("training data", "there is no monolingual text to denoise", "check --mono and --max-tokens")
    return {name: power / sum(powers.values()) for name, power in powers.items()}


def draw(pools: Mapping[str, np.ndarray], shares: Mapping[str, float], total: int, seed: int, epoch: int) -> np.ndarray:
    """Return `total` sentences of an epoch, (total,) int64; none a second time before all of its language was drawn."""
    ends = np.rint(np.cumsum(list(shares.values())) * total).astype(int)
    counts = np.diff(ends, prepend=0)
    parts = []
    for (name, _), count in zip(shares.items(), counts, strict=True):
        # a round is all of a language in one order; an epoch goes on where the one before it stopped
        size, start = len(pools[name]), (epoch - 1) * int(count)
        rounds = range(start // size, (start + int(count) - 1) // size + 1) if count else ()
        key = [seed, *name.encode()]
        orders = [np.random.default_rng([*key, number]).permutation(pools[name]) for number in rounds]
        if orders:
            parts.append(np.concatenate(orders)[start % size : start % size + count])
    return np.concatenate(parts)


def cut(
    sentences: np.ndarray, lengths: np.ndarray, max_tokens: int | None, max_sentences: int | None
) -> list[np.ndarray]:
    """Return the sentences in batches of so many padded tokens; if one sentence is longer, of as many as it has."""
    most = max(max_tokens, int(lengths.max())) if max_tokens else None
    batches = data_utils.batch_by_size(sentences, None, lengths, most, max_sentences, required_batch_size_multiple=1)
    return [np.asarray(batch) for batch in batches]
