"""Synthetic tables beside those of `synthetic_run`: their shape is that of real runs, their numbers are invented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sensikit.evaluation import scoring
from sensikit.evaluation.folder import Translated
from sensikit.evaluation.resampling import identified, save_ids
from sensikit.files import sha256, write_text
from sensikit.languages import TIERS
from sensikit.pruning.curves import TESTS
from sensikit.pruning.ledger import CROSS
from sensikit.run import MIXED
from sensikit.sensitivity.ablation import AUDIT, SUMMARY
from sensikit.statistics.components import COMPONENTS, WITHIN
from sensikit.statistics.convergence import CONVERGENCE
from sensikit.statistics.correlation import SIMILARITY
from sensikit.statistics.specificity import OVERLAP
from sensikit.statistics.spread import DISTRIBUTION
from sensikit.tables import csv_of
from tests.support.stored import sealed

Languages = Mapping[str, Mapping[str, Any]]


def evaluation(languages: Languages, gain: float = 1.0) -> dict[str, pd.DataFrame]:
    """Return the tables of an evaluation of regular and of cd+id, which is `gain` better in every language."""
    bleu = {code: 8.0 + 2 * place for place, code in enumerate(languages)}
    tiers = {tier: [code for code in languages if languages[code]["tier"] == tier] for tier in TIERS}
    subsets = {tier: codes for tier, codes in tiers.items() if codes} | {"All": list(languages)}
    better = {"regular": 0.0, "cd+id": gain}
    scored, by_tier, tests = [], [], []
    for metric in ("bleu", "chrf"):
        more = 20.0 if metric == "chrf" else 0.0
        for name, plus in better.items():
            for code in languages:
                score, tier = bleu[code] + plus + more, languages[code]["tier"]
                value = score, score - 1, score + 1
                facts = *value, *LENGTHS[metric], 300, 1, METRIC_SIGNATURES[metric]
                scored.append((name, "xxx-eng", code, tier, metric, *facts))
            for tier, codes in subsets.items():
                mean = sum(bleu[code] for code in codes) / len(codes) + plus + more
                facts = mean, mean - 0.6, mean + 0.6, *LENGTHS[metric], len(codes), 300, 1
                by_tier.append((name, "xxx-eng", tier, metric, *facts))
        places = [("", tier) for tier in subsets] + [(code, "") for code in languages]
        for code, tier in places:
            p = 0.2 if tier == "Very Low" else 0.002
            found = gain, gain - 0.7, gain + 0.7, p, min(1, 8 * p), gain, gain, 300, 1, 1
            tests.append(("regular", "cd+id", "xxx-eng", code, tier, metric, *found))
    made = {scoring.EVALUATION: scored, scoring.BY_TIER: by_tier, scoring.SIGNIFICANCE: tests}
    return {schema.name: schema.frame(rows) for schema, rows in made.items()}


LENGTHS = {"bleu": (0.95, 0.949), "chrf": (None, None), "loss": (None, None)}
METRIC_SIGNATURES = {
    "bleu": "nrefs:1|tok:13a|v:2.6.0",
    "chrf": "nrefs:1|nc:6|v:2.6.0",
    "loss": "kind:nll|unit:nats/token",
}
TRAINED: dict[str, dict[str, Any]] = {
    "regular": {"method": "regular", "denoise": None, "distill": None, "mask_ratio": None, "id_k": None,
                "id_alpha": None, "separate_projection": None, "updates": 4000},
    "cd+id": {"method": "cd+id", "denoise": "cd", "distill": "translation,encoder,decoder", "mask_ratio": 0.3,
              "id_k": 2, "id_alpha": 5.0, "separate_projection": False, "updates": 4000},
}  # fmt: skip


def evaluation_manifest(languages: Languages, **changes: Any) -> dict[str, Any]:
    """Return the manifest of an evaluation of the systems of `TRAINED`; `changes` replace its fields."""
    return {
        "format": Translated.FORMAT, "kind": "evaluation", "version": "0.2.0", "direction": "xxx-eng",
        "baseline": "regular", "command": "sensikit evaluate a.pt b.pt --data data --out eval",
        "signature": "E|dir:xxx-eng|beam:5|v:0.1.0", "notes": [], "recipes": {},
        "settings": {"split": "test"}, "files": {}, "groups": dict(languages),
        "data": {"path": "synthetic/data", "sha256": "0ddba115" * 8},
        "systems": {
            name: {"checkpoint": f"synthetic/{name}.pt", "sha256": f"{place}" * 64, "framework": "fairseq", **facts}
            for place, (name, facts) in enumerate(TRAINED.items(), start=1)
        },
        **changes,
    }  # fmt: skip


def write_evaluation(path: Path, languages: Languages, gain: float = 1.0, **changes: Any) -> Path:
    """Write a synthetic evaluation directory."""
    for name, frame in evaluation(languages, gain).items():
        write_text(path / name, csv_of(frame))
    manifest = evaluation_manifest(languages, **changes)
    texts = [f"hypotheses/{system}.{key}.txt" for system in manifest["systems"] for key in manifest["groups"]]
    segments = f"segments/{save_ids(path / 'segments', identified([]))}"
    manifest["files"] = {**manifest["files"], segments: {"sha256": sha256(path / segments)}}
    for name in (*texts, *(f"references/{key}.txt" for key in manifest["groups"])):
        write_text(path / name, "")
        noted = {"sha256": sha256(path / name), "sentences": 0, "truncated": 0, "from": "raw"}
        noted |= {"segments": segments, "known_by": "eng"}
        manifest["files"] = {**manifest["files"], name: noted}
    return sealed(path, manifest)


def scores(bleu: float, half: float, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return what a long table holds of a model with this BLEU, `half` the width of its interval, in some metrics."""
    values = {"bleu": (bleu, half), "chrf": (18 + 1.2 * bleu, 1.2 * half), "loss": (4 - bleu / 10, half / 10)}
    return [
        {"metric": name, "value": value, "value_low": value - width, "value_high": value + width,
         "metric_signature": METRIC_SIGNATURES[name], "length_ratio": LENGTHS[name][0],
         "brevity_penalty": LENGTHS[name][1]}
        for name, (value, width) in values.items() if name in metrics
    ]  # fmt: skip


