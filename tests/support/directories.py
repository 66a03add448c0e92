"""Tiny Hugging Face directories of every family, with the tokenizer of their own class, and text for them."""

from __future__ import annotations

import io
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = {
    "cat": "casa riu pedra verda taula gat gos vola mar llum obre tanca porta i o petit gran fosc",
    "eng": "house river stone green table cat dog flies sea light open close door and or small large dark",
    "fra": "maison fleuve pierre vert table chat chien vole mer lueur ouvre ferme porte et ou petit grand sombre",
    "spa": "casa río piedra verde mesa gato perro vuela mar luz abre cierra puerta y o pequeño grande oscuro",
}
SIZES = {"train": 160, "valid": 12, "test": 12}
CHAT = "{% for m in messages %}<s>{{ m['content'] }} => {% endfor %}"


def write_text(root: Path) -> Path:
    """Write pairs into French: SPLIT.SRC-fra.LANG."""
    root.mkdir()
    draw = random.Random(1)
    for split, count in SIZES.items():
        for code in ("cat", "eng", "spa"):
            rows = [[draw.randrange(18) for _ in range(draw.randint(3, 9))] for _ in range(count)]
            for side in (code, "fra"):
                lines = [" ".join(WORDS[side].split()[number] for number in row) for row in rows]
                (root / f"{split}.{code}-fra.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def lines(text: Path) -> list[str]:
    return [line for file in sorted(text.glob("train.*")) for line in file.read_text(encoding="utf-8").splitlines()]


def _pieces(text: Path, folder: Path) -> tuple[Path, list[tuple[str, float]]]:
    """Train SentencePiece; return the file, and its pieces with their scores, without the special ones."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines(text)), model_writer=model, model_type="unigram", vocab_size=90, minloglevel=3
    )
    path = folder / "pieces.model"
    path.write_bytes(model.getvalue())
    found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    names = [(found.id_to_piece(id), found.get_score(id)) for id in range(found.get_piece_size())]
    return path, [each for each in names if each[0] not in ("<s>", "</s>", "<unk>")]


def _bpe(text: Path, specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(lines(text), trainer)
    return tokenizer


def _vocabulary(folder: Path, names: list[str]) -> Path:
    path = folder / "ids.json"
    path.write_text(json.dumps({name: id for id, name in enumerate(names)}), encoding="utf-8")
    return path


def m2m(text: Path, folder: Path) -> Any:
    pieces, names = _pieces(text, folder)
    vocabulary = _vocabulary(folder, ["<s>", "<pad>", "</s>", "<unk>", *(name for name, _ in names)])
    return transformers.M2M100Tokenizer(str(vocabulary), str(pieces))


def nllb(text: Path, folder: Path) -> Any:
    model = json.loads(_bpe(text, ["<s>", "<pad>", "</s>", "<unk>"]).to_str())["model"]
    return transformers.NllbTokenizer(vocab=model["vocab"], merges=[tuple(each) for each in model["merges"]])


def mbart50(text: Path, folder: Path) -> Any:
    specials = [(name, 0.0) for name in ("<unk>", "<s>", "</s>")]
    return transformers.MBart50Tokenizer(vocab=[*specials, *_pieces(text, folder)[1]])


def mbart25(text: Path, folder: Path) -> Any:
    specials = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    return transformers.MBartTokenizer(vocab=[*specials, *_pieces(text, folder)[1]])


def marian(text: Path, folder: Path) -> Any:
    pieces, names = _pieces(text, folder)
    vocabulary = _vocabulary(folder, ["</s>", "<unk>", *(name for name, _ in names), ">>fra<<", ">>deu<<", "<pad>"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sacremoses is recommended
        return transformers.MarianTokenizer(str(pieces), str(pieces), str(vocabulary))


def madlad(text: Path, folder: Path) -> Any:
    specials, tags = ([(name, 0.0) for name in of] for of in (("<pad>", "</s>", "<unk>"), ("<2fr>", "<2de>")))
    return transformers.T5Tokenizer(vocab=[*specials, *_pieces(text, folder)[1], *tags], extra_ids=0)


def bpe(text: Path, folder: Path, **more: Any) -> Any:
    tokenizer = _bpe(text, ["<unk>", "<s>", "</s>", "<pad>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", **more
    )


SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 40,
}  # fmt: skip
DECODER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "gated-gelu"}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
PADDED = {"pad_token": "<pad>"}

Made = tuple[Callable[..., Any], type, type, dict[str, Any], dict[str, Any]]
FAMILIES: dict[str, Made] = {
    "m2m": (m2m, transformers.M2M100ForConditionalGeneration, transformers.M2M100Config, SEQ2SEQ, {}),
    "nllb": (nllb, transformers.M2M100ForConditionalGeneration, transformers.M2M100Config, SEQ2SEQ, {}),
    "mbart50": (mbart50, transformers.MBartForConditionalGeneration, transformers.MBartConfig, SEQ2SEQ, {}),
    "mbart25": (mbart25, transformers.MBartForConditionalGeneration, transformers.MBartConfig, SEQ2SEQ, {}),
    "marian": (marian, transformers.MarianMTModel, transformers.MarianConfig, SEQ2SEQ, {}),
    "madlad": (madlad, transformers.T5ForConditionalGeneration, transformers.T5Config, T5, {}),
    "llama": (bpe, transformers.LlamaForCausalLM, transformers.LlamaConfig, DECODER, {**PADDED, "chat_template": CHAT}),
    "gpt2": (bpe, transformers.GPT2LMHeadModel, transformers.GPT2Config, GPT2, {}),
    "qwen2": (bpe, transformers.Qwen2ForCausalLM, transformers.Qwen2Config, DECODER, {}),
    "gemma3": (
        bpe, transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig,
        {**DECODER, "query_pre_attn_scalar": 8, "sliding_window": 16}, PADDED,
    ),
    "mixtral": (
        bpe, transformers.MixtralForCausalLM, transformers.MixtralConfig,
        {**DECODER, "num_local_experts": 2, "num_experts_per_tok": 1}, PADDED,
    ),
}  # fmt: skip
"""By name: tokenizer, model class, configuration class, its arguments, and those of the tokenizer."""


def write_directory(family: str, text: Path, out: Path, shard: str = "5GB") -> Path:
    """Write a model of random weights with its tokenizer, as save_pretrained does."""
    make, model, config, arguments, more = FAMILIES[family]
    scratch = out.with_name(f"{out.name}-pieces")
    scratch.mkdir()
    tokenizer = make(text, scratch, **more)
    beyond = getattr(tokenizer, "lang_token_to_id", None) or {}
    rows = max([*tokenizer.get_vocab().values(), *beyond.values()]) + 3
    special = {
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id if family in ("marian", "madlad") else tokenizer.eos_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    module = model(config(vocab_size=rows, **{**special, **arguments}))
    for tensor in module.parameters():
        if tensor.dim() > 1:
            torch.nn.init.normal_(tensor, std=0.3)
    module.save_pretrained(out, max_shard_size=shard)
    tokenizer.save_pretrained(out)
    return out
