"""From text to numbers: SentencePiece, and the dictionary and indexed datasets that fairseq reads."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sensikit.errors import OptionError

MASK = "<mask>"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""The symbols that every dictionary of fairseq begins with, and that its files leave out."""

MOST_SENTENCES = 250_000
"""Training sentences that SentencePiece sees at most, small languages whole and large ones in part."""

COVERAGE = 0.9999
"""Share of the characters of the training text that get a piece of their own; the rest are unknown."""


def tag(language: str) -> str:
    """Return the symbol that tells a model which language to translate into."""
    return f"__{language}__"


def train_pieces(sentences: Iterable[str], size: int, languages: Sequence[str]) -> bytes:
    """Return a unigram SentencePiece model: `size` pieces, tags and <mask> among them; the same for the same text.

    Tags are control symbols: text that spells one out does not become it. Nothing is normalised (the text is), so that
    pieces decode to what they were made from.

    Raises:
        OptionError: if the text does not have that many pieces, or has more characters than that.
    """
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            character_coverage=COVERAGE,
            normalization_rule_name="identity",
            control_symbols=["<pad>", *map(tag, languages), MASK],
            num_threads=1,
            minloglevel=3,
        )
    except RuntimeError as error:
        raise _vocabulary_error(size, str(error)) from error
    return model.getvalue()


def _vocabulary_error(size: int, message: str) -> OptionError:
    if most := re.search(r"value <= (\d+)", message):
        return OptionError("--vocab", f"{size} pieces are more than this text has", f"choose at most {most.group(1)}")
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        problem = f"{size} pieces are fewer than the characters of this text and the tags"
        return OptionError("--vocab", problem, f"choose at least {least.group(1)}")
    problem = f"SentencePiece refuses {size} pieces: {message.splitlines()[0]}"
    return OptionError("--vocab", problem, "choose another size")


def sample(sentences: dict[str, list[tuple[bytes, str]]], most: int = MOST_SENTENCES) -> list[str]:
    """Return at most `most` of the sentences, of each language the first in the order of their keys."""
    cap = fair_share([len(each) for each in sentences.values()], most)
    return [text for each in sentences.values() for _, text in sorted(each)[:cap]]


def fair_share(sizes: Sequence[int], most: int) -> int:
    """Return the cap that makes sizes sum to at most `most`, the small ones left whole."""
    left, cap = most, 0
    for rank, size in enumerate(sorted(sizes)):
        cap = left // (len(sizes) - rank)
        if size > cap:
            return cap
        left -= size
    return max(sizes, default=0)


class Binariser:
    """Cuts text into the pieces of a `model` and writes it as fairseq's preprocessing does, byte for byte, without it.

    `symbols` is the vocabulary: fairseq's four special ones, then SentencePiece's.
    """

    def __init__(self, model: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self._pieces = SentencePieceProcessor(model_proto=model)
        names = [self._pieces.id_to_piece(number) for number in range(self._pieces.get_piece_size())]
        self.symbols = [*SPECIAL, *(name for name in names if name not in SPECIAL)]
        places = {symbol: place for place, symbol in enumerate(self.symbols)}
        # fairseq reads the width from the index; it writes the narrower one wherever that is enough
        self._type = np.dtype("<u2" if len(self.symbols) < 65_500 else "<u4")
        self._numbers = np.array([places[name] for name in names], dtype=self._type)

    def save_dictionary(self, path: Path) -> None:
        """Write the dictionary where fairseq reads it."""
        text = "".join(f"{symbol} 1\n" for symbol in self.symbols[len(SPECIAL) :])
        path.write_text(text, encoding="utf-8", newline="\n")

    def write(self, sentences: Sequence[str], prefix: Path) -> None:
        """Write the numbers of `sentences` to `prefix`.bin and .idx, each sentence with its </s>."""
        end = self._type.type(SPECIAL.index("</s>"))
        rows = [np.append(self._numbers[pieces], end) for pieces in self._pieces.encode(list(sentences))]
        sizes = np.array([len(row) for row in rows], dtype="<i4")
        starts = (np.cumsum(sizes, dtype="<i8") - sizes) * self._type.itemsize
        head = struct.pack("<9sQBQ", b"MMIDIDX", 1, {2: 8, 4: 9}[self._type.itemsize], len(rows))
        Path(f"{prefix}.idx").write_bytes(head + sizes.tobytes() + starts.tobytes())
        Path(f"{prefix}.bin").write_bytes(b"".join(row.tobytes() for row in rows))
