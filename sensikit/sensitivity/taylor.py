"""Eq. 2-3: the mean over batches of |θ·∇L|, of every parameter at once.

While batches are read θ does not change, so S = |θ| · mean_b |∇_b L|: a hook adds |∇| to an accumulator as soon as a
gradient is complete and drops the gradient, and |θ| is multiplied in once at the end.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from sensikit.backends.base import Item
from sensikit.distributed import Part
from sensikit.errors import NonFiniteError
from sensikit.parameters import Parameter, tensors, wide
from sensikit.sensitivity.batches import Batch
from sensikit.sharding import Shards, local

BLOCKS = 20
"""G: the batches are averaged in this many consecutive blocks, for the halves and the intervals."""

Tensors = dict[str, torch.Tensor]


@dataclass
class Sensitivity:
    """S of one set of batches.

    `mean` and `half` hold one float32 tensor per parameter, of its own shape: S over all batches, and over those of
    the first half of the blocks. `blocks` is (G, M) float32: the mean of each block at M sampled parameters.
    `losses` are per batch, in the unit that was differentiated. Units: nats per target token, or nats where the
    loss was summed.
    """

    mean: Tensors = field(default_factory=dict)
    half: Tensors = field(default_factory=dict)
    blocks: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    batches: int = 0
    half_batches: int = 0
    block_batches: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)


@dataclass
class Sums:
    """What the batches of one block add up to: Σ|∇L| of each parameter, in order, float32 or wider; and what they were.

    `totals` are read once, and are those of the next block as soon as that is begun. Of a model that several processes
    hold together they are the rows that are here.
    """

    totals: Iterable[torch.Tensor]
    batches: int = 0
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)

    def part(self, module: nn.Module, parameters: Sequence[Parameter]) -> Part:
        """Return them as another process reads them; of several that hold `module`, the first one has the arrays."""
        shards, facts = Shards.of(module), {name: value for name, value in vars(self).items() if name != "totals"}
        each = zip(self.totals, parameters, strict=True)
        whole = (shards.whole(total, parameter.shape) for total, parameter in each)
        return Part(facts, (found.numpy() for found in whole if found is not None))

    @classmethod
    def of(cls, part: Part | None, module: nn.Module, parameters: Sequence[Parameter]) -> Self | None:
        """Return what another process has summed; of several that hold `module`, the first one is given it."""
        shards = Shards.of(module)
        facts = shards.told(None if part is None else part.facts)
        if facts is None:
            return None
        arrays = itertools.repeat(None, len(parameters)) if part is None else map(torch.from_numpy, part.arrays)
        each = zip(arrays, tensors(module, parameters), strict=True)
        return cls((shards.part(array, tensor.shape, wide(tensor)) for array, (_, tensor) in each), **facts)


def blocks_of(batches: int) -> list[int]:
    """Return how many batches fall in each block, in order; an even number of blocks, as halves are made of them."""
    count = min(BLOCKS, batches - batches % 2)
    edges = [batches * i // count for i in range(count + 1)]
    return [after - before for before, after in itertools.pairwise(edges)]


def measure(
    module: nn.Module,
    parameters: Sequence[Parameter],
    batches: Sequence[Batch],
    collate: Callable[[Sequence[Item]], Any],
    loss: Callable[[Any], tuple[torch.Tensor, int | tuple[int, ...]]],
    *,
    per_token: bool = True,
    sample: Mapping[str, np.ndarray] | None = None,
    skip_nonfinite: bool = False,
    advance: Callable[[], None] = lambda: None,
    seed: int | None = None,
    elsewhere: Callable[[int], Sums | None] = lambda _: None,
    sums: str = "device",
    halves: bool = True,
) -> Sensitivity:
    """Return S(θ, B) = |θ| · (1/|B|) Σ_b |∇L(θ, b)| (Eq. 3), the absolute value taken per batch.

    |∇L| is summed within each block, and the blocks are added in order: float32 sums of many terms stay accurate, and
    are the same to the last bit whoever sums a block.

    The gradient of a batch is summed over its micro-batches before the absolute value. With a single one no full
    gradient is ever held; with several, or with `skip_nonfinite`, one is. Nothing of `module` is changed: neither
    its weights nor its mode; its gradients are None afterwards.

    >>> from sensikit.parameters import registry
    >>> model, points = nn.Linear(1, 1, bias=False), torch.tensor([[1.0], [-3.0]])
    >>> _ = model.weight.data.fill_(2.0)
    >>> batches = [Batch(((("cat", row),),), tokens=1) for row in (0, 1)]
    >>> found = measure(
    ...     model, registry(model), batches, lambda items: points[[row for _, row in items]],
    ...     lambda x: (model(x).sum(), len(x)),
    ... )
    >>> found.mean["weight"]  # |θ| · mean |x|
    tensor([[4.]])

    Args:
        module: in the mode (eval or train) that is to be measured.
        parameters: what to measure; no gradient of another is kept longer than it takes to complete.
        batches: of about equal numbers of target tokens.
        collate: the sentences of one micro-batch → what `loss` takes.
        loss: → the *summed* loss (scalar tensor, nats) and the number of its target tokens; with K terms, (K,) of
            both.
        per_token: divide each term of the loss of a batch by its target tokens (the default), or leave the sum.
        sample: parameter name → flat indices (int64) whose block means are kept.
        skip_nonfinite: leave out and count batches with an infinite or undefined gradient instead of refusing them.
        advance: called after each batch.
        seed: of torch's random state at the start of the first block, one more at each other; as it is, by default.
        elsewhere: number of a block → its sums, where another process made them.
        sums: "device", where the parameters are; "split", those of all blocks on the CPU; or "cpu", all of them.
        halves: S of the first half is wanted too.

    Raises:
        NonFiniteError: naming the first such batch, unless they are skipped.
    """
    blocks = Blocks(module, parameters, batches, collate, loss, per_token, skip_nonfinite, seed, sums)
    total = _Total(module, parameters, sample or {}, sums)
    result = Sensitivity()
    rows: list[np.ndarray] = []
    for number, size in enumerate(blocks.sizes):
        found = elsewhere(number)
        if found is None:
            found = blocks.sums(number, advance)
        else:
            for _ in range(size):
                advance()
        result.losses += found.losses
        result.tokens += found.tokens
        result.skipped += found.skipped
        result.block_batches.append(found.batches)
        rows.append(total.add(found))
        if halves and number + 1 == len(blocks.sizes) // 2:
            result.half, result.half_batches = total.mean(), total.batches
    result.mean, result.batches, result.blocks = total.mean(), total.batches, np.stack(rows)
    return result


def joined(parts: Sequence[Sensitivity]) -> Sensitivity:
    """Return S of all parameters, of passes over the same batches, each for some of them, in their order."""
    mean, half = (
        {name: each for part in parts for name, each in getattr(part, kind).items()} for kind in ("mean", "half")
    )
    return replace(parts[0], mean=mean, half=half, blocks=np.concatenate([part.blocks for part in parts], axis=1))


def added(terms: torch.Tensor, batch: Batch, per_token: bool) -> torch.Tensor:
    """Return what a micro-batch adds to the loss of its batch, a scalar; `terms` are its summed losses, () or (K,)."""
    # a term without a token in the whole batch is zero, whatever it is divided by
    shares = zip(terms.reshape(-1), batch.counts, strict=True)
    return torch.stack([term / max(1, tokens if per_token else 1) for term, tokens in shares]).sum()


class Blocks:
    """The batches of a set, block by block, and the sums of |∇L| over each; see `measure` for what it takes."""

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[Parameter],
        batches: Sequence[Batch],
        collate: Callable[[Sequence[Item]], Any],
        loss: Callable[[Any], tuple[torch.Tensor, int | tuple[int, ...]]],
        per_token: bool = True,
        skip_nonfinite: bool = False,
        seed: int | None = None,
        sums: str = "device",
    ) -> None:
        self.module, self.batches, self.collate, self.loss = module, batches, collate, loss
        self.per_token, self.skip_nonfinite, self.seed = per_token, skip_nonfinite, seed
        self.sizes = blocks_of(len(batches))
        self.shards = Shards.of(module)
        self.accumulator = _Accumulator(dict(tensors(module, parameters)), skip_nonfinite, sums == "cpu", self.shards)

    def sums(self, block: int, advance: Callable[[], None] = lambda: None) -> Sums:
        """Return the sums over one block; refuse the first batch that is not finite, unless they are skipped."""
        accumulator = self.accumulator
        found = Sums(accumulator.totals())
        if self.seed is not None:
            torch.manual_seed(self.seed + block)
        first = sum(self.sizes[:block])
        numbers = range(first, first + self.sizes[block])
        done: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        with accumulator.hooks(self.module):
            for number in numbers:
                value = self._backward(self.batches[number])
                done.append((number, value, accumulator.commit(value)))
                # a GPU that is asked what it has found waits for the next batch: it is asked once a block
                if value.device.type == "cpu" or number == numbers[-1]:
                    self._close(found, done)
                    done = []
                advance()
        return found

    def _close(self, found: Sums, done: Sequence[tuple[int, torch.Tensor, torch.Tensor]]) -> None:
        """Note the losses of batches, and whether they were finite."""
        numbers, values, finite = zip(*done, strict=True)
        losses = self.shards.summed(torch.stack(values).tolist())
        spoilt = self.shards.summed(torch.stack(finite).logical_not().tolist())
        for number, value, bad in zip(numbers, losses, spoilt, strict=True):
            batch = self.batches[number]
            if not bad:
                found.batches += 1
                found.losses.append(value)
                found.tokens.append(batch.tokens)
            elif self.skip_nonfinite:
                found.skipped.append(number)
            else:
                names = "+".join(sorted({language for language, _ in batch.items}))
                problem = f"its gradient is not finite (loss {value:g})"
                remedy = "--skip-nonfinite leaves such batches out and counts them"
                raise NonFiniteError(f"batch {number} of {names}", problem, remedy)

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Run one batch forward and backward; return its loss, as much of it as was computed here, float64."""
        values, counted = [], np.zeros(len(batch.counts), dtype=np.int64)
        turns = self.shards.turns(batch.micro_batches)
        for number, (items, counts) in enumerate(turns):
            self.accumulator.complete = number + 1 == len(turns)
            terms, count = self.shards.through(partial(self._loss, items))
            value = added(terms, batch, self.per_token) * counts
            value.backward()  # type: ignore[no-untyped-call]
            values.append(value.detach().double())
            counted += np.multiply(count, counts)
        counted[:] = self.shards.summed(counted.tolist())
        if tuple(counted) != batch.counts:
            wanted, found = (", ".join(map(str, each)) for each in (batch.counts, counted))
            raise AssertionError(f"a batch packed to {wanted} target tokens was counted as {found} by the loss")
        return sum(values[1:], values[0])

    def _loss(self, items: Sequence[Item]) -> tuple[torch.Tensor, int | tuple[int, ...]]:
        return self.loss(self.collate(items))


