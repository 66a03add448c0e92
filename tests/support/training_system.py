"""A system that fairseq would train, without a run: its task, model, criterion and updates, from the same flags.

system = training_system.build(tiny_data, "cd+id", "--dropout", "0")
loss, size, log = training_system.step(system, system.updates()[0])
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sensikit.backends.fairseq import compat


@dataclass
class System:
    task: Any
    model: Any
    criterion: Any
    data: Any
    max_tokens: int

    def updates(self, epoch: int = 1) -> list[dict[str, Any]]:
        """The updates of an epoch, as the trainer gets them, before it shuffles them."""
        iterator = self.task.get_batch_iterator(self.data, self.max_tokens, None, (512, 512), epoch=epoch)
        return [self.data.collater([self.data[part] for part in update]) for update in iterator.frozen_batches]


class Optimizer:
    """What `train_step` needs of one."""

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


def build(data: Path, method: str, *more: str, direction: str = "xxx-eng", seed: int = 1) -> System:
    """Return the system of `sensikit train DATA --method METHOD -- MORE`, at toy size."""
    from sensikit.backends.fairseq.data import open_data

    compat.load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fairseq import options, tasks

        import sensikit.backends.fairseq.plugin.task  # noqa: F401
        from sensikit.backends.fairseq.plugin.launch import directions
        from sensikit.training import recipes

        opened = open_data(data)
        pairs, languages = directions(opened, direction)
        flags = [*recipes.flags("small", method, pairs, languages), "--arch", "sensikit_tiny", "--log-format", "none"]
        flags += ["--max-tokens", "400", "--tokens-per-update", "400", "--cpu", *more]
        args = options.parse_args_and_arch(options.get_training_parser(), [str(opened.bin), *flags])
        task = tasks.setup_task(args)
        torch.manual_seed(seed)
        model = task.build_model(args)
        criterion = task.build_criterion(args)
        task.load_dataset("train")
    return System(task, model, criterion, task.dataset("train"), args.max_tokens)


def step(
    system: System, sample: Mapping[str, Any], update: int = 0, ignore: bool = False
) -> tuple[Any, float, dict[str, Any]]:
    """Do what the trainer does with one update, up to the division of the gradient by the sample size."""
    system.model.zero_grad()
    torch.manual_seed(update)
    system.criterion.train()
    with compat.quiet():
        return system.task.train_step(sample, system.model, system.criterion, Optimizer(), update, ignore)


def gradient(system: System, divisor: float = 1.0) -> torch.Tensor:
    """The gradient of all parameters as one vector, zeros where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in system.model.parameters()]
    return torch.cat([part.flatten() for part in parts]) / divisor


def saved(system: System, path: Path) -> Path:
    """Write the system as a checkpoint, with its settings, as fairseq-train would; return `path`."""
    torch.save({"args": system.task.args, "model": system.model.state_dict()}, path)
    return path
