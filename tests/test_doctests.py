"""The examples in docstrings run, and say what they print."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path

import pytest

import sensikit

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


def test_there_are_examples_of_what_the_package_is_for() -> None:
    wanted = {"statistics.specificity", "statistics.noise", "statistics.streaming", "sensitivity.strata", "tables"}
    assert {f"sensikit.{name}" for name in wanted} <= set(with_examples())


@pytest.mark.parametrize("name", with_examples())
def test_the_examples_of_a_module_are_right(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in FRAMEWORKS:
            raise
        pytest.skip(f"{error.name} is not installed")
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed
