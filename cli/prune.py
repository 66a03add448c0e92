"""`sensikit prune`: one-shot pruning curves of an analysed checkpoint, in BLEU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def prune(
    run: Annotated[Path, typer.Argument(help="What `sensikit analyze` wrote.")],
    ratios: Annotated[str, typer.Option(help="first:last:step, or a comma-separated list.")] = "0:0.9:0.1",
    order: Annotated[
        str,
        typer.Option(help="Comma-separated: specificity, reverse, sensitivity, magnitude, random, fisher, wanda."),
    ] = "specificity",
    seeds: Annotated[int, typer.Option(help="Random orders, one curve each.")] = 3,
    languages: options.Languages = None,
    protect: options.Protect = 0.1,
    cross: Annotated[
        bool, typer.Option("--cross", help="Decode every language with what each one's order leaves: few --ratios.")
    ] = False,
    max_sentences: options.MaxSentences = None,
    beam: options.Beam = 5,
    lenpen: options.Lenpen = 1.0,
    max_len: options.MaxLen = "1.2,10",
    max_tokens: options.MaxTokens = 4096,
    split: options.Split = "test",
    tokenizer: options.Tokenizer = "spm",
    spm_model: options.SpmModel = None,
    checkpoint: options.MovedCheckpoint = None,
    data: options.MovedData = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
) -> None:
    """Prune an analysed checkpoint in several orders, decode, and score every step."""
    from sensikit.pruning.masks import check_ratios
    from sensikit.pruning.scorers import scorer_of
    from sensikit.pruning.sweep import SweepSettings, parse_ratios
    from sensikit.pruning.sweep import prune as run_sweep
    from sensikit.run import Run

    found = Run.open(run)
    wanted, orders = parse_ratios(ratios), options.names(order) or []
    settings = SweepSettings(
        protect=protect,
        split=split,
        decoding=options.decoding(beam, lenpen, max_len, max_sentences, max_tokens),
        tokenizer=tokenizer,
        spm_model=str(spm_model) if spm_model else None,
    )
    check_ratios(wanted, protect)
    for name in orders:
        scorer_of(name)
    table = run_sweep(
        found,
        options.opened(found, checkpoint, data, device),
        wanted,
        orders,
        seeds=range(1, seeds + 1),
        groups=options.names(languages),
        settings=settings,
        cross=cross,
        resume=resume,
        command=options.command_line(),
    )
    mean = table.groupby(["order", "ratio"])[["bleu", "chrf"]].mean()
    typer.echo(mean.round(2).to_string())
