"""`sensikit prune`: one-shot pruning curves of an analysed model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from sensikit.settings import Options, SweepSettings, option

from . import options


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
) -> None:
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
        command=options.command_line(),
        share=process,
    )
    if process.leads:
        mean = table.pivot_table(values="value", index=["order", "ratio"], columns="metric")
        options.tell(mean.round(3).to_string())
