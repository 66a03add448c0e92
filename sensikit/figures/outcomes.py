"""What pruning costs and what systems gain, in words: the conclusions of curves, cross matrices and evaluations.

As in `conclusions`, every function is pure and returns the text behind "Result:" in a caption, without its full stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import FEWEST, LEVEL
from sensikit.figures.conclusions import UNSURE, by_run, models
from sensikit.figures.words import bounded_in, joined, named, percent

TOLD = (0.3, 0.6)
"""The pruning ratios that conclusions are of."""


def told(ratios: Iterable[float]) -> dict[float, str]:
    """Return the ratios nearest to `TOLD`, each with what it is called.

    >>> told([0.0, 0.3, 0.5])
    {0.3: '30%', 0.5: '50% (nearest to 60%)'}
    """
    known = sorted({ratio for ratio in ratios if ratio > 0})
    found: dict[float, str] = {}
    for aim in TOLD if known else ():
        ratio = min(known, key=lambda each, aim=aim: abs(each - aim))  # type: ignore[misc]
        if any(abs(ratio - each) < 1e-9 for each in TOLD):
            found[ratio] = percent(ratio)
        found.setdefault(ratio, f"{percent(ratio)} (nearest to {percent(aim)})")
    return found


def verdict(row: Any, p: str = "p_holm", difference: str = "difference") -> str:
    """Return what a test of two curves says of the second: better, worse, not told apart, or that it is no test."""
    if row[p] != row[p]:
        return f"no test under {FEWEST} sentences" if row["segments"] < FEWEST else "not tested"
    if row[p] >= LEVEL:
        return UNSURE
    return "better" if (row[difference] > 0) == METRICS[row["metric"]].higher else "worse"


def against(tests: pd.DataFrame | None, order: str, control: str, names: tuple[str, str]) -> str:
    """Return how an order does against its control at the ratios of `TOLD`: difference, interval and verdict.

    `tests` are rows of `pruning.curves.curve_tests`, of one metric, and `names` what the two orders are called.
    """
    if tests is None:
        return ""
    own = tests[(tests["run_a"] == tests["run_b"]) & (tests["order_b"] == order) & (tests["order_a"] == control)]
    text = by_run(
        own.assign(run=own["run_b"]) if tests["run_b"].nunique() > 1 else own,
        lambda rows: _compared(rows, "difference", "p_holm", percent),
    )
    return f"{names[0]} minus {names[1]} in {named(own['metric'].iloc[0])}: {text}" if text else ""


def between(tests: pd.DataFrame | None, order: str, name: str) -> str:
    """Return what pruning takes from each later run beyond what it takes from the first, in one order."""
    if tests is None:
        return ""
    rows = tests[(tests["run_a"] != tests["run_b"]) & (tests["order_b"] == order)]
    said = [
        f"{second} minus {first} in the change of {named(of['metric'].iloc[0])}, {name}: "
        f"{_compared(of, 'change', 'change_p_holm', told(of['ratio']).get, LOSES)} "
        f"({models(*of[['seeds_a', 'seeds_b']].iloc[0])})"
        for (first, second), of in rows[rows["ratio"] > 0].groupby(["run_a", "run_b"], sort=False)
    ]
    return "; ".join(said)


LOSES = {"better": "loses less", "worse": "loses more"}


def _compared(
    rows: pd.DataFrame, column: str, p: str, name: Callable[[float], str | None], words: Mapping[str, str] | None = None
) -> str:
    """Return a clause for each ratio of `told`: by what `name` calls it, the verdict in `words`, once if all agree."""
    by_ratio, clauses, said = rows.set_index("ratio"), [], []
    for ratio in told(by_ratio.index):
        row: Any = by_ratio.loc[ratio]
        shown = f"+{METRICS[row['metric']].digits}"
        clauses.append(f"{bounded_in(row, (column, f'{column}_low', f'{column}_high'), shown)} at {name(ratio)}")
        found = verdict(row, p, column)
        said.append((words or {}).get(found, found))
    if len(set(said)) == 1 < len(said):
        return f"{' and '.join(clauses)}, {'both ' if said[0] in ('better', 'worse') else ''}{said[0]}"
    return "; ".join(f"{clause}, {found}" for clause, found in zip(clauses, said, strict=True))


def remaining(points: pd.DataFrame, sign: str = "") -> str:
    """Return the value at the ratios of `TOLD` of the points of one curve, with its bounds where they are known."""
    at = points.set_index("ratio")
    shown = f"{sign}{METRICS[points['metric'].iloc[0]].digits}" if len(points) else ""
    found = [
        f"{bounded_in(at.loc[ratio], ('value', 'low', 'high'), shown)} at {name}"
        for ratio, name in told(at.index).items()
    ]
    return joined(found)


def left(points: pd.DataFrame, order: str, name: str, change: bool = False) -> str:
    """Return what is left of the mean at the ratios of `TOLD` in one order; of points that are changes, the change.

    `points` are what `points.curve` returns, with bounds where they are known.
    """
    metric = points["metric"].iloc[0] if len(points) else ""
    points = points[points["order"] == order]

    def of_run_(rows: pd.DataFrame) -> str:
        start = "" if change else f"{rows.loc[rows['ratio'] == 0, 'value'].mean():{METRICS[metric].digits}} unpruned, "
        parts = remaining(rows, "+" if change else "")
        return f"{start}{parts}" if parts else ""

    text = by_run(points, of_run_, colon="")
    return f"{'change in ' if change else ''}{named(metric)}, {name}: {text}" if text else ""


def extremes(points: pd.DataFrame, order: str, name: str) -> str:
    """Return the groups that lose the least and the most at the larger ratio of `TOLD`, in one order.

    `points` are what `points.curve` returns of each group, with `group`.
    """
    metric = points["metric"].iloc[0]
    higher, shown = METRICS[metric].higher, METRICS[metric].digits

    def of_run_(rows: pd.DataFrame) -> str:
        ratios = told(rows["ratio"])
        if not ratios:
            return ""
        ratio = max(ratios)
        start, at = (rows[rows["ratio"] == each].set_index("group") for each in (0, ratio))
        loss = (1 - at["value"] / start["value"].where(start["value"] > 0)) if higher else at["value"] - start["value"]
        loss = loss.dropna()
        if loss.empty:
            return ""
        said = []
        ways = ("keeps the most", "the least") if higher else ("rises the least", "the most")
        for way, key in zip(ways, dict.fromkeys(map(str, (loss.idxmin(), loss.idxmax()))), strict=False):
            left, whole = bounded_in(at.loc[key], ("value", "low", "high"), shown), f"{start['value'][key]:{shown}}"
            said.append(f"{key} {way}, {f'{left} of {whole}' if higher else f'from {whole} to {left}'}")
        return f"at {ratios[ratio]} {', and '.join(said)}"

    text = by_run(points[points["order"] == order], of_run_)
    return f"{'share of ' if higher else ''}{named(metric)}, {name}: {text}" if text else ""


# systems


def gained(rows: pd.DataFrame) -> str:
    """Return what each system gains over all languages, and which gains are not told from none; see `quality.gains`."""
    said = []
    for _, row in rows.iterrows():
        found = bounded_in(
            row, ("difference", "difference_low", "difference_high"), f"+{METRICS[row['metric']].digits}"
        )
        said.append(f"{row['system_b']} {found}, {verdict(row)}")
    return f"mean over all languages: {'; '.join(said)}" if said else ""


def best(rows: pd.DataFrame) -> str:
    """Return which masking ratio is best over all languages, and which others have intervals that reach its own.

    `rows` are what `quality.by_ratio` returns, of the tier of all languages.
    """
    if rows.empty:
        return ""
    metric = METRICS[rows["metric"].iloc[0]]
    once = rows.drop_duplicates("mask_ratio").set_index("mask_ratio")
    ratio = float(str(once["mean"].idxmax() if metric.higher else once["mean"].idxmin()))
    top = once.loc[ratio]
    apart = (once["high"] < top["low"]) | (once["low"] > top["high"])
    others = [percent(each) for each in once.index[~apart] if each != ratio]
    unsure = f"; {UNSURE} from {joined(others)}, whose intervals overlap with it" if others else ""
    found = bounded_in(top, ("mean", "low", "high"), metric.digits)
    return f"over all languages {metric.label} is best at {percent(ratio)}, {found}{unsure}"


def spared(cells: pd.DataFrame, metric: str, ratios: Sequence[float]) -> str:
    """Return what the group pruned for keeps (or adds, of a loss) beside the others, and for how many that is sure.

    `cells` are what `cross.effect` returns, of one order.
    """
    share = METRICS[metric].higher
    own, means = cells["group"] == cells["evaluated"], []
    for ratio in ratios:
        at = cells[cells["ratio"] == ratio]
        itself, others = at[own[at.index]], at[~own[at.index]]
        first, second = itself["effect"].mean(), others["effect"].mean()
        if first == first and second == second:
            shown = ".0%" if share else ".2f"
            text = f"{percent(ratio)} pruned, {first:{shown}} by the language itself and {second:{shown}} by the others"
            means.append(text + _surely(itself, others, share))
    return f"{'kept' if share else 'added'} on average: {'; '.join(means)}" if means else ""


def _surely(itself: pd.DataFrame, others: pd.DataFrame, share: bool) -> str:
    """Return for how many groups the bound of what it keeps itself is beyond the mean of the others."""
    key = ["run", "group"] if "run" in itself else ["group"]
    rest = others.groupby(key)["effect"].mean()
    bound = itself["value_low"] / itself["unpruned"] if share else itself["value_high"] - itself["unpruned"]
    found = pd.DataFrame({"bound": bound.to_numpy()}, index=itself.set_index(key).index).join(rest).dropna()
    sure = (found["bound"] > found["effect"]) if share else (found["bound"] < found["effect"])
    return f" (apart, by its 95% interval, in {int(sure.sum())} of {len(found)} rows)" if len(found) else ""
