"""What axes, captions and sentences are written in: names of metrics, tasks and subsets, shares, lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from sensikit.evaluation.metrics import METRICS
from sensikit.languages import ALONE

TASKS = {"mt": "translation", "denoise": "denoising", "lm": "language modelling"}

SUBSETS = {"high": "high-sensitive parameters", "low": "low-sensitive parameters", "all": "all parameters"}


def subset_names(frame: pd.DataFrame) -> dict[str, str]:
    """Return what the subsets are called, with their shares where `parameters` tell them and all runs have the same."""
    if "parameters" not in frame or not {"high", "all"} <= set(frame["subset"]):
        return SUBSETS
    run = frame["run"] if "run" in frame else pd.Series("", index=frame.index)
    sizes = frame.groupby([run, "subset"])["parameters"].max().unstack("subset")
    shares = {float(f"{100 * share:.3g}") for share in sizes["high"] / sizes["all"]}
    if len(shares) > 1:
        return SUBSETS
    (high,) = shares
    return {**SUBSETS, "high": f"{high:g}% {SUBSETS['high']}", "low": f"{100 - high:g}% {SUBSETS['low']}"}


def scale_of(metric: str, starts: bool = False) -> str:
    """Return what an axis of a metric is called: with its unit, where it has one; `starts` a sentence."""
    name = METRICS[metric].label if starts else named(metric)
    unit = METRICS[metric].unit
    return f"{name} ({unit})" if unit not in ("", named(metric)) else name


def named(metric: str) -> str:
    """Return what a sentence calls a metric."""
    return METRICS[metric].label if METRICS[metric].higher else METRICS[metric].label.lower()


def arrow(direction: str) -> str:
    """Return what a title calls a direction; languages alone have none."""
    return "each language alone" if direction == ALONE else direction.replace("-", "→")


RESULT = "Result: "
"""What the last part of a caption begins with."""


def captioned(shown: str, *read: str, result: str = "", paper: str = "") -> str:
    """Return a caption: what is shown, how to read it, and what these numbers let one conclude.

    >>> captioned("PCC of every two languages", "Dark is alike.", result="none is 1", paper="Figure 2")
    'PCC of every two languages (Figure 2 of the paper). Dark is alike. Result: none is 1.'

    Of the sentences in `read`, empty ones are left out; `paper` is the figure of the paper that this one stands for.
    """
    first = f"{shown} ({paper} of the paper)." if paper else f"{shown}."
    return " ".join([first, *filter(None, read), *([f"{RESULT}{result}."] if result else [])])


def noted(caption: str, sentence: str) -> str:
    """Return a caption with one sentence more, before what it concludes."""
    shown, mark, result = caption.partition(f" {RESULT}")
    return f"{shown} {sentence}{mark}{result}"


def bounded(value: float, low: float, high: float, shown: str) -> str:
    """Return a number with its interval in the format `shown`; alone where an end is NaN.

    >>> bounded(-0.05, -0.061, 0.012, "+.2f")
    '−0.05 (−0.06 to +0.01)'
    """
    ends = f" ({low:{shown}} to {high:{shown}})" if low == low and high == high else ""
    return f"{value:{shown}}{ends}".replace("-", "−")


def bounded_in(row: Any, names: Sequence[str], shown: str) -> str:
    """Return the number in one column of a row with its interval from two others: see `bounded`."""
    value, low, high = (float(row[name]) for name in names)
    return bounded(value, low, high, shown)


def percent(share: float) -> str:
    """Return a share as text, 0.125 as 12.5%."""
    return f"{100 * share:.4g}%"


def span(values: Iterable[float], shown: str) -> str:
    """Return the least and the greatest of some numbers as text, "0.96 to 0.98"; one where they look the same.

    At least one of the numbers is not NaN.
    """
    known = [value for value in values if value == value]
    ends = format(min(known), shown), format(max(known), shown)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def joined(words: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c"; nothing of nothing."""
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else last
