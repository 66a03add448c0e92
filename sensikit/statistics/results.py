"""The tables that are computed from what a run stores, each declared beside the function that makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from sensikit.progress import progress
from sensikit.run import Run
from sensikit.statistics.components import COMPONENTS, WITHIN, component_correlation_table, component_table, parts
from sensikit.statistics.convergence import CONVERGENCE, convergence_table
from sensikit.statistics.correlation import CORRELATION, SIMILARITY, correlation_table, similarity_table, subsets_of
from sensikit.statistics.specificity import OVERLAP, SPECIFICITY, overlap_table, scores_of, specificity_table
from sensikit.statistics.spread import BALANCE, DISTRIBUTION, balance_table, distribution_table, spreads_of
from sensikit.tables import Schema

BY_TASK: dict[Schema, Callable[..., pd.DataFrame]] = {
    CORRELATION: correlation_table,
    SPECIFICITY: specificity_table,
    COMPONENTS: component_table,
    WITHIN: component_correlation_table,
    OVERLAP: overlap_table,
    BALANCE: balance_table,
    DISTRIBUTION: distribution_table,
    CONVERGENCE: convergence_table,
}
"""Tables with a column `task`: (run, task) → the rows of that task."""

SHARED: list[tuple[Callable[[Run, str], Any], tuple[Schema, ...]]] = [
    (lambda run, task: scores_of(run, task, parts(run)), (SPECIFICITY, COMPONENTS, OVERLAP)),
    (spreads_of, (BALANCE, DISTRIBUTION)),
    (subsets_of, (CORRELATION, CONVERGENCE)),
]
"""What is measured once for several of these tables, which take it as a third argument: (run, task) → that."""

OF_BOTH_TASKS: dict[Schema, Callable[[Run], pd.DataFrame]] = {SIMILARITY: similarity_table}
"""Tables that compare the tasks, which only a run that holds both has: (run) → table."""


def write_results(run: Run) -> None:
    """Write the tables of every task that is measured whole."""
    tasks = [task for task in run.tasks if run.complete(task)]
    both = OF_BOTH_TASKS if len(tasks) > 1 else {}
    rows: dict[Schema, list[pd.DataFrame]] = {schema: [] for schema in BY_TASK}
    with progress(len(tasks) * len(BY_TASK) + len(both), "tables", "tables") as bar:
        for task in tasks:  # one after the other: what is shared by the tables of one is as large as the model
            measured = _measured(run, task)
            for schema, make in BY_TASK.items():
                rows[schema].append(make(run, task, *measured[schema]) if schema in measured else make(run, task))
                bar.advance()
        for schema, frames in rows.items():
            if any(map(len, frames)):  # of a single group there is no pair
                run.write_table(schema, pd.concat(frames, ignore_index=True))
        for schema, compare in both.items():
            run.write_table(schema, compare(run))
            bar.advance()


def _measured(run: Run, task: str) -> Mapping[Schema, tuple[Any]]:
    """Return what the tables of a task share, by the schema of each."""
    return {schema: found for measure, schemas in SHARED for found in [(measure(run, task),)] for schema in schemas}
