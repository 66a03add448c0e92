"""How much data each language has (Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sensikit.figures.style import COLUMN, MUTED, TIERS, canvas, plain, styled


def sizes(languages: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row for each language, most training pairs first: language, name, family, tier, sizes, mono."""
    rows = [
        {
            "group": code, "name": language["name"], "family": language["family"], "tier": language["tier"],
            **{split: language["sizes"].get(split) for split in ("train", "valid", "test")},
            "mono": language.get("mono") or None,
        }
        for code, language in languages.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    return table.sort_values(["train", "group"], ascending=[False, True], ignore_index=True)


@styled
def data_statistics(languages: Mapping[str, Mapping[str, Any]], *, width: float = COLUMN) -> Figure:
    """Return bars of the training pairs of each language on a logarithmic scale, in descending order, by tier.

    Args:
        languages: code → {name, family, tier, sizes}, and mono (sentences) where it is known.
        width: of the figure, in inches.
    """
    table = sizes(languages)
    figure = canvas(width, width * 0.6)
    ax = figure.subplots()
    colours = [TIERS.get(tier, MUTED) for tier in table["tier"]]
    ax.bar(table["group"], table["train"], color=colours, width=0.7)
    handles: list[Artist] = [Patch(color=TIERS[tier], label=tier) for tier in TIERS if tier in set(table["tier"])]
    if table["mono"].notna().any():
        ax.plot(table["group"], table["mono"], linestyle="", marker="D", mfc="white", mec="black", label="monolingual")
        handles += ax.get_legend_handles_labels()[0]
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(plain)
    ax.set_ylim(bottom=10 ** (len(str(int(max(1, table["train"].min())))) - 1) / 2)
    ax.set_ylabel("sentence pairs for training")
    ax.tick_params(axis="x", length=0, rotation=0 if len(table) <= 10 else 90)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.legend(handles=handles, loc="upper right", ncols=1)
    return figure


def caption(languages: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the bars show."""
    table = sizes(languages)
    tiers = [f"{(table['tier'] == tier).sum()} {tier}" for tier in TIERS if (table["tier"] == tier).any()]
    return (
        f"Training pairs of {len(table)} languages with English, on a logarithmic scale; resource levels: "
        f"{', '.join(tiers)}."
    )
