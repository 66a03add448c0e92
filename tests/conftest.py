"""Fixtures that every test may use: a small multilingual corpus, real checkpoints of it, and opened backends."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from matplotlib.figure import Figure

from sensikit.figures import style

LANGUAGES = {"cat": 240, "nob": 200, "fao": 160}
"""Training pairs by language."""
HELD_OUT = 12
ENGLISH = "eng"
WORDS = 20


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell that starts the tests in the background has SIGINT ignored, and processes inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run beside other work: a second thread makes them slower there, not faster."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start; the same sums in the same order


@pytest.fixture(scope="session", autouse=True)
def every_kind() -> Iterator[tuple[str, ...]]:
    """All kinds of files of a figure; tests write SVG alone, which is what a page shows, in a third of the time."""
    kinds = style.KINDS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "KINDS", ("svg",))
        yield kinds


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but neither laid out nor drawn: half the time of a report that is looked at for its words."""
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda _: None)
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).write_text("<svg/>"))


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Have the first process of the tests make something costly in a folder of that name, for all to read."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def made(name: str, make: Callable[[Path], object]) -> Path:
        place, done = root / name, root / f"{name}.made"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                make(place)
                done.touch()
        return place

    return made


def sentences(language: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Return (language, English) sentences: word for word, in reverse order in fao, from two pieces a word."""
    generator = random.Random(f"{language} {seed}")
    pairs = []
    for _ in range(count):
        numbers = [generator.randrange(WORDS) for _ in range(generator.randint(2, 6))]
        order = reversed(numbers) if language == "fao" else numbers
        pairs.append((" ".join(word(language, n) for n in order), " ".join(word(ENGLISH, n) for n in numbers)))
    return pairs


def word(language: str, number: int) -> str:
    """Return a word; every third one is the same in all languages."""
    stem = "n" if number % 3 == 0 else language[0]
    return f"{stem}{'aeiou'[number % 5]}{'klmrst'[number // 7]}{number}"


def pieces(text: str) -> str:
    """Return `text` in pieces as of SentencePiece: the first two letters of a word, and the rest of it."""
    return " ".join(f"▁{each[:2]} {each[2:]}" for each in text.split())


def write_corpus(root: Path, tags: bool = True) -> Path:
    """Write a data directory as of `sensikit corpus`, binarised with fairseq's own builders.

    Args:
        root: where to.
        tags: language tags and <mask> are in the dictionary from the start.
    """
    from sensikit.backends.fairseq import compat
    from sensikit.files import sha256, write_json
    from sensikit.version import __version__

    parts = compat.load()
    for folder in ("bin", "text"):
        (root / folder).mkdir(parents=True)
    counts = {
        "train": LANGUAGES,
        "valid": dict.fromkeys(LANGUAGES, HELD_OUT),
        "test": dict.fromkeys(LANGUAGES, HELD_OUT),
    }
    texts = {
        (split, language): sentences(language, count, seed)
        for seed, (split, by_language) in enumerate(counts.items())
        for language, count in by_language.items()
    }
    symbols = sorted(
        {piece for pairs in texts.values() for pair in pairs for side in pair for piece in pieces(side).split()}
    )
    if tags:
        symbols += [f"__{code}__" for code in (*LANGUAGES, ENGLISH)] + ["<mask>"]
    for code in (*LANGUAGES, ENGLISH):
        (root / "bin" / f"dict.{code}.txt").write_text("".join(f"{symbol} 1\n" for symbol in symbols), encoding="utf-8")
    dictionary = parts.Dictionary.load(str(root / "bin" / f"dict.{ENGLISH}.txt"))
    for (split, language), pairs in texts.items():
        for side, code in enumerate((language, ENGLISH)):
            stem = f"{split}.{language}-{ENGLISH}.{code}"
            (root / "text" / stem).write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
            binarise(root / "bin" / stem, [pair[side] for pair in pairs], dictionary)
    names = {"cat": ("Catalan", "Western Romance"), "nob": ("Norwegian Bokmål", "North Germanic")}
    names["fao"] = ("Faroese", "North Germanic")
    tiers = {"cat": "High", "nob": "Low", "fao": "Very Low"}
    languages = {
        code: {
            "name": names[code][0],
            "family": names[code][1],
            "tier": tiers[code],
            "sizes": {split: by_language[code] for split, by_language in counts.items()},
            "mono": 0,
        }
        for code in LANGUAGES
    }
    files = {path.relative_to(root).as_posix(): sha256(path) for path in sorted(root.glob("*/*"))}
    manifest = {"format": 1, "version": __version__, "english": ENGLISH, "seed": 1, "languages": languages}
    manifest |= {"tiers": {"high": 220, "low": 180}, "vocabulary": {"type": "pieces", "size": len(symbols)}}
    write_json(root / "manifest.json", {**manifest, "counts": {}, "files": files})
    return root


def binarise(stem: Path, texts: list[str], dictionary: Any) -> None:
    """Write one side of a pair as fairseq-preprocess does."""
    from fairseq.data import indexed_dataset

    builder = indexed_dataset.make_builder(f"{stem}.bin", "mmap", len(dictionary))
    for text in texts:
        builder.add_item(dictionary.encode_line(pieces(text), add_if_not_exist=False))
    builder.finalize(f"{stem}.idx")


REPLACED = ("--lang-tok-replacing-bos-eos", "--encoder-langtok", "tgt", "--decoder-langtok")
"""The tag of the target language stands for </s> at the end of the source and at the start of the decoder's input."""
PLAIN = ("--encoder-langtok", "src", "--decoder-langtok")
"""Tags stand before the source and before the target."""


def train_checkpoint(data: Path, out: Path, *design: str, updates: int = 200) -> Path:
    """Return a checkpoint of fairseq-train itself: 2+2 layers, width 32, all languages into English.

    Args:
        data: with dict.LANG.txt in it.
        out: where to.
        design: flags of fairseq-train, after and so over the usual ones.
        updates: how many.
    """
    from sensikit.backends.fairseq.train import train

    sizes = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 32 --decoder-embed-dim 32"
    sizes += (
        " --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64 --encoder-attention-heads 2 --decoder-attention-heads 2"
    )
    flags = "--task translation_multi_simple_epoch --arch transformer --share-all-embeddings"
    flags += " --encoder-normalize-before --decoder-normalize-before --criterion label_smoothed_cross_entropy"
    flags += " --label-smoothing 0.1 --dropout 0.1 --optimizer adam --lr 0.01 --lr-scheduler inverse_sqrt"
    flags += " --warmup-updates 20 --max-tokens 1500 --sampling-method temperature --sampling-temperature 1 --seed 1"
    flags += " --cpu --no-epoch-checkpoints --disable-validation --log-format none --num-workers 0"
    flags += " --save-interval 1000"  # but the last, none
    flags += f" --max-update {updates} --langs {','.join((*LANGUAGES, ENGLISH))} --save-dir {out}"
    flags += f" --lang-pairs {','.join(f'{code}-{ENGLISH}' for code in LANGUAGES)}"
    train([str(data), *flags.split(), *sizes.split(), *design])
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    return out / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def tiny_data(once: Once) -> Path:
    """A data directory with a manifest, raw text, three languages and English."""
    from sensikit.backends.fairseq import compat

    compat.load()  # tests that import fairseq themselves come after this
    return once("corpus", lambda place: write_corpus(place / "data")) / "data"


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_data: Path, once: Once) -> Path:
    """A checkpoint of fairseq-train whose language tags replace </s>."""
    place = once("replaced", lambda place: train_checkpoint(tiny_data / "bin", place, *REPLACED))
    return place / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def plain_checkpoint(tiny_data: Path, once: Once) -> Path:
    """A checkpoint of fairseq-train whose language tags stand before the sentences."""
    place = once("plain", lambda place: train_checkpoint(tiny_data / "bin", place, *PLAIN, updates=60))
    return place / "checkpoint_last.pt"


