"""Text that is damaged, odd or made to hurt, for `sensikit corpus`: refused, or what is kept was there."""

from __future__ import annotations

import gzip
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sensikit.corpus.cleaning import clean
from sensikit.files import read_json
from tests.fuzz import Outcome, Result
from tests.fuzz.judging import tried

Draw = random.Random

HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset={charset}\\n"\n"Plural-Forms: {plural}\\n"\n\n'
RULES = ("nplurals=2; plural=n/0;", "nplurals=9; plural=n%0", "plural=" + "(" * 900, "plural=n" * 200, "plural=-1;",
         "nplurals=2; plural=(n != 1);", "plural=__import__('os')", "plural=n ? n : 99999999999")  # fmt: skip
CHARSETS = ("UTF-8", "utf-16", "no-such", "idna", "rot13", "zlib", "UTF-7", "\x00", "../x")
ODD = ("\x00", "\x1b[31m", "\u202e", "\ufeff", "\r", "\u2028", "\x85", "\udcff", "\t\t",
       "👩‍👩‍👧", "a\u0301" * 300, "<mask>",
       "__cat__", "▁", "</s>", "=cmd()", "\\x", '"', "(" * 5000)  # fmt: skip


def _lines(draw: Draw, count: int = 120) -> list[tuple[str, str]]:
    """Return pairs of sentences, none twice."""
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrs"]
    return [(" ".join(draw.choices(words, k=6)), " ".join(draw.choices(words, k=6))) for _ in range(count)]


