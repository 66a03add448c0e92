"""Values of every option of every verb, from the command line's own declarations: a new option is tried unasked."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import types
from collections.abc import Iterator
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, Union, get_args, get_origin
from unittest import mock

import pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from sensikit.sensitivity.analysis import analyze
from sensikit.settings import AnalysisSettings
from sensikit_cli.main import app
from tests.conftest import sentences
from tests.fuzz import Outcome, Result
from tests.fuzz.checkpoints import sound
from tests.fuzz.judging import tried
from tests.support import synthetic_tables, toy
from tests.support.watched import snapshot

SMALL = ("--batches=4", "--tokens=64")
SCORED = ("--tokenizer=none", "--bootstrap=10")
BASES: dict[str, tuple[str, ...]] = {
    "demo": (),
    "corpus": ("cat.tsv", "fao.tsv", "--out=out", "--vocab=70"),
    "train": ("data", "--out=out"),
    "evaluate": ("a.pt", "b.pt", "--data=data", "--out=out", "--groups=cat,nso", *SCORED),
    "inspect": ("sound.pt",),
    "analyze": ("a.pt", "--data=data", "--out=out", "--groups=cat,nob", *SMALL),
    "audit": ("run", "--parameters=60", "--groups=cat"),
    "prune": ("run", "--ratios=0,0.5", "--groups=cat", *SCORED),
    "sweep": ("a.pt", "--data=data", "--out=out", "--groups=cat,nob", "--ratios=0.5", "--order=specificity", *SMALL,
              *SCORED),
    "export": ("run", "--group=cat", "--ratio=0.3", "--out=out.safetensors"),
    "report": ("evaluation", "--out=out"),
}  # fmt: skip
"""What each verb is called with, before the option that is tried."""

INTEGERS = ("-1", "0", "1", "2", "7", "1000", "1000000", "1000000000", "1000000000000", f"{2**63}", f"{10**30}",
            "9" * 5000, "1e9", "nan", "", "１２", "0x10", "1_000", "1.5")  # fmt: skip
FLOATS = ("nan", "inf", "-inf", "1e-300", "1e300", "-1", "0", "-0.0", "0.5", "1", "1e9", "1e400", "0,5", "", "1_0", "٣")
TEXTS = ("", ",", "cat", "cat,cat", "nso,cat", "all", "eng-xxx", "xxx-eng", "xxx-xxx", "a-b-c", "../../victim/x",
         "/etc/passwd", "x" * 300, "x" * 70_000, "a\nb", "\x1b[31mred", "\u202e", "\udcff", "{0.__class__}", "{source}",
         "{", "%s%n", "cuda:999999999999", "cuda:-1", "mps", "meta", "cpu", "0:0.9:0.1", "0:1:1e-9", "1e-320,0.5",
         "0:inf:inf",
         "random,random", "lm", "denoise", "bleu,bleu", "loss", "__proto__", "=1+1", "cat=:", "cat=A:B:High", "1,1",
         "huggingface", "released", "train", "valid", "none", "main", "-", "--", "$(id)")  # fmt: skip
PATHS = ("", ".", "new", "run", "run/manifest.json", "cat.tsv", "cat.tsv/below", "pipe", "loop", "x" * 300, "y/" * 3000,
         "a\nb", "\x1b[31m", "\udcff", "no/such/place", "sound.pt", "out", "evaluation", "a/" * 20 + "b", "~",
         "con")  # fmt: skip

Asked = tuple[str, tuple[str, ...]]
"""A verb, and options as they are typed."""


def declared() -> dict[str, list[tuple[str, Any]]]:
    """Return the options of every verb, each with its type."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in signature(command.callback).parameters.items():
            kind, info = get_args(parameter.annotation)
            if type(info).__name__ == "OptionInfo":
                names = [each for each in info.param_decls or () if each.startswith("--")] or [f"--{name}"]
                spelled = names[0].split("/")[0].replace("_", "-")
                found.setdefault(str(command.name), []).append((spelled, _bare(kind)))
    return found


def _bare(kind: Any) -> Any:
    """Return int of int | None and of list[int]."""
    if get_origin(kind) in (types.UnionType, Union, list):
        return _bare(next(each for each in get_args(kind) if each is not type(None)))
    return kind


