"""The tables of a report: tidy frames in, small tables out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sensikit.figures import differences as changed
from sensikit.figures.curves import METRICS, UNPRUNED, curve, line_of
from sensikit.figures.distributions import placed, wide
from sensikit.figures.heatmaps import SUBSETS, pairs
from sensikit.figures.sizes import sizes
from sensikit.figures.style import TIERS, of_run, order, percent, runs
from sensikit.tables import Table


def _tidied(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a frame, without the columns Run and Task where they are the same all along."""
    frame = pd.DataFrame(rows)
    return frame.drop(columns=[name for name in ("Run", "Task") if name in frame and frame[name].nunique() == 1])


def headline(tables: Mapping[str, pd.DataFrame]) -> Table:
    """Return a row for each run: mean PCC of the subsets with its ceiling, BLEU unpruned and at the largest ratio."""
    rows: dict[str, dict[str, Any]] = {}
    if "correlation.csv" in tables:
        frame = tables["correlation.csv"]
        frame = correlation(frame[frame["task"] == "mt"]).frame
        for _, row in frame[frame["Group"] != SUBSETS["all"]].iterrows():
            name = "high" if row["Group"] == SUBSETS["high"] else "low"
            found = {f"PCC, {name} subset": row["PCC"], f"ceiling, {name}": row["Ceiling"]}
            rows.setdefault(row.get("Run", ""), {}).update(found)
    if "pruning.csv" in tables:
        scores = tables["pruning.csv"]
        points = curve(scores)
        points = points[points["order"] == "specificity"]
        for label in runs(scores):
            of_label = of_run(scores, label)
            found = {"BLEU": of_label.loc[of_label["order"] == UNPRUNED, "bleu"].mean()}
            last = points["ratio"].max()
            at = of_run(points, label).set_index("ratio")["value"]
            found |= {f"BLEU, {percent(last)} pruned": at.get(last)} if len(points) else {}
            rows.setdefault(label, {}).update(found)
    frame = pd.DataFrame([{"Run": label, **row} for label, row in rows.items()])
    return Table(
        frame, {name: ".2f" if name.startswith("BLEU") else ".3f" for name in map(str, frame) if name != "Run"}
    )


