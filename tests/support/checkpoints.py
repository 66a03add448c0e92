"""Checkpoints with something changed in them, and what a model makes of a few sentences."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sensikit.backends.base import Model
from sensikit.backends.fairseq.translation import Translation

MIXED = [("fao", 5), ("cat", 0), ("nob", 7), ("cat", 9), ("fao", 1)]
"""Training sentences of all languages of `tiny_data`."""


def content_of(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint of fairseq-train holds, without the optimizer's state."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    content.pop("last_optimizer_state", None)
    return content


def edited(
    checkpoint: Path,
    out: Path,
    *,
    task: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    criterion: Mapping[str, Any] | None = None,
    state: Callable[[dict[str, torch.Tensor]], Any] = lambda state: None,
) -> Path:
    """Write `checkpoint` to `out` with some settings, or tensors (changed in place), replaced; return `out`."""
    content = content_of(checkpoint)
    vars(content["cfg"]["task"]).update(task or {})
    vars(content["cfg"]["model"]).update(model or {})
    content["cfg"]["criterion"].update(criterion or {})
    state(content["model"])
    torch.save(content, out)
    return out


def translation(model: Model) -> Translation:
    found = model.task("mt")
    assert isinstance(found, Translation)
    return found


def values(model: Model | Translation, items: list[tuple[str, int]] = MIXED, kind: str = "nll") -> float:
    """Return the summed loss of some training sentences."""
    task = model if isinstance(model, Translation) else translation(model)
    return float(task.loss(task.collate(items), kind)[0].detach())
