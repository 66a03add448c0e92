"""The examples in docstrings run, and say what they print."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import sensikit
from sensikit.corpus import build
from sensikit.run import Run
from tests.support import corpus_text, synthetic_run, synthetic_tables, toy

FRAMEWORKS = ("fairseq", "fairseq_cli", "transformers")


def with_examples() -> list[str]:
    """Return the modules whose docstrings hold examples; fairseq alone can import the plugin."""
    found = []
    for module in pkgutil.walk_packages(sensikit.__path__, "sensikit."):
        if not module.name.startswith("sensikit.backends.fairseq.plugin"):
            spec = find_spec(module.name)
            assert spec is not None
            assert spec.origin is not None
            if ">>> " in Path(spec.origin).read_text(encoding="utf-8"):
                found.append(module.name)
    return found


def test_every_public_function_has_an_example() -> None:
    named = [getattr(sensikit, name) for name in sensikit.__all__]
    public = [Run, build, *filter(inspect.isfunction, named)]
    assert len(public) > 16
    assert [each.__name__ for each in public if ">>> " not in (each.__doc__ or "")] == []


@pytest.fixture
def given(analysed: Path, tmp_path: Path) -> dict[str, Any]:
    """What the examples start from: two models, a run of the first, an evaluation, two texts, a folder for the rest."""
    lines = {"cat": corpus_text.english(120), "fao": corpus_text.english(60)}
    return {
        "sensikit": sensikit,
        "model": toy.backend(),
        "other": toy.backend(1),
        "run": Run.open(shutil.copytree(analysed, tmp_path / "run")),
        "scores": synthetic_tables.write_evaluation(tmp_path / "scores", synthetic_run.LANGUAGES),
        "texts": [corpus_text.write_tsv(tmp_path / f"{code}.tsv", lines[code], code) for code in lines],
        "folder": tmp_path,
    }


@pytest.mark.parametrize("name", with_examples())
def test_the_examples_of_a_module_are_right(name: str, given: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if name == "sensikit.api":
        pytest.importorskip("fairseq")
        given |= {
            "checkpoint": request.getfixturevalue("tiny_checkpoint"),
            "data": request.getfixturevalue("tiny_data"),
        }
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in FRAMEWORKS:
            raise
        pytest.skip(f"{error.name} is not installed")
    failed, attempted = doctest.testmod(module, extraglobs=given)
    assert attempted
    assert not failed
