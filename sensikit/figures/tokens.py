"""The token layout of concurrent denoising, drawn from a real sentence (Figure 4)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from sensikit.figures.style import FULL, INK, MUTED, RULE, canvas, styled

COLUMNS = ("source", "encoder_target", "decoder_input", "decoder_target")
FILL = {"plain": "white", "tag": "#e3edf5", "changed": "#f7dcc8", "target": "#cfe8df", "padding": "#f4f4f4"}
GAP = 1.4  # cells between the two halves
LEVELS = {"input": 0.0, "stack": 1.45, "projection": 3.2, "target": 4.65}  # from the bottom, in cells


def sentence(frame: pd.DataFrame, language: str | None = None) -> pd.DataFrame:
    """Return the rows of one sentence of a run's `layout.csv`, or of several runs': the first with the language.

    Args:
        frame: of the columns language, position, source, encoder_target, decoder_input, decoder_target, and run.
        language: the first by default.
    """
    rows = frame[frame["group"] == (language or frame["group"].iloc[0])]
    rows = rows[rows["run"] == rows["run"].iloc[0]] if "run" in rows else rows
    return rows.sort_values("position", ignore_index=True)


@styled
def token_layout(frame: pd.DataFrame, *, width: float = FULL) -> Figure:
    """Return encoder and decoder side by side, each with what it reads below and what it predicts above.

    What noise changed is set off, and so are the tags and the positions that are predicted: the same on both sides,
    through one output projection.

    Args:
        frame: one sentence's, one row for each position: `source`, what the encoder reads, the tag last;
            `encoder_target`, what it predicts; `decoder_input`, the tag first; `decoder_target`. A target is empty
            where nothing is to be predicted.
        width: of the figure, in inches.
    """
    frame = frame[list(COLUMNS)].fillna("").astype(str)
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
    return figure


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
    style = "round,pad=0,rounding_size=0.15"
    ax.add_patch(
        FancyBboxPatch((left, bottom), length, height, boxstyle=style, facecolor="#efefef", edgecolor=INK, lw=0.7)
    )
    ax.text(left + length / 2, bottom + height / 2, text, ha="center", va="center", fontsize=7)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], strong: bool = True) -> None:
    colour = INK if strong else RULE
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=4, linewidth=0.5, color=colour, shrinkA=0, shrinkB=0
        )
    )


def caption(frame: pd.DataFrame) -> str:
    """Return what the layout shows, with how many of the pieces are predicted."""
    predicted = int((frame["encoder_target"].fillna("") != "").sum())
    named = f"One training sentence ({frame['language'].iloc[0]})" if "group" in frame else "One sentence"
    return (
        f"{named} under concurrent denoising. Whole words are chosen; a chosen one is masked, replaced or kept "
        "(shaded where the encoder reads something else). Encoder and decoder predict the chosen words, "
        f"{predicted} of {len(frame) - 1} pieces, each at the same position on both sides and through one projection; "
        "elsewhere the target is padding and bears no loss. The tag of the language ends the source and starts the "
        "decoder's input."
    )
