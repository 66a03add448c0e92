"""The systems of the paper, and every hyper-parameter of its text and of the authors' scripts, as fairseq's flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Method(NamedTuple):
    """What is added to translation: objectives on monolingual text, and the terms with intra-distillation."""

    denoise: tuple[str, ...] = ()
    distill: tuple[str, ...] = ()


TABLE_4 = (
    Method(),
    Method((), ("translation",)),
    Method(("dae",)),
    Method(("dae",), ("decoder",)),
    Method(("dae",), ("translation", "decoder")),
    Method(("cd",)),
    Method(("cd",), ("encoder", "decoder")),
    Method(("cd",), ("translation", "encoder", "decoder")),
)
"""Its rows, in order."""

METHODS = {
    "regular": TABLE_4[0],
    "id": TABLE_4[1],
    "dae": TABLE_4[2],
    "dae+mlm": Method(("dae", "mlm")),
    "mass": Method(("mass",)),
    "cd": TABLE_4[5],
    "cd+id": TABLE_4[7],
} | {f"table4-{row}": method for row, method in enumerate(TABLE_4, start=1)}

SIZES = {
    "tiny": {"layers": 1, "embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 2},
    "small": {"layers": 2, "embed_dim": 128, "ffn_embed_dim": 512, "attention_heads": 4},
    "base": {"layers": 6, "embed_dim": 512, "ffn_embed_dim": 2048, "attention_heads": 8},
    "big": {"layers": 6, "embed_dim": 1024, "ffn_embed_dim": 4096, "attention_heads": 16},
    "big12": {"layers": 12, "embed_dim": 1024, "ffn_embed_dim": 4096, "attention_heads": 16},
}
"""Pre-norm transformers with one embedding matrix for all; big is the paper's for M8, big12 its for M15."""

_ALWAYS = {
    "task": "sensikit",
    "criterion": "sensikit",
    "optimizer": "adam",
    "adam_betas": "(0.9, 0.98)",
    "lr_scheduler": "inverse_sqrt",
    "warmup_init_lr": 1e-7,
    "label_smoothing": 0.1,
    "max_source_positions": 512,
    "max_target_positions": 512,
    "keep_interval_updates": 1,
    "save_interval": 10**9,  # epochs: checkpoints come by updates
    "validate_interval": 10**9,
    "log_interval": 50,
    "log_format": "json",
    "ddp_backend": "legacy_ddp",  # a part need not use every parameter
}
_SMALL = _ALWAYS | {
    "arch": "small",
    "max_update": 4000,
    "warmup_updates": 400,
    "lr": 3e-3,
    "clip_norm": 1.0,
    "dropout": 0.1,
    "max_tokens": 4096,
    "tokens_per_update": 4096,
    "save_interval_updates": 500,
    "num_workers": 0,
    "seed": 1,
}
_RELEASED_M8 = _ALWAYS | {
    "arch": "big",
    "max_update": 100_000,
    "warmup_updates": 8000,
    "lr": 1e-3,
    "adam_eps": 1e-6,
    "clip_norm": 0.0,
    "dropout": 0.3,
    "attention_dropout": 0.1,
    "max_tokens": 4096,
    "tokens_per_update": 262_144,
    "save_interval_updates": 500,
    "num_workers": 2,
    "seed": 42,
    "id_k": 2,
    "id_alpha": 5.0,
    "id_passes": "shared-encoder",
    "id_weights": "halved",
    "loss_weights": "released",
    "mono_cap": 3_000_000,
}
_PAPER = {
    "max_tokens": 3750,
    "tokens_per_update": 30_000,
    "patience": 10,
    "id_passes": "full",
    "id_weights": "equation",
    "loss_weights": "own",
}
_M15 = {"arch": "big12", "max_update": 300_000, "save_interval_updates": 1000, "mono_cap": 15_000_000}

PRESETS: dict[str, dict[str, Any]] = {
    "small": _SMALL,
    "paper-m8": _RELEASED_M8 | _PAPER,
    "paper-m15": _RELEASED_M8 | _M15 | _PAPER,
    "released-m8": _RELEASED_M8,
    "released-m15": _RELEASED_M8 | _M15 | {"tokens_per_update": 131_072},
}
"""Section 5.4 of the paper, the authors' scripts, and what suits a small corpus on a processor.

The text gives the size, 100K and 300K updates, 8K of warm-up, 30K tokens, patience 10, K, α and the masking ratio; what
it leaves open (optimiser, learning rate, dropout, how often to validate) is as in the scripts. The scripts have 262,144
and 131,072 tokens an update, no patience, and the released losses; they also pack monolingual sentences into blocks,
which is not done here. Tokens are those of translation, padded, at most; monolingual text comes on top.
"""


def flags(
    preset: Mapping[str, Any],
    method: Method,
    pairs: Sequence[tuple[str, str]],
    languages: Sequence[str],
    devices: int = 1,
) -> list[str]:
    """Return the flags of fairseq-train, but for the data and where to.

    Args:
        preset: one of `PRESETS`, changed or not; None leaves a flag out.
        method: what is trained beside translation.
        pairs: (source, target) of each direction.
        languages: all of them, in a fixed order.
        devices: that compute an update together.
    """
    own = {
        "arch": f"sensikit_{preset['arch']}",
        "lang_pairs": ",".join("-".join(pair) for pair in pairs),
        "langs": ",".join(languages),
        "denoise": ",".join(method.denoise) or None,
        "distill": ",".join(method.distill) or None,
        "batches_per_update": max(1, round(preset["tokens_per_update"] / (preset["max_tokens"] * devices))),
        "tokens_per_update": None,
    }
    values = {name: value for name, value in {**preset, **own}.items() if value is not None}
    given = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [*given, "--no-epoch-checkpoints"]
