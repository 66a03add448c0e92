"""Toys that note what is asked of them and may break off, and what an undisturbed run of theirs looks like."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sensikit.backends.base import Item, Translations
from sensikit.languages import Group
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.batches import Batch
from sensikit.sensitivity.planning import make_plan, run_signature
from sensikit.settings import AnalysisSettings, Decoding, SweepSettings
from tests.support import toy

SIZES = {"nob": 70, "cat": 60, "fur": 50}
"""Training sentences by language, in an order that is not that of the alphabet."""

QUICK = AnalysisSettings(batches=6, tokens=40, micro_batches=4)
"""Of an analysis of those."""


def languages(sizes: Mapping[str, int]) -> dict[str, Group]:
    return {code: toy.group(code, code.title(), "Romance", "Low", {"train": n, "test": 5}) for code, n in sizes.items()}


class Noted(NamedTuple):
    """One call of the loss: the module's mode, the kind of loss, and the sentences."""

    training: bool
    kind: str
    items: tuple[Item, ...]


class Watched(toy.ToyBackend):
    """An untrained toy of three languages that notes what it computes, and may break off or change its loss."""

    def __init__(
        self, sizes: Mapping[str, int] = SIZES, before: Callable[[int], float | None] = lambda _: None, **options: Any
    ) -> None:
        super().__init__(groups=languages(sizes), **options)
        self.calls: list[Noted] = []
        self.before = before
        self.items: tuple[Item, ...] = ()

    def collate(self, items: Sequence[Item], split: str = "train") -> toy.MicroBatch:
        self.items = tuple(items)
        return super().collate(items, split)

    def loss(self, micro_batch: toy.MicroBatch, kind: str = "nll") -> tuple[torch.Tensor, int]:
        factor = self.before(len(self.calls))
        self.calls.append(Noted(self.module.training, kind, self.items))
        total, tokens = super().loss(micro_batch, kind)
        return total * (1.0 if factor is None else factor), tokens


class Telling(toy.ToyBackend):
    """A toy that tells of each loss and each split that it is about to compute."""

    tell: Callable[[], object] = staticmethod(lambda: None)

    def loss(self, *arguments: Any, **options: Any) -> tuple[torch.Tensor, int]:
        self.tell()
        return super().loss(*arguments, **options)

    def losses(self, *arguments: Any, **options: Any) -> np.ndarray:
        self.tell()
        return super().losses(*arguments, **options)

    def translate(self, *arguments: Any, **options: Any) -> Translations:
        self.tell()
        return super().translate(*arguments, **options)


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file below a run but the lock."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def ledger(run: Run | Path) -> list[dict[str, Any]]:
    """The lines of a run's ledger."""
    path = run.path if isinstance(run, Run) else run
    return [json.loads(line) for line in (path / "pruning" / "ledger.jsonl").read_text("utf-8").splitlines()]


def breaks_at(call: int) -> Callable[[int], float | None]:
    def before(now: int) -> float | None:
        return 1 / 0 if now == call else None

    return before


def infinite_at(*calls: int) -> Callable[[int], float | None]:
    return lambda now: math.inf if now in calls else None


# a change of each setting that moves a number
CHANGES: dict[str, dict[str, Any]] = {
    "split": {"split": "valid"},
    "loss": {"loss": "train"},
    "reduction": {"reduction": "sum"},
    "mode": {"mode": "train"},
    "batches": {"batches": 7},
    "tokens": {"tokens": 41},
    "rest": {"rest": "pooled"},
    "rest_temperature": {"rest_temperature": 2.0},
    "sigma": {"sigma": 2e-8},
    "high": {"high": 0.2},
    "seed": {"seed": 2},
    "skip_nonfinite": {"skip_nonfinite": True},
    "store": {"store": "bf16"},
    "halves": {"halves": False},
}


def signature_of(backend: toy.ToyBackend, settings: AnalysisSettings, asked: list[str] | None = None) -> str:
    return run_signature(backend, settings, make_plan(backend, settings, asked))


class Both(Watched):
    """One whose splits are all like the training split."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.groups = {
            key: replace(group, sizes={**group.sizes, "valid": SIZES[key]}) for key, group in self.groups.items()
        }

    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        return super().sizes(language, "train")


def undisturbed(path: Path) -> Path:
    """Write a run that nothing disturbs."""
    analyze(Watched(), path, QUICK, command="sensikit analyze")
    return path


def obvious(backend: toy.ToyBackend, batches: Sequence[Batch], kind: str = "nll", per_token: bool = True) -> np.ndarray:
    """|θ| times the mean over batches of |∇L|, batch by batch with a whole gradient, (P,) float64."""
    tensors = [p for name, p in backend.module.named_parameters() if name not in backend.ghosts]
    total = np.zeros(sum(tensor.numel() for tensor in tensors))
    for batch in batches:
        loss, tokens = toy.ToyBackend.loss(backend, toy.ToyBackend.collate(backend, batch.items), kind)
        gradients = torch.autograd.grad(loss / tokens if per_token else loss, tensors)
        total += torch.cat([gradient.flatten() for gradient in gradients]).abs().double().numpy()
    weights = torch.cat([tensor.detach().flatten() for tensor in tensors]).abs().double().numpy()
    return total / len(batches) * weights


SCORING = SweepSettings(tokenizer="none", bootstrap=10)
SMALL: dict[str, Any] = {
    "ratios": [0, 0.4, 0.8],
    "orders": ["specificity", "random"],
    "seeds": [1, 2],
    "groups": ["cat", "nso"],
}
CELLS = 2 * (1 + 2 + 2 * 2)


class Translating(toy.ToyBackend):
    """A trained toy that notes what it is asked to translate, and may break off."""

    calls: list[tuple[str, str, Decoding]]
    before: Callable[[int], None]

    def translate(self, language: str, split: str, decoding: Decoding) -> Translations:
        assert not self.module.training
        self.before(len(self.calls))
        self.calls.append((language, split, decoding))
        return super().translate(language, split, decoding)


def translating(before: Callable[[int], None] = lambda _: None, seed: int = 0) -> Translating:
    found = toy.backend(seed)
    found.__class__ = Translating
    assert isinstance(found, Translating)
    found.calls, found.before = [], before
    return found


def bits(module: torch.nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in module.state_dict().items()}
