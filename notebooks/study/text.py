"""A corpus cut down to a cap: so many training pairs of each language, and what is left over as monolingual text.

python text.py PARALLEL MONO OUT reads PARALLEL/LANG.{train,dev,test}.tsv.gz (English, tab, LANG) and, where they are,
MONO/LANG.extra.txt.gz; it writes OUT/LANG.train.tsv (drawn), OUT/LANG.{dev,test}.tsv (whole) and OUT/mono/LANG.txt.
"""

from __future__ import annotations

import gzip
import random
import sys
from pathlib import Path

CAP = 2000


def lines(path: Path) -> list[str]:
    """Return the lines of a gzipped file; none of one that is not there."""
    text = gzip.decompress(path.read_bytes()).decode() if path.is_file() else ""
    return text.removesuffix("\n").split("\n") if text else []


def write(path: Path, text: list[str]) -> None:
    """Write lines."""
    path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8", newline="\n")


def cut(parallel: Path, mono: Path, out: Path, cap: int = CAP) -> None:
    """Write the corpus to `out`, which appears when it is complete."""
    partial = out.with_name(out.name + ".partial")
    (partial / "mono").mkdir(parents=True, exist_ok=True)
    english: dict[str, None] = {}
    languages = sorted(path.name.split(".")[0] for path in parallel.glob("*.train.tsv.gz"))
    if not languages:
        sys.exit(f"{parallel}: holds no LANG.train.tsv.gz; name the folder of the corpus: make study DATA=… MONO=…")
    for code in languages:
        pairs = lines(parallel / f"{code}.train.tsv.gz")
        drawn = set(random.Random(code).sample(range(len(pairs)), min(cap, len(pairs))))
        rest = [pair.split("\t") for number, pair in enumerate(pairs) if number not in drawn]
        english |= dict.fromkeys(pair[0] for pair in rest)
        write(partial / f"{code}.train.tsv", [pairs[number] for number in sorted(drawn)])
        for split in ("dev", "test"):
            write(partial / f"{code}.{split}.tsv", lines(parallel / f"{code}.{split}.tsv.gz"))
        write(partial / "mono" / f"{code}.txt", [pair[1] for pair in rest] + lines(mono / f"{code}.extra.txt.gz"))
    write(partial / "mono" / "eng.txt", list(english))
    partial.rename(out)


if __name__ == "__main__":
    cut(*map(Path, sys.argv[1:4]))
