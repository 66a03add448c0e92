"""What is inside a checkpoint, found without running anything inside it and without its framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sensikit.backends.fairseq.checkpoint import Checkpoint, read
from sensikit.backends.fairseq.compat import GHOSTS
from sensikit.backends.fairseq.settings import OTHER_TASKS, Trained, ties_of, trained
from sensikit.backends.inspection import Contents, counted
from sensikit.errors import CheckpointError
from sensikit.languages import hub_of, keyed, views
from sensikit.parameters import component_of, disk_per_group, layer_of, memory_of, stack_of

_BUFFERS = ("version", "_float_tensor", "weights")


def inspect(path: Path) -> Contents:
    """Return what the checkpoint at `path` holds."""
    checkpoint = read(path)
    settings, problem = _settings(checkpoint)
    state = {name: each for name, each in checkpoint.state.items() if name.rsplit(".", 1)[-1] not in _BUFFERS}
    ghosts = [name for name in state if name.rsplit(".", 1)[-1] in GHOSTS or name in OTHER_TASKS]
    tied = _ties({name: each for name, each in state.items() if name not in ghosts}, settings)
    repeated = {name for group in tied for name in group[1:]}
    single = {name: each.numel() for name, each in state.items() if name not in repeated and name not in ghosts}
    total = sum(single.values())
    return Contents(
        path=str(path),
        sha256=checkpoint.sha256,
        bytes=checkpoint.bytes,
        problem=problem,
        **_trained(settings, checkpoint.wrapper),
        optimizer_state=checkpoint.has_optimizer,
        layers={side: _layers(state, side) for side in ("encoder", "decoder")},
        vocabulary=next((each.shape[0] for name, each in state.items() if name.endswith("embed_tokens.weight")), 0),
        dtypes=counted((str(each.dtype).removeprefix("torch."), 1) for each in state.values()),
        tensors=len(single),
        parameters=total,
        prunable=sum(count for name, count in single.items() if component_of(name) != "norm"),
        components=counted((_place(name, tied), count) for name, count in single.items()),
        tied=tied,
        ghosts=sum(state[name].numel() for name in ghosts),
        memory=memory_of(total),
        disk_per_group=disk_per_group(total),
    )


def _settings(checkpoint: Checkpoint) -> tuple[Trained | None, str]:
    """Return the settings, or None and why they cannot be used."""
    try:
        settings = trained(checkpoint)
    except CheckpointError as error:
        return None, f"{error.problem}; {error.remedy}"
    return settings, ""


def _trained(settings: Trained | None, wrapper: str) -> dict[str, Any]:
    if settings is None:
        known = {"task": "", "arch": "", "directions": {}, "language_tags": "", "criterion": ""}
        return {**known, "updates": None}
    directions = views(settings.pairs) if hub_of(settings.pairs) else {"pairs": settings.pairs}
    criterion = settings.criterion or "unknown"
    return {
        "task": settings.task,
        "arch": f"{settings.arch} (names without {wrapper})" if wrapper else settings.arch,
        "directions": {name: list(keyed(pairs)) for name, pairs in directions.items()},
        "language_tags": _tags(settings),
        "criterion": f"{criterion}, smoothing {settings.label_smoothing:g}" if settings.label_smoothing else criterion,
        "updates": settings.updates,
    }


def _tags(settings: Trained) -> str:
    sides = {"src": "source language on the source", "tgt": "target language on the source", "": ""}
    placed = [sides[settings.encoder_tag], "target language on the target" if settings.decoder_tag else ""]
    where = "in place of </s>" if settings.tags_replace_eos else "in front"
    shown = ", ".join(each for each in placed if each)
    return f"{shown} ({where})" if shown else "none"


def _ties(state: Mapping[str, torch.Tensor], settings: Trained | None) -> list[list[str]]:
    """Return groups of names that are one tensor: in the file, or by the settings (a GPU stores copies)."""
    groups: dict[int, list[str]] = {}
    by_settings = [name for name in (ties_of(settings) if settings else ()) if name in state]
    for name, tensor in state.items():
        key = id(state[by_settings[0]]) if name in by_settings else id(tensor)
        groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _place(name: str, tied: list[list[str]]) -> str:
    aliases = next((group for group in tied if name in group), [])
    return f"{stack_of(name, aliases)} {component_of(name)}"


def _layers(state: Mapping[str, torch.Tensor], side: str) -> int:
    return len({layer_of(name) for name in state if name.startswith(side)} - {None})
