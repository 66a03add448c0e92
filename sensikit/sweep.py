"""A pruning sweep: cells of (order, seed, language, ratio), each decoded once, in a ledger that survives a kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sensikit.backends.base import Backend, Decoding
from sensikit.errors import OptionError, RunError
from sensikit.evaluation import BOOTSTRAP, bleu_metric, evaluate, length_ratio
from sensikit.files import read_json, sha256, unwritable, write_json, write_text
from sensikit.masks import ORDERS, PROTECT, Order, check_ratios, make_plan, pruned
from sensikit.progress import Bar, progress
from sensikit.signature import signature
from sensikit.store import Run

COLUMNS = (
    "order",
    "seed",
    "language",
    "ratio",
    "pruned",
    "prunable",
    "bleu",
    "bleu_low",
    "bleu_high",
    "chrf",
    "sentences",
    "truncated",
    "mean_length_ratio",
    "bleu_signature",
    "chrf_signature",
    "signature",
    "hypotheses",
    "sha256",
)


@dataclass(frozen=True)
class SweepSettings:
    """What decides the numbers of a sweep; a ledger holds cells of one of these alone.

    Attributes:
        protect: the share of the prunable parameters with the highest S(θ, B_l), never pruned.
        split: what is decoded.
        decoding: how.
        tokenizer: of BLEU.
        spm_model: a SentencePiece model for BLEU instead.
        bootstrap: resamples behind the interval of BLEU.
    """

    protect: float = PROTECT
    split: str = "test"
    decoding: Decoding = field(default_factory=Decoding)
    tokenizer: str = "spm"
    spm_model: str | None = None
    bootstrap: int = BOOTSTRAP

    def __post_init__(self) -> None:
        decoding = self.decoding
        if not 0 <= self.protect < 1:
            problem = f"{self.protect:g} is not in [0, 1)"
            raise OptionError("--protect", problem, "it is a share of the prunable parameters")
        least = {
            "--beam": decoding.beam,
            "--max-sentences": decoding.max_sentences,
            "--max-tokens": decoding.max_tokens,
        }
        for option, number in least.items():
            if number is not None and number < 1:
                raise OptionError(option, f"{number} is too few", "give 1 or more")
        if not math.isfinite(decoding.lenpen):
            raise OptionError("--lenpen", f"{decoding.lenpen:g} is not a finite number", "1 leaves scores per token")
        longest = (decoding.max_len_a, decoding.max_len_b)
        if not all(math.isfinite(part) and part >= 0 for part in longest) or longest == (0, 0):
            problem = "{:g},{:g} allows no output of finite length".format(*longest)
            raise OptionError("--max-len", problem, "write for example 1.2,10")


@dataclass(frozen=True)
class Cell:
    """One point of one curve. Ratio 0 is the same model in every order: it is decoded once, under the order "none"."""

    order: str
    seed: int | None
    language: str
    ratio: float

    @property
    def file(self) -> str:
        """Where its hypotheses are kept, below the run."""
        seed = "" if self.seed is None else f".{self.seed}"
        return f"hypotheses/{self.language}.{self.order}{seed}.{float(self.ratio)!r}.txt"


def cells(languages: Sequence[str], ratios: Sequence[float], orders: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Return the cells of a sweep in the order they are decoded, each once: by language, then order, then ratio."""
    found = []
    for language in languages:
        found.append(Cell("none", None, language, 0.0))
        for order in orders:
            for seed in seeds if order == "random" else (None,):
                found += [Cell(order, seed, language, ratio) for ratio in sorted(set(ratios)) if ratio > 0]
    return list(dict.fromkeys(found))


