"""What a model learned from: how much data each language has (Figure 5), and concurrent denoising (Figure 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sensikit.figures import conclusions
from sensikit.figures.frames import Groups, examples_of
from sensikit.figures.panels import canvas, legend_below, log_ticks, ruled
from sensikit.figures.style import COLUMN, FULL, INK, MUTED, NO_TIER, RULE, TIERS, Drawn, styled
from sensikit.figures.words import captioned


def sizes(groups: Groups) -> pd.DataFrame:
    """Return one row for each group, most training examples first: group, name, family, tier, sizes, mono.

    A size that is not known is empty.
    """
    rows = [
        {
            "group": key, "name": group["name"], "family": group["family"], "tier": group["tier"],
            **{split: group["sizes"].get(split) for split in ("train", "valid", "dev", "test", "devtest")},
            "mono": group.get("mono") or None,
        }
        for key, group in groups.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).sort_values(["train", "group"], ascending=[False, True], ignore_index=True)


@styled
def data_statistics(groups: Groups, *, width: float = COLUMN) -> Drawn:
    """Return the training examples of each group on a logarithmic scale, in descending order, with a mark by tier.

    Points, not bars: a logarithmic scale has no 0 for a bar to stand on. A group may have `mono` too, its monolingual
    sentences.
    """
    table = sizes(groups)
    figure = canvas(width, width * 0.6)
    ax = figure.subplots()
    for line in (*TIERS.values(), NO_TIER):
        at = table["tier"] == line.name if line is not NO_TIER else ~table["tier"].isin(list(TIERS))
        if at.any():
            ax.plot(
                table.index[at], table["train"][at], linestyle="", marker=line.marker, color=line.colour, markersize=5,
                label=line.name,
            )  # fmt: skip
    if table["mono"].notna().any():
        label = "monolingual sentences"
        ax.plot(table.index, table["mono"], linestyle="", marker="D", mfc="white", mec="black", label=label)
    known = table[["train", "mono"]].astype(float).to_numpy()
    ax.set_yscale("log")
    ax.set_ylim(float(np.nanmin(known)) / 1.5, float(np.nanmax(known)) * 1.5)
    log_ticks(ax.yaxis)
    ax.set_xticks(table.index, table["group"])
    ax.set_xlim(-0.6, len(table) - 0.4)
    examples = f"{examples_of(groups)} for training"
    ax.set_ylabel(examples)
    ax.tick_params(axis="x", length=0, rotation=0 if len(table) <= 10 else 90)
    ruled(ax, "y")
    legend_below(figure, [ax])
    tiers = [f"{(table['tier'] == tier).sum()} {tier}" for tier in TIERS if (table["tier"] == tier).any()]
    levels = f"; resource levels: {', '.join(tiers)}" if tiers else ""
    mono = f"Diamonds: sentences of monolingual text, of {table['mono'].notna().sum()} of them."
    caption = captioned(
        f"{examples.capitalize()} of {len(table)} languages, on a logarithmic scale{levels}",
        mono if table["mono"].notna().any() else "",
        result=conclusions.amounts(table),
        paper="Figure 5",
    )
    return Drawn(figure, table, caption)


# Figure 4

COLUMNS = ("source", "encoder_target", "decoder_input", "decoder_target")
FILL = {"plain": "white", "tag": "#e3edf5", "changed": "#f7dcc8", "target": "#cfe8df", "padding": "#f4f4f4"}
GAP = 1.4  # cells between the two halves
LEVELS = {"input": 0.0, "stack": 1.45, "projection": 3.2, "target": 4.65}  # from the bottom, in cells


def sentence(frame: pd.DataFrame, group: str = "") -> pd.DataFrame:
    """Return the rows of one sentence of layout.csv: the first run's, of a group or of the first in the table."""
    rows = frame[frame["group"] == (group or frame["group"].iloc[0])]
    rows = rows[rows["run"] == rows["run"].iloc[0]] if "run" in rows else rows
    return rows.sort_values("position", ignore_index=True)


