"""Translation as a task: sentence pairs of fairseq's datasets, their loss, and their translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sensikit.backends.base import Item, Segments, Translations
from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.decoding import references, segments, translations
from sensikit.backends.fairseq.model import Opened
from sensikit.errors import DataError
from sensikit.settings import Decoding


@dataclass(frozen=True)
class MicroBatch:
    """Some sentence pairs, padded: what the model is fed, what it should say (B, T) int64, how many tokens count.

    `order` says of each row which of the items it is.
    """

    net_input: dict[str, torch.Tensor]
    target: torch.Tensor
    tokens: int
    order: list[int]


@dataclass(frozen=True)
class Split:
    """One group's pairs of one split.

    `dataset` is fairseq's, `lengths` (N, 2) int64 its tokens, `rows` (n,) int64 the pairs within the positions.
    """

    dataset: Any
    lengths: np.ndarray
    rows: np.ndarray


class Translation:
    """Translation by a fairseq model; see `sensikit.backends.base.Task`."""

    name = "mt"

    def __init__(self, opened: Opened) -> None:
        self.opened, self.groups, self.direction = opened, opened.groups, opened.direction
        self.kinds = opened.kinds
        self._pad: int = opened.task.target_dictionary.pad()
        self._splits: dict[tuple[str, str], Split] = {}

    def choices(self) -> dict[str, str]:
        """Return nothing: translation has no choice that another task lacks."""
        return {}

    def sizes(self, group: str, split: str = "train") -> np.ndarray:
        """Return (n, 2) int64, the source and target tokens of every pair that the model has positions for.

        Language tags and </s> are among them wherever they stand; what the training criterion ignored is not a target.
        """
        held = self.split(group, split)
        ignored = np.array([0, self.opened.settings.ignored_prefix])
        sizes: np.ndarray = np.maximum(held.lengths[held.rows] - ignored, 0)
        return sizes

    def left_out(self, group: str, split: str = "train") -> int:
        """Return how many pairs are longer than the model's positions: fairseq-train does not see them either."""
        held = self.split(group, split)
        return len(held.lengths) - len(held.rows)

    def segments(self, group: str, split: str = "train") -> Segments:
        """Return what tells the pairs of a split apart: their English sentences, where they have any."""
        return segments(self.opened, split, self.opened.pair_of(group), self.split(group, split).rows)

    def bytes(self, group: str, split: str = "train") -> np.ndarray | None:
        """Return the bytes in UTF-8 of the target of every pair in `sizes`, (n,) int64; None without the raw text."""
        pair, held = self.opened.pair_of(group), self.split(group, split)
        if self.opened.data.text(split, *pair, pair[1]) is None:
            return None
        texts, _ = references(self.opened, split, pair, held.dataset)
        return np.array([len(texts[row].encode()) for row in held.rows], dtype=np.int64)

    def layout(self, groups: Sequence[str], split: str = "train") -> None:
        """Return nothing: in translation the two sides say different things, and stand at no common positions."""

    def collate(self, items: Sequence[Item], split: str = "train") -> MicroBatch:
        """Return the sentences, whatever their groups, as one padded micro-batch on the device.

        Rows come group by group, in each by falling source length.
        """
        places: dict[str, dict[int, list[int]]] = {}
        for place, (key, row) in enumerate(items):
            places.setdefault(key, {}).setdefault(int(self.split(key, split).rows[row]), []).append(place)
        longest = np.max([self.split(key, split).lengths[list(rows)].max(axis=0) for key, rows in places.items()], 0)
        width = {"source": int(longest[0]), "target": int(longest[1])}
        samples = []
        for key, rows in places.items():
            dataset = self.split(key, split).dataset
            pairs = [dataset[row] for row, those in rows.items() for _ in those]
            samples.append(dataset.collater(pairs, pad_to_length=width))
        target = torch.cat([sample["target"] for sample in samples])
        counted = target[:, self.opened.settings.ignored_prefix :].ne(self._pad)
        net_input = {
            name: torch.cat([sample["net_input"][name] for sample in samples]).to(self.opened.device)
            for name in ("src_tokens", "src_lengths", "prev_output_tokens")
        }
        by_key = zip(places.values(), samples, strict=True)
        order = [rows[row].pop() for rows, sample in by_key for row in sample["id"].tolist()]
        return MicroBatch(net_input, target.to(self.opened.device), int(counted.sum()), order)

    def loss(self, micro_batch: MicroBatch, kind: str = "nll") -> tuple[torch.Tensor, int]:
        """Return the summed loss (nats) and the target tokens of a micro-batch, in the module's dtype and mode.

        "train" is, where it was trained with label smoothing, fairseq's (1-ε-ε/(V-1))·nll + ε/(V-1)·Σ_v -log p_v.
        fairseq's own log_softmax is always float32; here it has the dtype of the logits: a model in float64 stays so.
        """
        return self._cross_entropy(micro_batch, kind, "sum"), micro_batch.tokens

    def losses(self, items: Sequence[Item], split: str, kind: str = "nll") -> np.ndarray:
        """Return the loss of each sentence, in the order of `items`: (n, 2) float64, nats and target tokens."""
        micro_batch = self.collate(items, split)
        target = micro_batch.target[:, self.opened.settings.ignored_prefix :]
        with torch.no_grad():
            nats = self._cross_entropy(micro_batch, kind, "none").view(target.shape).double().sum(dim=1)
        found = np.empty((len(items), 2))
        found[micro_batch.order] = torch.stack([nats, target.ne(self._pad).sum(dim=1)], dim=1).cpu().numpy()
        return found

    def _cross_entropy(self, micro_batch: MicroBatch, kind: str, reduction: str) -> torch.Tensor:
        with compat.quiet():
            logits = self.opened.module(**micro_batch.net_input)[0]
        skip, vocabulary = self.opened.settings.ignored_prefix, logits.shape[-1]
        return functional.cross_entropy(
            logits[:, skip:].reshape(-1, vocabulary),
            micro_batch.target[:, skip:].reshape(-1),
            ignore_index=self._pad,
            reduction=reduction,
            label_smoothing=self.opened.smoothing(kind, vocabulary),
        )

    def translate(self, group: str, split: str, decoding: Decoding) -> Translations:
        """Return fairseq's translation of every sentence of the split, in order."""
        pair, held = self.opened.pair_of(group), self.split(group, split)
        hypotheses, truncated = translations(self.opened, pair, held.dataset, held.lengths[:, 0], decoding)
        texts, origin = references(self.opened, split, pair, held.dataset)
        return Translations(hypotheses, texts[: len(hypotheses)], origin, truncated)

    def split(self, group: str, name: str) -> Split:
        """Return the pairs of one group and split, read on the first call."""
        if (group, name) not in self._splits:
            self._splits[group, name] = self._read(group, name)
        return self._splits[group, name]

    def _read(self, group: str, name: str) -> Split:
        opened = self.opened
        source, target = opened.pair_of(group)
        prefix = opened.data.prefix(name, source, target)
        if prefix is None:
            raise DataError(opened.data.root, f"has no {name} set of {source}-{target}", "choose another split")
        manager = opened.task.data_manager
        dictionaries = manager.get_source_dictionary(source), manager.get_target_dictionary(target)
        counts = [
            opened.data.check(Path(f"{prefix}{side}"), len(dictionary))
            for side, dictionary in zip((source, target), dictionaries, strict=True)
        ]
        if counts[0] != counts[1]:
            raise DataError(f"{prefix}*", f"has {counts[0]} and {counts[1]} sentences", "binarise the text again")
        sides = source, dictionaries[0], target, dictionaries[1]
        tags = opened.task.args.langtoks["main"]
        how = {"combine": False, "data_category": "main", "langtok_spec": tags}
        dataset = manager.load_a_dataset(name, str(opened.data.bin), *sides, **how)
        lengths = np.asarray(dataset.sizes, dtype=np.int64)
        return Split(dataset, lengths, np.flatnonzero((lengths <= np.array(opened.limits)).all(axis=1)))
