"""Systems that learned to denoise, as the training plugin has them and as a backend opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sensikit.backends.fairseq.denoising import Denoising
from sensikit.backends.fairseq.opening import FairseqModel, open_checkpoint
from tests.support import training_system
from tests.support.training_system import System

ITEMS = [("fao", 5), ("cat", 0), ("nob", 7), ("cat", 9), ("fao", 1), ("cat", 2), ("nob", 0), ("fao", 30)]

METHODS: dict[str, list[str]] = {
    "cd": ["cd"],
    "cd+id": ["cd+id"],
    "dae": ["dae"],
    "dae+mlm": ["dae+mlm"],
    "mass": ["mass"],
    "half of the words": ["cd", "--mask-ratio", "0.5"],
    "separate": ["cd", "--separate-projection"],
    "separate of dae+mlm": ["dae+mlm", "--separate-projection"],
    "mlm alone": ["regular", "--denoise", "mlm"],
    "both decoders": ["regular", "--denoise", "cd,dae"],
}


def opened(data: Path, path: Path, *flags: str, direction: str = "xxx-eng") -> tuple[System, FairseqModel]:
    """A system that was never trained, its weights as they were drawn, and its checkpoint opened."""
    system = training_system.build(data, *flags, direction=direction)
    with torch.no_grad():
        for tensor in system.model.parameters():
            tensor.mul_(1.5)  # norms and biases start at 1 and 0
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())) / 20)
    system.model.eval()
    system.criterion.eval()
    model = open_checkpoint(training_system.saved(system, path), data, device="cpu")
    return system, model


def denoising(model: FairseqModel, seed: int = 3) -> Denoising:
    found = model.task("denoise", seed)
    assert isinstance(found, Denoising)
    return found


def parts(system: System, task: Denoising, items: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """The same examples in the hands of the training plugin."""
    found = []
    for name in task.ratios:
        rows = [
            (code, "train", task.text(code, "train").data, int(task.text(code, "train").rows[r])) for code, r in items
        ]
        found.append(system.data.tensors(name, [task._noised(name, *row) for row in rows]))
    return found


def per_token(task: Denoising, items: list[tuple[str, int]], kind: str) -> float:
    """The loss of a batch: each term by its own tokens."""
    terms, counts = task.loss(task.collate(items), kind)
    return float(sum(term / count for term, count in zip(terms.detach(), counts, strict=True)))
