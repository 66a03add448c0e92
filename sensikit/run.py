"""The run directory: one safetensors file per vector of sensitivities, small tables, and a manifest that hashes them.

Steps share nothing but this directory. A vector is one tensor per parameter, float32 or bfloat16, under its own name
and shape, and float32 to whoever reads it; its flat order is that of the registry in the manifest, which holds:

format, version, versions  of the run, of sensikit, and of Python, torch and numpy
direction                  what finds the groups again: "xxx-eng", "eng-xxx", or pairs joined by +
provenance                 framework, checkpoint and data, with their SHA-256, and how the checkpoint was loaded
groups                     those measured, by key, in order: source, target, name, family, tier, sizes by split, mono
parameters                 the registry, in flat order; parameter_count and prunable_count are scalars in it
analyses                   by task: signature, settings, tokens (T), notes, command
sets                       by task/name: counts, σ, the SHA-256 of each file
lengths                    of the sentences of tasks that must cut their text to know them: the SHA-256 of each file
tables                     by name: the SHA-256 of each; of two while one takes the place of the other
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sensikit.errors import DamagedError, RunError
from sensikit.files import safe_name
from sensikit.folder import Folder
from sensikit.parameters import Parameter, listed
from sensikit.settings import TASKS
from sensikit.tables import Schema
from sensikit.vectors import Vector

_FIELDS = {
    "version": str, "versions": dict, "direction": str, "provenance": dict, "groups": dict, "parameters": list,
    "parameter_count": int, "prunable_count": int, "analyses": dict, "sets": dict, "tables": dict,
}  # fmt: skip
_ANALYSIS = {"signature": str, "settings": dict, "tokens": int, "notes": list, "command": str}
_PROVENANCE = {
    **dict.fromkeys(("framework", "checkpoint", "checkpoint_sha256", "data", "data_sha256"), str), "loading": dict,
}  # fmt: skip


CHUNK = 1 << 16
"""Scalars of one vector that are read at a time: what is computed of them stays in a processor's cache."""

BLOCK_KEY = "blocks"

MIXED = "all.groups"
"""The set of mixed batches of all groups, B. No group has a dot in its key: no name of a set is that of a group."""

_REST = ".rest"


def rest_of(group: str) -> str:
    """Return the name of the set B_-l of a group l."""
    return f"{group}{_REST}"


def sets_of(groups: Iterable[str]) -> list[str]:
    """Return the names of both sets of each group l, B_l and B_-l."""
    return [name for group in groups for name in (group, rest_of(group))]


