"""What an analysis will do and take, before anything is measured: its settings, the batches of every set, its cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sensikit.backends.base import Backend, Examples
from sensikit.errors import DataError, OptionError, RunError
from sensikit.run import TASKS, Run
from sensikit.sensitivity.batches import MINIMUM_BATCHES, Batch, common_tokens, draw, fingerprint, pack
from sensikit.sensitivity.taylor import SAMPLED, blocks_of
from sensikit.signature import signature
from sensikit.statistics.specificity import SIGMA, sigma_for

TOKENS = 4096
"""T, the target tokens of a batch, where nothing else is asked for and the data suffice."""

FLOAT = 4
"""Bytes of a float32, in which everything is held and stored."""

VECTORS_IN_MEMORY = 5
"""Vectors of all parameters that an analysis holds: weights, two levels of sums, S and its half on their way to disk.

The gradient makes one more where a batch is computed in pieces, or must be judged before it counts.
"""

VECTORS_PER_LANGUAGE = 3
"""Vectors of all parameters that it stores for each language: S(θ,B_l), its first half, S(θ,B_-l)."""


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of one task of a run.

    Attributes:
        task: "mt", or "denoise": the self-supervised task that the checkpoint was trained on.
        loss: "nll" (cross-entropy) or "train" (the criterion of the training run).
        reduction: "token" (mean over the target tokens of a batch) or "sum".
        mode: "eval", or "train" for dropout as in training.
        batches: how many at most, per set.
        tokens: T; None means 4096, lowered until the smallest language fills 40 batches.
        rest: B_-l "mixed" (batches of the other languages) or "pooled" (the mean of their S: larger, never compare
        the two).
        rest_temperature: of the mix; 1 = in proportion to the data.
        sigma: σ on the scale of a summed loss; see `specificity.sigma_for`.
        seed: of every draw, and of the noise that is denoised.
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
        choices = {"--task": TASKS, "--loss": ("nll", "train"), "--rest": ("mixed", "pooled")}
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
class Plan:
    """The sets of one task, by name, with their batches."""

    measured: list[str]
    tokens: int
    sets: dict[str, list[Batch]]
    notes: list[str]


def examples_of(backend: Backend, settings: Settings) -> Examples:
    """Return the sentences and the loss of the task that is asked for.

    Raises:
        OptionError: if the model was never trained on it.
    """
    if settings.task not in backend.tasks:
        known = " and ".join(backend.tasks)
        problem = f"{settings.task} is nothing that this model was trained to do (it was trained on {known})"
        raise OptionError("--task", problem, "give a checkpoint of sensikit train --method cd, or of another with DAE")
    return backend.examples(settings.task, settings.seed)


def make_plan(backend: Backend, settings: Settings, groups: Sequence[str] | None = None) -> Plan:
    """Draw the batches of every set.

    Raises:
        OptionError: for a language the model was not trained on, or a task.
        DataError: for a language without data, or where B_-l has no other language.
    """
    known = list(backend.languages)
    measured = _measured(known, groups)
    examples = examples_of(backend, settings)
    notes = []
    if settings.rest == "pooled" and measured != known:
        notes.append("--rest pooled takes the mean over all other training languages: all of them are measured")
        measured = known
    sizes = {code: examples.sizes(code, settings.split) for code in known}
    for code, size in sizes.items():
        if not size[:, 1].sum():
            remedy = "B_-l needs every training language: give the data that the checkpoint was trained on"
            raise DataError(code, f"has no sentence in the {settings.split} split", remedy)

    def packed(name: str, members: Sequence[str], tokens: int, count: int = settings.batches) -> list[Batch]:
        pool = {code: sizes[code] for code in members}
        items = draw(pool, settings.seed, f"{settings.task}/{name}", settings.rest_temperature)
        return pack(items, pool, tokens, count, settings.pieces)

    left_out = {code: examples.left_out(code, settings.split) for code in known}
    what = "pairs" if settings.task == "mt" else "sentences"
    notes += [f"{code}: {n} {what} longer than the model takes are left out" for code, n in left_out.items() if n]
    tokens = settings.tokens or common_tokens(sizes, TOKENS)
    if not settings.tokens and tokens < TOKENS:
        smallest = _smallest(sizes)
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


def _smallest(sizes: Mapping[str, np.ndarray]) -> str:
    return min(sizes, key=lambda code: int(sizes[code][:, 1].sum()))


def run_signature(backend: Backend, settings: Settings, plan: Plan) -> str:
    """Return the signature of a task of a run: every choice that moves S or D."""
    whole = plan.measured == list(backend.languages)
    return signature(
        "S",
        task=settings.task,
        **examples_of(backend, settings).choices(),
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


def memory_of(count: int, settings: Settings | None = None) -> int:
    """Return the bytes of memory that an analysis of `count` parameters takes, beside what a batch takes."""
    chosen = settings or Settings()
    return FLOAT * count * (VECTORS_IN_MEMORY + (chosen.pieces > 1 or chosen.skip_nonfinite))


def disk_per_language(count: int) -> int:
    """Return the bytes that the vectors of one language and task take on disk, beside its block means."""
    return FLOAT * VECTORS_PER_LANGUAGE * count


def disk_of(count: int, plan: Plan) -> int:
    """Return the bytes of disk that a task takes: the vectors of each language and of all, and the block means."""
    blocks = sum(len(blocks_of(len(plan.sets[code]))) for code in plan.measured)
    return disk_per_language(count) * len(plan.measured) + FLOAT * (count + min(count, SAMPLED) * blocks)


def measured_groups(run: Run, languages: Sequence[str] | None, task: str = "mt") -> list[str]:
    """Return the languages asked for (all by default) in the order of the run.

    Raises:
        OptionError: if one was not measured, or none is named.
    """
    measured = run.languages(task)
    unknown = [code for code in languages or () if code not in measured]
    if unknown or (languages is not None and not languages):
        problem = f"{unknown[0]} was not measured" if unknown else "names no language"
        raise OptionError("--languages", problem, f"choose among {', '.join(measured)}")
    return [code for code in measured if languages is None or code in languages]


def check_source(run: Run, backend: Backend) -> None:
    """Refuse a checkpoint or data that are not what the run was measured on.

    Raises:
        RunError: saying which.
    """
    noted, found = run.manifest["provenance"], backend.provenance
    if found.checkpoint_sha256 != noted["checkpoint_sha256"]:
        problem = f"was measured on another checkpoint ({noted['checkpoint_sha256'][:8]}) than {found.checkpoint}"
        raise RunError(run.path, problem, "give that one with --checkpoint")
    if found.data_sha256 != noted["data_sha256"]:
        problem = f"was measured on other data ({noted['data_sha256'][:8]}) than {found.data}"
        raise RunError(run.path, problem, "give those with --data")


def redrawn(
    run: Run, backend: Backend, languages: Sequence[str], task: str = "mt"
) -> tuple[Settings, dict[str, list[Batch]]]:
    """Return the settings of a run's analysis and the batches B_l of `languages`, drawn again.

    Raises:
        RunError: if they are not the sentences that S(θ, B_l) was measured on.
    """
    settings = _settings(run, task)
    plan = make_plan(backend, settings, run.languages(task))
    for code in languages:
        if fingerprint(plan.sets[code]) != run.manifest["sets"][f"{task}/{code}"].get("drawn"):
            problem = f"was measured on other batches of {code} than its settings give"
            raise RunError(run.path, problem, "another version made it; analyze again")
    return settings, {code: plan.sets[code] for code in languages}


def _settings(run: Run, task: str) -> Settings:
    try:
        return Settings(**run.analysis(task)["settings"])
    except TypeError as error:
        raise RunError(run.path / "manifest.json", "has settings of another version", "analyze again") from error
