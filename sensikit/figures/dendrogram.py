"""Which languages use the model alike: a dendrogram from their correlations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from sensikit.figures import conclusions
from sensikit.figures.correlation import VALUES, matrix, measured
from sensikit.figures.frames import Groups, families, of_run, of_task, order, runs
from sensikit.figures.panels import canvas, panels
from sensikit.figures.style import FULL, INK, MUTED, Drawn, styled
from sensikit.figures.words import captioned, subset_names


@styled
def dendrogram(
    frame: pd.DataFrame,
    groups: Groups,
    *,
    subset: str = "low",
    task: str = "",
    value: str = "corrected",
    width: float | None = None,
) -> Drawn:
    """Return the dendrogram of the groups from how alike they are, a panel for each run, on one scale.

    The data are the steps in which clusters join: which two, at which distance 1 − the corrected PCC, or another
    `value` of correlation.csv (see `correlation_heatmaps`), in the `subset` high, low or all; average linkage. A
    corrected PCC above 1 counts as 1, and a run in which a pair has none has no tree. By default the figure has the
    width of the page, two thirds of it for one run.
    """
    frame, labels = of_task(frame, task), runs(frame)
    rows, name = frame[frame["subset"] == subset], subset_names(frame)[subset]
    linkages = {label: _linkage(of_run(rows, label), groups, value) for label in labels}
    columns = min(3, len(labels))
    deepest = max(len(keys) for keys, _ in linkages.values())
    width = width or (FULL if len(labels) > 1 else FULL * 2 / 3)
    figure = canvas(width, -(-len(labels) // columns) * (0.55 + 0.17 * deepest))
    initials = _initials(family for family, _ in families(groups))
    axes = panels(figure, len(labels), columns, sharex=True)
    for ax, (label, (keys, linkage)) in zip(axes, linkages.items(), strict=True):
        _draw(ax, keys, linkage, groups, initials)
        ax.set_title(label)
        ax.set_xlabel(f"1 − {VALUES[value]}, {name}")
    axes[0].set_xlim(left=0)
    kin = ", ".join(f"{letters} {family}" for family, letters in initials.items())
    merges = [
        {"run": label, "subset": subset, "step": step, "first": first, "second": second, "distance": distance}
        for label, (keys, linkage) in linkages.items()
        for step, (first, second, distance) in enumerate(_merges(keys, linkage), start=1)
    ]
    data = pd.DataFrame(merges, columns=["run", "subset", "step", "first", "second", "distance"])
    above = value == "corrected" and bool((rows["corrected"] > 1).any())
    half = float((rows["corrected_high"] - rows["corrected_low"]).mean()) / 2 if value == "corrected" else math.nan
    caption = captioned(
        f"Languages clustered by how alike their sensitivities are ({name}), by average linkage of 1 − {VALUES[value]}",
        "Two branches meet at the mean distance of their languages.",
        "A PCC above 1 counts as 1." if above else "",
        "" if value == "corrected" else "Noise moves small languages out to the root.",
        f"Families: {kin}.",
        result=conclusions.tree(data, measured(rows, groups), half),
    )
    return Drawn(figure, data, caption)


def _linkage(rows: pd.DataFrame, groups: Groups, value: str) -> tuple[list[str], np.ndarray]:
    """Return the groups and the linkage (n − 1, 4) of one run, as scipy has it; empty where a pair has no value."""
    keys = order(measured(rows, groups))
    distances = 1 - matrix(rows, keys, value).to_numpy()
    np.fill_diagonal(distances, 0)
    if len(keys) < 2 or np.isnan(distances).any():
        return keys, np.empty((0, 4))
    condensed = squareform((distances + distances.T) / 2, checks=False)
    return keys, np.asarray(hierarchy.linkage(np.maximum(condensed, 0), method="average"))


def _merges(keys: list[str], linkage: np.ndarray) -> list[tuple[str, str, float]]:
    names, merges = list(keys), []
    for a, b, distance, _ in linkage:
        first, second = names[int(a)], names[int(b)]
        merges.append((first, second, float(distance)))
        names.append(f"({first} {second})")
    return merges


def _initials(families: Iterable[str]) -> dict[str, str]:
    """Return the initials of each family, with more letters of its first word where another has the same."""
    found: dict[str, str] = {}
    for family in families:
        first, *rest = family.replace("-", " ").split() or [""]
        ways = (first[: 1 + more] + "".join(word[0] for word in rest) for more in range(len(first)))
        found[family] = next((way for way in ways if way not in found.values()), family)
    return found


def _draw(ax: Axes, keys: list[str], linkage: np.ndarray, groups: Groups, initials: Mapping[str, str]) -> None:
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    if not len(linkage):
        ax.set_yticks([])
        ax.text(0.5, 0.5, "a pair has no PCC", transform=ax.transAxes, ha="center", color=MUTED)
        return
    drawn = hierarchy.dendrogram(linkage, no_plot=True)
    for ends, depths in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        ax.plot(depths, ends, color=INK, linewidth=0.9)
    leaves = [keys[index] for index in drawn["leaves"]]
    kin = [groups[key]["family"] for key in leaves]
    names = [f"{key} · {initials[family]}" for key, family in zip(leaves, kin, strict=True)]
    ax.set_yticks([5 + 10 * place for place in range(len(leaves))], names)
    ax.set_ylim(10 * len(leaves), 0)
