"""What sensikit itself wrote, damaged or edited: each file of two runs and an evaluation, read as its readers do.

After a mutation of one file, everything that reads it is asked: the report's numbers of both runs and of the
evaluation, the comparison of the runs, and the mask that pruning would take. Either the mutation is refused in one
line, or every number is what it was.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file

from sensikit.errors import SensikitError
from sensikit.evaluation.systems import evaluate_systems
from sensikit.pruning.export import export
from sensikit.pruning.masks import Order
from sensikit.pruning.sweep import prune
from sensikit.report import text
from sensikit.report.inputs import Inputs, gather
from sensikit.run import Run
from sensikit.sensitivity.ablation import audit
from sensikit.sensitivity.analysis import analyze
from sensikit.settings import AnalysisSettings, EvaluationSettings
from tests.fuzz import Outcome, Result, timed
from tests.support import toy
from tests.support.watched import SCORING

MEASURED = AnalysisSettings(batches=8, tokens=64)
SWEPT = replace(SCORING, metrics=("bleu", "loss"))
SCORED = EvaluationSettings(metrics=("bleu", "loss"), tokenizer="none", bootstrap=10)
GROUPS = ["cat", "fur", "nso"]


@functools.cache
def sound() -> Path:
    """Return a folder with the runs a/ and b/ and the evaluation c/, which nobody touched."""
    place = Path(tempfile.mkdtemp(prefix="sensikit-fuzz-"))
    models = {name: toy.backend(seed) for seed, name in enumerate("ab")}
    for name, model in models.items():
        run = analyze(model, place / name, MEASURED, groups=GROUPS, command="sensikit analyze")
        prune(run, model, [0, 0.5], ["specificity", "random", "fisher"], groups=GROUPS[:2], settings=SWEPT, cross=True,
              command="sensikit prune")  # fmt: skip
    audit(run, model, groups=["cat"], parameters=31, command="sensikit audit")
    systems: dict[str, Callable[[], Any]] = {name: (lambda model=model: model) for name, model in models.items()}
    evaluate_systems(systems, place / "c", SCORED, groups=GROUPS, command="sensikit evaluate")
    return place


_model = functools.cache(functools.partial(toy.backend, 1))


def numbers(place: Path, names: str) -> str:
    """Return a hash of every number and text that readers take from some of the folders at `place`."""
    inputs = gather([place / name for name in names], compare=True)
    found: list[Any] = [list(inputs.groups.items()), *_frames(inputs), text.differences(inputs), text.changes(inputs)]
    found += [text.sentences(subject) for subject in inputs.subjects]
    found += [(each.manifest["signature"], each.manifest["notes"]) for each in inputs.evaluations]
    if names == "ab":
        (place / "out").mkdir()
        for name in ("specificity", "fisher"):
            out, mask = (place / "out" / f"{kind}-{name}" for kind in ("model", "mask"))
            export(Run.open(place / "b"), _model(), Order(name, "cat"), 0.5, out, mask)
            found += [hashlib.sha256(each.numpy().tobytes()).hexdigest() for each in load_file(mask).values()]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _frames(inputs: Inputs) -> Iterator[tuple[str, str]]:
    named = {**inputs.tables, "bands": inputs.curves.bands, "tests": inputs.curves.tests}
    named |= {f"{each.task} compared": each.table for each in inputs.comparisons}
    named |= {f"{each.label} {name}": frame for each in inputs.evaluations for name, frame in each.tables.items()}
    for name, frame in named.items():
        yield name, "" if not isinstance(frame, pd.DataFrame) else frame.to_csv()


# mutations: each changes a file, and says how


Mutation = Callable[[Path, random.Random], str]


def _bytes(path: Path, rng: random.Random) -> str:
    content, size = bytearray(path.read_bytes()), path.stat().st_size
    at, what = rng.randrange(size), rng.choice(["a bit", "a byte less", "cut", "more", "empty", "noise"])
    if what == "a bit":
        content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(
        {
            "a bit": content, "a byte less": content[:at] + content[at + 1 :], "cut": content[:at], "empty": b"",
            "more": content + bytes(rng.randrange(256) for _ in range(9)), "noise": rng.randbytes(200),
        }[what]
    )  # fmt: skip
    return f"{what} at {at}"


def _place(path: Path, rng: random.Random) -> str:
    what = rng.choice(["gone", "a pipe", "a directory", "a link to /dev/zero", "a link into nowhere", "a socket"])
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a directory":
        path.mkdir()
    elif what == "a socket":
        os.mknod(path, 0o600 | 0o140000)
    elif what != "gone":
        path.symlink_to("/dev/zero" if "zero" in what else "nowhere")
    return what


def _swap(path: Path, rng: random.Random) -> str:
    others = [each for each in sorted(path.parents[1].rglob(f"*{path.suffix}")) if each.is_file() and each != path]
    if not others:
        return _bytes(path, rng)
    other = rng.choice(others)
    shutil.copyfile(other, path)
    return f"{other.name} in its place"


def _lines(path: Path, rng: random.Random) -> str:
    lines = path.read_text("utf-8").splitlines(keepends=True)
    at, what = rng.randrange(len(lines)), rng.choice(["a line less", "a line twice", "lines in another order", "CRLF"])
    if what == "a line less":
        del lines[at]
    elif what == "a line twice":
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif what == "CRLF":
        lines[at] = lines[at].replace("\n", "\r\n")
    else:
        rng.shuffle(lines)
    path.write_text("".join(lines), "utf-8", newline="")
    return f"{what} at {at + 1}"


HOSTILE: list[Any] = [
    None, True, [], {}, -1, 0, 1e-300, 1e308, 10**400, float("nan"), float("inf"), "", "../../../victim/notes",
    "\x1b[31m\u202e\x85", "=1+1", "x" * 300, "cat", [[[[[]]]]],
]  # fmt: skip


def _value(value: Any, rng: random.Random) -> Any:
    """Return something else than a value: a little off, or hostile."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float) and rng.random() < 0.6:
        return rng.choice([value * 10**6, value + 1, value * 1.0001, -value or 7, str(value)])
    other = rng.choice(HOSTILE)
    return 8 if other == value else other


