"""Directories of NLLB's shapes with random weights and a tokenizer of a few words, and text as long as real text.

They are opened, measured, pruned and decoded as real ones are. `config` alone, without weights, is enough for
`sensikit analyze --dry-run --device meta`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from sensikit.backends.huggingface import compat

SHAPES: dict[str, dict[str, int]] = {
    "toy": {"vocab_size": 300, "d_model": 16, "layers": 1, "ffn_dim": 32, "attention_heads": 2},
    "60M": {"vocab_size": 32_000, "d_model": 512, "layers": 6, "ffn_dim": 2048, "attention_heads": 8},
    "600M": {"vocab_size": 256_206, "d_model": 1024, "layers": 12, "ffn_dim": 4096, "attention_heads": 16},
    "3.3B": {"vocab_size": 256_206, "d_model": 2048, "layers": 24, "ffn_dim": 8192, "attention_heads": 16},
    "54B": {"vocab_size": 256_206, "d_model": 2048, "layers": 24, "ffn_dim": 8192, "attention_heads": 16},
}
"""transformer-base, and NLLB's: distilled, dense, and with 128 experts in every fourth layer."""

LANGUAGES = ("cat", "oci")
SIZES = {"train": 2000, "valid": 16, "test": 64}


def config(shape: str) -> Any:
    """Return transformers' configuration of a shape."""
    transformers, sizes = compat.load(), SHAPES[shape]
    sides = {f"{side}_{name}": sizes[name] for side in ("encoder", "decoder") for name in sizes if "_" in name[1:]}
    sides = {name: value for name, value in sides.items() if name.endswith(("ffn_dim", "attention_heads"))}
    kind = transformers.NllbMoeConfig if shape == "54B" else transformers.M2M100Config
    return kind(
        vocab_size=sizes["vocab_size"],
        d_model=sizes["d_model"],
        encoder_layers=sizes["layers"],
        decoder_layers=sizes["layers"],
        **sides,
        dropout=0.1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        architectures=["NllbMoeForConditionalGeneration" if shape == "54B" else "M2M100ForConditionalGeneration"],
    )


def text(root: Path, words: float = 3.0, sizes: dict[str, int] | None = None) -> Path:
    """Write pairs into French, of log-normal lengths: e to the power of `words` is the median."""
    root.mkdir(parents=True)
    draw = random.Random(1)
    vocabulary = ["".join(draw.choices("abdegiklmnoprstu", k=draw.randint(2, 7))) for _ in range(400)]
    for split, count in (sizes or SIZES).items():
        for code in LANGUAGES:
            lengths = [max(3, min(150, int(draw.lognormvariate(words, 0.6)))) for _ in range(count)]
            for side in (code, "fra"):
                lines = [" ".join(draw.choices(vocabulary, k=length)) for length in lengths]
                (root / f"{split}.{code}-fra.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def tokenizer(root: Path, size: int = 250) -> Any:
    """Return a tokenizer of NLLB's class, learned from text; its tags of languages come after its words."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False
    )
    lines = (root / f"train.{code}-fra.{side}" for code in LANGUAGES for side in (code, "fra"))
    learned.train_from_iterator((line for file in lines for line in file.read_text().splitlines()), trainer)
    model = json.loads(learned.to_str())["model"]
    tags = ["cat_Latn", "oci_Latn", "fra_Latn"]
    return compat.load().NllbTokenizer(
        vocab=model["vocab"], merges=[tuple(each) for each in model["merges"]], extra_special_tokens=tags
    )


def write(out: Path, shape: str, root: Path, weights: bool = True, device: str = "cpu") -> Path:
    """Write a directory as save_pretrained does; `weights` are drawn on a device."""
    made = config(shape)
    tokenizer(root).save_pretrained(out)
    if not weights:
        made.save_pretrained(out)
        return out
    torch.manual_seed(0)
    with torch.device(device):
        module = compat.load().M2M100ForConditionalGeneration(made)
    for tensor in module.parameters():
        if tensor.dim() > 1:
            torch.nn.init.normal_(tensor, std=tensor.shape[-1] ** -0.5)
    module.save_pretrained(out)
    return out
