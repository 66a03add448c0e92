"""`sensikit prune`: one-shot pruning curves of an analysed model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sensikit.settings import Options, SweepSettings, option

from . import options
from .endings import Ending, command, command_line, kept, shown

if TYPE_CHECKING:
    import pandas as pd

    from sensikit.run import Run


SCORED = (
    "--task",
    *(name for settings in (SweepSettings, options.Groups, options.Origin) for name in options.spellings(settings())),
)
"""Options that a sweep must have the same when it goes on, or that say where its model is."""


@dataclass(frozen=True)
class Curves(Options):
    """The pruning curves that are asked for."""

    ratios: str = option("0:0.9:0.1", "first:last:step, or a comma-separated list.")
    order: tuple[str, ...] = option(
        ("specificity",),
        "Comma-separated: specificity, reverse, matched, matched-reverse, matched-random (within strata of equal "
        "S(θ,B_l)), sensitivity, magnitude, random, fisher, wanda.",
    )
    seeds: int = option(3, "Random orders, one curve each.", least=1, most=1000)
    cross: bool = option(False, "Score every group with what each one's order leaves: few --ratios.")
    settings: SweepSettings = field(default_factory=SweepSettings)


def prune(
    run: Annotated[Path, typer.Argument(help="What `sensikit analyze` wrote.")],
    curves: Curves,
    which: options.Groups,
    origin: options.Origin,
    task: options.Task = None,
    resume: options.Resume = False,
    share: options.Shared = None,
) -> Ending | None:
    """Prune an analysed model in several orders, and score every step."""
    from sensikit.distributed import Share
    from sensikit.pruning.sweep import check_asked, parse_ratios
    from sensikit.pruning.sweep import prune as run_sweep
    from sensikit.run import Run

    process = Share.given(share)
    found, ratios, seeds = Run.open(run), parse_ratios(curves.ratios), range(1, curves.seeds + 1)
    settings = replace(curves.settings, task=task or found.tasks[0])
    check_asked(ratios, curves.order, seeds, settings)  # before the model is opened
    table = run_sweep(
        found,
        origin.open(found),
        ratios,
        curves.order,
        seeds=seeds,
        groups=which.groups,
        settings=settings,
        cross=curves.cross,
        resume=resume,
        command=command_line(),
        share=process,
    )
    return _ending(found, table, ratios) if process.leads else None


def _ending(run: Run, table: pd.DataFrame, ratios: Sequence[float]) -> Ending:
    """Return the mean curve of each order, and where those that have a random order beside them differ from it."""
    import pandas as pd

    from sensikit.errors import RunError
    from sensikit.evaluation.metrics import METRICS
    from sensikit.figures.points import RANDOM
    from sensikit.pruning.curves import curve_tests
    from sensikit.pruning.ledger import UNPRUNED
    from sensikit.report import tables

    try:
        tests = curve_tests({run.path.name: run})
    except RunError:  # not every group has its unpruned score yet
        tests = pd.DataFrame(columns=["order_a", "order_b", "metric"])
    tests = tests[tests["order_a"] == tests["order_b"].map(RANDOM)]
    lines = []
    for metric in dict.fromkeys(table["metric"]):
        name, at = METRICS[metric].label, tests[tests["metric"] == metric]
        if (table["order"] != UNPRUNED).any():
            title = f"{name}, mean over languages, by the share that is pruned"
            lines.append(shown(title, tables.pruning(table, metric)))
            if METRICS[metric].lengths:
                lines.append(shown("Brevity penalty in it", tables.brevity(table)))
        unpruned = table[(table["metric"] == metric) & (table["order"] == UNPRUNED)]
        ratio = unpruned["length_ratio"].mean()
        length = f", length ratio {ratio:.3f}" if METRICS[metric].lengths else ""
        lines.append(f"Unpruned: {unpruned['value'].mean():{METRICS[metric].digits}}{length}\n")
        if len(at):
            lines.append(shown(f"{name}: second curve minus first", tables.curve_tests(at)))
    orders = set(table["order"])
    lacking = [other for order, other in RANDOM.items() if order in orders and other not in orders]
    following = command("report", run.path)
    if lacking:
        how = ["--order", ",".join(lacking), "--ratios", ",".join(f"{ratio:g}" for ratio in ratios)]
        following = command("prune", run.path, *how, *kept(*SCORED), "--resume")
    return Ending([*lines, str(run.path)], {"run": run.path, "pruning": table, "tests": tests}, following)