def comparison(first: pd.DataFrame, second: pd.DataFrame, half: float = 0.02) -> pd.DataFrame:
    """Return the comparison of two correlation.csv: second minus first, `half` the width of each interval."""
    key = ["task", "subset", "group_a", "group_b"]
    both = first[[*key, "corrected", "parameters"]].merge(second[[*key, "corrected"]], on=key, suffixes=("_a", "_b"))
    both["difference"] = both["corrected_b"] - both["corrected_a"]
    own = both["group_a"] == both["group_b"]
    both["difference_low"] = (both["difference"] - half).mask(own)
    both["difference_high"] = (both["difference"] + half).mask(own)
    return both.assign(paired=True, without_low=np.nan, without_high=np.nan, seeds_a=1, seeds_b=1)


def similarity(languages: Languages, seed: int = 0) -> pd.DataFrame:
    """Return similarity.csv: the tasks agree more on the high subset than on the low one."""
    rng = np.random.default_rng(seed)
    rows = []
    for subset, centre in (("all", 0.9), ("high", 0.88), ("low", 0.6)):
        for code in languages:
            pcc = centre + rng.normal(0, 0.02) + seed / 20
            true = ((pcc + step) / 0.98 for step in (0, -0.01, 0.01))
            size = {"all": 1000, "high": 100, "low": 900}[subset]
            rows.append(("mt", "denoise", subset, code, *true, pcc, pcc - 0.01, pcc + 0.01, 0.98, size))
    return SIMILARITY.frame(rows)


def convergence(languages: Languages, seed: int = 0) -> pd.DataFrame:
    """Return convergence.csv: reliability grows with the batches as Spearman and Brown have it."""
    rng = np.random.default_rng(seed)
    rows = []
    for subset, one in (("all", 0.5), ("high", 0.45), ("low", 0.15)):
        for code, language in languages.items():
            single = one + rng.uniform(-0.05, 0.05)
            largest = 250 if language["sizes"]["train"] > 10_000 else 20
            for batches in (n for n in (5, 10, 25, 50, 100, 250) if n <= largest):
                r = batches * single / (1 + (batches - 1) * single)
                rows.append(("mt", subset, code, batches, r, r - (1 - r) / 5, r + (1 - r) / 5))
    return CONVERGENCE.frame(rows)


