"""One training run in one directory: started, or resumed from its last whole checkpoint."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sensikit import __version__
from sensikit.backends import checkpoint
from sensikit.backends.databin import DataBin
from sensikit.errors import CheckpointError, DataError, RunError
from sensikit.files import read_json, sha256_of, write_json
from sensikit.progress import say
from sensikit.training import journal

RECIPE, LOG = "recipe.json", "fairseq.log"
FREE = ("--max-update", "--patience", "--log-interval", "--num-workers", "--user-dir")
"""Flags that a resumed run may have another value of."""


def directions(data: DataBin, direction: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the (source, target) pairs of a direction, and all languages, English last.

    Args:
        data: what `sensikit corpus` wrote, or a bare fairseq directory.
        direction: "xxx-eng", "eng-xxx" or "both".

    Raises:
        DataError: if the data have no training pairs, or none in common with one language.
    """
    from sensikit.backends.fairseq_model import english_of

    names = [path.name.split(".")[1] for path in sorted(data.bin.glob("train.*-*.*.idx"))]
    found = [(first, second) for first, _, second in (name.partition("-") for name in dict.fromkeys(names))]
    if not found:
        raise DataError(data.bin, "has no binarised training pairs", "make it with sensikit corpus")
    english = str(data.manifest.get("english") or english_of(found))
    others = [first if second == english else second for first, second in found]
    into = [(other, english) for other in others]
    pairs = {"xxx-eng": into, "eng-xxx": [(b, a) for a, b in into], "both": [*into, *((b, a) for a, b in into)]}
    return pairs[direction], [*others, english]


def start(data: DataBin, out: Path, flags: Sequence[str], command: str, resume: bool = False) -> None:
    """Train in `out`: checkpoint_best.pt and checkpoint_last.pt, log.jsonl, recipe.json, and fairseq's own fairseq.log.

    Args:
        data: with the binarised text.
        out: the directory of the run.
        flags: of fairseq-train.
        command: as it was typed, for the record.
        resume: go on from the last whole checkpoint, if there is one.

    Raises:
        RunError: if `out` exists and is not to be resumed, or was started with other flags or other data.
    """
    from sensikit.backends.fairseq_train import train

    recipe = {"format": 1, "version": __version__, "command": command, "flags": list(flags)}
    recipe |= {"data": str(data.root.resolve()), "data_sha256": sha256_of(json.dumps(data.manifest, sort_keys=True))}
    first = os.environ.get("RANK", "0") == "0"
    if first and out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {RECIPE, LOG}):
        if not resume:
            raise RunError(out, "already exists", "choose another --out, or --resume what is there")
        _check_same(out, recipe)
    restored = _restored(out) if resume else []
    given = [str(data.bin), "--user-dir", str(Path(__file__).parent), *flags, "--save-dir", str(out), *restored]
    if importlib.util.find_spec("tensorboard"):
        given += ["--tensorboard-logdir", str(out / "tensorboard")]
    if first:
        write_json(out / RECIPE, recipe)
    with _logged(out / LOG) if first else contextlib.nullcontext():
        train(given)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Let what fairseq logs go to a file, and not to the terminal."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(name)s | %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        journal.Journal.detach()
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


def _check_same(out: Path, recipe: dict[str, object]) -> None:
    before = read_json(out / RECIPE, RunError)
    old, new = _named(before["flags"]), _named(recipe["flags"])  # type: ignore[arg-type]
    for name in sorted(set(old) | set(new)):
        if name not in FREE and old.get(name) != new.get(name):
            problem = f"was started with {name} {old.get(name, '(none)')}, not {new.get(name, '(none)')}"
            raise RunError(out, problem, "repeat its settings or choose another --out")
    if before["data_sha256"] != recipe["data_sha256"]:
        raise RunError(out, f"was started on other data ({before['data']})", "give the same data")


def _named(flags: Sequence[str]) -> dict[str, str]:
    """Return the values of flags, the last of each."""
    found, name = {}, ""
    for text in flags:
        if text.startswith("--"):
            name = text
            found[name] = ""
        else:
            found[name] = f"{found.get(name, '')} {text}".strip()
    return found


def _restored(out: Path) -> list[str]:
    """Return the flags that restore the newest checkpoint that is whole: a kill may leave half a checkpoint_last.pt."""
    files = sorted(out.glob("checkpoint*.pt"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in [each for each in files if "best" not in each.name]:
        try:
            history = checkpoint.read(path).content["optimizer_history"]
        except CheckpointError as error:
            say(f"{error}: trying the one before")
            continue
        journal.forget_after(out, history[-1]["num_updates"])
        say(f"resuming {path} at update {history[-1]['num_updates']}")
        return ["--restore-file", str(path)]
    journal.forget_after(out, 0)
    return []
