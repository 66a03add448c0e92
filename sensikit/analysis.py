"""One checkpoint, one direction → a run directory: S of each language and of the others, and the tables made of it."""

from __future__ import annotations

import math
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensikit import __version__
from sensikit.backends.base import Backend, Language
from sensikit.balance import balance_table
from sensikit.batches import MINIMUM_BATCHES, Batch, common_tokens, draw, pack
from sensikit.correlation import correlation_table
from sensikit.errors import DataError, NonFiniteError, OptionError, RunError, SensikitError
from sensikit.files import sha256_of
from sensikit.parameters import registry
from sensikit.progress import progress, say
from sensikit.sensitivity import SAMPLED, Sensitivity, Tensors, blocks_of, measure, sample_of
from sensikit.signature import signature
from sensikit.specificity import SIGMA, sigma_for, specificity_table
from sensikit.store import BLOCK_KEY, Run

TOKENS = 4096
"""T, the target tokens of a batch, where nothing else is asked for and the data suffice."""


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a run.

    Attributes:
        loss: "nll" (cross-entropy) or "train" (the criterion of the training run, label smoothing included).
        reduction: "token" (mean over the target tokens of a batch) or "sum".
        mode: "eval", or "train" for dropout as in training.
        batches: how many at most, per set.
        tokens: T; None means 4096, lowered until the smallest language fills 40 batches.
        rest: B_-l "mixed" (batches of the other languages) or "pooled" (the mean of their S: larger, never compare
        the two).
        rest_temperature: of the mix; 1 = in proportion to the data.
        sigma: σ on the scale of a summed loss; see `specificity.sigma_for`.
        seed: of every draw.
        pieces: parts of like length that a batch is computed in; the same S, less padding, one gradient more in memory.
        skip_nonfinite: leave out and count batches whose gradient is not finite.
    """

    task: str = "mt"
    split: str = "train"
    loss: str = "nll"
    reduction: str = "token"
    mode: str = "eval"
    batches: int = 500
    tokens: int | None = None
    rest: str = "mixed"
    rest_temperature: float = 1.0
    sigma: float = SIGMA
    seed: int = 1
    pieces: int = 4
    skip_nonfinite: bool = False

    def __post_init__(self) -> None:
        choices = {"--task": ("mt",), "--loss": ("nll", "train"), "--rest": ("mixed", "pooled")}
        for option, allowed in choices.items():
            value = getattr(self, option[2:])
            if value not in allowed:
                raise OptionError(option, f"{value} is not one of them", f"choose {' or '.join(allowed)}")
        least = {"--batches": (self.batches, 2), "--tokens": (self.tokens, 1), "--pieces": (self.pieces, 1)}
        least |= {"--seed": (self.seed, 0)}
        for option, (number, minimum) in least.items():
            if number is not None and number < minimum:
                raise OptionError(option, f"{number} is too small", f"give {minimum} or more")
        for option, size in (("--rest-temperature", self.rest_temperature), ("--sigma", self.sigma)):
            if not (size > 0 and np.isfinite(size)):
                raise OptionError(option, f"{size:g} is not a positive number", "see the definition of D")


RELEASED = {"loss": "train", "reduction": "sum", "mode": "train"}
"""`--preset released`: the loss and the mode of the authors' code (dropout on, label smoothing, summed over tokens)."""


@dataclass(frozen=True)
class Cost:
    """What an analysis takes: bytes of memory and disk, seconds, and batches in all."""

    memory: int
    disk: int
    seconds: float
    batches: int


@dataclass(frozen=True)
class Plan:
    """The sets of an analysis, by name, with their batches; made before anything is measured."""

    measured: list[str]
    tokens: int
    sets: dict[str, list[Batch]]
    notes: list[str]


