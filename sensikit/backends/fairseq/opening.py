"""Checkpoints of fairseq-train: the transformer family, trained on translation_multi_simple_epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sensikit import sharding
from sensikit.backends.base import Provenance, Task, described
from sensikit.backends.fairseq import checkpoint as checkpoints
from sensikit.backends.fairseq import compat
from sensikit.backends.fairseq.data import open_data
from sensikit.backends.fairseq.denoising import Denoising
from sensikit.backends.fairseq.m2m100 import write_huggingface
from sensikit.backends.fairseq.model import Opened, build_model, build_task, encoder_projection
from sensikit.backends.fairseq.settings import ties_of, trained
from sensikit.backends.fairseq.translation import Translation
from sensikit.backends.manifest import group_of
from sensikit.errors import CheckpointError, DataError
from sensikit.files import replacing
from sensikit.languages import direction_of, keyed, select
from sensikit.settings import Tiers

NOTE = "sensikit"
"""The key of a file under which it says how it was pruned; fairseq passes over it."""


class FairseqModel:
    """A fairseq model with its data; see `sensikit.backends.base.Model`."""

    def __init__(self, opened: Opened, provenance: Provenance, notes: Sequence[str] = ()) -> None:
        self.opened, self.provenance, self.notes = opened, provenance, notes
        self.module, self.device = opened.module, opened.device
        self.ghosts = compat.ghosts(opened.module)
        self.training: Mapping[str, Any] = opened.settings.training
        self.tasks: tuple[str, ...] = ("mt", "denoise") if self.training["denoise"] else ("mt",)
        self._translation = Translation(opened)
        self._denoising: dict[int, Denoising] = {}

    def __repr__(self) -> str:
        return described(self)

    def task(self, name: str, seed: int = 1) -> Task:
        """Return translation, or the denoising that the checkpoint was trained on."""
        if name == "mt":
            return self._translation
        if seed not in self._denoising:
            self._denoising[seed] = Denoising(self.opened, seed)
        return self._denoising[seed]

    def write_pruned(self, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
        """Write the checkpoint with what `masks` say set to zero; see the function `write_pruned`."""
        return write_pruned(Path(self.provenance.checkpoint), self.provenance.checkpoint_sha256, out, masks, note)

    def write_huggingface(self, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
        """Write a Hugging Face directory with what `masks` say set to zero; see `sensikit.backends.fairseq.m2m100`."""
        return write_huggingface(self.opened, Path(self.provenance.checkpoint), out, masks, note)


def open_checkpoint(
    checkpoint: Path,
    data: Path,
    direction: str | None = None,
    device: str = "auto",
    pairs: Sequence[str] | None = None,
    tiers: Tiers | None = None,
    shard: int = 1,
) -> FairseqModel:
    """Return the model of `checkpoint` with its data; nothing inside the checkpoint is run.

    Pairs that there are no data of are left out, and noted. What is given is as for `sensikit.backends.open_model`.

    Raises:
        CheckpointError: if the checkpoint cannot be read safely, or is not one of these.
        DataError: if the data do not belong to it.
        OptionError: if the direction, a pair or the device does not exist.
        MissingDependencyError: if fairseq is not installed.
    """
    where = sharding.pick_device(device)
    checkpoints.check_file(Path(checkpoint))  # what is no checkpoint is not told as a fault of the data
    directory = open_data(Path(data))
    file = checkpoints.read(Path(checkpoint))
    settings = trained(file)
    selected = select(settings.pairs, direction, pairs)
    chosen = keyed(selected)
    tiers = tiers or Tiers()
    tiers.check(list(chosen))
    groups = {
        key: group_of(key, pair, directory.counts(*pair), directory.manifest, tiers) for key, pair in chosen.items()
    }
    there = {key: group for key, group in groups.items() if group.sizes}
    if not there:
        shown = ", ".join(map("-".join, list(chosen.values())[:4]))
        raise DataError(directory.root, f"has no binarised {shown}", "give the data that the checkpoint was trained on")
    without = [key for key in groups if key not in there]
    notes = [f"{', '.join(without)}: left out, no data in {directory.root}"] if without else []
    unwrapped = f", names without {file.wrapper}" if file.wrapper else ""
    notes += [f"{checkpoint}: read{unwrapped}, which a wrapper put there"] if unwrapped else []
    held = {key: chosen[key] for key in there}
    parts = compat.load()
    task = build_task(parts, settings, list(held.values()), directory)
    provenance = Provenance(
        framework=f"fairseq ({settings.task}, {settings.arch}{unwrapped})",
        checkpoint=str(checkpoint),
        checkpoint_sha256=file.sha256,
        data=str(data),
        data_sha256=directory.fingerprint(held.values()),
    )
    module = build_model(settings, file, task, directory)
    module = sharding.shard(module, sharding.joined(shard, where)) if shard > 1 else module.to(where)
    own = encoder_projection(settings, file)
    projection = None if own is None else own.to(where)
    view = direction_of(selected, settings.pairs)
    opened = Opened(module, task, parts, settings, directory, held, there, tiers, view, where, projection)
    return FairseqModel(opened, provenance, notes)


def write_pruned(source: Path, sha256: str, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
    """Write `source`, of that `sha256`, to `out` with what `masks` say set to zero; return how many scalars went.

    Every other weight keeps its bits and its dtype, and the settings are copied as they stand: nothing of them is run,
    or vouched for. The optimizer's state is left out: what is pruned is to translate, and fairseq would not keep its
    zeros in training. So are the ghosts that fairseq 0.12.2 stores, and makes again.

    Raises:
        CheckpointError: if the file cannot be read safely, is another one, or lacks a tensor of the masks.
    """
    file = checkpoints.read(source)
    if file.sha256 != sha256:
        raise CheckpointError(source, "has changed since it was opened", "start again")
    ties = ties_of(trained(file))
    state = {name: tensor for name, tensor in file.state.items() if name.rsplit(".", 1)[-1] not in compat.GHOSTS}
    for name, mask in masks.items():
        names = [each for each in (ties if name in ties else (name,)) if each in state]
        if not names or any(state[each].shape != mask.shape for each in names):
            raise CheckpointError(source, f"has no {name} of the shape {tuple(mask.shape)}", "give the one of the run")
        state |= dict.fromkeys(names, state[names[0]].masked_fill(mask, 0))
    content: dict[str, Any] = {**file.content, "model": state, NOTE: note}
    with replacing(out) as partial, partial.open("wb") as stream:
        torch.save(content, stream)  # of a path, torch would hide what the system says
    return sum(int(mask.sum()) for mask in masks.values())
