"""Eq. 2-3, against numbers worked out by hand, exact zeroing, and the obvious loop with a full gradient."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sensikit.backends.base import Item
from sensikit.batches import Batch, draw, pack
from sensikit.errors import NonFiniteError
from sensikit.parameters import Parameter, registry
from sensikit.sensitivity import BLOCKS, Sensitivity, blocks_of, measure, sample_of
from tests import toy

ROUNDING = 2.0**-23
"""Of one float32 operation, relative: S is stored in float32 even where it was computed in float64."""


def batches_of(
    backend: toy.ToyBackend, count: int, pieces: int = 1, tokens: int = 40, languages: Sequence[str] = ("cat", "nob")
) -> list[Batch]:
    sizes = {code: backend.sizes(code) for code in languages}
    found = pack(draw(sizes, 1, "test"), sizes, tokens, count, pieces)
    assert len(found) == count
    return found


def sensitivity(backend: toy.ToyBackend, batches: Sequence[Batch], **options: Any) -> Sensitivity:
    options = {"collate": backend.collate, "loss": backend.loss, **options}
    parameters = options.pop("parameters", None) or registry(backend.module, backend.ghosts)
    return measure(backend.module, parameters, batches, **options)


def full_gradient(backend: toy.ToyBackend, batch: Batch, per_token: bool = True) -> dict[str, torch.Tensor]:
    """The gradient of a whole batch in one piece, by autograd alone."""
    named = dict(backend.module.named_parameters())
    total, tokens = backend.loss(backend.collate(batch.items))
    gradients = torch.autograd.grad(total / (tokens if per_token else 1), list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(named.items(), gradients, strict=True)
    }


def obvious(backend: toy.ToyBackend, batches: Sequence[Batch], per_token: bool = True) -> dict[str, torch.Tensor]:
    """S by definition: every gradient held, the absolute value of each θ·∇, the mean at the end."""
    named = dict(backend.module.named_parameters())
    each = [full_gradient(backend, batch, per_token) for batch in batches]
    return {
        name: torch.stack([(tensor.detach() * gradient[name]).abs() for gradient in each]).mean(dim=0)
        for name, tensor in named.items()
    }


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Equal but for rounding, relative to the largest entry of each tensor.

    A tensor without influence (the bias of keys, to which softmax is blind) is left with the rounding of float64.
    """
    assert found
    nothing = 1e-13 * max(float(tensor.max()) for tensor in expected.values()) if tolerance else 0.0
    for name, tensor in found.items():
        wanted = expected[name].to(torch.float64)
        scale = max(float(wanted.abs().max()), nothing / ROUNDING)
        assert tensor.shape == wanted.shape
        assert float((tensor.to(torch.float64) - wanted).abs().max()) <= tolerance * scale, name


@pytest.fixture
def double() -> toy.ToyBackend:
    """A trained toy in float64: what differs from it by more than rounding is wrong."""
    backend = toy.backend()
    backend.module.double()
    return backend


# by hand


