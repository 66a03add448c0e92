"""Exact ablation against losses that are known by hand, in float64, on the batches of the run."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from sensikit.backends.base import Model
from sensikit.errors import NonFiniteError, OptionError, RunError
from sensikit.parameters import registry
from sensikit.run import Run
from sensikit.sensitivity.ablation import ablate, audit, audit_signature, in_float64
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.batches import Batch
from sensikit.settings import AnalysisSettings
from tests.support import toy
from tests.support.checkpoints import translation
from tests.support.measured import batches_of
from tests.support.watched import Watched, bits, infinite_at, snapshot

SLOPES, CURVES = [[1.0, -2.0, 3.0], [-4.0, 5.0, 0.25]], [0.5, 8.0, -2.0]
THETA = [2.0, -1.0, 0.5]


class Quadratic(nn.Module):
    """L_b(θ) = Σ_k c_bk·θ_k + ½·h_k·θ_k², of batch b."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(THETA, dtype=torch.float64))

    def forward(self, batch: int) -> torch.Tensor:
        slope, curve = torch.tensor(SLOPES[batch], dtype=torch.float64), torch.tensor(CURVES, dtype=torch.float64)
        return (slope * self.theta + curve * self.theta**2 / 2).sum()


def numbered(tokens: int, micro_batches: int = 1) -> list[Batch]:
    """Two batches, each `micro-batches` times the sentence of its number."""
    return [Batch(((("cat", number),),) * micro_batches, tokens) for number in range(2)]


def by_hand(module: Quadratic, places: list[int], batches: Sequence[Batch], **options: Any) -> tuple[Any, Any]:
    return ablate(
        module,
        [(module.theta, place) for place in places],
        batches,
        lambda items: items[0][1],
        lambda number: (module(number), 1),
        **options,
    )


def test_a_quadratic_loss_is_what_it_is_by_hand() -> None:
    taylor, exact = by_hand(Quadratic(), [0, 1, 2], numbered(1))
    # θ(c + hθ) and θ(c + hθ/2) of each batch, absolute before the mean:
    # θ_0 = 2: 2·(1+1) = 4 and 2·(−4+1) = −6; 2·(1+½) = 3 and 2·(−4+½) = −7
    # θ_1 = −1: −1·(−2−8) = 10 and −1·(5−8) = 3; −1·(−2−4) = 6 and −1·(5−4) = −1
    # θ_2 = ½: ½·(3−1) = 1 and ½·(¼−1) = −⅜; ½·(3−½) = 1¼ and ½·(¼−½) = −⅛
    np.testing.assert_allclose(taylor, [(4 + 6) / 2, (10 + 3) / 2, (1 + 0.375) / 2], rtol=1e-14)
    np.testing.assert_allclose(exact, [(3 + 7) / 2, (6 + 1) / 2, (1.25 + 0.125) / 2], rtol=1e-14)


def test_a_loss_without_curvature_makes_the_two_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "CURVES", [0.0, 0.0, 0.0])
    taylor, exact = by_hand(Quadratic(), [0, 1, 2], numbered(1))
    np.testing.assert_allclose(taylor, exact, rtol=1e-13)
    assert (taylor > 0.1).all()


def test_the_loss_of_a_batch_is_the_sum_of_its_pieces_over_its_tokens() -> None:
    taylor, exact = by_hand(Quadratic(), [0, 1, 2], numbered(1))
    for per_token, factor in ((True, 3 / 7), (False, 3)):
        found = by_hand(Quadratic(), [2, 0, 1], numbered(7, micro_batches=3), per_token=per_token)
        np.testing.assert_allclose(found[0], taylor[[2, 0, 1]] * factor, rtol=1e-14)
        np.testing.assert_allclose(found[1], exact[[2, 0, 1]] * factor, rtol=1e-14)


def test_nothing_of_the_model_changes_and_no_gradient_stays() -> None:
    backend = toy.backend()
    before = bits(backend.module)
    tensors = list(backend.module.parameters())
    places = [(tensor, tensor.numel() - 1) for tensor in tensors]
    told: list[int] = []
    with in_float64(backend.module):
        ablate(
            backend.module,
            places,
            batches_of(backend, 2),
            backend.collate,
            backend.loss,
            advance=lambda: told.append(1),
        )
        assert all(tensor.dtype == torch.float64 for tensor in backend.module.parameters())
    assert bits(backend.module) == before
    assert all(tensor.grad is None for tensor in tensors)
    assert [tensor.dtype for tensor in backend.module.parameters()] == [torch.float32] * len(tensors)
    assert len(told) == 2 * len(places)
    assert all(a is b for a, b in zip(tensors, backend.module.parameters(), strict=True))


