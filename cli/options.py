"""Options that more than one verb has, and what they are turned into."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sensikit.backends.base import Decoding, Model
    from sensikit.run import Run

Data = Annotated[Path, typer.Option("--data", help="What `sensikit corpus` wrote, or a fairseq data directory.")]
Direction = Annotated[
    str | None, typer.Option(help="xxx-eng, eng-xxx, or with another language; by default the one that was trained.")
]
Pairs = Annotated[str | None, typer.Option(help="Instead of a direction: cat-fra,spa-fra.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Languages = Annotated[str | None, typer.Option(help="Comma-separated codes; all by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an earlier call left.")]
MovedCheckpoint = Annotated[Path | None, typer.Option("--checkpoint", help="Where the checkpoint is now, if it moved.")]
MovedData = Annotated[Path | None, typer.Option("--data", help="Where the data are now, if they moved.")]
Protect = Annotated[float, typer.Option(help="Share with the highest S(θ,B_l) that is never pruned.")]
Split = Annotated[str, typer.Option(help="What is decoded.")]
MaxSentences = Annotated[int | None, typer.Option(help="Decode the first N test sentences alone.")]
Beam = Annotated[int, typer.Option(help="Beam size.")]
Lenpen = Annotated[float, typer.Option(help="Length penalty.")]
MaxLen = Annotated[str, typer.Option(help="Cap on the output, as A,B: A·source tokens + B.")]
MaxTokens = Annotated[int, typer.Option(help="Source tokens decoded at a time, padding included.")]
Tokenizer = Annotated[str, typer.Option(help="Of BLEU, as sacreBLEU names it.")]
SpmModel = Annotated[Path | None, typer.Option(help="A SentencePiece model for BLEU instead.")]


def names(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated list; None stays None."""
    return [part.strip() for part in text.split(",") if part.strip()] if text is not None else None


def opened(run: Run, checkpoint: Path | None, data: Path | None, device: str) -> Model:
    """Return the checkpoint and data of a run, from where they were unless they are said to be elsewhere now."""
    from sensikit.backends import open_model

    noted = run.manifest["provenance"]
    places = checkpoint or Path(noted["checkpoint"]), data or Path(noted["data"])
    return open_model(*places, run.manifest["direction"], device)


def decoding(beam: int, lenpen: float, max_len: str, max_sentences: int | None, max_tokens: int) -> Decoding:
    """Return how to translate.

    Raises:
        OptionError: if `max_len` is not A,B.
    """
    from sensikit.backends.base import Decoding
    from sensikit.errors import OptionError

    try:
        a, b = max_len.split(",")
        return Decoding(beam, lenpen, float(a), int(b), max_sentences, max_tokens)
    except ValueError as error:
        raise OptionError(f"--max-len {max_len}", "is not A,B", "write for example 1.2,10") from error


def command_line() -> str:
    """Return the command as it was typed, without the path of the program."""
    return shlex.join(["sensikit", *sys.argv[1:]])