@styled
def token_layout(frame: pd.DataFrame, *, group: str = "", width: float = FULL) -> Drawn:
    """Return encoder and decoder side by side, each with what it reads below and what it predicts above.

    What noise changed is set off, and so are the tags and the positions that are predicted: the same on both sides,
    through one output projection. In layout.csv, `source` is what the encoder reads, the tag last, `encoder_target`
    what it predicts, `decoder_input` has the tag first, and a target is empty where nothing is to be predicted. The
    sentence is that of `group`, by default the first in the table.
    """
    data = sentence(frame, group)
    frame = data[list(COLUMNS)].fillna("").astype(str)
    count = len(frame)
    across = 2 * count + GAP
    figure = canvas(width, width / (across + 0.4) * 6.6)
    ax = figure.subplots()
    ax.set_xlim(-0.2, across + 0.2)
    ax.set_ylim(-1.0, 5.6)
    ax.set_aspect("equal")
    ax.set_axis_off()
    cell = 72 * width / (across + 0.4)
    clean = [*frame["decoder_input"].iloc[1:], ""]
    changed = [piece != whole for piece, whole in zip(frame["source"], clean, strict=True)]
    changed[-1] = False  # the tag
    for side, left in (("encoder", 0.0), ("decoder", count + GAP)):
        read = "source" if side == "encoder" else "decoder_input"
        tag = count - 1 if side == "encoder" else 0
        targets = list(frame[f"{side}_target"])
        for at, (piece, target) in enumerate(zip(frame[read], targets, strict=True)):
            noisy = side == "encoder" and changed[at]
            kind = "tag" if at == tag else "changed" if noisy else "plain"
            _cell(ax, left + at, LEVELS["input"], piece, kind, cell)
            _cell(ax, left + at, LEVELS["target"], target or "PAD", "target" if target else "padding", cell)
            middle = left + at + 0.5
            _arrow(ax, (middle, LEVELS["input"] + 0.9), (middle, LEVELS["stack"]))
            _arrow(ax, (middle, LEVELS["stack"] + 1.0), (middle, LEVELS["projection"]), bool(target))
            _arrow(ax, (middle, LEVELS["projection"] + 0.7), (middle, LEVELS["target"]), bool(target))
            ax.text(middle, -0.2, str(at + 1), ha="center", va="top", fontsize=min(5.5, cell / 3), color=MUTED)
        _bar(ax, left, count, LEVELS["stack"], 1.0, side)
        under = "the sentence with noise, the tag last" if side == "encoder" else "the tag first, the clean sentence"
        ax.text(left + count / 2, -0.62, under, ha="center", va="top", fontsize=6)
    _bar(ax, 0.0, across, LEVELS["projection"], 0.7, "one output projection")
    _arrow(ax, (count + 0.05, LEVELS["stack"] + 0.5), (count + GAP - 0.05, LEVELS["stack"] + 0.5))
    predicted = int((frame["encoder_target"] != "").sum())
    caption = captioned(
        f"One training sentence ({data['group'].iloc[0]}) under concurrent denoising",
        "Whole words are chosen; a chosen one is masked, replaced or kept (shaded where the encoder reads something "
        "else). The tag of the language ends the source and starts the decoder's input.",
        result=f"encoder and decoder predict the chosen words, {predicted} of {count - 1} pieces of this one sentence, "
        "at the same positions and through one projection; elsewhere the target is padding and bears no loss",
        paper="Figure 4",
    )
    return Drawn(figure, data, caption)


def _cell(ax: Axes, left: float, bottom: float, text: str, kind: str, cell: float) -> None:
    box = FancyBboxPatch(
        (left + 0.06, bottom), 0.88, 0.9, boxstyle="round,pad=0,rounding_size=0.12", facecolor=FILL[kind],
        edgecolor=RULE if kind == "padding" else INK, linewidth=0.5,
    )  # fmt: skip
    ax.add_patch(box)
    size = min(6.5, 0.8 * cell / (0.68 * max(len(text), 3)))
    ax.text(
        left + 0.5, bottom + 0.45, text, ha="center", va="center", fontsize=size,
        color=MUTED if kind == "padding" else INK, gid=kind,
    )  # fmt: skip


def _bar(ax: Axes, left: float, length: float, bottom: float, height: float, text: str) -> None:
    look: Any = {"boxstyle": "round,pad=0,rounding_size=0.15", "facecolor": "#efefef", "edgecolor": INK, "lw": 0.7}
    ax.add_patch(FancyBboxPatch((left, bottom), length, height, **look))
    ax.text(left + length / 2, bottom + height / 2, text, ha="center", va="center", fontsize=7)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], strong: bool = True) -> None:
    look: Any = {"arrowstyle": "-|>", "mutation_scale": 4, "linewidth": 0.5, "color": INK if strong else RULE}
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **look))
