"""What must not change, or must change in one known way, when the input changes in a known way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sensikit.backends.base import Item
from sensikit.pruning.masks import Order, chosen, pruning_plan
from sensikit.run import MIXED, Run
from sensikit.sensitivity.analysis import analyze
from tests.support import handmade
from tests.support.watched import QUICK, Watched, undisturbed


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never disturbed."""
    return undisturbed(tmp_path_factory.mktemp("straight") / "run")


def test_the_same_batches_under_two_names_have_no_specificity_and_correlate_perfectly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twins(Watched):
        """Two languages of the same sentences."""

        def __init__(self) -> None:
            super().__init__({"cat": 60, "nob": 60})
            for split in ("train", "test"):
                self.pairs["nob", split] = self.pairs["cat", split]

    def in_order(sizes: Mapping[str, np.ndarray], *_: Any) -> Iterator[Item]:
        return ((language, index) for index in range(60) for language in sizes)

    monkeypatch.setattr("sensikit.sensitivity.planning.draw", in_order)
    run = analyze(Twins(), tmp_path / "run", QUICK)
    assert handmade.flat(run, "cat").max() > 0
    table = run.read_table("specificity.csv").set_index(["group", "statistic"])["value"].unstack()
    assert (table["share_ties_at_zero"] == 1).all()
    assert (table[["mean", "q01", "median", "q99", "share_positive"]] == 0).all(axis=None)
    correlation = run.read_table("correlation.csv")
    np.testing.assert_allclose(correlation["pcc"], 1, atol=1e-12)


def test_scaling_the_loss_and_sigma_together_leaves_pcc_specificity_and_the_order_as_they_were(
    straight: Path, tmp_path: Path
) -> None:
    run = Run.open(straight)
    scaled = analyze(Watched(before=lambda _: 16.0), tmp_path / "run", replace(QUICK, sigma=16e-8))
    assert np.array_equal(handmade.flat(scaled, "cat"), 16 * handmade.flat(run, "cat"))
    alike = [each.read_table("correlation.csv") for each in (run, scaled)]
    pd.testing.assert_series_equal(*(table.pop("log_pcc") for table in alike), rtol=1e-9)
    assert alike[0].equals(alike[1])
    one, two = (table.read_table("specificity.csv") for table in (run, scaled))
    same = one["statistic"] != "sigma"
    assert one[same].equals(two[same])
    module = Watched().module
    for name in ("specificity", "sensitivity"):
        masks = []
        for each in (run, scaled):
            plan = pruning_plan(each, module, Order(name, "cat"), [0.5])
            masks.append(plan.mask(0.5))
        assert np.array_equal(*masks)


def test_permuting_the_parameters_permutes_the_result(straight: Path, tmp_path: Path) -> None:
    def turned(part: torch.nn.Module) -> None:
        """Register what `part` holds the other way round, under the same names."""
        part._modules = dict(reversed(part._modules.items()))
        part._parameters = dict(reversed(part._parameters.items()))

    backend = Watched()
    for part in backend.module.modules():
        if part is not backend.module:  # the tied tensor keeps its first name
            turned(part)
    run, permuted = Run.open(straight), analyze(backend, tmp_path / "run", QUICK)
    names = [parameter.name for parameter in permuted.parameters]
    assert names != [parameter.name for parameter in run.parameters]
    assert sorted(names) == sorted(parameter.name for parameter in run.parameters)

    def by_name(which: Run, name: str) -> dict[str, np.ndarray]:
        flat = handmade.flat(which, name)
        return {p.name: flat[p.start : p.stop] for p in which.parameters}

    for name in ("cat", "cat.rest", MIXED):
        one, two = by_name(run, name), by_name(permuted, name)
        assert all(np.array_equal(one[each], two[each]) for each in names)
    for table in ("correlation.csv", "specificity.csv", "balance.csv"):
        one, two = run.read_table(table), permuted.read_table(table)
        numbers = one.select_dtypes("number").columns
        np.testing.assert_allclose(one[numbers], two[numbers], rtol=1e-6, atol=1e-9)

    def pruned_by_name(which: Run, module: torch.nn.Module) -> dict[str, np.ndarray]:
        plan = pruning_plan(which, module, Order("specificity", "cat"), [0.5])
        return {p.name: inside for p, inside in chosen(which, plan, 0.5)}

    one, two = pruned_by_name(run, Watched().module), pruned_by_name(permuted, backend.module)
    assert all(np.array_equal(one[name], two[name]) for name in one)
