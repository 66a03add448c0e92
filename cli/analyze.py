"""`sensikit analyze`: sensitivities, language specificity and correlations of one model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sensikit.settings import RELEASED, AnalysisSettings, MemorySettings, Options, option

from . import options
from .endings import Ending, command, command_line, kept, shown

if TYPE_CHECKING:
    import pandas as pd

    from sensikit.run import Run
    from sensikit.tables import Table


@dataclass(frozen=True)
class Analyses(Options):
    """The analyses that are asked for."""

    settings: AnalysisSettings = field(default_factory=AnalysisSettings)
    task: tuple[str, ...] | None = option(
        None,
        "mt (translation), denoise (what `sensikit train` taught beside it), lm (language modelling), or several, "
        "as mt,denoise; by default mt, or lm of a decoder language model.",
    )
    preset: str | None = option(
        None, "dropout on, training loss, summed, as in the authors' code.", choices=["released"]
    )

    def each(self, first: str, split: str) -> list[AnalysisSettings]:
        """Return the settings of each task; `first` is that of the model where none is asked for."""
        preset = {**(RELEASED if self.preset else {}), "split": split}
        tasks = (first,) if self.task is None else self.task
        return [replace(self.settings, task=name, **preset) for name in dict.fromkeys(tasks) or [""]]


def analyze(
    checkpoint: options.Checkpoint,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The run directory to write.")],
    opening: options.Opening,
    analyses: Analyses,
    memory: MemorySettings,
    split: Annotated[str, typer.Option(help="Whose sentences the batches are made of.")] = "train",
    resume: options.Resume = False,
    share: options.Shared = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what it takes, and stop; with --device meta on paper, of a Hugging Face model without weights.",
        ),
    ] = False,
) -> Ending | None:
    """Measure S(θ,B_l), D(θ,l) and the correlations of a model, per group."""
    from sensikit.backends.base import task_of
    from sensikit.distributed import Share
    from sensikit.run import Run
    from sensikit.sensitivity.analysis import analyze as run_analysis
    from sensikit.sensitivity.cost import PROBED, estimate

    analyses.each("mt", split)  # a setting that does not exist is refused before anything is opened
    process = Share.given(share, 1 if opening.device == "meta" else memory.shard)
    if not dry_run and process.leads:
        Run.stands(out, resume)
    model = opening.open(checkpoint, data, on_paper=dry_run, shard=memory.shard)
    wanted = analyses.each(model.tasks[0], split)
    for settings in wanted:
        task_of(model, settings.task)  # refuses a task that the model lacks before another is begun
    if dry_run:
        if process.rank:
            return None
        first, *others = (estimate(model, settings, opening.groups, memory) for settings in wanted)
        if not process.leads:
            return None
        cost = sum(others, first)
        how = f"measured on {PROBED} batches, the largest among them"
        time = "" if cost.seconds is None else f", about {cost.seconds / 60:.1f} minutes on {model.device}"
        lines = [
            f"{cost.batches} batches{time}; {cost.memory / 1e9:.2f} GB of memory at the most, "
            f"{'of one device, on paper' if cost.seconds is None else how}; {cost.disk / 1e9:.2f} GB of disk"
        ]
        lines += [f"  {given}: {size / 1e9:.2f} GB of memory" for given, size in cost.others.items()]
        return Ending(lines, asdict(cost))
    analyzed = partial(run_analysis, model, out, groups=opening.groups, share=process, memory=memory)
    for settings in wanted:
        run = analyzed(settings, resume=resume, command=command_line())
        resume = True
    return _ending(run, [settings.task for settings in wanted]) if process.leads else None


def _ending(run: Run, tasks: list[str]) -> Ending:
    """Return how alike the groups are, by subset, and which pair is the most and the least so."""
    from sensikit.figures.words import TASKS
    from sensikit.statistics.correlation import CORRELATION, mean_correlation

    frame, lines, means = run.read_table(CORRELATION.name), [], {}
    for task in dict.fromkeys(tasks):
        of_task = frame[frame["task"] == task]
        means[task] = mean_correlation(run, of_task, task)
        title = "How alike two languages are: PCC of their sensitivities, corrected for noise, mean over pairs"
        lines += [shown(f"{title} ({TASKS[task]})", _table(means[task], of_task))]
    signatures = {task: run.analysis(task)["signature"] for task in means}
    data = {"run": run.path, "signatures": signatures, "mean": means, "correlation": frame}
    following = command("prune", run.path, "--order", "specificity,random", *kept("--device"))
    return Ending([*lines, *signatures.values(), str(run.path)], data, following)


def _table(means: pd.DataFrame, frame: pd.DataFrame) -> Table:
    """Return a row for each subset: the mean with its interval, what noise allows, the most and least alike pair."""
    import pandas as pd

    from sensikit.figures.correlation import pairs
    from sensikit.figures.words import SUBSETS, subset_names
    from sensikit.tables import NOTHING, Table

    found, names, rows = pairs(frame), subset_names(frame), []
    found = found[found["group_a"] < found["group_b"]].dropna(subset=["corrected"])
    for subset in SUBSETS:
        mean = means[means["subset"] == subset].iloc[0]
        at = found[found["subset"] == subset].sort_values("corrected", kind="stable")
        ends = [f"{row['group_a']}, {row['group_b']} {row['corrected']:.3f}" for row in at.to_dict("records")]
        ends = [ends[-1], ends[0]] if ends else [NOTHING, NOTHING]
        rows.append((names[subset], *mean[["corrected", "corrected_low", "corrected_high", "pcc", "ceiling"]], *ends))
    headings = ("", "PCC", "95% from", "to", "These batches", "Their ceiling", "Most alike", "Least alike")
    return Table(pd.DataFrame(rows, columns=headings), dict.fromkeys(headings[1:6], ".3f"))
