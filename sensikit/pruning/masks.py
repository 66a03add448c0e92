"""Score → order → plan → apply → restore: one-shot, unstructured, global pruning.

A plan is data: which parameters are protected, and a cut in the order for each ratio. Applying one reads the scores
again in chunks and zeroes what lies within the cut, so neither scores nor masks of the whole model are ever held.
torch's own L1Unstructured ranks |score| and so cannot prune in the order of the signed D.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sensikit.errors import OptionError
from sensikit.parameters import Parameter, tensors
from sensikit.pruning.scorers import LAST, Chunk, scorer_of
from sensikit.run import Run
from sensikit.settings import PROTECT
from sensikit.statistics.specificity import sigma_of
from sensikit.statistics.streaming import Cut, Keys, keys, selected, smallest


@dataclass(frozen=True)
class Order:
    """An order in which the prunable parameters of one group go.

    Attributes:
        name: one of `scorers.SCORERS`.
        group: l, whose scores are read; the top `protect` of its S(θ, B_l) go last in every order.
        seed: of the random order.
        protect: the share that is protected.
        task: whose S and D are read.
    """

    name: str
    group: str
    seed: int | None = None
    protect: float = PROTECT
    task: str = "mt"


@dataclass(frozen=True)
class Plan:
    """Where an order is cut for each ratio: ratio → cut, and ratio → how many parameters go."""

    order: Order
    prunable: int
    protected: Cut
    cuts: dict[float, Cut] = field(default_factory=dict)
    counts: dict[float, int] = field(default_factory=dict)


def check_ratios(ratios: Sequence[float], protect: float = PROTECT) -> None:
    """Refuse ratios that are no share, or that reach into the protected parameters.

    Raises:
        OptionError: naming the first such ratio.
    """
    for ratio in ratios:
        if not 0 <= ratio <= 1:
            raise OptionError(
                "--ratios", f"{ratio:g} is not between 0 and 1", "a ratio is pruned / prunable parameters"
            )
        if ratio > 1 - protect + 1e-9:
            raise OptionError(
                "--ratios",
                f"{ratio:g} is more than the {1 - protect:g} that --protect {protect:g} leaves",
                "lower the ratio or --protect",
            )


def pruning_plan(run: Run, module: nn.Module, order: Order, ratios: Sequence[float]) -> Plan:
    """Return where `order` is cut for each ratio = pruned / prunable, exactly; ties go by parameter index.

    >>> plan = pruning_plan(run, model.module, Order("specificity", "cat"), [0.3, 0.9])
    >>> plan.prunable, plan.counts
    (1656, {0.3: 497, 0.9: 1490})

    Args:
        run: with S(θ, B_l) and S(θ, B_-l) of the order's group.
        module: whose weights the magnitude order reads.
        order: the order.
        ratios: each in [0, 1 - protect].
    """
    check_ratios(ratios, order.protect)
    prunable = sum(parameter.numel for parameter in prunable_of(run))
    safe = int(order.protect * prunable + 1e-9)
    (protected,) = smallest(lambda: _protection(run, order), [safe])
    counts = {ratio: min(round(ratio * prunable), prunable - safe) for ratio in ratios}
    cuts = smallest(lambda: (key for _, key in ordered(run, module, order, protected)), list(counts.values()))
    return Plan(order, prunable, protected, dict(zip(counts, cuts, strict=True)), counts)


def prunable_of(run: Run) -> tuple[Parameter, ...]:
    """Return the parameters that may be pruned: weights and biases of Linear and Embedding."""
    return tuple(parameter for parameter in run.parameters if parameter.prunable)


def ordered(run: Run, module: nn.Module, order: Order, protected: Cut) -> Iterator[tuple[tuple[Parameter, int], Keys]]:
    """Yield ((parameter, offset), keys) over what is prunable: the smallest key goes first, the protected last."""
    scorer = scorer_of(order.name)
    vectors = [run.vector(*place) for place in scorer.places(order.task, order.group)]
    weights, sigma, start = dict(module.named_parameters()), sigma_of(run, order.group, order.task), 0
    is_protected = selected(_protection(run, order), protected)
    for (parameter, offset), block in run.chunks(vectors, prunable_of(run)):
        size = block.shape[1]
        weight = weights[parameter.name].detach().flatten()[offset : offset + size]
        key = scorer.keys(Chunk(block, weight, start, sigma, order.seed or 0))
        key[next(is_protected)] = LAST
        start += size
        yield (parameter, offset), key


def chosen(run: Run, module: nn.Module, plan: Plan, ratio: float) -> Iterator[tuple[Parameter, int, NDArray[np.bool_]]]:
    """Yield (parameter, offset, mask): what `plan` prunes at `ratio`, chunk by chunk in flat order."""
    places: list[tuple[Parameter, int]] = []

    def stream() -> Iterator[Keys]:
        for place, key in ordered(run, module, plan.order, plan.protected):
            places.append(place)
            yield key

    for inside in selected(stream(), plan.cuts[ratio]):
        yield *places.pop(), inside


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
        count = 0
        for parameter, offset, inside in chosen(run, module, plan, ratio):
            tensor = named[parameter.name]
            mask = torch.as_tensor(inside, device=tensor.device)
            tensor.view(-1)[offset : offset + len(inside)].masked_fill_(mask, 0)
            count += int(inside.sum())
        yield count
    finally:
        for name, tensor in named.items():
            tensor.copy_(kept[name])


def _protection(run: Run, order: Order) -> Iterator[Keys]:
    """Yield keys whose smallest are the highest S(θ, B_l)."""
    return (keys(-block[0]) for block in run.stream([run.vector(order.task, order.group)], prunable_of(run)))
