"""Denoising as the training plugin has it, of a checkpoint that was trained to: monolingual text, masked; L_e + L_d."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import ConcatDataset

from sensikit.backends.base import Item, Segments
from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.data import files_of
from sensikit.backends.fairseq.decoding import segments
from sensikit.backends.fairseq.model import Opened
from sensikit.backends.manifest import group_of
from sensikit.errors import DataError, OptionError
from sensikit.files import sha256_of
from sensikit.languages import Group, Pair
from sensikit.progress import progress
from sensikit.signature import rng
from sensikit.training.noise import MASK, OBJECTIVES, Example, Vocabulary

MOST = 300_000
"""Sentences of a language that are drawn from: more than 500 batches take; the noise of each is drawn to count it."""

SHOWN = range(4, 10)
"""Pieces of a sentence that can be read in a figure across both columns of a page."""

SIDES = ("decoder", "encoder")
"""Who predicts; the first of those that do is the term that batches are packed by."""


@dataclass(frozen=True)
class Text:
    """One language's sentences of one split.

    `data` are all of them with their </s>, `rows` (n,) int64 those that are drawn from, `sizes` (n, 1 + K) int64 the
    tokens of their examples; `left_out` counts those that are longer than the model's positions.
    """

    data: Any
    rows: np.ndarray
    sizes: np.ndarray
    left_out: int


@dataclass(frozen=True)
class Part:
    """Examples of one objective, padded on the right.

    source (B, S) and lengths (B,) int64; previous (B, T), or None where the decoder has no part; `targets` of each side
    that predicts, (B, S) or (B, T), are padding where nothing is to be predicted.
    """

    source: torch.Tensor
    lengths: torch.Tensor
    previous: torch.Tensor | None
    targets: dict[str, torch.Tensor]


def _pairs(opened: Opened) -> dict[str, Pair]:
    """Return, by language, the first pair that has its sentences: of each group's own, or of either side of a pair."""
    if all(key in pair for key, pair in opened.pairs.items()):
        return dict(opened.pairs)
    found: dict[str, Pair] = {}
    for pair in opened.pairs.values():
        for language in pair:
            found.setdefault(language, pair)
    return found


def _groups(opened: Opened, pairs: Mapping[str, Pair]) -> dict[str, Group]:
    """Return the groups of translation, where they are languages; the languages themselves, where they are pairs."""
    if list(pairs) == list(opened.groups):
        return dict(opened.groups)
    data, tiers = opened.data, opened.tiers
    return {code: group_of(code, None, data.counts(*pair), data.manifest, tiers) for code, pair in pairs.items()}


