"""What axes, captions and sentences are written in: names of metrics, tasks and subsets, shares, lists."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from sensikit.evaluation.metrics import METRICS
from sensikit.languages import ALONE

TASKS = {"mt": "translation", "denoise": "denoising", "lm": "language modelling"}

SUBSETS = {"high": "high-sensitive parameters", "low": "low-sensitive parameters", "all": "all parameters"}


def subset_names(frame: pd.DataFrame) -> dict[str, str]:
    """Return what the subsets are called: with their shares, where a table says how many parameters they have.

    Args:
        frame: with a column `subset`; `parameters` tell the shares, if they are the same in every run.
    """
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


def percent(share: float) -> str:
    """Return a share as text, 0.125 as 12.5%."""
    return f"{100 * share:.4g}%"


def span(values: Iterable[float], shown: str) -> str:
    """Return the least and the greatest of some numbers as text, "0.96 to 0.98"; one where they look the same.

    Args:
        values: at least one of them is not NaN.
        shown: the format of one.
    """
    known = [value for value in values if value == value]
    ends = format(min(known), shown), format(max(known), shown)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def joined(words: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
