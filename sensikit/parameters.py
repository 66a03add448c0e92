"""The registry: every trainable tensor of a model once, under one name, at one place in the flat order."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sensikit.errors import CheckpointError

SAMPLED = 1_000_000
"""Block means are kept for a sample of at most this many parameters."""

FLOAT = 4
"""Bytes of a float32, in which everything is held and stored."""

VECTORS_IN_MEMORY = 6
"""Vectors that an analysis holds: weights, their gradient, two levels of sums, S and its half on their way to disk."""

VECTORS_PER_GROUP = 3
"""Vectors of all parameters that it stores for each group: S(θ,B_l), its first half, S(θ,B_-l)."""

_LAYER = re.compile(r"\b(?:layers|layer|block|blocks|h)\.(\d+)\b")
_SIDE = re.compile(r"(?:model\.)?(encoder|decoder)\b")
_EXPERTS = re.compile(r"\bexperts\b")  # of a mixture, fused into one tensor
_PROJECTION = re.compile(r"output_projection|lm_head|output_layer")
_COMPONENTS = {
    "norm": re.compile(r"norm|\bln_"),
    "projection": _PROJECTION,
    "attention": re.compile(r"attn|attention", re.IGNORECASE),  # T5 writes SelfAttention
    "ffn": re.compile(r"\b(fc\d?|ffn|mlp|dense\w*|wi(_\d)?|wo|intermediate)\b"),
    "embedding": re.compile(r"emb|shared\b|\bw[tp]e\b"),  # GPT-2 writes wte and wpe
}
"""By what stands in a name; the first that does counts, for the norms of attention are norms."""


@dataclass(frozen=True)
class Parameter:
    """One trainable tensor.

    `start` is the index of its first element in the flat vector of all P parameters; `aliases` are the other names of
    a tied tensor; `prunable` is true for weights and biases of Linear and Embedding modules.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    component: str
    stack: str
    layer: int | None
    prunable: bool
    aliases: tuple[str, ...] = ()

    @property
    def numel(self) -> int:
        """How many scalars the tensor holds."""
        return int(torch.Size(self.shape).numel())

    @property
    def stop(self) -> int:
        """The index after its last element in the flat vector."""
        return self.start + self.numel


def registry(module: nn.Module, ghosts: Collection[str] = ()) -> tuple[Parameter, ...]:
    """Return every trainable parameter of `module` once, in the order of `named_parameters`.

    >>> tied = nn.Sequential(nn.Embedding(5, 2), nn.LayerNorm(2), nn.Linear(2, 5, bias=False))
    >>> tied[2].weight = tied[0].weight
    >>> [(each.name, each.start, each.prunable, each.aliases) for each in registry(tied)]
    [('0.weight', 0, True, ('2.weight',)), ('1.weight', 10, False, ()), ('1.bias', 12, False, ())]

    A tied tensor is listed under its first name. `ghosts` (tensors that the forward pass never reads) are left out.

    Raises:
        CheckpointError: if two different parameters share memory (their gradients would be split between
            them), or if there is nothing trainable.
    """
    names: dict[int, list[str]] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    prunable = {
        id(tensor)
        for part_name, part in module.named_modules()
        # Conv1D is GPT-2's linear layer, with the weight the other way round
        if isinstance(part, nn.Linear | nn.Embedding) or type(part).__name__ == "Conv1D" or _EXPERTS.search(part_name)
        for tensor in part.parameters(recurse=False)
    }
    written = [name for name, _ in module.named_parameters()]
    decoder_alone = any(map(_LAYER.search, written)) and not any(map(_SIDE.search, written))
    found: list[Parameter] = []
    start = 0
    for name, tensor in module.named_parameters():
        if not tensor.requires_grad or name in ghosts:
            continue
        found.append(
            Parameter(
                name=name,
                shape=tuple(tensor.shape),
                start=start,
                component=component_of(name),
                stack="decoder" if decoder_alone else stack_of(name, names[id(tensor)]),
                layer=layer_of(name),
                prunable=id(tensor) in prunable,
                aliases=tuple(other for other in names[id(tensor)] if other != name),
            )
        )
        start += tensor.numel()
    if not found:
        raise CheckpointError(type(module).__name__, "has no trainable parameter", "is everything frozen?")
    _refuse_overlap(tensors(module, found))
    return tuple(found)


