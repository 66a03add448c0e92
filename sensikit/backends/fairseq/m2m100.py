"""A checkpoint of fairseq as a Hugging Face M2M100, which is the same transformer under other names.

What is written is what stock transformers loads; the tokenizer gives the numbers that the text was binarised to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.model import Opened, tags_of
from sensikit.errors import CheckpointError, DataError, MissingDependencyError
from sensikit.files import appearing, write_json
from sensikit.parameters import registry, tensors

SHARED = "encoder.embed_tokens.weight"
"""The embedding, tied to the decoder's and to the projection; transformers stores it once, as model.shared."""

NEVER = -1e4
"""The score of a symbol that text does not become, whatever it spells."""

UNNORMALISED = " ﬁ①  Ａ "
"""Characters that every normalisation of SentencePiece changes, and spaces."""

LINE = 20
"""Pieces in each other line that the tokenizer is tried on."""

TIES = 0.01
"""The most lines cut otherwise: SentencePiece adds scores in float32, tokenizers in float64, and some cuts score alike.

Of 232,660 lines of software text in 16 languages, 4 were.
"""


def write_huggingface(opened: Opened, where: Path, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
    r"""Write the model to the new directory `out` with what `masks` say set to zero; return how many scalars went.

    The tag of the target language stands in place of </s>, at the end of the source and at the start of the decoder's
    input, and the caller puts it there; without it, `generate` refuses to begin. So it is used, with nothing of ours::

        tokenizer = AutoTokenizer.from_pretrained(out)
        model = AutoModelForSeq2SeqLM.from_pretrained(out)
        batch = tokenizer([text + "__eng__" for text in texts], padding=True, return_tensors="pt")
        longest = int(1.2 * batch["input_ids"].shape[1] + 10)
        found = model.generate(
            **batch,
            decoder_start_token_id=tokenizer.convert_tokens_to_ids("__eng__"),
            max_new_tokens=longest + 1,
            logits_processor=[ended],
        )
        print(*tokenizer.batch_decode(found, skip_special_tokens=True), sep="\n")

    Beam 5 and early stopping, which is fairseq's search, are the defaults of the directory. What fairseq does and
    transformers does not: a hypothesis that is as long as is allowed ends, and pays for its </s>. Where none gets that
    long, `ended` changes nothing::

        def ended(tokens, scores):
            others = torch.arange(scores.shape[1]) != tokenizer.eos_token_id
            return scores.masked_fill(others, -torch.inf) if tokens.shape[1] > longest else scores

    Text that spells out a tag becomes the tag; with `split_special_tokens=True` it stays text, as in training, and the
    number of the tag is to be appended instead. `where` is the checkpoint's path, for errors.

    Raises:
        CheckpointError: if the model is none that M2M100 can be, or its tags stand elsewhere.
        DataError: if the data lack the SentencePiece model, or its pieces are not the dictionary's.
        MissingDependencyError: if tokenizers, which comes with transformers, is not installed.
        SensikitError: if the place cannot be written.
    """
    _check(opened, where)
    tokenizer = _tokenizer(opened)
    module = opened.module
    state = {each.name: tensor.detach() for each, tensor in tensors(module, registry(module, compat.ghosts(module)))}
    for name, mask in masks.items():
        state[name] = state[name].masked_fill(mask.to(opened.device), 0)
    names = {name: "model.shared.weight" if name == SHARED else f"model.{name}" for name in state}
    weights = {names[name]: tensor.float().cpu().contiguous() for name, tensor in state.items()}
    with appearing(out) as partial:
        # as bytes: what safetensors itself makes of a full disk is no OSError
        (partial / "model.safetensors").write_bytes(save(weights, {"format": "pt", "sensikit": note}))
        (partial / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        write_json(partial / "config.json", _config(opened))
        write_json(partial / "generation_config.json", _generation(opened))
        write_json(partial / "tokenizer_config.json", _tokenizer_config(opened))
    return sum(int(mask.sum()) for mask in masks.values())


def _check(opened: Opened, where: Path) -> None:
    """Refuse what M2M100 has not, or transformers would load as something else."""
    cfg, settings, decoder = opened.module.cfg, opened.settings, opened.module.decoder
    sides = cfg.encoder, cfg.decoder
    tags = settings.encoder_tag, settings.decoder_tag, settings.tags_replace_eos
    for wrong, problem in (
        (tags != ("tgt", True, True), "the target's tag does not stand for </s> in its source and decoder input"),
        (settings.training["separate_projection"], "its encoder predicts through a projection of its own"),
        (not all(side.normalize_before for side in sides) or cfg.no_decoder_final_norm, "it is not pre-norm"),
        (not cfg.share_all_embeddings, "its embeddings are not shared by both sides and the projection"),
        (decoder.project_in_dim or decoder.project_out_dim, "its decoder has another width than its embeddings"),
        (any(side.learned_pos for side in sides), "its positions are learned"),
        (cfg.no_token_positional_embeddings, "it has no positions"),
        (cfg.layernorm_embedding, "its embeddings are normalised"),
        (cfg.no_cross_attention or cfg.cross_self_attention, "its decoder attends to the encoder in another way"),
        (cfg.activation_fn != "relu", f"its activation is {cfg.activation_fn}"),
    ):
        if wrong:
            raise CheckpointError(where, f"cannot be an M2M100: {problem}", "export it with --format native")


def _config(opened: Opened) -> dict[str, Any]:
    cfg, dictionary = opened.module.cfg, opened.task.target_dictionary
    stacks: dict[str, Any] = {}
    for side, its in (("encoder", cfg.encoder), ("decoder", cfg.decoder)):
        stacks |= {f"{side}_{name}": getattr(its, name) for name in ("layers", "attention_heads", "layerdrop")}
        stacks[f"{side}_ffn_dim"] = its.ffn_embed_dim
    return {
        "architectures": ["M2M100ForConditionalGeneration"],
        "model_type": "m2m_100",
        "is_encoder_decoder": True,
        "vocab_size": len(dictionary),
        "d_model": cfg.encoder.embed_dim,
        **stacks,
        "activation_function": "relu",
        "dropout": cfg.dropout,
        "attention_dropout": cfg.attention_dropout,
        "activation_dropout": cfg.activation_dropout or cfg.relu_dropout,
        "max_position_embeddings": max(opened.limits),
        "scale_embedding": not cfg.no_scale_embedding,
        "tie_word_embeddings": True,
        "bos_token_id": dictionary.bos(),
        "pad_token_id": dictionary.pad(),
        "eos_token_id": dictionary.eos(),
        "decoder_start_token_id": None,
        "dtype": "float32",
        "sensikit": {"tags": "target-last", "pairs": ["-".join(pair) for pair in opened.settings.pairs]},
    }


def _generation(opened: Opened) -> dict[str, Any]:
    """Return how to translate as fairseq does; the first token is missing on purpose, and so is <s> in its stead."""
    dictionary = opened.task.target_dictionary
    search = {"num_beams": 5, "early_stopping": True, "length_penalty": 1.0, "min_new_tokens": 1}
    search["max_new_tokens"] = opened.limits[1] - 1
    return {**search, "pad_token_id": dictionary.pad(), "eos_token_id": dictionary.eos()}


def _tokenizer_config(opened: Opened) -> dict[str, Any]:
    """Return what the tokenizer's file leaves open.

    <unk> is not named: what is named is left out of decoded text, where fairseq writes it, and would stand for any
    token that is asked for and does not exist.
    """
    dictionary = opened.task.target_dictionary
    mask = {"mask_token": "<mask>"} if dictionary.index("<mask>") != dictionary.unk() else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        **mask,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": opened.limits[0],
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }


def _tokenizer(opened: Opened) -> Any:
    """Return the tokenizer that cuts text as spm.model does and numbers it as the dictionary does."""
    from sentencepiece import SentencePieceProcessor

    path = opened.data.root / "spm.model"
    if not path.is_file():
        raise DataError(path, "does not exist, and the tokenizer is made of it", "give what sensikit corpus wrote")
    opened.data.digest(path)
    try:
        pieces = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise DataError(path, "is not a SentencePiece model", "make the data again with sensikit corpus") from error
    numbers = range(pieces.get_piece_size())
    scores = {
        pieces.id_to_piece(number): pieces.get_score(number)
        for number in numbers
        if not (pieces.is_control(number) or pieces.is_unknown(number))
    }
    dictionary = opened.task.target_dictionary
    silent = tags_of(opened.parts, opened.task) | {dictionary.bos(), dictionary.pad(), dictionary.eos()}
    silent |= {dictionary.index(pieces.id_to_piece(number)) for number in numbers if pieces.is_control(number)}
    silent -= {dictionary.unk()}
    symbols = [symbol for number, symbol in enumerate(dictionary.symbols) if number not in {*silent, dictionary.unk()}]
    if set(symbols) ^ set(scores):
        strange = next(iter(set(symbols) ^ set(scores)))
        problem = f"has other pieces than the dictionary ({strange!r} is in one of them alone)"
        raise DataError(path, problem, "give the data that the checkpoint was trained on")
    found = _assembled(dictionary, scores, [dictionary[number] for number in sorted(silent)])
    lines = [UNNORMALISED, *("".join(symbols[at : at + LINE]) for at in range(0, len(symbols), LINE))]
    found.encode_special_tokens = True  # pieces that spell out a tag by chance are text here
    other = [line for line in lines if found.encode(line).ids != _numbers(line, pieces, dictionary)]
    found.encode_special_tokens = False
    if UNNORMALISED in other or len(other) > TIES * len(lines):
        problem = f"cuts text otherwise than a unigram model without normalisation ({other[0]!r})"
        raise DataError(path, problem, "give what sensikit corpus wrote")
    return found


def _numbers(line: str, pieces: Any, dictionary: Any) -> list[int]:
    return [dictionary.index(piece) for piece in pieces.id_to_piece(pieces.encode(line))]


def _assembled(dictionary: Any, scores: Mapping[str, float], silent: list[str]) -> Any:
    """Return a unigram tokenizer of the dictionary's symbols.

    SentencePiece without normalisation strips spaces at both ends, makes several one, puts one in front, and writes
    them all as ▁. A run of characters that no piece has is one <unk>: made one character, it cannot spell a tag.
    `scores` are of the pieces that text consists of, `silent` the symbols that it does not become, such as tags.
    """
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    except ImportError as error:
        raise MissingDependencyError("tokenizers", "is not installed", 'pip install "sensikit[hf]"') from error
    vocabulary = [(symbol, scores.get(symbol, NEVER)) for symbol in dictionary.symbols]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=dictionary.unk(), byte_fallback=False))
    known = {character for piece in scores for character in piece}
    unknown = next(character for character in map(chr, range(0xE000, 0xF900)) if character not in known)
    others = "".join(rf"\x{{{ord(character):x}}}" for character in sorted(known))
    replace = normalizers.Replace
    tokenizer.normalizer = normalizers.Sequence(
        [
            replace(Regex(r"\A +| +\z"), ""),
            replace(Regex(" +"), " "),
            normalizers.Prepend("▁"),
            replace(" ", "▁"),
            replace(Regex(r"▁+\z"), ""),
            replace(Regex(f"[^{others}]+"), unknown),
        ]
    )
    ends = decoders.Replace(Regex(r"\A\s+|\s+\z"), "")
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("▁", " "), ends])
    tokenizer.add_special_tokens([AddedToken(symbol, special=True, normalized=False) for symbol in silent])
    return tokenizer
