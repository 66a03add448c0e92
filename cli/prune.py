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
        str, typer.Option(help="Comma-separated: specificity, reverse, sensitivity, magnitude, random.")
    ] = "specificity",
    seeds: Annotated[int, typer.Option(help="Random orders, one curve each.")] = 3,
    languages: options.Languages = None,
    protect: Annotated[float, typer.Option(help="Share with the highest S(θ,B_l) that is never pruned.")] = 0.1,
    max_sentences: Annotated[int | None, typer.Option(help="Decode the first N test sentences alone.")] = None,
    beam: Annotated[int, typer.Option(help="Beam size.")] = 5,
    lenpen: Annotated[float, typer.Option(help="Length penalty.")] = 1.0,
    max_len: Annotated[str, typer.Option(help="Cap on the output, as A,B: A·source tokens + B.")] = "1.2,10",
    max_tokens: Annotated[int, typer.Option(help="Source tokens decoded at a time, padding included.")] = 4096,
    split: Annotated[str, typer.Option(help="What is decoded.")] = "test",
    tokenizer: Annotated[str, typer.Option(help="Of BLEU, as sacreBLEU names it.")] = "spm",
    spm_model: Annotated[Path | None, typer.Option(help="A SentencePiece model for BLEU instead.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Where the checkpoint is now, if it moved.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data are now, if they moved.")] = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
) -> None:
    """Prune an analysed checkpoint in several orders, decode, and score every step."""
    from sensikit.backends import open_checkpoint
    from sensikit.backends.base import Decoding
    from sensikit.errors import OptionError
    from sensikit.masks import check_ratios
    from sensikit.store import Run
    from sensikit.sweep import SweepSettings, parse_ratios
    from sensikit.sweep import prune as run_sweep

    found = Run.open(run)
    wanted = parse_ratios(ratios)
    try:
        a, b = max_len.split(",")
        max_len_a, max_len_b = float(a), int(b)
    except ValueError as error:
        raise OptionError(f"--max-len {max_len}", "is not A,B", "write for example 1.2,10") from error
    settings = SweepSettings(
        protect=protect,
        split=split,
        decoding=Decoding(beam, lenpen, max_len_a, max_len_b, max_sentences, max_tokens),
        tokenizer=tokenizer,
        spm_model=str(spm_model) if spm_model else None,
    )
    check_ratios(wanted, protect)
    noted = found.manifest["provenance"]
    backend = open_checkpoint(
        checkpoint or Path(noted["checkpoint"]), data or Path(noted["data"]), found.manifest["direction"], device
    )
    table = run_sweep(
        found,
        backend,
        wanted,
        options.names(order) or [],
        seeds=range(1, seeds + 1),
        languages=options.names(languages),
        settings=settings,
        resume=resume,
    )
    mean = table.groupby(["order", "ratio"])[["bleu", "chrf"]].mean()
    typer.echo(mean.round(2).to_string())
