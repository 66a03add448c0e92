"""What the numbers of a figure let one conclude: a sentence or two, with the uncertainty that they have.

Every function here is pure: it returns the text behind "Result:" in a caption, without its full stop, and nothing where
there is nothing to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from sensikit.figures.frames import Groups, blank, families, of_run, runs
from sensikit.figures.words import bounded_in, joined, percent, span
from sensikit.languages import NO_FAMILY
from sensikit.statistics.convergence import ENOUGH, needed

UNSURE = "not told apart"
NO_INTERVAL = "without an interval"


def by_run(frame: pd.DataFrame, say: Callable[[pd.DataFrame], str], colon: str = ":") -> str:
    """Return what `say` makes of the rows of each run, with the name of the run where there are several."""
    said = [(label, say(of_run(frame, label))) for label in runs(frame)]
    return "; ".join(f"{label}{colon} {text}" if label else text for label, text in said if text)


def against_first(frame: pd.DataFrame, count: Callable[[pd.DataFrame, pd.DataFrame], str]) -> str:
    """Return how every later run compares with the first, by groups; nothing of a single run.

    `count` says it of the rows of the first and of the later run, of the same groups in the same order.
    """
    first, *others = (of_run(frame, label).set_index("group") for label in runs(frame))
    said = []
    for label, rows in zip(runs(frame)[1:], others, strict=True):
        both = first.index.intersection(rows.index, sort=False)
        if len(both):
            counts = (int(each["runs"].max()) if "runs" in each else 1 for each in (first, rows))
            text = count(first.loc[both], rows.loc[both])
            said.append(f"compared with {runs(frame)[0]}, {label} is {text} ({models(*counts)})")
    return "; ".join(said)


def models(first: int, second: int) -> str:
    """Return of how many trained models each the second is compared with the first."""
    return f"training seeds, {second} against {first}" if max(first, second) > 1 else "one model against one"


def sentences(*texts: str) -> str:
    """Return those of some texts that say something, one after the other."""
    found = [text for text in texts if text]
    return ". ".join([*found[:1], *(text[0].upper() + text[1:] for text in found[1:])])


# correlation


def beyond_noise(rows: pd.DataFrame, names: dict[str, str], what: str) -> str:
    """Return whether correlations are below 1 by more than noise: every one, or how many may not be.

    There is a row for each `what`, with `at_ceiling` (NA where it is not decided); `names` are those of the subsets.
    """
    known = rows.dropna(subset="at_ceiling")
    if known.empty:
        return "whether noise alone keeps them from 1 is not known"
    may, said = 0, []
    for subset, name in names.items():
        of_subset = known[known["subset"] == subset]
        for label in runs(of_subset):
            at = of_run(of_subset, label)["at_ceiling"].astype(bool)
            may += int(at.sum())
            where = ", ".join(filter(None, [name, label]))
            said += [f"{at.sum()} of {len(at)} {what}s{f' ({where})' if where else ''}"] if at.any() else []
    if may == known["subset"].isin(list(names)).sum():
        return f"in no {what} is the PCC below 1 by more than noise"
    below = "is below 1 by more than noise"
    if not said:
        return f"by the 95% intervals, the PCC {below} in every {what}"
    return (
        f"by the 95% intervals, noise alone may keep the PCC from 1 in {joined(said)}; in every other {what} it {below}"
    )


def by_subset(rows: pd.DataFrame, names: dict[str, str], say: Callable[[pd.DataFrame], str]) -> str:
    """Return what `say` makes of the rows of each subset and run, such as "low 0.7; high 0.9"."""
    found = []
    for subset, name in names.items():
        of_subset = rows[rows["subset"] == subset]
        said = [f"{label} {say(of_run(of_subset, label))}".strip() for label in runs(of_subset)]
        found += [f"{name}{':' if len(said) > 1 else ''} {', '.join(said)}"] if len(of_subset) else []
    return "; ".join(found)


def bounded_mean(rows: pd.DataFrame) -> str:
    """Return the mean of corrected PCCs, with the means of their bounds."""
    names = ["corrected", "corrected_low", "corrected_high"]
    return bounded_in(rows[names].mean(), names, ".3f")


OF_BOUNDS = "in brackets the mean of their 95% bounds"


def alike(pairs: pd.DataFrame, value: str, names: dict[str, str]) -> str:
    """Return whether groups differ by more than noise, and the mean of the column `value` over the pairs of a subset.

    The interval of a mean is the mean of the pairs' own, which needs no independence between pairs.
    """
    once = pairs[(pairs["group_a"] < pairs["group_b"]) & pairs[value].notna()]
    if once.empty:
        return ""
    count = len(once[["group_a", "group_b"]].drop_duplicates())
    if value == "corrected":
        means = by_subset(once, names, bounded_mean)
        bounds = f", {OF_BOUNDS}" if once["corrected_low"].notna().any() else ""
        return sentences(beyond_noise(once, names, "pair"), f"mean PCC of {count} pairs{bounds}: {means}")
    if value == "pcc":
        means = by_subset(
            once, names, lambda rows: f"{rows['pcc'].mean():.3f}, where noise alone would leave "
            f"{rows['ceiling'].mean():.3f}" if rows["ceiling"].notna().any() else f"{rows['pcc'].mean():.3f}"
        )  # fmt: skip
        return f"mean of {count} pairs: {means}"
    means = by_subset(once, names, lambda rows: f"{rows[value].mean():.3f}")
    return f"mean of {count} pairs: {means}, {NO_INTERVAL} and with the noise of these batches"


def changed(difference: pd.DataFrame, first: str, second: str, names: dict[str, str]) -> str:
    """Return the mean change over pairs in each subset with its interval, and of how many trained models."""
    means = difference[blank(difference["group_a"])].set_index("subset")  # the mean over pairs names no groups
    counts = difference[["seeds_a", "seeds_b"]].max().astype(int) if "seeds_a" in difference else (1, 1)
    said = []
    for subset, name in names.items():
        if subset in means.index:
            row: Any = means.loc[subset]
            found = bounded_in(row, ("difference", "difference_low", "difference_high"), "+.3f")
            unsure = f", {UNSURE}" if row["difference_low"] <= 0 <= row["difference_high"] else ""
            said.append(f"{name} {found}{unsure}")
    return f"{second} minus {first}, mean over pairs: {'; '.join(said)} ({models(*counts)})" if said else ""


def tree(merges: pd.DataFrame, groups: Groups, half: float) -> str:
    """Return which groups join first, how many families have a branch of their own, and what noise leaves undecided.

    `half` is half the width of a pair's interval, NaN where there is none.
    """
    kin = [set(members) for family, members in families(groups) if len(members) > 1 and family != NO_FAMILY]

    def of_run_(rows: pd.DataFrame) -> str:
        first = rows.sort_values("distance", kind="stable").iloc[0]
        text = f"the first to join are {first['first']} and {first['second']} ({first['distance']:.3f})"
        at_once = int((rows["distance"] == first["distance"]).sum())
        if at_once > 1:  # in which order they are listed says nothing, as of pairs whose PCC counts as 1
            text = f"{at_once} joins come first, all at {first['distance']:.3f}"
        joins = [set(re.findall(r"[^\s()]+", f"{row['first']} {row['second']}")) for _, row in rows.iterrows()]
        own = sum(members in joins for members in kin)
        if len(kin) == 1:
            return f"{text}; the family of several languages has {'a' if own else 'no'} branch of its own"
        has = "has a branch of its own" if own == 1 else "have a branch of their own"
        return f"{text}; {own} of {len(kin)} families of several languages {has}" if kin else text

    text = by_run(merges, of_run_) if len(merges) else ""
    noise = f"a pair is known to ±{half:.3f}: joins that differ by less may be noise" if half == half else ""
    return sentences(text, noise) if text else ""


def similar(over_batches: pd.DataFrame, over_seeds: pd.DataFrame, names: dict[str, str]) -> str:
    """Return whether two tasks differ by more than noise, their mean over groups, and where a later run differs.

    The rows of both frames are the same, but that the bounds of a recipe are the means of those over batches, which is
    what noise is, or are over its training seeds, which is what recipes are compared by.
    """
    known = over_batches.dropna(subset="corrected")
    if known.empty:
        return ""
    high = known["corrected_high"]
    known = known.assign(at_ceiling=(high >= 1).astype("boolean").where(high.notna()))
    means = f"mean over languages, {OF_BOUNDS}: {by_subset(known, names, bounded_mean)}"

    def parted(first: pd.DataFrame, later: pd.DataFrame) -> str:
        up = int((later["corrected_low"] > first["corrected_high"]).sum())
        down = int((later["corrected_high"] < first["corrected_low"]).sum())
        return f"higher in {up} and lower in {down} of {len(first)} languages, by intervals that lie apart"

    last = next(subset for subset in ("all", *names) if (known["subset"] == subset).any())
    compared = against_first(over_seeds[over_seeds["subset"] == last].dropna(subset="corrected"), parted)
    return sentences(beyond_noise(known, names, "language"), means, f"{names[last]}: {compared}" if compared else "")


# one number for each language


def specific(table: pd.DataFrame) -> str:
    """Return whether the typical parameter matters more to a group than to the others; see `spread.wide`."""

    def of_run_(rows: pd.DataFrame) -> str:
        below = int((rows["median"] < 0).sum())
        return (
            f"the median of D is {span(rows['median'], '.3f').replace('-', '−')}, below 0 in {below} of {len(rows)} "
            f"languages; {span(rows['share_positive'], '.0%')} of the parameters matter more to a language than to the "
            "rest"
        )

    return f"{by_run(table, of_run_)} ({NO_INTERVAL})"


def even(table: pd.DataFrame, column: str, what: str, shown: str) -> str:
    """Return the span of a column of `spread.wide` over groups, and in how many of them a later run is more even.

    The column is called `what`, and its format is `shown`; less is more even.
    """

    def lower(first: pd.DataFrame, later: pd.DataFrame) -> str:
        return f"lower in {int((later[column] < first[column]).sum())} of {len(first)} languages"

    text = by_run(table, lambda rows: span(rows[column], shown) if rows[column].notna().any() else "", colon="")
    found = f"{what}, by language {NO_INTERVAL}: {text}"
    return sentences(found, against_first(table, lower)) if text else ""


def agreement(summary: pd.DataFrame) -> str:
    """Return how well the estimate ranks parameters in the language where it does worst, and of how many top ones."""

    def of_run_(rows: pd.DataFrame) -> str:
        wide = rows.pivot(index="group", columns="statistic", values=["value", "value_low", "value_high"])
        if wide["value"].get("spearman", pd.Series(dtype=float)).dropna().empty:
            return ""
        worst = str(wide["value"]["spearman"].idxmin())
        names = ("value", "value_low", "value_high")
        found = bounded_in({name: wide[name]["spearman"][worst] for name in names}, names, ".3f")
        text = f"Spearman is {found} in {worst}" + (f", the lowest of {len(wide)} languages" if len(wide) > 1 else "")
        top = wide["value"].get("top10_agreement", pd.Series(dtype=float)).dropna()
        return text + (f"; {span(top, '.0%')} of the top 10% are the same" if len(top) else "")

    return by_run(summary, of_run_)


def enough(frame: pd.DataFrame) -> str:
    """Return whether there were enough batches (convergence.csv), by the low subset, whose S is the noisiest."""

    def of_run_(rows: pd.DataFrame) -> str:
        found = needed(rows[rows["subset"] == "low"]).dropna(subset="reliability")
        if found.empty:
            return "whether there were enough batches is unknown: two measurements of S would not agree at all"
        least, most = (found.loc[found["reliability"].agg(of)] for of in ("idxmin", "idxmax"))
        text = (
            f"two measurements of S with the batches at hand would correlate at {least['reliability']:.3f} "
            f"({least['group']}, {least['batches']:.0f} batches) to {most['reliability']:.3f} ({most['group']}, "
            f"{most['batches']:.0f} batches) over the low subset"
        )
        return "; ".join([text, *(f"for {level} they are {_enough(found, str(level))}" for level in ENOUGH)])

    return by_run(frame, of_run_)


def _enough(found: pd.DataFrame, level: str) -> str:
    """Return for which groups there are enough batches; where they are too few for more than half, for which not."""
    short = found[found[level] > found["batches"]].sort_values(level, kind="stable")
    if short.empty:
        return "enough for every group"
    needs = [f"{row['group']} {row[level]:,.0f}" for _, row in short.iloc[[0, -1]].iterrows()]
    if len(short) == len(found):
        return f"too few for every group (needed: {' to '.join(dict.fromkeys(needs))})"
    if 2 * len(short) > len(found):
        alone = ", ".join(found.loc[~found.index.isin(short.index), "group"])
        return f"enough for {alone} alone (needed by the others: {' to '.join(dict.fromkeys(needs))})"
    return "too few for " + ", ".join(f"{row['group']} (needed: {row[level]:,.0f})" for _, row in short.iterrows())


def amounts(table: pd.DataFrame) -> str:
    """Return how unevenly the training examples are spread over groups; see `data.sizes`."""
    known = table.dropna(subset="train")
    if len(known) < 2:
        return ""
    most, least = known.iloc[0], known.iloc[-1]
    times = f", {most['train'] / least['train']:,.3g} times as many" if least["train"] else ""
    share = most["train"] / known["train"].sum()
    return (
        f"from {least['train']:,.0f} ({least['group']}) to {most['train']:,.0f} ({most['group']}){times}; "
        f"{most['group']} has {share:.0%} of all"
    )


# parts of the model


def parts(cells: pd.DataFrame) -> str:
    """Return where most sensitivity lies, and where D is highest and lowest, with their span over groups.

    `cells` are rows of components.csv with `row`, the name of the part, all layers of it together.
    """

    def of_run_(rows: pd.DataFrame) -> str:
        by_part = rows.groupby("row", sort=False)
        share = by_part["sensitivity_share"].mean().dropna()
        if share.empty:
            return ""
        top, sizes = str(share.idxmax()), by_part["parameters"].first()
        held = by_part["sensitivity_share"].get_group(top)
        text = (
            f"{top} has the most of S, {span(held, '.0%')} by language with {sizes[top] / sizes.sum():.0%} of the "
            "parameters"
        )
        median = by_part["specificity_median"].mean().dropna()
        ends = [f"{name} ({span(by_part['specificity_median'].get_group(name), '+.2f').replace('-', '−')})"
                for name in dict.fromkeys([median.idxmax(), median.idxmin()])] if len(median) else []  # fmt: skip
        return text + (f"; the median of D is highest in {' and lowest in '.join(ends)}" if ends else "")

    return by_run(cells, of_run_)


def favourite(cells: pd.DataFrame) -> str:
    """Return in which part, or parts, the median of D is the highest for most groups; `cells` as in `parts`."""

    def of_run_(rows: pd.DataFrame) -> str:
        known = rows.dropna(subset="specificity_median")
        if known.empty:
            return ""
        tops = known.loc[known.groupby("group", sort=False)["specificity_median"].idxmax(), "row"]
        counts = tops.value_counts(sort=False)
        most, many = list(counts.index[counts == counts.max()]), int(counts.max())
        if many == 1 and len(most) > 1:
            return f"no part has the highest median in more than 1 of {len(tops)} languages"
        has, each = ("have", " each") if len(most) > 1 else ("has", "")
        return f"{joined(most)} {has} the highest median in {many} of {len(tops)} languages{each}"

    text = by_run(cells, of_run_)
    return f"{text} ({NO_INTERVAL})" if text else ""


def within(cells: pd.DataFrame) -> str:
    """Return within which part (`row`) groups are most and least alike, with the span over pairs, each there once."""

    def of_run_(rows: pd.DataFrame) -> str:
        by_part = rows.groupby("row", sort=False)["pcc"]
        means = by_part.mean().dropna()
        if means.empty:
            return ""
        ends = [f"{name} ({means[name]:.2f}, {span(by_part.get_group(name), '.2f')} over pairs)"
                for name in dict.fromkeys(str(end) for end in (means.idxmax(), means.idxmin()))]  # fmt: skip
        return f"languages are most alike within {' and least within '.join(ends)}"

    text = by_run(cells, of_run_)
    return f"{text} ({NO_INTERVAL}, with the noise of these batches)" if text else ""


def overlapping(frame: pd.DataFrame, groups: Groups) -> str:
    """Return how much more than by chance the tops of two groups overlap, within families and across them."""
    once = frame[frame["group_a"] < frame["group_b"]].dropna(subset="jaccard")
    family = {key: group["family"] for key, group in groups.items()}
    kin = once["group_a"].map(family) == once["group_b"].map(family)
    once = once.assign(times=once["jaccard"] / once["expected"], kin=kin)

    def of_run_(rows: pd.DataFrame) -> str:
        both = {True: "within families", False: "across"}
        means = [f"{rows.loc[rows['kin'] == same, 'times'].mean():.1f} {both[same]}"
                 for same in both if (rows["kin"] == same).any()]  # fmt: skip
        return f"{rows['times'].mean():.1f} ({span(rows['times'], '.1f')}; {', '.join(means)})"

    if once.empty:
        return ""
    largest = once["share"].max()
    text = by_run(once[once["share"] == largest], of_run_, colon="")
    return f"overlap of the top {percent(largest)} ÷ that by chance, mean of the pairs: {text}"
