"""Synthetic run directories for the tests of figures and report. Their numbers are invented; no model was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sensikit.files import write_text
from sensikit.pruning.ledger import PRUNING
from sensikit.run import MIXED, Run, file_of, kinds_of, rest_of
from sensikit.statistics.correlation import CORRELATION
from sensikit.statistics.specificity import LEVELS, SPECIFICITY
from sensikit.statistics.spread import BALANCE
from sensikit.tables import csv_of
from tests.support import synthetic_tables
from tests.support.stored import sealed

LANGUAGES: dict[str, dict[str, Any]] = {
    code: {"name": name, "family": family, "tier": tier, "sizes": {"train": train, "valid": 500, "test": test}}
    for code, name, family, tier, train, test in (
        ("cat", "Catalan", "Western Romance", "High", 96913, 1000),
        ("fao", "Faroese", "North Germanic", "Very Low", 1336, 157),
        ("fur", "Friulian", "Western Romance", "Low", 18601, 1000),
        ("ind", "Indonesian", "Malayo-Polynesian", "High", 82769, 1000),
        ("msa", "Malay", "Malayo-Polynesian", "Low", 24577, 1000),
        ("nob", "Norwegian Bokmål", "North Germanic", "High", 62218, 1000),
        ("nso", "Northern Sotho", "Central Narrow Bantu", "Very Low", 3579, 422),
        ("tgl", "Tagalog", "Malayo-Polynesian", "Low", 5288, 623),
    )
}
BLEU = {"cat": 21.6, "fao": 12.4, "fur": 15.1, "ind": 19.8, "msa": 16.9, "nob": 17.3, "nso": 7.7, "tgl": 11.2}
USUAL = ("correlation", "specificity", "balance", "pruning")
EVERY = (
    *USUAL, "similarity", "components", "components-correlation", "overlap", "distribution", "convergence", "audit",
    "audit-summary", "pruning-cross", "layout",
)  # fmt: skip
ORDERS = ("specificity", "reverse", "sensitivity", "magnitude")
SIGNATURE = (
    "S|task:mt|dir:xxx-eng|groups:15|split:train|loss:nll/token|mode:eval|abs:batch|batches:500|tokens:{tokens}|"
    "rest:mixed/T1|sigma:2.4e-12|high:0.1|seed:1|dtype:fp32|ckpt:5e1fca5e|data:0ddba115|v:0.2.0"
)
COMMAND = "sensikit analyze synthetic/checkpoint_best.pt --data synthetic/data --out synthetic/run"


def more_languages(count: int) -> dict[str, dict[str, Any]]:
    """Return `count` invented languages in five families, for figures of many languages."""
    tiers = ("High", "Low", "Very Low")
    return {
        f"x{index:02d}": {
            "name": f"Synthetic {index}", "family": f"Family {index % 5}", "tier": tiers[index % 3],
            "sizes": {"train": 10 ** (6 - index % 3) + index, "valid": 500, "test": 1000},
        }
        for index in range(count)
    }  # fmt: skip


def correlation(languages: dict[str, dict[str, Any]], seed: int = 0, drop: float = 0.0) -> pd.DataFrame:
    """Return correlation.csv: relatives are more alike than strangers, small languages noisier; `drop` lowers all."""
    rng = np.random.default_rng(seed)
    centre = {"high": 0.955 - drop / 5, "low": 0.66 - drop, "all": 0.968 - drop / 6}
    rows = []
    for subset, parameters in (("high", 100_000), ("low", 900_000), ("all", 1_000_000)):
        small = {code: language["sizes"]["train"] for code, language in languages.items()}
        spread = 1 - centre[subset]
        reliable = {code: 1 - spread * 0.25 * (4.5 / np.log10(size)) ** 3 for code, size in small.items()}
        value: dict[tuple[str, str], float] = {}
        for a in languages:
            for b in languages:
                kin = 0.3 * spread * (languages[a]["family"] == languages[b]["family"])
                pcc = 1.0 if a == b else value.get((b, a), centre[subset] + kin + spread * rng.normal(0, 0.12))
                value[a, b] = pcc
                ceiling = float(np.sqrt(reliable[a] * reliable[b]))
                half = 0.0 if a == b else spread * 0.06
                true = (np.nan,) * 3 if a == b else tuple((pcc + step) / ceiling for step in (0, -half, half))
                observed = (pcc, pcc - half, pcc + half, ceiling, reliable[a], reliable[b])
                beside = (pcc - 0.1, pcc - 0.05, parameters, parameters // 1000, parameters)
                rows.append(("mt", subset, a, b, *true, *observed, *beside))
    return CORRELATION.frame(rows)


def specificity(languages: dict[str, dict[str, Any]], seed: int = 0) -> pd.DataFrame:
    """Return specificity.csv: the quantiles of an invented heavy-tailed D of each language."""
    rng = np.random.default_rng(seed)
    rows = []
    for code in languages:
        scores = np.exp(rng.normal(-0.12, 0.45 + 0.3 * rng.random(), 4000)) - 1
        levels = dict(zip(LEVELS, np.quantile(scores, list(LEVELS.values())), strict=True))
        statistics = {
            "sigma": 2.4e-12, "share_small_denominator": 0.0031, "share_ties_at_zero": 0.0004, "mean": scores.mean(),
            "share_positive": (scores > 0).mean(), **levels,
        }  # fmt: skip
        rows += [("mt", code, name, float(value)) for name, value in statistics.items()]
    return SPECIFICITY.frame(rows)


def balance(languages: dict[str, dict[str, Any]], seed: int = 0, width: float = 1.6) -> pd.DataFrame:
    """Return balance.csv: the quantiles of an invented log-normal S of each language and of all of them mixed."""
    rng = np.random.default_rng(seed)
    rows = []
    for code in (*languages, MIXED):
        scores = np.sort(np.exp(rng.normal(-15, width, 4000)))
        levels = dict(zip(LEVELS, np.quantile(scores, list(LEVELS.values())), strict=True))
        statistics = {
            "mean": scores.mean(), "std": scores.std(), "cv": scores.std() / scores.mean(),
            "share_top10": scores[-400:].sum() / scores.sum(), "zero_share": 0.0, **levels,
            "mean_below_top1": scores[:-40].mean(), "std_below_top1": scores[:-40].std(),
            "cv_below_top1": scores[:-40].std() / scores[:-40].mean(),
        }  # fmt: skip
        rows += [("mt", code, name, float(value)) for name, value in statistics.items()]
    return BALANCE.frame(rows)


def pruning(
    languages: dict[str, dict[str, Any]],
    ratios: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    strength: float = 1.0,
    metrics: Sequence[str] = ("bleu", "chrf"),
) -> pd.DataFrame:
    """Return pruning.csv: curves that fall, the slowest for specificity; `strength` moves where they break."""
    breaks = {"specificity": 0.62, "reverse": 0.34, "sensitivity": 0.7, "magnitude": 0.55, "random": 0.22}
    rows = []

    def row(order: str, seed: str, code: str, ratio: float, keep: float) -> None:
        bleu = BLEU.get(code, 14.0) * strength * keep
        cell = {
            "order": order, "seed": seed, "group": code, "ratio": ratio,
            "pruned": round(ratio * 9e5), "prunable": 900_000,
            "sentences": languages[code]["sizes"]["test"], "truncated": 0,
            "signature": "P|protect:0.1|scope:global|dir:xxx-eng|split:test|beam:5|ckpt:5e1fca5e|v:0.1.0",
            "hypotheses": f"hypotheses/{code}.{order}.{seed}.{ratio}.txt", "sha256": "ab" * 32,
        }  # fmt: skip
        rows.extend({**cell, **score} for score in synthetic_tables.scores(bleu, 0.06 * bleu, metrics))

    for code in languages:
        row("none", "", code, 0.0, 1.0)
        for ratio in ratios:
            for order in ORDERS:
                row(order, "", code, ratio, 1 / (1 + (ratio / breaks[order] / strength) ** 6))
            for seed in ("1", "2", "3"):
                row("random", seed, code, ratio, 1 / (1 + (ratio / (breaks["random"] + int(seed) / 50)) ** 4))
    return PRUNING.frame(rows)


def manifest(languages: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return the manifest of a synthetic run; `changes` replace its fields, or those of its analysis."""
    tokens = changes.pop("tokens", 4096)
    analysis = {name: changes.pop(name) for name in ("signature", "notes", "command") if name in changes}
    return {
        "format": Run.FORMAT, "version": "0.2.0", "direction": "xxx-eng",
        "analyses": {
            "mt": {
                "signature": SIGNATURE.format(tokens=tokens), "tokens": tokens, "notes": [], "command": COMMAND,
                "settings": {"batches": 500, "tokens": tokens, "seed": 1}, **analysis,
            }
        },
        "provenance": {
            "framework": "fairseq", "checkpoint": "synthetic/checkpoint_best.pt", "checkpoint_sha256": "5e1fca5e" * 8,
            "data": "synthetic/data", "data_sha256": "0ddba115" * 8, "loading": {},
        },
        "groups": languages,
        "parameters": [
            {"name": "encoder.embed_tokens.weight", "shape": [900, 1000], "start": 0, "component": "embedding",
             "stack": "shared", "layer": None, "prunable": True, "aliases": ["decoder.embed_tokens.weight"]},
            {"name": "encoder.layer_norm.weight", "shape": [100_000], "start": 900_000, "component": "norm",
             "stack": "encoder", "layer": None, "prunable": False, "aliases": []},
        ],
        "parameter_count": 1_000_000, "prunable_count": 900_000,
        "sets": {
            f"mt/{name}": {
                "batches": 500, "half_batches": 250, "block_batches": [25] * 20,
                "drawn": name, "tokens_mean": tokens - 11.5, "sentences": {name: 40_000}, "skipped": 0,
                "loss": 3.1, "sigma": 2.4e-12,
                "files": {file_of("mt", name, kind): "0" * 64 for kind in kinds_of("mt", name)},
            }
            for name in (*languages, *map(rest_of, languages), MIXED)
        },
        "versions": {"python": "3.11", "torch": "2.13.0", "numpy": "2.4"},
        **changes,
    }  # fmt: skip


