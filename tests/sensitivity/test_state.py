"""What measuring leaves as it was, and batches that are not finite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from sensikit.errors import NonFiniteError
from sensikit.parameters import sample_of
from sensikit.sensitivity.batches import Batch
from tests.support import toy
from tests.support.measured import (
    ROUNDING,
    assert_close,
    assert_consistent,
    batches_of,
    doubled,
    obvious,
    registry_of,
    sensitivity,
    spoiled,
)


@pytest.fixture
def double() -> toy.ToyBackend:
    return doubled()


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
    """A loss that fails on its n-th call, with the gradients of other micro-batches already there."""
    calls = itertools.count()

    def loss(micro_batch: Any) -> tuple[torch.Tensor, int]:
        if next(calls) == after:
            raise error
        return backend.loss(micro_batch)

    return loss


@pytest.mark.parametrize("skip", [False, True])
def test_the_module_is_left_as_it_was(backend: toy.ToyBackend, skip: bool) -> None:
    before = state_of(backend.module)
    sensitivity(backend, batches_of(backend, 4, micro_batches=2), skip_nonfinite=skip)
    assert_same(before, state_of(backend.module))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("skip", [False, True])
def test_the_module_is_left_as_it_was_after_an_exception(
    backend: toy.ToyBackend, error: BaseException, skip: bool
) -> None:
    before = state_of(backend.module)
    with pytest.raises(type(error)):
        sensitivity(
            backend,
            batches_of(backend, 4, micro_batches=2),
            loss=broken(backend, after=3, error=error),
            skip_nonfinite=skip,
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
    batches = batches_of(backend, 6, micro_batches=3)
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
    # with micro-batches, and where a batch must be judged before it counts, one full gradient is
    assert live_gradients(backend, batches_of(backend, 4, micro_batches=2)) == whole
    assert live_gradients(backend, batches_of(backend, 4), skip_nonfinite=True) == whole


# what is not finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("only", [None, "decoder.layers.0.fc1.bias", "encoder.embed_tokens.weight"])
def test_a_batch_that_is_not_finite_is_refused_with_its_number_and_language(value: float, only: str | None) -> None:
    backend = toy.ToyBackend(toy.initialised(toy.TinyTransformer(toy.vocabulary_size())))
    batches = batches_of(backend, 6, groups=["fur"])
    with pytest.raises(NonFiniteError, match=r"^batch 3 of fur: .*--skip-nonfinite") as caught:
        sensitivity(backend, batches, loss=spoiled(backend, {3}, value, only))
    assert "\n" not in str(caught.value)
    # of one parameter, the gradient alone is not finite: the loss tells nothing
    assert ("loss nan" in str(caught.value) or "inf" in str(caught.value)) == (only is None)


def test_a_mixed_batch_that_is_not_finite_is_named_with_all_its_languages() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 6, tokens=120, groups=["nob", "cat", "fur"])
    assert {code for code, _ in batches[1].items} == {"nob", "cat", "fur"}
    with pytest.raises(NonFiniteError, match=r"^batch 1 of cat\+fur\+nob: "):
        sensitivity(backend, batches, loss=spoiled(backend, {1, 4}))


def test_an_infinite_loss_with_finite_gradients_is_refused_too() -> None:
    backend = toy.backend()
    with pytest.raises(NonFiniteError, match="batch 2 of"):
        sensitivity(backend, batches_of(backend, 6), loss=offset(backend, {2}))


def offset(backend: toy.ToyBackend, bad: set[int]) -> Callable[[Any], tuple[torch.Tensor, int]]:
    calls = itertools.count()

    def loss(micro_batch: Any) -> tuple[torch.Tensor, int]:
        total, tokens = backend.loss(micro_batch)
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
    # the first of two micro-batches is spoiled: the second must not be counted on its own
    batches = batches_of(double, 50, micro_batches=2)
    assert all(len(batch.micro_batches) == 2 for batch in batches)
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
    wrong = [*batches[:2], Batch(batches[2].micro_batches, batches[2].tokens + 1), batches[3]]
    with pytest.raises(
        AssertionError, match=rf"packed to {batches[2].tokens + 1} target tokens .* {batches[2].tokens}"
    ):
        sensitivity(backend, wrong)
