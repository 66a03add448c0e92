"""Every tensor that our code makes is made on a device that is named: what works on a CPU then works on a GPU.

Where there is no GPU, a mode of torch watches the calls that make tensors: one from a file of sensikit that names no
device fails. Where there is one, the tests marked `gpu` compare it with the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import sensikit
from sensikit.parameters import registry, sample_of
from sensikit.pruning.masks import Order, pruned, pruning_plan
from sensikit.pruning.scorers import SCORERS, measure_missing
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.batches import Batch, draw, pack
from sensikit.sensitivity.taylor import Sensitivity, measure
from sensikit.settings import AnalysisSettings, Decoding, SweepSettings
from tests.support import toy

SENSIKIT = Path(sensikit.__file__).parent

FACTORIES = {
    getattr(torch, name)
    for name in (
        *("tensor", "as_tensor", "asarray", "scalar_tensor", "empty", "empty_strided", "zeros", "ones", "full", "eye"),
        *("arange", "range", "linspace", "logspace", "rand", "randn", "randint", "randperm", "tril_indices"),
        *("triu_indices", "sparse_coo_tensor", "hann_window"),
    )
}
"""What makes a tensor on the default device unless told otherwise."""


class DevicesNamed(TorchFunctionMode):
    """Fails when a file of sensikit makes a tensor without saying where."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        place = self.caller()
        if func in FACTORIES and kwargs.get("device") is None and place.is_relative_to(SENSIKIT):
            raise AssertionError(f"{place}: torch.{func.__name__} without a device")
        if func is torch.Tensor.register_post_accumulate_grad_hook:
            # the backward pass calls its hooks with all modes off
            tensor, hook = args

            def watched(gradient: torch.Tensor) -> None:
                with self:
                    hook(gradient)

            args = (tensor, watched)
        return func(*args, **kwargs)

    @staticmethod
    def caller() -> Path:
        """The file that called torch."""
        frame = sys._getframe(2)
        torch_itself = str(Path(torch.__file__).parent)
        while frame.f_back and frame.f_code.co_filename.startswith((torch_itself, "<")):
            frame = frame.f_back
        return Path(frame.f_code.co_filename)


def planted(expression: str, file: Path) -> Callable[[], Any]:
    """Return a function that computes `expression` and that seems to stand in `file`."""
    names: dict[str, Any] = {"torch": torch, "np": np}
    exec(compile(f"def planted():\n    return {expression}\n", str(file), "exec"), names)
    function: Callable[[], Any] = names["planted"]
    return function


OFFENDERS = [
    "torch.zeros(3)",
    "torch.ones((2, 2), dtype=torch.bool)",
    "torch.empty(1)",
    "torch.full((2,), 1.5)",
    "torch.arange(4)",
    "torch.tensor([1, 2])",
    "torch.tensor(3.0, device=None)",
    "torch.as_tensor(np.arange(3))",
    "torch.asarray([1])",
    "torch.rand(2)",
    "torch.randn(2)",
    "torch.randint(3, (2,))",
    "torch.randperm(3)",
    "torch.linspace(0, 1, 3)",
    "torch.eye(2)",
]


@pytest.mark.parametrize("expression", OFFENDERS)
def test_the_watch_catches_a_planted_offender(expression: str) -> None:
    offender = planted(expression, SENSIKIT / "planted.py")
    offender()
    with DevicesNamed(), pytest.raises(AssertionError, match=r"planted.py: torch\.\w+ without a device"):
        offender()


@pytest.mark.parametrize("expression", OFFENDERS)
def test_the_watch_lets_others_make_tensors_as_they_like(expression: str) -> None:
    with DevicesNamed():
        planted(expression, SENSIKIT.parent / "elsewhere.py")()


@pytest.mark.parametrize(
    "expression",
    [
        "torch.zeros(3, device='cpu')",
        "torch.as_tensor([1], device=torch.device('cpu'))",
        "torch.zeros_like(torch.zeros(2, device='cpu'))",
        "torch.nn.Linear(2, 2, device='cpu')(torch.ones(2, device='cpu'))",
    ],
)
def test_the_watch_lets_pass_what_names_a_device(expression: str) -> None:
    with DevicesNamed():
        planted(expression, SENSIKIT / "planted.py")()


def test_the_watch_sees_into_hooks_that_run_in_the_backward_pass() -> None:
    offender = planted("torch.zeros(1)", SENSIKIT / "planted.py")
    weight = torch.nn.Parameter(torch.ones(2))

    def hook(_: torch.Tensor) -> None:
        offender()

    with DevicesNamed():
        weight.register_post_accumulate_grad_hook(hook)
        with pytest.raises(AssertionError, match="without a device"):
            weight.sum().backward()


# what is watched


def batches_of(backend: toy.ToyBackend, count: int = 6, micro_batches: int = 1) -> list[Batch]:
    sizes = {code: backend.sizes(code) for code in ("cat", "nso")}
    return pack(draw(sizes, 1, "test"), sizes, 60, count, micro_batches)


