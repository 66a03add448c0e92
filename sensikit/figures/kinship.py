"""The family tree that the correlations draw: a dendrogram of the languages from their PCC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from sensikit.figures.heatmaps import SUBSETS, matrix, measured
from sensikit.figures.style import COLOURS, FULL, MUTED, canvas, families, of_run, order, runs, styled

MERGES = ["run", "subset", "step", "first", "second", "distance"]


def merges(frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]], subset: str, task: str) -> pd.DataFrame:
    """Return the steps in which languages join: which two clusters, at which distance 1 − PCC (average linkage).

    Runs in which a pair has no PCC are left out.
    """
    found = [_merges(of_run(frame, run), languages, subset, task, run) for run in runs(frame)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=MERGES)


def _merges(
    frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]], subset: str, task: str, run: str
) -> pd.DataFrame:
    codes, tree = clustered(frame, languages, subset, task)
    names = list(codes)
    rows = []
    for step, (a, b, distance, _) in enumerate(tree):
        first, second = names[int(a)], names[int(b)]
        rows.append((run, subset, step + 1, first, second, float(distance)))
        names.append(f"({first} {second})")
    return pd.DataFrame(rows, columns=MERGES)


def clustered(
    frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]], subset: str, task: str
) -> tuple[list[str], np.ndarray]:
    """Return the languages and the linkage (n − 1, 4) of one run, as scipy has it; empty where a PCC is missing."""
    rows = frame[(frame["task"] == task) & (frame["subset"] == subset)]
    codes = order(measured(rows, languages))
    distances = 1 - matrix(rows, codes).to_numpy()
    np.fill_diagonal(distances, 0)
    if len(codes) < 2 or np.isnan(distances).any():
        return codes, np.empty((0, 4))
    condensed = squareform((distances + distances.T) / 2, checks=False)
    return codes, np.asarray(linkage(np.maximum(condensed, 0), method="average"))


@styled
def language_tree(
    frame: pd.DataFrame,
    languages: Mapping[str, Mapping[str, Any]],
    *,
    subset: str = "low",
    task: str = "mt",
    width: float = FULL,
) -> Figure:
    """Return the dendrogram of the languages from their PCC, a panel for each run, on one scale.

    Args:
        frame: the rows of correlation.csv, with a column `run` where there are several runs.
        languages: code → {name, family, tier, sizes}; a family has one colour.
        subset: high, low or all.
        task: mt, denoise or lm.
        width: of the figure, in inches.
    """
    labels = runs(frame)
    trees = [clustered(of_run(frame, label), languages, subset, task) for label in labels]
    columns = max(2, min(3, len(labels)))
    rows = -(-len(labels) // columns)
    deepest = max(len(codes) for codes, _ in trees)
    figure = canvas(width * min(len(labels), columns) / columns, rows * (0.55 + 0.17 * deepest))
    axes = figure.subplots(rows, min(len(labels), columns), sharex=True, squeeze=False).ravel().tolist()
    for ax, label, (codes, tree) in zip(axes, labels, trees, strict=False):
        _tree(ax, codes, tree, languages)
        ax.set_title(label)
        ax.set_xlabel(f"1 − PCC, {SUBSETS[subset]}")
    for ax in axes[len(labels) :]:
        ax.set_axis_off()
    axes[0].set_xlim(left=0)
    return figure


def _tree(ax: Axes, codes: list[str], tree: np.ndarray, languages: Mapping[str, Mapping[str, Any]]) -> None:
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    if not len(tree):
        ax.set_yticks([])
        ax.text(0.5, 0.5, "a pair has no PCC", transform=ax.transAxes, ha="center", color=MUTED)
        return
    drawn = dendrogram(tree, no_plot=True)
    for ends, depths in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        ax.plot(depths, ends, color="#1a1a1a", linewidth=0.9)
    leaves = [codes[index] for index in drawn["leaves"]]
    ax.set_yticks([5 + 10 * place for place in range(len(leaves))], [_leaf(code, languages) for code in leaves])
    colours = {family: COLOURS[at % len(COLOURS)] for at, (family, _) in enumerate(families(languages))}
    for tick, code in zip(ax.get_yticklabels(), leaves, strict=True):
        tick.set_color(colours[languages[code]["family"]])
    ax.set_ylim(10 * len(leaves), 0)


def _leaf(code: str, languages: Mapping[str, Mapping[str, Any]]) -> str:
    initials = "".join(word[0] for word in str(languages[code]["family"]).replace("-", " ").split())
    return f"{code} · {initials}"


def caption(languages: Mapping[str, Mapping[str, Any]], subset: str = "low") -> str:
    """Return what the tree shows, and which families the initials stand for."""
    families_ = {
        "".join(word[0] for word in family.replace("-", " ").split()): family for family, _ in families(languages)
    }
    kin = ", ".join(f"{initials} {family}" for initials, family in families_.items())
    return (
        f"Languages clustered by how alike their sensitivities are ({SUBSETS[subset]}): average linkage of 1 − PCC; "
        "two branches meet at the mean distance of their languages. Noise takes small languages out to the root: read "
        f"it beside the ceilings of the heat maps. Families, with a colour each: {kin}."
    )