class Line(nn.Module):
    """r = w·x + v − y for (x, y), loss ½r²: ∂/∂w = r·x, ∂/∂v = r."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-3.0))

    def loss(self, points: torch.Tensor) -> tuple[torch.Tensor, int]:
        residual = self.w * points[:, 0] + self.v - points[:, 1]
        return (residual**2).sum() / 2, len(points)


POINTS = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, -3.0]])


def points(items: Sequence[Item]) -> torch.Tensor:
    return POINTS[[index for _, index in items]]


ONE_PIECE = [Batch(((("cat", 0),),), 1), Batch(((("cat", 1), ("cat", 2)),), 2)]
TWO_PIECES = [Batch(((("cat", 0),),), 1), Batch(((("cat", 1),), (("cat", 2),)), 2)]


@pytest.mark.parametrize("batches", [ONE_PIECE, TWO_PIECES], ids=["one piece", "two pieces"])
@pytest.mark.parametrize("skip", [False, True])
def test_two_parameters_worked_out_by_hand(batches: list[Batch], skip: bool) -> None:
    # batch 0, (1, 0): r = 2·1 − 3 − 0 = −1, so ∇w = −1, ∇v = −1; one token
    # batch 1, (2, 0): r = 2·2 − 3 − 0 = 1, so ∇w = 2, ∇v = 1
    #        (−1, −3): r = −2 − 3 + 3 = −2, so ∇w = 2, ∇v = −2; in all ∇w = 4, ∇v = −1; two tokens: 2 and −½
    # S(w) = |2|·(|−1| + |2|)/2 = 3,  S(v) = |−3|·(|−1| + |−½|)/2 = 2.25
    # (the absolute value per sentence would give S(v) = 3·(1 + 1.5)/2 = 3.75, after the mean S(w) = 1)
    model = Line()
    parameters = registry(model)
    found = measure(model, parameters, batches, points, model.loss, sample=sample_of(parameters), skip_nonfinite=skip)
    assert {name: float(tensor) for name, tensor in found.mean.items()} == {"w": 3.0, "v": 2.25}
    assert {name: float(tensor) for name, tensor in found.half.items()} == {"w": 2.0, "v": 3.0}
    assert found.blocks.tolist() == [[2.0, 3.0], [4.0, 1.5]]
    assert (found.batches, found.half_batches, found.block_batches) == (2, 1, [1, 1])
    # ½·1, and (½·1 + ½·4)/2
    assert (found.losses, found.tokens, found.skipped) == ([0.5, 1.25], [1, 2], [])


def test_a_summed_loss_is_not_divided_by_tokens() -> None:
    # as above, without the division by two: S(w) = 2·(1 + 4)/2 = 5, S(v) = 3·(1 + 1)/2 = 3
    model = Line()
    found = measure(model, registry(model), ONE_PIECE, points, model.loss, per_token=False)
    assert {name: float(tensor) for name, tensor in found.mean.items()} == {"w": 5.0, "v": 3.0}
    assert found.losses == [0.5, 2.5]


def test_without_a_sample_no_block_means_are_kept() -> None:
    model = Line()
    found = measure(model, registry(model), ONE_PIECE, points, model.loss)
    assert found.blocks.shape == (2, 0)


# Eq. 1


class Multilinear(nn.Module):
    """Linear in each single parameter: zeroing one changes the loss by θ·∇ exactly."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.inner = nn.Parameter(torch.randn(4, 5, generator=generator, dtype=torch.float64))
        self.outer = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))
        self.inputs = torch.randn(12, 5, generator=generator, dtype=torch.float64)

    def collate(self, items: Sequence[Item]) -> torch.Tensor:
        return self.inputs[[index for _, index in items]]

    def loss(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return ((x @ self.inner.T + self.bias) @ self.outer).sum(), len(x)


def zeroed(
    module: nn.Module, parameter: Parameter, index: int, value: Callable[[], np.ndarray], before: np.ndarray
) -> float:
    """Eq. 1: the mean over batches of |L(θ) − L(θ without this one)|."""
    flat = module.get_parameter(parameter.name).detach().view(-1)
    kept = float(flat[index])
    flat[index] = 0
    change = np.abs(value() - before).mean()
    flat[index] = kept
    return float(change)


def losses(module: nn.Module, batches: Sequence[Batch], collate: Any, loss: Any) -> np.ndarray:
    with torch.no_grad():
        return np.array([float(loss(collate(batch.items))[0]) / batch.tokens for batch in batches])


def test_S_equals_zeroing_where_the_model_is_linear_in_each_parameter() -> None:
    model = Multilinear()
    batches = [Batch((tuple(("cat", i) for i in range(3 * b, 3 * b + 3)),), 3) for b in range(4)]
    found = measure(model, registry(model), batches, model.collate, model.loss)

    def value() -> np.ndarray:
        return losses(model, batches, model.collate, model.loss)

    before = value()
    for parameter in registry(model):
        exact = [zeroed(model, parameter, i, value, before) for i in range(parameter.numel)]
        # both sides are float64 but for the last step, in which S becomes float32
        np.testing.assert_allclose(found.mean[parameter.name].flatten(), exact, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("steps", [0, 80], ids=["untrained", "trained"])
def test_on_a_small_transformer_S_ranks_parameters_as_exact_zeroing_does(
    steps: int, record_property: Callable[[str, object], None]
) -> None:
    languages = {code: toy.LANGUAGES[code] for code in ("cat", "nob")}
    module = toy.initialised(toy.TinyTransformer(toy.vocabulary_size(2), width=8, hidden=12))
    backend = toy.ToyBackend(module, languages).train(steps)
    backend.module.double()
    batches = batches_of(backend, 4)
    found = sensitivity(backend, batches)
    pieces = [(backend.collate(batch.items), batch.tokens) for batch in batches]

    @torch.no_grad()
    def value() -> np.ndarray:
        return np.array([float(backend.loss(piece)[0]) / tokens for piece, tokens in pieces])

    before = value()
    pairs = []
    for parameter in registry(backend.module):
        taylor = found.mean[parameter.name].flatten().tolist()
        # words that no batch holds have 0 on both sides: ties that would flatter the estimate
        chosen = [i for i, s in enumerate(taylor) if s > 0][::6]
        pairs += [(taylor[i], zeroed(backend.module, parameter, i, value, before)) for i in chosen]
    assert len(pairs) > 200
    spearman = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    record_property("spearman", spearman)
    print(f"Spearman of S with exact zeroing, {len(pairs)} parameters, {steps} steps of training: {spearman:.4f}")
    # what chance gives has a standard deviation of 1/√(n−1)
    assert spearman > 10 / math.sqrt(len(pairs) - 1)


# the obvious loop


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("per_token", [True, False])
def test_S_equals_the_obvious_loop_with_a_full_gradient(
    double: toy.ToyBackend, pieces: int, skip: bool, per_token: bool
) -> None:
    batches = batches_of(double, 9, pieces)
    found = sensitivity(double, batches, skip_nonfinite=skip, per_token=per_token)
    assert_close(found.mean, obvious(double, batches, per_token), 2 * ROUNDING)
    assert_close(found.half, obvious(double, batches[: found.half_batches], per_token), 2 * ROUNDING)
    assert found.half_batches == 4


@pytest.mark.parametrize("pieces", [1, 3])
def test_S_of_a_transformer_equals_the_obvious_loop(pieces: int) -> None:
    module = toy.initialised(toy.TinyTransformer(toy.vocabulary_size(), layers=2))
    backend = toy.ToyBackend(module, dtype=torch.float64)
    batches = batches_of(backend, 6, pieces)
    assert_close(sensitivity(backend, batches).mean, obvious(backend, batches), 2 * ROUNDING)


def test_a_float32_module_gives_what_the_obvious_loop_gives_in_float32() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 100)
    # the same gradients bit for bit: what is left is the order in which 100 of them are added
    assert_close(sensitivity(backend, batches).mean, obvious(backend, batches), 16 * ROUNDING)


def test_a_tied_tensor_has_the_sensitivity_of_all_its_uses(double: toy.ToyBackend) -> None:
    batches = batches_of(double, 4)
    found = sensitivity(double, batches).mean["encoder.embed_tokens.weight"]
    model = double.module
    # untied, with the same weights: the gradient of the tied tensor is the sum of the two, before the absolute value
    apart = copy.deepcopy(double)
    apart.module.decoder["output_projection"].weight = nn.Parameter(
        model.encoder["embed_tokens"].weight.detach().clone()
    )
    names = ("encoder.embed_tokens.weight", "decoder.output_projection.weight")
    each = [full_gradient(apart, batch) for batch in batches]
    together = torch.stack([(gradient[names[0]] + gradient[names[1]]).abs() for gradient in each]).mean(0)
    expected = together * model.encoder["embed_tokens"].weight.abs()
    assert_close({"": found}, {"": expected.detach()}, 2 * ROUNDING)
    assert len(sensitivity(apart, batches).mean) == len(sensitivity(double, batches).mean) + 1


def test_the_absolute_value_is_taken_per_batch_not_after_gradients_are_accumulated(double: toy.ToyBackend) -> None:
    batches = batches_of(double, 20)
    found = torch.cat([tensor.flatten() for tensor in sensitivity(double, batches).mean.values()])
    total: dict[str, torch.Tensor] = {}
    for batch in batches:
        for name, gradient in full_gradient(double, batch).items():
            total[name] = total.get(name, 0) + gradient / len(batches)
    accumulated = torch.cat(
        [(double.module.get_parameter(p.name).detach() * total[p.name]).abs().flatten() for p in registry_of(double)]
    )
    assert bool((found >= accumulated * (1 - 4 * ROUNDING)).all())
    # and it is not one factor that they differ by: the orders differ
    assert stats.spearmanr(found, accumulated).statistic < 0.95


def registry_of(backend: toy.ToyBackend) -> tuple[Parameter, ...]:
    return registry(backend.module, backend.ghosts)


class Sum(nn.Module):
    """a and the output of tanh(c·x) meet in a sum: autograd hands both branches one and the same gradient tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.full((3,), 0.5, dtype=torch.float64))
        self.b = nn.Parameter(torch.full((3,), 0.25, dtype=torch.float64))
        self.c = nn.Parameter(torch.full((3,), -0.75, dtype=torch.float64))

    def loss(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return (-x * (self.a + torch.tanh(self.c * self.b) + self.b)).sum(), 1


@pytest.mark.parametrize("skip", [False, True])
def test_taking_one_gradient_leaves_those_that_share_its_memory_alone(skip: bool) -> None:
    model = Sum()
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    batches = [Batch(((("cat", 0),),), 1)] * 2
    found = measure(model, registry(model), batches, lambda _: x, model.loss, skip_nonfinite=skip)
    gradients = torch.autograd.grad(model.loss(x)[0], [model.a, model.b, model.c])
    expected = [(t * g).abs().detach() for t, g in zip((model.a, model.b, model.c), gradients, strict=True)]
    assert_close(found.mean, dict(zip("abc", expected, strict=True)), 2 * ROUNDING)


# nothing is changed


def state_of(module: nn.Module) -> Any:
    """Everything that measuring might leave behind."""
    weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    wanted = [tensor.requires_grad for tensor in module.parameters()]
    hooks = [
        (len(t._backward_hooks or ()), len(t._post_accumulate_grad_hooks or ()))  # type: ignore[attr-defined]
        for t in module.parameters()
    ]
    hooks += [(len(m._forward_hooks), len(m._backward_hooks)) for m in module.modules()]
    return weights, modes, wanted, hooks, [tensor.grad for tensor in module.parameters()]


def assert_same(before: Any, after: Any) -> None:
    for name, tensor in before[0].items():
        assert torch.equal(tensor.view(torch.int32), after[0][name].view(torch.int32)), name
    assert before[1:4] == after[1:4]
    assert after[4] == [None] * len(after[4])


@pytest.fixture(params=["eval", "train", "mixed"])
def backend(request: pytest.FixtureRequest) -> toy.ToyBackend:
    found = toy.backend()
    found.module.train(request.param == "train")
    if request.param == "mixed":
        found.module.encoder["layers"][0].train()
    return found


def broken(backend: toy.ToyBackend, after: int, error: BaseException) -> Callable[[Any], tuple[torch.Tensor, int]]:
    """A loss that fails on its n-th call, with the gradients of other pieces already there."""
    calls = itertools.count()

    def loss(piece: Any) -> tuple[torch.Tensor, int]:
        if next(calls) == after:
            raise error
        return backend.loss(piece)

    return loss


@pytest.mark.parametrize("skip", [False, True])
def test_the_module_is_left_as_it_was(backend: toy.ToyBackend, skip: bool) -> None:
    before = state_of(backend.module)
    sensitivity(backend, batches_of(backend, 4, pieces=2), skip_nonfinite=skip)
    assert_same(before, state_of(backend.module))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("skip", [False, True])
def test_the_module_is_left_as_it_was_after_an_exception(
    backend: toy.ToyBackend, error: BaseException, skip: bool
) -> None:
    before = state_of(backend.module)
    with pytest.raises(type(error)):
        sensitivity(
            backend, batches_of(backend, 4, pieces=2), loss=broken(backend, after=3, error=error), skip_nonfinite=skip
        )
    assert_same(before, state_of(backend.module))


def test_the_module_is_left_as_it_was_after_a_batch_that_is_not_finite(backend: toy.ToyBackend) -> None:
    before = state_of(backend.module)
    with pytest.raises(NonFiniteError):
        sensitivity(backend, batches_of(backend, 4), loss=spoiled(backend, {2}))
    assert_same(before, state_of(backend.module))


def test_gradients_of_parameters_that_are_not_measured_are_dropped_too(backend: toy.ToyBackend) -> None:
    before = state_of(backend.module)
    some = registry_of(backend)[1:3]
    found = sensitivity(backend, batches_of(backend, 4), parameters=some)
    assert list(found.mean) == [p.name for p in some]
    assert_same(before, state_of(backend.module))


def test_gradients_that_were_there_before_play_no_part(double: toy.ToyBackend) -> None:
    batches = batches_of(double, 4)
    expected = sensitivity(double, batches).mean
    for tensor in double.module.parameters():
        tensor.grad = torch.full_like(tensor, 1e3)
    assert_close(sensitivity(double, batches).mean, expected, 0)


def test_measuring_twice_gives_the_same_bits() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 6, pieces=3)
    first, second = sensitivity(backend, batches), sensitivity(backend, batches)
    assert_close(first.mean, second.mean, 0)
    assert_close(first.half, second.half, 0)


def live_gradients(backend: toy.ToyBackend, batches: Sequence[Batch], **options: Any) -> int:
    """The most gradients that exist at once, counted by hooks that come before any of `measure`'s own."""
    named = [backend.module.get_parameter(p.name) for p in registry_of(backend)]
    most = 0

    def count(_: torch.Tensor) -> None:
        nonlocal most
        most = max(most, sum(tensor.grad is not None for tensor in named))

    handles = [tensor.register_post_accumulate_grad_hook(count) for tensor in named]
    sensitivity(backend, batches, **options)
    for handle in handles:
        handle.remove()
    return most


def test_with_one_piece_no_more_than_one_gradient_is_ever_held() -> None:
    module = toy.initialised(toy.TinyTransformer(toy.vocabulary_size(), layers=2))
    backend = toy.ToyBackend(module)
    whole = len(registry_of(backend))
    assert live_gradients(backend, batches_of(backend, 4)) == 1
    # with pieces, and where a batch must be judged before it counts, one full gradient is
    assert live_gradients(backend, batches_of(backend, 4, pieces=2)) == whole
    assert live_gradients(backend, batches_of(backend, 4), skip_nonfinite=True) == whole


# what is not finite


def spoiled(
    backend: toy.ToyBackend, bad: set[int], value: float = math.nan, only: str | None = None, piece: int = 0
) -> Callable[[Any], tuple[torch.Tensor, int]]:
    """A loss that spoils batches by number, in all gradients or in that of one parameter. For batches of one piece."""
    calls = itertools.count()

    def loss(data: Any) -> tuple[torch.Tensor, int]:
        total, tokens = backend.loss(data)
        if next(calls) not in bad:
            return total, tokens
        if only is None:
            return total * value, tokens
        # adds 0 to the loss, and `value` to one element of one gradient
        element = backend.module.get_parameter(only).flatten()[0] * 1
        element.register_hook(lambda gradient: gradient * value)
        return total + element - element.detach(), tokens

    return loss


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("only", [None, "decoder.layers.0.fc1.bias", "encoder.embed_tokens.weight"])
def test_a_batch_that_is_not_finite_is_refused_with_its_number_and_language(value: float, only: str | None) -> None:
    backend = toy.ToyBackend(toy.initialised(toy.TinyTransformer(toy.vocabulary_size())))
    batches = batches_of(backend, 6, languages=["fur"])
    with pytest.raises(NonFiniteError, match=r"^batch 3 of fur: .*--skip-nonfinite") as caught:
        sensitivity(backend, batches, loss=spoiled(backend, {3}, value, only))
    assert "\n" not in str(caught.value)
    # of one parameter, the gradient alone is not finite: the loss tells nothing
    assert ("loss nan" in str(caught.value) or "inf" in str(caught.value)) == (only is None)


def test_a_mixed_batch_that_is_not_finite_is_named_with_all_its_languages() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 6, tokens=120, languages=["nob", "cat", "fur"])
    assert {code for code, _ in batches[1].items} == {"nob", "cat", "fur"}
    with pytest.raises(NonFiniteError, match=r"^batch 1 of cat\+fur\+nob: "):
        sensitivity(backend, batches, loss=spoiled(backend, {1, 4}))


