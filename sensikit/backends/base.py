"""The protocol between sensikit and a framework: a module, its languages, sentences, a loss, and translations.

Everything else (which sentences make a batch, sensitivities, D, PCC, masks, sweeps, figures) is written once
against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    # the command line reads languages from here, and must answer before torch is loaded
    import numpy as np
    import torch
    from torch import nn

Item = tuple[str, int]
"""A sentence pair: its language, and its row in `Backend.sizes` of that language and split."""


@dataclass(frozen=True)
class Language:
    """One of the languages that English is paired with.

    `sizes` counts sentence pairs by split; `tier` is High, Low or Very Low.
    """

    code: str
    name: str
    family: str
    tier: str
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoding:
    """How to translate. Each of these moves BLEU, so each is in the signature.

    The longest output allowed is `max_len_a` · source tokens + `max_len_b` tokens; heavily pruned models run on to it.
    """

    beam: int = 5
    lenpen: float = 1.0
    max_len_a: float = 1.2
    max_len_b: int = 10
    max_sentences: int | None = None
    max_tokens: int = 4096


@dataclass(frozen=True)
class Translations:
    """Detokenised hypotheses and references of one split, in the order of the split."""

    hypotheses: list[str]
    references: list[str]
    references_from: str
    """Where the references come from: "text" (raw text beside the data) or "binarised" (decoded from it)."""
    truncated: int = 0
    """Sentences longer than the model's positions, translated from as much of them as it can take."""


@dataclass(frozen=True)
class Provenance:
    """What a backend measures: the checkpoint and the data, by SHA-256."""

    framework: str
    checkpoint: str
    checkpoint_sha256: str
    data: str
    data_sha256: str


class Backend(Protocol):
    """A trained model and its data, in one direction.

    `direction` is "xxx-eng" or "eng-xxx"; a language l then means the pairs l→eng or eng→l.
    """

    module: nn.Module
    languages: dict[str, Language]
    """Every training language of the direction, English left out, in a fixed order."""
    direction: str
    english: str
    """The code that the checkpoint has for English: `eng`, `en`, `en_XX`."""
    device: torch.device
    ghosts: frozenset[str]
    """Names of parameters that exist but never take part in the computation; left out of everything."""
    provenance: Provenance

    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        """Return the tokens of every pair, (n, 2) int64: source, target. What is a target is what the loss counts.

        Pairs longer than the model's positions have no row; `left_out` counts them.
        """
        ...

    def left_out(self, language: str, split: str = "train") -> int:
        """Return how many pairs of the split are longer than the model's positions, and so have no row in `sizes`."""
        ...

    def collate(self, items: Sequence[Item], split: str = "train") -> Any:
        """Return one padded piece of a batch, its languages mixed as they come, on `device`."""
        ...

    def loss(self, piece: Any, kind: str = "nll") -> tuple[torch.Tensor, int]:
        """Return the *summed* loss of a piece (scalar, nats) and the number of target tokens in it.

        In the module's own dtype and mode. `kind`: "nll" (cross-entropy without label smoothing) or "train" (the
        criterion of the training run).
        """
        ...

    def translate(self, language: str, split: str, decoding: Decoding) -> Translations:
        """Return a translation of every sentence of the split (its first `max_sentences`), none missing, in order.

        A sentence is translated even when `sizes` has no row for it. The module keeps its weights and its mode.
        """
        ...
