"""The orders of pruning, one line of `SCORERS` each: what is read of each parameter, and the key it is ranked by.

The smallest key goes first. What all orders share (the protected top by S(θ, B_l), strata of equal S, the ratio, ties
by parameter index) is in `masks`, so a new order is one line here and, where S and D do not suffice, one pass over the
language's batches.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sensikit.backends.base import Item, Model, Task
from sensikit.errors import NonFiniteError, OptionError
from sensikit.files import sha256_of
from sensikit.parameters import in_mode, tensors, wide
from sensikit.progress import progress
from sensikit.run import Run, rest_of
from sensikit.sensitivity.batches import Batch, fingerprint
from sensikit.sensitivity.planning import Plan, redrawn
from sensikit.sensitivity.taylor import Tensors, added
from sensikit.settings import AnalysisSettings
from sensikit.signature import splitmix
from sensikit.statistics.specificity import specificity
from sensikit.statistics.streaming import Float, Keys, keys

Measure = Callable[[nn.Module, Plan, AnalysisSettings, Sequence[Batch], Callable[[float], None]], Tensors]
"""(module, plan and settings of the run, batches of one group, called with the batches done) → float32 scores."""

TOKENS = 4096
"""Tokens of the longer side that one forward pass of `wanda` takes."""


def fisher(
    module: nn.Module,
    plan: Plan,
    settings: AnalysisSettings,
    batches: Sequence[Batch],
    advance: Callable[[float], None] = lambda _: None,
) -> Tensors:
    """Return the diagonal of the empirical Fisher information at batch level: (1/|B_l|) Σ_b (∂L(θ,b)/∂θ)².

    L is the loss of the run (by default the mean per target token of a batch). The square is of the gradient of a
    whole batch, not the mean of squares over its sentences, and the targets are those of the data, not drawn from the
    model: what is often done, and not the Fisher information itself (Kunstner et al., 2019).

    Raises:
        NonFiniteError: for a batch whose gradient is not finite, unless the run skips them.
    """
    named = dict(tensors(module, plan.parameters))
    total = {p: torch.zeros(p.shape, dtype=wide(tensor), device=tensor.device) for p, tensor in named.items()}
    done = 0
    module.train(settings.mode == "train")
    module.zero_grad(set_to_none=True)
    try:
        for number, batch in enumerate(batches):
            torch.manual_seed(int(sha256_of(str(settings.seed), "fisher", str(number))[:15], 16))
            loss = 0.0
            for items in batch.micro_batches:
                terms, _ = plan.task.loss(plan.task.collate(items, settings.split), settings.loss)
                value = added(terms, batch, settings.reduction == "token")
                value.backward()  # type: ignore[no-untyped-call]
                loss += float(value.detach())
            found = {p: _squared(tensor) for p, tensor in named.items() if tensor.grad is not None}
            module.zero_grad(set_to_none=True)
            if math.isfinite(loss) and all(bool(torch.isfinite(square).all()) for square in found.values()):
                for parameter, square in found.items():
                    total[parameter] += square
                done += 1
            elif not settings.skip_nonfinite:
                problem = "the square of its gradient is not finite"
                raise NonFiniteError(f"batch {number}", problem, "choose other orders")
            advance(1)
    finally:
        module.zero_grad(set_to_none=True)
        module.eval()
    return {p.name: (sums / max(done, 1)).to("cpu", torch.float32).contiguous() for p, sums in total.items()}


def _squared(tensor: nn.Parameter) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad.to_dense().to(wide(tensor)).square()


def wanda(
    module: nn.Module,
    plan: Plan,
    settings: AnalysisSettings,
    batches: Sequence[Batch],
    advance: Callable[[float], None] = lambda _: None,
) -> Tensors:
    """Return where |W_ij|·‖x_j‖₂ ranks among the inputs j of output i, (rank + ½) / inputs, in (0, 1).

    Wanda (Sun et al., 2023; arXiv:2306.11695) compares the weights of one output with each other alone, and prunes the
    same share of each: relative ranks make of this one order of all parameters. ‖x_j‖₂ is over all tokens of the
    batches, without padding, in evaluation mode. The definition is of linear layers, and the others are read as such:

    - a bias is the weight of an input that is always 1, and competes with the weights of its output;
    - an embedding is a linear layer on one-hot vectors: x_j is how often token j comes, an output is one dimension;
    - a tensor with several uses (tied) has the squares of its inputs summed over all of them; where one is a linear
      layer, its outputs are that layer's.

    Tensors that are no weight or bias of a Linear or Embedding score 0.

    Raises:
        OptionError: if the inputs of a tensor cannot be seen.
    """
    items = [item for batch in batches for item in batch.items]
    module.eval()
    with torch.no_grad(), _inputs_of(module) as seen:
        for group in _without_padding(plan.task, settings.split, items):
            plan.task.loss(plan.task.collate(group, settings.split), "nll")
            advance(len(group) / len(items) * len(batches))
    ranks = dict(_ranked(module, seen))
    found: Tensors = {}
    for parameter, tensor in tensors(module, plan.parameters):
        rank = ranks.get(id(tensor))
        if rank is None and parameter.prunable:
            raise OptionError("--order wanda", f"the inputs of {parameter.name} cannot be seen", "choose other orders")
        score = torch.zeros_like(tensor, requires_grad=False) if rank is None else rank
        found[parameter.name] = score.to("cpu", torch.float32).contiguous()
    return found


def _without_padding(task: Task, split: str, items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield all sentences, those of the very same lengths together: no micro-batch of them is padded."""
    groups: dict[tuple[int, ...], list[Item]] = defaultdict(list)
    sizes = {key: task.sizes(key, split) for key in {key for key, _ in items}}
    for key, row in items:
        groups[tuple(sizes[key][row].tolist())].append((key, row))
    for lengths, group in sorted(groups.items()):
        step = max(1, TOKENS // max(lengths))
        yield from (group[start : start + step] for start in range(0, len(group), step))


class _Seen:
    """Sums of squares over the tokens of what one tensor is multiplied with."""

    def __init__(self) -> None:
        self.tokens = 0
        self.inputs: torch.Tensor | None = None  # (in,) of a linear layer
        self.rows: torch.Tensor | None = None  # (vocabulary,) of an embedding

    def linear(self, x: torch.Tensor) -> None:
        squares = x.detach().reshape(-1, x.shape[-1]).double().square().sum(dim=0)
        self.inputs = squares if self.inputs is None else self.inputs + squares
        self.tokens += x.numel() // x.shape[-1]

    def lookup(self, indices: torch.Tensor, vocabulary: int) -> None:
        counts = torch.bincount(indices.flatten(), minlength=vocabulary).double()
        self.rows = counts if self.rows is None else self.rows + counts


@contextlib.contextmanager
def _inputs_of(module: nn.Module) -> Iterator[dict[int, _Seen]]:
    """Yield what the tensors of `module` are multiplied with while the block runs, by the id of the tensor.

    Hooks of modules would miss attention: its weights are handed to a function, and the layers never called.
    """
    seen: dict[int, _Seen] = defaultdict(_Seen)
    known = {id(tensor) for tensor in module.parameters()}
    linear, embedding = functional.linear, functional.embedding

    def watched_linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if id(weight) in known:
            seen[id(weight)].linear(input)
        return linear(input, weight, bias)

    def watched_embedding(input: torch.Tensor, weight: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        if id(weight) in known:
            seen[id(weight)].lookup(input, len(weight))
        return embedding(input, weight, *rest, **more)

    patched: Any = functional
    patched.linear, patched.embedding = watched_linear, watched_embedding
    try:
        yield seen
    finally:
        patched.linear, patched.embedding = linear, embedding


def _ranked(module: nn.Module, seen: dict[int, _Seen]) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (id of a tensor, relative ranks of its elements), of all layers whose inputs were seen."""
    biases: dict[int, list[nn.Parameter]] = defaultdict(list)
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.bias is not None:
            biases[id(part.weight)].append(part.bias)
    for tensor in module.parameters():
        if id(tensor) not in seen:
            continue
        inputs = seen[id(tensor)]
        weight = tensor.detach().double().abs()
        squares = torch.zeros_like(weight)
        if inputs.rows is not None:
            squares += inputs.rows[:, None]
        if inputs.inputs is None:
            yield id(tensor), _relative_rank((weight * squares.sqrt()).T).T
            continue
        squares += inputs.inputs
        ones = math.sqrt(inputs.tokens)  # ‖x‖ of an input that is always 1
        own = [ones * bias.detach().double().abs()[:, None] for bias in biases[id(tensor)]]
        rank = _relative_rank(torch.cat([weight * squares.sqrt(), *own], dim=1))
        yield id(tensor), rank[:, : weight.shape[1]]
        for number, bias in enumerate(biases[id(tensor)]):
            yield id(bias), rank[:, weight.shape[1] + number]


def _relative_rank(scores: torch.Tensor) -> torch.Tensor:
    """Return (rank + ½) / n of each element within its row, ties by index."""
    order = scores.argsort(dim=1, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype).expand_as(scores)
    rank = torch.empty_like(scores).scatter_(1, order, places)
    return (rank + 0.5) / scores.shape[1]


LAST = np.uint64((1 << 64) - 1)
"""The key of a protected parameter: after every score."""


@dataclass(frozen=True)
class Chunk:
    """Some prunable parameters beside each other in the flat order.

    Attributes:
        vectors: (V, n) float32, what the scorer reads, in its order.
        weights: (n,) θ.
        start: the place of the first among all prunable parameters.
        sigma: σ of the language's D.
        seed: of the order.
    """

    vectors: np.ndarray
    weights: torch.Tensor
    start: int
    sigma: float
    seed: int


@dataclass(frozen=True)
class Scorer:
    """An order.

    Attributes:
        says: the order in words.
        reads: stored vectors as (set, name), with {} for the task in the one and for the group in the other.
        keys: (n,) uint64 of a chunk; the smallest goes first.
        measure: the pass over the group's batches that makes the vector, where `analyze` did not.
        matched: within each stratum of equal S(θ,B_l), the same share of each (see `masks.spread`), not over all.
    """

    says: str
    reads: tuple[tuple[str, str], ...]
    keys: Callable[[Chunk], Keys]
    measure: Measure | None = None
    matched: bool = False

    def places(self, task: str, group: str) -> list[tuple[str, str]]:
        """Return (set, name) of the stored vectors that are read for the order of a group."""
        return [(of.format(task), name.format(group)) for of, name in self.reads]


def _specificity(chunk: Chunk) -> Float:
    return specificity(chunk.vectors[0], chunk.vectors[1], chunk.sigma)


def _ascending(chunk: Chunk) -> Keys:
    return keys(_specificity(chunk))


def _descending(chunk: Chunk) -> Keys:
    return keys(-_specificity(chunk))


def _random(chunk: Chunk) -> Keys:
    return random_keys(chunk.seed, chunk.start, len(chunk.weights))


def _stored(chunk: Chunk) -> Keys:
    return keys(chunk.vectors[0])


def _magnitude(chunk: Chunk) -> Keys:
    return keys(chunk.weights.abs().to("cpu", torch.float64).numpy())


def random_keys(seed: int, start: int, size: int) -> Keys:
    """Return keys of flat indices start..start+size: SplitMix64 of (seed, index), the same however chunked."""
    of_seed = np.uint64(int(sha256_of("random order", str(seed))[:16], 16))
    # LAST itself is for the protected
    return np.minimum(splitmix(of_seed, np.arange(start, start + size, dtype=np.uint64)), LAST - np.uint64(1))


_S, _BOTH = (("{}", "{}"),), (("{}", "{}"), ("{}", rest_of("{}")))

SCORERS = {
    "specificity": Scorer("ascending signed D(θ,l): the least language-specific first", _BOTH, _ascending),
    "reverse": Scorer("descending D(θ,l): the most language-specific first", _BOTH, _descending),
    "matched": Scorer("ascending D(θ,l) within strata of equal S(θ,B_l)", _BOTH, _ascending, matched=True),
    "matched-reverse": Scorer("descending D(θ,l) within strata of equal S(θ,B_l)", _BOTH, _descending, matched=True),
    "matched-random": Scorer("at random within strata of equal S(θ,B_l), by seed", _S, _random, matched=True),
    "sensitivity": Scorer("ascending S(θ,B_l)", _S, _stored),
    "magnitude": Scorer("ascending |θ|", _S, _magnitude),
    "random": Scorer("uniformly at random, by seed", _S, _random),
    "fisher": Scorer("ascending mean over B_l of (∂L/∂θ)²", (("fisher-{}", "{}"),), _stored, fisher),
    "wanda": Scorer("ascending rank of |W_ij|·‖x_j‖ among the inputs of one output, x over B_l",
                    (("wanda-{}", "{}"),), _stored, wanda),
}  # fmt: skip
"""By the name that --order takes."""


def scorer_of(name: str) -> Scorer:
    """Return the scorer of an order.

    Raises:
        OptionError: if there is none of that name.
    """
    if name not in SCORERS:
        raise OptionError("--order", f"{name} is not an order", f"choose among {', '.join(SCORERS)}")
    return SCORERS[name]


def measure_missing(run: Run, model: Model, wanted: Sequence[tuple[str, str]], task: str) -> None:
    """Measure what the orders of `wanted` need beside S and D, on the run's own batches, and store it in the run.

    Each score is stored as soon as it is there; what the run has whole is not measured again. The orders of `wanted`,
    (order, group), may be "none".

    Raises:
        RunError: if the batches of the run cannot be drawn again.
    """
    missing = [
        (name, group, place)
        for name, group in dict.fromkeys(wanted)
        if name in SCORERS and SCORERS[name].measure
        for place in SCORERS[name].places(task, group)
        if not run.has(*place)
    ]
    if not missing:
        return
    settings, plan = redrawn(run, model, sorted({group for _, group, _ in missing}), task)
    for name, group, place in missing:
        measure, batches = SCORERS[name].measure, plan.sets[group]
        assert measure is not None
        with in_mode(model.module, False), progress(len(batches), f"{name} {group}") as bar:
            found = measure(model.module, plan, settings, batches, bar.advance)
        tokens = [batch.tokens for batch in batches]
        facts = {"batches": len(batches), "tokens_mean": float(np.mean(tokens)), "drawn": fingerprint(batches)}
        run.write_set(*place, {"": found}, facts)
