"""The systems of the paper, and every hyper-parameter of its text and of the authors' scripts, as fairseq's flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


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

# checkpoints and validation come by updates, not by epochs; with legacy_ddp, a part need not use every parameter
_ALWAYS = """
--task sensikit --criterion sensikit --optimizer sensikit_adam --adam-betas (0.9,0.98) --lr-scheduler inverse_sqrt
--warmup-init-lr 1e-7 --label-smoothing 0.1 --max-source-positions 512 --max-target-positions 512
--no-epoch-checkpoints --keep-interval-updates 1 --save-interval 1000000 --validate-interval 1000000
--log-format json --log-interval 50 --ddp-backend legacy_ddp
"""
_SMALL = """
--arch sensikit_small --dropout 0.1 --lr 3e-3 --warmup-updates 400 --max-update 4000 --clip-norm 1 --seed 1
--max-tokens 4096 --tokens-per-update 4096 --save-interval-updates 500 --validate-interval-updates 500 --num-workers 0
"""
_RELEASED_M8 = """
--arch sensikit_big --dropout 0.3 --attention-dropout 0.1 --lr 1e-3 --adam-eps 1e-6 --warmup-updates 8000
--max-update 100000 --clip-norm 0 --seed 42 --max-tokens 4096 --tokens-per-update 262144
--save-interval-updates 500 --validate-interval-updates 500 --num-workers 2 --mono-cap 3000000
--id-k 2 --id-alpha 5 --id-passes shared-encoder --id-weights halved --loss-weights released
"""
_M15 = """
--arch sensikit_big12 --max-update 300000 --save-interval-updates 1000 --validate-interval-updates 1000
--mono-cap 15000000
"""
_PAPER = """
--max-tokens 3750 --tokens-per-update 30000 --patience 10 --id-passes full --id-weights equation --loss-weights own
"""

PRESETS = {
    "small": _ALWAYS + _SMALL,
    "paper-m8": _ALWAYS + _RELEASED_M8 + _PAPER,
    "paper-m15": _ALWAYS + _RELEASED_M8 + _M15 + _PAPER,
    "released-m8": _ALWAYS + _RELEASED_M8 + "--mask-ratio 0.3",
    "released-m15": _ALWAYS + _RELEASED_M8 + _M15 + "--mask-ratio 0.3 --tokens-per-update 131072",
}
"""Section 5.4 of the paper, the authors' scripts, and what suits a small corpus on a processor; later flags win.

The text gives the size, 100K and 300K updates, 8K of warm-up, 30K tokens, patience 10, K, α and the masking ratio; what
it leaves open (optimiser, learning rate, dropout, how often to validate) is as in the scripts. The scripts have 262,144
and 131,072 tokens an update, no patience, and the released losses; they also pack monolingual sentences into blocks,
which is not done here. Tokens are those of translation, padded, at most; monolingual text comes on top. Precision is
the machine's: the scripts' is --memory-efficient-fp16, on 32 GPUs.
"""


def flags(preset: str, method: str, pairs: Sequence[tuple[str, str]], languages: Sequence[str]) -> list[str]:
    """Return the flags of fairseq-train, but for the data and where to.

    Args:
        preset: one of `PRESETS`.
        method: one of `METHODS`, trained beside translation.
        pairs: (source, target) of each direction.
        languages: all of them, in a fixed order.
    """
    added = METHODS[method]
    given = [*PRESETS[preset].split(), "--lang-pairs", ",".join("-".join(pair) for pair in pairs)]
    given += ["--langs", ",".join(languages)]
    given += ["--denoise", ",".join(added.denoise)] if added.denoise else []
    return given + (["--distill", ",".join(added.distill)] if added.distill else [])
