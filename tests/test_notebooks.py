"""The notebooks run in a real kernel on a small real run, and are kept without what they made."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import sensikit

PLACE = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(path.stem for path in PLACE.glob("*.ipynb"))


def opened(name: str) -> Any:
    return nbformat.read(PLACE / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def kernel(real_runs: Path) -> Iterator[NotebookClient]:
    """One kernel for all notebooks, which start with a clean namespace each."""
    places = {"SENSIKIT_RUN": str(real_runs / "first"), "SENSIKIT_EVALUATION": str(real_runs / "evaluation")}
    client = NotebookClient(
        nbformat.v4.new_notebook(), timeout=120, kernel_name="python3", resources={"metadata": {"path": str(PLACE)}}
    )
    with client.setup_kernel(env={**os.environ, **places}):
        yield client


def executed(kernel: NotebookClient, name: str) -> list[Any]:
    """Run a notebook and return its code cells with their outputs."""
    kernel.nb = opened(name)
    reset = nbformat.v4.new_code_cell("%reset -f")
    kernel.nb.cells.append(reset)
    kernel.execute_cell(reset, len(kernel.nb.cells) - 1)
    cells = [(place, cell) for place, cell in enumerate(kernel.nb.cells[:-1]) if cell.cell_type == "code"]
    return [kernel.execute_cell(cell, place) for place, cell in cells]


FIGURES = {"balance": 3, "correlation": 4, "pruning": 3, "specificity": 5, "training": 2}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_on_a_real_run_and_draws(kernel: NotebookClient, name: str) -> None:
    outputs = [output for cell in executed(kernel, name) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    drawn = [output for output in outputs if "data:image/svg+xml" in output.get("data", {}).get("text/html", "")]
    assert len(drawn) == FIGURES[name]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens_with_its_question_ends_with_what_to_conclude_and_is_kept_without_outputs(name: str) -> None:
    first, *others, last = opened(name).cells
    assert first.source.startswith("# ")
    for part in ("**The question:** ", "What to look for", '`pip install "sensikit[notebooks]"`'):
        assert part in first.source
    assert last.cell_type == "markdown"
    assert last.source.startswith("## What to conclude\n")
    for cell in (cell for cell in others if cell.cell_type == "code"):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= 20  # thin: what they do is in the library


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_imports_what_the_documentation_names(name: str) -> None:
    pages = (PLACE.parent / "docs" / "reference").glob("*.md")
    documented = {path for page in pages for path in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)}
    source = "\n".join(cell.source for cell in opened(name).cells if cell.cell_type == "code")
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    imported = [(str(node.module), alias.name) for node in nodes for alias in node.names]
    found = [(module, each) for module, each in imported if module.partition(".")[0] == "sensikit"]
    assert found
    for module, each in found:
        assert f"{module}.{each}" in documented or (module == "sensikit" and each in sensikit.__all__)