def _values(kind: Any) -> st.SearchStrategy[str | None]:
    if kind is bool:
        return st.none()
    known = {int: INTEGERS, float: FLOATS, Path: PATHS}.get(kind, TEXTS)
    free = {int: st.integers().map(str), float: st.floats().map(str), str: st.text(max_size=20)}.get(kind)
    usual = st.sampled_from(known)
    return st.one_of(usual, usual, free.filter(lambda text: "\0" not in text)) if free is not None else usual


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """Draw a verb and one or two of its options."""
    options = declared()
    verb = draw(st.sampled_from(sorted(options)))
    chosen = draw(st.lists(st.sampled_from(options[verb]), min_size=1, max_size=2, unique=True))
    values = [(name, draw(_values(kind))) for name, kind in chosen]
    return verb, tuple(name if value is None else f"{name}={value}" for name, value in values)


@lru_cache
def _stocked() -> Path:
    """Return a folder with an input of every kind; it is copied for each call."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    work = root / "work"
    work.mkdir()
    (root / "victim").mkdir()
    (root / "victim" / "notes").write_text("mine")
    analyze(toy.backend(), work / "run", AnalysisSettings(batches=4, tokens=64))
    for number, code in enumerate(("cat", "fao")):
        rows = [f"{english}\t{other}\n" for other, english in sentences(code, 90, number)]
        (work / f"{code}.tsv").write_text("".join(rows))
    checkpoint, data = sound()
    shutil.copy(checkpoint, work / "sound.pt")
    shutil.copytree(data, work / "data")
    languages = {
        code: {"name": code, "family": "x", "tier": tier, "sizes": {"train": 100}}
        for code, tier in (("cat", "High"), ("nso", "Low"))
    }
    synthetic_tables.write_evaluation(work / "evaluation", languages)
    os.mkfifo(work / "pipe")
    (work / "loop").symlink_to("loop")
    return root


@contextlib.contextmanager
def _in_place(root: Path) -> Iterator[None]:
    """Work in `root`/work; models are toys, figures are drawn once, nothing is trained."""
    started = "sensikit.backends.fairseq.plugin.launch.start"
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(root / "work"))
        stack.enter_context(mock.patch("sensikit.backends.open_model", return_value=toy.backend()))
        stack.enter_context(mock.patch("sensikit_cli.options.check_there"))
        stack.enter_context(mock.patch("sensikit.figures.style.KINDS", ("svg",)))
        stack.enter_context(mock.patch(started, lambda _, out, *__: out))
        stack.enter_context(mock.patch("sensikit.demo.demo", lambda out, **_: out))
        stack.enter_context(mock.patch("sensikit.demo.full.demo_full", lambda out, **_: out))
        yield


def values(count: int, seed_: int) -> Iterator[Outcome]:
    """Yield the outcomes of calls with drawn options."""
    found: list[Outcome] = []

    @seed(seed_)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(asked())
    def call_with(drawn: Asked) -> None:
        if len(found) < count:
            found.append(_called(*drawn))

    call_with()
    yield from found


def _called(verb: str, options: tuple[str, ...]) -> Outcome:
    what = f"{verb} {' '.join(options)[:120]!r}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        shutil.copytree(_stocked(), root, symlinks=True, copy_function=_copied)
        before = snapshot(root)
        with _in_place(root):
            outcome = tried(what, (verb, *BASES[verb], *options), lambda _: _finite(root / "work"))
        after = snapshot(root)
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        strange = {name for name in changed if outcome.result == "refused" or not name.startswith("work/")}
        if strange and outcome.result in ("refused", "same"):
            return Outcome(what, "outside", f"changed {sorted(strange)[:3]}; {outcome.detail}", outcome.seconds)
        return outcome


def _copied(source: str, target: str) -> str:
    if Path(source).is_fifo():
        os.mkfifo(target)
        return target
    return shutil.copy2(source, target)


def _finite(work: Path) -> tuple[Result, str]:
    """Judge a call that was carried out: no table that it wrote holds a number that is none."""
    for name, column in (("correlation.csv", "pcc"), ("pruning.csv", "value"), ("evaluation.csv", "value")):
        for path in work.rglob(name):
            if not all(map(math.isfinite, pd.read_csv(path)[column])):
                return "wrong", f"{path.relative_to(work)} has a number that is none"
    return "same", ""
