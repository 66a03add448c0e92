"""`sensikit evaluate`: BLEU and chrF++ of one or more checkpoints, by language and tier, with paired tests."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from . import options


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CHECKPOINT...", help="Trained on --data.")],
    data: options.Data,
    out: Annotated[
        Path | None, typer.Option(help="Where tables and translations go; by default they are printed alone.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="What to call a checkpoint; once for each, in order. By default its folder."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="The label that others are tested against: the first.")] = None,
    direction: options.Direction = None,
    pairs: options.Pairs = None,
    languages: options.Languages = None,
    max_sentences: options.MaxSentences = None,
    beam: options.Beam = 5,
    lenpen: options.Lenpen = 1.0,
    max_len: options.MaxLen = "1.2,10",
    max_tokens: options.MaxTokens = 4096,
    split: options.Split = "test",
    tokenizer: options.Tokenizer = "spm",
    spm_model: options.SpmModel = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
) -> None:
    """Translate the test sets with each checkpoint, score them, and test the differences."""
    from functools import partial
    from tempfile import TemporaryDirectory

    from sensikit.backends import open_model
    from sensikit.errors import OptionError
    from sensikit.evaluation.systems import EvaluationSettings, evaluate_systems, labels_of
    from sensikit.evaluation.tables import text

    if resume and out is None:
        raise OptionError("--resume", "goes on with an --out that there is not", "give the one that was begun")
    settings = EvaluationSettings(
        split=split,
        decoding=options.decoding(beam, lenpen, max_len, max_sentences, max_tokens),
        tokenizer=tokenizer,
        spm_model=str(spm_model) if spm_model else None,
    )
    names = labels_of(checkpoints, label or ())
    with contextlib.ExitStack() as stack:
        where = out or Path(stack.enter_context(TemporaryDirectory()))
        found = evaluate_systems(
            {
                name: partial(open_model, path, data, direction, device, options.names(pairs))
                for name, path in zip(names, checkpoints, strict=True)
            },
            where,
            settings,
            groups=options.names(languages),
            baseline=baseline,
            resume=resume,
            command=options.command_line(),
        )
    typer.echo(text(found.manifest, found.tables))