PARTS = {
    "shared": {"embedding": 500}, "encoder": {"q": 10, "out": 10, "fc": 80, "norm": 1},
    "decoder": {"q": 10, "cross-q": 10, "fc": 80, "norm": 2},
}  # fmt: skip


def components(languages: Languages, seed: int = 0, layers: int = 2) -> pd.DataFrame:
    """Return components.csv: each component in each layer, and then all layers, all components, and both together."""
    rng = np.random.default_rng(seed)
    rows = []
    for code in languages:
        for stack, parts in PARTS.items():
            for component, size in [*parts.items(), ("all", sum(parts.values()))]:
                for layer in ["", "all"] if stack == "shared" else [*map(str, range(layers)), "all"]:
                    count = size * (layers if layer == "all" and stack != "shared" else 1)
                    median = -0.1 + 0.05 * int(layer if layer.isdigit() else 0) + rng.normal(0, 0.03)
                    share = count / 900 * rng.uniform(0.8, 1.2)
                    rows.append(("mt", code, stack, layer, component, count, 1e-5, share, 0.1, median, 0.4 + median))
    return COMPONENTS.frame(rows)


def components_correlation(languages: Languages, seed: int = 0) -> pd.DataFrame:
    """Return components-correlation.csv, without the rows of single layers."""
    rng = np.random.default_rng(seed)
    rows = [
        ("mt", stack, "all", component, a, b, rng.uniform(0.6, 0.95), size)
        for stack, parts in PARTS.items()
        for component, size in parts.items()
        for a in languages
        for b in languages
        if a != b
    ]
    return WITHIN.frame(rows)


def overlap(languages: Languages, seed: int = 0, shares: tuple[float, ...] = (0.01, 0.1)) -> pd.DataFrame:
    """Return overlap.csv: kin share more than chance has it."""
    rng = np.random.default_rng(seed)
    rows = []
    for share in shares:
        chance = share / (2 - share)
        for a in languages:
            for b in (code for code in languages if code != a):
                kin = languages[a]["family"] == languages[b]["family"]
                rows.append(("mt", share, a, b, chance * (3 if kin else 1.5) * rng.uniform(0.9, 1.1), chance))
    return OVERLAP.frame(rows)


def distribution(languages: Languages, seed: int = 0, width: float = 0.8) -> pd.DataFrame:
    """Return distribution.csv: an exponential S in bins of one width."""
    rng = np.random.default_rng(seed)
    edges = np.linspace(0, 3e-4, 61)
    rows = []
    for code in (*languages, MIXED):
        counts, _ = np.histogram(rng.gamma(width, 5e-5, 20_000), bins=edges)
        rows += [("mt", code, low, high, int(n)) for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)]
    return DISTRIBUTION.frame(rows)


def audit(languages: Languages, seed: int = 0, count: int = 60) -> pd.DataFrame:
    """Return audit.csv: an estimate that is right up to a third."""
    rng = np.random.default_rng(seed)
    rows = []
    for code in languages:
        taylor = np.exp(rng.normal(-12, 2, count))
        exact = taylor * np.exp(rng.normal(0, 0.3, count))
        strata = np.where(taylor > np.exp(-12), "high", "low")
        for index, (t, e, stratum) in enumerate(zip(taylor, exact, strata, strict=True)):
            rows.append(("mt", code, "decoder.layers.0.fc1.weight", index, stratum, 10.0, t, e))
    return AUDIT.frame(rows)


AUDITED = "sensikit audit synthetic/run --parameters 60 --batches 20"


def audit_summary(languages: Languages) -> pd.DataFrame:
    """Return audit-summary.csv."""
    values = {"spearman": 0.97, "pearson": 0.95, "top10_agreement": 0.91}
    made = 60, 20, "A|task:mt|params:60|batches:20|v:0.1.0", AUDITED
    rows = [
        ("mt", code, name, value, value - 0.01, value + 0.005, *made)
        for code in languages
        for name, value in values.items()
    ]
    return SUMMARY.frame(rows)


