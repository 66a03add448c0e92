"""Correlation between sensitivities: of groups, corrected for noise (Figures 2, 6, 8), and of two tasks (Figure 7).

Two runs stand side by side, and beside them what the second one changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sensikit.errors import OptionError
from sensikit.figures import conclusions
from sensikit.figures.frames import (
    Groups,
    averaged,
    blank,
    families,
    of_run,
    of_task,
    order,
    over_seeds,
    present,
    runs,
    seeds_of,
    titles,
    units,
    with_seeds,
)
from sensikit.figures.grids import DIVERGING, SEQUENTIAL, colour_bar, corners, dots, framed, group_map, light_on, places
from sensikit.figures.panels import beside, canvas, legend_below, listed, panels, rounded_up, ruled
from sensikit.figures.style import FULL, HOLLOW, MUTED, SEEDS, Captioned, Drawn, run_line, styled
from sensikit.figures.words import SUBSETS, TASKS, captioned, joined, subset_names
from sensikit.statistics.correlation import CORRELATION, SIMILARITY

VALUES = {
    "corrected": "PCC of endless batches",
    "pcc": "PCC of these batches",
    "spearman": "Spearman correlation",
    "log_pcc": "PCC of log S",
}
PAPER = {"mt": "Figures 2 and 8", "denoise": "Figure 6"}
"""The figures of the paper that heat maps of a task stand for."""
MAY_BE_1 = ("corrected", "pcc")  # values of which a dot says that all that is missing may be noise
BAR = 0.75  # inches beside a row of panels for its colour scale
STEP = 0.05  # the ends of a colour scale are multiples of it
CHANGE = ["difference", "difference_low", "difference_high"]


def marked(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `frame` with one column more, `at_ceiling`.

    A pair is at its ceiling when the 95% interval of its corrected PCC reaches 1: what separates the two groups may
    then be noise. It is not decided (NA) where there is no interval, nor of a group with itself.
    """
    known = frame["corrected_high"].notna() & (frame["group_a"] != frame["group_b"])
    return frame.assign(at_ceiling=(frame["corrected_high"] >= 1).astype("boolean").where(known))


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the ordered pairs of different groups, with `at_ceiling`."""
    return marked(frame[frame["group_a"] != frame["group_b"]])


def measured(frame: pd.DataFrame, groups: Groups) -> Groups:
    """Return those of `groups` that a pair in `frame` names."""
    return {key: groups[key] for key in present(groups, frame["group_a"], frame["group_b"])}


def matrix(frame: pd.DataFrame, keys: list[str], column: str = "corrected") -> pd.DataFrame:
    """Return (n, n) of `column` in the order of `keys`, NaN where there is no such pair.

    On the diagonal of `pcc` is the reliability of each group, the share of the variance of its S that is not noise: the
    trivial 1 of a group with itself says nothing, while a pair cannot be expected to exceed the reliabilities
    around it. Other columns have an empty diagonal.
    """
    wide = frame.pivot(index="group_a", columns="group_b", values=column).reindex(index=keys, columns=keys)
    own = frame[frame["group_a"] == frame["group_b"]].set_index("group_a")["ceiling"].reindex(keys)
    values = wide.to_numpy(dtype=float, na_value=np.nan).copy()
    np.fill_diagonal(values, own.to_numpy(dtype=float) if column == "pcc" else np.nan)
    return pd.DataFrame(values, index=keys, columns=keys)


def colour_range(frame: pd.DataFrame, column: str = "corrected") -> tuple[float, float]:
    """Return the ends of the colour scale of a row of panels: all that is in it, rounded outwards to 0.05."""
    values = _shown(frame, column)
    if values.empty:
        return 0.0, 1.0
    low, high = 0.0 - rounded_up(-values.min(), STEP), rounded_up(values.max(), STEP)  # no -0.0
    high = high if column == "corrected" else min(1.0, high)
    return (low, high) if low < high else (round(low - STEP, 2), high)


def _shown(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Return every number of a row of panels: those of pairs, and with PCC the reliability of groups."""
    own = frame["group_a"] == frame["group_b"]
    return frame[column].where(~own, frame["ceiling"] if column == "pcc" else np.nan).dropna()


