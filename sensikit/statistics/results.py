"""The tidy tables of a run directory: each is made from what the run stores, and can be made again at any time."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from sensikit.progress import progress
from sensikit.run import Run
from sensikit.statistics.components import component_correlation_table, component_table
from sensikit.statistics.convergence import convergence_table
from sensikit.statistics.correlation import correlation_table, similarity_table
from sensikit.statistics.specificity import overlap_table, specificity_table
from sensikit.statistics.spread import balance_table, distribution_table

BY_TASK: dict[str, Callable[[Run, str], pd.DataFrame]] = {
    "correlation.csv": correlation_table,
    "convergence.csv": convergence_table,
    "specificity.csv": specificity_table,
    "components.csv": component_table,
    "components-correlation.csv": component_correlation_table,
    "overlap.csv": overlap_table,
    "balance.csv": balance_table,
    "distribution.csv": distribution_table,
}
"""Tables that hold every task of the run, in their column `task`: file name → (run, task) → the rows of that task."""

OF_BOTH_TASKS: dict[str, Callable[[Run], pd.DataFrame]] = {"similarity.csv": similarity_table}
"""Tables that compare the tasks: file name → (run) → table. Only a run that holds both has them."""


def write_results(run: Run) -> None:
    """Write the tables of every task that is measured whole."""
    tasks = [task for task in run.tasks if run.complete(task)]
    both = OF_BOTH_TASKS if len(tasks) > 1 else {}
    with progress(len(BY_TASK) + len(both), "tables", "tables") as bar:
        for name, make in BY_TASK.items():
            table = pd.concat([make(run, task) for task in tasks], ignore_index=True)
            if len(table):  # of a single language there is no pair
                run.write_table(name, table)
            bar.advance()
        for name, compare in both.items():
            run.write_table(name, compare(run))
            bar.advance()