def prune(
    run: Run,
    backend: Backend,
    ratios: Sequence[float],
    orders: Sequence[str] = ("specificity",),
    *,
    seeds: Sequence[int] = (1,),
    languages: Sequence[str] | None = None,
    settings: SweepSettings | None = None,
    resume: bool = False,
) -> pd.DataFrame:
    """Prune, decode and score every cell; return (and write as pruning.csv) the tidy table.

    Each cell's hypotheses are stored, then its line is added to pruning/ledger.jsonl. A killed sweep goes on with
    `resume` and ends with the same bytes; a later sweep may add orders, seeds, ratios and languages to the ledger,
    but not change `settings`.

    Args:
        run: with the sensitivities of the languages.
        backend: the checkpoint and data that the run was measured on.
        ratios: pruned / prunable, each in [0, 1 - protect].
        orders: names of `masks.ORDERS`.
        seeds: of the random order, one curve each.
        languages: those of the run by default.
        settings: see `SweepSettings`.
        resume: go on with, or add to, what the ledger holds.

    Raises:
        OptionError: for a ratio, an order or a language that cannot be.
        RunError: if the run belongs to another checkpoint or other data, or its ledger stands already (without
            `resume`).
    """
    settings = settings or SweepSettings()
    chosen = _checked(run, backend, languages)
    _check_asked(ratios, orders, seeds, settings)
    noted = _noted(settings)  # a tokenizer that cannot be had is told of before anything is decoded
    wanted = cells(chosen, ratios, orders, seeds)
    with run.locked():
        ledger = Ledger.open(run.path / "pruning", noted, resume)
        todo = [cell for cell in wanted if cell not in ledger.lines]
        run.check("mt", [name for code in chosen for name in (code, f"rest-{code}")] if todo else [])
        with progress(len(todo), "pruning", "cells") as bar:
            for cell, line in _decoded(run, backend, todo, settings, bar):
                ledger.add(cell, line)
        table = ledger.table()
        run.write_table("pruning.csv", table)
    return table


def parse_ratios(text: str) -> list[float]:
    """Return the ratios of "0:0.9:0.1" (first:last:step, both ends included) or "0,0.3,0.6".

    Raises:
        OptionError: if it is neither.
    """
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if step <= 0 or not 0 <= last - first <= 1000 * step:
                raise ValueError
            return [round(first + i * step, 10) for i in range(int((last - first) / step + 1e-9) + 1)]
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"--ratios {text}", "is not a list of ratios", "write 0:0.9:0.1 or 0,0.3,0.6") from error


def _checked(run: Run, backend: Backend, languages: Sequence[str] | None) -> list[str]:
    measured = run.languages("mt")
    unknown = [code for code in languages or () if code not in measured]
    if unknown or (languages is not None and not languages):
        problem = f"{unknown[0]} was not measured" if unknown else "names no language"
        raise OptionError("--languages", problem, f"choose among {', '.join(measured)}")
    noted, found = run.manifest["provenance"], backend.provenance
    if found.checkpoint_sha256 != noted["checkpoint_sha256"]:
        problem = f"was measured on another checkpoint ({noted['checkpoint_sha256'][:8]}) than {found.checkpoint}"
        raise RunError(run.path, problem, "give that one with --checkpoint")
    if found.data_sha256 != noted["data_sha256"]:
        problem = f"was measured on other data ({noted['data_sha256'][:8]}) than {found.data}"
        raise RunError(run.path, problem, "give those with --data")
    return [code for code in measured if languages is None or code in languages]


def _check_asked(ratios: Sequence[float], orders: Sequence[str], seeds: Sequence[int], settings: SweepSettings) -> None:
    for option, given in (("--ratios", ratios), ("--order", orders), ("--seeds", seeds if "random" in orders else [1])):
        if not len(given):
            raise OptionError(option, "names nothing to do", "give at least one")
    check_ratios(ratios, settings.protect)
    for order in orders:
        if order not in ORDERS:
            raise OptionError("--order", f"{order} is not an order", f"choose among {', '.join(ORDERS)}")


def _noted(settings: SweepSettings) -> dict[str, Any]:
    """Return what a ledger's cells have in common; a SentencePiece model by what is in it, not by where it is."""
    choices: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    choices["tokenizer"] = bleu_metric(settings.tokenizer, settings.spm_model).tokenizer_signature
    del choices["spm_model"]
    return choices


