"""Translating: every sentence once, in order, whatever the model has become."""

from __future__ import annotations

import contextlib
import copy
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensikit.backends import ctranslate2
from sensikit.backends.base import Segments
from sensikit.backends.decoding import check_room, finite
from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.model import Opened, detokenizer_of, tags_of
from sensikit.errors import DataError, OptionError
from sensikit.files import lines
from sensikit.languages import Pair, common_side
from sensikit.settings import Decoding


def translations(
    opened: Opened, pair: Pair, dataset: Any, lengths: np.ndarray, decoding: Decoding
) -> tuple[list[str], int]:
    """Return the translation of every sentence (of the first `max_sentences`), in order, and how many were truncated.

    A sentence longer than the positions is translated from its beginning. The longest output allowed counts from
    the longest source of the batch, as in fairseq-generate; batches hold sentences of like length. `dataset` is
    fairseq's, `lengths` (N,) int64 its source tokens.
    """
    limit = opened.limits[0]
    count = len(lengths) if decoding.max_sentences is None else min(len(lengths), decoding.max_sentences)
    kept = np.minimum(lengths[:count], limit)
    check_room(decoding, int(kept.min()) if count else 0)
    found: list[str | None] = [None] * count
    text = _text(opened)
    engine = _ctranslate2 if ctranslate2.wanted(decoding, "fairseq") else _fairseq
    opened.task.args.source_lang, opened.task.args.target_lang = pair
    with compat.quiet(), engine(opened, decoding) as search:
        # like lengths together, none left out: a sentence of more than max_tokens is a batch by itself
        order, counted = np.argsort(kept, kind="stable"), np.minimum(kept, decoding.max_tokens)
        for rows in opened.parts.batch_by_size(order, None, counted[order], decoding.max_tokens, None, 1):
            sample = dataset.collater([_source(dataset, int(row), limit) for row in rows])
            for row, tokens in zip(sample["id"].tolist(), search(sample), strict=True):
                found[row] = text(tokens)
    missing = [row for row, hypothesis in enumerate(found) if hypothesis is None]
    if missing:
        raise RuntimeError(f"sentences {missing[:5]} of {'-'.join(pair)} were not translated")
    return [hypothesis or "" for hypothesis in found], int((lengths[:count] > limit).sum())


@contextlib.contextmanager
def _fairseq(opened: Opened, decoding: Decoding) -> Iterator[Callable[[Any], list[list[int]]]]:
    """Give fairseq's own beam search: a batch of sources → the best output of each."""
    how = {name: getattr(decoding, name) for name in ("beam", "lenpen", "max_len_a", "max_len_b")}
    args = Namespace(**how, min_len=1, nbest=1, unnormalized=False, keep_inference_langtok=False)
    with finite(opened.module, opened.module.decoder.output_projection):
        generator = opened.task.build_generator([opened.module], args)

        def search(sample: Any) -> list[list[int]]:
            sample["id"] = sample["id"].to(opened.device)  # fairseq indexes it by what is there
            sample["net_input"] = {name: tensor.to(opened.device) for name, tensor in sample["net_input"].items()}
            hypotheses = opened.task.inference_step(generator, [opened.module], sample)
            return [beam[0]["tokens"].tolist() if beam else [] for beam in hypotheses]

        yield search


@contextlib.contextmanager
def _ctranslate2(opened: Opened, decoding: Decoding) -> Iterator[Callable[[Any], list[list[int]]]]:
    """Give CTranslate2's, as `_fairseq` gives fairseq's."""
    task, dictionary, limit = opened.task, opened.task.target_dictionary, opened.limits[1]
    tag, eos, pad = task.args.langtoks["main"][1], dictionary.eos(), dictionary.pad()
    tags = [task.data_manager.get_decoder_langtok(task.args.target_lang, tag)] if tag else []
    start = (tags or [eos]) if task.args.lang_tok_replacing_bos_eos else [eos, *tags]
    spec = _specification(opened)
    with ctranslate2.searching(spec, decoding, opened.device, start, eos, dictionary.unk(), pad) as search:

        def of_sample(sample: Any) -> list[list[int]]:
            rows = sample["net_input"]["src_tokens"]
            most = int(decoding.max_len_a * rows.shape[1] + decoding.max_len_b)
            return search([row[row != pad].tolist() for row in rows], min(most, limit - 1))

        yield of_sample


ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "gelu_accurate": "GELUTanh", "gelu_fast": "GELUTanh", "swish": "SWISH"}
"""fairseq's names → ctranslate2's."""