def test_an_infinite_loss_with_finite_gradients_is_refused_too() -> None:
    backend = toy.backend()
    with pytest.raises(NonFiniteError, match="batch 2 of"):
        sensitivity(backend, batches_of(backend, 6), loss=offset(backend, {2}))


def offset(backend: toy.ToyBackend, bad: set[int]) -> Callable[[Any], tuple[torch.Tensor, int]]:
    calls = itertools.count()

    def loss(piece: Any) -> tuple[torch.Tensor, int]:
        total, tokens = backend.loss(piece)
        return total + (math.inf if next(calls) in bad else 0.0), tokens

    return loss


SPOILERS = {
    "gradient": lambda backend, bad: spoiled(backend, bad),
    "infinite gradient": lambda backend, bad: spoiled(backend, bad, math.inf),
    "one parameter": lambda backend, bad: spoiled(backend, bad, math.nan, "encoder.layers.0.fc1.bias"),
    "loss alone": offset,
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_skipped_batches_are_counted_and_S_is_that_of_the_others(double: toy.ToyBackend, spoiler: str) -> None:
    batches = batches_of(double, 60)
    bad = {0, 7, 30, 32}
    parameters = registry_of(double)
    found = sensitivity(
        double, batches, loss=SPOILERS[spoiler](double, bad), skip_nonfinite=True, sample=sample_of(parameters)
    )
    others = [batch for number, batch in enumerate(batches) if number not in bad]
    assert found.skipped == sorted(bad)
    assert found.batches == sum(found.block_batches) == len(found.losses) == len(found.tokens) == 56
    assert found.tokens == [batch.tokens for batch in others]
    assert all(map(math.isfinite, found.losses))
    assert_close(found.mean, obvious(double, others), 2 * ROUNDING)
    # batches 0-29 are the first half, two of them skipped
    assert found.half_batches == 28
    assert_close(found.half, obvious(double, others[:28]), 2 * ROUNDING)
    assert_consistent(found, parameters)


def test_skipping_with_pieces_leaves_out_the_whole_batch(double: toy.ToyBackend) -> None:
    # the first of two pieces is spoiled: the second must not be counted on its own
    batches = batches_of(double, 50, pieces=2)
    assert all(len(batch.pieces) == 2 for batch in batches)
    found = sensitivity(double, batches, loss=spoiled(double, {2 * 9}), skip_nonfinite=True)
    assert found.skipped == [9]
    assert_close(found.mean, obvious(double, batches[:9] + batches[10:]), 2 * ROUNDING)


def test_when_a_whole_block_is_not_finite_the_model_is_refused(double: toy.ToyBackend) -> None:
    batches = batches_of(double, 40)
    with pytest.raises(NonFiniteError, match="left a block of batches empty"):
        sensitivity(double, batches, loss=spoiled(double, {0, 1}), skip_nonfinite=True)


def test_steps_are_counted_whether_skipped_or_not(double: toy.ToyBackend) -> None:
    steps = []
    sensitivity(
        double,
        batches_of(double, 45),
        loss=spoiled(double, {4}),
        skip_nonfinite=True,
        advance=lambda: steps.append(1),
    )
    assert len(steps) == 45


def test_token_counts_that_disagree_between_plan_and_loss_are_caught() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 4)
    wrong = [*batches[:2], Batch(batches[2].pieces, batches[2].tokens + 1), batches[3]]
    with pytest.raises(
        AssertionError, match=rf"packed to {batches[2].tokens + 1} target tokens .* {batches[2].tokens}"
    ):
        sensitivity(backend, wrong)