def analyze(
    backend: Backend,
    out: Path,
    settings: Settings | None = None,
    *,
    languages: Sequence[str] | None = None,
    resume: bool = False,
    command: str = "",
) -> Run:
    """Measure S(θ,B_l), S(θ,B_-l) and S(θ,B), write the tables, and return the run.

    Each set is stored as soon as it is measured, so a killed analysis goes on with `resume` from the set it was in
    and ends with the same bytes.

    Args:
        backend: the model and its data, in one direction.
        out: the run directory.
        settings: what decides the numbers.
        languages: those to measure; all by default. B_-l is drawn from all training languages whatever is asked for.
        resume: go on with what stands at `out`.
        command: the command line, noted in the manifest.

    Raises:
        RunError: if `out` exists (without `resume`), or was made with other settings (with it).
    """
    settings = settings or Settings()
    plan = make_plan(backend, settings, languages)
    parameters = registry(backend.module, backend.ghosts)
    count = sum(parameter.numel for parameter in parameters)
    facts = {
        "version": __version__,
        "signature": run_signature(backend, settings, plan),
        "direction": backend.direction,
        "settings": asdict(settings),
        "tokens": plan.tokens,
        "provenance": asdict(backend.provenance),
        "languages": {code: _language(backend.languages[code]) for code in plan.measured},
        "training_languages": list(backend.languages),
        "parameter_count": count,
        "prunable_count": sum(parameter.numel for parameter in parameters if parameter.prunable),
        "command": command,
        "notes": plan.notes,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    for note in plan.notes:
        say(note)
    run = _resumed(out, facts) if resume and (out / "manifest.json").exists() else Run.create(out, facts, parameters)
    with run.locked():
        _check_disk(out, cost_on_disk(count, plan))
        try:
            _measure_all(backend, run, plan, settings)
        finally:
            backend.module.eval()
        for name, table in _tables(run, settings.task):
            run.write_table(name, table)
    return run


def _tables(run: Run, task: str) -> Iterable[tuple[str, Any]]:
    with progress(3, "tables", "tables") as bar:
        for name, make in (
            ("correlation.csv", correlation_table),
            ("specificity.csv", specificity_table),
            ("balance.csv", balance_table),
        ):
            yield name, make(run, task)
            bar.advance()


def make_plan(backend: Backend, settings: Settings, languages: Sequence[str] | None = None) -> Plan:
    """Draw the batches of every set.

    Raises:
        OptionError: for a language the model was not trained on.
        DataError: for a language without data, or where B_-l has no other language.
    """
    known = list(backend.languages)
    measured = _measured(known, languages)
    notes = []
    if settings.rest == "pooled" and measured != known:
        notes.append("--rest pooled takes the mean over all other training languages: all of them are measured")
        measured = known
    sizes = {code: backend.sizes(code, settings.split) for code in known}
    for code, size in sizes.items():
        if not len(size):
            raise DataError(code, f"has no sentence in the {settings.split} split", "give its data or leave it out")

    def packed(name: str, members: Sequence[str], tokens: int, count: int = settings.batches) -> list[Batch]:
        pool = {code: sizes[code] for code in members}
        items = draw(pool, settings.seed, f"{settings.task}/{name}", settings.rest_temperature)
        return pack(items, pool, tokens, count, settings.pieces)

    left_out = {code: backend.left_out(code, settings.split) for code in known}
    notes += [f"{code}: {n} pairs longer than the model takes are left out" for code, n in left_out.items() if n]
    tokens = settings.tokens or common_tokens(sizes, TOKENS)
    if not settings.tokens and tokens < TOKENS:
        smallest = min(sizes, key=lambda code: int(sizes[code][:, 1].sum()))
        # a batch closes between sentences, so the last of the 40 may be a few tokens short
        while tokens > 1 and len(packed(smallest, [smallest], tokens, MINIMUM_BATCHES)) < MINIMUM_BATCHES:
            tokens -= math.ceil(tokens / 200)
        notes.append(
            f"T lowered from {TOKENS} to {tokens} target tokens a batch, so that {smallest} fills "
            f"{MINIMUM_BATCHES} batches"
        )

    members = {code: [code] for code in measured}
    if settings.rest == "mixed":
        members |= {f"rest-{code}": [other for other in known if other != code] for code in measured}
    members["all"] = known
    sets = {name: packed(name, codes, tokens) for name, codes in members.items()}
    short = [code for code in measured if len(sets[code]) < settings.batches]
    notes += [
        f"{code} has {len(sets[code])} batches of {tokens} target tokens, not {settings.batches}" for code in short
    ]
    return Plan(measured, tokens, sets, notes)


def _measured(known: list[str], languages: Sequence[str] | None) -> list[str]:
    """Return the languages that are asked for, in the order of training."""
    unknown = [code for code in languages or () if code not in known]
    if unknown:
        raise OptionError("--languages", f"{unknown[0]} is not a training language", f"choose among {', '.join(known)}")
    if languages is not None and not languages:
        raise OptionError("--languages", "names no language", f"choose among {', '.join(known)}")
    if len(known) < 2:
        raise DataError(known[0] if known else "data", "is the only language", "B_-l needs at least two languages")
    return [code for code in known if languages is None or code in languages]


def run_signature(backend: Backend, settings: Settings, plan: Plan) -> str:
    """Return the signature of a run: every choice that moves S or D."""
    whole = plan.measured == list(backend.languages)
    return signature(
        "S",
        task=settings.task,
        dir=backend.direction,
        langs=len(plan.measured) if whole else "+".join(plan.measured),
        split=settings.split,
        loss=f"{settings.loss}/{settings.reduction}",
        mode=settings.mode,
        abs="batch",
        batches=settings.batches,
        tokens=plan.tokens,
        rest=f"{settings.rest}/T{settings.rest_temperature:g}",
        sigma=sigma_for(settings.reduction == "token", plan.tokens, settings.sigma),
        seed=settings.seed,
        nonfinite="skipped" if settings.skip_nonfinite else None,
        pieces=settings.pieces if settings.mode == "train" else None,  # each piece draws its own dropout
        dtype="fp32",
        ckpt=backend.provenance.checkpoint_sha256[:8],
        data=backend.provenance.data_sha256[:8],
    )


def estimate(backend: Backend, settings: Settings, languages: Sequence[str] | None = None) -> Cost:
    """Return what `analyze` would take, after running a few batches to time them; nothing is written."""
    plan = make_plan(backend, settings, languages)
    parameters = registry(backend.module, backend.ghosts)
    count = sum(parameter.numel for parameter in parameters)
    probe = plan.sets[plan.measured[0]][:5]
    done: list[float] = []
    try:
        measure(
            backend.module,
            parameters,
            probe,
            _collate(backend, settings),
            _loss(backend, settings),
            skip_nonfinite=settings.skip_nonfinite,
            advance=lambda: done.append(time.monotonic()),
        )
    except NonFiniteError:
        if not settings.skip_nonfinite:
            raise
    # the first one also pays for what is loaded and allocated once
    seconds = (done[-1] - done[0]) / max(len(done) - 1, 1)
    batches = sum(len(batches) for batches in plan.sets.values())
    return Cost(_memory(count, settings), cost_on_disk(count, plan), seconds * batches, batches)


def _memory(count: int, settings: Settings) -> int:
    # weights, the two levels of the accumulator, the half and the whole on their way to disk, and where it is held
    # the gradient
    vectors = 5 + (settings.pieces > 1 or settings.skip_nonfinite)
    return vectors * count * 4


def cost_on_disk(count: int, plan: Plan) -> int:
    """Return the bytes a run of `count` parameters takes: three vectors per language, one of all, block means."""
    blocks = sum(len(blocks_of(len(plan.sets[code]))) for code in plan.measured)
    return 4 * (count * (3 * len(plan.measured) + 1) + min(count, SAMPLED) * blocks)


def _measure_all(backend: Backend, run: Run, plan: Plan, settings: Settings) -> None:
    parameters = registry(backend.module, backend.ghosts)
    sample = sample_of(parameters)
    backend.module.train(settings.mode == "train")
    for name, batches in plan.sets.items():
        if run.has(settings.task, name):
            say(f"{name}: already measured")
            continue
        # dropout in train mode: each set has its own, reproducible noise, whichever was measured before it
        torch.manual_seed(int(sha256_of(str(settings.seed), name)[:15], 16))
        with progress(len(batches), f"S(θ,B) {name}") as bar:
            try:
                found = measure(
                    backend.module,
                    parameters,
                    batches,
                    _collate(backend, settings),
                    _loss(backend, settings),
                    per_token=settings.reduction == "token",
                    sample=sample if name in plan.measured else None,
                    skip_nonfinite=settings.skip_nonfinite,
                    advance=bar.advance,
                )
            except torch.OutOfMemoryError as error:
                raise SensikitError(
                    "--tokens", "the device ran out of memory", "raise --pieces or lower --tokens"
                ) from error
        run.write_set(settings.task, name, _vectors(found, name in plan.measured), _facts(found, batches, settings))
    if settings.rest == "pooled":
        for name in plan.measured:
            if not run.has(settings.task, f"rest-{name}"):
                _pool(run, settings, name, [other for other in plan.measured if other != name])


def _collate(backend: Backend, settings: Settings) -> Callable[[Sequence[tuple[str, int]]], Any]:
    return lambda items: backend.collate(items, settings.split)


def _loss(backend: Backend, settings: Settings) -> Callable[[Any], tuple[torch.Tensor, int]]:
    return lambda piece: backend.loss(piece, settings.loss)


def _vectors(found: Sensitivity, whole: bool) -> dict[str, Tensors]:
    vectors = {"": found.mean}
    if whole:
        vectors |= {"half": found.half, "blocks": {BLOCK_KEY: torch.from_numpy(found.blocks)}}
    return vectors


def _facts(found: Sensitivity, batches: Sequence[Batch], settings: Settings) -> dict[str, Any]:
    tokens = float(np.mean(found.tokens))
    items = [item for batch in batches for item in batch.items]
    counts: dict[str, int] = {}
    for language, _ in items:
        counts[language] = counts.get(language, 0) + 1
    return {
        "batches": found.batches,
        "half_batches": found.half_batches,
        "block_batches": found.block_batches,
        "tokens_mean": tokens,
        "tokens_min": min(found.tokens),
        "tokens_max": max(found.tokens),
        "sentences": counts,
        "skipped": len(found.skipped),
        "loss": float(np.mean(found.losses)),
        "sigma": sigma_for(settings.reduction == "token", tokens, settings.sigma),
        "drawn": sha256_of(*(f"{language}:{index}" for language, index in items)),
    }


def _pool(run: Run, settings: Settings, name: str, others: Sequence[str]) -> None:
    """Store S(θ,B_-l) as the plain mean of the other languages' S."""
    entries = [run.manifest["sets"][f"{settings.task}/{other}"] for other in others]
    vectors = [run.vector(settings.task, other) for other in others]
    pooled = {p.name: np.empty(p.numel, dtype=np.float32) for p in run.parameters}
    for (parameter, offset), block in run.pieces(vectors):
        pooled[parameter.name][offset : offset + block.shape[1]] = block.mean(axis=0, dtype=np.float64)
    shaped = {p.name: torch.from_numpy(pooled[p.name]).reshape(p.shape) for p in run.parameters}
    tokens = float(np.mean([entry["tokens_mean"] for entry in entries]))
    facts = {"pooled": list(others), "tokens_mean": tokens}
    facts["sigma"] = sigma_for(settings.reduction == "token", tokens, settings.sigma)
    run.write_set(settings.task, f"rest-{name}", {"": shaped}, facts)


def _resumed(out: Path, facts: dict[str, Any]) -> Run:
    run = Run.open(out)
    for field in ("signature", "settings", "languages"):
        if run.manifest[field] != facts[field]:
            was, now = run.manifest[field], facts[field]
            raise RunError(out, f"was made with another {field} ({_difference(was, now)})", "choose another --out")
    return run


def _difference(was: Any, now: Any) -> str:
    if isinstance(was, str):
        pairs = [pair for pair in zip(was.split("|"), now.split("|"), strict=False) if pair[0] != pair[1]]
        return ", ".join(f"{a}, not {b}" for a, b in pairs) or f"{was}, not {now}"
    changed = [key for key in {*was, *now} if was.get(key) != now.get(key)]
    return ", ".join(f"{key}: {was.get(key)}, not {now.get(key)}" for key in sorted(changed))


def _check_disk(out: Path, wanted: int) -> None:
    held = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    free = shutil.disk_usage(out).free
    if free < wanted - held:
        problem = f"the disk has {free / 1e9:.2g} GB free and the run takes {(wanted - held) / 1e9:.2g} GB more"
        raise SensikitError(out, problem, "free some space or choose another --out")


def _language(language: Language) -> dict[str, Any]:
    return {"name": language.name, "family": language.family, "tier": language.tier, "sizes": language.sizes}