@styled
def correlation_heatmaps(
    frame: pd.DataFrame,
    groups: Groups,
    subsets: Sequence[str] = tuple(SUBSETS),
    *,
    task: str = "",
    value: str = "corrected",
    difference: pd.DataFrame | None = None,
    width: float = FULL,
) -> Drawn:
    """Return the heat maps of how alike groups are: a row for each subset and a column for each run (Figure 2).

    All panels of a subset share one colour scale; the subsets, whose ranges differ widely, have one each. A single
    run has its subsets side by side. Training seeds of a recipe have one column, of their mean; the data hold them too.
    A dot marks a pair whose corrected PCC may be 1 (see `marked`). On the diagonal of the PCC of these batches, framed,
    stands the reliability of each group. The data are the rows of the task, with `at_ceiling`, and with the difference
    in the rows of the second run.

    Args:
        frame: the rows of correlation.csv.
        groups: which give the order and the lines between families.
        subsets: which of high, low and all, in this order.
        task: by default the first of the table.
        value: corrected (the PCC of endless batches), pcc (of these batches), spearman or log_pcc.
        difference: what `correlation_difference` returns of the first run and the second: one column of panels more,
            where a turned corner marks a pair whose interval excludes 0.
        width: of the figure, in inches.

    Raises:
        OptionError: if the frame has none of the subsets for the task.
    """
    task = task or str(frame["task"].iloc[0])
    frame = of_task(frame, task)
    subsets = [subset for subset in subsets if (frame["subset"] == subset).any()]
    if not subsets:
        raise OptionError(f"task {task}", "has no correlation in the table", "choose a task and subsets that it has")
    seeds = marked(seeds_of(frame))
    frame, labels = averaged(frame, CORRELATION.key), units(frame)
    if difference is not None:
        difference = of_task(difference, task)
        frame = _one_border(frame, changed_pairs(difference), labels) if value == "corrected" else frame
    groups, data = measured(frame, groups), marked(frame)
    caption = _caption(frame, groups, subsets, value, difference)
    if len(labels) == 1:
        return Drawn(_side_by_side(frame, groups, subsets, value, width), with_seeds(data, seeds), caption)
    if difference is not None:
        key = ["task", "subset", "group_a", "group_b"]
        changes = changed_pairs(difference)[[*key, *CHANGE]].assign(run=labels[1])
        data = data.merge(changes, how="left", on=[*key, "run"])
    return Drawn(_by_run(frame, groups, subsets, value, difference, width), with_seeds(data, seeds), caption)


def _by_run(
    frame: pd.DataFrame,
    groups: Groups,
    subsets: Sequence[str],
    value: str,
    difference: pd.DataFrame | None,
    width: float,
) -> Captioned:
    labels, extra = runs(frame), int(difference is not None)
    side = (width - BAR * (1 + extra)) / (len(labels) + extra)
    figure = canvas(width, len(subsets) * (side - 0.05) + 0.2)
    grid = figure.subplots(len(subsets), len(labels) + extra, squeeze=False)
    for row, subset in enumerate(subsets):
        of_subset = frame[frame["subset"] == subset]
        axes, limits = list(grid[row][: len(labels)]), colour_range(of_subset, value)
        for ax, label in zip(axes, labels, strict=True):
            _panel(ax, of_run(of_subset, label), groups, limits, side, _digits(of_subset, value), value)
            ax.set_title(titles(frame)[label] if row == 0 else "", pad=4)
        name = subset_names(frame)[subset]
        if side < 1.7:  # inches: the name is longer than the panel is high
            name = name.replace(" parameters", "\nparameters")
        axes[0].set_ylabel(name, fontsize=7.5, labelpad=4)
        colour_bar(figure, axes, limits, "vertical", VALUES[value])
        if difference is not None:
            changes = changed_pairs(difference[difference["subset"] == subset])
            _difference_panel(grid[row][-1], changes, groups, side)
            grid[row][-1].set_title(f"{labels[1]} − {labels[0]}" if row == 0 else "", pad=4)
            colour_bar(figure, [grid[row][-1]], _limits(changes), "vertical", "difference")
    return figure


