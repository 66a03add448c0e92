"""Noise: what a sentence is turned into, and what is to be said of it, in each self-supervised objective.

Everywhere the tag of the target language replaces </s> at the end of the source and starts the decoder's input, for
translation too (Figure 4). Nothing is changed in place: fairseq's datasets hand out the same tensor again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

MASK = "<mask>"
SPACE = "▁"
KEPT, MASKED, RANDOM = 0, 1, 2
FATES = (0.1, 0.8, 0.1)
"""Shares of what is chosen that are kept, masked and replaced (Section 4.1, after BERT)."""


@dataclass(frozen=True)
class Vocabulary:
    """What noise needs to know of a dictionary.

    `starts` (V,) bool: pieces that begin a word; `special` (V,) bool: symbols that are no text, and never a target;
    `text` (R,) int64: the pieces that may stand for others.
    """

    pad: int
    end: int
    mask: int
    starts: np.ndarray
    special: np.ndarray
    text: np.ndarray

    @classmethod
    def of(cls, dictionary: Any, tags: Collection[str]) -> Vocabulary:
        """Return that of a fairseq dictionary with these language tags.

        Where no piece has SentencePiece's sign of a space, every piece is a word.
        """
        symbols = np.array(dictionary.symbols)
        special = np.isin(symbols, [*tags, MASK]) | (np.arange(len(symbols)) < dictionary.nspecial)
        filler = np.char.startswith(symbols, "madeupword")  # fairseq pads dictionaries to a multiple of 8
        starts = np.char.startswith(symbols, SPACE)
        return cls(
            pad=dictionary.pad(),
            end=dictionary.eos(),
            mask=dictionary.index(MASK),
            starts=starts if starts.any() else np.ones_like(starts),
            special=special,
            text=np.flatnonzero(~special & ~filler),
        )


class Example(NamedTuple):
    """A sentence as the model sees it: each part (length,) int64, or None where the objective has no such side.

    A target is `pad` where nothing is to be predicted.
    """

    source: np.ndarray
    previous: np.ndarray | None = None
    encoder_target: np.ndarray | None = None
    decoder_target: np.ndarray | None = None


class Objective(NamedTuple):
    """`make` takes the pieces of a sentence (n,) without </s>, its tag, the vocabulary, the share to mask, and chance.

    `sides` predict; `ratio` is masked by default.
    """

    make: Callable[[np.ndarray, int, Vocabulary, float, Generator], Example]
    sides: tuple[str, ...]
    ratio: float


def translation(source: np.ndarray, target: np.ndarray, tag: int) -> Example:
    """Return a sentence pair; both sides come with their </s>, and that of the source gives way to the tag."""
    return Example(np.append(source[:-1], tag), np.append(tag, target[:-1]), None, target)


def concurrent_denoising(pieces: np.ndarray, tag: int, vocabulary: Vocabulary, ratio: float, rng: Generator) -> Example:
    """Return an example of concurrent denoising (Section 4.1, Figure 4); `ratio` of the words are chosen.

    Source and decoder input are of one length, and encoder and decoder predict the same token at the same position:
    those of the chosen words. The decoder reads the clean sentence; the last position, the tag's, is never a target.
    """
    fate = word_fates(pieces, vocabulary, ratio, rng)
    target = targets(pieces, fate >= 0, vocabulary)
    source = corrupted(pieces, fate, vocabulary, rng)
    return Example(np.append(source, tag), np.append(tag, pieces), target, target)


def masked_language_model(
    pieces: np.ndarray, tag: int, vocabulary: Vocabulary, ratio: float, rng: Generator
) -> Example:
    """Return an example of MLM (Devlin et al., 2019; beside DAE in Wang et al., 2020): the encoder alone predicts.

    Wang et al. give it a projection of its own: --separate-projection. The released baseline also ran the decoder, for
    nothing, and with intra-distillation its loss was lost (overwritten by another's).
    """
    example = concurrent_denoising(pieces, tag, vocabulary, ratio, rng)
    return example._replace(previous=None, decoder_target=None)


def denoising_autoencoder(
    pieces: np.ndarray, tag: int, vocabulary: Vocabulary, ratio: float, rng: Generator
) -> Example:
    """Return an example of DAE as mBART has it (Liu et al., 2020), and NLLB after it: the decoder says the sentence.

    See `infilled` for the noise; sentences come one by one, so that there is no order of sentences to permute. The
    released baseline was weaker: single words for spans (its --poisson-lambda and --permute had no effect), no tag on
    the source, and <mask> in the targets of sentences that were not packed into blocks.
    """
    source = infilled(pieces, vocabulary, ratio, rng)
    return Example(np.append(source, tag), np.append(tag, pieces), None, np.append(pieces, vocabulary.end))


def masked_sequence_to_sequence(
    pieces: np.ndarray, tag: int, vocabulary: Vocabulary, ratio: float, rng: Generator
) -> Example:
    """Return an example of MASS (Song et al., 2019): one fragment is masked, and the decoder predicts that alone.

    `ratio` of the pieces (half in their paper), from anywhere, 8:1:1 as in BERT; the decoder reads only what precedes
    within the fragment and <mask> elsewhere, each at its own position. The released baseline was weaker: 0.3 of a block
    of sentences, never its last pieces, all <mask>, the decoder's positions counted from the fragment.
    """
    length = max(1, round(ratio * len(pieces)))
    start = int(rng.integers(0, len(pieces) - length + 1))
    inside = np.zeros(len(pieces), bool)
    inside[start : start + length] = True
    fate = np.where(inside, rng.choice(len(FATES), len(pieces), p=FATES), -1)
    read = np.where(inside, pieces, vocabulary.mask)
    read[start + length - 1] = vocabulary.mask
    source = corrupted(pieces, fate, vocabulary, rng)
    return Example(np.append(source, tag), np.append(tag, read), None, targets(pieces, inside, vocabulary))


OBJECTIVES = {
    "cd": Objective(concurrent_denoising, ("encoder", "decoder"), 0.3),
    "dae": Objective(denoising_autoencoder, ("decoder",), 0.3),  # mBART's code; its text says 0.35
    "mlm": Objective(masked_language_model, ("encoder",), 0.3),
    "mass": Objective(masked_sequence_to_sequence, ("decoder",), 0.5),
}


def words_of(pieces: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return the number of the word that each piece belongs to, (n,) from 0; the first piece begins one in any case."""
    starts = vocabulary.starts[pieces]
    starts[:1] = True
    number: np.ndarray = np.cumsum(starts) - 1
    return number


def word_fates(pieces: np.ndarray, vocabulary: Vocabulary, ratio: float, rng: Generator) -> np.ndarray:
    """Return the fate of each piece, (n,), one for a word: -1 if it is not chosen, else KEPT, MASKED or RANDOM."""
    word = words_of(pieces, vocabulary)
    count = int(word[-1]) + 1
    fate = np.full(count, -1)
    chosen = rng.choice(count, rounded(ratio * count, rng), replace=False)
    fate[chosen] = rng.choice(len(FATES), len(chosen), p=FATES)
    fates: np.ndarray = fate[word]
    return fates


def rounded(number: float, rng: Generator) -> int:
    """Return `number` rounded up or down at random, so that its mean is kept."""
    return int(number + rng.random())


def targets(pieces: np.ndarray, chosen: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return the chosen pieces that are text, `pad` elsewhere and at one position more, the tag's: (n + 1,)."""
    wanted = chosen & ~vocabulary.special[pieces]
    return np.append(np.where(wanted, pieces, vocabulary.pad), vocabulary.pad)


def corrupted(pieces: np.ndarray, fate: np.ndarray, vocabulary: Vocabulary, rng: Generator) -> np.ndarray:
    """Return the pieces with <mask> where MASKED, and a random piece of text (no tag, no <mask>) where RANDOM."""
    replaced = np.where(fate == MASKED, vocabulary.mask, pieces)
    return np.where(fate == RANDOM, rng.choice(vocabulary.text, len(pieces)), replaced)


def infilled(
    pieces: np.ndarray,
    vocabulary: Vocabulary,
    ratio: float,
    rng: Generator,
    span: float = 3.5,
    random_share: float = 0.1,
) -> np.ndarray:
    """Return the pieces with spans of words replaced by one <mask> each, or by one random piece.

    Args:
        pieces: (n,) of a sentence.
        vocabulary: of the pieces.
        ratio: share of the words that are in a span.
        rng: decides.
        span: mean of the Poisson distribution of the words in a span; a span of none inserts a <mask>.
        random_share: of the spans, become a random piece.
    """
    words = np.split(pieces, np.flatnonzero(np.diff(words_of(pieces, vocabulary))) + 1)
    lengths = span_lengths(rounded(ratio * len(words), rng), span, rng)
    kept = len(words) - sum(lengths)
    # a span of no words has a slot too: its <mask> is inserted
    slots = set(rng.choice(kept + len(lengths), len(lengths), replace=False).tolist())
    result, word, left = [], 0, iter(lengths)
    for slot in range(kept + len(lengths)):
        if slot in slots:
            word += next(left)
            filler = rng.choice(vocabulary.text) if rng.random() < random_share else vocabulary.mask
            result.append(np.array([filler]))
        else:
            result.append(words[word])
            word += 1
    return np.concatenate(result)


def span_lengths(total: int, mean: float, rng: Generator) -> list[int]:
    """Return Poisson lengths that sum to `total`, the last one cut short."""
    lengths: list[int] = []
    while (left := total - sum(lengths)) > 0:
        lengths.append(min(int(rng.poisson(mean)), left))
    return lengths
