"""Score → order → plan → apply → restore: one-shot, unstructured, global pruning.

A plan is data: for every prunable parameter the first of the ratios at which it goes, a byte each. Scores are read in
chunks, and their keys held only where they fit in memory. torch's own L1Unstructured ranks |score| and so cannot prune
in the order of the signed D.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sensikit.errors import OptionError
from sensikit.parameters import Parameter, tensors
from sensikit.pruning.scorers import LAST, Chunk, scorer_of
from sensikit.run import Run
from sensikit.settings import AMONG, PROTECT, STRATA
from sensikit.statistics import streaming
from sensikit.statistics.specificity import sigma_of
from sensikit.statistics.streaming import Keys, KeyStream, Levels, held, keys, levels, selected, smallest


@dataclass(frozen=True)
class Order:
    """An order in which the prunable parameters of one group go.

    Attributes:
        name: one of `scorers.SCORERS`.
        group: l, whose scores are read; the top `protect` of its S(θ, B_l) go last in every order.
        seed: of the random order.
        protect: the share that is protected.
        task: whose S and D are read; by default the first of the run.
        among: what that is a share of: the prunable parameters, or all (see `settings.AMONG`).
    """

    name: str
    group: str
    seed: int | None = None
    protect: float = PROTECT
    task: str = ""
    among: str = AMONG[0]


@dataclass(frozen=True)
class Plan:
    """When the prunable parameters go in an order.

    Attributes:
        order: the order.
        counts: ratio → how many go.
        levels: (n,) over the prunable parameters in flat order, the place of the first of the different counts, in
            ascending order, among which a parameter goes; their number where it goes in none.
    """

    order: Order
    counts: dict[float, int]
    levels: Levels

    @property
    def prunable(self) -> int:
        """How many parameters may be pruned."""
        return len(self.levels)

    def mask(self, ratio: float, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Return which of the prunable parameters from `start` to before `stop` go at `ratio`."""
        return self.levels[start:stop] <= sorted(set(self.counts.values())).index(self.counts[ratio])

    def digest(self, ratio: float) -> str:
        """Return the SHA-256 of the whole mask, a bit for each prunable parameter."""
        return hashlib.sha256(np.packbits(self.mask(ratio)).data).hexdigest()


def check_ratios(ratios: Sequence[float], protect: float = PROTECT) -> None:
    """Refuse ratios that are no share, or that reach into the protected parameters.

    Raises:
        OptionError: naming the first such ratio.
    """
    for ratio in ratios:
        if not 0 <= ratio <= 1:
            problem = f"{ratio:g} is not between 0 and 1"
            raise OptionError("--ratios", problem, "a ratio is pruned / prunable parameters")
        if ratio > 1 - protect + 1e-9:
            problem = f"{ratio:g} is more than the {1 - protect:g} that --protect {protect:g} leaves"
            raise OptionError("--ratios", problem, "lower the ratio or --protect")


def pruning_plan(run: Run, module: nn.Module, order: Order, ratios: Sequence[float]) -> Plan:
    """Return when each parameter goes in `order`, for each ratio = pruned / prunable, exactly; ties go by index.

    As many go as is nearest to the ratio, of a half the even number, and the share that is protected is rounded down.
    At 1 - protect, and wherever less is left than a ratio asks for, all but the protected go: the same in every order.

    >>> plan = pruning_plan(run, model.module, Order("specificity", "cat"), [0.3, 0.9])
    >>> plan.prunable, plan.counts, int(plan.mask(0.3).sum())
    (1656, {0.3: 497, 0.9: 1491}, 497)

    Args:
        run: with S(θ, B_l) and S(θ, B_-l) of the order's group.
        module: whose weights the magnitude order reads.
        order: the order.
        ratios: each in [0, 1 - protect].
    """
    check_ratios(ratios, order.protect)
    order = replace(order, task=order.task or run.tasks[0])
    device = next(module.parameters()).device
    protected = _protected(run, order, device)
    left = len(protected) - int(protected.sum())
    # 1 − protect is all that is not protected, which rounding may put one apart
    end = 1 - order.protect - 1e-9 if order.among == AMONG[0] else 1.0
    counts = {ratio: left if ratio > end else min(round(ratio * len(protected)), left) for ratio in ratios}
    different = sorted(set(counts.values()))
    stream = partial(_ordered, run, module, order, protected)
    if scorer_of(order.name).matched:
        strata = _strata(run, order, protected, device)
        return Plan(order, counts, _matched(strata, held(stream, len(protected)), different))
    return Plan(order, counts, _levels(stream, different, len(protected), device))


