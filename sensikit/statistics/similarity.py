"""How alike the sensitivities of translating and of denoising are, language by language (Figure 7 of the paper)."""

from __future__ import annotations

import pandas as pd

from sensikit.statistics.correlation import HIGH, correlations, high_group, in_sample
from sensikit.statistics.jackknife import interval, left_out
from sensikit.store.run import Run

TASKS = ("mt", "denoise")

COLUMNS = ("task_a", "task_b", "group", "language", "pcc", "pcc_low", "pcc_high", "ceiling")


def similarity_table(run: Run, high: float = HIGH) -> pd.DataFrame:
    """Return the PCC between S of the two tasks for each language that has both, tidy; empty where none has.

    The high group is that of translation, over all its languages, so that it is the one of correlation.csv.
    `ceiling` is √(r_mt·r_denoise), r the reliability of each task's S; `pcc_low` and `pcc_high` bound the PCC at 95 %
    over batches (see `sensikit.statistics.jackknife`).
    """
    first, second = TASKS
    languages = [code for code in run.languages(first) if code in run.languages(second)]
    if not languages:
        return pd.DataFrame(columns=list(COLUMNS))
    masks = high_group(run, first, high)
    is_high = in_sample(run, masks())
    found = correlations(run, [(task, code) for task in TASKS for code in languages], masks())
    rows = []
    for a, code in enumerate(languages):
        b = a + len(languages)
        without = left_out(run, [(first, code), (second, code)], is_high)
        for group, of in found.items():
            low, upper = interval(of.pcc[a, b], without[group][:, 0, 1])
            rows.append((first, second, group, code, of.pcc[a, b], float(low), float(upper), of.ceiling[a, b]))
    return pd.DataFrame(rows, columns=list(COLUMNS))
