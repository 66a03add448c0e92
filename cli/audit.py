"""`sensikit audit`: is the Taylor estimate right? Exact ablation of a sample of parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .endings import Ending, command, command_line


def audit(
    run: Annotated[Path, typer.Argument(help="What `sensikit analyze` wrote.")],
    which: options.Groups,
    origin: options.Origin,
    parameters: Annotated[int, typer.Option(max=1_000_000, help="Ablated for each group.")] = 200,
    batches: Annotated[int, typer.Option(max=100_000, help="Of each group, at most; time grows with them.")] = 1,
    task: options.Task = None,
    share: options.Shared = None,
) -> Ending | None:
    """Ablate a sample of parameters exactly (Equation 1), in float64, and compare with the Taylor estimate."""
    from sensikit.distributed import Share
    from sensikit.run import Run
    from sensikit.sensitivity.ablation import audit as run_audit

    process, found = Share.given(share), Run.open(run)
    table = run_audit(
        found,
        origin.open(found),
        groups=which.groups,
        parameters=parameters,
        batches=batches,
        task=task,
        command=command_line(),
        share=process,
    )
    if not process.leads:
        return None
    lines = []
    for code, rows in table.groupby("group", sort=False):
        shown = (
            f"{row['statistic']} {row['value']:.3f}"
            + ("" if math.isnan(row["value_low"]) else f" ({row['value_low']:.3f} to {row['value_high']:.3f})")
            for row in rows.to_dict("records")
        )
        lines.append(f"{code}  {'  '.join(shown)}")
    lines.append(table["signature"].iloc[0])
    return Ending(lines, {"run": run, "audit": table}, command("report", run))
