"""`sensikit analyze`: sensitivities, language specificity and correlations of one checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import options


def analyze(
    checkpoint: Annotated[Path, typer.Argument(help="A fairseq checkpoint; nothing inside it is run.")],
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The run directory to write.")],
    direction: options.Direction = None,
    pairs: options.Pairs = None,
    languages: options.Languages = None,
    batches: Annotated[int, typer.Option(help="Batches of each set, at most.")] = 500,
    tokens: Annotated[
        int | None, typer.Option(help="Target tokens of a batch; by default 4096, lowered for small languages.")
    ] = None,
    rest: Annotated[str, typer.Option(help="B_-l: mixed batches of the others, or their S pooled.")] = "mixed",
    rest_temperature: Annotated[float, typer.Option(help="Of the mix: 1 = in proportion to the data.")] = 1.0,
    loss: Annotated[str, typer.Option(help="nll, or train: the criterion the model was trained with.")] = "nll",
    preset: Annotated[str | None, typer.Option(help="released: dropout on, training loss, summed.")] = None,
    sigma: Annotated[float, typer.Option(help="σ of D, on the scale of a summed loss.")] = 1e-8,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 1,
    pieces: Annotated[int, typer.Option(help="Parts of like length a batch is computed in; the same S.")] = 4,
    skip_nonfinite: Annotated[bool, typer.Option("--skip-nonfinite", help="Leave such batches out, counted.")] = False,
    task: Annotated[
        str, typer.Option(help="mt, denoise (what it was trained on beside it), or mt,denoise: one after the other.")
    ] = "mt",
    device: options.Device = "auto",
    resume: options.Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes, and stop.")] = False,
) -> None:
    """Measure S(θ,B_l), D(θ,l) and the correlations of a checkpoint, per language."""
    from sensikit.backends import open_model
    from sensikit.backends.base import task_of
    from sensikit.errors import OptionError
    from sensikit.run import Run
    from sensikit.sensitivity.analysis import analyze as run_analysis
    from sensikit.sensitivity.analysis import estimate
    from sensikit.sensitivity.planning import RELEASED, Settings

    if preset not in (None, "released"):
        raise OptionError("--preset", f"{preset} is unknown", "the only one is released")
    if not dry_run:
        Run.stands(out, resume)
    tasks = options.names(task) or [""]
    common = Settings(
        batches=batches,
        tokens=tokens,
        rest=rest,
        rest_temperature=rest_temperature,
        sigma=sigma,
        seed=seed,
        pieces=pieces,
        skip_nonfinite=skip_nonfinite,
        **({"loss": loss} if preset is None else RELEASED),
    )
    wanted = [replace(common, task=name) for name in dict.fromkeys(tasks)]
    model = open_model(checkpoint, data, direction, device, options.names(pairs))
    for settings in wanted:
        task_of(model, settings.task)  # a task that it cannot do is refused before another is begun
    chosen = options.names(languages)
    if dry_run:
        first, *rest_of = (estimate(model, settings, chosen) for settings in wanted)
        cost = sum(rest_of, first)
        typer.echo(
            f"{cost.batches} batches, about {cost.seconds / 60:.1f} minutes on {model.device}; "
            f"{cost.memory / 1e9:.2f} GB of memory for the vectors, beside the activations of one piece; "
            f"{cost.disk / 1e9:.2f} GB of disk"
        )
        return
    for settings in wanted:
        run = run_analysis(model, out, settings, groups=chosen, resume=resume, command=options.command_line())
        typer.echo(run.analysis(settings.task)["signature"])
        resume = True
    typer.echo(str(out))
