"""`sensikit analyze`: sensitivities, language specificity and correlations of one model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sensikit.settings import RELEASED, AnalysisSettings, MemorySettings, Options, option

from . import options


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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes, and stop.")] = False,
) -> None:
    """Measure S(θ,B_l), D(θ,l) and the correlations of a model, per group."""
    from sensikit.backends.base import task_of
    from sensikit.distributed import Share
    from sensikit.run import Run
    from sensikit.sensitivity.analysis import PROBED, estimate
    from sensikit.sensitivity.analysis import analyze as run_analysis

    analyses.each("mt", split)  # a setting that does not exist is refused before anything is opened
    process = Share.given(share)
    if not dry_run and process.leads:
        Run.stands(out, resume)
    model = opening.open(checkpoint, data)
    wanted = analyses.each(model.tasks[0], split)
    for settings in wanted:
        task_of(model, settings.task)  # refuses a task that the model lacks before another is begun
    if dry_run:
        if not process.leads:
            return
        first, *others = (estimate(model, settings, opening.groups, memory) for settings in wanted)
        cost = sum(others, first)
        options.tell(
            f"{cost.batches} batches, about {cost.seconds / 60:.1f} minutes on {model.device}; "
            f"{cost.memory / 1e9:.2f} GB of memory at the most, measured on {PROBED} batches, the largest among them; "
            f"{cost.disk / 1e9:.2f} GB of disk"
        )
        for given, size in cost.others.items():
            options.tell(f"  {given}: {size / 1e9:.2f} GB of memory")
        return
    analyzed = partial(run_analysis, model, out, groups=opening.groups, share=process, memory=memory)
    for settings in wanted:
        run = analyzed(settings, resume=resume, command=options.command_line())
        resume = True
        if process.leads:
            options.tell(run.analysis(settings.task)["signature"])
    if process.leads:
        options.tell(str(out))
