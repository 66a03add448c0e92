"""What differs between frameworks, and nothing else: one package for each, against the protocol in `base`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sensikit.backends.base import Model, is_file
from sensikit.errors import OptionError
from sensikit.settings import Loading, Tiers

if TYPE_CHECKING:
    from sensikit.backends.inspection import Contents


def open_model(
    checkpoint: Path,
    data: Path,
    direction: str | None = None,
    device: str = "auto",
    pairs: Sequence[str] | None = None,
    loading: Loading | None = None,
    tiers: Tiers | None = None,
    shard: int = 1,
) -> Model:
    """Return a model with its data; nothing inside the checkpoint is run. What is given is as for `sensikit.open`.

    `shard` processes of a launcher, all called alike, hold one model together: see `sensikit.sharding`.

    Raises:
        CheckpointError, DataError, OptionError, MissingDependencyError: in one line, what is wrong and what to do.
    """
    checkpoint, data, loading = Path(checkpoint), Path(data), loading or Loading()
    if not is_file(checkpoint):
        from sensikit.backends.huggingface.opening import open_directory

        return open_directory(checkpoint, data, direction, device, pairs, loading, tiers, shard)
    from sensikit.backends.fairseq.opening import open_checkpoint

    for name in loading.given():
        raise OptionError(f"--{name}", f"is of Hugging Face's models, and {checkpoint} is fairseq's", "leave it out")
    return open_checkpoint(checkpoint, data, direction, device, pairs, tiers, shard)


def first_task(checkpoint: Path, revision: str | None = None) -> str:
    """Return what a model is for: "mt", or "lm" of a decoder language model."""
    if is_file(checkpoint):
        return "mt"
    from sensikit.backends.huggingface.directory import read_directory
    from sensikit.backends.huggingface.model import configuration

    return "mt" if configuration(read_directory(checkpoint, revision)).is_encoder_decoder else "lm"


def inspect(checkpoint: Path, revision: str | None = None) -> Contents:
    """Return what a checkpoint holds, found without running anything inside it and without loading its weights.

    Raises:
        CheckpointError: if it cannot be read safely.
    """
    if is_file(Path(checkpoint)):
        from sensikit.backends.fairseq import inspection as fairseq

        return fairseq.inspect(Path(checkpoint))
    from sensikit.backends.huggingface import inspection as huggingface

    return huggingface.inspect(Path(checkpoint), revision)