def write_run(
    path: Path,
    languages: dict[str, dict[str, Any]] = LANGUAGES,
    *,
    seed: int = 0,
    drop: float = 0.0,
    strength: float = 1.0,
    only: Sequence[str] = USUAL,
    metrics: Sequence[str] = ("bleu", "chrf"),
    **changes: Any,
) -> Path:
    """Write a synthetic run directory with the tables of `only`; `changes` replace fields of its manifest."""
    tables: dict[str, Callable[[], pd.DataFrame]] = {
        "correlation": lambda: correlation(languages, seed, drop),
        "specificity": lambda: specificity(languages, seed),
        "balance": lambda: balance(languages, seed, 1.6 - drop),
        "pruning": lambda: pruning(languages, strength=strength, metrics=metrics),
        "similarity": lambda: synthetic_tables.similarity(languages, seed),
        "components": lambda: synthetic_tables.components(languages, seed),
        "components-correlation": lambda: synthetic_tables.components_correlation(languages, seed),
        "overlap": lambda: synthetic_tables.overlap(languages, seed),
        "distribution": lambda: synthetic_tables.distribution(languages, seed),
        "convergence": lambda: synthetic_tables.convergence(languages, seed),
        "audit": lambda: synthetic_tables.audit(languages, seed),
        "audit-summary": lambda: synthetic_tables.audit_summary(languages),
        "pruning-cross": lambda: synthetic_tables.cross(languages, metrics=metrics),
        "layout": lambda: synthetic_tables.layouts(languages),
    }
    for name in only:
        write_text(path / f"{name}.csv", csv_of(tables[name]()))
    return sealed(path, manifest(languages, **changes))
