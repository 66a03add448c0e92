"""How sensitivity and specificity are spread over the parameters, drawn from their quantiles (Figure 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sensikit.figures.style import COLOURS, FULL, canvas, legend_below, of_run, order, plain, runs, styled

QUANTILES = ("q01", "q10", "q25", "median", "q75", "q90", "q99")


def wide(frame: pd.DataFrame, task: str = "mt") -> pd.DataFrame:
    """Return one row for each (run, language) with a column for each statistic of specificity.csv or balance.csv."""
    frame = frame[frame["task"] == task]
    frame = frame if "run" in frame else frame.assign(run="")
    tables = [  # one by one: a pivot of all would sort the runs by name
        of_run(frame, run).pivot(index="group", columns="statistic", values="value").reset_index().assign(run=run)
        for run in runs(frame)
    ]
    return pd.concat(tables, ignore_index=True).rename_axis(columns=None)


def relative(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `wide` with its quantiles divided by the mean, so that languages can be compared."""
    table = table.copy()
    for name in set(QUANTILES) & set(table.columns):
        table[name] = table[name] / table["mean"]
    return table


def placed(table: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the languages of `table` in order, followed by what is no language (all of them mixed)."""
    found = list(dict.fromkeys(table["group"]))
    return [code for code in order(languages) if code in found] + [code for code in found if code not in languages]


@styled
def specificity(
    frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]], *, task: str = "mt", width: float = FULL
) -> Figure:
    """Return the spread of D(θ,l) of each language (Eq. 4): boxes from quantiles, and the share of D > 0.

    The axis is linear between −1, the least that D can be, and 1, and logarithmic beyond.

    Args:
        frame: the rows of specificity.csv, with a column `run` where there are several runs.
        languages: code → {family, tier, sizes}.
        task: mt, denoise or lm.
        width: of the figure, in inches.
    """
    table = wide(frame, task)
    figure, (left, right) = _two_panels(len(placed(table, languages)), width)
    boxes(left, table, placed(table, languages))
    left.axvline(0, color="#6b6b6b", linewidth=0.6, zorder=0)
    left.set_xscale("symlog", linthresh=1, linscale=1)
    top = float(table[list(QUANTILES)].to_numpy(dtype=float).max())
    beyond = [2.0, 5.0, 10.0] if top < 20 else [10.0**power for power in range(1, 12)]
    left.set_xticks([tick for tick in (-1.0, -0.5, 0.0, 0.5, 1.0, *beyond) if tick <= max(top, 1)], minor=False)
    left.xaxis.set_major_formatter(plain)
    left.set_xlabel("D(θ,l)")
    shares(right, table, placed(table, languages), "share_positive")
    right.set_xlabel("parameters with D > 0")
    legend_below(figure, [left])
    return figure


@styled
def balance(
    frame: pd.DataFrame, languages: Mapping[str, Mapping[str, Any]], *, task: str = "mt", width: float = FULL
) -> Figure:
    """Return how evenly S is spread over the parameters: boxes of S over its mean, and the share of the top 10%.

    Args:
        frame: the rows of balance.csv, with a column `run` where there are several runs.
        languages: code → {family, tier, sizes}.
        task: mt, denoise or lm.
        width: of the figure, in inches.
    """
    table = relative(wide(frame, task))
    figure, (left, right) = _two_panels(len(placed(table, languages)), width)
    boxes(left, table, placed(table, languages))
    left.set_xscale("log")
    left.xaxis.set_major_formatter(plain)
    left.set_xlabel("sensitivity ÷ its mean")
    shares(right, table, placed(table, languages), "share_top10")
    right.set_xlabel("share of all sensitivity\nheld by the top 10%")
    legend_below(figure, [left])
    return figure


def _two_panels(languages: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    figure = canvas(width, 0.9 + 0.24 * languages)
    return figure, figure.subplots(1, 2, sharey=True, width_ratios=(2.4, 1))


def boxes(ax: Axes, table: pd.DataFrame, codes: list[str]) -> None:
    """Draw a box for each language and run: 25 to 75%, whiskers 10 to 90%, a thin line 1 to 99%."""
    labels = runs(table)
    room = 0.7 / len(labels)
    for index, label in enumerate(labels):
        rows = of_run(table, label).set_index("group").reindex(codes)
        places = [place - 0.35 + room * (index + 0.5) for place in range(len(codes))]
        colour = COLOURS[index % len(COLOURS)]
        kept = [
            (place, row) for place, (_, row) in zip(places, rows.iterrows(), strict=True) if row["q25"] == row["q25"]
        ]
        if not kept:
            continue
        ax.hlines([p for p, _ in kept], [r["q01"] for _, r in kept], [r["q99"] for _, r in kept], color=colour, lw=0.5)
        ax.bxp(
            [
                {"med": row["median"], "q1": row["q25"], "q3": row["q75"], "whislo": row["q10"], "whishi": row["q90"]}
                for _, row in kept
            ],
            positions=[place for place, _ in kept], widths=room * 0.75, orientation="horizontal",
            showfliers=False, showcaps=False, patch_artist=True, manage_ticks=False, label=label or None,
            boxprops={"facecolor": "white", "edgecolor": colour, "linewidth": 0.9},
            whiskerprops={"color": colour, "linewidth": 1.4}, medianprops={"color": colour, "linewidth": 1.6},
        )  # fmt: skip
    ax.set_yticks(range(len(codes)), codes)
    ax.set_ylim(len(codes) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_axisbelow(True)


def shares(ax: Axes, table: pd.DataFrame, codes: list[str], statistic: str) -> None:
    """Draw one dot for each language and run: a share between 0 and 100%."""
    labels = runs(table)
    for index, label in enumerate(labels):
        rows = of_run(table, label).set_index("group").reindex(codes)
        places = [place - 0.35 + 0.7 / len(labels) * (index + 0.5) for place in range(len(codes))]
        ax.plot(
            rows[statistic], places, color=COLOURS[index % len(COLOURS)], marker="os^vDP"[index % 6], linestyle="",
            label=label, clip_on=False,
        )  # fmt: skip
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)


BOXES = "Boxes hold 25 to 75% of the parameters with the median across, thick lines 10 to 90%, thin lines 1 to 99%."


def specificity_caption(frame: pd.DataFrame, *, task: str = "mt") -> str:
    """Return what the figure of D shows, with how far its small denominators reach."""
    table = wide(frame, task)
    text = (
        "Language specificity D(θ,l) = (S_l − S_-l)/(S_-l + σ) over all parameters; the axis is linear from −1 to 1, "
        f"logarithmic beyond. {BOXES} Right: the share of parameters that matter more to the language than to the rest."
    )
    if "share_small_denominator" in table:
        text += f" At most {table['share_small_denominator'].max():.2%} of the parameters have S_-l below 10σ."
    return text


def balance_caption(frame: pd.DataFrame, *, task: str = "mt") -> str:
    """Return what the figure of S shows, with the span of its coefficient of variation."""
    table = wide(frame, task)
    text = (
        f"How evenly sensitivity is spread over the parameters, each language relative to its own mean. {BOXES} "
        "Right: the share of a language's total sensitivity that its top 10% of parameters hold; less is more even."
    )
    if "cv" in table:
        text += f" Standard deviation over mean: {table['cv'].min():.2f} to {table['cv'].max():.2f}."
    return text
