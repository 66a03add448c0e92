"""`sensikit corpus`: parallel text made ready for training and measuring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sensikit.languages import THRESHOLDS, read_name, read_tiers
from sensikit.settings import SEEDS, Options, option

from .endings import Ending, command

_SOURCES = "LANG.tsv (English, tab, LANG; .gz too), LANG.train.tsv and so on, the prefix of PREFIX.cat and PREFIX.eng "
_SOURCES += "(news.cat-eng), a gettext catalogue (ca.po, ca/LC_MESSAGES/x.mo) or a directory of catalogues."


@dataclass(frozen=True)
class Preparation(Options):
    """How text is made ready."""

    languages: tuple[str, ...] | None = option(None, "Only these, by code: cat,glg. All by default.")
    vocab: int = option(4000, "Pieces of the SentencePiece vocabulary.", least=1, most=1_000_000)
    binarise: bool = option(
        True,
        "With pieces and fairseq's binaries, or text alone, for a model that has a tokenizer.",
        names=("--binarise/--no-binarise",),
    )
    seed: int = option(1, "Draws the held-out sentences.", least=0, most=SEEDS)
    valid: int | None = option(
        None, "Validation pairs where a source has none; by default 5 %, at most 500.", least=1, most=10**9
    )
    test: int | None = option(
        None, "Test pairs where a source has none; by default 10 %, at most 1000.", least=1, most=10**9
    )
    tiers: str = option("{},{}".format(*THRESHOLDS), "Fewest training pairs of a High and of a Low language.")


def corpus(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help=_SOURCES)],
    out: Annotated[Path, typer.Option(help="The data directory to make; nothing may stand there.")],
    how: Preparation,
    mono: Annotated[
        list[Path] | None, typer.Option(help="Sentences of one language, one a line, named after it (cat.txt).")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="What a language is called, its family, its tier: cat=Catalan:Romance[:High].", metavar="CODE=…"
        ),
    ] = None,
) -> Ending:
    """Clean parallel text, split it without leaks, cut it into pieces and binarise it for fairseq if wanted."""
    from sensikit.corpus import build

    given = vars(how) | {"tiers": read_tiers(how.tiers), "names": dict(map(read_name, name or ()))}
    manifest = build(sources, out, mono=mono or (), **given)
    made = (
        command("train", out, "--out", "MODEL")
        if how.binarise
        else command("analyze", "MODEL", "--data", out, "--out", "RUN")
    )
    facts = {name: manifest[name] for name in ("languages", "english_mono", "counts")}
    return Ending([table(manifest)], {"out": out, **facts}, made)


def table(manifest: dict[str, Any]) -> str:
    """Return the sizes of each language, and the lines that were dropped with an example of each kind."""
    rows = [f"{'':5}{'language':22}{'family':24}{'tier':10}{'train':>9}{'valid':>7}{'test':>7}{'mono':>9}"]
    for code, entry in manifest["languages"].items():
        sizes = "".join(f"{entry['sizes'][part]:>{width}}" for part, width in (("train", 9), ("valid", 7), ("test", 7)))
        rows.append(f"{code:5}{entry['name']:22}{entry['family']:24}{entry['tier']:10}{sizes}{entry['mono']:>9}")
    if manifest["english_mono"]:
        rows.append(f"{'eng':5}{'English':22}{'':34}{'':23}{manifest['english_mono']:>9}")
    for code, counts in manifest["counts"].items():
        for what, tally in ((code, counts), (f"{code} mono", counts.get("mono", {}))):
            rows += _dropped(what, tally)
    return "\n".join(rows)


def _dropped(what: str, tally: dict[str, Any]) -> list[str]:
    if not tally.get("dropped"):
        return []
    rows = ["", f"{what}: {tally['kept']} of {tally['read']} lines kept; dropped:"]
    for reason, count in sorted(tally["dropped"].items(), key=lambda item: -item[1]):
        rows.append(f"  {count:>7} {reason:20} such as: {tally['examples'][reason][0]}")
    return rows
