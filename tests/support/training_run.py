"""Training runs at toy size, as `sensikit train` makes them, and what they left."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
import typer
from typer.testing import CliRunner, Result

from sensikit.backends.fairseq.checkpoint import read

FEW = ["--max-tokens", "300", "--tokens-per-update", "300", "--log-interval", "2", "--save-interval-updates", "4"]
FEW += ["--warmup-updates", "4"]


def train(
    data: Path, out: Path, *options: str, method: str = "cd+id", updates: int = 10, flags: list[str] = FEW
) -> Result:
    """`sensikit train`, in this process; an error comes through."""
    from sensikit_cli.options import with_options
    from sensikit_cli.train import train as command

    app = typer.Typer()
    app.command()(with_options(command))
    words = [str(data), "--out", str(out), "--method", method, "--arch", "tiny", "--updates", str(updates), *options]
    result = CliRunner().invoke(app, [*words, "--", *flags], catch_exceptions=False)
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    return result


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read(out / "checkpoint_last.pt").state


def journal(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
