import errno
import hashlib
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from sensikit.corpus import binarising, build, building
from sensikit.errors import DataError, OptionError, SensikitError
from tests.support.corpus_text import english, translated, write_tsv

SHARED = english(420)
OPTIONS: dict[str, Any] = {"vocab": 150, "valid": 10, "test": 20, "tiers": (250, 100), "seed": 3}


def write_sources(root: Path) -> list[Path]:
    root.mkdir(parents=True)
    paths = [
        write_tsv(root / "cat.tsv", SHARED[:400], "cat"),
        write_tsv(root / "glg.tsv", SHARED[200:400], "glg"),
        write_tsv(root / "isl.train.tsv", SHARED[300:400], "isl"),
        write_tsv(root / "isl.dev.tsv", SHARED[290:310], "isl"),
        write_tsv(root / "isl.test.tsv", [*SHARED[305:325], "Only жжжж in this one test sentence"], "isl"),
    ]
    with paths[0].open("a", encoding="utf-8") as file:
        file.write("no tab in this line\nSame\tsame\n")
        file.write("".join(f"The tag __cat__ {one}\tx__cat__ {translated(one, 'cat')}\n" for one in SHARED[400:410]))
    return paths


def write_mono(root: Path) -> list[Path]:
    (root / "cat.txt").write_text("".join(translated(one, "cat") + "\n" for one in [*SHARED[:40], *english(60, 9)]))
    (root / "eng.txt").write_text("".join(one + "\n" for one in SHARED))
    return [root / "cat.txt", root / "eng.txt"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sources(tmp_path_factory.mktemp("sources") / "text")


@pytest.fixture(scope="module")
def mono(sources: list[Path]) -> list[Path]:
    return write_mono(sources[0].parent)


@pytest.fixture(scope="module")
def data(sources: list[Path], mono: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "data"
    build(sources, out, mono=mono, **OPTIONS)
    return out


@pytest.fixture(scope="module")
def manifest(data: Path) -> dict[str, Any]:
    return json.loads((data / "manifest.json").read_text())


def text(data: Path, name: str) -> list[str]:
    return (data / "text" / name).read_text(encoding="utf-8").split("\n")[:-1]


def binary(data: Path, name: str) -> Any:
    from fairseq.data.data_utils import load_indexed_dataset

    return load_indexed_dataset(str(data / "bin" / name), None, dataset_impl="mmap")


def names(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "text").iterdir())


def test_the_manifest_tells_names_families_sizes_and_tiers(manifest: dict[str, Any]) -> None:
    languages = manifest["languages"]
    assert list(languages) == ["cat", "glg", "isl"]
    assert languages["cat"]["name"] == "Catalan"
    assert languages["isl"]["family"] == "North Germanic"
    assert {code: entry["tier"] for code, entry in languages.items()} == {
        "cat": "High",
        "glg": "Low",
        "isl": "Very Low",
    }
    assert languages["cat"]["sizes"]["test"] == languages["glg"]["sizes"]["test"] == 20
    assert (languages["isl"]["sizes"]["valid"], languages["isl"]["sizes"]["test"]) == (15, 21)
    assert manifest["tiers"] == {"high": 250, "low": 100}
    assert (manifest["format"], manifest["english"], manifest["seed"]) == (1, "eng", 3)


def test_every_line_read_is_kept_or_counted(data: Path, manifest: dict[str, Any]) -> None:
    for code, counts in manifest["counts"].items():
        if "read" in counts:
            assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
            assert counts["kept"] == sum(manifest["languages"][code]["sizes"].values())
    cat = manifest["counts"]["cat"]
    assert cat["read"] == 412
    assert cat["dropped"]["no tab"] == cat["dropped"]["identical sides"] == 1
    assert cat["examples"]["no tab"] == ["no tab in this line"]
    assert cat["examples"]["identical sides"] == ["Same | same"]
    assert manifest["counts"]["eng"]["mono"]["kept"] == sum(
        len(text(data, f"{name}.eng")) for name in ("mono", "mono-valid")
    )


def test_text_binaries_and_manifest_have_the_same_sizes(data: Path, manifest: dict[str, Any]) -> None:
    for code, entry in manifest["languages"].items():
        for part, size in entry["sizes"].items():
            for side in (code, "eng"):
                name = f"{part}.{code}-eng.{side}"
                assert len(text(data, name)) == len(binary(data, name)) == size
    assert len(text(data, "mono.cat")) == len(binary(data, "mono/mono.cat")) == manifest["languages"]["cat"]["mono"]
    assert len(binary(data, "mono/mono.eng")) == manifest["english_mono"] > 0


def test_sides_stay_aligned(data: Path) -> None:
    for code in ("cat", "glg", "isl"):
        for one, other in zip(text(data, f"train.{code}-eng.eng"), text(data, f"train.{code}-eng.{code}"), strict=True):
            if "__cat__" not in one:
                assert other == translated(one, code)


def test_no_held_out_sentence_is_in_any_training_file(data: Path) -> None:
    held = {line.lower() for name in names(data) if name.startswith(("test", "valid")) for line in text(data, name)}
    trained = {line.lower() for name in names(data) if name.startswith(("train", "mono.")) for line in text(data, name)}
    assert len(held) > 100
    assert not held & trained


def test_fairseq_reads_back_exactly_the_text(data: Path) -> None:
    from fairseq.data import Dictionary

    dictionary = Dictionary.load(str(data / "bin" / "dict.eng.txt"))
    for name in names(data):
        if name.startswith(("train", "valid")):
            numbers = binary(data, name)
            decoded = [dictionary.string(numbers[n], "sentencepiece") for n in range(len(numbers))]
            expected = text(data, name)
            rare = {n for n in range(len(expected)) if dictionary.unk() in numbers[n]}
            assert len(rare) <= len(expected) / 10
            assert [n for n in range(len(expected)) if decoded[n] != expected[n] and n not in rare] == []
            assert {int(numbers[n][-1]) for n in range(len(numbers))} == {dictionary.eos()}


def test_tags_and_mask_are_in_every_dictionary_and_fairseq_adds_nothing(data: Path) -> None:
    from fairseq.data import Dictionary
    from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager

    whole = (data / "dict.txt").read_text()
    assert all((data / "bin" / f"dict.{code}.txt").read_text() == whole for code in ("cat", "glg", "isl", "eng"))
    assert len(Dictionary.load(str(data / "dict.txt"))) == OPTIONS["vocab"]
    symbols = [line.split(" ")[0] for line in whole.splitlines()]
    assert {"__cat__", "__glg__", "__isl__", "__eng__", "<mask>"} <= set(symbols)
    args = Namespace(
        data=str(data / "bin"), langs=["cat", "glg", "isl", "eng"], lang_pairs=["cat-eng", "glg-eng", "isl-eng"]
    )
    args.__dict__.update(lang_dict=None, left_pad_source="True", left_pad_target="False", langtoks=None)
    args.__dict__.update(encoder_langtok="tgt", decoder_langtok=True, source_lang=None, target_lang=None)
    args.__dict__.update(lang_tok_style="multilingual", langtoks_specs=["main"], extra_data=None, extra_lang_pairs=None)
    args.__dict__.update(source_dict=None, target_dict=None, fixed_dictionary=None)
    _, dictionaries, _ = MultilingualDatasetManager.prepare(Dictionary.load, args)
    assert {len(dictionary) for dictionary in dictionaries.values()} == {OPTIONS["vocab"]}


def test_text_that_spells_a_tag_does_not_become_it(data: Path) -> None:
    from fairseq.data import Dictionary

    dictionary = Dictionary.load(str(data / "dict.txt"))
    special = {dictionary.index(symbol) for symbol in ("__cat__", "__eng__", "<mask>")} | {dictionary.pad()}
    assert any("__cat__" in line for line in text(data, "train.cat-eng.cat"))
    for name in names(data):
        if not name.startswith("mono"):
            numbers = binary(data, name)
            assert all(special.isdisjoint(numbers[n].tolist()) for n in range(len(numbers)))


def test_pieces_are_learned_from_training_text_alone(data: Path) -> None:
    pieces = SentencePieceProcessor(model_file=str(data / "spm.model"))
    known = "".join(pieces.id_to_piece(n) for n in range(pieces.get_piece_size()))
    assert any("ж" in line for line in text(data, "test.isl-eng.isl"))
    assert "ж" not in known
    assert set("abcdefghiklmnopqrstuvwxy") <= set(known)


def test_the_manifest_hashes_every_file(data: Path, manifest: dict[str, Any]) -> None:
    files = {path.relative_to(data).as_posix(): path for path in data.rglob("*") if path.is_file()}
    del files["manifest.json"]
    assert manifest["files"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert manifest["vocabulary"]["sha256"] == manifest["files"]["spm.model"]
    assert manifest["vocabulary"]["size"] == OPTIONS["vocab"]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_the_same_text_and_seed_make_the_same_bytes_wherever_they_stand(data: Path, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "elsewhere" / "copied")
    build(sources, tmp_path / "again", mono=write_mono(sources[0].parent), **OPTIONS)
    assert contents(tmp_path / "again") == contents(data)


def test_another_seed_holds_out_other_sentences(data: Path, sources: list[Path], tmp_path: Path) -> None:
    build(sources, tmp_path / "other", **{**OPTIONS, "seed": 4})
    assert text(tmp_path / "other", "test.cat-eng.eng") != text(data, "test.cat-eng.eng")
    assert text(tmp_path / "other", "test.isl-eng.eng") == text(data, "test.isl-eng.eng")


def test_names_families_and_tiers_can_be_given(sources: list[Path], tmp_path: Path) -> None:
    overrides = {"cat": ("Català", "", "Very Low"), "isl": ("", "Nordic", "")}
    manifest = build(sources, tmp_path / "data", names=overrides, **OPTIONS)
    assert [manifest["languages"]["cat"][key] for key in ("name", "family", "tier")] == [
        "Català",
        "Western Romance",
        "Very Low",
    ]
    assert manifest["languages"]["isl"]["family"] == "Nordic"


def test_an_existing_output_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("mine")
    with pytest.raises(OptionError, match=r"data: already exists; choose another --out"):
        build([tmp_path / "missing.tsv"], tmp_path / "data")
    assert contents(tmp_path) == {"data/precious": b"mine"}


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        (100_000, r"--vocab: 100000 pieces are more than this text has; choose at most \d+"),
        (10, r"--vocab: 10 pieces are fewer than the characters of this text and the tags; choose at least \d+"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(
    sources: list[Path], tmp_path: Path, vocab: int, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        build(sources, tmp_path / "data", **{**OPTIONS, "vocab": vocab})
    assert list(tmp_path.iterdir()) == []


def test_the_bound_that_a_refusal_names_is_right(sources: list[Path], tmp_path: Path) -> None:
    for start, word in ((100_000, "most"), (10, "least")):
        with pytest.raises(OptionError) as refused:
            build(sources, tmp_path / word, **{**OPTIONS, "vocab": start})
        bound = int(str(refused.value).rsplit(" ", 1)[1])
        assert build(sources, tmp_path / word, **{**OPTIONS, "vocab": bound})["vocabulary"]["size"] == bound


def test_a_language_with_no_usable_pair_is_refused_with_the_reasons(sources: list[Path], tmp_path: Path) -> None:
    (tmp_path / "fao.tsv").write_text("no tab\nSame\tSame\n12\t13\n")
    message = r"fao: .* 0 of 3 lines usable \(dropped: 1 no tab, 1 identical sides, 1 no letters\)"
    with pytest.raises(DataError, match=message):
        build([*sources, tmp_path / "fao.tsv"], tmp_path / "data", **OPTIONS)


def test_a_catalogue_without_a_message_counts_for_nothing_and_a_language_of_such_is_refused(
    sources: list[Path], tmp_path: Path
) -> None:
    for code in ("isl", "fao"):
        (tmp_path / f"{code}.po").write_text('msgid ""\nmsgstr ""\n')
    assert build([*sources, tmp_path / "isl.po"], tmp_path / "data", **OPTIONS)["counts"]["isl"]["read"] == 141
    with pytest.raises(DataError, match="fao: none of its catalogues has a message"):
        build([*sources, tmp_path / "fao.po"], tmp_path / "again", **OPTIONS)


def test_text_of_a_language_without_pairs_is_refused(sources: list[Path], tmp_path: Path) -> None:
    (tmp_path / "fao.txt").write_text("Bara hetta\n")
    with pytest.raises(DataError, match=r"fao\.txt: is in fao, which no source has"):
        build(sources, tmp_path / "data", mono=[tmp_path / "fao.txt"], **OPTIONS)


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "cannot be written")])
def test_a_full_disk_leaves_nothing_behind(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(binarising.Binariser, "write", refuse)
    with pytest.raises(SensikitError, match=rf"{tmp_path / 'data'}: {words}") as refused:
        build(sources, tmp_path / "data", **OPTIONS)
    assert refused.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_build_leaves_nothing_behind(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(sources, tmp_path / "data", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_fairseq_is_not_needed_and_would_write_the_same_bytes(
    sources: list[Path], data: Path, mono: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from fairseq.data import Dictionary
    from fairseq.data.indexed_dataset import make_builder

    dictionary = Dictionary.load(str(data / "dict.txt"))
    pieces = SentencePieceProcessor(model_file=str(data / "spm.model"))
    paths = sorted((data / "bin").rglob("*.idx"))
    assert len(paths) > 10
    for path in paths:
        text = data / "text" / path.stem
        builder = make_builder(str(tmp_path / "bin"), impl="mmap", vocab_size=len(dictionary))
        for sentence in pieces.encode(text.read_text(encoding="utf-8").split("\n")[:-1], out_type=str):
            builder.add_item(torch.tensor([*map(dictionary.index, sentence), dictionary.eos()]))
        builder.finalize(str(tmp_path / "idx"))
        assert path.read_bytes() == (tmp_path / "idx").read_bytes()
        assert path.with_suffix(".bin").read_bytes() == (tmp_path / "bin").read_bytes()
    for name in [name for name in sys.modules if name.split(".")[0] == "fairseq"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fairseq", None)
    build(sources, tmp_path / "data", mono=mono, **OPTIONS)
    assert (tmp_path / "data" / "manifest.json").read_bytes() == (data / "manifest.json").read_bytes()


def test_pieces_decode_to_what_they_were_made_from_compatibility_characters_too() -> None:
    sentences = [f"{one.lower()} … m² “ﬁn” ½" for one in SHARED[:200]]
    pieces = SentencePieceProcessor(model_proto=binarising.train_pieces(sentences, 90, ["cat", "eng"]))
    assert [pieces.decode(each) for each in pieces.encode(sentences)] == sentences


def test_small_languages_are_whole_in_what_pieces_are_learned_from() -> None:
    sentences = {
        "big": [(bytes([n]), f"b{n}") for n in range(100)],
        "small": [(bytes([n]), f"s{n}") for n in range(10)],
    }
    sample = binarising.sample(sentences, 50)
    assert len(sample) == 50
    assert {f"s{n}" for n in range(10)} <= set(sample)


@pytest.mark.parametrize(
    ("sizes", "most", "cap"),
    [([5, 5], 100, 5), ([100, 10], 50, 40), ([100, 100], 50, 25), ([1, 100, 100], 50, 24), ([], 9, 0)],
)
def test_the_cap_shares_fairly(sizes: list[int], most: int, cap: int) -> None:
    assert binarising.fair_share(sizes, most) == cap
    assert sum(min(size, cap) for size in sizes) <= most


def test_text_alone_is_the_same_text_and_fairseq_says_that_it_is_not_binarised(
    sources: list[Path], mono: list[Path], data: Path, manifest: dict[str, Any], tmp_path: Path
) -> None:
    from sensikit.backends.fairseq.data import open_data

    out = tmp_path / "data"
    made = build(sources, out, mono=mono, **{**OPTIONS, "vocab": 99_999}, binarise=False)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "text"]
    texts = {name: digest for name, digest in manifest["files"].items() if name.startswith("text/")}
    assert made == {**manifest, "vocabulary": None, "files": texts}
    with pytest.raises(DataError, match=r"data: is text that is not binarised; make the data again, without --no-bin"):
        open_data(out)