def languages(known: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the languages with their families, resource levels and sizes (Table 7 of the paper)."""
    frame = sizes(known).rename(
        columns={
            "group": "Language", "name": "Name", "family": "Family", "tier": "Resource", "train": "Train",
            "valid": "Valid", "test": "Test", "mono": "Monolingual",
        }
    )  # fmt: skip
    frame = frame.dropna(axis="columns", how="all")
    return Table(frame, dict.fromkeys(("Train", "Valid", "Test", "Monolingual"), ",.0f"))


def quality_by_tier(frame: pd.DataFrame, known: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the quality of the unpruned models, mean over the languages of each tier and over all (Table 1)."""
    start = frame[frame["order"] == UNPRUNED]
    rows = []
    for label in runs(start):
        scores = of_run(start, label)
        tier = scores["group"].map(lambda code: known[code]["tier"])
        for metric, name in METRICS.items():
            means = {each: scores.loc[tier == each, metric].mean() for each in TIERS}
            rows.append({"Run": label, "Score": name, **means, "All": scores[metric].mean()})
    return Table(_tidied(rows), dict.fromkeys((*TIERS, "All"), ".2f"))


def quality_by_language(frame: pd.DataFrame, known: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the quality of the unpruned models for each language, BLEU with its 95% interval over test sentences."""
    start = frame[frame["order"] == UNPRUNED]
    rows = [
        {
            "Run": label, "Language": code, "Resource": known[code]["tier"], "BLEU": row["bleu"],
            "95% from": row["bleu_low"], "to": row["bleu_high"], "chrF++": row["chrf"], "Sentences": row["sentences"],
        }
        for label in runs(start)
        for code in order(known)
        for _, row in of_run(start, label)[lambda rows, code=code: rows["group"] == code].iterrows()
    ]  # fmt: skip
    formats = {**dict.fromkeys(("BLEU", "95% from", "to", "chrF++"), ".2f"), "Sentences": ",.0f"}
    return Table(_tidied(rows), formats)


def pruning(frame: pd.DataFrame, metric: str = "bleu") -> Table:
    """Return the mean over languages at each ratio, a column for each ratio and a row for each order."""
    points = curve(frame, metric)
    rows = []
    for label in runs(points):
        of_label = points[points["run"] == label]
        for name in dict.fromkeys(of_label["order"]):
            at = of_label[of_label["order"] == name].set_index("ratio")["value"]
            rows.append(
                {"Run": label, "Order": line_of(name).name, **{percent(ratio): value for ratio, value in at.items()}}
            )
    table = _tidied(rows)
    ratios = [percent(ratio) for ratio in sorted(points["ratio"].unique())]
    return Table(table[[name for name in table if name not in ratios] + ratios], dict.fromkeys(ratios, ".2f"))


def correlation(frame: pd.DataFrame) -> Table:
    """Return the mean PCC over pairs of different languages by subset, with the mean of the pairs' noise ceilings."""
    rows = []
    for label in runs(frame):
        of_label = pairs(of_run(frame, label))
        for task in dict.fromkeys(of_label["task"]):
            for subset in (name for name in SUBSETS if name in set(of_label["subset"])):
                # every pair stands there in both orders
                found = of_label[(of_label["task"] == task) & (of_label["subset"] == subset)]
                found = found[found["group_a"] < found["group_b"]]
                decided = found["at_ceiling"].dropna()
                rows.append(
                    {
                        "Run": label, "Task": task, "Group": SUBSETS[subset], "Pairs": len(found),
                        "PCC": found["pcc"].mean(), "Least": found["pcc"].min(), "Most": found["pcc"].max(),
                        "Ceiling": found["ceiling"].mean(),
                        "At ceiling": int(decided.sum()) if len(decided) else None,
                    }
                )  # fmt: skip
    formats = {**dict.fromkeys(("PCC", "Least", "Most", "Ceiling"), ".3f"), "At ceiling": ".0f"}
    table = _tidied(rows)
    return Table(table.astype({"At ceiling": "Int64"}), formats)


def _statistics(
    frame: pd.DataFrame, known: Mapping[str, Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]
) -> Table:
    rows = []
    for task in dict.fromkeys(frame["task"]):
        table = wide(frame, task)
        for label in runs(table):
            found = of_run(table, label).set_index("group")
            for code in placed(found.reset_index(), known):
                values = {heading: found.loc[code, name] for name, (heading, _) in columns.items()}
                rows.append({"Run": label, "Task": task, "Language": code, **values})
    return Table(_tidied(rows), dict(columns.values()))


def specificity(frame: pd.DataFrame, known: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the distribution of D of each language: median, tails, share above 0, and where σ decides."""
    columns = {
        "q01": ("1%", "#.3g"), "q25": ("25%", "#.3g"), "median": ("Median", "#.3g"), "q75": ("75%", "#.3g"),
        "q99": ("99%", "#.3g"), "share_positive": ("D > 0", ".1%"), "share_ties_at_zero": ("D = 0", ".2%"),
        "share_small_denominator": ("S_-l < 10 sigma", ".2%"),
    }  # fmt: skip
    return _statistics(frame, known, columns)


def balance(frame: pd.DataFrame, known: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return how evenly S is spread over the parameters: its mean, deviation, and what the top 10% hold."""
    columns = {
        "mean": ("Mean S", "#.3g"), "median": ("Median S", "#.3g"), "cv": ("Std / mean", ".2f"),
        "share_top10": ("Held by top 10%", ".1%"), "zero_share": ("S = 0", ".2%"),
    }  # fmt: skip
    return _statistics(frame, known, columns)


def differences(frame: pd.DataFrame) -> Table:
    """Return the mean change in PCC between two runs by subset, with its interval, and how many pairs moved by more.

    Args:
        frame: rows of `comparison.correlation_difference`, with a column `run` that names the two.
    """
    rows = []
    for label in runs(frame):
        of_label = of_run(frame, label)
        for task in dict.fromkeys(of_label["task"]):
            for subset in (name for name in SUBSETS if name in set(of_label["subset"])):
                found = of_label[(of_label["task"] == task) & (of_label["subset"] == subset)]
                mean, once = changed.means(found).iloc[0], changed.pairs(found)
                once = once[once["group_a"] < once["group_b"]]
                rows.append(
                    {
                        "Run": label, "Task": task, "Group": SUBSETS[subset], "First": mean["pcc_a"],
                        "Second": mean["pcc_b"], "Change": mean["difference"], "95% from": mean["difference_low"],
                        "to": mean["difference_high"], "Pairs": len(once),
                        "Down": int((once["difference_high"] < 0).sum()),
                        "Up": int((once["difference_low"] > 0).sum()),
                    }
                )  # fmt: skip
    formats = {**dict.fromkeys(("First", "Second"), ".3f"), **dict.fromkeys(("Change", "95% from", "to"), "+.3f")}
    return Table(_tidied(rows), formats)


SIDES = {"cd": ("e", "d"), "mlm": ("e",), "dae": ("d",), "mass": ("d",)}
"""The losses of an objective, as the paper calls them: of the encoder and of the decoder."""
TERMS = {"translation": "MMT", "encoder": "e", "decoder": "d"}

PROJECTIONS = {True: "separate", False: "shared", None: None}


def loss_terms(denoise: str, distill: str) -> str:
    """Return what a system was trained to minimise, in the notation of Table 4 of the paper.

    Args:
        denoise: its objectives on monolingual text, joined by commas.
        distill: its terms with intra-distillation, joined by commas.
    """
    objectives, distilled = ([part for part in names.split(",") if part] for names in (denoise, distill))
    sides = ["MMT", *sorted({side for name in objectives for side in SIDES.get(name, (name,))}, reverse=True)]
    prime = "′" if distilled else ""
    text = " + ".join(f"L{prime}_{side}" for side in sides)
    terms = [f"L_id_{TERMS.get(name, name)}" for name in distilled]
    if not terms:
        return text
    return f"{text} + α {terms[0]}" if len(terms) == 1 else f"{text} + α ({' + '.join(terms)})"


def systems(facts: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return what each system is (Table 4): its loss, its settings, its checkpoint; what no system has is left out."""
    rows = [
        {
            "System": name, "Loss": loss_terms(of.get("denoise") or "", of.get("distill") or ""),
            "Denoising": of.get("denoise"), "Masked": of.get("mask_ratio"), "K": of.get("id_k"),
            "α": of.get("id_alpha"),
            "Projection": PROJECTIONS.get(of.get("separate_projection")),
            "Updates": of.get("updates"), "Checkpoint": str(of["sha256"])[:8],
        }
        for name, of in facts.items()
    ]  # fmt: skip
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    return Table(frame, {"Masked": ".0%", "K": ".0f", "α": "g", "Updates": ",.0f"})


def curve_tests(tests: pd.DataFrame) -> Table:
    """Return what one pruning curve has over another at each ratio, with its interval and p (see `curve_tests.py`)."""

    def curve_of(row: pd.Series[Any], side: str) -> str:
        run = f"{row[f'run_{side}']}, " if several else ""
        return f"{run}{line_of(row[f'order_{side}']).name}"

    several = tests[["run_a", "run_b"]].stack().nunique() > 1
    frame = pd.DataFrame(
        [
            {
                "First": curve_of(row, "a"), "Second": curve_of(row, "b"), "Pruned": percent(row["ratio"]),
                "Difference": row["difference"], "95% from": row["difference_low"], "to": row["difference_high"],
                "p": row["p"],
                **({"Change": row["change"], "p of change": row["change_p"]} if several else {}),
            }
            for _, row in tests.iterrows()
        ]
    )  # fmt: skip
    formats = {**dict.fromkeys(("Difference", "95% from", "to", "Change"), "+.2f"), "p": ".3f", "p of change": ".3f"}
    return Table(frame, formats)
