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
) -> Model:
    """Return a model with its data; nothing inside the checkpoint is run.

    >>> model = open_model(checkpoint, data)
    >>> model.tasks, list(model.task("mt").groups), model.task("mt").direction
    (('mt',), ['cat', 'nob', 'fao'], 'xxx-eng')

    Args:
        checkpoint: a fairseq checkpoint, a Hugging Face directory, or owner/model of the Hugging Face hub.
        data: what `sensikit corpus` wrote, a fairseq data directory, or for Hugging Face's models a folder of text.
        direction: "xxx-eng", "eng-xxx", or with any other language; by default the pairs into the language that all
            pairs have in common, else those out of it, else all pairs.
        device: "auto", "cpu", "cuda" or "cuda:N".
        pairs: instead of a direction, such as ["cat-fra", "spa-fra"].
        loading: of Hugging Face's models alone.
        tiers: of the groups, in place of those of the data.

    Raises:
        CheckpointError, DataError, OptionError, MissingDependencyError: in one line, what is wrong and what to do.
    """
    checkpoint, data, loading = Path(checkpoint), Path(data), loading or Loading()
    if not is_file(checkpoint):
        from sensikit.backends.huggingface.opening import open_directory

        return open_directory(checkpoint, data, direction, device, pairs, loading, tiers)
    from sensikit.backends.fairseq.opening import open_checkpoint

    for name in loading.given():
        raise OptionError(f"--{name}", f"is of Hugging Face's models, and {checkpoint} is fairseq's", "leave it out")
    return open_checkpoint(checkpoint, data, direction, device, pairs, tiers)


def first_task(checkpoint: Path, revision: str | None = None) -> str:
    """Return what a model is for: "mt", or "lm" of a decoder language model.

    Raises:
        CheckpointError: if it cannot be read safely.
    """
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
    checkpoint = Path(checkpoint)
    if is_file(checkpoint):
        from sensikit.backends.fairseq.inspection import inspect as look

        return look(checkpoint)
    from sensikit.backends.huggingface.inspection import inspect as look_at

    return look_at(checkpoint, revision)
