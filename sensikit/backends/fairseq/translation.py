"""Checkpoints of fairseq-train: the transformer family, trained on translation_multi_simple_epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sensikit.backends.base import Decoding, Examples, Item, Language, Provenance, Translations
from sensikit.backends.fairseq import checkpoint as checkpoints
from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.data import DataBin, open_data
from sensikit.backends.fairseq.decoding import references, translations
from sensikit.backends.fairseq.denoising import Denoising
from sensikit.backends.fairseq.model import Pair, build_model, build_task, encoder_projection, pairs_of, pick_device
from sensikit.backends.fairseq.settings import Trained, trained
from sensikit.errors import DataError, OptionError
from sensikit.languages import canonical, language


@dataclass(frozen=True)
class Piece:
    """Some sentence pairs, padded: what the model is fed, what it should say (B, T) int64, how many tokens count."""

    net_input: dict[str, torch.Tensor]
    target: torch.Tensor
    tokens: int


@dataclass(frozen=True)
class Split:
    """One language's pairs of one split.

    `dataset` is fairseq's, `lengths` (N, 2) int64 its tokens, `rows` (n,) int64 the pairs within the positions.
    """

    dataset: Any
    lengths: np.ndarray
    rows: np.ndarray


class FairseqBackend:
    """A fairseq model and its data in one direction; see `sensikit.backends.base.Backend`."""

    def __init__(
        self,
        module: nn.Module,
        task: Any,
        parts: SimpleNamespace,
        settings: Trained,
        data: DataBin,
        pairs: Mapping[str, Pair],
        direction: str,
        english: str,
        device: torch.device,
        provenance: Provenance,
        projection: torch.Tensor | None = None,
    ) -> None:
        self.module = module.to(device)
        self.projection = None if projection is None else projection.to(device)
        self.direction, self.english, self.device = direction, english, device
        self.ghosts = compat.ghosts(module)
        self.provenance, self.training = provenance, settings.training
        self.languages = {code: _language(code, data, pair) for code, pair in pairs.items()}
        self.task, self.parts, self.settings, self.data, self.pairs = task, parts, settings, data, dict(pairs)
        self.tasks: tuple[str, ...] = ("mt", "denoise") if settings.training["denoise"] else ("mt",)
        self._splits: dict[tuple[str, str], Split] = {}
        self._denoising: dict[int, Denoising] = {}

    def examples(self, task: str, seed: int) -> Examples:
        """Return those of translation, this itself, or of the denoising that the checkpoint was trained on."""
        if task == "mt":
            return self
        if seed not in self._denoising:
            self._denoising[seed] = Denoising(self, seed)
        return self._denoising[seed]

    def choices(self) -> dict[str, str]:
        """Return nothing: translation has no choice that denoising lacks."""
        return {}

    @property
    def limits(self) -> tuple[int, int]:
        """Return the most tokens of a source and of a target that the model has positions for."""
        model: Any = self.module
        source, target = model.max_positions()
        return int(source), int(target)

    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        """Return (n, 2) int64, the source and target tokens of every pair that the model has positions for.

        Language tags and </s> are among them wherever they stand; what the training criterion ignored is not a target.
        """
        held = self.split(language, split)
        ignored = np.array([0, self.settings.ignored_prefix])
        sizes: np.ndarray = np.maximum(held.lengths[held.rows] - ignored, 0)
        return sizes

    def left_out(self, language: str, split: str = "train") -> int:
        """Return how many pairs are longer than the model's positions: fairseq-train does not see them either."""
        held = self.split(language, split)
        return len(held.lengths) - len(held.rows)

    def layout(self, languages: Sequence[str], split: str = "train") -> None:
        """Return nothing: in translation the two sides say different things, and stand at no common positions."""

    def collate(self, items: Sequence[Item], split: str = "train") -> Piece:
        """Return the sentences, whatever their languages, as one padded piece on the device.

        Rows come language by language, in each by falling source length.
        """
        grouped: dict[str, list[int]] = {}
        for code, row in items:
            grouped.setdefault(code, []).append(int(self.split(code, split).rows[row]))
        longest = np.max([self.split(code, split).lengths[rows].max(axis=0) for code, rows in grouped.items()], axis=0)
        width = {"source": int(longest[0]), "target": int(longest[1])}
        samples = []
        for code, rows in grouped.items():
            dataset = self.split(code, split).dataset
            samples.append(dataset.collater([dataset[row] for row in rows], pad_to_length=width))
        target = torch.cat([sample["target"] for sample in samples])
        counted = target[:, self.settings.ignored_prefix :].ne(self.task.target_dictionary.pad())
        net_input = {
            name: torch.cat([sample["net_input"][name] for sample in samples]).to(self.device)
            for name in ("src_tokens", "src_lengths", "prev_output_tokens")
        }
        return Piece(net_input, target.to(self.device), int(counted.sum()))

    def loss(self, piece: Piece, kind: str = "nll") -> tuple[torch.Tensor, int]:
        """Return the summed loss (nats) and the target tokens of a piece, in the module's dtype and mode.

        "train" is, where it was trained with label smoothing, fairseq's (1-ε-ε/(V-1))·nll + ε/(V-1)·Σ_v -log p_v.
        fairseq's own log_softmax is always float32; here it has the dtype of the logits: a model in float64 stays so.

        Raises:
            OptionError: if `kind` is unknown, or the checkpoint was trained with a criterion that is.
        """
        with compat.quiet():
            logits = self.module(**piece.net_input)[0]
        skip = self.settings.ignored_prefix
        vocabulary = logits.shape[-1]
        loss = functional.cross_entropy(
            logits[:, skip:].reshape(-1, vocabulary),
            piece.target[:, skip:].reshape(-1),
            ignore_index=self.task.target_dictionary.pad(),
            reduction="sum",
            label_smoothing=self.smoothing(kind, vocabulary),
        )
        return loss, piece.tokens

    def smoothing(self, kind: str, vocabulary: int) -> float:
        """Return torch's smoothing that is fairseq's ε over the other words: ε·V/(V-1), or 0 without.

        Raises:
            OptionError: if `kind` is unknown, or the checkpoint was trained with a criterion that is.
        """
        if kind not in ("nll", "train"):
            raise OptionError("--loss", f"{kind!r} is unknown", "give nll or train")
        if kind == "train" and not self.settings.criterion:
            raise OptionError("--loss", "the criterion that the checkpoint was trained with is unknown", "give nll")
        smoothed = kind == "train" and self.settings.criterion != "cross_entropy"
        return self.settings.label_smoothing * vocabulary / (vocabulary - 1) if smoothed else 0.0

    def translate(self, language: str, split: str, decoding: Decoding) -> Translations:
        """Return fairseq's translation of every sentence of the split, in order."""
        held = self.split(language, split)
        hypotheses, truncated = translations(self, self.pairs[language], held.dataset, held.lengths[:, 0], decoding)
        texts, origin = references(self, split, self.pairs[language], held.dataset)
        return Translations(hypotheses, texts[: len(hypotheses)], origin, truncated)

    def split(self, language: str, name: str) -> Split:
        """Return the pairs of one language and split, read on the first call.

        Raises:
            OptionError: if the checkpoint was not trained on the language.
            DataError: if the split is missing, empty, damaged, or belongs to another dictionary.
        """
        if (language, name) not in self._splits:
            self._splits[language, name] = self._read(language, name)
        return self._splits[language, name]

    def pair_of(self, language: str) -> Pair:
        """Return (source, target) of a language.

        Raises:
            OptionError: if the checkpoint was not trained on it.
        """
        if language not in self.pairs:
            known = ", ".join(self.pairs)
            raise OptionError(language, "is no language of the checkpoint in this direction", f"it has {known}")
        return self.pairs[language]

    def _read(self, language: str, name: str) -> Split:
        source, target = self.pair_of(language)
        prefix = self.data.prefix(name, source, target)
        if prefix is None:
            raise DataError(self.data.root, f"has no {name} set of {source}-{target}", "choose another split")
        manager = self.task.data_manager
        dictionaries = manager.get_source_dictionary(source), manager.get_target_dictionary(target)
        counts = [
            self.data.check(Path(f"{prefix}{side}"), len(dictionary))
            for side, dictionary in zip((source, target), dictionaries, strict=True)
        ]
        if counts[0] != counts[1]:
            raise DataError(f"{prefix}*", f"has {counts[0]} and {counts[1]} sentences", "binarise the text again")
        dataset = manager.load_a_dataset(
            name,
            str(self.data.bin),
            source,
            dictionaries[0],
            target,
            dictionaries[1],
            combine=False,
            data_category="main",
            langtok_spec=self.task.args.langtoks["main"],
        )
        lengths = np.asarray(dataset.sizes, dtype=np.int64)
        return Split(dataset, lengths, np.flatnonzero((lengths <= np.array(self.limits)).all(axis=1)))


