"""Beam search by transformers' generate, with every choice given: a model's own defaults decide nothing."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from sensikit.backends import ctranslate2
from sensikit.backends.decoding import check_room, finite
from sensikit.backends.huggingface import compat
from sensikit.backends.huggingface.tokens import Tokens
from sensikit.errors import OptionError
from sensikit.settings import Decoding


def generate(
    module: Any,
    inputs: Sequence[Sequence[int]],
    decoding: Decoding,
    pad: int,
    eos: int | None,
    *,
    limit: int | None,
    start: int | None = None,
    forced: int | None = None,
    lengths: Sequence[int] | None = None,
) -> list[list[int]]:
    """Return what the model says to each input, in order, without what it was given and without padding.

    A batch holds inputs of like length, at most `max_tokens` in all; the longest output allowed counts from the longest
    of them. Batches, lengths and the end that is forced at the longest output are fairseq's.

    Args:
        module: transformers' model.
        inputs: of the encoder, or the prompts of a decoder.
        decoding: beam, penalties and limits.
        pad: fills rows up; never said.
        eos: ends what is said.
        limit: positions of the model.
        start: what the decoder starts with; None of a decoder alone.
        forced: what it says first; not counted in the limits.
        lengths: of each input, what the longest output counts from; by default its own.
    """
    counted = lengths if lengths is not None else [len(each) for each in inputs]
    found: list[list[int]] = [[] for _ in inputs]
    with finite(module, module.get_output_embeddings()), _without_defaults(module):
        for rows, longest, most in _batches(inputs, counted, decoding, limit, start is not None, forced is not None):
            ids = torch.full((len(rows), longest), pad, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for place, row in enumerate(rows):
                # a decoder goes on from its last token, so its rows end together
                width = len(inputs[row])
                where = slice(0, width) if start is not None else slice(longest - width, longest)
                ids[place, where] = torch.tensor(inputs[row])
                mask[place, where] = 1
            longest_said = most + (forced is not None)
            how = _settings(decoding, longest_said + 1, pad, eos, start, forced)
            with compat.quiet():
                said = module.generate(
                    input_ids=ids.to(module.device),
                    attention_mask=mask.to(module.device),
                    generation_config=how,
                    logits_processor=[_ended(longest_said, eos)] if start is not None and eos is not None else None,
                )
            # the start, or the prompt, comes first
            said = said[:, 1 if start is not None else longest :].tolist()
            for row, tokens in zip(rows, said, strict=True):
                found[row] = _until(tokens, eos, pad)
    return found


def _batches(
    inputs: Sequence[Sequence[int]],
    counted: Sequence[int],
    decoding: Decoding,
    limit: int | None,
    encoded: bool,
    forced: bool,
) -> Iterator[tuple[list[int], int, int]]:
    """Yield the rows of a batch, the longest of its inputs, and the most tokens that may be said to it."""
    lengths = np.array(counted, dtype=np.int64)
    if len(lengths):
        check_room(decoding, int(lengths.min()))
    for rows in batches([len(each) for each in inputs], decoding.max_tokens):
        longest = max(len(inputs[row]) for row in rows)
        # a decoder alone has what it reads and what it says in the same positions
        room = (limit or 1 << 30) - (1 if encoded else longest) - forced
        most = min(int(decoding.max_len_a * lengths[rows].max() + decoding.max_len_b), room - 1)
        yield rows, longest, max(1, most)


def generate_fast(
    module: Any,
    inputs: Sequence[Sequence[int]],
    decoding: Decoding,
    tokens: Tokens,
    *,
    limit: int | None,
    start: int,
    forced: int | None,
) -> list[list[int]]:
    """Return what `generate` returns of an encoder-decoder, by CTranslate2; refuse a model that it does not know."""
    family = type(module.config).__name__
    loaders = ctranslate2.load("converters.transformers")._MODEL_LOADERS
    begun = [start] if forced is None else [start, forced]
    eos, unk = tokens.tokenizer.eos_token_id, tokens.tokenizer.unk_token_id
    found: list[list[int]] = [[] for _ in inputs]
    # its weights are read through plain pointers, and its configuration is written into
    held = copy.copy(module) if module.device.type == "cpu" else copy.deepcopy(module).cpu()
    held.config = copy.deepcopy(module.config)
    # transformers 5 no longer says this of BART (after) and mBART (before)
    if not hasattr(held.config, "normalize_before"):
        held.config.normalize_before = held.config.model_type == "mbart"
    try:
        with torch.no_grad():
            spec = loaders[family].get_model_spec(held)
    except (KeyError, AttributeError, NotImplementedError, ValueError) as error:
        problem = f"ctranslate2 does not know such a {family.removesuffix('Config')}"
        raise OptionError("--engine", problem, "give --engine own") from error
    if spec.decoder.start_from_zero_embedding and module.get_input_embeddings().weight[start].any():
        raise OptionError("--engine", "ctranslate2 starts from zeros, which this Marian does not", "give --engine own")
    with ctranslate2.searching(spec, decoding, module.device, begun, eos, unk, tokens.pad) as search:
        counted = [len(each) for each in inputs]
        for rows, _, most in _batches(inputs, counted, decoding, limit, True, forced is not None):
            said = search([inputs[row] for row in rows], most + (forced is not None))
            for row, ids in zip(rows, said, strict=True):
                found[row] = ids
    return found


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Yield rows of like length together, at most `max_tokens` of them with their padding, none left out."""
    rows: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if rows and (len(rows) + 1) * lengths[row] > max_tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _settings(decoding: Decoding, most: int, pad: int, eos: int | None, start: int | None, forced: int | None) -> Any:
    return compat.load().GenerationConfig(
        num_beams=decoding.beam,
        num_return_sequences=1,
        do_sample=False,
        length_penalty=decoding.lenpen,
        early_stopping=True if decoding.beam > 1 else None,
        max_new_tokens=most,
        min_new_tokens=1 + (forced is not None),
        pad_token_id=pad,
        eos_token_id=eos,
        decoder_start_token_id=start,
        forced_bos_token_id=forced,
        bad_words_ids=[[pad]] if pad != eos else None,
        use_cache=True,
    )


def _ended(longest: int, eos: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a processor that ends the longest hypotheses and scores their end, which transformers' own does not."""

    def ended(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if tokens.shape[1] <= longest:
            return scores
        others = torch.arange(scores.shape[1], device=scores.device) != eos
        return scores.masked_fill(others, -torch.inf)

    return ended


def _until(tokens: list[int], eos: int | None, pad: int) -> list[int]:
    """Return what comes before the end."""
    ends = [tokens.index(end) for end in (eos, pad) if end in tokens]
    return tokens[: min(ends, default=len(tokens))]


@contextlib.contextmanager
def _without_defaults(module: Any) -> Iterator[None]:
    """Take a module's own defaults of decoding away, and put them back."""
    own = module.generation_config
    module.generation_config = compat.load().GenerationConfig()
    try:
        yield
    finally:
        module.generation_config = own
