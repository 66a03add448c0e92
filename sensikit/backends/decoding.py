"""What translating has in common, whatever the framework: finite logits, and room for an output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from sensikit.errors import OptionError
from sensikit.parameters import in_mode
from sensikit.settings import Decoding

LARGEST_LOGIT = 1e4
"""Logits are kept within ± this while decoding: far beyond any that a model has, and what NaN and infinity become."""


def check_room(decoding: Decoding, shortest: int) -> None:
    """Refuse limits that leave no room for a token of the output of the `shortest` source."""
    if int(decoding.max_len_a * shortest + decoding.max_len_b) < 1:
        raise OptionError("--max-len-b", "leaves no room for a single token", "give a longer limit")


@contextlib.contextmanager
def finite(module: nn.Module, projection: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode without gradients, with the logits of its projection finite; then back.

    Beam search stops on logits that are infinite or undefined, which a heavily pruned model may have.
    """
    hook = projection.register_forward_hook(
        lambda _module, _inputs, logits: torch.nan_to_num(logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT))
    )
    try:
        with in_mode(module, False), torch.no_grad():
            yield
    finally:
        hook.remove()