def listed(entries: Sequence[Any]) -> tuple[Parameter, ...]:
    """Return the parameters of a manifest's list of them, each as `dataclasses.asdict` made it.

    Raises:
        ValueError: saying what is wrong: a field, a place in the flat order, or a part of the model that is not what a
            name says.
    """
    kinds = {
        "name": str, "shape": list, "start": int, "component": str, "stack": str, "prunable": bool, "aliases": list,
    }  # fmt: skip
    found: list[Parameter] = []
    for entry in entries:
        if not isinstance(entry, dict) or {*entry} != {*kinds, "layer"}:
            raise ValueError("a parameter has other fields")
        wrong = [field for field, kind in kinds.items() if type(entry[field]) is not kind]
        wrong += ["shape"] * any(type(size) is not int or size < 0 for size in entry["shape"])
        wrong += ["aliases"] * any(type(name) is not str for name in entry["aliases"])
        if wrong:
            raise ValueError(f"{entry['name']} has no {wrong[0]}")
        found.append(Parameter(**{**entry, "shape": tuple(entry["shape"]), "aliases": tuple(entry["aliases"])}))
    if not found or len({each.name for each in found}) < len(found):
        raise ValueError("none is listed" if not found else "one is listed twice")
    sided = any(_SIDE.search(each.name) for each in found)
    for each, start in zip(found, itertools.accumulate((each.numel for each in found), initial=0), strict=False):
        stacks = {stack_of(each.name, each.aliases), *(() if sided else ("decoder",))}
        if each.start != start:
            raise ValueError(f"{each.name} does not start where the one before it ends")
        if (each.component, each.layer) != (component_of(each.name), layer_of(each.name)) or each.stack not in stacks:
            raise ValueError(f"{each.name} is in another part of the model")
    return tuple(found)


def tensors(module: nn.Module, parameters: Collection[Parameter]) -> Iterator[tuple[Parameter, nn.Parameter]]:
    """Yield each registered parameter with its tensor in `module`."""
    named = dict(module.named_parameters())
    for parameter in parameters:
        yield parameter, named[parameter.name]


@contextlib.contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put a module in training mode or in evaluation mode; afterwards its parts are in their own, as torch's seeds."""
    modes = [(part, part.training) for part in module.modules()]
    devices = {tensor.device.index for tensor in module.parameters() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        module.train(training)
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode


def wide(tensor: torch.Tensor) -> torch.dtype:
    """Return in which dtype sums of a tensor's gradients are: float32, or wider where it is."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _refuse_overlap(named: Iterable[tuple[Parameter, nn.Parameter]]) -> None:
    spans = sorted((str(tensor.device), *_span(tensor), parameter.name) for parameter, tensor in named)
    for (device, _, stop, one), (other_device, start, _, other) in itertools.pairwise(spans):
        # parameters on the meta device have no memory, and so no place
        if start and device == other_device and start < stop:
            problem = f"shares its memory with {one} but is another parameter"
            raise CheckpointError(other, problem, "tie them as one Parameter")


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the first address of a tensor and the one after its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def component_of(name: str) -> str:
    """Return embedding, projection, attention, ffn, norm or other."""
    return next((component for component, words in _COMPONENTS.items() if words.search(name)), "other")


def stack_of(name: str, names: Collection[str] = ()) -> str:
    """Return encoder, decoder, or shared for what belongs to neither or is tied across both.

    The projection to the vocabulary is the decoder's.
    """
    found = (_SIDE.match(each) or _PROJECTION.match(each) for each in (name, *names))
    sides = {match[1] if match.re is _SIDE else "decoder" for match in found if match}
    return sides.pop() if len(sides) == 1 else "shared"


def layer_of(name: str) -> int | None:
    """Return the layer's number in its stack, from 0, or None outside the layers."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None


def sample_of(parameters: Sequence[Parameter], limit: int = SAMPLED) -> dict[str, np.ndarray]:
    """Return the flat indices (sorted int64) of each tensor whose block means are kept: all, or `limit` in all.

    Stratified by tensor, in proportion to its size. The seed is fixed: two models of one shape give the same
    sample, so that their blocks can be paired.
    """
    total = sum(parameter.numel for parameter in parameters)
    if total <= limit:
        return {parameter.name: np.arange(parameter.numel) for parameter in parameters}
    generator = np.random.default_rng(0)
    chosen = {}
    for parameter in parameters:
        # rounded at its ends and not by itself, so that all of them sum to the limit
        count = limit * parameter.stop // total - limit * parameter.start // total
        chosen[parameter.name] = np.sort(generator.choice(parameter.numel, size=count, replace=False))
    return chosen


def memory_of(count: int) -> int:
    """Return the bytes of memory that an analysis of `count` parameters takes, beside what a micro-batch takes."""
    return FLOAT * VECTORS_IN_MEMORY * count


def disk_per_group(count: int, width: int = FLOAT, halves: bool = True) -> int:
    """Return the bytes that the vectors of one group and task take on disk, beside its block means."""
    return width * (VECTORS_PER_GROUP - (not halves)) * count
