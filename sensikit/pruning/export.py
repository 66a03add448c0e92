"""What pruning leaves, for use elsewhere: the mask, and the pruned checkpoint, in its own format or Hugging Face's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sensikit.backends.base import Convertible, Model
from sensikit.errors import OptionError
from sensikit.files import replacing
from sensikit.languages import chosen_groups
from sensikit.pruning.ledger import SEEDED, UNPRUNED
from sensikit.pruning.masks import Order, chosen, pruning_plan
from sensikit.pruning.scorers import measure_missing, scorer_of
from sensikit.run import Run, save_vector, sets_of
from sensikit.sensitivity.planning import check_source
from sensikit.sensitivity.taylor import Tensors
from sensikit.signature import signature


@dataclass(frozen=True)
class Exported:
    """How many of the prunable parameters were set to zero, and how they were chosen."""

    pruned: int
    prunable: int
    signature: str


FORMATS = ("native", "huggingface")
"""What a model is written as: in its own framework's format, or as transformers loads it."""


def export(
    run: Run, model: Model, order: Order, ratio: float, out: Path, mask: Path | None = None, form: str = "native"
) -> Exported:
    """Write the checkpoint of a run with what `order` prunes at `ratio` set to zero, and the mask where it is wanted.

    >>> made = export(run, model, Order("specificity", "cat"), 0.5, folder / "pruned.safetensors")
    >>> made.pruned, made.prunable, made.signature.split("|")[1:5]
    (828, 1656, ['task:mt', 'order:specificity', 'group:cat', 'ratio:0.5'])

    Args:
        run: with the sensitivities of the order's group.
        model: the checkpoint and data that the run was measured on.
        order: the order.
        ratio: pruned / prunable, in [0, 1 - protect].
        out: the checkpoint to write, or the directory; it translates, and has no state of an optimizer.
        mask: a safetensors file to write: a bool tensor for each parameter, under its own name and in its own shape,
            true where it is pruned.
        form: one of `FORMATS`.

    Raises:
        OptionError: for an order, a ratio or a group that does not exist, where a file stands already, or for a
            format that the model does not have.
        RunError: if the run belongs to another checkpoint or other data.
    """
    _check_free("--out", out)
    if mask is not None:
        _check_free("--mask", mask)
    write = _writer(model, form)
    scorer_of(order.name)
    check_source(run, model)
    order = replace(order, task=order.task or run.tasks[0])
    (group,) = chosen_groups(run.groups(order.task), [order.group])
    with run.locked():
        run.check(order.task, sets_of([group]))
        measure_missing(run, model, [(order.name, group)], order.task)
    plan = pruning_plan(run, model.module, order, [ratio])
    masks: Tensors = {p.name: torch.zeros(p.shape, dtype=torch.bool, device="cpu") for p in run.parameters}
    masks |= {parameter.name: torch.from_numpy(inside) for parameter, inside in chosen(run, plan, ratio)}
    signed = export_signature(run, order, ratio)
    count = write(out, masks, signed)
    if mask is not None:
        with replacing(mask) as partial:
            save_vector(masks, partial, {"signature": signed})
    return Exported(count, plan.prunable, signed)


def convert(model: Model, out: Path) -> str:
    """Write a whole model as a Hugging Face directory, `out`; return its signature.

    Raises:
        OptionError: where something stands already, or if there is no such format of the model.
        CheckpointError: if it is none of Hugging Face's.
    """
    _check_free("--out", out)
    where = model.provenance
    signed = signature("M", order=UNPRUNED, ckpt=where.checkpoint_sha256[:8], data=where.data_sha256[:8])
    _writer(model, "huggingface")(out, {}, signed)
    return signed


def _check_free(option: str, path: Path) -> None:
    if os.path.lexists(path):  # a link into nowhere too: it would be replaced
        raise OptionError(f"{option} {path}", "already exists", "choose another name")


def _writer(model: Model, form: str) -> Callable[[Path, Mapping[str, torch.Tensor], str], int]:
    if form not in FORMATS:
        raise OptionError("--format", f"{form!r} is unknown", f"give {' or '.join(FORMATS)}")
    if form == "native":
        return model.write_pruned
    if not isinstance(model, Convertible):
        raise OptionError("--format", f"{model.provenance.framework} has its own format alone", "give native")
    return model.write_huggingface


def export_signature(run: Run, order: Order, ratio: float) -> str:
    """Return the signature of a pruned model: every choice that decides which parameters are zero."""
    return signature(
        "M",
        task=order.task or run.tasks[0],
        order=order.name,
        group=order.group,
        ratio=repr(float(ratio)),
        protect=order.protect,
        among=order.among,
        scope="global",
        seed=order.seed if order.name in SEEDED else None,
        dir=run.manifest["direction"],
        ckpt=run.manifest["provenance"]["checkpoint_sha256"][:8],
        data=run.manifest["provenance"]["data_sha256"][:8],
    )
