"""What differs between frameworks, and nothing else. A new framework is one file against `base.Backend`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sensikit.backends.base import Backend

if TYPE_CHECKING:
    import torch


def open_checkpoint(checkpoint: Path, data: Path, direction: str | None = None, device: str = "auto") -> Backend:
    """Return the model of `checkpoint` with its data, in one direction.

    Args:
        checkpoint: a fairseq checkpoint; read without running anything inside it.
        data: what `sensikit corpus` wrote, or a fairseq data directory.
        direction: "xxx-eng" or "eng-xxx"; None takes the one it was trained on, xxx-eng if both.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """
    from sensikit.backends.fairseq.translation import open_checkpoint as open_fairseq

    return open_fairseq(checkpoint, data, direction, device)


def write_pruned(source: Path, sha256: str, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
    """Write the checkpoint `source` to `out` in its own framework's format, with what `masks` say set to zero.

    Returns how many scalars that are, a tied tensor counted once.

    Args:
        source: a fairseq checkpoint; read without running anything inside it.
        sha256: which it must have.
        out: where to.
        masks: parameter name → bool of its shape, true where it goes to zero.
        note: kept in the file.
    """
    from sensikit.backends.fairseq.pruned import write_pruned as write_fairseq

    return write_fairseq(source, sha256, out, masks, note)
