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
from sensikit.evaluation.resampling import FEWEST, LEVEL
from sensikit.evaluation.scoring import ALL
from sensikit.languages import TIERS
from sensikit.tables import P_VALUE, Table

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
    """Return the scores with a mark where what is tested differs from the baseline."""
    scores = {(row["system"], row[over]): row["value"] for _, row in frame[frame["metric"] == metric].iterrows()}
    systems = [name for name in dict.fromkeys(frame["system"]) if (name, columns[0]) in scores]
    rows = [{"System": system, **{column: scores[system, column] for column in columns}} for system in systems]
    unlike = _unlike(tests, metric, over)
    marks = {column: [MARK if (system, column) in unlike else " " for system in systems] for column in columns}
    shown = {column: each for column, each in marks.items() if MARK in each}
    return Table(pd.DataFrame(rows), dict.fromkeys(columns, METRICS[metric].digits), shown)


def _unlike(tests: pd.DataFrame | None, metric: str, over: str) -> set[tuple[str, str]]:
    if tests is None:
        return set()
    found = tests[(tests["metric"] == metric) & (tests["p_holm"] < LEVEL) & (tests[over].fillna("") != "")]
    return set(zip(found["system_b"], found[over], strict=True))


def brevity(evaluation: pd.DataFrame, tiers: pd.DataFrame, metric: str) -> Table:
    """Return a row for each system: the brevity penalty in the scores of each group, and the means of both lengths."""
    found, means = (frame[frame["metric"] == metric] for frame in (evaluation, tiers[tiers["tier"] == ALL]))
    table = found.pivot(index="system", columns="group", values="brevity_penalty")
    table = table.loc[list(dict.fromkeys(found["system"])), list(dict.fromkeys(found["group"]))]
    mean = means.set_index("system")
    table = table.assign(All=mean["brevity_penalty"], **{"Length ratio": mean["length_ratio"]}).rename_axis(
        index="System", columns=None
    )
    return Table(table.reset_index(), dict.fromkeys(table.columns, ".3f"))


def choice(frame: pd.DataFrame) -> Table:
    """Return a row for each checkpoint and length penalty of choice.csv; what was chosen is marked."""
    headings = {
        "system": "System", "checkpoint": "Checkpoint", "lenpen": "Length penalty", "value": "BLEU",
        "length_ratio": "Length ratio", "brevity_penalty": "Brevity penalty",
    }  # fmt: skip
    formats = {"Length penalty": "g", "BLEU": ".2f", "Length ratio": ".3f", "Brevity penalty": ".3f"}
    marks = {"BLEU": [MARK if each else " " for each in frame["chosen"]]}
    return Table(frame[list(headings)].rename(columns=headings), formats, marks)


def differences(tiers: pd.DataFrame, tests: pd.DataFrame | None, metric: str) -> Table:
    """Return a row for each system and tier: its mean with its interval, and the change from the baseline, tested.

    The change stands with its p, by itself and after Holm, and with its extremes where one language is left out.
    """
    columns = {
        "difference": "Change", "difference_low": "Change 95% from", "difference_high": "Change to", "p": "p",
        "p_holm": "p Holm", "without_low": "Without one from", "without_high": "Without one to",
    }  # fmt: skip
    found, name = tiers[tiers["metric"] == metric], METRICS[metric].label
    table = pd.DataFrame(
        {
            "System": found["system"], "Tier": found["tier"], "Seeds": found["seeds"],
            "Groups": found["groups"],
            name: found["value"], "95% from": found["value_low"], "to": found["value_high"],
        }
    )  # fmt: skip
    digits = METRICS[metric].digits
    formats = dict.fromkeys((name, "95% from", "to"), digits) | dict.fromkeys(("Seeds", "Groups"), ".0f")
    if tests is not None:
        of_tiers = tests[(tests["metric"] == metric) & (tests["tier"].fillna("") != "")]
        keyed = of_tiers.set_index(["system_b", "tier"])[list(columns)].rename(columns=columns)
        table = table.join(keyed, on=["System", "Tier"])
        formats |= dict.fromkeys(columns.values(), f"+{digits}") | dict.fromkeys(("p", "p Holm"), P_VALUE)
    return Table(table.reset_index(drop=True), formats)


