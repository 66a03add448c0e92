"""What the study has found so far, as a page: python answer.py STUDY writes STUDY/study.md from the tables there.

Each row is a claim, what the paper saw, what was seen here with its 95 % interval over training seeds, and a verdict.
No number stands there that is not made of the tables of the study.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from study import LONGER, MARGIN, SEEDS, UPDATES, System, listed, recipes

from sensikit.languages import family_of
from sensikit.run import Run
from sensikit.statistics.comparison import correlation_difference

NAMES = {"REGULAR": "Regular", "REGULAR-LONGER": "Regular, longer", "ID-LONGER": "ID, longer", "TABLE4-5": "DAE+ID"}
UNANSWERED = "not yet answered (0 seeds)"


class Found(NamedTuple):
    """A difference and its interval; `wanted` is the sign that the claim gives it, 0 where it gives none."""

    what: str
    difference: float
    low: float
    high: float
    seeds: tuple[int, ...]
    wanted: int

    def row(self) -> str:
        """Return the last three cells of a row of the page."""
        n = min(self.seeds)
        if n == 0:
            return f"{self.what}: – | 0 | {UNANSWERED}"
        shown = "–" if np.isnan(self.difference) else f"{self.difference:+.3g}"
        interval = "" if np.isnan(self.low) else f" ({self.low:+.3g} to {self.high:+.3g})"
        ends = sorted(each * (self.wanted or 1) for each in (self.low, self.high))
        if n < SEEDS:
            verdict = f"not yet answered ({n} seed{'s' * (n > 1)})"
        elif self.wanted == 0:
            verdict = "differs from 0" if ends[0] > 0 or ends[1] < 0 else "not told apart"
        else:
            verdict = "holds here" if ends[0] > 0 else "refuted here" if ends[1] < 0 else "not told apart"
        return f"{self.what}: {shown}{interval} | {' and '.join(map(str, self.seeds))} | {verdict}"


def welch(what: str, a: Sequence[float] | None, b: Sequence[float], wanted: int) -> Found:
    """Return the mean of b minus that of a over their seeds, or the mean of b where there is no a."""
    seeds = (len(b),) if a is None else (len(a), len(b))
    if min(seeds) == 0:
        return Found(what, np.nan, np.nan, np.nan, seeds, wanted)
    difference = float(np.mean(b) - (0 if a is None else np.mean(a)))
    if min(seeds) < 2:
        return Found(what, difference, np.nan, np.nan, seeds, wanted)
    test = stats.ttest_1samp(b, 0) if a is None else stats.ttest_ind(b, a, equal_var=False)
    low, high = test.confidence_interval()
    return Found(what, difference, float(low), float(high), seeds, wanted)


class Study:
    """The tables of a study.

    Attributes:
        out: its directory.
        seeds: by recipe, the training seeds that were evaluated.
    """

    def __init__(self, out: Path, direction: str = "xxx-eng") -> None:
        done = [each for each in listed(out) if each.direction == direction and each.chosen(out) is not None]
        self.out, self.seeds = out, recipes(out, done)
        self.place = out / System("regular", direction).evaluation

    def table(self, system: System, name: str) -> pd.DataFrame | None:
        """Return a table of an analysed system, where it is there."""
        path = self.out / "analysed" / system.name / name
        return pd.read_csv(path) if path.is_file() else None

    def of(self, recipe: str, name: str, value: Callable[[pd.DataFrame], float]) -> list[float]:
        """Return a number for each seed of a recipe that has the table."""
        found = [self.table(each, name) for each in self.seeds.get(recipe, [])]
        return [value(each) for each in found if each is not None]

    def score(self, recipe: str, metric: str) -> list[float]:
        """Return the mean over languages of each seed of a recipe."""
        path = self.place / "tiers.csv"
        if not path.is_file():
            return []
        table = pd.read_csv(path)
        means = table[(table["tier"] == "All") & (table["metric"] == metric)].set_index("system")["value"]
        return [float(means[each.name]) for each in self.seeds.get(recipe, []) if each.name in means]

    def runs(self, recipe: str) -> list[Run]:
        """Return the analysed seeds of a recipe."""
        return [Run.open(self.out / "analysed" / each.name) for each in self.seeds.get(recipe, [])
                if self.table(each, "correlation.csv") is not None]  # fmt: skip


def scores(study: Study, a: str, b: str, wanted: int = 1) -> Iterator[Found]:
    """Yield how much better b is than a in BLEU and chrF++."""
    for metric, label in (("bleu", "BLEU"), ("chrf", "chrF++")):
        yield welch(f"{label}, {named(b)} − {named(a)}", study.score(a, metric), study.score(b, metric), wanted)


def named(recipe: str) -> str:
    """Return what a recipe is called."""
    return NAMES.get(recipe, recipe)


def alike(study: Study) -> Iterator[Found]:
    """(a): the change of the PCC between languages with ID; one border for all runs between the subsets."""
    ours, theirs = study.runs("REGULAR"), study.runs("ID")
    table = correlation_difference(ours, theirs) if ours and theirs else None
    for subset in ("high", "low"):
        what = f"PCC, {subset} subset, ID − Regular"
        if table is None:
            yield welch(what, [], [], -1)
        else:
            row = table[(table["subset"] == subset) & (table["group_a"] == "")].iloc[0]
            seeds = len(ours), len(theirs)
            # of one run it is of batches, and says nothing of other seeds
            ends = (row["difference_low"], row["difference_high"]) if min(seeds) > 1 else (np.nan, np.nan)
            yield Found(what, float(row["difference"]), *map(float, ends), seeds, -1)


def means(table: pd.DataFrame, order: str, metric: str) -> pd.Series:
    """Return the mean over languages by ratio, of an order with its start."""
    of = table[(table["metric"] == metric) & table["order"].isin([order, "none"])]
    found: pd.Series = of.groupby("ratio")["value"].mean()
    return found


def kept(table: pd.DataFrame) -> float:
    """Return the share of BLEU, in %, that is kept, mean over the ratios of the curve."""
    curve = means(table, "specificity", "bleu")
    return float(100 * (curve.iloc[1:] / curve.iloc[0]).mean())


def risen(table: pd.DataFrame) -> float:
    """Return how much the loss has risen, in nats, mean over the ratios of the curve."""
    curve = means(table, "specificity", "loss")
    return float((curve.iloc[1:] - curve.iloc[0]).mean())


def curves(study: Study) -> Iterator[Found]:
    """(b): how much of BLEU is kept as the least specific parameters go."""
    for what, value, wanted in (("BLEU kept, %", kept, 1), ("loss risen, nats", risen, -1)):
        a, b = (study.of(name, "pruning.csv", value) for name in ("REGULAR", "ID"))
        yield welch(f"{what}, mean over ratios, ID − Regular", a, b, wanted)


def matched(study: Study) -> Iterator[Found]:
    """(g): the least specific first, minus at random, at equal sensitivity."""
    for metric, label, wanted in (("bleu", "BLEU", 1), ("loss", "nats", -1)):
        for name in ("REGULAR", "ID"):

            def gain(table: pd.DataFrame, metric: str = metric) -> float:
                return float((means(table, "matched", metric) - means(table, "matched-random", metric)).iloc[1:].mean())

            values = study.of(name, "pruning.csv", gain)
            yield welch(f"{label}, least specific first − random, {named(name)}", None, values, wanted)


def tasks(study: Study) -> Iterator[Found]:
    """(e): how alike translation and denoising are."""

    def value(table: pd.DataFrame) -> float:
        return float(table.loc[table["subset"] == "all", "corrected"].mean())

    a, b = (study.of(name, "similarity.csv", value) for name in ("CD", "CD+ID"))
    yield welch("PCC of the two tasks, CD+ID − CD", a, b, 1)


def balance(study: Study) -> Iterator[Found]:
    """(f): how unequal sensitivities are, without the most sensitive 1 % (as in the figure)."""

    def value(table: pd.DataFrame) -> float:
        found = table[(table["task"] == "mt") & (table["statistic"] == "cv_below_top1")]
        return float(found["value"].astype(float).mean())

    a, b = (study.of(name, "balance.csv", value) for name in ("REGULAR", "ID"))
    yield welch("coefficient of variation of S, ID − Regular", a, b, -1)


def denoising(study: Study) -> Iterator[Found]:
    """(c): CD against the other objectives on monolingual text."""
    for other in ("DAE", "DAE+MLM", "MASS"):
        yield from scores(study, other, "CD")


def best(study: Study) -> Iterator[Found]:
    """(d): ID, and CD with ID, against Regular."""
    longer = "REGULAR-LONGER"
    for a, b in (("REGULAR", "ID"), (longer, "ID"), (longer, "ID-LONGER"), ("REGULAR", "CD+ID"), ("ID", "CD+ID")):
        yield from scores(study, a, b)


def maps(study: Study) -> Iterator[Found]:
    """(h): what the PCC of pairs of languages goes with; all have as much text here, so size is not asked."""
    words: dict[str, set[str]] = {}
    for path in sorted((study.out / "data" / "text").glob("train.*-eng.*")):
        words.setdefault(path.suffix[1:], set()).update(path.read_text("utf-8").lower().split())

    def rho(table: pd.DataFrame, kin: bool) -> float:
        of = table[(table["task"] == "mt") & (table["subset"] == "low")].set_index(["group_a", "group_b"])["corrected"]
        pairs = list(combinations(sorted(of.index.get_level_values(0).unique()), 2))
        shared = [len(words[a] & words[b]) / len(words[a] | words[b]) for a, b in pairs]
        related = [float(family_of(a) == family_of(b)) for a, b in pairs]
        return float(stats.spearmanr([of[pair] for pair in pairs], related if kin else shared).statistic)

    for kin, label in ((True, "being of one family"), (False, "the words that both have")):
        values = study.of("REGULAR", "correlation.csv", lambda table, kin=kin: rho(table, kin))  # type: ignore[misc]
        yield welch(f"rank correlation of PCC (low subset, Regular) with {label}", None, values, 0)


CLAIMS: tuple[tuple[str, str, Callable[[Study], Iterator[Found]]], ...] = (
    ("(a) ID lowers the PCC between languages, more so in the low subset", "all pairs fall (Figure 2)", alike),
    ("(b) Pruned by D, models with ID lose more slowly", "slower drop (Figure 3)", curves),
    ("(c) CD is better than DAE, DAE+MLM and MASS", "Tables 2 and 3", denoising),
    ("(d) ID is better than Regular, CD+ID is best", "+1.21 BLEU of ID on M8 (Table 1)", best),
    ("(e) Translation and CD are more alike with ID", "Figure 7", tasks),
    ("(f) ID balances sensitivity", "Figure 10", balance),
    ("(g) At equal sensitivity, pruning the least specific first is better than at random", "not asked", matched),
    ("(h) How alike languages are follows family, or shared words", "not asked", maps),
)  # fmt: skip


def least(out: Path, system: System) -> int:
    """Return the update at which the validation loss of a system was lowest."""
    lines = (out / "training" / system.folder / "log.jsonl").read_text("utf-8").splitlines()
    valid = [line for line in map(json.loads, lines) if line["set"] == "valid"]
    of = [line for line in valid if line["num_updates"] <= system.updates]
    return int(min(of, key=lambda line: float(line["loss"]))["num_updates"])


def chosen(out: Path, system: System, best: pd.Series) -> str:
    """Return what was chosen of a system, and where its validation loss was lowest."""
    return (
        f"- {system.name}: {best['checkpoint']}, length penalty {best['lenpen']:g}; there BLEU {best['value']:.2f}, "
        f"brevity penalty {best['brevity_penalty']:.3f}; its validation loss was least at {least(out, system)}"
    )


def page(out: Path) -> str:
    """Return the page."""
    study, from_english = Study(out), Study(out, "eng-xxx")
    rows = []
    for text, paper, claim in CLAIMS:
        found = list(claim(study))
        some = [each.row() for each in found if min(each.seeds)]
        rows += [f"| {text} | {paper} | {row} |" for row in some or [f"– | 0 | {UNANSWERED}"]]
        rows += [f"| | | {each.row()} |" for each in found if some and not min(each.seeds)]
    more = [each._replace(what=f"{each.what}, from English") for each in scores(from_english, "REGULAR", "ID")]
    rows += [f"| (d), from English | Table 5 | {each.row()} |" for each in more]
    systems = list(listed(out))
    waiting = [each.name for each in systems if not list(out.glob(each.trained().makes))]
    tested = {each: best for each in systems if (best := each.chosen(out)) is not None}
    notes = [chosen(out, each, best) for each, best in tested.items()]
    falling = [each.name for each in tested if least(out, each) == each.updates]
    at_the_end = (
        "The validation loss still fell at the last update of these, so the table compares them at equal updates"
    )
    unfinished = [f"{at_the_end}, and not where they end: {', '.join(falling)}.", ""] if falling else []
    return "\n".join([
        "# The paper's claims, put to the test", "",
        f"Written by `make study` from its tables. A claim is answered with {SEEDS} training seeds of each system: it "
        "holds here, is refuted here, or the two are not told apart, by the 95 % interval over seeds (Welch's t). The "
        "systems, all small (2+2 layers, 128 dimensions), translate eight languages, of up to 2,000 pairs each, into "
        f"English. Each is trained for {UPDATES:,} updates (equal updates); Regular goes on to {LONGER:,} (equal "
        "time), and in the end ID as well (convergence). Its checkpoint and length penalty are chosen by BLEU on the "
        f"validation sets, and so is its dropout, where one seed is better by {MARGIN:g}: seeds differ by as much.", "",
        "| claim | the paper | here | seeds | verdict |", "|---|---|---|---|---|", *rows, "", *unfinished,
        "## What was chosen", "", *(notes or ["Nothing yet."]), "",
        "## What is still to run", "",
        f"Not trained yet: {', '.join(waiting) or 'nothing'}; then the other seeds and what follows from them.", "",
    ])  # fmt: skip


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "study.md.partial").write_text(page(place), encoding="utf-8")
    (place / "study.md.partial").rename(place / "study.md")
