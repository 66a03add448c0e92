"""What differs between frameworks, and nothing else: one package for each, against the protocol in `base`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sensikit.backends.base import Model


def open_model(
    checkpoint: Path,
    data: Path,
    direction: str | None = None,
    device: str = "auto",
    pairs: Sequence[str] | None = None,
) -> Model:
    """Return the model of `checkpoint` with its data.

    Args:
        checkpoint: a fairseq checkpoint; read without running anything inside it.
        data: what `sensikit corpus` wrote, or a fairseq data directory.
        direction: "xxx-eng", "eng-xxx", or with any other language; by default the pairs into the language that all
            pairs have in common, else those out of it, else all pairs.
        device: "auto", "cpu", "cuda" or "cuda:N".
        pairs: instead of a direction, such as ["cat-fra", "spa-fra"].
    """
    from sensikit.backends.fairseq.opening import open_checkpoint

    return open_checkpoint(checkpoint, data, direction, device, pairs)
