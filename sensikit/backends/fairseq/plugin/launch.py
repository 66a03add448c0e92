"""One training run in one directory: started, or resumed from its last whole checkpoint."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sensikit.backends.fairseq import checkpoint, compat
from sensikit.backends.fairseq.data import DataBin
from sensikit.backends.fairseq.plugin import log
from sensikit.backends.fairseq.train import train
from sensikit.errors import CheckpointError, DataError, OptionError
from sensikit.files import sha256_of
from sensikit.folder import Folder
from sensikit.languages import ENGLISH, Pair, canonical, hub_of
from sensikit.progress import say
from sensikit.version import __version__

RECIPE, LOG = "recipe.json", "fairseq.log"
FREE = ("--max-update", "--patience", "--log-interval", "--validate-interval-updates", "--num-workers", "--user-dir")
"""Flags that a resumed run may have another value of."""


class Training(Folder):
    """The directory of a training run; its note is the recipe, with which a finished run can be made again."""

    KIND, VERB, FORMAT = "a training run", "train", 2
    FIELDS: ClassVar[Mapping[str, type]] = {"flags": list, "data_sha256": str}
    NOTE, BARE = RECIPE, (RECIPE, LOG)

    def compared(self, facts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Yield the flags that decide what is trained, and the data's hash."""
        old, new = _named(self.manifest["flags"]), _named(facts["flags"])
        yield from ((name, old.get(name), new.get(name)) for name in sorted({*old, *new} - {*FREE}))
        yield "SHA-256 of the data", self.manifest["data_sha256"], facts["data_sha256"]

    def take_up(self, facts: Mapping[str, Any]) -> None:
        """Go on with the same flags, but for those in `FREE`, and the same data."""
        super().take_up(facts)
        self.manifest |= facts