def _specification(opened: Opened) -> Any:
    """Return the model as ctranslate2 describes one, with its weights; refuse what ctranslate2 does not know."""
    specs, converters = ctranslate2.load("specs"), ctranslate2.load("converters.fairseq")
    cfg, module = opened.module.cfg, opened.module
    for wrong, problem in (
        (cfg.activation_fn not in ACTIVATIONS, f"an activation like {cfg.activation_fn}"),
        (cfg.no_token_positional_embeddings, "a model without positions"),
        (cfg.no_cross_attention or cfg.cross_self_attention, "such a decoder"),
        (cfg.encoder.normalize_before != cfg.decoder.normalize_before, "norms before one side and after the other"),
        (cfg.encoder.attention_heads != cfg.decoder.attention_heads, "two numbers of heads"),
        (cfg.no_decoder_final_norm and cfg.decoder.normalize_before, "a decoder without a final norm"),
        (module.decoder.project_in_dim or module.decoder.project_out_dim, "a decoder of another width"),
    ):
        if wrong:
            raise OptionError("--engine", f"ctranslate2 does not know {problem}", "give --engine own")
    spec = specs.TransformerSpec.from_config(
        (len(module.encoder.layers), len(module.decoder.layers)),
        cfg.encoder.attention_heads,
        pre_norm=cfg.encoder.normalize_before,
        activation=getattr(specs.Activation, ACTIVATIONS[cfg.activation_fn]),
        layernorm_embedding=cfg.layernorm_embedding,
    )
    held = copy.deepcopy(module).cpu().requires_grad_(False)
    converters.set_transformer_encoder(spec.encoder, held.encoder)
    converters.set_transformer_decoder(spec.decoder, held.decoder)
    return spec


def _source(dataset: Any, row: int, limit: int) -> dict[str, Any]:
    """Return one sentence's source alone; a long one keeps its last token, which is </s> or the tag in its place."""
    tokens = dataset[row]["source"]
    if len(tokens) > limit:
        tokens = torch.cat([tokens[: limit - 1], tokens[-1:]])
    return {"id": row, "source": tokens, "target": None}


def _text(opened: Opened) -> Any:
    """Return the function from target tokens to text, without language tags."""
    dictionary = opened.task.target_dictionary
    ignored = tags_of(opened.parts, opened.task) | {dictionary.pad()}
    pieces = detokenizer_of(Path(opened.data.bin), dictionary.symbols)

    def text(tokens: list[int], escape_unk: bool = False) -> str:
        return str(dictionary.string(tokens, pieces, escape_unk=escape_unk, extra_symbols_to_ignore=ignored))

    return text


def references(opened: Opened, split: str, pair: Pair, dataset: Any) -> tuple[list[str], str]:
    """Return the target side as text, and where it comes from: "text" beside the data, or decoded from "binarised"."""
    path = opened.data.text(split, *pair, pair[1])
    if path is None:
        text = _text(opened)
        return [text(dataset[row]["target"].tolist(), escape_unk=True) for row in range(len(dataset))], "binarised"
    return _lines(path, len(dataset)), "text"


def segments(opened: Opened, split: str, pair: Pair, rows: np.ndarray) -> Segments:
    """Return what tells the sentences of a split of a pair apart; `rows` (n,) int64 are those that are counted."""
    language, known_by = common_side(pair, opened.pairs.values())
    path, prefix = opened.data.text(split, *pair, language), opened.data.prefix(split, *pair)
    manager, text = opened.task.data_manager, _text(opened)
    data = manager.load_data(f"{prefix}{language}", manager.get_source_dictionary(language), None)
    if path is not None:
        return Segments(_lines(path, len(data)), rows, known_by)
    return Segments([text(sentence.tolist(), escape_unk=True) for sentence in data], rows, known_by)


def _lines(path: Path, count: int) -> list[str]:
    found = lines(path)
    if len(found) != count:
        raise DataError(path, f"has {len(found)} lines for {count} binarised sentences", "make the data again")
    return found
