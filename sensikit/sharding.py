"""Where a model is computed, and a model that no one device holds: its tensors are cut by rows among processes (FSDP2).

The processes of torchrun stand in a mesh (replica, shard). A group of `shard` processes holds one model and takes one
batch at a time, each of them some of its micro-batches: what FSDP2 adds up is then the gradient of the batch, of which
the absolute value is taken. Different batches within a group would give |Σ∇| in place of Σ|∇|, and so would FSDP2 on
the whole mesh, which adds up over replicas first. Replicas take different blocks, as processes with whole models do.

What is not FSDP2's own goes through the memory of the CPU, a tensor at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed, nn
from torch.utils._pytree import tree_map_only

from sensikit.errors import EndedError, OptionError, said

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""A group may wait for as long as other replicas are at work; a process that has ended is noticed at once."""

_KEPT = "_sensikit_shards"
"""What a module that is cut keeps its `Shards` as."""


def pick_device(device: str) -> torch.device:
    """Return the device that is asked for; "auto" is a GPU where there is one, of each launched process its own."""
    gpu = torch.cuda.is_available()
    if device == "auto":
        local = os.environ.get("LOCAL_RANK")
        if local and not re.fullmatch("[0-9]{1,6}", local):
            raise OptionError("environment", f"LOCAL_RANK is {local!r:.30}", "a launcher sets it to 0, say; unset it")
        own = f"cuda:{int(local) % torch.cuda.device_count()}" if local and gpu else "cuda"
        return torch.device(own if gpu else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?", device):
        raise OptionError("--device", f"{device!r} is unknown", "give auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and (not gpu or (torch.device(device).index or 0) >= torch.cuda.device_count()):
        raise OptionError("--device", f"there is no {device} on this machine", "give --device cpu or auto")
    return torch.device(device)


@dataclass(frozen=True)
class Shards:
    """The processes that hold one model together: this one is `rank` of `size`. A whole model has one, and no group.

    All of them call the same methods in the same order.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    root: Any = None

    @classmethod
    def of(cls, module: nn.Module) -> Shards:
        """Return the processes that hold a module."""
        found: Shards = module.__dict__.get(_KEPT, cls())
        return found

    @property
    def leads(self) -> bool:
        """Whether this is the first process of the group, to which whole tensors come."""
        return self.rank == 0

    def through(self, call: Callable[[], T]) -> T:
        """Return what a call returns that runs the module, or parts of it."""
        found: T = call() if self.root is None else self.root(call)
        return found

    def turns(self, micro_batches: Sequence[Sequence[T]]) -> list[tuple[Sequence[T], bool]]:
        """Return this process's micro-batches, and whether each counts.

        All processes have equally many, for every one takes part in what each of them computes. What does not count is
        the first sentence of the batch: if it is not finite, neither is the batch.

        >>> Shards(1, 2).turns(["ab", "cd", "ef"])
        [('cd', True), ('a', False)]
        """
        own = [(items, True) for items in micro_batches[self.rank :: self.size]]
        missing = -(-len(micro_batches) // self.size) - len(own)
        return own + [(micro_batches[0][:1], False)] * missing

    def summed(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes, added in their order."""
        if self.size == 1:
            return list(values)
        own = torch.tensor(values, dtype=torch.float64)
        each = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(each, own, group=self.group)
        return torch.stack(each).cumsum(dim=0)[-1].tolist()

    def told(self, value: T) -> T:
        """Return the value of the first process."""
        if self.size == 1:
            return value
        said = [value]
        distributed.broadcast_object_list(said, group=self.group, group_src=0, device=torch.device("cpu"))
        return said[0]

    def rows(self, shape: Sequence[int], rank: int | None = None) -> slice:
        """Return the rows of a tensor that a process has, by default this one: as `torch.chunk` cuts it.

        >>> [Shards(rank, 3).rows((4, 2)) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 4, None)]
        """
        count = shape[0] if shape else 1  # one without dimensions is never cut
        each, rank = -(-count // self.size), self.rank if rank is None else rank
        return slice(min(rank * each, count), min((rank + 1) * each, count))

    def flat(self, shape: Sequence[int]) -> slice:
        """Return the places in the flat order of a tensor that this process has."""
        rows, width = self.rows(shape), math.prod(shape[1:])
        return slice(rows.start * width, rows.stop * width)

    def added(self, row: np.ndarray) -> np.ndarray:
        """Return in the first process the sum of arrays of which no two are other than 0 in one place."""
        if self.size > 1:
            distributed.reduce(torch.from_numpy(row), group=self.group, group_dst=0)
        return row

    def whole(self, part: torch.Tensor, shape: Sequence[int]) -> torch.Tensor | None:
        """Return on the CPU a tensor that is cut among the processes; of all but the first one, None."""
        part = part.cpu()
        if self.size == 1:
            return part
        if not self.leads:
            if part.numel():
                distributed.send(part.contiguous(), group=self.group, group_dst=0)
            return None
        found = torch.empty(tuple(shape), dtype=part.dtype)
        found[self.rows(shape)] = part
        for rank in range(1, self.size):
            if (place := found[self.rows(shape, rank)]).numel():
                distributed.recv(place, group=self.group, group_src=rank)
        return found

    def part(self, whole: torch.Tensor | None, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return on the CPU this process's rows of a tensor that the first one has."""
        if self.size == 1 or self.leads:
            assert whole is not None
            for rank in range(1, self.size):
                if (other := whole[self.rows(shape, rank)].to("cpu", dtype).contiguous()).numel():
                    distributed.send(other, group=self.group, group_dst=rank)
            return whole[self.rows(shape)].to("cpu", dtype) if self.size > 1 else whole
        rows = self.rows(shape)
        found = torch.empty((rows.stop - rows.start, *shape[1:]), dtype=dtype)
        if found.numel():
            distributed.recv(found, group=self.group, group_src=0)
        return found


class _Root(nn.Module):
    """What FSDP2 takes for the model: all that is called within it finds what is outside the layers in one piece."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Callable[[], T]) -> T:
        return call()


def _owned(layer: nn.Module, given: Any, output: Any) -> Any:
    """Return what a layer returns without views: FSDP2 would miss the gradient of one that is changed in place."""
    return tree_map_only(torch.Tensor, lambda each: each.clone() if each._is_view() else each, output)


def layers_of(module: nn.Module) -> list[nn.Module]:
    """Return the parts of a module that are put together one at a time: the layers, outermost where they are nested.

    >>> stack = nn.ModuleDict({"embed": nn.Embedding(5, 2), "layers": nn.ModuleList([nn.Linear(2, 2), nn.Identity()])})
    >>> layers_of(stack)
    [Linear(in_features=2, out_features=2, bias=True)]
    """
    if isinstance(module, nn.ModuleList):
        return [part for part in module if next(part.parameters(), None) is not None]
    return [layer for part in module.children() for layer in layers_of(part)]


def gathered(module: nn.Module) -> int:
    """Return the bytes that a device takes, beside its rows, for what is put together.

    Weights and gradients of all that is outside the layers, and of the largest layer four times: its weights, those of
    the next one, its gradient, and that gradient on its way to the other devices.
    """
    layers = [sum(tensor.nbytes for tensor in layer.parameters()) for layer in layers_of(module)]
    outside = sum(tensor.nbytes for tensor in module.parameters()) - sum(layers)
    return 2 * outside + 4 * max(layers, default=0)


@contextlib.contextmanager
def bound() -> Iterator[None]:
    """Tell in one line, an EndedError, that another process of the group has ended and so broke the block off."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        problem = f"another of the processes that hold this model has ended or is out of reach ({said(error)})"
        raise EndedError("--shard", problem, "what it said tells why; --resume goes on") from error


def joined(size: int, device: torch.device) -> Any:
    """Return the mesh of the `size` processes that this one shares a model with."""
    from torch.distributed.device_mesh import init_device_mesh  # both load much, and most models are in one piece
    from torch.distributed.fsdp import FSDPModule

    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise OptionError("--shard", f"torch {torch.__version__} is too old for it", "install torch 2.13 or later")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        try:
            distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        except (ValueError, RuntimeError) as error:
            problem = f"its processes do not find each other ({said(error)})"
            raise OptionError("--shard", problem, "start them with torchrun") from error
        atexit.register(distributed.destroy_process_group)
    shape = distributed.get_world_size() // size, size
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("replica", "shard"))
    return mesh["shard"]


def shard(module: nn.Module, mesh: Any, whole: nn.Module | None = None) -> nn.Module:
    """Cut the tensors of a module among the processes of a mesh (see `joined`), each on its device; return the module.

    Its weights are on the CPU, or on torch's meta device: then the first process alone has them, in `whole`.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    root, layers = _Root(module), layers_of(module)
    for layer in layers:
        layer.register_forward_hook(_owned)
    meta = any(tensor.is_meta for tensor in module.parameters())
    try:
        for part in (*layers, root):
            fully_shard(part, mesh=mesh)
    except (ValueError, NotImplementedError) as error:  # a tensor without dimensions
        raise OptionError("--shard", f"this model cannot be cut ({said(error)})", "leave it out") from error
    for unit in root.modules():
        if isinstance(unit, FSDPModule):
            unit.set_gradient_divide_factor(1.0)  # micro-batches of one batch are added up
            unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other, NCCL's is wrong in bfloat16
            # an expert that no token of this process goes to may be one of another's
            unit.set_reduce_scatter_unused_params(True, recurse=False)
    shards = Shards(mesh.get_local_rank(), mesh.size(), mesh.get_group(), root)
    if meta:
        root.to_empty(device=mesh.device_type if mesh.device_type == "cpu" else torch.cuda.current_device())
        _fill(module, shards, whole)
    module.__dict__[_KEPT] = shards
    return module


@bound()
@torch.no_grad()
def _fill(module: nn.Module, shards: Shards, whole: nn.Module | None) -> None:
    """Give a module that is cut the values of one that is not."""
    named = {} if whole is None else {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    for name, tensor in module.named_parameters():
        local(tensor).copy_(shards.part(named.get(name), tensor.shape, tensor.dtype))
    for name, buffer in module.named_buffers():
        value = named[name].cpu() if shards.leads else torch.empty(buffer.shape, dtype=buffer.dtype)
        distributed.broadcast(value, group=shards.group, group_src=0)
        buffer.copy_(value)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return the rows of a tensor that are here: all of one that is not cut."""
    kept: Any = tensor.detach()
    found: torch.Tensor = kept.to_local() if hasattr(kept, "to_local") else kept
    return found
