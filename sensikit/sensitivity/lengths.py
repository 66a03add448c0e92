"""How long the sentences of a task are, kept with a run: whoever opens it again need not cut all text to count it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sensikit.backends.base import Counted, Model, Task
from sensikit.files import safe_name
from sensikit.run import Run


def keep(run: Run, task: Task) -> None:
    """Store what a task has counted, and note the hash of each file; tasks that count nothing keep nothing.

    lengths/TASK.GROUP.SPLIT.npy is (lines, 2) int32: the tokens of the input and of the target of every line.
    """
    if not isinstance(task, Counted):
        return
    noted = run.manifest.setdefault("lengths", {})
    for (group, split), found in task.lengths.items():
        name = _file(task, group, split)
        if not run.whole(name, noted.get(name)):
            noted[name] = run.write(name, lambda path, found=found: _save(path, found))  # type: ignore[misc]
    run.save()


def recall(run: Run, model: Model, task: Task, split: str) -> None:
    """Give a task what was counted of it, where the model and the data are those of the run.

    What is missing or not as it was written is counted again: it is no result.
    """
    origin = run.manifest["provenance"]
    now = model.provenance
    same = (origin["checkpoint_sha256"], origin["data_sha256"], origin["loading"]) == (
        now.checkpoint_sha256, now.data_sha256, dict(now.loading),
    )  # fmt: skip
    if not same or not isinstance(task, Counted):
        return
    for group in task.groups:
        name = _file(task, group, split)
        if run.whole(name, run.manifest.get("lengths", {}).get(name)):
            task.lengths.setdefault((group, split), np.load(run.path / name).astype(np.int64))


def _file(task: Task, group: str, split: str) -> str:
    return f"lengths/{safe_name(f'{task.name}.{group}.{split}')}.npy"


def _save(path: Path, found: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, found.astype(np.int32))
