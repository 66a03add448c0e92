"""The protocol between sensikit and a framework: a module, its languages, sentences, a loss, and translations.

Everything else (which sentences make a batch, sensitivities, D, PCC, masks, sweeps, figures) is written once
against this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sensikit.errors import OptionError

if TYPE_CHECKING:
    # the command line reads languages from here, and must answer before torch is loaded
    import numpy as np
    import pandas as pd
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

    def check(self) -> None:
        """Refuse what cannot be carried out.

        Raises:
            OptionError: naming the option.
        """
        least = {"--beam": self.beam, "--max-sentences": self.max_sentences, "--max-tokens": self.max_tokens}
        for option, number in least.items():
            if number is not None and number < 1:
                raise OptionError(option, f"{number} is too few", "give 1 or more")
        if not math.isfinite(self.lenpen):
            raise OptionError("--lenpen", f"{self.lenpen:g} is not a finite number", "1 leaves scores per token")
        longest = (self.max_len_a, self.max_len_b)
        if not all(math.isfinite(part) and part >= 0 for part in longest) or longest == (0, 0):
            problem = "{:g},{:g} allows no output of finite length".format(*longest)
            raise OptionError("--max-len", problem, "write for example 1.2,10")

    def choices(self, split: str, references: str) -> dict[str, Any]:
        """Return what a signature says of a translation: of which split, how, and where the references come from."""
        return {
            "split": split,
            "beam": self.beam,
            "lenpen": self.lenpen,
            # the cap counts from the longest source decoded at a time, so how many are belongs to it
            "maxlen": f"{self.max_len_a:g}x+{self.max_len_b}/{self.max_tokens}",
            "sents": self.max_sentences or "all",
            "refs": references,
        }


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


class Examples(Protocol):
    """The sentences of one task, and what the model loses on them."""

    def choices(self) -> dict[str, str]:
        """Return what belongs into a signature because of this task alone."""
        ...

    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        """Return the tokens of every example, (n, 1 + K) int64: of the source, and targets of each of the K terms.

        What is a target is what the loss counts; translation has one term. Examples longer than the model's positions
        have no row; `left_out` counts them.
        """
        ...

    def left_out(self, language: str, split: str = "train") -> int:
        """Return how many examples of the split are longer than the model's positions, and so have no row."""
        ...

    def collate(self, items: Sequence[Item], split: str = "train") -> Any:
        """Return one padded piece of a batch, its languages mixed as they come, on `device`."""
        ...

    def layout(self, languages: Sequence[str], split: str = "train") -> pd.DataFrame | None:
        """Return how one sentence of each language looks to the model, token by token (Figure 4); None of translation.

        One row for each position: language, position, what the encoder reads (`source`) and predicts
        (`encoder_target`), what the decoder reads (`decoder_input`) and predicts (`decoder_target`), as they are
        written in the dictionary. A target is empty where nothing is to be predicted.
        """
        ...

    def loss(self, piece: Any, kind: str = "nll") -> tuple[torch.Tensor, int | tuple[int, ...]]:
        """Return the *summed* loss of a piece (nats) and the number of target tokens in it, of each term.

        A scalar and a number for one term, a (K,) tensor and K numbers for several: what is to be minimised is the sum
        of the terms, each divided by its own tokens in the whole batch. In the module's own dtype and mode. `kind`:
        "nll" (cross-entropy without label smoothing) or "train" (the criterion of the training run).
        """
        ...


class Backend(Examples, Protocol):
    """A trained model and its data, in one direction; as `Examples`, it has those of translation.

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
    """Names of parameters that exist but never take part in translation; left out of everything, in every task."""
    provenance: Provenance
    training: Mapping[str, Any]
    """How it was trained, as far as the checkpoint says: its method, its updates; empty if it does not say."""
    tasks: tuple[str, ...]
    """What it was trained to do: "mt", and "denoise" where it was."""

    def examples(self, task: str, seed: int) -> Examples:
        """Return the examples of one of its tasks, the same at every call; `seed` decides their noise.

        A language l then means, for denoising, the monolingual sentences of l, whatever the direction.
        """
        ...

    def translate(self, language: str, split: str, decoding: Decoding) -> Translations:
        """Return a translation of every sentence of the split (its first `max_sentences`), none missing, in order.

        A sentence is translated even when `sizes` has no row for it. The module keeps its weights and its mode.
        """
        ...