def test_an_exception_between_leaves_the_model_as_it_was() -> None:
    backend = toy.backend()
    before, calls = bits(backend.module), 0

    def breaks(micro_batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return backend.loss(micro_batch)

    tensor = backend.module.get_parameter("encoder.layers.0.fc1.weight")
    with pytest.raises(KeyboardInterrupt), in_float64(backend.module):
        ablate(backend.module, [(tensor, i) for i in range(9)], batches_of(backend, 2), backend.collate, breaks)
    assert bits(backend.module) == before


def test_a_tied_tensor_goes_in_all_of_its_uses() -> None:
    backend = toy.backend()
    batches = batches_of(backend, 2)[:1]
    module = backend.module.double()
    embedding = module.get_parameter("encoder.embed_tokens.weight")
    index = (toy.FIRST + 1) * embedding.shape[1] + 3  # of an English word: no source has it
    _, exact = ablate(module, [(embedding, index)], batches, backend.collate, backend.loss)
    total, tokens = backend.loss(backend.collate(batches[0].items))
    with torch.no_grad():
        embedding.view(-1)[index] = 0
        without, _ = backend.loss(backend.collate(batches[0].items))
    assert exact[0] == pytest.approx(float((total.detach() - without).abs() / tokens), rel=1e-9)
    assert exact[0] > 0


# float64


class Faint(nn.Module):
    """A loss of 5 nats, of which three parameters have 1, 2 and 4 billionths each."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, 2.0, 4.0]))

    def forward(self) -> torch.Tensor:
        return 5 + 1e-9 * self.theta.sum()


def test_float32_cannot_tell_what_float64_can() -> None:
    module = Faint()
    places, batches = [(module.theta, place) for place in range(3)], [Batch(((("cat", 0),),), 1)]

    def exact() -> list[float]:
        return ablate(module, places, batches, lambda _: None, lambda _: (module(), 1))[1].tolist()

    assert exact() == [0, 0, 0]
    with in_float64(module):
        assert exact() == pytest.approx([1e-9, 2e-9, 4e-9], rel=1e-6)


def test_an_audit_is_in_float64(run: Run) -> None:
    backend = toy.backend()
    audit(run, backend, groups=["cat"], parameters=150)
    exact = run.read_table("audit.csv")["exact"]
    step = np.spacing(np.float32(run.manifest["sets"]["mt/cat"]["loss"]))
    assert ((exact > 0) & (exact < step / 10)).any()


def test_fairseq_is_in_float64_from_end_to_end(tiny_backend: Model) -> None:
    # fairseq's own log_softmax, and the softmax of its cross-attention, cast to float32
    task = translation(tiny_backend)
    batch = Batch(((("cat", 0), ("cat", 3)),), sum(int(task.sizes("cat")[row, 1]) for row in (0, 3)))
    micro_batch = task.collate(batch.items)
    module = tiny_backend.module
    before = bits(module)
    with in_float64(module):
        for name in (
            "encoder.layers.0.self_attn.q_proj.weight",
            "decoder.layers.1.encoder_attn.v_proj.bias",
            "decoder.layer_norm.weight",
            "encoder.layers.1.fc2.weight",
        ):
            tensor = module.get_parameter(name)
            loss = task.loss(micro_batch)[0]
            assert loss.dtype == torch.float64
            (gradient,) = torch.autograd.grad(loss, tensor)
            index = int(gradient.abs().argmax())
            sides = []
            with torch.no_grad():
                for step in (1e-6, -2e-6):
                    tensor.view(-1)[index] += step
                    sides.append(float(task.loss(micro_batch)[0]))
                tensor.view(-1)[index] += 1e-6
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float(gradient.view(-1)[index]), rel=1e-5), name
    assert bits(module) == before


def test_float64_is_for_the_while_alone_whatever_the_dtypes_were() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    module[0].half()
    before = {name: (tensor.dtype, tensor.clone()) for name, tensor in module.state_dict().items()}
    with contextlib.suppress(KeyboardInterrupt), in_float64(module):
        assert all(tensor.dtype in (torch.float64, torch.int64) for tensor in module.state_dict().values())
        raise KeyboardInterrupt
    for name, (dtype, tensor) in before.items():
        assert module.state_dict()[name].dtype == dtype
        assert torch.equal(module.state_dict()[name], tensor)


# dropout


def test_losses_that_are_compared_have_the_same_dropout() -> None:
    backend = toy.backend()
    backend.module.double().train()
    batches = batches_of(backend, 2, micro_batches=2)
    ghost = backend.module.get_parameter(toy.GHOST)  # nothing reads it: any difference would be of the noise
    fc1 = backend.module.get_parameter("encoder.layers.0.fc1.weight")
    places = [(ghost, 0), (fc1, 3)]
    taylor, exact = ablate(backend.module, places, batches, backend.collate, backend.loss, seed=1)
    assert (taylor[0], exact[0]) == (0, 0)
    assert exact[1] > 0
    again = ablate(backend.module, places, batches, backend.collate, backend.loss, seed=1)
    other = ablate(backend.module, places, batches, backend.collate, backend.loss, seed=2)
    assert exact.tolist() == again[1].tolist() != other[1].tolist()


def test_a_loss_that_is_not_finite_is_refused() -> None:
    backend = Watched(before=infinite_at(4))
    tensor = next(backend.module.parameters())
    with pytest.raises(NonFiniteError, match="batch 1: its loss or gradient is not finite"):
        ablate(backend.module, [(tensor, 0)], batches_of(Watched(), 2), backend.collate, backend.loss)


# of a run


@pytest.fixture
def run(analysed: Path, tmp_path: Path) -> Run:
    shutil.copytree(analysed, tmp_path / "run")
    return Run.open(tmp_path / "run")


def test_a_census_of_a_run_is_S_of_its_first_batches(tmp_path: Path) -> None:
    backend = toy.backend()
    run = analyze(
        backend, tmp_path / "run", AnalysisSettings(batches=2, tokens=20, micro_batches=1), groups=["cat", "nso"]
    )
    size = run.manifest["parameter_count"]
    summary = audit(run, backend, groups=["nso"], parameters=size, batches=9)
    table = run.read_table("audit.csv")
    assert len(table) == size
    assert (table["weight"] == 1).all()
    # over all batches, the Taylor estimate is the S that the run stores
    flat = {p.name: block[0] for (p, _), block in run.chunks([run.vector("mt", "nso")])}
    stored = [flat[name][index] for name, index in zip(table["parameter"], table["index"], strict=True)]
    np.testing.assert_allclose(table["taylor"], stored, rtol=1e-3, atol=1e-6 * max(stored))
    found = summary.set_index("statistic")
    expected = stats.spearmanr(table["taylor"], table["exact"]).statistic
    for column in ("value", "value_low", "value_high"):
        assert found.loc["spearman", column] == pytest.approx(expected, abs=1e-12)
    assert found.loc["pearson", "value"] == pytest.approx(stats.pearsonr(table["taylor"], table["exact"]).statistic)


def test_an_audit_writes_both_tables_with_the_signature_of_each_choice(run: Run) -> None:
    backend = toy.backend()
    before = bits(backend.module)
    summary = audit(run, backend, parameters=60, batches=2, command="sensikit audit run")
    assert bits(backend.module) == before
    assert not backend.module.training
    table, again = run.read_table("audit.csv"), run.read_table("audit-summary.csv")
    assert table.columns.tolist() == [
        "task", "group", "parameter", "index", "stratum", "weight", "taylor", "exact",
    ]  # fmt: skip
    assert again.columns.tolist() == [
        "task", "group", "statistic", "value", "value_low", "value_high", "sampled", "batches", "signature",
        "command",
    ]  # fmt: skip
    pd.testing.assert_frame_equal(again, summary)
    assert table.groupby("group", sort=False).size().to_dict() == dict.fromkeys(["cat", "fur", "nob", "nso"], 60)
    np.testing.assert_allclose(table.groupby("group")["weight"].sum(), run.manifest["parameter_count"])
    assert summary["statistic"].tolist() == ["spearman", "pearson", "top10_agreement"] * 4
    assert set(summary["sampled"]) == {60}
    assert set(summary["batches"]) == {2}
    assert set(summary["command"]) == {"sensikit audit run"}
    assert summary[["value_low", "value_high"]].isna().all(axis=None)  # too few parameters
    (signature,) = set(summary["signature"])
    noted = run.manifest["provenance"]
    for part in (
        "A", "task:mt", "dir:xxx-eng", "loss:nll/token", "mode:eval", "batches:2", "tokens:64", "params:60",
        "strata:component*S@0.5/0.8/0.9/0.99/0.999", "ci:jackknife", "seed:1", "dtype:fp64",
        f"ckpt:{noted['checkpoint_sha256'][:8]}", f"data:{noted['data_sha256'][:8]}",
    ):  # fmt: skip
        assert part in signature.split("|"), part


def test_an_audit_is_on_the_first_batches_of_the_run_with_its_loss_and_its_mode(tmp_path: Path) -> None:
    settings = AnalysisSettings(batches=4, tokens=64, loss="train", reduction="sum", mode="train", micro_batches=1)
    run = analyze(Watched({"nob": 90, "cat": 80}), tmp_path / "run", settings)
    first = Watched({"nob": 90, "cat": 80})
    analyze(first, tmp_path / "again", settings)
    backend = Watched({"nob": 90, "cat": 80})
    audit(run, backend, groups=["cat"], parameters=60, batches=2)
    used = [call.items for call in first.calls if {group for group, _ in call.items} == {"cat"}][:2]
    # one forward pass for the gradient, one for the loss, one for each parameter
    assert [call.items for call in backend.calls] == [used[0]] * 62 + [used[1]] * 62
    assert {(call.training, call.kind) for call in backend.calls} == {(True, "train")}
    assert "loss:train/sum|mode:train" in run.read_table("audit-summary.csv")["signature"][0]


def test_an_audit_is_the_same_again_to_the_last_byte(run: Run) -> None:
    audit(run, toy.backend(), groups=["cat", "nso"], parameters=60)
    whole = snapshot(run.path)
    audit(run, toy.backend(), groups=["cat", "nso"], parameters=60)
    assert snapshot(run.path) == whole


def test_the_audit_of_another_task_stays(run: Run) -> None:
    audit(run, toy.backend(), groups=["cat"], parameters=60)
    for name in ("audit.csv", "audit-summary.csv"):
        run.write_table(name, run.read_table(name).assign(task="denoise"))
    audit(run, toy.backend(), groups=["nso"], parameters=60)
    audit(run, toy.backend(), groups=["fur"], parameters=60)
    for name in ("audit.csv", "audit-summary.csv"):
        table = run.read_table(name)
        assert table.groupby("task")["group"].unique().map(list).to_dict() == {"denoise": ["cat"], "mt": ["fur"]}


def test_what_moves_an_audit_is_in_its_signature(run: Run) -> None:
    plain = audit_signature(run, AnalysisSettings(), 200, 1)
    assert audit_signature(run, AnalysisSettings(), 201, 1) != plain
    assert audit_signature(run, AnalysisSettings(), 200, 2) != plain
    for change in ({"loss": "train"}, {"reduction": "sum"}, {"mode": "train"}, {"seed": 2}, {"split": "valid"}):
        assert audit_signature(run, AnalysisSettings(**change), 200, 1) != plain, change


def test_the_taylor_estimate_of_the_toy_is_good(run: Run) -> None:
    summary = audit(run, toy.backend(), groups=["cat"], parameters=150, batches=4).set_index("statistic")
    assert summary.loc["spearman", "value_low"] > 0.9
    assert summary.loc["top10_agreement", "value"] > 0.6


# what is refused


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batches": 0}, "^--batches: 0 is too few"),
        ({"parameters": 3}, "^--parameters: 3 is too few for .* strata"),
        ({"groups": ["xyz"]}, "^--groups: xyz is no group here; choose among cat, fur, nob, nso"),
        ({"groups": []}, "^--groups: names no group"),
        ({"task": "denoise"}, "denoise"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line_and_nothing_is_written(
    run: Run, options: dict[str, Any], match: str
) -> None:
    before, backend = snapshot(run.path), toy.backend()
    with pytest.raises((OptionError, RunError), match=match) as caught:
        audit(run, backend, **options)
    assert "\n" not in str(caught.value)
    assert snapshot(run.path) == before


def test_another_checkpoint_other_batches_and_damage_are_refused(run: Run) -> None:
    other = toy.backend()
    with torch.no_grad():
        next(other.module.parameters())[3, 0] += 1e-3
    with pytest.raises(RunError, match="was measured on another checkpoint"):
        audit(run, other)
    path = run.vector("mt", "fur")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"fur\.safetensors: is missing or damaged"):
        audit(run, toy.backend())
    run.manifest["sets"]["mt/cat"]["drawn"] = "0" * 64
    with pytest.raises(RunError, match="was measured on other batches of cat"):
        audit(run, toy.backend(), groups=["cat"])
    assert not (run.path / "audit.csv").exists()


def test_a_registry_of_the_run_is_that_of_the_model(run: Run) -> None:
    backend = toy.backend()
    assert run.parameters == registry(backend.module, backend.ghosts)