@pytest.fixture
def tiny_backend(tiny_checkpoint: Path, tiny_data: Path):  # type: ignore[no-untyped-def]
    """`tiny_checkpoint` opened with `tiny_data`: opened afresh, so that a test may change its weights."""
    from sensikit.backends.fairseq.opening import open_checkpoint

    return open_checkpoint(tiny_checkpoint, tiny_data, device="cpu")


@pytest.fixture
def plain_backend(plain_checkpoint: Path, tiny_data: Path):  # type: ignore[no-untyped-def]
    """`plain_checkpoint` opened with `tiny_data`, afresh."""
    from sensikit.backends.fairseq.opening import open_checkpoint

    return open_checkpoint(plain_checkpoint, tiny_data, device="cpu")


@pytest.fixture(params=["replaced", "plain", "right"])
def any_design(request: pytest.FixtureRequest, tiny_data: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """`tiny_backend`, `plain_backend`, and the first of them padded on the right, in turn."""
    from sensikit.backends.fairseq.opening import open_checkpoint
    from tests.support.checkpoints import edited

    if request.param != "right":
        return request.getfixturevalue({"replaced": "tiny_backend", "plain": "plain_backend"}[request.param])
    path = edited(request.getfixturevalue("tiny_checkpoint"), tmp_path / "c.pt", task={"left_pad_source": False})
    return open_checkpoint(path, tiny_data, device="cpu")


@pytest.fixture(scope="session")
def analysed(once: Once) -> Path:
    """What `sensikit analyze --batches 4 --tokens 64` wrote of the trained toy; to be copied, not changed."""
    from sensikit.sensitivity.analysis import analyze
    from sensikit.settings import AnalysisSettings
    from tests.support import toy

    settings = AnalysisSettings(batches=4, tokens=64)
    return once("analysed", lambda place: analyze(toy.backend(), place / "run", settings)) / "run"


@pytest.fixture(scope="session")
def reported(once: Once) -> Path:
    """One synthetic run with everything in it, reported into itself; to be read alone."""
    from sensikit.report.page import report
    from tests.support import page, synthetic_run

    def make(place: Path) -> None:
        run = synthetic_run.write_run(place / "my run", page.FEW, only=synthetic_run.EVERY)
        report([run], command="sensikit report 'my run'")

    return once("reported", make) / "my run"


@pytest.fixture(scope="session")
def reported_pair(once: Once) -> Path:
    """The report of two synthetic runs that differ in T, and of an evaluation; to be read alone."""
    from sensikit.report.page import report
    from tests.support import page, synthetic_run, synthetic_tables

    def make(place: Path) -> None:
        first = synthetic_run.write_run(place / "regular", page.FEW)
        second = synthetic_run.write_run(place / "distilled", page.FEW, seed=1, drop=0.1, tokens=3000)
        report([first, second, synthetic_tables.write_evaluation(place / "scores", page.FEW)], place / "out")

    return once("pair", make) / "out"


@pytest.fixture(scope="session")
def real_runs(tiny_checkpoint: Path, plain_checkpoint: Path, tiny_data: Path, once: Once) -> Path:
    """Two small checkpoints that went the whole way: first/, second/ and evaluation/; to be read alone."""
    from tests.support.command import done

    decoding = ("--tokenizer", "13a", "--beam", 2)

    def make(root: Path) -> None:
        for name, checkpoint in (("first", tiny_checkpoint), ("second", plain_checkpoint)):
            sizes = ("--batches", 12, "--tokens", 60, "--micro-batches", 1)
            done("analyze", checkpoint, "--data", tiny_data, "--out", root / name, *sizes)
            orders = ("--order", "specificity,random", "--seeds", 1)
            done("prune", root / name, "--ratios", "0,0.5,0.9", *orders, *decoding)
        done("prune", root / "first", "--ratios", "0,0.5", "--cross", "--resume", *decoding)
        done("audit", root / "first", "--parameters", 60)
        labels = ("--label", "first", "--label", "second")
        compared = ("evaluate", tiny_checkpoint, plain_checkpoint, "--data", tiny_data, "--out", root / "evaluation")
        done(*compared, *labels, *decoding)

    return once("real", make)