def cross(
    languages: Languages, ratios: Sequence[float] = (0.3, 0.5), metrics: Sequence[str] = ("bleu", "chrf")
) -> pd.DataFrame:
    """Return pruning-cross.csv: the language pruned for keeps most, its kin more than the rest."""
    rows = []

    def row(order: str, code: str, other: str, ratio: float, keeps: float) -> None:
        cell = {
            "order": order, "seed": "", "group": code, "evaluated": other, "ratio": ratio,
            "pruned": round(ratio * 9e5), "prunable": 900_000, "sentences": 100, "truncated": 0,
            "signature": "P|protect:0.1|v:0.1.0", "sha256": "ab" * 32,
            "hypotheses": f"hypotheses/{other}.{order}.{ratio}.by-{code}.txt",
        }  # fmt: skip
        rows.extend({**cell, **score} for score in scores(14 * keeps, 1.0, metrics))

    for code in languages:
        row("none", code, code, 0.0, 1.0)
        for other in languages:
            kin = languages[code]["family"] == languages[other]["family"]
            for ratio in ratios:
                row("specificity", code, other, ratio, (1 - ratio) * (1.0 if code == other else 0.7 if kin else 0.5))
    return CROSS.frame(rows)


def bands(points: pd.DataFrame, half: float = 0.6) -> pd.DataFrame:
    """Return what `curve_bands` would say of the points of some curves; no interval of a change at ratio 0."""
    frame = points[["run", "order", "ratio", "metric", "value"]]
    change = points["value"] - points.groupby("run")["value"].transform("first")
    width = half * (points["ratio"] > 0)
    return frame.assign(
        value_low=frame["value"] - half, value_high=frame["value"] + half, change_low=change - width,
        change_high=change + width,
    )  # fmt: skip


def curve_tests(points: pd.DataFrame, like_random: tuple[float, ...] = ()) -> pd.DataFrame:
    """Return what `curve_tests` would say: specificity against random in each run, and runs against the first."""
    values = points.set_index(["run", "order", "ratio"])["value"]
    labels, ratios = list(dict.fromkeys(points["run"])), sorted(set(points["ratio"]))
    pairs = [(label, "random", label, "specificity") for label in labels]
    pairs += [(labels[0], "specificity", label, "specificity") for label in labels[1:]]
    rows = []
    for run_a, order_a, run_b, order_b in pairs:
        for ratio in (ratio for ratio in ratios if ratio or run_a != run_b):
            difference = values[run_b, order_b, ratio] - values[run_a, order_a, ratio]
            change = difference - values[run_b, order_b, 0.0] + values[run_a, order_a, 0.0]
            p = 0.4 if ratio in like_random else 0.002
            found = (difference, difference - 0.5, difference + 0.5, p, change, change - 0.5, change + 0.5, p)
            rows.append((run_a, order_a, run_b, order_b, ratio, points["metric"].iloc[0], *found, 300, 1, 1, p, p))
    return pd.DataFrame(rows, columns=TESTS)


def layout(
    source: list[str], encoder_target: list[str], decoder_input: list[str], decoder_target: list[str]
) -> pd.DataFrame:
    """Return the rows of one Catalan sentence, as in a run's `layout.csv`."""
    columns = {"source": source, "encoder_target": encoder_target, "decoder_input": decoder_input}
    rows = {"group": "cat", "position": range(len(source)), **columns, "decoder_target": decoder_target}
    return pd.DataFrame(rows)


def layouts(languages: Languages) -> pd.DataFrame:
    """Return layout.csv: the same sentence for each language, one of its words masked."""
    words, target = ["▁the", "▁qu", "ick", "▁fox"], ["", "▁qu", "ick", "", ""]
    return pd.concat(
        [
            layout(["▁the", "<mask>", "<mask>", "▁fox", f"__{code}__"], target, [f"__{code}__", *words], target)
            .assign(group=code)
            for code in languages
        ]
    )  # fmt: skip
