"""Beam search by CTranslate2, which runs a model's weights several times as fast as its own framework does.

Its search is fairseq's: the same candidates, normalisation and end, so that the same weights say the same. Words are
their ids here, written as numbers: no word of a vocabulary can be taken for a special one.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from sensikit.errors import MissingDependencyError, OptionError
from sensikit.settings import Decoding

Search = Callable[[Sequence[Sequence[int]], int], list[list[int]]]
"""Sources as ids, and the most tokens of an output without its end → the best output of each, without its end."""


def load(part: str = "") -> Any:
    """Return ctranslate2, or a part of it such as "specs"."""
    try:
        return importlib.import_module(f"ctranslate2.{part}" if part else "ctranslate2")
    except ModuleNotFoundError as error:
        remedy = 'pip install "sensikit[ctranslate2]"'
        raise MissingDependencyError("ctranslate2", "is not installed", remedy) from error


def wanted(decoding: Decoding, framework: str) -> bool:
    """Return whether CTranslate2 is to search rather than a model's own framework; refuse another framework."""
    if decoding.engine not in ("own", framework, "ctranslate2"):
        problem = f"the model is of {framework}, not of {decoding.engine}"
        raise OptionError("--engine", problem, "give own or ctranslate2")
    return decoding.engine == "ctranslate2"


@contextlib.contextmanager
def searching(
    spec: Any, decoding: Decoding, device: torch.device, start: Sequence[int], eos: int, unk: int, pad: int
) -> Iterator[Search]:
    """Give a beam search with the weights of an encoder-decoder, which ctranslate2's specification `spec` has in it.

    `start` is what the decoder is fed first, and what it must say first after that; `pad` is never said.
    """
    sizes = len(spec.encoder.embeddings[0].weight), len(spec.decoder.embeddings.weight)
    spec.register_source_vocabulary([str(number) for number in range(sizes[0])])
    spec.register_target_vocabulary([str(number) for number in range(sizes[1])])
    # a start that has no row is a vector of zeros, as Marian's is
    spec.config.decoder_start_token = None if start[0] < sizes[1] else str(eos)
    begun = [str(number) for number in start if number < sizes[1]]
    spec.config.eos_token = spec.config.bos_token = str(eos)
    spec.config.unk_token = str(unk)
    spec.config.add_source_bos = spec.config.add_source_eos = False
    spec.validate()
    spec.optimize()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        where = {"device": device.type, "device_index": device.index or 0}
        translator = load().Translator(folder, **where, inter_threads=1, intra_threads=torch.get_num_threads())

    def search(sources: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        found = translator.translate_batch(
            [[str(number) for number in source] for source in sources],
            target_prefix=[begun] * len(sources) if begun else None,
            beam_size=decoding.beam,
            length_penalty=decoding.lenpen,
            max_input_length=0,
            max_decoding_length=most,
            suppress_sequences=[[str(pad)]] if pad < sizes[1] and pad != eos else None,
        )
        return [[int(number) for number in each.hypotheses[0]] for each in found]

    yield search
    translator.unload_model()
