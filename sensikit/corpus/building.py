"""One data directory from some sources: text, pieces, fairseq's binaries if wanted, and a manifest of it all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sensikit.corpus import binarising, reading, splitting
from sensikit.corpus.cleaning import clean, fault_of_pair, fault_of_sentence, fingerprint
from sensikit.corpus.splitting import LEAVE_OUT, Pair, Sentence, Texts
from sensikit.errors import DataError, OptionError
from sensikit.files import appearing, sha256, write_json
from sensikit.languages import ENGLISH, THRESHOLDS, described
from sensikit.progress import progress, say
from sensikit.version import __version__

FORMAT = 1


def build(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    mono: Sequence[str | Path] = (),
    languages: Collection[str] | None = None,
    vocab: int = 4000,
    binarise: bool = True,
    seed: int = 1,
    valid: int | None = None,
    test: int | None = None,
    tiers: tuple[int, int] = THRESHOLDS,
    names: Mapping[str, tuple[str, str, str]] | None = None,
) -> dict[str, Any]:
    """Return the manifest of the data directory that this makes at `out`.

    The same text, options and seed make the same bytes. `out` appears when it is complete, or not at all.

    >>> [text.name for text in texts]
    ['cat.tsv', 'fao.tsv']
    >>> manifest = build(texts, folder / "data", vocab=100)
    >>> {code: (of["name"], of["sizes"]["train"]) for code, of in manifest["languages"].items()}
    {'cat': ('Catalan', 99), 'fao': ('Faroese', 52)}

    Args:
        sources: TSV files, prefixes of two plain files, gettext catalogues or directories of them (`reading.find`).
        out: where the directory is to be; nothing may stand there.
        mono: files of sentences in one language, named after it; English too.
        languages: codes of the languages wanted; None for all.
        vocab: pieces of the SentencePiece vocabulary, the language tags and <mask> among them.
        binarise: False leaves out pieces and binaries, for models that have their own tokenizer; `vocab` has no effect.
        seed: draws the held-out sentences where the sources have no split of their own.
        valid: pairs held out for validation in such languages; None for 5 %, at most 500.
        test: pairs held out for testing; None for 10 %, at most 1,000.
        tiers: fewest training pairs of a High and of a Low language.
        names: name, family and tier of languages by code, each empty where the table is right.

    Raises:
        DataError: if a source is missing, unreadable or empty, or a language has no usable pair.
        OptionError: if `out` exists, `vocab` does not fit the text, or a language is asked for that no source has.
        SensikitError: if the disk is full.
    """
    out = Path(out)
    if out.exists() or out.is_symlink():
        raise OptionError(out, "already exists", "choose another --out, or remove it first")
    texts = _read(reading.find(sources, languages), [Path(path) for path in mono], seed)
    splitting.split(texts, {"valid": valid, "test": test})
    codes = sorted(code for code in texts if texts[code].tally.read)
    for code in names or ():
        if code not in codes:
            raise OptionError("--name", f"no source has {code}", f"there are {', '.join(codes)}")
    with appearing(out) as partial:
        binariser, vocabulary = _pieces(partial, texts, codes, vocab) if binarise else (None, None)
        _write(partial, texts, binariser)
        manifest = {
            "format": FORMAT,
            "version": __version__,
            "english": ENGLISH,
            "seed": seed,
            "languages": {code: _described(texts[code], code, tiers, names) for code in codes},
            "english_mono": len(texts[ENGLISH].mono["train"]) if ENGLISH in texts else 0,
            "tiers": {"high": tiers[0], "low": tiers[1]},
            "vocabulary": vocabulary,
            "counts": {code: _counts(each) for code, each in sorted(texts.items())},
            "files": {
                path.relative_to(partial).as_posix(): sha256(path)
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            },
        }
        write_json(partial / "manifest.json", manifest)
    return manifest


def _read(sources: Sequence[reading.Source], mono: Sequence[Path], seed: int) -> dict[str, Texts]:
    texts: dict[str, Texts] = {}
    with progress(len(sources) + len(mono), "reading", "files") as bar:
        for source in sources:
            _read_pairs(source, texts.setdefault(source.language, Texts()), seed)
            bar.advance()
        for code, each in texts.items():
            if not each.tally.read:
                raise DataError(code, "none of its catalogues has a message", LEAVE_OUT)
        for path in mono:
            code = reading.language_of(path)
            if code != ENGLISH and code not in texts:
                raise DataError(path, f"is in {code}, which no source has", "give parallel text of that language too")
            _read_sentences(path, texts.setdefault(code, Texts()), seed)
            bar.advance()
    return texts


def _read_pairs(source: reading.Source, texts: Texts, seed: int) -> None:
    pairs = texts.pairs[source.split or "train"]
    for row in source.rows():
        texts.tally.read += 1
        english, other = clean(row.english), clean(row.other)
        if fault := row.fault or fault_of_pair(english, other):
            texts.tally.drop(fault, f"{english} | {other}" if not row.fault else clean(row.english))
        else:
            pairs.append(Pair(*(Sentence(side, fingerprint(side, seed)) for side in (english, other))))


def _read_sentences(path: Path, texts: Texts, seed: int) -> None:
    for row in reading.lines(path):
        texts.mono_tally.read += 1
        text = clean(row.english)
        if fault := row.fault or fault_of_sentence(text):
            texts.mono_tally.drop(fault, text)
        else:
            texts.mono["train"].append(Sentence(text, fingerprint(text, seed)))


def _pieces(
    out: Path, texts: Mapping[str, Texts], codes: Sequence[str], vocab: int
) -> tuple[binarising.Binariser, dict[str, Any]]:
    """Learn the pieces and write them and their dictionaries; return what binarises by them, and what they are."""
    seen = binarising.sample(_training_text(texts))
    say(f"learning {vocab} pieces from {len(seen)} training sentences")
    model = binarising.train_pieces(seen, vocab, [*codes, ENGLISH])
    (out / "spm.model").write_bytes(model)
    binariser = binarising.Binariser(model)
    (out / "bin" / "mono").mkdir(parents=True)
    for name in ("dict.txt", *(f"bin/dict.{code}.txt" for code in (*codes, ENGLISH))):
        binariser.save_dictionary(out / name)
    facts = {"type": "unigram", "size": len(binariser.symbols), "sentences": len(seen)}
    return binariser, {**facts, "sha256": sha256(out / "spm.model")}


def _write(out: Path, texts: Mapping[str, Texts], binariser: binarising.Binariser | None) -> None:
    """Write the text, and its binaries if there is something to make them with."""
    (out / "text").mkdir()
    files = dict(_files(texts))
    with progress(len(files), "binarising" if binariser else "writing", "files") as bar:
        for (text, binary), sentences in files.items():
            lines = "".join(f"{sentence}\n" for sentence in sentences)
            (out / "text" / text).write_text(lines, encoding="utf-8", newline="\n")
            if binariser:
                binariser.write(sentences, out / "bin" / binary)
            bar.advance()


def _training_text(texts: Mapping[str, Texts]) -> dict[str, list[tuple[bytes, str]]]:
    """Return the training sentences of each language, each once, with their keys."""
    found: dict[str, dict[bytes, str]] = {code: {} for code in sorted({*texts, ENGLISH})}
    for code, each in texts.items():
        for pair in each.pairs["train"]:
            found[ENGLISH].setdefault(pair.english.key, pair.english.text)
            found[code].setdefault(pair.other.key, pair.other.text)
        for sentence in each.mono["train"]:
            found[code].setdefault(sentence.key, sentence.text)
    return {code: list(sentences.items()) for code, sentences in found.items()}


def _files(texts: Mapping[str, Texts]) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Yield the name of each text file and of its binary, and the sentences in them."""
    for code, each in texts.items():
        for part, pairs in each.pairs.items():
            if pairs:
                sides = {code: [p.other.text for p in pairs], ENGLISH: [p.english.text for p in pairs]}
                for side, sentences in sides.items():
                    name = f"{part}.{code}-{ENGLISH}.{side}"
                    yield (name, name), sentences
        for part, name in (("train", f"mono.{code}"), ("valid", f"mono-valid.{code}")):
            if each.mono[part]:
                yield (name, f"mono/{name}"), [sentence.text for sentence in each.mono[part]]


def _described(
    texts: Texts, code: str, tiers: tuple[int, int], names: Mapping[str, tuple[str, str, str]] | None
) -> dict[str, Any]:
    sizes = {part: len(pairs) for part, pairs in texts.pairs.items()}
    description = described(code, sizes["train"], tiers, (names or {}).get(code, ("", "", "")))
    return {**description, "sizes": sizes, "mono": len(texts.mono["train"])}


def _counts(texts: Texts) -> dict[str, Any]:
    counts = texts.tally.as_dict() if texts.tally.read else {}
    return {**counts, "mono": texts.mono_tally.as_dict()} if texts.mono_tally.read else counts
