"""Sets of batches and groups never stand for each other, whatever the groups are called."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

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
