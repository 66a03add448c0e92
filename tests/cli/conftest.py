from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import toy


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> toy.ToyBackend:
    """The trained toy, which every checkpoint then is, wherever it is said to be."""
    found = toy.backend()
    monkeypatch.setattr("sensikit_cli.options.check_there", lambda _: None)
    monkeypatch.setattr("sensikit.backends.open_model", lambda *_: found)
    return found


@pytest.fixture
def run(analysed: Path, tmp_path: Path) -> Path:
    """A run of the toy."""
    return Path(shutil.copytree(analysed, tmp_path / "run"))