class _Accumulator:
    """Sums of |∇| over one block."""

    def __init__(self, named: dict[Parameter, nn.Parameter], hold: bool, aside: bool, shards: Shards) -> None:
        self.named = {parameter.name: tensor for parameter, tensor in named.items()}
        self.shards = shards
        self.sums: Tensors = {}
        self.hold, self.aside = hold, aside
        self.complete = False
        self.size = {tensor.device: torch.zeros((), device=tensor.device) for tensor in self.named.values()}

    def totals(self) -> Iterable[torch.Tensor]:
        """Return the sums, of zero; they are there until this is called again."""
        self.sums = self.sums or {name: _zeros(tensor, self.aside) for name, tensor in self.named.items()}
        for total in self.sums.values():
            total.zero_()
        return self.sums.values()

    @contextlib.contextmanager
    def hooks(self, module: nn.Module) -> Iterator[None]:
        """Take each gradient as soon as the last micro-batch of a batch has completed it; leave none behind."""
        names = {id(tensor): name for name, tensor in self.named.items()}

        def hook(tensor: torch.Tensor) -> None:
            name = names.get(id(tensor))
            if name is None:  # it is not measured, or in another pass
                tensor.grad = None
            elif self.complete and not self.hold:
                self._take(name)

        module.zero_grad(set_to_none=True)
        handles = [
            tensor.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
            for tensor in module.parameters()
            if tensor.requires_grad
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            module.zero_grad(set_to_none=True)

    def commit(self, loss: torch.Tensor) -> torch.Tensor:
        """Take what gradients are left; return whether the loss and all gradients of this batch were finite.

        A batch that is not finite adds nothing where gradients are held, and spoils the sums where they are not.
        """
        left = [name for name, tensor in self.named.items() if tensor.grad is not None]
        for name in left:
            if self.hold:
                self._weigh(self.named[name].device, _dense(self.named[name]).abs())
            else:
                self._take(name)
        sizes = [size.to(loss.device, loss.dtype) for size in self.size.values()]
        finite = torch.stack([loss, *sizes]).isfinite().all()
        for size in self.size.values():
            size.zero_()
        if self.hold:
            adds = not any(self.shards.summed([not finite]))  # all processes of a group do the same
            for name in left:
                if adds:
                    self._add(name, _dense(self.named[name]).abs())
                self.named[name].grad = None
        return finite

    def _take(self, name: str) -> None:
        tensor = self.named[name]
        gradient = _dense(tensor).abs_()
        tensor.grad = None
        self._weigh(tensor.device, gradient)
        self._add(name, gradient)

    def _add(self, name: str, gradient: torch.Tensor) -> None:
        self.sums[name].add_(gradient.to(self.sums[name].device))

    def _weigh(self, device: torch.device, gradient: torch.Tensor) -> None:
        # one number per device tells at the end whether anything in the batch was infinite or undefined
        self.size[device].add_(gradient.sum(dtype=torch.float32))


class _Total:
    """Sums of |∇| over blocks."""

    def __init__(
        self, module: nn.Module, parameters: Sequence[Parameter], sample: Mapping[str, np.ndarray], sums: str
    ) -> None:
        self.shards = Shards.of(module)
        self.named = {parameter.name: tensor for parameter, tensor in tensors(module, parameters)}
        self.sums = {name: _zeros(tensor, sums != "device") for name, tensor in self.named.items()}
        self.sample: dict[str, tuple[torch.Tensor, np.ndarray]] = {}
        self.sampled = self.batches = 0
        for name in filter(sample.__contains__, self.named):
            tensor, indices = self.named[name], sample[name]
            held = self.shards.flat(tensor.shape)
            here = np.flatnonzero((indices >= held.start) & (indices < held.stop))
            place = torch.as_tensor(indices[here] - held.start, device=tensor.device)
            self.sample[name] = place, self.sampled + here
            self.sampled += len(indices)

    def add(self, sums: Sums) -> np.ndarray:
        """Add a block; return its mean at the sampled parameters, (M,) float32."""
        if not sums.batches:
            remedy = "this model does not give finite gradients here"
            raise NonFiniteError("--skip-nonfinite", "left a block of batches empty", remedy)
        row = np.zeros(self.sampled, dtype=np.float32)
        for (name, closed), found in zip(self.sums.items(), sums.totals, strict=True):
            if name in self.sample:
                weight, (index, places) = local(self.named[name]).flatten(), self.sample[name]
                value = found.flatten()[index.to(found.device)].to(weight.device) / sums.batches * weight[index].abs()
                row[places] = value.to("cpu", torch.float32).numpy()
            closed.add_(found.to(closed.device))
        self.batches += sums.batches
        return self.shards.added(row)

    def mean(self) -> Tensors:
        """Return |θ| · mean |∇| over the blocks so far, on the CPU, float32; nothing but in the first of a group."""
        found = {}
        for name, total in self.sums.items():
            # on the device of θ: it divides in another way than the CPU
            weight = local(self.named[name]).abs()
            part = (total.to(weight.device) / self.batches * weight).to("cpu", torch.float32).contiguous()
            if (whole := self.shards.whole(part, self.named[name].shape)) is not None:
                found[name] = whole
        return found


def _zeros(tensor: torch.Tensor, aside: bool) -> torch.Tensor:
    """Return zeros for sums of the gradients of a tensor's rows here, on its device or `aside`, on the CPU."""
    return torch.zeros(local(tensor).shape, dtype=wide(tensor), device="cpu" if aside else tensor.device)


def _dense(tensor: nn.Parameter) -> torch.Tensor:
    assert tensor.grad is not None
    gradient = local(tensor.grad)
    return gradient.to_dense() if gradient.is_sparse else gradient
