"""What pruning leaves, for use elsewhere: the mask, and the pruned checkpoint in its own framework's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sensikit.backends.base import Model
from sensikit.errors import OptionError
from sensikit.files import replacing
from sensikit.languages import chosen_groups
from sensikit.pruning.masks import Order, chosen, pruning_plan
from sensikit.pruning.scorers import measure_missing, scorer_of
from sensikit.run import Run, rest_of, save_vector
from sensikit.sensitivity.planning import check_source
from sensikit.sensitivity.taylor import Tensors
from sensikit.signature import signature


@dataclass(frozen=True)
class Exported:
    """How many of the prunable parameters were set to zero, and how they were chosen."""

    pruned: int
    prunable: int
    signature: str


def export(run: Run, model: Model, order: Order, ratio: float, out: Path, mask: Path | None = None) -> Exported:
    """Write the checkpoint of a run with what `order` prunes at `ratio` set to zero, and the mask where it is wanted.

    Args:
        run: with the sensitivities of the order's group.
        model: the checkpoint and data that the run was measured on.
        order: the order.
        ratio: pruned / prunable, in [0, 1 - protect].
        out: the checkpoint to write; it translates, and has no state of an optimizer.
        mask: a safetensors file to write: a bool tensor for each parameter, under its own name and in its own shape,
            true where it is pruned.

    Raises:
        OptionError: for an order, a ratio or a group that does not exist, or where a file stands already.
        RunError: if the run belongs to another checkpoint or other data.
    """
    for option, path in (("--out", out), ("--mask", mask)):
        if path is not None and path.exists():
            raise OptionError(f"{option} {path}", "already exists", "choose another name")
    scorer_of(order.name)
    check_source(run, model)
    (group,) = chosen_groups(run.groups(order.task), [order.group])
    with run.locked():
        run.check(order.task, [group, rest_of(group)])
        measure_missing(run, model, [(order.name, group)], order.task)
    plan = pruning_plan(run, model.module, order, [ratio])
    masks: Tensors = {p.name: torch.zeros(p.shape, dtype=torch.bool, device="cpu") for p in run.parameters}
    for parameter, offset, inside in chosen(run, model.module, plan, ratio):
        masks[parameter.name].view(-1)[offset : offset + len(inside)] = torch.from_numpy(inside)
    signed = export_signature(run, order, ratio)
    count = model.write_pruned(out, masks, signed)
    if mask is not None:
        with replacing(mask) as partial:
            save_vector(masks, partial, {"signature": signed})
    return Exported(count, plan.prunable, signed)


def export_signature(run: Run, order: Order, ratio: float) -> str:
    """Return the signature of a pruned model: every choice that decides which parameters are zero."""
    return signature(
        "M",
        task=order.task,
        order=order.name,
        group=order.group,
        ratio=repr(float(ratio)),
        protect=order.protect,
        scope="global",
        seed=order.seed if order.name == "random" else None,
        dir=run.manifest["direction"],
        ckpt=run.manifest["provenance"]["checkpoint_sha256"][:8],
        data=run.manifest["provenance"]["data_sha256"][:8],
    )
