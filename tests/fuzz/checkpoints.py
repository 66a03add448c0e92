"""Checkpoints that are damaged or put together wrongly: read as torch reads them, or refused."""

from __future__ import annotations

import argparse
import itertools
import pickletools
import random
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sensikit.backends.fairseq.checkpoint import read
from sensikit.backends.fairseq.settings import trained
from tests.conftest import REPLACED, train_checkpoint, write_corpus
from tests.fuzz import Outcome, Result
from tests.fuzz.judging import judged, tried
from tests.support.checkpoints import content_of
from tests.support.command import call


@lru_cache
def sound() -> tuple[Path, Path]:
    """Return a checkpoint of fairseq-train, without its optimizer's state, and its data."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    data = write_corpus(root / "data")
    trained_file = train_checkpoint(data / "bin", root / "trained", *REPLACED, updates=2)
    torch.save(content_of(trained_file), root / "sound.pt")
    return root / "sound.pt", data


Draw = random.Random
Mutation = Callable[[Path, Path, Draw], str]
"""(the sound file, where to write, the draws) → what was done."""


def bytes_of_the_file(source: Path, out: Path, draw: Draw) -> str:
    """Damage of a disk or a network: bits, cut off, a stretch of zeros, a stretch twice."""
    data = bytearray(source.read_bytes())
    kind = draw.choice(("bits", "cut", "zeros", "copied", "grown"))
    # half of it where the structure is: the weights are most of the file
    start = draw.choice((data.index(b"data.pkl"), data.index(b"PK\x01\x02"), 0))
    at, length = draw.randrange(start, len(data)), draw.randrange(1, 2000)
    if kind == "bits":
        for _ in range(draw.choice((1, 1, 8))):
            data[draw.randrange(start, len(data))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == "copied":
        other = draw.randrange(len(data))
        data[at : at + length] = data[other : other + length]
    else:
        data += draw.randbytes(length)
    out.write_bytes(data)
    return f"{kind} at {at}"


def _members(source: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(source) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def _packed(out: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def members(source: Path, out: Path, draw: Draw) -> str:
    """An archive put together wrongly, every checksum right."""
    found = _members(source)
    kind = draw.choice(("without", "renamed", "compressed", "shorter", "longer", "big-endian", "bomb", "second"))
    name = draw.choice(list(found))
    if kind == "without":
        del found[name]
    elif kind == "renamed":
        found[draw.choice((f"../{name}", name.upper(), f"/{name}", f"{name}\x1b[31m", name.replace("/", "\\")))] = (
            found.pop(name)
        )
    elif kind == "shorter":
        found[name] = found[name][: draw.randrange(len(found[name]) or 1)]
    elif kind == "longer":
        found[name] += draw.randbytes(draw.randrange(1, 100))
    elif kind == "big-endian":
        found[next(each for each in found if each.endswith("byteorder"))] = b"big"
    elif kind == "bomb":
        found[name] = bytes(50 << 20)
    elif kind == "second":
        found[f"other/{draw.choice(('data.pkl', 'data/0'))}"] = found[name]
    packed = kind in ("compressed", "bomb")
    _packed(out, found, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
    return f"{kind} {name}"


def opcodes(source: Path, out: Path, draw: Draw) -> str:
    """A pickle whose opcodes are taken out, put twice, swapped or overwritten."""
    found = _members(source)
    name = next(each for each in found if each.endswith("data.pkl"))
    places = [place or 0 for _, _, place in pickletools.genops(found[name])] + [len(found[name])]
    parts = [found[name][a:b] for a, b in itertools.pairwise(places)]
    kind = draw.choice(("without", "twice", "swapped", "byte", "random", "number"))
    at = draw.randrange(1, len(parts) - 1)
    if kind == "without":
        del parts[at]
    elif kind == "twice":
        parts[at] *= draw.choice((2, 100))
    elif kind == "swapped":
        other = draw.randrange(1, len(parts) - 1)
        parts[at], parts[other] = parts[other], parts[at]
    elif kind == "byte":
        part = bytearray(parts[at])
        part[draw.randrange(len(part))] = draw.randrange(256)
        parts[at] = bytes(part)
    elif kind == "random":
        parts[at] = draw.choice((b"0", b"1", b"R", b"b", b"}", b")", b"\x81", b"]", b"\x85", b"N", b"\x88", b"Q", b"t"))
    else:  # a size, a stride, an offset, a count
        numbers = [index for index, part in enumerate(parts) if part[:1] in b"KMJ"]
        parts[draw.choice(numbers)] = b"J" + draw.choice((0, 1, 7, 1 << 20, (1 << 31) - 1)).to_bytes(4, "little")
    _packed(out, {**found, name: b"".join(parts)})
    return f"{kind} at {at}"


TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "complex": lambda tensor: tensor.to(torch.complex64),
    "int": lambda tensor: tensor.to(torch.int64),
    "float8": lambda tensor: tensor.to(torch.float8_e5m2),
    "sparse": lambda tensor: tensor.to_sparse(),
    "quantised": lambda tensor: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.quint8),
    "meta": lambda tensor: tensor.to("meta"),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor]),
    "expanded": lambda tensor: tensor.flatten()[:1].expand(10**6),
    "empty": lambda tensor: tensor[:0],
    "shorter": lambda tensor: tensor[1:].clone(),
    "flat": lambda tensor: tensor.flatten()[None, None],
    "not finite": lambda tensor: tensor / 0,
    "scalar": lambda tensor: tensor.sum(),
    "text": lambda tensor: "a tensor",
    "nothing": lambda tensor: None,
    "float64": lambda tensor: tensor.double(),
    "a view": lambda tensor: torch.cat([tensor, tensor])[: len(tensor)],
    "a parameter": lambda tensor: torch.nn.Parameter(tensor),
}
KEPT = ("float64", "a view", "a parameter")
"""What leaves the numbers as they are."""


def tensors(source: Path, out: Path, draw: Draw) -> str:
    """One tensor of another kind, dtype or shape; or without its name, or with another's."""
    content = content_of(source)
    state = content["model"]
    names = [name for name in state if name.endswith(("weight", "bias")) and "embed" not in name and "proj" not in name]
    name, kind = draw.choice(names), draw.choice([*TENSORS, "without", "renamed", "twice"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind in TENSORS:
            state[name] = TENSORS[kind](state[name])
        elif kind == "twice":
            state[f"{name}.copy"] = state[name]
        else:
            tensor = state.pop(name)
            other = draw.choice(("w", f"{name}\n", f"x.{name}", "..", name.upper()))
            state |= {} if kind == "without" else {other: tensor}
        torch.save(content, out)
    return f"{kind} {name}"


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 0.5, float("nan"), float("inf"), "", "1", "True", "None", "\x1b[31m",
    "x" * 100_000, b"bytes", [], [1], ["cat-eng"], {}, {"main": None}, (), ("a", ("b",)), argparse.Namespace(a=1),
    torch.ones(3), "../../etc/passwd", "exec('1')", "2 * 2", "[0.9]", "cat-eng,cat-eng", "eng-eng", "a-b-c",
)  # fmt: skip


def settings(source: Path, out: Path, draw: Draw) -> str:
    """A setting of another value, or of another type."""
    content = content_of(source)
    part = draw.choice(("task", "model", "criterion", "optimizer_history", "cfg", "args", "extra_state"))
    value = draw.choice(VALUES)
    if part in ("task", "model"):
        name = draw.choice(list(vars(content["cfg"][part])))
        vars(content["cfg"][part])[name] = value
    elif part == "criterion":
        name = draw.choice(list(content["cfg"]["criterion"]))
        content["cfg"]["criterion"][name] = value
    else:
        name = "all of it"
        content[part] = value
    torch.save(content, out)
    return f"{part} {name} = {type(value).__name__} {str(value)[:20]!r}"


KINDS: tuple[Mutation, ...] = (bytes_of_the_file, members, opcodes, tensors, settings)


def mutations(count: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcomes of mutations of a checkpoint, of each kind in turn."""
    source, data = sound()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            draw, mutation = Draw(f"{seed} {number}"), KINDS[number % len(KINDS)]
            path = Path(folder) / f"{number}.pt"
            what = f"{mutation.__name__} {number}: {mutation(source, path, draw)}"
            kept = mutation is tensors and what.split(": ", 1)[1].startswith(KEPT)
            yield tried(what, ("inspect", path, "--json"), lambda _, p=path, w=what, k=kept: _read(p, data, w, k))
            path.unlink()


def _read(path: Path, data: Path, what: str, kept: bool) -> tuple[Result, str]:
    """Judge a checkpoint that is inspected: analyze takes or refuses it, and its tensors are those that torch reads."""
    refused = judged(call("analyze", path, "--data", data, "--out", "nowhere", "--batches", 4, "--dry-run"))
    if refused:
        return refused
    found, sound_file = read(path), read(sound()[0])
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.load(path, weights_only=True)["model"]
    if found.state.keys() != loaded.keys() or any(not torch.equal(found.state[n], loaded[n]) for n in loaded):
        return "wrong", "its tensors are not those that torch reads"
    # whatever is wrong with the bytes must be seen; of the others, what is told from the outside
    same = all(torch.equal(found.state[n].double(), each.double()) for n, each in sound_file.state.items())
    if not same and (what.startswith(("bytes", "members")) or kept):
        return "wrong", "other weights than those of the sound file"
    if what.startswith("tensors") and not kept:
        return "wrong", "a tensor of another kind was taken"
    if what.startswith(("bytes", "members", "tensors")) and trained(found) != trained(sound_file):
        return "wrong", "other settings than those of the sound file"
    return "same", ""
