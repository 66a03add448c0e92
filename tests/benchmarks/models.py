"""A translation model and batches of the sizes that benchmarks need, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sensikit.backends.base import Item
from sensikit.sensitivity.batches import Batch, draw, pack

VOCABULARY = 4000


class Translator(nn.Module):
    """A Transformer with tied embeddings, as torch builds it."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width, padding_idx=0)
        self.transformer = nn.Transformer(width, 4, layers, layers, 4 * width, 0.0, batch_first=True)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        pad = source == 0
        states = self.transformer(
            self.embed(source),
            self.embed(target),
            tgt_mask=mask,
            tgt_is_causal=True,
            src_key_padding_mask=pad.float().masked_fill(pad, -torch.inf),
            memory_key_padding_mask=pad.float().masked_fill(pad, -torch.inf),
        )
        return states @ self.embed.weight.T


def translator(width: int = 128, layers: int = 2) -> Translator:
    torch.manual_seed(0)
    return Translator(width, layers).eval()


def batches(count: int, tokens: int, parts: int | None) -> list[Batch]:
    """Sentences whose lengths are spread as those of real text are, packed as `analyze` packs them."""
    lengths = np.random.default_rng(0).lognormal(2.6, 0.7, 20000).astype(int).clip(2, 120)
    sizes = {"xxx": np.stack([lengths, lengths], axis=1)}
    return pack(draw(sizes, 1, "bench"), sizes, tokens, count, parts)


def collate(items: Sequence[Item]) -> Any:
    lengths = np.random.default_rng(0).lognormal(2.6, 0.7, 20000).astype(int).clip(2, 120)
    rows = [torch.randint(1, VOCABULARY, (int(lengths[index]),), generator=_seeded(index)) for _, index in items]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss_of(model: Translator) -> Any:
    def loss(tokens: torch.Tensor) -> tuple[torch.Tensor, int]:
        logits = model(tokens, tokens)
        value = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=0, reduction="sum")
        return value, int((tokens != 0).sum())

    return loss