def _decoded(
    run: Run, backend: Backend, todo: Sequence[Cell], settings: SweepSettings, bar: Bar
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Decode cells, making the plan of an order once for all its ratios."""
    plans: dict[tuple[str, int | None, str], Any] = {}
    for cell in todo:
        if cell.order == "none":
            yield cell, _line(run, backend, cell, 0, settings)
        else:
            key = (cell.order, cell.seed, cell.language)
            if key not in plans:
                ratios = [other.ratio for other in todo if (other.order, other.seed, other.language) == key]
                order = Order(cell.order, cell.language, cell.seed, settings.protect)
                plans = {key: make_plan(run, backend.module, order, ratios)}
            with pruned(run, backend.module, plans[key], cell.ratio) as count:
                yield cell, _line(run, backend, cell, count, settings)
        bar.advance()


def _line(run: Run, backend: Backend, cell: Cell, count: int, settings: SweepSettings) -> dict[str, Any]:
    backend.module.eval()
    found = backend.translate(cell.language, settings.split, settings.decoding)
    quality = evaluate(found.hypotheses, found.references, settings.tokenizer, settings.spm_model, settings.bootstrap)
    write_text(run.path / cell.file, "".join(f"{line}\n" for line in found.hypotheses))
    return {
        **asdict(cell),
        **asdict(quality),
        "pruned": count,
        "prunable": run.manifest["prunable_count"],
        "sentences": len(found.hypotheses),
        "truncated": found.truncated,
        "mean_length_ratio": length_ratio(found.hypotheses, found.references),
        "signature": cell_signature(run, settings, found.references_from),
        "hypotheses": cell.file,
        "sha256": sha256(run.path / cell.file),
    }


def cell_signature(run: Run, settings: SweepSettings, references: str) -> str:
    """Return the signature of a sweep's numbers beside sacreBLEU's: how was pruned and decoded."""
    decoding = settings.decoding
    return signature(
        "P",
        protect=settings.protect,
        scope="global",
        dir=run.manifest["direction"],
        split=settings.split,
        beam=decoding.beam,
        lenpen=decoding.lenpen,
        # the cap counts from the longest source decoded at a time, so how many are belongs to it
        maxlen=f"{decoding.max_len_a:g}x+{decoding.max_len_b}/{decoding.max_tokens}",
        sents=decoding.max_sentences or "all",
        refs=references,
        ckpt=run.manifest["provenance"]["checkpoint_sha256"][:8],
        data=run.manifest["provenance"]["data_sha256"][:8],
    )


class Ledger:
    """pruning/ledger.jsonl: one line per finished cell, added and flushed to disk before the next is begun."""

    def __init__(self, path: Path, lines: dict[Cell, dict[str, Any]]) -> None:
        self.path, self.lines = path, lines

    @classmethod
    def open(cls, directory: Path, wanted: dict[str, Any], resume: bool) -> Ledger:
        """Return the ledger in `directory`, empty if there is none; `wanted` are the settings of all its cells.

        A last line that a kill cut short is dropped: its cell is decoded again.

        Raises:
            RunError: if it stands already (without `resume`), was made with other settings, or is damaged.
        """
        path, noted = directory / "ledger.jsonl", directory / "settings.json"
        if noted.exists() or path.exists():
            if not resume:
                raise RunError(path, "already exists", "--resume goes on with it, or adds to it")
            was = read_json(noted, RunError)
            changed = sorted(key for key in {*was, *wanted} if was.get(key) != wanted.get(key))
            if changed:
                problem = "; ".join(f"{key} was {was.get(key)}, not {wanted.get(key)}" for key in changed)
                raise RunError(path, f"was made with other settings: {problem}", "keep them, or move the folder away")
        else:
            write_json(noted, wanted)
        return cls(path, _read_lines(path))

    def add(self, cell: Cell, line: dict[str, Any]) -> None:
        """Append a finished cell.

        Raises:
            SensikitError: if the disk is full; what was written of the line is dropped when the ledger is next opened.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.lines[cell] = line

    def table(self) -> pd.DataFrame:
        """Return the cells as a tidy table."""
        frame = pd.DataFrame(list(self.lines.values()), columns=list(COLUMNS))
        return frame.astype({"seed": "Int64"})


def _read_lines(path: Path) -> dict[Cell, dict[str, Any]]:
    if not path.exists():
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        with path.open("rb+") as file:
            file.truncate(len(whole))
    found = {}
    for number, line in enumerate(whole.decode(errors="replace").splitlines(), start=1):
        try:
            entry = json.loads(line)
            found[Cell(entry["order"], entry["seed"], entry["language"], entry["ratio"])] = entry
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise RunError(f"{path}:{number}", "is not a line of a ledger", "remove the line and --resume") from error
    return found