class Denoising:
    """The self-supervised task of a fairseq checkpoint, one term for each side that predicts; see `base.Task`.

    The sentences of language l are the l side of its bitext, or DATA/bin/mono/mono.l (of training alone), or both, as
    the model's --mono had it; its --mono-cap plays no part. As in training, the tag on source and decoder input is that
    of l itself, in either direction: into English, translation never sees it. The noise of a sentence depends on the
    seed, its language and its place in the text, on nothing else. The encoder predicts through the decoder's output
    projection, or through the one of its own that the model was trained with. That one is held fixed: it has no part in
    translation, and S is of the parameters of translation in either task, so that the two can be compared.
    """

    name = "denoise"

    def __init__(self, opened: Opened, seed: int) -> None:
        names = opened.settings.training["denoise"].split(",")
        ratio = opened.settings.training["mask_ratio"]
        self.opened, self.seed, self.kinds = opened, seed, opened.kinds
        self.ratios = {name: ratio or OBJECTIVES[name].ratio for name in names}
        self.terms = tuple(side for side in SIDES if any(side in OBJECTIVES[name].sides for name in names))
        tags = {code: opened.parts.get_lang_tok(code, opened.task.args.lang_tok_style) for code in opened.task.langs}
        self.dictionary = opened.task.source_dictionary
        self.tags = {code: self.dictionary.index(tag) for code, tag in tags.items()}
        self.vocabulary = Vocabulary.of(self.dictionary, list(tags.values()))
        if self.vocabulary.mask == self.dictionary.unk():
            raise DataError(opened.data.root, f"{MASK} is in no dictionary", "give the data of this checkpoint")
        self.pairs = _pairs(opened)
        self.groups, self.direction = _groups(opened, self.pairs), opened.direction
        self.extra = {} if opened.settings.mono == "bitext" else opened.data.monolingual(self.groups)
        self.digest = sha256_of(*(opened.data.digest(path) for stem in self.extra.values() for path in files_of(stem)))
        self._texts: dict[tuple[str, str], Text] = {}

    def choices(self) -> dict[str, str]:
        """Return the objectives with the share that they mask, and what text: extra files by their SHA-256."""
        noise = "+".join(f"{name}{ratio:g}" for name, ratio in self.ratios.items())
        mono = self.opened.settings.mono
        return {"noise": noise, "mono": f"{mono}/{self.digest[:8]}" if self.extra else mono}

    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        """Return (n, 1 + K) int64: the tokens of the source, and how many each term predicts."""
        return self.text(language, split).sizes

    def left_out(self, language: str, split: str = "train") -> int:
        """Return how many sentences are longer than the model's positions: training does not see them either."""
        return self.text(language, split).left_out

    def collate(self, items: Sequence[Item], split: str = "train") -> list[Part]:
        """Return the sentences under each objective, whatever their languages, on the device."""
        found = [(code, self.text(code, split), row) for code, row in items]
        rows = [(code, split, text.data, int(text.rows[row])) for code, text, row in found]
        return [self._part([self._noised(name, *row) for row in rows]) for name in self.ratios]

    def loss(self, micro_batch: list[Part], kind: str = "nll") -> tuple[torch.Tensor, tuple[int, ...]]:
        """Return the summed loss (nats) and the targets of each term, in the module's dtype and mode.

        "train" has label smoothing in every term, as in training.
        """
        losses: dict[str, list[torch.Tensor]] = {side: [] for side in self.terms}
        counts = dict.fromkeys(self.terms, 0)
        for side, logits, target, _ in self._predicted(micro_batch):
            losses[side].append(self._cross_entropy(logits, target, kind, "sum"))
            counts[side] += len(target)
        return torch.stack([torch.stack(each).sum() for each in losses.values()]), tuple(counts.values())

    def losses(self, items: Sequence[Item], split: str, kind: str = "nll") -> np.ndarray:
        """Return the loss of each sentence, in order: (n, 2·K) float64, nats and targets of each term in turn."""
        found = np.zeros((len(items), 2 * len(self.terms)))
        with torch.no_grad():
            for side, logits, target, rows in self._predicted(self.collate(items, split)):
                nats = self._cross_entropy(logits, target, kind, "none").double()
                place, sentence = 2 * self.terms.index(side), rows.cpu().numpy()
                found[:, place] += np.bincount(sentence, nats.cpu().numpy(), len(items))
                found[:, place + 1] += np.bincount(sentence, minlength=len(items))
        return found

    def _cross_entropy(self, logits: torch.Tensor, target: torch.Tensor, kind: str, reduction: str) -> torch.Tensor:
        smoothing = self.opened.smoothing(kind, logits.shape[-1])
        return functional.cross_entropy(logits, target, reduction=reduction, label_smoothing=smoothing)

    def segments(self, group: str, split: str = "train") -> Segments:
        """Return what tells the sentences apart: those of the pairs that they stand in; of training text, their places.

        Extra monolingual text belongs to no pair.
        """
        text = self.text(group, split)
        if split == "train":
            return Segments([f"{group} {row}" for row in range(len(text.data))], text.rows, "own")
        return segments(self.opened, split, self.pairs[group], text.rows)

    def bytes(self, group: str, split: str = "train") -> None:
        """Return nothing: what is predicted is masked words, in two stacks."""

    def layout(self, languages: Sequence[str], split: str = "train") -> pd.DataFrame | None:
        """Return a sentence of each language as concurrent denoising has it; see `base.Task`.

        It is the first of the language that is short enough to be read in a figure and has a word masked.
        """
        if "cd" not in self.ratios:
            return None
        found = [rows for code in languages if (rows := self._layout(code, split)) is not None]
        return pd.concat(found, ignore_index=True) if found else None

    def text(self, language: str, split: str) -> Text:
        """Return the sentences of a language and split, read and counted on the first call."""
        if language not in self.pairs:
            raise OptionError(language, "is no group of the checkpoint here", f"it has {', '.join(self.pairs)}")
        if (language, split) not in self._texts:
            self._texts[language, split] = self._read(language, split)
        return self._texts[language, split]

    def _read(self, language: str, split: str) -> Text:
        datasets = self._datasets(language, split)
        data: Any = ConcatDataset(datasets) if datasets else []
        lengths = np.concatenate([np.empty(0, np.int64), *(np.asarray(each.sizes) for each in datasets)])
        longest = min(self.opened.limits)  # the sentence stands on both sides
        rows = np.flatnonzero((lengths > 1) & (lengths <= longest))
        if len(rows) > MOST:
            rows = np.sort(rng(self.seed, "text", language, split).choice(rows, MOST, replace=False))
        sizes = np.empty((len(rows), 1 + len(self.terms)), dtype=np.int64)
        with progress(len(rows), f"noise of {language}", "sentences") as bar:
            for size, row in zip(sizes, rows, strict=True):
                size[:] = self._counted([self._noised(name, language, split, data, int(row)) for name in self.ratios])
                bar.advance()
        fits = sizes[:, 0] <= longest  # noise may lengthen a sentence
        return Text(data, rows[fits], sizes[fits], int((lengths > longest).sum() + (~fits).sum()))

    def _datasets(self, language: str, split: str) -> list[Any]:
        """Return fairseq's datasets of the language's side of the bitext, and of its extra text."""
        opened = self.opened
        stems = []
        if opened.settings.mono != "extra" or split != "train":
            pair = self.pairs[language]
            prefix = opened.data.prefix(split, *pair)
            if prefix is None:
                raise DataError(opened.data.root, f"has no {split} set of {'-'.join(pair)}", "choose another split")
            stems.append(prefix.with_name(prefix.name + language))
        if split == "train" and language in self.extra:
            stems.append(self.extra[language])
        for stem in stems:
            opened.data.check(stem, len(self.dictionary))
        return [opened.task.data_manager.load_data(str(stem), self.dictionary, None) for stem in stems]

    def _noised(self, objective: str, language: str, split: str, data: Any, row: int) -> Example:
        chance = rng(self.seed, "noise", objective, language, split, str(row))
        pieces = data[row].numpy()[:-1]
        return OBJECTIVES[objective].make(pieces, self.tags[language], self.vocabulary, self.ratios[objective], chance)

    def _counted(self, examples: Sequence[Example]) -> list[int]:
        """Return the tokens of the longest source of a sentence's examples, and the targets of each term."""
        targets = {side: [getattr(example, f"{side}_target") for example in examples] for side in self.terms}
        pad = self.vocabulary.pad
        counts = [sum(int((each != pad).sum()) for each in targets[side] if each is not None) for side in self.terms]
        return [max(len(example.source) for example in examples), *counts]

    def _layout(self, language: str, split: str) -> pd.DataFrame | None:
        text = self.text(language, split)
        # the tokens of a source are the pieces and the tag; rows of another length need not be read
        for row in text.rows[np.isin(text.sizes[:, 0] - 1, SHOWN)]:
            example = self._noised("cd", language, split, text.data, int(row))
            parts = (example.source, example.encoder_target, example.previous, example.decoder_target)
            source, encoder, previous, decoder = (self._pieces(part) for part in parts)
            if MASK in source:
                return pd.DataFrame(
                    {"group": language, "position": range(len(source)), "source": source, "encoder_target": encoder,
                     "decoder_input": previous, "decoder_target": decoder}
                )  # fmt: skip
        return None

    def _pieces(self, tokens: np.ndarray | None) -> list[str]:
        """Return tokens as they are written in the dictionary, padding as nothing."""
        assert tokens is not None  # concurrent denoising predicts on both sides
        return ["" if token == self.vocabulary.pad else self.dictionary[int(token)] for token in tokens]

    def _part(self, examples: Sequence[Example]) -> Part:
        source, previous, encoder, decoder = (self._padded(rows) for rows in zip(*examples, strict=True))
        lengths = torch.tensor([len(example.source) for example in examples], device=self.opened.device)
        targets = {side: each for side, each in (("decoder", decoder), ("encoder", encoder)) if each is not None}
        assert source is not None
        return Part(source, lengths, previous, targets)

    def _padded(self, rows: Sequence[np.ndarray | None]) -> torch.Tensor | None:
        tensors = [torch.from_numpy(row) for row in rows if row is not None]
        padded = pad_sequence(tensors, batch_first=True, padding_value=self.vocabulary.pad) if tensors else None
        return None if padded is None else padded.to(self.opened.device)

    def _predicted(self, parts: Sequence[Part]) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield each side with its logits (N, V), targets (N,) and rows (N,), of positions that bear a loss alone."""
        model: Any = self.opened.module
        with compat.quiet():
            for part in parts:
                encoded = model.encoder(part.source, part.lengths)
                for side, target in part.targets.items():
                    scored = target.ne(self.vocabulary.pad)
                    if side == "decoder":
                        states = model.decoder(part.previous, encoder_out=encoded, features_only=True)[0][scored]
                    else:
                        states = encoded["encoder_out"][0].transpose(0, 1)[scored]
                    own = self.opened.projection if side == "encoder" else None
                    project = (
                        model.decoder.output_layer if own is None else lambda x, w=own: functional.linear(x, w.to(x))
                    )
                    yield side, project(states), target[scored], scored.nonzero()[:, 0]
