"""What is inside a checkpoint, as it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sensikit.files import size_text


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds; the fields are in the order they are shown in.

    `problem` says why the checkpoint cannot be analysed, or is empty. `components` maps "encoder attention" and such
    to scalars; ties count once, ghosts (nothing reads them) not at all. Sizes are in bytes.
    """

    path: str
    sha256: str
    bytes: int
    problem: str
    task: str
    arch: str
    directions: dict[str, list[str]]
    language_tags: str
    criterion: str
    updates: int | None
    optimizer_state: bool | None
    layers: dict[str, int]
    vocabulary: int
    dtypes: dict[str, int]
    tensors: int
    parameters: int
    prunable: int
    components: dict[str, int]
    tied: list[list[str]]
    ghosts: int
    memory: int
    disk_per_group: int


def counted(items: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the sum of the numbers under each name."""
    counts: dict[str, int] = {}
    for name, count in items:
        counts[name] = counts.get(name, 0) + count
    return counts


def describe(contents: Contents) -> str:
    """Return the contents as lines of text."""
    rows = dict(_rows(contents))
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _rows(contents: Contents) -> Iterator[tuple[str, str]]:
    yield "checkpoint", f"{contents.path} ({size_text(contents.bytes)})"
    yield "sha256", contents.sha256
    if contents.problem:
        yield "cannot be analysed", contents.problem
    else:
        yield "task", contents.task
        layers = "+".join(str(count) for count in contents.layers.values() if count)
        yield "architecture", f"{contents.arch}, {layers} layers"
        for direction, languages in contents.directions.items():
            yield direction, ", ".join(languages)
        yield "language tags", contents.language_tags
        if contents.criterion:
            yield "criterion", contents.criterion
    if contents.updates is not None:
        yield "updates", f"{contents.updates:,}"
    if contents.optimizer_state is not None:
        yield "optimizer state", "yes" if contents.optimizer_state else "no"
    yield "vocabulary", f"{contents.vocabulary:,}"
    yield (
        "tensors",
        f"{contents.tensors} ({', '.join(f'{count} {name}' for name, count in contents.dtypes.items())} stored)",
    )
    yield "parameters", f"{contents.parameters:,}, of which prunable {contents.prunable:,}"
    for place, count in sorted(contents.components.items(), key=lambda item: -item[1]):
        yield f"  {place}", f"{count:,} ({100 * count / contents.parameters:.1f} %)"
    for group in contents.tied:
        yield "tied", " = ".join(group)
    if contents.ghosts:
        yield "unread", f"{contents.ghosts:,} values that translation never reads, left out"
    yield "to analyze", f"{size_text(contents.memory)} of memory beside what a batch takes"
    yield "on disk", f"{size_text(contents.disk_per_group)} for each group"