def directions(data: DataBin, direction: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the (source, target) pairs of a direction (xxx-eng, eng-xxx or both), and all languages, English last."""
    names = [path.name.split(".")[1] for path in sorted(data.bin.glob("train.*-*.*.idx"))]
    found = [(first, second) for first, _, second in (name.partition("-") for name in dict.fromkeys(names))]
    if not found:
        raise DataError(data.bin, "has no binarised training pairs", "make it with sensikit corpus")
    english = str(data.manifest.get("english") or _english(found))
    others = [first if second == english else second for first, second in found]
    into = [(other, english) for other in others]
    pairs = {"xxx-eng": into, "eng-xxx": [(b, a) for a, b in into], "both": [*into, *((b, a) for a, b in into)]}
    return pairs[direction], [*others, english]


def _english(pairs: Sequence[Pair]) -> str:
    """Return the language that all pairs have in common; of a single pair, English, or else the target."""
    named = {code for code in pairs[0] if canonical(code) == ENGLISH}
    english = named.pop() if len(pairs) == 1 and named else hub_of(pairs)
    if not english:
        shown = ", ".join("-".join(pair) for pair in pairs[:4])
        problem = f"the pairs of the data ({shown}) have no language in common"
        raise OptionError("--direction", problem, "give such data")
    return english


def start(data: DataBin, out: Path, flags: Sequence[str], command: str, resume: bool = False) -> Path:
    """Train in `out`, and return the checkpoint of the lowest validation loss, or the last where there is none.

    `out` gets checkpoint_best.pt and checkpoint_last.pt, log.jsonl, recipe.json, fairseq's own fairseq.log, and
    tensorboard/ where that is installed. With `resume` it goes on from the last whole checkpoint, if there is one; a
    run that is finished is left as it is.

    Raises:
        RunError: if `out` exists and is not to be resumed, or was started with other flags or other data.
        MissingDependencyError: if fairseq is not installed.
    """
    compat.load()
    recipe = {"version": __version__, "command": command, "flags": list(flags)}
    recipe |= {"data": str(data.root.resolve()), "data_sha256": _fingerprint(data)}
    if os.environ.get("RANK", "0") != "0":  # the folder is the first process's
        _train(data, out, flags, resume, None)
    else:
        with Training.begun(out, recipe, resume) as folder:
            _train(data, out, flags, resume, folder)
    return best(out)


def _train(data: DataBin, out: Path, flags: Sequence[str], resume: bool, folder: Training | None) -> None:
    given = [str(data.bin), "--user-dir", str(Path(__file__).parent), *_processes(flags), *flags]
    given += ["--save-dir", str(out)]
    if resume:
        last = _last(out)
        if last and _finished(last, _named(flags)):
            say(f"{out} is finished")
            return
        given += ["--restore-file", str(last.path if last else out / "none")]
        if folder:
            log.forget_after(out, _updates(last) if last else 0)
            if last:
                say(f"resuming {last.path} at update {_updates(last)}")
    if any(map(importlib.util.find_spec, ("tensorboard", "tensorboardX"))):
        given += ["--tensorboard-logdir", str(out / "tensorboard")]
    if folder:
        folder.save()
    try:
        with _logged(out / LOG if folder else Path(os.devnull)):
            train(given)
    except KeyboardInterrupt as stop:
        last = _last(out) if folder else None  # what is kept is for the command line to tell
        raise KeyboardInterrupt(f"update {_updates(last)} is saved in {last.path}" if last else "") from stop


def best(out: Path) -> Path:
    """Return the checkpoint of a run with the lowest validation loss, or the last where nothing was validated."""
    path = out / "checkpoint_best.pt"
    return path if path.is_file() else out / "checkpoint_last.pt"


def _processes(flags: Sequence[str]) -> list[str]:
    """Return the flags for a process of torchrun's.

    By itself fairseq takes no note of torchrun where a process sees one device or none, and one process would send the
    others a checkpoint that they may not unpickle.
    """
    given = os.environ
    if "TORCHELASTIC_RUN_ID" not in given:
        return []
    found = ["--distributed-world-size", given["WORLD_SIZE"], "--distributed-rank", given["RANK"]]
    found += ["--device-id", given["LOCAL_RANK"], "--distributed-init-method", "env://", "--distributed-no-spawn"]
    found += ["--load-checkpoint-on-all-dp-ranks"]
    return [*found, "--distributed-backend", "gloo"] if "--cpu" in flags else found


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Let what fairseq logs go to a file, and not to the terminal."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(name)s | %(message)s"))
    root, fairseq = logging.getLogger(), logging.getLogger("fairseq")
    before = root.handlers, root.level, fairseq.level
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # not before: fairseq-train lets all be shown, where nobody else takes the log
    from sensikit.backends.fairseq.plugin.watch import Watch

    try:
        yield
    finally:
        Watch.end()
        log.Log.detach()
        root.handlers = before[0]
        root.setLevel(before[1])
        fairseq.setLevel(before[2])
        handler.close()


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


def _fingerprint(data: DataBin) -> str:
    """Return the hash of the manifest, which has those of all files; of a bare data-bin, of its files' sizes."""
    files = [] if data.manifest else [path for path in sorted(data.bin.rglob("*")) if path.suffix in (".idx", ".bin")]
    return sha256_of(
        json.dumps(data.manifest, sort_keys=True), *(f"{path.name} {path.stat().st_size}" for path in files)
    )


def _last(out: Path) -> checkpoint.Checkpoint | None:
    """Return the newest checkpoint that is whole: a kill may leave half a checkpoint_last.pt."""
    for path in sorted(out.glob("checkpoint*.pt"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            return checkpoint.read(path)
        except CheckpointError as error:
            say(f"{error}: trying the one before")
    return None


def _updates(last: checkpoint.Checkpoint) -> int:
    return int(last.content["optimizer_history"][-1]["num_updates"])


def _finished(last: checkpoint.Checkpoint, flags: Mapping[str, str]) -> bool:
    """Return whether a run has ended: fairseq would add an update, and go on after early stopping."""
    stopping = last.content["extra_state"].get("LanguageAwareTask", {}).get("num_runs", 0)
    patience = int(flags.get("--patience", -1))
    return _updates(last) >= int(flags.get("--max-update", 0)) > 0 or 0 < patience <= stopping