def _side_by_side(frame: pd.DataFrame, groups: Groups, subsets: Sequence[str], value: str, width: float) -> Captioned:
    columns = min(len(subsets), 3 if len(groups) <= 10 else 2)
    rows, side = -(-len(subsets) // columns), width / columns
    figure = canvas(width, rows * (side + 0.62))
    for ax, subset in zip(panels(figure, len(subsets), columns), subsets, strict=True):
        of_subset = frame[frame["subset"] == subset]
        limits = colour_range(of_subset, value)
        _panel(ax, of_subset, groups, limits, side, _digits(of_subset, value), value)
        ax.set_title(subset_names(frame)[subset], pad=4)
        colour_bar(figure, [ax], limits, "horizontal", VALUES[value])
    return figure


def _digits(frame: pd.DataFrame, column: str) -> int:
    """Return how many decimals to print in a row of panels: two, or three where two would round something up to 1.00.

    A reliability of 0.999 and a pair at 0.99 are far apart, measured by what is missing to 1.
    """
    return 3 if _shown(frame, column).between(0.995, 1, inclusive="left").any() else 2


def _panel(
    ax: Axes, frame: pd.DataFrame, groups: Groups, limits: tuple[float, float], side: float, decimals: int, value: str
) -> None:
    """Draw the values of one subset in one run: `side` is the room for it in inches."""
    keys = order(groups)
    values = matrix(frame, keys, value)
    short = len(keys) > 10 or decimals > 2
    size = group_map(ax, values, values.map(lambda each: number(each, decimals, short)), limits, groups, side)
    if value == "pcc":
        framed(ax, len(keys))
    reached = pairs(frame)
    reached = reached[reached["at_ceiling"].fillna(False) & (value in MAY_BE_1)]
    dots(ax, places(reached, keys), light_on(reached[value], limits, SEQUENTIAL), size)


def number(value: float, decimals: int, short: bool) -> str:
    """Return a correlation as text, never rounded up to 1; `short` leaves out the leading zero."""
    if math.isnan(value):
        return ""
    text = f"{min(value, 1 - 10**-decimals) if value < 1 else value:.{decimals}f}"
    return text.replace("0.", ".", 1) if short else text


MEANINGS = {
    "corrected": (
        "PCC between the sensitivities of every two languages, corrected for the noise of finite batches: that of "
        "endless batches, an estimate that may exceed 1"
    ),
    "pcc": "PCC between the sensitivities of every two languages, of these batches with their noise",
    "spearman": "Correlation of the ranks of the parameters by sensitivity, of every two languages, of these batches",
    "log_pcc": (
        "PCC between the logarithms of sensitivity of every two languages, of these batches, over the parameters where "
        "both are above 0"
    ),
}


def _caption(
    frame: pd.DataFrame, groups: Groups, subsets: Sequence[str], value: str, difference: pd.DataFrame | None
) -> str:
    names, labels = {subset: subset_names(frame)[subset] for subset in subsets}, runs(frame)
    ranges = [
        f"{low:.2f} to {high:.2f} for {name}"
        for subset, name in names.items()
        for low, high in [colour_range(frame[frame["subset"] == subset], value)]
    ]
    read = [
        f"Lower: the two disagree more on which parameters matter. Colour runs from {'; '.join(ranges)}"
        f"{', in all runs' if len(labels) > 1 else ''}: do not compare colours between subsets."
    ]
    if value == "pcc" and frame["ceiling"].notna().any():
        read += [
            "Framed, on the diagonal: the reliability r of each language, the share of the variance of its S that is "
            "not noise; √(r·r′) is the noise ceiling of a pair."
        ]
    elif value == "pcc":
        read += ["No noise ceiling was measured: the diagonal is left empty."]
    if value in MAY_BE_1 and pairs(frame)["at_ceiling"].notna().any():
        read += [
            "A dot marks a pair whose corrected PCC is not below 1 by its 95% interval: the distance to it may be "
            "noise."
        ]
    brief = {subset: name.removesuffix(" parameters") for subset, name in names.items()}
    result = conclusions.alike(pairs(frame), value, brief)
    if difference is not None:
        read += [_differences_caption(difference)]
        moved = conclusions.changed(difference, labels[0], labels[1], brief)
        result = conclusions.sentences(moved, result)
    kin = [f"{family} ({', '.join(members)})" for family, members in families(groups)]
    paper = PAPER.get(str(frame["task"].iloc[0]), "") if value in MAY_BE_1 else ""
    read += ["Of several training seeds, the mean."] if "runs" in frame else []
    return captioned(MEANINGS[value], *read, f"Languages by family: {joined(kin)}.", result=result, paper=paper)


# what a second run changed


def changed_pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of ordered pairs of different groups, without the rows of their mean, which name none."""
    return frame[~blank(frame["group_a"]) & (frame["group_a"] != frame["group_b"])]


def mean_changes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of the mean over all pairs, one for each task and subset."""
    return frame[blank(frame["group_a"])]


def _one_border(frame: pd.DataFrame, changes: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Return the corrected PCC, and its bounds with it, where the one border of the differences puts it.

    So what two panels show side by side is what their difference is of.
    """
    key, columns = ["subset", "group_a", "group_b"], ["corrected", "corrected_low", "corrected_high"]
    shared = pd.concat([changes.assign(run=label, shared=changes[f"corrected_{side}"])
                        for label, side in zip(labels, "ab", strict=True)])  # fmt: skip
    found = frame[["run", *key]].merge(shared[["run", *key, "shared"]], on=["run", *key], how="left")["shared"]
    moved = pd.Series(found.to_numpy() - frame["corrected"].to_numpy(), index=frame.index).fillna(0)
    return frame.assign(**{name: frame[name] + moved for name in columns})


def _difference_panel(ax: Axes, frame: pd.DataFrame, groups: Groups, side: float) -> None:
    """Draw the difference of two runs in one subset; a turned corner marks a pair whose interval excludes 0."""
    keys = order(groups)
    frame = frame[frame["group_a"].isin(keys) & frame["group_b"].isin(keys)]
    wide = frame.pivot(index="group_a", columns="group_b", values="difference")
    values = wide.reindex(index=keys, columns=keys).astype(float)
    ends = _limits(frame)
    decimals = 2 if ends[1] > 0.1 else 3
    group_map(ax, values, values.map(lambda each: signed(each, decimals)), ends, groups, side, DIVERGING)
    sure = frame[_significant(frame)]
    corners(ax, places(sure, keys), light_on(sure["difference"], ends, DIVERGING))


def _significant(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return which differences have a 95% interval that excludes 0; false where there is no interval."""
    return (frame["difference_low"] > 0) | (frame["difference_high"] < 0)


def _limits(changes: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the scale of differences, the same on both sides of 0, rounded outwards."""
    largest = float(changes["difference"].abs().max())
    step = 0.05 if largest > 0.05 else 0.01
    end = rounded_up(largest, step) if largest > 0 else step
    return -end, end


def signed(value: float, decimals: int) -> str:
    """Return a difference as text, with its sign and without the leading zero; 0 has none."""
    if math.isnan(value):
        return ""
    text = f"{abs(value):.{decimals}f}".replace("0.", ".", 1)
    return text if not text.strip(".0") else f"{'−' if value < 0 else '+'}{text}"


def _differences_caption(frame: pd.DataFrame) -> str:
    once = changed_pairs(frame)
    once = once[once["group_a"] < once["group_b"]]
    text = (
        "Right: the corrected PCC of the second run minus that of the first, on a scale of its own around 0. All "
        "panels have one border between the subsets for all runs of one shape. "
    )
    if not once["difference_low"].notna().any():
        return text + "No interval was measured."
    seeds = frame[["seeds_a", "seeds_b"]].max() if "seeds_a" in frame else pd.Series([1, 1])
    over = "batches" if seeds.max() == 1 else f"training seeds ({seeds.iloc[0]} against {seeds.iloc[1]})"
    counts = [
        f"{int(_significant(of_subset).sum())} of {len(of_subset)} pairs ({subset})"
        for subset, of_subset in once.groupby("subset", sort=False)
    ]
    same = " (the same in both runs)" if frame["paired"].all() and over == "batches" else ""
    return text + (
        f"A turned corner marks a pair whose 95% interval over {over}{same} excludes 0, each pair by itself: "
        f"{', '.join(counts)}."
    )


# two tasks


@styled
def task_similarity(frame: pd.DataFrame, groups: Groups, *, width: float = FULL) -> Drawn:
    """Return the PCC between two tasks for each group: a panel for each subset, a mark for each run (Figure 7).

    The PCC of similarity.csv is corrected for noise; a bar is its 95% interval, a short grey line the PCC of these
    batches. All panels share one scale. Training seeds of a recipe are hollow, beside their mean with its interval over
    seeds.
    """
    seeds, over_batches = seeds_of(frame), averaged(frame, SIMILARITY.key)
    frame = over_seeds(frame, SIMILARITY.key, "corrected", "corrected_low", "corrected_high")
    labels, called, keys = runs(frame), titles(frame), present(groups, frame["group"])
    names = subset_names(frame)
    subsets = [subset for subset in SUBSETS if subset in set(frame["subset"])]
    figure = canvas(width, 0.95 + 0.21 * len(keys))
    axes = panels(figure, len(subsets), len(subsets), sharex=True, sharey=True)
    for ax, subset in zip(axes, subsets, strict=True):
        for index, label in enumerate(labels):
            rows = of_run(frame[frame["subset"] == subset], label).set_index("group").reindex(keys)
            line, half = run_line(index, label), 0.3 / len(labels)
            at = beside(len(keys), index, len(labels))
            for place, observed in zip(at, rows["pcc"], strict=True):
                ax.plot([observed, observed], [place - half, place + half], color=MUTED, linewidth=1.0)
            ax.hlines(at, rows["corrected_low"], rows["corrected_high"], color=line.colour, linewidth=1.1)
            single = seeds[(seeds["subset"] == subset) & (seeds["recipe"] == label)] if len(seeds) else seeds
            each = single["group"].map(dict(zip(keys, at, strict=True)))
            ax.plot(single["corrected"], each, marker=line.marker, color=line.colour, gid="seeds", **HOLLOW)
            ax.plot(
                rows["corrected"], at, linestyle="", marker=line.marker, color=line.colour, label=called[label],
                markersize=3.6,
            )  # fmt: skip
        ax.set_title(names[subset])
        ax.set_xlabel("PCC between the tasks")
        ruled(ax, "x")
        listed(ax, keys)
    axes[0].set_xlim(right=max(1.0, *frame[["corrected", "corrected_high"]].max().dropna().tolist()))
    legend_below(figure, axes)
    tasks = " and ".join(TASKS.get(task, task) for task in frame[["task_a", "task_b"]].iloc[0])
    names = {subset: names[subset].removesuffix(" parameters") for subset in subsets}
    caption = captioned(
        f"PCC between the sensitivities for {tasks} of the same language, corrected for the noise of finite batches",
        "Higher: they share parameters.",
        "Bars are 95% intervals over batches." if frame["corrected_low"].notna().any() else "",
        SEEDS if len(seeds) else "",
        "The short grey line is the PCC of these batches, with their noise.",
        result=conclusions.similar(over_batches, frame, names),
        paper="Figure 7",
    )
    return Drawn(figure, with_seeds(frame, seeds), caption)
