"""A checkpoint of fairseq with some of its weights set to zero, for fairseq to translate with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sensikit.backends.fairseq import checkpoint as checkpoints
from sensikit.backends.fairseq.compat import GHOSTS
from sensikit.backends.fairseq.settings import ties_of, trained
from sensikit.errors import CheckpointError
from sensikit.files import replacing

NOTE = "sensikit"
"""The key of the file under which it says how it was pruned; fairseq passes over it."""


def write_pruned(source: Path, sha256: str, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
    """Write `source` to `out` with what `masks` say set to zero; return how many scalars went, tied ones counted once.

    Every other weight keeps its bits and its dtype, and the settings are copied as they stand: nothing of them is run,
    or vouched for. The optimizer's state is left out: what is pruned is to translate, and fairseq would not keep its
    zeros in training. So are the second copies of the encoder's weights that fairseq 0.12.2 stores, and makes again.

    Args:
        source: a fairseq checkpoint.
        sha256: which it must have.
        out: where to.
        masks: parameter name → bool of its shape.
        note: kept in the file.

    Raises:
        CheckpointError: if the file cannot be read safely, is another one, or lacks a tensor of the masks.
    """
    file = checkpoints.read(source)
    if file.sha256 != sha256:
        raise CheckpointError(source, "has changed since it was opened", "start again")
    ties = ties_of(trained(file))
    state = {name: tensor for name, tensor in file.state.items() if name.rsplit(".", 1)[-1] not in GHOSTS}
    count = 0
    for name, mask in masks.items():
        names = [each for each in (ties if name in ties else (name,)) if each in state]
        if not names or any(state[each].shape != mask.shape for each in names):
            raise CheckpointError(source, f"has no {name} of the shape {tuple(mask.shape)}", "give the one of the run")
        zeroed = state[names[0]].masked_fill(mask, 0)
        state |= dict.fromkeys(names, zeroed)
        count += int(mask.sum())
    content: dict[str, Any] = {**file.content, "model": state, NOTE: note}
    with replacing(out) as partial, partial.open("wb") as opened:  # of a path, torch would hide what the system says
        torch.save(content, opened)
    return count
