"""What differs between frameworks, and nothing else. A new framework is one file against `base.Backend`."""

from __future__ import annotations

from pathlib import Path

from sensikit.backends.base import Backend


def open_checkpoint(checkpoint: Path, data: Path, direction: str | None = None, device: str = "auto") -> Backend:
    """Return the model of `checkpoint` with its data, in one direction.

    Args:
        checkpoint: a fairseq checkpoint; read without running anything inside it.
        data: what `sensikit corpus` wrote, or a fairseq data directory.
        direction: "xxx-eng" or "eng-xxx"; None takes the one it was trained on, xxx-eng if both.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """
    from sensikit.backends.fairseq import open_checkpoint as open_fairseq

    return open_fairseq(checkpoint, data, direction, device)
