"""Directories of every family, each made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.support import directories


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directories.write_text(tmp_path_factory.mktemp("text") / "data")


@pytest.fixture(scope="session")
def directory(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the directory of a family."""
    root = tmp_path_factory.mktemp("directories")

    @cache
    def made(family: str) -> Path:
        return directories.write_directory(family, text, root / family)

    return made