def open_checkpoint(checkpoint: Path, data: Path, direction: str | None = None, device: str = "auto") -> FairseqBackend:
    """Return the backend of `checkpoint` and `data`; nothing inside the checkpoint is run.

    Args:
        checkpoint: a file that fairseq-train wrote.
        data: what `sensikit corpus` wrote, or a fairseq data directory.
        direction: "xxx-eng", "eng-xxx", or None for the one that it was trained on, xxx-eng if both.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        CheckpointError: if the checkpoint cannot be read safely, or is not one of these.
        DataError: if the data do not belong to it.
        OptionError: if the direction or the device does not exist.
        MissingDependencyError: if fairseq is not installed.
    """
    where = pick_device(device)
    directory = open_data(Path(data))
    file = checkpoints.read(Path(checkpoint))
    settings = trained(file)
    chosen, english, pairs = pairs_of(settings, direction)
    parts = compat.load()
    task = build_task(parts, settings, list(pairs.values()), directory)
    provenance = Provenance(
        framework=f"fairseq ({settings.task}, {settings.arch})",
        checkpoint=str(checkpoint),
        checkpoint_sha256=file.sha256,
        data=str(data),
        data_sha256=directory.fingerprint(pairs.values()),
    )
    module = build_model(settings, file, task, directory)
    own = encoder_projection(settings, file)
    return FairseqBackend(module, task, parts, settings, directory, pairs, chosen, english, where, provenance, own)


def _language(code: str, data: DataBin, pair: Pair) -> Language:
    """Return what the manifest, or else our own table, knows of a language, with its pairs counted."""
    sizes = data.counts(*pair)
    noted = data.manifest.get("languages", {}).get(code)
    if isinstance(noted, dict):
        name, family, tier = (str(noted.get(key, "")) for key in ("name", "family", "tier"))
        return Language(code, name or code, family, tier, sizes)
    return replace(language(canonical(code) or code, sizes), code=code)