def tables(frames: Mapping[str, pd.DataFrame]) -> dict[str, tuple[str, Table]]:
    """Return every table with its title, by the name of its files; those of each metric that was taken.

    The frames are by the names of their files; without significance.csv there is one system alone.
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
        if METRICS[metric].lengths:
            title = f"Brevity penalty in {name}, and the length of translations over that of references"
            found[f"{metric}-lengths"] = title, brevity(evaluation, tiers, metric)
    if "choice.csv" in frames:
        title = f"What was chosen among, by mean BLEU on the split that was chosen on; {MARK} was chosen"
        found["choice"] = title, choice(frames["choice.csv"])
    return found


def intervals(manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> str:
    """Return what the intervals are of: test sentences, and training seeds where there are any."""
    recipes, tests = manifest["recipes"], frames.get("significance.csv")
    counts = frames["evaluation.csv"]["sentences"] if tests is None else tests["segments"]
    text = "Intervals are over test sentences, a sentence drawn at once in all languages"
    if recipes:
        text += f"; those of {', '.join(recipes)} also over training seeds (t of both variances)"
    text += "; of one training run they say nothing of other seeds."
    if counts.min() >= FEWEST:
        return text
    there = "" if counts.max() < FEWEST else " there"  # a mean over groups may be of enough, where no group is
    text += f" Only {int(counts.min())} test sentences"
    return f"{text}: under {FEWEST} no interval or p is to be trusted; nothing is marked{there}."


def tests_of(manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return what a mark means, and what was tested against what; nothing of one system alone."""
    if "significance.csv" not in frames:
        return []
    tests, baseline, recipes = frames["significance.csv"], manifest["baseline"], manifest["recipes"]
    counts = {name: len(seeds) for name, seeds in recipes.items()}
    single = [name for name in dict.fromkeys(tests["system_b"]) if counts.get(name, 1) == counts.get(baseline, 1) == 1]
    how = "approximate randomisation over test sentences" if single else ""
    if len(single) < tests["system_b"].nunique():
        how += f"{', or ' if single else ''}t over training seeds and test sentences (Welch)"
    family = int(tests.groupby("metric").size().max())
    marked = f"{MARK} differs from {baseline} with p < {LEVEL:g} after Holm over {family} tests"
    what = marked if tests["segments"].max() >= FEWEST else f"What is tested against {baseline}"
    found = [f"{what}: {how}, two-sided."]
    if single:
        found.append(f"One model against one ({', '.join(single)} against {baseline}): other seeds may say otherwise.")
    others = [name for name in dict.fromkeys((baseline, *tests["system_b"])) if name not in single]
    if others != [baseline] and (once := [name for name in others if counts.get(name, 1) == 1]):
        found.append(
            f"One training run of {', '.join(once)}: p does not know how it varies with the seed, and is too small."
        )
    return found


def said(manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return what to know of the numbers: what intervals and marks are, and what came up as they were made."""
    return [intervals(manifest, frames), *tests_of(manifest, frames), *manifest["notes"]]


def notes(manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return what the numbers are of: what is `said` of them, signatures, checkpoints."""
    scores = frames["evaluation.csv"].drop_duplicates("metric")
    signatures = [f"{METRICS[row['metric']].label}|{row['metric_signature']}" for _, row in scores.iterrows()]
    systems = [f"{label}: ckpt {facts['sha256'][:8]}" for label, facts in manifest["systems"].items()]
    return [*said(manifest, frames), manifest["signature"], *signatures, "; ".join(systems)]


def save(place: Path, manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> None:
    """Write every table to `place`, as text, CSV and LaTeX."""
    below = [*notes(manifest, frames), manifest["command"]]
    for name, (title, table) in tables(frames).items():
        table.save(place / name, [f"{title}.", *below])


def text(manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> str:
    """Return what is printed: systems by tier, with intervals, by group, and what the numbers are of."""
    shown = [f"{title}\n\n{table.shown().to_string(index=False)}\n" for title, table in tables(frames).values()]
    return "\n".join([*shown, *notes(manifest, frames)])