def _levels(stream: KeyStream, counts: Sequence[int], size: int, device: torch.device) -> Levels:
    """Return `levels` of a stream of `size` keys, from a GPU where there is room on it."""
    return sorted_levels(stream, counts, device) if _fits(device, size) else levels(held(stream, size), counts)


def _fits(device: torch.device, size: int) -> bool:
    return device.type == "cuda" and 40 * size < torch.cuda.mem_get_info(device)[0]


def sorted_levels(stream: KeyStream, counts: Sequence[int], device: torch.device) -> Levels:
    """Return what `streaming.levels` does, by one stable sort on a device, of which it takes up to 40 bytes a key."""
    # int64 is ordered as uint64 is once its top bit is flipped
    together = torch.cat([torch.from_numpy(chunk.view(np.int64)).to(device) for chunk in stream()])
    order = together.bitwise_xor_(torch.iinfo(torch.int64).min).argsort(stable=True)
    level = torch.full(order.shape, len(counts), dtype=torch.int32, device=device)
    for number, (start, stop) in enumerate(itertools.pairwise([0, *counts])):
        level[order[start:stop]] = number
    return level.cpu().numpy().astype(np.min_scalar_type(len(counts) + 1))


def prunable_of(run: Run) -> tuple[Parameter, ...]:
    """Return the parameters that may be pruned: weights and biases of Linear and Embedding."""
    return tuple(parameter for parameter in run.parameters if parameter.prunable)


def _protected(run: Run, order: Order, device: torch.device) -> NDArray[np.bool_]:
    """Return which of the prunable parameters have one of the highest S(θ, B_l) among these, or among all."""
    parameters = run.parameters if order.among == "all" else prunable_of(run)
    vector = run.vector(order.task, order.group)
    count = sum(parameter.numel for parameter in parameters)

    def highest() -> Iterator[Keys]:
        return (keys(-block[0]) for block in run.stream([vector], parameters))

    protected = int(order.protect * count + 1e-9)  # 0.29 * 100 is not quite 29
    if _fits(device, count):
        found: NDArray[np.bool_] = sorted_levels(highest, [protected], device) == 0
    else:
        stream = held(highest, count)
        (cut,) = smallest(stream, [protected])
        found = np.concatenate([np.zeros(0, np.bool_), *selected(stream(), cut)])
    if order.among == "all":
        found = found[np.repeat([p.prunable for p in parameters], [p.numel for p in parameters])]
    return found


def _ordered(run: Run, module: nn.Module, order: Order, protected: NDArray[np.bool_]) -> Iterator[Keys]:
    """Yield keys over what is prunable: the smallest goes first, the protected last."""
    scorer = scorer_of(order.name)
    vectors = [run.vector(*place) for place in scorer.places(order.task, order.group)]
    weights, sigma, start = dict(module.named_parameters()), sigma_of(run, order.group, order.task), 0
    for (parameter, offset), block in run.chunks(vectors, prunable_of(run)):
        size = block.shape[1]
        weight = weights[parameter.name].detach().flatten()[offset : offset + size]
        key = scorer.keys(Chunk(block, weight, start, sigma, order.seed or 0))
        key[protected[start : start + size]] = LAST
        start += size
        yield key


