"""The tables of a report: tidy frames in, small tables out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from sensikit.evaluation.metrics import LENGTHS, METRICS
from sensikit.figures.correlation import changed_pairs, mean_changes, pairs
from sensikit.figures.curves import line_of
from sensikit.figures.data import sizes
from sensikit.figures.frames import Groups, averaged, metrics_of, of_metric, of_run, of_task, present, runs
from sensikit.figures.points import CHOSEN, curve, curve_over_seeds
from sensikit.figures.spread import placed, shown, wide
from sensikit.figures.style import TIERS
from sensikit.figures.words import SUBSETS, percent, subset_names
from sensikit.pruning.ledger import PRUNING, UNPRUNED
from sensikit.report.text import judgements, listed
from sensikit.statistics.correlation import CORRELATION
from sensikit.tables import P_VALUE, Table

LENGTH_LABELS = dict(zip(LENGTHS, ("Length ratio", "Brevity penalty"), strict=True))


def _tidied(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a frame, without the columns Run and Task where they are the same all along."""
    frame = pd.DataFrame(rows)
    return frame.drop(columns=[name for name in ("Run", "Task") if name in frame and frame[name].nunique() == 1])


def _with_recipes(frame: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return the rows of the runs, behind the means of recipes that some are training seeds of."""
    means = averaged(frame, key)
    return pd.concat([means[means["runs"] > 1], frame], ignore_index=True) if "recipe" in frame else frame


def headline(tables: Mapping[str, pd.DataFrame], recipes: Mapping[str, Sequence[str]] | None = None) -> Table:
    """Return a row for each run: mean PCC of the subsets, quality unpruned and at the largest ratio.

    Recipes, the means over their training seeds, come first.
    """
    rows: dict[str, dict[str, Any]] = {}
    formats: dict[str, str] = {}
    if CORRELATION.name in tables:
        for label, _, subset, cells in _by_subset(_with_recipes(of_task(tables[CORRELATION.name]), CORRELATION.key)):
            if subset != "all":
                once = pairs(cells)
                means: dict[str, Any] = {
                    f"PCC, {subset} subset": once["corrected"].mean(),
                    f"of these batches, {subset}": once["pcc"].mean(),
                }
                rows.setdefault(label, {}).update(means)
                formats |= dict.fromkeys(means, ".3f")
    if PRUNING.name in tables:
        scores = of_metric(tables[PRUNING.name])
        metric = METRICS[scores["metric"].iloc[0]].label
        points = _with_recipes(curve(scores), ["order", "ratio", "metric"])
        scores = _with_recipes(scores[scores["order"] == UNPRUNED], ["order", "group"])
        points = points[points["order"] == CHOSEN]
        for label in runs(scores):
            of_label = of_run(scores, label)
            means = {metric: of_label.loc[of_label["order"] == UNPRUNED, "value"].mean()}
            last = points["ratio"].max()
            at = of_run(points, label).set_index("ratio")["value"]
            means |= {f"{metric}, {percent(last)} pruned": at.get(last)} if len(points) else {}
            rows.setdefault(label, {}).update(means)
            formats |= dict.fromkeys(means, METRICS[scores["metric"].iloc[0]].digits)
    counts = {name: {"Seeds": len(those)} for name, those in (recipes or {}).items()}
    heads = {label: counts.get(label, {"Seeds": 1} if counts else {}) for label in rows}
    table = pd.DataFrame([{"Run": label, **heads[label], **row} for label, row in rows.items()])
    return Table(table, {**formats, "Seeds": ".0f"} if counts else formats)


def groups(known: Groups) -> Table:
    """Return the groups with their families, resource levels and sizes (Table 7 of the paper)."""
    frame = sizes(known).rename(
        columns={
            "group": "Language", "name": "Name", "family": "Family", "tier": "Resource", "train": "Train",
            "valid": "Valid", "dev": "Dev", "test": "Test", "devtest": "Devtest", "mono": "Monolingual",
        }
    )  # fmt: skip
    frame = frame.dropna(axis="columns", how="all")
    return Table(frame, dict.fromkeys(("Train", "Valid", "Dev", "Test", "Devtest", "Monolingual"), ",.0f"))


def quality_by_tier(frame: pd.DataFrame, known: Groups) -> Table:
    """Return the quality of the unpruned models, mean over the groups of each tier and over all (Table 1)."""
    start = _with_recipes(frame[frame["order"] == UNPRUNED], PRUNING.key)
    rows = []
    for label in runs(start):
        for metric in metrics_of(start):
            scores = of_metric(of_run(start, label), metric)
            tier = scores["group"].map(lambda key: known[key]["tier"])
            means = {each: scores.loc[tier == each, "value"].mean() for each in TIERS}
            rows.append({"Run": label, "Score": METRICS[metric].label, **means, "All": scores["value"].mean()})
    table = _tidied(rows).dropna(axis="columns", how="all")  # tiers that no group is of
    return Table(table, dict.fromkeys((*TIERS, "All"), ".2f"))


def quality_by_group(frame: pd.DataFrame, known: Groups) -> Table:
    """Return the quality of the unpruned models for each group, of the first metric with its 95% interval."""
    start = frame[frame["order"] == UNPRUNED]
    first, *others = metrics_of(start)
    rows = []
    for label in runs(start):
        of_label = of_run(start, label)
        values = of_label.set_index(["metric", "group"])["value"]
        scores = of_metric(of_label, first).set_index("group")
        for key in present(known, scores.index):
            score, more = scores.loc[key], {METRICS[metric].label: values.get((metric, key)) for metric in others}
            more |= {label: score[name] for name, label in LENGTH_LABELS.items() if METRICS[first].lengths}
            rows.append(
                {
                    "Run": label, "Language": key, "Resource": known[key]["tier"], METRICS[first].label: score["value"],
                    "95% from": score["value_low"], "to": score["value_high"], **more, "Sentences": score["sentences"],
                }
            )  # fmt: skip
    formats = {METRICS[metric].label: METRICS[metric].digits for metric in (first, *others)}
    formats |= dict.fromkeys(("95% from", "to"), METRICS[first].digits) | dict.fromkeys(LENGTH_LABELS.values(), ".3f")
    return Table(_tidied(rows), {**formats, "Sentences": ",.0f"})


def brevity(frame: pd.DataFrame) -> Table:
    """Return the mean brevity penalty in BLEU at each ratio, as `pruning` returns the score."""
    return pruning(frame.assign(value=frame["brevity_penalty"], value_low=math.nan, value_high=math.nan), "bleu")


def pruning(frame: pd.DataFrame, metric: str = "") -> Table:
    """Return the mean over groups at each ratio, a column for each ratio and a row for each order."""
    points = curve_over_seeds(curve(frame, metric))
    rows = []
    for label in runs(points):
        of_label = points[points["run"] == label]
        for name in dict.fromkeys(of_label["order"]):
            at = of_label[of_label["order"] == name].set_index("ratio")["value"].rename(index=percent).to_dict()
            rows.append({"Run": label, **_seeds(of_label), "Order": line_of(name).name, **at})
    table = _tidied(rows)
    ratios = [percent(ratio) for ratio in sorted(points["ratio"].unique())]
    formats = dict.fromkeys(ratios, METRICS[points["metric"].iloc[0]].digits)
    return Table(table[[name for name in table if name not in ratios] + ratios], formats)


def correlation(frame: pd.DataFrame) -> Table:
    """Return how alike different groups are by subset, means over pairs: the corrected PCC and what is beside it."""
    names, rows = subset_names(frame), []
    for label, task, subset, cells in _by_subset(averaged(frame, CORRELATION.key)):
        once = pairs(cells)
        once = once[once["group_a"] < once["group_b"]]  # every pair stands there in both orders
        decided = once["at_ceiling"].dropna()
        rows.append(
            {
                "Run": label, **_seeds(cells), "Task": task, "Subset": names[subset], "Pairs": len(once),
                "PCC": once["corrected"].mean(), "Least": once["corrected"].min(), "Most": once["corrected"].max(),
                "May be 1": int(decided.sum()) if len(decided) else None, "These batches": once["pcc"].mean(),
                "Ceiling": once["ceiling"].mean(), "Spearman": once["spearman"].mean(),
                "PCC of log S": once["log_pcc"].mean(), "Half of variance": cells["half_variance_a"].median(),
            }
        )  # fmt: skip
    values = ("PCC", "Least", "Most", "These batches", "Ceiling", "Spearman", "PCC of log S")
    formats = {**dict.fromkeys(values, ".3f"), "May be 1": ".0f", "Half of variance": ",.0f"}
    return Table(_tidied(rows).astype({"May be 1": "Int64"}), formats)


def _by_subset(frame: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield each run, task and subset that a table has, with its rows."""
    for label in runs(frame):
        of_label = of_run(frame, label)
        for task in dict.fromkeys(of_label["task"]):
            rows = of_task(of_label, task)
            for subset in (name for name in SUBSETS if name in set(rows["subset"])):
                yield label, task, subset, rows[rows["subset"] == subset]


def _seeds(of_run: pd.DataFrame) -> dict[str, int]:
    """Return how many training seeds a mean is of, where runs are grouped."""
    return {"Seeds": int(of_run["runs"].max())} if "runs" in of_run else {}


def _statistics(frame: pd.DataFrame, known: Groups, columns: Mapping[str, tuple[str, str]]) -> Table:
    rows = []
    for task in dict.fromkeys(frame["task"]):
        table = averaged(wide(frame, task), ["group"])
        for label in runs(table):
            of_label = of_run(table, label).set_index("group")
            for key in placed(of_label.reset_index(), known):
                values = {heading: of_label.loc[key, name] for name, (heading, _) in columns.items()}
                rows.append({"Run": label, **_seeds(of_label), "Task": task, "Language": shown(key), **values})
    return Table(_tidied(rows), dict(columns.values()))


def specificity(frame: pd.DataFrame, known: Groups) -> Table:
    """Return the distribution of D of each group: median, tails, share above 0, and where σ decides."""
    columns = {
        "q01": ("1%", "#.3g"), "q25": ("25%", "#.3g"), "median": ("Median", "#.3g"), "q75": ("75%", "#.3g"),
        "q99": ("99%", "#.3g"), "share_positive": ("D > 0", ".1%"), "share_ties_at_zero": ("D = 0", ".2%"),
        "share_small_denominator": ("S_-l < 10 sigma", ".2%"),
    }  # fmt: skip
    return _statistics(frame, known, columns)


def balance(frame: pd.DataFrame, known: Groups) -> Table:
    """Return how evenly S is spread over the parameters: its mean, deviation, and what the top 10% hold."""
    columns = {
        "mean": ("Mean S", "#.3g"), "median": ("Median S", "#.3g"), "cv": ("Std / mean, all", ".2f"),
        "cv_below_top1": ("without top 1%", ".2f"),
        "share_top10": ("Held by top 10%", ".1%"), "zero_share": ("S = 0", ".2%"),
    }  # fmt: skip
    return _statistics(frame, known, columns)


def differences(frame: pd.DataFrame) -> Table:
    """Return the mean change in corrected PCC of two runs by subset, with its interval, and how many pairs moved.

    Beside it stand its extremes when one language is left out and, of recipes, over how many training seeds it is. The
    rows are those of `comparison.correlation_difference`, with columns `first` and `second` that name the runs, and
    `run`, which names both.
    """
    names, rows = subset_names(frame), []
    sides = ("first", "second")
    of = {side: frame[side].iloc[0] if frame[side].nunique() == 1 else f"{side} run" for side in sides}
    for label, task, subset, cells in _by_subset(frame):
        mean, once = mean_changes(cells).iloc[0], changed_pairs(cells)
        once = once[once["group_a"] < once["group_b"]]
        rows.append(
            {
                "Run": label, **_against(mean), "Task": task, "Subset": names[subset],
                f"PCC, {of['first']}": mean["corrected_a"],
                f"PCC, {of['second']}": mean["corrected_b"], "Change": mean["difference"],
                "95% from": mean["difference_low"], "to": mean["difference_high"],
                "Without one from": mean["without_low"], "Without one to": mean["without_high"], "Pairs": len(once),
                "Down": int((once["difference_high"] < 0).sum()),
                "Up": int((once["difference_low"] > 0).sum()),
            }
        )  # fmt: skip
    formats = {
        **dict.fromkeys((f"PCC, {name}" for name in of.values()), ".3f"),
        **dict.fromkeys(("Change", "95% from", "to", "Without one from", "Without one to"), "+.3f"),
    }
    return Table(_tidied(rows), formats)


def _against(row: pd.Series[Any]) -> dict[str, str]:
    """Return of how many training seeds a difference is: 1 against 1 of single runs."""
    return {"Seeds": f"{row['seeds_b']:.0f} against {row['seeds_a']:.0f}"}


SIDES = {"cd": ("e", "d"), "mlm": ("e",), "dae": ("d",), "mass": ("d",)}
"""The losses of an objective, as the paper calls them: of the encoder and of the decoder."""
TERMS = {"translation": "MMT", "encoder": "e", "decoder": "d"}

PROJECTIONS = {True: "separate", False: "shared", None: None}


def loss_terms(denoise: str, distill: str) -> str:
    """Return what a system was trained to minimise, in the notation of Table 4 of the paper.

    `denoise` are its objectives on monolingual text, and `distill` its terms with intra-distillation, each joined by
    commas.
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


def verdicts(tests: pd.DataFrame) -> Table:
    """Return at which ratios an order is better than another, worse, or not told from it (tests of one metric)."""
    found = judgements(tests)
    rows = [
        {"Run": run, "Order": line_of(str(order)).name, "Against": line_of(str(control)).name}
        | {heading: listed(at[at["verdict"] == name]["ratio"]) for name, heading in HEADINGS.items()}
        for (order, control), of in found.groupby(["order", "control"], sort=False)
        for run, at in of.groupby("run", sort=False)
    ]
    return Table(_tidied(rows), {})


HEADINGS = {"better": "Better at", "alike": "Not told apart at", "worse": "Worse at"}


def curve_tests(tests: pd.DataFrame) -> Table:
    """Return one pruning curve minus another at each ratio, by curve tests of one metric; p of a change is Holm's."""

    def curve_of(row: pd.Series[Any], side: str) -> str:
        run = f"{row[f'run_{side}']}, " if several else ""
        return f"{run}{line_of(row[f'order_{side}']).name}"

    several, over_seeds = tests[["run_a", "run_b"]].stack().nunique() > 1, (tests["seeds_b"] > 1).any()
    frame = pd.DataFrame(
        [
            {
                "First curve": curve_of(row, "a"), "Second curve": curve_of(row, "b"), "Pruned": percent(row["ratio"]),
                "Difference": row["difference"], "95% from": row["difference_low"], "to": row["difference_high"],
                "p": row["p"], "p Holm": row["p_holm"],
                **({"Change": row["change"], "p of change": row["change_p_holm"]} if several else {}),
                **(_against(row) if over_seeds else {}),
            }
            for _, row in tests.iterrows()
        ]
    )  # fmt: skip
    scores = dict.fromkeys(("Difference", "95% from", "to", "Change"), f"+{METRICS[tests['metric'].iloc[0]].digits}")
    formats = {**scores, **dict.fromkeys(("p", "p Holm", "p of change"), P_VALUE)}
    return Table(frame, formats)