def _odd(draw: Draw, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return pairs with odd signs in some of them."""
    found = list(pairs)
    for _ in range(draw.randrange(30)):
        place, sign = draw.randrange(len(found)), draw.choice(ODD)
        one, other = found[place]
        found[place] = draw.choice(((one + sign, other), (sign, other), (one, sign + other), (one, ""), (sign, sign)))
    return found


def _damaged(draw: Draw, data: bytes) -> bytes:
    kind = draw.choice(("none", "bits", "cut", "zeros", "random"))
    at = draw.randrange(len(data))
    if kind == "cut":
        return data[:at]
    if kind == "random":
        return draw.randbytes(len(data) // 4)
    found = bytearray(data)
    if kind == "zeros":
        found[at : at + 200] = bytes(len(found[at : at + 200]))
    for _ in range(draw.choice((1, 20)) if kind == "bits" else 0):
        found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    return bytes(found)


def _po(draw: Draw, pairs: list[tuple[str, str]]) -> str:
    text = HEADER.format(charset=draw.choice(CHARSETS) if draw.random() < 0.3 else "UTF-8", plural=draw.choice(RULES))
    for one, other in pairs:
        text += draw.choice(("", "#, fuzzy\n", "#~ ", "# \x07\n")) + f'msgid "{one}"\nmsgstr "{other}"\n\n'
    return text + 'msgid "%d file"\nmsgid_plural "%d files"\nmsgstr[0] "a"\nmsgstr[1] "b"\n'


def _mo(draw: Draw, folder: Path, pairs: list[tuple[str, str]]) -> bytes:
    import polib

    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=UTF-8", "Plural-Forms": draw.choice(RULES)}
    catalogue.extend(polib.POEntry(msgid=one, msgstr=other) for one, other in pairs)
    catalogue.save_as_mofile(str(folder / "whole.tmp"))
    data = bytearray((folder / "whole.tmp").read_bytes())
    (folder / "whole.tmp").unlink()
    if draw.random() < 0.5:  # counts and offsets
        at = draw.randrange(4, 60)
        data[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00"))
    return bytes(data)


def _written(folder: Path, draw: Draw) -> tuple[Path, set[str] | None]:
    """Write one source; return what is given to the command, and the sentences that may be in what it makes."""
    pairs = _odd(draw, _lines(draw))
    kind = draw.choice(("tsv", "tsv", "gz", "po", "mo", "plain", "tree", "name", "place"))
    lines = "".join(f"{one}\t{other}\n" for one, other in pairs).encode(errors="surrogatepass")
    path = folder / f"cat.{kind}"
    if kind in ("tsv", "gz"):
        path = folder / ("cat.tsv.gz" if kind == "gz" else draw.choice(("cat.tsv", "all.tsv", "ca.train.tsv")))
        data = _damaged(draw, lines)
        path.write_bytes(_damaged(draw, gzip.compress(data)) if kind == "gz" else data)
        return path, _sides(data) if kind == "tsv" else None
    if kind == "po":
        path.write_bytes(_damaged(draw, _po(draw, pairs).encode(errors="surrogatepass")))
    elif kind == "mo":
        path.write_bytes(_damaged(draw, _mo(draw, folder, _lines(draw))))
    elif kind == "plain":
        for side, code in enumerate(("cat", "eng")):
            text = "".join(pair[side].replace("\t", "") + "\n" for pair in pairs[: draw.choice((120, 60 + side, 0))])
            (folder / f"x.cat-eng.{code}").write_bytes(_damaged(draw, text.encode(errors="surrogatepass") or b"x"))
        path = folder / "x.cat-eng"
    elif kind == "tree":
        for code in draw.sample(["ca", "te", "ur", "messages", "..x", "pt_BR", "sr@latin", "zz", "a" * 100], 4):
            file = folder / "tree" / draw.choice((f"{code}/LC_MESSAGES/app.po", f"{code}.po", f"{code}/app.po"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_damaged(draw, _po(draw, _lines(draw)).encode()))
        path = folder / "tree"
    elif kind == "name":
        path = folder / draw.choice(("eng.tsv", "x.tsv", "cat\n.tsv", "cat", ".tsv", "cat.train.valid.tsv", "nul.tsv"))
        path.write_bytes(lines)
    else:
        path = folder / "cat.tsv"
        what = draw.choice(("pipe", "missing", "directory", "loop", "unreadable", "empty", "long"))
        if what == "pipe":
            os.mkfifo(path)
        elif what == "directory":
            path.mkdir()
        elif what == "loop":
            path.symlink_to(path)
        elif what in ("unreadable", "empty"):
            path.write_bytes(b"" if what == "empty" else lines)
            path.chmod(0 if what == "unreadable" else 0o600)
        elif what == "long":
            path = folder / f"cat.{'x' * 300}.tsv"
    return path, None


def _sides(data: bytes) -> set[str]:
    rows = (line.split(b"\t") for line in data.split(b"\n"))
    return {clean(side.decode(errors="replace").rstrip("\r")) for row in rows if len(row) == 2 for side in row}


def sources(count: int, seed: int) -> Iterator[Outcome]:
    """Yield the outcomes of sources."""
    for number in range(count):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path, known = _written(folder, Draw(f"{seed} {number}"))
            before, out = {*folder.rglob("*")}, folder / "out"
            command = ("corpus", path, "--out", out, "--vocab", 70, "--valid", 4, "--test", 4)
            found = tried(f"{number}: {path.name[:60]!r}", command, lambda _, o=out, k=known: _made(o, k))
            beside = {*folder.rglob("*")} - before - {out, *out.rglob("*")}
            left = [out] if out.exists() and found.result == "refused" else []
            yield Outcome(found.what, "outside", f"{[*beside, *left]}") if beside or left else found


def _made(out: Path, known: set[str] | None) -> tuple[Result, str]:
    """Judge a data directory that was made: lines that are counted, sentences that were there."""
    manifest = read_json(out / "manifest.json")
    for code, tally in manifest["counts"].items():
        kept = sum(manifest["languages"][code]["sizes"].values())
        if tally["read"] != tally["kept"] + sum(tally["dropped"].values()) or tally["kept"] != kept:
            return "wrong", f"{code}: lines that nobody counted"
    texts = [line for file in (out / "text").iterdir() for line in file.read_text(encoding="utf-8").split("\n")]
    strange = {line for line in texts if line} - (known or {*texts})
    return ("wrong", f"a sentence that was not there: {strange.pop()!r}") if strange else ("same", "")