class Run(Folder):
    """A run directory: its path and its manifest.

    >>> run = Run.open(folder / "run")
    >>> run.tasks, run.groups(), run.manifest["parameter_count"]
    (['mt'], ['cat', 'fur', 'nob', 'nso'], 1720)
    >>> sum(block.size for block in run.stream([run.vector("mt", "cat")]))
    1720

    Attributes:
        path: the directory.
        manifest: what was measured, of what, how (see `sensikit.run`).
        parameters: of the model, in flat order.
    """

    KIND, VERB, FORMAT = "a run directory", "analyze", 4
    FIELDS = _FIELDS

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        super().__init__(path, manifest)
        self.manifest.setdefault("tables", {})
        self.parameters = listed(manifest["parameters"])
        self._verified: dict[str, tuple[int, int, int]] = {}

    @classmethod
    def validate(cls, manifest: Any, where: Path) -> None:
        """Refuse what is not a manifest of this format, or lacks a field.

        Raises:
            RunError: naming the first field that is missing or of another type.
        """
        super().validate(manifest, where)
        cls.hold(manifest["provenance"], _PROVENANCE, where, "the provenance's ")
        cls.hold_groups(manifest["groups"], where)
        for task, analysis in manifest["analyses"].items():
            cls.hold(analysis, _ANALYSIS, where, f"the {task} analysis's ")
        for field in ("groups", "analyses"):
            if not manifest[field]:
                raise cls.lacks(f"any {field}", where)
        for name, noted in manifest["sets"].items():
            cls.hold(noted, {"files": dict, **({"sigma": float} if name.endswith(_REST) else {})}, where, f"{name}'s ")
            task, _, of = name.partition("/")
            halves = manifest["analyses"].get(task, {}).get("settings", {}).get("halves", True)
            wanted = {file_of(task, of, kind) for kind in kinds_of(task, of, halves)}
            if set(noted["files"]) != wanted:
                raise cls.lacks(f"the hashes of {name}", where)
        problem = _counted(manifest)
        if problem:
            raise RunError(where, problem, f"it is damaged; {cls.VERB} again")

    def __repr__(self) -> str:
        return "".join([f"Run {self.path}", *(f"\n  {name}: {text}" for name, text in self._summary())])

    def _repr_html_(self) -> str:
        rows = ((escape(name), escape(text)) for name, text in self._summary())
        cells = "".join(f"<tr><th>{name}</th><td style='text-align: left'>{text}</td></tr>" for name, text in rows)
        return f"<table><caption>{escape(str(self.path))}</caption>{cells}</table>"

    def _summary(self) -> Iterator[tuple[str, str]]:
        """Yield what was measured, of what and how, as a notebook shows it."""
        manifest = self.manifest
        yield "model", f"{manifest['provenance']['framework']}, {manifest['parameter_count']:,} parameters"
        yield "groups", ", ".join(manifest["groups"])
        for task, analysis in manifest["analyses"].items():
            state = "" if self.complete(task) else ", not finished"
            yield task, f"T = {analysis['tokens']:,}{state}, {analysis['signature']}"

    def compared(self, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Yield what must be the same in a run that is resumed; what another task has decided is its own."""
        noted = self.manifest
        for task, analysis in facts["analyses"].items():
            before = noted["analyses"].get(task, analysis)
            yield from ((field, before[field], analysis[field]) for field in ("signature", "settings"))
        yield "direction", noted["direction"], facts["direction"]
        for name in ("checkpoint", "data"):
            field = f"{name}_sha256"
            yield f"SHA-256 of the {name}", noted["provenance"][field], facts["provenance"][field]
        yield "groups", noted["groups"], facts["groups"]

    # analyses

    @property
    def tasks(self) -> list[str]:
        """Return the tasks that were analysed, or whose analysis was begun: mt, denoise, lm."""
        return list(self.manifest["analyses"])

    def analysis(self, task: str = "") -> dict[str, Any]:
        """Return what decides the numbers of a task, by default the first: its signature, settings, T, notes, command.

        Raises:
            RunError: if the task was not analysed.
        """
        task = task or self.tasks[0]
        if task not in self.manifest["analyses"]:
            raise RunError(self.path, f"holds no analysis of {task}", f"add it: analyze --task {task} --resume")
        entry: dict[str, Any] = self.manifest["analyses"][task]
        return entry

    def halved(self, task: str) -> bool:
        """Return whether S of half the batches of a group is stored too."""
        return bool(self.analysis(task)["settings"].get("halves", True))

    def complete(self, task: str) -> bool:
        """Return whether every set of a task is measured."""
        names = (MIXED, *sets_of(self.manifest["groups"]))
        return all(f"{task}/{name}" in self.manifest["sets"] for name in names)

    # vectors

    def vector(self, task: str, name: str, kind: str = "") -> Path:
        """Return the path of a stored vector: sensitivity/mt/cat.half.safetensors, scores/fisher/cat.safetensors."""
        return self.path / file_of(task, name, kind)

    def write_set(
        self, task: str, name: str, tensors: Mapping[str, Mapping[str, torch.Tensor]], facts: dict[str, Any]
    ) -> None:
        """Store the vectors of one set (by kind: "", "half", "blocks") and note them in the manifest, last of all.

        A set is there when the manifest lists it: a kill before that leaves the run as it was.
        """
        files = {}
        for kind, vector in tensors.items():
            file = file_of(task, name, kind)
            files[file] = self.write(file, partial(save_vector, vector))
            self._verified[file] = _state(self.path / file)
        self.manifest["sets"][f"{task}/{name}"] = {**facts, "files": files}
        self.save()

    def has(self, task: str, name: str) -> bool:
        """Return whether a set is stored whole: listed in the manifest, its files there and of the noted hash."""
        entry = self.manifest["sets"].get(f"{task}/{name}")
        return entry is not None and all(self.whole(file, digest) for file, digest in entry["files"].items())

    def groups(self, task: str = "") -> list[str]:
        """Return the groups measured in a task, by default the first, in the order of the manifest."""
        task = task or self.tasks[0]
        return [key for key in self.manifest["groups"] if f"{task}/{key}" in self.manifest["sets"]]

    def check(self, task: str, names: Sequence[str]) -> None:
        """Verify the hashes of the stored sets `names`.

        Raises:
            RunError: naming the first set that is missing or not what was written.
        """
        for name in names:
            if f"{task}/{name}" not in self.manifest["sets"]:
                raise RunError(self.path, f"holds no sensitivities of {task}/{name}", "finish it: analyze --resume")
            if not self.has(task, name):
                raise _damaged(self.vector(task, name), task)

    def stream(self, vectors: Sequence[Path], parameters: Sequence[Parameter] | None = None) -> Iterator[np.ndarray]:
        """Yield the vectors side by side in flat order, (len(vectors), ≤ CHUNK) float32 at a time."""
        for _, block in self.chunks(vectors, parameters):
            yield block

    def chunks(
        self, vectors: Sequence[Path], parameters: Sequence[Parameter] | None = None
    ) -> Iterator[tuple[tuple[Parameter, int], np.ndarray]]:
        """Yield ((parameter, offset in it), (len(vectors), ≤ CHUNK) float32) in flat order.

        Raises:
            RunError: if a vector is missing, damaged, or of another model.
        """
        chosen = self.parameters if parameters is None else parameters
        with ExitStack() as stack:
            for path in vectors:
                self._open(path)  # whole, and of the hash that was noted
            files = [stack.enter_context(Vector(path)) for path in vectors]
            for parameter in chosen:
                readers = [file.reader(parameter) for file in files]
                for offset in range(0, parameter.numel, CHUNK):
                    block = np.empty((len(files), min(CHUNK, parameter.numel - offset)), dtype=np.float32)
                    for read, row in zip(readers, block, strict=True):
                        read(offset, row)
                    yield (parameter, offset), block

    def block_reader(self, task: str, name: str) -> Callable[[int, int], np.ndarray]:
        """Return a function (start, stop) → block means of those sampled parameters, (G, stop - start) float32.

        Raises:
            RunError: if they are missing, damaged, or not of the blocks of the run.
        """
        path = self.vector(task, name, "blocks")
        with self._open(path) as file:
            blocks = _tensor(file, path, BLOCK_KEY)
        if blocks.get_shape()[0] != len(self.manifest["sets"][f"{task}/{name}"]["block_batches"]):
            raise RunError(path, "holds other blocks than its manifest says", "analyze again")
        return lambda start, stop: np.asarray(blocks[:, start:stop])

    def _open(self, path: Path) -> Any:
        """Open a stored vector, whose hash is checked the first time, and again where the file has changed."""
        file = path.relative_to(self.path).as_posix()
        task = path.parent.name
        try:
            if self._verified.get(file) != _state(path):
                noted = next((of["files"][file] for of in self.manifest["sets"].values() if file in of["files"]), None)
                if not self.whole(file, noted):
                    raise _damaged(path, task)
                self._verified[file] = _state(path)
            return safe_open(path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise _damaged(path, task) from error

    # tables

    def read_table(self, table: Schema | str, groups: Collection[str] = ()) -> pd.DataFrame:
        """Return a tidy table of the run, which may name its groups, and the set of all.

        Raises:
            RunError: if it is not there, is not what its schema says, or not as it was written.
        """
        return super().read_table(table, groups or {*self.manifest["groups"], MIXED})


def kinds_of(task: str, name: str, halves: bool = True) -> tuple[str, ...]:
    """Return the kinds of vectors that a set has: of a group S, its first half and its blocks, of another one alone."""
    if task not in TASKS or name == MIXED or name.endswith(_REST):
        return ("",)
    return ("", "half", "blocks") if halves else ("", "blocks")


def file_of(task: str, name: str, kind: str = "") -> str:
    """Return the path of a stored vector below its run; no name leads out of it."""
    folder = "sensitivity" if task in TASKS else "scores"
    return f"{folder}/{safe_name(task)}/{safe_name(name)}{kind and '.'}{kind}.safetensors"


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _damaged(path: Path, task: str) -> DamagedError:
    verb = "analyze" if task in TASKS else "prune"
    return DamagedError(path, "is missing or damaged", f"measure it again: {verb} --resume")


def _counted(manifest: dict[str, Any]) -> str:
    """Return which part of a manifest contradicts another; nothing where all agree."""
    try:
        parameters = listed(manifest["parameters"])
    except (ValueError, OverflowError) as error:
        return f"has a damaged list of parameters ({error})"
    for field, those in (
        ("parameter_count", parameters),
        ("prunable_count", [each for each in parameters if each.prunable]),
    ):
        if manifest[field] != sum(each.numel for each in those):
            return f"has another {field} than its parameters"
    for name, of in manifest["sets"].items():
        task, _, group = name.partition("/")
        if task not in TASKS:
            continue
        if group not in (MIXED, *sets_of(manifest["groups"])):
            return f"has a set {name}, of no group"
        if task not in manifest["analyses"]:
            return f"has {name} of no analysis"
        if "block_batches" in of and sum(of["block_batches"]) != of.get("batches"):
            return f"has other batches of {name} in its blocks than in all"
    return ""


def save_vector(vector: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors by name as safetensors."""
    save_file(dict(vector), path, metadata)


def _tensor(file: Any, path: Path, name: str) -> Any:
    try:
        return file.get_slice(name)
    except SafetensorError as error:
        raise RunError(path, f"lacks {name}", "it belongs to another model; analyze again") from error