def _json(path: Path, rng: random.Random) -> str:
    """Change one value of a JSON file, or of one line of JSON lines, deep within."""
    lines = path.read_text("utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text("utf-8")]
    at = rng.randrange(len(lines))
    whole = part = json.loads(lines[at])
    where: list[Any] = []
    while True:
        names = list(part) if isinstance(part, dict) else list(range(len(part)))
        name = rng.choice(names)
        where.append(name)
        inner = part[name]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.15:
            break
        part = inner
    what = rng.choice(["changed", "changed", "changed", "removed", "nested", "moved"])
    if what == "removed":
        del part[name]
    elif what == "moved" and isinstance(part, dict) and len(part) > 1:
        part[name] = part.pop(name) if name != names[-1] else None
    else:
        part[name] = _value(part[name], rng)
    lines[at] = json.dumps(whole)
    if what == "nested":
        lines[at] = "[" * 10**5 + "]" * 10**5
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return f"{what} {'/'.join(map(str, where))}"


def _cell(path: Path, rng: random.Random) -> str:
    frame = pd.read_csv(path, dtype=object, keep_default_na=False)
    row, column = rng.randrange(len(frame)), rng.choice(list(frame))
    old, what = frame.loc[row, column], rng.choice(["cell", "cell", "cell", "no column", "a column more"])
    if what == "cell":
        try:
            new = _value(float(old), rng)
        except ValueError:
            new = _value(old, rng)
        frame.loc[row, column] = str(new)
        what = f"{column}: {new!r:.40} for {old!r}"
    elif what == "no column":
        frame = frame.drop(columns=column)
    else:
        frame = frame.assign(more=1)
    path.write_text(frame.to_csv(index=False), "utf-8")
    return f"line {row + 2}, {what}"


OF_TYPE: dict[str, list[Mutation]] = {
    ".json": [_json] * 8 + [_bytes, _place, _swap, _lines],
    ".jsonl": [_json] * 6 + [_lines] * 3 + [_bytes, _place],
    ".csv": [_cell] * 6 + [_lines] * 2 + [_bytes, _place, _swap],
    ".txt": [_lines] * 3 + [_bytes] * 3 + [_place, _swap],
    ".npy": [_bytes] * 4 + [_place, _swap] * 2,
    ".safetensors": [_bytes] * 4 + [_place, _swap] * 2,
}


def tried(names: str, patterns: str, count: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcome of `count` mutations, each of a file that matches the patterns, for readers of `names`."""
    rng, root = random.Random(f"{patterns} {seed}"), sound()
    files = sorted(path.relative_to(root) for pattern in patterns.split() for path in root.glob(pattern))
    with tempfile.TemporaryDirectory(prefix="sensikit-fuzz-") as scratch:
        expected = numbers(_copied(root, Path(scratch) / "sound"), names)
        for number in range(count):
            place = _copied(root, Path(scratch) / f"{number}")
            file = rng.choice(files)
            what = rng.choice(OF_TYPE[file.suffix])(place / file, rng)
            before = _listed(place.parent)
            yield timed(f"{file}: {what}", functools.partial(_outcome, place, names, expected, before))
            shutil.rmtree(place)


def _copied(root: Path, place: Path) -> Path:
    shutil.copytree(root, place)
    return place


def _listed(place: Path) -> dict[str, bytes]:
    """Return the files, and what is in them, but for the mask that is written and scores that are measured again."""
    paths = (path for path in place.rglob("*") if path.is_file() and not {"out", "scores"} & {*path.parts})
    return {str(path): path.read_bytes() for path in paths if path.resolve().is_relative_to(place.resolve())}


def _outcome(place: Path, names: str, expected: str, before: dict[str, bytes]) -> tuple[Result, str]:
    """Return whether a mutated folder is refused in one line, gives the same numbers, or neither."""
    result: tuple[Result, str]
    try:
        same = numbers(place, names) == expected
        result = ("same", "") if same else ("wrong", "other numbers, without a word")
    except SensikitError as error:
        line = str(error)
        result = ("refused", line) if line.isprintable() and error.exit_code == 2 else ("crash", repr(line))
    return ("outside", result[1]) if _listed(place.parent) != before else result


_VECTORS = "[ab]/sensitivity/mt/???.safetensors [ab]/sensitivity/mt/???.half.safetensors "
_VECTORS += "b/sensitivity/mt/cat.rest.safetensors b/scores/fisher-mt/cat.safetensors"
manifest = functools.partial(tried, "ab", "[ab]/manifest.json")
vectors = functools.partial(tried, "ab", _VECTORS)
blocks = functools.partial(tried, "ab", "[ab]/sensitivity/mt/*.blocks.safetensors")
ledger = functools.partial(tried, "b", "b/pruning/*.json b/pruning/ledger.jsonl")
tables = functools.partial(tried, "b", "b/*.csv")
hypotheses = functools.partial(tried, "b", "b/hypotheses/*.txt b/pruning/s*/*.npy")
evaluation = functools.partial(
    tried, "c", "c/manifest.json c/*.csv c/hypotheses/*.txt c/references/*.txt c/losses/*.npy c/segments/*.npy"
)
