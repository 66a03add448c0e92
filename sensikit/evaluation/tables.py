"""The tables of an evaluation: systems by tier as in Tables 1 to 3 of the paper, by group, and against the baseline.

Frames are those of evaluation.csv, tiers.csv and significance.csv, of one direction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import LEVEL
from sensikit.evaluation.scoring import ALL
from sensikit.languages import TIERS
from sensikit.tables import Table

MARK = "*"

DECODED = (
    "The references are decoded from the binarised text, for no raw text stands beside it (text/SPLIT.SRC-TGT.LANG in "
    "the data directory): these scores are not comparable with those against raw references (one model's translations "
    "had BLEU 16.12 and 15.86)."
)


def decoded(signature: str) -> bool:
    """Return whether a signature says that references were decoded from the binarised text."""
    return re.search(r"\|refs:[^|]*binarised", signature) is not None


def by_tier(tiers: pd.DataFrame, tests: pd.DataFrame | None, metric: str) -> Table:
    """Return a row for each system: the mean over the groups of each tier that has any, and over all."""
    present = [tier for tier in (*TIERS, ALL) if tier in set(tiers["tier"])]
    return _side_by_side(tiers, tests, metric, "tier", present)


def by_group(evaluation: pd.DataFrame, tests: pd.DataFrame | None, metric: str) -> Table:
    """Return a row for each system and a column for each group."""
    return _side_by_side(evaluation, tests, metric, "group", list(dict.fromkeys(evaluation["group"])))


def _side_by_side(
    frame: pd.DataFrame, tests: pd.DataFrame | None, metric: str, over: str, columns: Sequence[str]
) -> Table:
    """Return the scores with a mark where a system differs from the baseline."""
    scores = {(row["system"], row[over]): row["value"] for _, row in frame[frame["metric"] == metric].iterrows()}
    systems = list(dict.fromkeys(frame["system"]))
    rows = [{"System": system, **{column: scores[system, column] for column in columns}} for system in systems]
    unlike = _unlike(tests, metric, over)
    marks = {column: [MARK if (system, column) in unlike else " " for system in systems] for column in columns}
    shown = {column: each for column, each in marks.items() if MARK in each}
    return Table(pd.DataFrame(rows), dict.fromkeys(columns, METRICS[metric].digits), shown)


def _unlike(tests: pd.DataFrame | None, metric: str, over: str) -> set[tuple[str, str]]:
    if tests is None:
        return set()
    found = tests[(tests["metric"] == metric) & (tests["p"] < LEVEL) & (tests[over].fillna("") != "")]
    return set(zip(found["system_b"], found[over], strict=True))


def differences(tiers: pd.DataFrame, tests: pd.DataFrame | None, metric: str) -> Table:
    """Return a row for each system and tier: its mean with its interval, and the change from the baseline with p."""
    columns = {
        "difference": "Change", "difference_low": "Change 95% from", "difference_high": "Change to", "p": "p",
    }  # fmt: skip
    found, name = tiers[tiers["metric"] == metric], METRICS[metric].label
    table = pd.DataFrame(
        {
            "System": found["system"], "Tier": found["tier"], "Groups": found["groups"],
            name: found["value"], "95% from": found["value_low"], "to": found["value_high"],
        }
    )  # fmt: skip
    formats = {**dict.fromkeys((name, "95% from", "to"), METRICS[metric].digits), "Groups": ".0f"}
    if tests is not None:
        of_tiers = tests[(tests["metric"] == metric) & (tests["tier"].fillna("") != "")]
        keyed = of_tiers.set_index(["system_b", "tier"])[list(columns)].rename(columns=columns)
        table = table.join(keyed, on=["System", "Tier"])
        formats |= {**dict.fromkeys((*columns.values(),), f"+{METRICS[metric].digits}"), "p": ".3f"}
    return Table(table.reset_index(drop=True), formats)


def tables(frames: Mapping[str, pd.DataFrame]) -> dict[str, tuple[str, Table]]:
    """Return every table with its title, by the name of its files; those of each metric that was taken.

    Args:
        frames: by the names of their files; without significance.csv there is one system alone.
    """
    tiers, evaluation, tests = (frames.get(f"{name}.csv") for name in ("tiers", "evaluation", "significance"))
    assert tiers is not None
    assert evaluation is not None
    change, found = "" if tests is None else ", and the change from the baseline", {}
    for metric in dict.fromkeys(evaluation["metric"]):
        name = METRICS[metric].label + ("" if METRICS[metric].higher else " (lower is better)")
        found[f"{metric}-tiers"] = f"{name}, mean over groups", by_tier(tiers, tests, metric)
        title = f"{name}, mean over groups with its 95% interval{change}"
        found[f"{metric}-differences"] = title, differences(tiers, tests, metric)
        found[f"{metric}-groups"] = f"{name} by group", by_group(evaluation, tests, metric)
    return found


def notes(manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return what the numbers are of: intervals, marks, signatures, checkpoints."""
    found = ["Intervals are over test sentences, of one training run each: they do not speak of other training seeds."]
    if "significance.csv" in frames:
        found.append(
            f"{MARK} differs from {manifest['baseline']} with p < {LEVEL:g}: paired bootstrap, two-sided, each test by "
            "itself (of equal systems, one in twenty is marked by chance)."
        )
    scores = frames["evaluation.csv"].drop_duplicates("metric")
    signatures = [f"{METRICS[row['metric']].label}|{row['metric_signature']}" for _, row in scores.iterrows()]
    systems = [f"{label}: ckpt {facts['sha256'][:8]}" for label, facts in manifest["systems"].items()]
    return [*found, *manifest["notes"], manifest["signature"], *signatures, "; ".join(systems)]


def save(place: Path, manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> None:
    """Write every table to `place`, as text, CSV and LaTeX."""
    below = [*notes(manifest, frames), manifest["command"]]
    for name, (title, table) in tables(frames).items():
        table.save(place / name, [f"{title}.", *below])


def text(manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> str:
    """Return what is printed: systems by tier, with intervals, by group, and what the numbers are of."""
    shown = [f"{title}\n\n{table.shown().to_string(index=False)}\n" for title, table in tables(frames).values()]
    return "\n".join([*shown, *notes(manifest, frames)])
