from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sensikit.pruning.sweep import prune
from sensikit.run import Run
from tests.support import toy
from tests.support.watched import SCORING, SMALL


@pytest.fixture
def run(analysed: Path, tmp_path: Path) -> Run:
    """A run of the toy, of which nothing was pruned yet."""
    shutil.copytree(analysed, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture(scope="session")
def straight(analysed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose sweep was never disturbed."""
    path = tmp_path_factory.mktemp("straight") / "run"
    shutil.copytree(analysed, path)
    prune(Run.open(path), toy.backend(), **SMALL, settings=SCORING)
    return path
