"""Which of the paper's systems a fairseq checkpoint is, by its validated settings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sensikit.backends.settings import Settings
from sensikit.training.denoising import OBJECTIVES
from sensikit.training.objectives import TERMS
from sensikit.training.recipes import METHODS, Method

REGULAR: dict[str, Any] = {
    "method": "regular", "denoise": None, "distill": None, "mask_ratio": None, "id_k": None, "id_alpha": None,
    "id_passes": None, "id_weights": None, "loss_weights": None, "separate_projection": None,
}  # fmt: skip
"""Translation alone; what has no effect there is None."""


def training_of(task: Settings, criterion: Settings, updates: int | None) -> dict[str, Any]:
    """Return `updates` and the fields of `REGULAR`: the method and what it was trained with.

    `method` is a name of `recipes.METHODS`, or None for another combination; `denoise` and `distill` are its parts,
    joined by commas as --denoise and --distill take them.

    Args:
        task: settings of the task and the model; one that is not the training plugin's is a regular one.
        criterion: settings of the criterion.
        updates: done.

    Raises:
        CheckpointError: for a setting that the training plugin cannot have written.
    """
    if task.values.get("_name", task.values.get("task")) != "sensikit":
        return {"updates": updates, **REGULAR}
    denoise = _names(task, "denoise", OBJECTIVES)
    distill = _names(criterion, "distill", TERMS)
    found: dict[str, Any] = {"method": _method(denoise, distill)}
    if denoise:
        found |= {"denoise": ",".join(denoise), "mask_ratio": _ratio(task, denoise)}
        found["separate_projection"] = task.flag("separate_projection")
        found["loss_weights"] = criterion.choice("loss_weights", ("own", "released"), "own")
    if distill:
        found |= {"distill": ",".join(distill), "id_k": criterion.integer("id_k", 2, 1000, 2)}
        found["id_alpha"] = criterion.number("id_alpha", 0, 1e9, 5.0)
        found["id_passes"] = criterion.choice("id_passes", ("full", "shared-encoder"), "full")
        found["id_weights"] = criterion.choice("id_weights", ("equation", "halved"), "equation")
    return {"updates": updates, **REGULAR, **found}


def _names(settings: Settings, name: str, known: Collection[str]) -> tuple[str, ...]:
    value = settings.values.get(name) or ""
    names = tuple(part for part in value.split(",") if part) if type(value) is str else ("?",)
    if not set(names) <= set(known):
        raise settings.refusal(name, "some of " + ", ".join(known))
    return names


def _method(denoise: tuple[str, ...], distill: tuple[str, ...]) -> str | None:
    """Return the first name of these parts, in whatever order they were given."""

    def parts(method: Method) -> tuple[set[str], set[str]]:
        return set(method.denoise), set(method.distill)

    wanted = parts(Method(denoise, distill))
    return next((name for name, method in METHODS.items() if parts(method) == wanted), None)


def _ratio(task: Settings, denoise: tuple[str, ...]) -> float | None:
    """Return the share that was masked; None where objectives have defaults of their own."""
    usual = {OBJECTIVES[name].ratio for name in denoise}
    if "mask_ratio" in task:
        return task.number("mask_ratio", 0, 1)
    return usual.pop() if len(usual) == 1 else None
