"""Sets of batches and groups never stand for each other, whatever the groups are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sensikit.errors import RunError
from sensikit.run import MIXED, Run, rest_of
from sensikit.sensitivity.analysis import analyze
from sensikit.sensitivity.planning import Plan, make_plan
from tests.support.watched import QUICK, Watched, obvious

KEYS = ("all", "rest", "groups")
"""Codes that a model may have, and that name sets, or parts of their names."""


def backend() -> Watched:
    return Watched(dict(zip(KEYS, (70, 60, 50), strict=True)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return analyze(backend(), tmp_path_factory.mktemp("sets") / "run", QUICK)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(backend(), QUICK)


def stored(run: Run, name: str) -> np.ndarray:
    vectors = load_file(run.vector("mt", name))
    return np.concatenate([vectors[parameter.name].ravel() for parameter in run.parameters])


def test_every_set_is_in_files_of_its_own(run: Run) -> None:
    names = [MIXED, *KEYS, *map(rest_of, KEYS)]
    assert set(run.manifest["sets"]) == {f"mt/{name}" for name in names}
    files = [file for entry in run.manifest["sets"].values() for file in entry["files"]]
    assert len(files) == len(set(files))
    assert all(run.has("mt", name) for name in names)
    assert run.groups() == list(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_S_of_a_group_is_over_its_own_sentences(run: Run, plan: Plan, key: str) -> None:
    assert {group for batch in plan.sets[key] for group, _ in batch.items} == {key}
    assert {group for batch in plan.sets[rest_of(key)] for group, _ in batch.items} == set(KEYS) - {key}
    for name in (key, rest_of(key)):
        expected = obvious(backend(), plan.sets[name])
        np.testing.assert_allclose(stored(run, name), expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_S_of_all_groups_is_not_that_of_the_group_all(run: Run, plan: Plan) -> None:
    assert {group for batch in plan.sets[MIXED] for group, _ in batch.items} == set(KEYS)
    mixed, alone = stored(run, MIXED), stored(run, "all")
    expected = obvious(backend(), plan.sets[MIXED])
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-6 * expected.max())
    assert np.abs(mixed - alone).max() > 0.01 * mixed.max()


def test_a_run_of_them_is_resumed_and_read_again(run: Run) -> None:
    analyze(backend(), run.path, QUICK, resume=True)
    again = Run.open(run.path)
    assert again.complete("mt")
    assert set(again.read_table("correlation.csv")["group_a"]) == set(KEYS)


def test_what_is_stored_may_take_a_third_of_the_disk(run: Run, tmp_path: Path) -> None:
    settings = replace(QUICK, store="bf16", halves=False)
    small = analyze(backend(), tmp_path / "run", settings)
    whole, part = ({*each.analysis()["signature"].split("|")} for each in (run, small))
    assert part - whole == {"store:bf16", "halves:none"}
    for name in (MIXED, *KEYS, *map(rest_of, KEYS)):
        (found,), (exact,) = (
            np.concatenate(list(each.stream([each.vector("mt", name)])), axis=1) for each in (small, run)
        )
        assert np.array_equal(found, torch.from_numpy(exact).bfloat16().float().numpy())
        assert not small.vector("mt", name, "half").exists()
    assert Run.open(small.path).complete("mt")
    tables = [each.read_table("correlation.csv") for each in (run, small)]
    np.testing.assert_allclose(tables[1]["pcc"], tables[0]["pcc"], atol=0.01)
    # the reliability is the mean covariance of two different blocks over the variance of their mean
    table = tables[1].set_index(["subset", "group_a", "group_b"])["ceiling"]
    for key in KEYS:
        blocks = np.cov(small.block_reader("mt", key)(0, run.manifest["parameter_count"]).astype(np.float64))
        different = (blocks.sum() - np.trace(blocks)) / (len(blocks) * (len(blocks) - 1))
        assert table["all", key, key] == pytest.approx(different / blocks.mean(), rel=1e-4)
    with pytest.raises(RunError, match="was made with another signature"):
        analyze(backend(), small.path, QUICK, resume=True)
