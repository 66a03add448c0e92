"""Adam in one call, against fairseq's loop: the same steps, and the same state for a run that goes on."""

import copy

import pytest
import torch

from sensikit.backends.fairseq import compat

compat.load()

from fairseq.optim.adam import Adam  # noqa: E402

from sensikit.backends.fairseq.plugin.adam import FusedAdam  # noqa: E402


def stepped(kind, dtype, state=None, steps=5):
    """Three parameters after some steps of an optimizer, and its state; the last of them has no gradient at first."""
    generator = torch.Generator().manual_seed(1)
    parameters = [torch.nn.Parameter(torch.randn(7, 3, generator=generator).to(dtype)) for _ in range(3)]
    optimizer = kind(parameters, lr=0.01, betas=(0.9, 0.98), eps=1e-3, weight_decay=0.1)
    if state:
        optimizer.load_state_dict(copy.deepcopy(state))
    for number in range(steps):
        for each in parameters[: 2 if number < 2 else 3]:
            each.grad = torch.randn(7, 3, generator=generator).to(dtype) * 1e-2
        optimizer.step()
    return parameters, optimizer.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_steps_are_those_of_fairseq(dtype):
    (fast, state), (slow, expected) = (stepped(kind, dtype) for kind in (FusedAdam, Adam))
    for one, other in zip(fast, slow, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7)
    assert [each["step"] for each in state["state"].values()] == [5, 5, 3]
    for number, each in expected["state"].items():
        assert list(each) == list(state["state"][number])
    # one goes on where the other stopped
    for one, other in zip(stepped(FusedAdam, dtype, expected)[0], stepped(Adam, dtype, state)[0], strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7)


def test_the_trainer_uses_it(tiny_data):
    from tests.benchmarks.training import trainer_of
    from tests.support import training_system

    assert type(trainer_of(training_system.build(tiny_data, "regular")).optimizer.optimizer) is FusedAdam
