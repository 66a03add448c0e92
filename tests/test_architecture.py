"""The house: which file may import which. Imports within functions and under TYPE_CHECKING count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

GROUND = [
    "tables", "folder", "settings", "parameters", "languages", "signature", "distributed", "progress", "files",
    "errors", "version", "vectors", "sharding",
]  # fmt: skip
# top to bottom: a file imports files of its own layer and of those below it
LAYERS = [
    ["sensikit_cli"],
    ["sensikit", "sensikit.api", "sensikit.demo"],
    ["sensikit.backends"],  # what a framework needs: opened by the command line and the demo, named nowhere below
    ["sensikit.training"],
    ["sensikit.report", "sensikit.corpus"],
    ["sensikit.figures", "sensikit.pruning"],
    ["sensikit.evaluation", "sensikit.sensitivity"],
    ["sensikit.statistics"],
    ["sensikit.run"],
    ["sensikit.backends.base"],
    [f"sensikit.{name}" for name in GROUND],
]
# the side rooms see no more of the house than this, and the layers hide them from it
SIDE_ROOMS = {
    "sensikit.backends": ["sensikit.backends.base", "sensikit.training", *LAYERS[-1]],
    "sensikit.training": LAYERS[-1],
}


def layer_of(module: str, layers: Sequence[Sequence[str]]) -> int:
    """Return the place of the layer that names the module or the nearest package around it."""
    names = {name: place for place, layer in enumerate(layers) for name in layer}
    while module not in names:
        module = module.rpartition(".")[0]
        # the root holds the public names alone: a file below it is in a layer of its own, or in none
        if module in ("", "sensikit"):
            return -1
    return names[module]


def imports(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    """Yield each pair of importer and imported."""
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            yield module, imported


def arrows_up(graph: grimp.ImportGraph, layers: Sequence[Sequence[str]]) -> list[str]:
    """Return the imports that run from a layer to one above it."""
    return [f"{one} -> {other}" for one, other in imports(graph) if layer_of(one, layers) > layer_of(other, layers)]


def circles(graph: grimp.ImportGraph) -> list[str]:
    """Return a circle of files that import each other, or nothing."""
    try:
        TopologicalSorter({each: graph.find_modules_directly_imported_by(each) for each in graph.modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def within(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.fixture(scope="module")
def house() -> grimp.ImportGraph:
    return grimp.build_graph("sensikit", "sensikit_cli", cache_dir=None)


def test_every_file_is_in_a_layer(house: grimp.ImportGraph) -> None:
    assert len(house.modules) > 50
    assert [module for module in sorted(house.modules) if layer_of(module, LAYERS) < 0] == []


def test_no_arrow_runs_up(house: grimp.ImportGraph) -> None:
    assert arrows_up(house, LAYERS) == []


def test_no_circle(house: grimp.ImportGraph) -> None:
    assert circles(house) == []


@pytest.mark.parametrize("room", SIDE_ROOMS)
def test_a_side_room_sees_little_of_the_house(house: grimp.ImportGraph, room: str) -> None:
    # the protocol is the backends' door, and belongs to the house
    inside = [room, *SIDE_ROOMS[room]]
    assert [
        f"{one} -> {other}"
        for one, other in imports(house)
        if within(one, [room]) and one != "sensikit.backends.base" and not within(other, inside)
    ] == []


def test_the_tests_see_an_arrow_up_and_a_circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "__init__": "",
        "low": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rooms import high",
        "high": "def lazily():\n    from rooms import low",
        "stray": "",
    }
    (tmp_path / "rooms").mkdir()
    for name, text in files.items():
        (tmp_path / "rooms" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    graph = grimp.build_graph("rooms", cache_dir=None)
    layers = [["rooms.high"], ["rooms.low"]]
    assert arrows_up(graph, layers) == ["rooms.low -> rooms.high"]
    assert set(circles(graph)) == {"rooms.low", "rooms.high"}
    assert layer_of("rooms.stray", layers) == -1