def spread(count: int) -> list[int]:
    """Return how many of `count` parameters are of each stratum: as many of each, and the first ones one more.

    It says both how large strata are and what a matched order takes of them, so it never takes more than there is, and
    what goes at one ratio goes at every larger one.

    >>> sum(spread(1234)), max(spread(1234)), min(spread(1234))
    (1234, 13, 12)
    """
    return [count // STRATA + (place < count % STRATA) for place in range(STRATA)]


def _strata(run: Run, order: Order, protected: NDArray[np.bool_], device: torch.device) -> Levels:
    """Return the stratum of each prunable parameter by the rank of its S(θ, B_l), ascending; STRATA where protected."""

    def ascending() -> Iterator[Keys]:
        start = 0
        for (own,) in run.stream([run.vector(order.task, order.group)], prunable_of(run)):
            key = keys(own)
            key[protected[start : start + len(own)]] = LAST
            start += len(own)
            yield key

    counts = list(itertools.accumulate(spread(len(protected) - int(protected.sum()))))
    return _levels(ascending, counts, len(protected), device)


def _matched(strata: Levels, stream: KeyStream, counts: Sequence[int]) -> Levels:
    """Return the levels of an order in which each stratum loses the same share, the smallest keys of it first.

    `strata` and the keys of `stream` are of each prunable parameter; `counts` are of all strata together, ascending.
    """
    found = np.full(len(strata), len(counts), dtype=np.min_scalar_type(len(counts) + 1))
    shares, sizes = np.array([spread(count) for count in counts]), np.bincount(strata, minlength=STRATA)[:STRATA]
    step = max(1, streaming.HELD // max(1, int(sizes.max(initial=0))))  # strata whose keys are held at a time
    for first in range(0, STRATA, step):
        inside, parts, start = (strata >= first) & (strata < min(first + step, STRATA)), [], 0
        for chunk in stream():
            parts.append(chunk[inside[start : start + len(chunk)]])
            start += len(chunk)
        place = np.argsort(strata[inside], kind="stable")
        together = np.split(np.concatenate(parts)[place], np.cumsum(sizes[first : first + step])[:-1])
        level = np.empty(len(place), dtype=found.dtype)
        level[place] = np.concatenate(
            [levels(partial(iter, [part]), shares[:, first + i].tolist()) for i, part in enumerate(together)]
        )
        found[inside] = level
    return found


def chosen(run: Run, plan: Plan, ratio: float) -> Iterator[tuple[Parameter, NDArray[np.bool_]]]:
    """Yield each prunable parameter and its mask, in its shape: what `plan` prunes at `ratio`."""
    start = 0
    for parameter in prunable_of(run):
        yield parameter, plan.mask(ratio, start, start + parameter.numel).reshape(parameter.shape)
        start += parameter.numel


@contextlib.contextmanager
def pruned(run: Run, module: nn.Module, plan: Plan, ratio: float) -> Iterator[int]:
    """Zero what `plan` prunes at `ratio` while the block runs; yield how many; put every bit back afterwards.

    >>> plan = pruning_plan(run, model.module, Order("magnitude", "cat"), [0.5])
    >>> zeros = lambda: sum(int((weight == 0).sum()) for weight in model.module.parameters())
    >>> with pruned(run, model.module, plan, 0.5) as count:
    ...     count, zeros()
    (828, 828)
    >>> zeros()
    0
    """
    named = {parameter.name: tensor.detach() for parameter, tensor in tensors(module, prunable_of(run))}
    kept = {name: tensor.clone() for name, tensor in named.items()}
    try:
        for parameter, inside in chosen(run, plan, ratio):
            tensor = named[parameter.name]
            tensor.masked_fill_(torch.as_tensor(inside, device=tensor.device), 0)
        yield plan.counts[ratio]
    finally:
        for name, tensor in named.items():
            tensor.copy_(kept[name])
