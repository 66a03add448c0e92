"""One real sentence under concurrent denoising, token by token: what Figure 4 of the paper draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sensikit.backends.base import Backend
from sensikit.errors import DataError, OptionError
from sensikit.figures.tokens import token_rows
from sensikit.sensitivity.batches import rng
from sensikit.training.denoising import OBJECTIVES, Example

LONGEST = 9
"""Pieces of a sentence that can still be read in a figure across both columns of a page."""


def example_rows(example: Example, symbols: Sequence[str], pad: int) -> pd.DataFrame:
    """Return what `figures.token_layout` draws of an example that both sides predict.

    Args:
        example: of concurrent denoising.
        symbols: of the dictionary, by index.
        pad: the index that stands where nothing is to be predicted.

    Raises:
        OptionError: if one of the sides does not predict.
    """
    if example.previous is None or example.encoder_target is None or example.decoder_target is None:
        raise OptionError("example", "is not predicted on both sides", "give one of concurrent denoising")

    def words(tokens: np.ndarray) -> list[str]:
        return ["" if token == pad else symbols[token] for token in tokens.tolist()]

    parts = (example.source, example.encoder_target, example.previous, example.decoder_target)
    return token_rows(*map(words, parts))


def sentence_layout(backend: Backend, language: str, seed: int = 1, split: str = "valid") -> pd.DataFrame:
    """Return the layout of the first sentence of a language that is short enough to be read, and partly predicted.

    Args:
        backend: a fairseq checkpoint that was trained with concurrent denoising.
        language: whose sentence.
        seed: of the noise.
        split: of the data.

    Raises:
        OptionError: if the checkpoint was not trained so.
        DataError: if no sentence is short enough.
    """
    from sensikit.backends.fairseq_denoising import Denoising

    found = backend.examples("denoise", seed) if "denoise" in backend.tasks else None
    if not isinstance(found, Denoising) or "cd" not in found.ratios:
        raise OptionError(backend.provenance.checkpoint, "was not trained with concurrent denoising", "give another")
    text = found.text(language, split)
    for row in text.rows:
        pieces = text.data[int(row)].numpy()[:-1]
        if not 4 <= len(pieces) <= LONGEST:
            continue
        chance = rng(seed, "layout", language, split, str(row))
        example = OBJECTIVES["cd"].make(pieces, found.tags[language], found.vocabulary, found.ratios["cd"], chance)
        rows = example_rows(example, found.dictionary.symbols, found.vocabulary.pad)
        if (rows["source"] == "<mask>").any():
            return rows
    raise DataError(language, f"has no {split} sentence of 4 to {LONGEST} pieces", "choose another language")