# halves, blocks, the sample


@pytest.mark.parametrize("count", [2, 3, 7, 19, 20, 21, 39, 40, 41, 500, 501])
def test_blocks_hold_every_batch_in_order_and_make_two_halves(count: int) -> None:
    layout = blocks_of(count)
    assert sum(layout) == count
    assert len(layout) == min(BLOCKS, count - count % 2)
    assert len(layout) % 2 == 0
    assert max(layout) - min(layout) <= 1
    half = sum(layout[: len(layout) // 2])
    assert abs(2 * half - count) <= 1


def assert_consistent(found: Sensitivity, parameters: Sequence[Parameter]) -> None:
    """Block means, weighted by their batches, make the half and the whole (all parameters are in the sample)."""
    weights = np.array(found.block_batches, dtype=np.float64)[:, None]
    middle = len(weights) // 2
    for vector, rows in ((found.mean, slice(None)), (found.half, slice(middle))):
        flat = torch.cat([vector[p.name].flatten() for p in parameters]).double().numpy()
        blocks = (found.blocks[rows] * weights[rows]).sum(axis=0) / weights[rows].sum()
        np.testing.assert_allclose(blocks, flat, rtol=4 * ROUNDING, atol=1e-30)
    assert found.half_batches == weights[:middle].sum()
    assert found.batches == weights.sum()


@pytest.mark.parametrize("count", [2, 5, 20, 41])
def test_halves_and_blocks_agree_with_the_mean(double: toy.ToyBackend, count: int) -> None:
    parameters = registry_of(double)
    found = sensitivity(double, batches_of(double, count), sample=sample_of(parameters))
    assert found.blocks.shape == (min(20, count - count % 2), sum(p.numel for p in parameters))
    assert found.blocks.dtype == np.float32
    assert found.block_batches == blocks_of(count)
    assert_consistent(found, parameters)


def test_block_means_are_those_of_the_sampled_parameters_in_the_order_of_the_registry(double: toy.ToyBackend) -> None:
    parameters = registry_of(double)
    batches = batches_of(double, 4)
    sample = sample_of(parameters, limit=300)
    found = sensitivity(double, batches, sample=sample)
    assert found.blocks.shape == (4, 300)
    for number, batch in enumerate(batches):
        expected = obvious(double, [batch])
        flat = np.concatenate([expected[p.name].flatten().numpy()[sample[p.name]] for p in parameters])
        np.testing.assert_allclose(found.blocks[number], flat, rtol=4 * ROUNDING, atol=1e-30)


def test_the_two_halves_are_measured_on_different_sentences() -> None:
    backend = toy.backend()
    seen: list[Item] = []

    def collate(items: Sequence[Item]) -> Any:
        seen.extend(items)
        return backend.collate(items)

    batches = batches_of(backend, 11, pieces=3)
    found = sensitivity(backend, batches, collate=collate)
    edge = sum(len(batch.items) for batch in batches[: found.half_batches])
    assert 0 < edge < len(seen) == len(set(seen))
    assert not set(seen[:edge]) & set(seen[edge:])


def test_the_sample_is_everything_where_there_is_not_more_than_the_limit() -> None:
    parameters = registry(toy.TokenModel(toy.vocabulary_size()))
    total = sum(p.numel for p in parameters)
    for limit in (total, total + 1):
        sample = sample_of(parameters, limit)
        assert list(sample) == [p.name for p in parameters]
        assert all(np.array_equal(sample[p.name], np.arange(p.numel)) for p in parameters)


@pytest.mark.parametrize("limit", [1, 7, 100, 1500])
def test_the_sample_is_stratified_by_tensor(limit: int) -> None:
    parameters = registry(toy.TokenModel(toy.vocabulary_size()))
    total = sum(p.numel for p in parameters)
    sample = sample_of(parameters, limit)
    assert sum(map(len, sample.values())) == limit
    for parameter in parameters:
        indices = sample[parameter.name]
        assert abs(len(indices) - limit * parameter.numel / total) < 1
        assert np.array_equal(indices, np.unique(indices)), "sorted, none twice"
        assert all(0 <= index < parameter.numel for index in indices)


def test_the_sample_is_spread_over_each_tensor() -> None:
    (weight, *_) = parameters = registry(nn.Linear(100, 100))
    indices = sample_of(parameters, 1000)[weight.name]
    # the mean of 990 draws from 0…9999 has a standard deviation of about 10000/√(12·990)
    assert abs(indices.mean() - 4999.5) < 4 * 10000 / math.sqrt(12 * 990)


def test_two_models_of_one_shape_have_the_same_sample() -> None:
    first = sample_of(registry(toy.initialised(toy.TokenModel(toy.vocabulary_size()), seed=1)), 200)
    np.random.seed(5)  # noqa: NPY002  (the state that must not be read)
    second = sample_of(registry(toy.initialised(toy.TokenModel(toy.vocabulary_size()), seed=2)), 200)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


# other modules


def test_dropout_may_be_on_and_stays_on() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 4)
    calm = sensitivity(backend, batches).mean
    backend.module.train()
    torch.manual_seed(1)
    first = sensitivity(backend, batches).mean
    torch.manual_seed(1)
    again = sensitivity(backend, batches).mean
    other = sensitivity(backend, batches).mean
    assert backend.module.training
    name = "encoder.layers.0.fc1.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], calm[name])


def test_S_is_float32_on_the_cpu_whatever_the_module() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        backend = toy.ToyBackend(dtype=dtype)
        found = sensitivity(backend, batches_of(backend, 2))
        for vector in (found.mean, found.half):
            for parameter in registry_of(backend):
                tensor = vector[parameter.name]
                assert (tensor.dtype, tensor.device.type, tuple(tensor.shape)) == (
                    torch.float32,
                    "cpu",
                    parameter.shape,
                )
                assert tensor.is_contiguous()
                assert not tensor.requires_grad


class Constant(nn.Module):
    """Its gradient is 1 in every batch."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, dtype=dtype))

    def loss(self, _: Any) -> tuple[torch.Tensor, int]:
        return self.weight.sum(), 1


@pytest.mark.parametrize("skip", [False, True])
def test_sums_of_half_precision_gradients_do_not_saturate(skip: bool) -> None:
    # in bfloat16, 256 + 1 = 256
    model = Constant(torch.bfloat16)
    batches = [Batch(((("cat", 0),),), 1)] * 6_000
    found = measure(model, registry(model), batches, len, model.loss, skip_nonfinite=skip)
    assert found.mean["weight"].tolist() == [1.0, 1.0]


class Partly(nn.Module):
    """`used` in every sentence, `first` in the first piece alone, `never` in none."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.first, self.never = (nn.Parameter(torch.tensor(value)) for value in (2.0, 3.0, 5.0))

    def loss(self, rows: list[int]) -> tuple[torch.Tensor, int]:
        total = self.used * len(rows)
        for row in rows:
            if row == 0:
                total = total + self.first * 7
        return total, len(rows)


@pytest.mark.parametrize("skip", [False, True])
def test_a_parameter_without_a_gradient_has_S_zero(skip: bool) -> None:
    model = Partly()
    both = Batch(((("cat", 0),), (("cat", 1),)), 2)
    later = Batch(((("cat", 1),), (("cat", 2),)), 2)
    parameters = registry(model)
    found = measure(
        model,
        parameters,
        [both, later],
        lambda items: [index for _, index in items],
        model.loss,
        sample=sample_of(parameters),
        skip_nonfinite=skip,
    )
    # `first` has its gradient before the last piece of the first batch, and none in the second: 3·(7/2 + 0)/2
    assert {name: float(tensor) for name, tensor in found.mean.items()} == {"used": 2.0, "first": 5.25, "never": 0.0}
    assert found.blocks.tolist() == [[2.0, 10.5, 0.0], [2.0, 0.0, 0.0]]


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("skip", [False, True])
def test_sparse_gradients_of_an_embedding_count_like_dense_ones(pieces: int, skip: bool) -> None:
    def found(sparse: bool) -> dict[str, torch.Tensor]:
        embedding = nn.Embedding(toy.vocabulary_size(), 4, sparse=sparse)
        generator = torch.Generator().manual_seed(0)
        embedding.weight.data.copy_(torch.randn(embedding.weight.shape, generator=generator))
        backend = toy.ToyBackend(Bag(embedding), ghosts=[])
        return sensitivity(backend, batches_of(backend, 5, pieces), skip_nonfinite=skip).mean

    dense, sparse = found(sparse=False), found(sparse=True)
    assert float(dense["embedding.weight"].max()) > 0
    assert_close(sparse, dense, 4 * ROUNDING)


class Bag(nn.Module):
    """Predicts each target token from the source token at its place, through an embedding that is not tied."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.project = toy.initialised(nn.Linear(4, toy.vocabulary_size()))

    def forward(self, source: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        longest = max(source.shape[1], previous.shape[1])
        wide = nn.functional.pad(source, (0, longest - source.shape[1]))[:, : previous.shape[1]]
        return self.project(self.embedding(wide))