def measured(backend: toy.ToyBackend, micro_batches: int = 1, skip_nonfinite: bool = False) -> Sensitivity:
    parameters = registry(backend.module, backend.ghosts)
    return measure(
        backend.module,
        parameters,
        batches_of(backend, micro_batches=micro_batches),
        backend.collate,
        backend.loss,
        sample=sample_of(parameters, 500),
        skip_nonfinite=skip_nonfinite,
    )


SETTINGS = AnalysisSettings(batches=6, tokens=60)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = analyze(toy.backend(), tmp_path_factory.mktemp("devices") / "run", SETTINGS)
    measure_missing(made, toy.backend(), [(order, "cat") for order in SCORERS], "mt")
    return made


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("skip", [False, True])
def test_measuring_names_its_devices(micro_batches: int, skip: bool) -> None:
    backend = toy.backend()
    with DevicesNamed():
        found = measured(backend, micro_batches, skip)
    assert found.batches == 6


@pytest.mark.parametrize("rest", ["mixed", "pooled"])
def test_an_analysis_names_its_devices(tmp_path: Path, rest: str) -> None:
    backend = toy.backend()
    with DevicesNamed():
        run = analyze(backend, tmp_path / "run", AnalysisSettings(batches=6, tokens=60, rest=rest, micro_batches=2))
    assert run.groups() == list(backend.groups)


@pytest.mark.parametrize("order", SCORERS)
def test_pruning_names_its_devices(run: Run, order: str) -> None:
    module = toy.backend().module
    with DevicesNamed():
        plan = pruning_plan(run, module, Order(order, "cat", seed=1), [0.5])
        with pruned(run, module, plan, 0.5) as count:
            assert count == plan.counts[0.5] > 0


def test_a_sweep_names_its_devices(tmp_path: Path) -> None:
    backend = toy.backend()
    run = analyze(backend, tmp_path / "run", SETTINGS)
    settings = SweepSettings(decoding=Decoding(max_sentences=4), tokenizer="none", bootstrap=0)
    with DevicesNamed():
        table = prune(run, backend, [0.3], list(SCORERS), settings=settings, groups=["cat"])
    assert len(table) == (1 + len(SCORERS)) * len(settings.scored)


# a GPU, where there is one

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]


@pytest.fixture
def device() -> str:
    return "cuda"


class TestGpu:
    pytestmark = gpu

    @pytest.mark.parametrize("micro_batches", [1, 3])
    @pytest.mark.parametrize("skip", [False, True])
    def test_S_is_that_of_the_cpu(self, device: str, micro_batches: int, skip: bool) -> None:
        there, here = (
            measured(toy.backend(device=device), micro_batches, skip),
            measured(toy.backend(), micro_batches, skip),
        )
        for name, expected in here.mean.items():
            assert there.mean[name].device.type == "cpu"
            # two orders of summation, each some hundred float32 roundings deep
            bound = 1e-4 * float(expected.max())
            torch.testing.assert_close(there.mean[name], expected, rtol=0, atol=bound)
        np.testing.assert_allclose(there.blocks, here.blocks, rtol=0, atol=1e-4 * here.blocks.max())
        np.testing.assert_allclose(there.losses, here.losses, rtol=1e-4)

    def test_S_of_float64_is_that_of_the_cpu_to_the_last_digits(self, device: str) -> None:
        there, here = toy.backend(device=device), toy.backend()
        there.module.double()
        here.module.double()
        first, second = measured(there), measured(here)
        for name, expected in second.mean.items():
            torch.testing.assert_close(first.mean[name], expected, rtol=0, atol=1e-6 * float(expected.max()))

    @pytest.mark.parametrize("order", SCORERS)
    def test_pruning_zeroes_the_same_parameters_and_puts_every_bit_back(
        self, run: Run, device: str, order: str
    ) -> None:
        modules = toy.backend(device=device).module, toy.backend().module
        before = {name: tensor.clone() for name, tensor in modules[0].state_dict().items()}
        zeros = []
        for module in modules:
            plan = pruning_plan(run, module, Order(order, "cat", seed=1), [0.5])
            with pruned(run, module, plan, 0.5):
                zeros.append({name: (tensor == 0).cpu() for name, tensor in module.state_dict().items()})
        assert all(torch.equal(zeros[0][name], zeros[1][name]) for name in zeros[0])
        assert all(torch.equal(before[name], tensor) for name, tensor in modules[0].state_dict().items())

    def test_an_analysis_and_a_sweep_run_there(self, device: str, tmp_path: Path, run: Run) -> None:
        backend = toy.backend(device=device)
        there = analyze(backend, tmp_path / "run", SETTINGS)
        settings = SweepSettings(decoding=Decoding(max_sentences=4), tokenizer="none", bootstrap=0)
        table = prune(there, backend, [0.3], ["specificity"], settings=settings, groups=["cat"])
        assert len(table) == 2 * len(settings.scored)
        first, second = there.read_table("correlation.csv"), run.read_table("correlation.csv")
        np.testing.assert_allclose(first["pcc"], second["pcc"], atol=1e-3)
