"""Text for a model that tokenises it itself: every layout is found by name, and what is wrong is said in one line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sensikit.backends.huggingface.data import TextData, open_text
from sensikit.corpus import build
from sensikit.errors import DataError, OptionError, SensikitError
from tests.support.corpus_text import english, write_tsv


def folder(root: Path, **files: str | bytes) -> Path:
    """Write files into `root`; in their names __ stands for a dot, ___ for a hyphen, and ____ for a slash."""
    for name, content in files.items():
        path = root / name.replace("____", "/").replace("___", "-").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return root


def plain(root: Path, **more: str | bytes) -> Path:
    return folder(root, train__cat___fra__cat="Sí\nNo\n", train__cat___fra__fra="Oui\nNon\n", **more)


def flores(root: Path) -> Path:
    for code, one in (("arb_Arab", "نعم"), ("cat_Latn", "Sí"), ("fra_Latn", "Oui")):
        for split in ("dev", "devtest"):
            folder(root, **{f"{split}____{code}__{split}": f"{one}\n{split}\n"})
    return root


def refused(error: type[SensikitError], act: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# layouts


def test_two_plain_files_are_a_pair_either_way_round(tmp_path: Path) -> None:
    data = open_text(plain(tmp_path, dev__fra___cat__fra__gz="Un\n", dev__fra___cat__cat__gz="U\n"))
    assert data.pairs() == [("fra", "cat"), ("cat", "fra")]
    assert data.pair("cat", "fra", "train") == (["Sí", "No"], ["Oui", "Non"])
    assert data.pair("fra", "cat", "valid") == data.pair("fr", "ca", "dev") == (["Un"], ["U"])
    assert data.counts("cat", "fra") == {"train": 2, "valid": 1}


def test_a_tsv_has_english_first_or_the_pair_of_its_name(tmp_path: Path) -> None:
    files = {"ca__tsv": "Yes\tSí\r\n", "ca__dev__tsv__gz": "One\tU\n", "test__ca___fr__tsv": "Sí\tOui\n"}
    data = open_text(folder(tmp_path, **files))
    assert data.pairs() == [("ca", "eng"), ("ca", "fr"), ("eng", "ca"), ("fr", "ca")]
    assert data.pair("ca", "eng", "train") == (["Sí"], ["Yes"])
    assert data.pair("eng", "ca", "valid") == (["One"], ["U"])
    assert data.pair("ca", "fr", "test") == (["Sí"], ["Oui"])


def test_flores_is_parallel_in_all_its_languages(tmp_path: Path) -> None:
    data = open_text(flores(tmp_path))
    assert data.pair("cat", "fra", "devtest") == (["Sí", "devtest"], ["Oui", "devtest"])
    assert data.counts("fra", "cat") == {"dev": 2, "devtest": 2}
    assert data.pairs(["fra-cat"]) == [("fra_Latn", "cat_Latn")]
    assert data.pairs(["xxx-fra"]) == [("arb_Arab", "fra_Latn"), ("cat_Latn", "fra_Latn")]
    assert data.pairs(["fra-cat+ara-cat"]) == [("arb_Arab", "cat_Latn"), ("fra_Latn", "cat_Latn")]
    assert data.sentences("cat", "dev") == ["Sí", "dev"]
    said = refused(OptionError, data.pairs)
    assert "is parallel in 3 languages; give some, such as cat-fra, or --direction xxx-fra" in said
    assert "no pair and no direction" in refused(OptionError, lambda: data.pairs(["xxx-xxx"]))
    assert "has no cat-cat" in refused(OptionError, lambda: data.pairs(["cat-cat"]))


def test_segments_are_known_by_english_or_what_all_pairs_share_or_the_line_of_a_parallel_set(tmp_path: Path) -> None:
    data = open_text(flores(tmp_path / "flores"))
    for codes in (["cat", "fra"], ["ar", "cat"], ["fra"]):
        assert data.segments(codes, "dev") == (["dev 0", "dev 1"], "line")
    folder(tmp_path / "flores", dev____eng_Latn__dev="Yes\ndev\n")
    data = open_text(tmp_path / "flores")
    assert data.segments(["cat", "fra"], "dev") == data.segments(["eng", "fra"], "dev") == (["Yes", "dev"], "eng")
    assert data.segments(["cat"], "dev") == (["Yes", "dev"], "eng")
    assert data.segments(["cat", "fra"], "devtest")[1] == "line"
    data = open_text(folder(plain(tmp_path / "pairs"), ca__tsv="Yes\tSí\n", train__spa___fra__tsv="Sí\tOui\n"))
    assert data.segments(["ca", "eng"], "train") == data.segments(["eng", "ca"], "train") == (["Yes"], "eng")
    pairs = [("cat", "fra"), ("spa", "fra")]
    assert data.segments(["cat", "fra"], "train", pairs) == (["Oui", "Non"], "fra")
    assert data.segments(["cat", "fra"], "train", pairs[:1]) == (["Sí", "No"], "own")
    assert data.segments(["spa"], "train") == (["Sí"], "own")


def test_a_blank_line_of_a_parallel_set_shifts_no_segment(tmp_path: Path) -> None:
    data = open_text(folder(tmp_path, dev____cat__dev="Sí\n\nNo\n", dev____fra__dev="Oui\nA\nNon\n"))
    assert data.segments(["cat"], "dev")[0] == ["dev 0", "dev 2"]
    assert data.segments(["cat", "fra"], "dev")[0] == ["dev 0", "dev 1", "dev 2"]
    data = open_text(folder(tmp_path, dev____eng__dev="Yes\n"))
    for codes in (["cat"], ["cat", "fra"]):
        problem = "cat.dev: has 3 lines, and eng.dev has 1"
        assert problem in refused(DataError, lambda codes=codes: data.segments(codes, "dev"))


def test_text_in_one_language_is_train_where_its_name_says_nothing(tmp_path: Path) -> None:
    files = {"cat__txt": "Sí\n\nNo\nNo\n", "cat__dev__txt__gz": "U\n", "test__fra_Latn": "Oui\n"}
    data = open_text(folder(tmp_path, **files))
    assert data.sentences("cat", "train") == ["Sí", "No", "No"]
    assert data.counts("cat") == {"train": 3, "valid": 1}
    assert data.counts("fra") == {"test": 1}
    assert "has no parallel text" in refused(DataError, data.pairs)


def test_where_a_language_has_no_text_alone_its_side_of_each_pair_is_read_once(tmp_path: Path) -> None:
    data = open_text(plain(tmp_path, train__cat___eng__tsv="No\tNo\nTres\tThree\n", dev__cat="U\nU\n"))
    assert data.sentences("cat", "train") == ["No", "Tres", "Sí"]
    assert data.sentences("cat", "valid") == ["U", "U"]
    assert data.languages() == ["cat", "eng", "fra"]


@pytest.mark.parametrize("binarise", [True, False])
def test_what_corpus_wrote_is_read_with_its_manifest(tmp_path: Path, binarise: bool) -> None:
    source = write_tsv(tmp_path / "cat.tsv", english(60), "cat")
    (tmp_path / "cat.txt").write_text("Una frase nova\n" * 3)
    made = tmp_path / "data"
    options: dict[str, Any] = {"valid": 5, "test": 5, "vocab": 80, "binarise": binarise}
    manifest = build([source], made, mono=[tmp_path / "cat.txt"], **options)
    data = open_text(made)
    assert data.pairs() == [("cat", "eng"), ("eng", "cat")]
    assert data.counts("cat", "eng") == manifest["languages"]["cat"]["sizes"]
    assert data.counts("cat")["train"] == manifest["languages"]["cat"]["mono"] == 1
    assert (data.manifest["languages"]["cat"]["family"], list(data.notes)) == ("Western Romance", [])

    text = made / "text" / "test.cat-eng.cat"
    text.write_text(text.read_text().replace("a", "b"))
    for act in (lambda: data.pair("cat", "eng", "test"), data.fingerprint):
        assert "test.cat-eng.cat: is not what the manifest says it was" in refused(DataError, act)
    assert data.pair("cat", "eng", "valid")


# lines


def test_a_blank_side_shifts_no_other_line(tmp_path: Path) -> None:
    data = open_text(plain(tmp_path, test__cat___fra__tsv="\ufeffSí\tOui\n\n \tNon\nÚltima\u2028\x85\tFin\r\n"))
    assert data.pair("cat", "fra", "test") == (["Sí", "", "", "Última\u2028\x85"], ["Oui", "", "Non", "Fin"])
    assert data.sentences("cat", "test") == ["Sí", "Última\u2028\x85"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\n", "is not UTF-8 in line 1"),
        (b"U\n\x00\x01\n", "is not text (there is a NUL in line 2)"),
        ("U\n".encode("utf-16-le"), "(there is a NUL in line 1); convert it to UTF-8 where it is UTF-16"),
        (b"U\nDos\nTres\n", "test.cat-fra.cat: has 3 lines, and test.cat-fra.fra has 1"),
    ],
)
def test_damaged_text_is_refused_where_it_is_read(tmp_path: Path, content: bytes, problem: str) -> None:
    data = open_text(plain(tmp_path, test__cat___fra__cat=content, test__cat___fra__fra="Un\n"))
    assert problem in refused(DataError, lambda: data.pair("cat", "fra", "test"))
    assert data.pair("cat", "fra", "train")


def test_a_line_of_three_columns_is_refused(tmp_path: Path) -> None:
    data = open_text(folder(tmp_path, cat__tsv="Yes\tSí\nNo\tNo\t0.3\n"))
    assert "has 3 columns in line 2" in refused(DataError, lambda: data.counts("cat", "eng"))


def test_what_is_no_file_or_no_gzip_is_refused(tmp_path: Path) -> None:
    (plain(tmp_path) / "cat.dev.txt").mkdir()
    (tmp_path / "fra.txt").symlink_to("fra.txt")
    (tmp_path / "fra.test.txt.gz").write_text("Oui\n")
    (tmp_path / "eng.txt.gz").write_bytes(gzip.compress(b"Yes\n" * 9999)[:-9])
    data = open_text(tmp_path)
    for language, split, problem in (
        ("cat", "valid", "cat.dev.txt: cannot be read"),
        ("fra", "train", "fra.txt: cannot be read"),
        ("fra", "test", "fra.test.txt.gz: is damaged after line 0"),
        ("eng", "train", "eng.txt.gz: is damaged after line"),
    ):
        assert problem in refused(DataError, lambda asked=(language, split): data.sentences(*asked))
    assert "cannot be read" in refused(DataError, data.fingerprint)


# what is asked for


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    data = open_text(flores(tmp_path))
    said = refused(DataError, lambda: data.pair("cat", "fra", "train"))
    assert said.endswith(": has no train set of cat_Latn-fra_Latn; give --split dev or devtest")
    assert "has no valid set of cat_Latn" in refused(DataError, lambda: data.sentences("cat", "valid"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zho", "zho is several of its languages; give zho_Hans or zho_Hant"),
        ("fra", "there are ca, cat_Latn, zho_Hans"),
    ],
)
def test_an_unknown_or_ambiguous_language_is_refused_with_the_choices(tmp_path: Path, name: str, said: str) -> None:
    data = open_text(folder(tmp_path, zho_Hans__txt="是\n", zho_Hant__txt="是\n", cat_Latn__txt="Sí\n", ca__txt="No\n"))
    assert said in refused(DataError, lambda: data.code(name))
    assert [data.code(each) for each in ("ca", "cat_Latn", "zh_TW")] == ["ca", "cat_Latn", "zho_Hant"]
    assert "cat is several" in refused(DataError, lambda: data.code("cat"))


def test_a_pair_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    data = open_text(plain(tmp_path, ca__test__tsv="Yes\tSí\n"))
    assert "has no fra-eng; give ca-eng, cat-fra" in refused(OptionError, lambda: data.pairs(["fra-eng"]))
    assert "names no pair" in refused(OptionError, lambda: data.pairs([]))
    assert "'cat' is no pair" in refused(OptionError, lambda: data.pairs(["cat"]))
    assert "has no train set of fra-eng" in refused(DataError, lambda: data.pair("fra", "eng", "train"))


def test_the_fingerprint_is_of_the_files_that_are_read_and_no_others(tmp_path: Path) -> None:
    def prints(data: TextData) -> tuple[str, str]:
        return data.fingerprint([("cat", "fra")]), data.fingerprint()

    root = plain(tmp_path, cat__tsv="Yes\tSí\n")
    before = prints(open_text(root))
    assert before == prints(open_text(root))
    folder(root, cat__tsv="No\tNo\n")
    assert [one == other for one, other in zip(before, prints(open_text(root)), strict=True)] == [True, False]
    (root / "cat.tsv").rename(root / "cat.train.tsv")
    assert open_text(root).fingerprint([("fra", "cat")]) == before[0]


# names


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cat.dev.tsv", "cat.valid.tsv"),
        ("train.cat-fra.tsv", "train.fra-cat.cat"),
        ("cat.tsv", "train.cat-eng.tsv.gz"),
        ("cat.txt", "train.cat"),
        ("dev/cat_Latn.dev", "dev/dev.cat_Latn"),
    ],
)
def test_two_files_of_one_text_are_refused_by_name(tmp_path: Path, first: str, second: str) -> None:
    for name in (first, second):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a\tb\n")
    said = refused(DataError, lambda: open_text(tmp_path))
    assert Path(first).name in said
    assert Path(second).name in said


def test_one_side_without_the_other_is_refused(tmp_path: Path) -> None:
    root = plain(tmp_path, test__cat___fra__cat="Sí\n")
    assert "test.cat-fra.cat: has no other side in fra" in refused(DataError, lambda: open_text(root))


def test_what_is_not_named_as_text_is_passed_over_and_said(tmp_path: Path) -> None:
    names = ("README.md", "train.bin", "train.txt", "eng.tsv", "valid.log", "dict.cat.txt", "train.cat-fra.cat.idx")
    for name in (*names, "x.json", "y.json", ".hidden"):
        (plain(tmp_path) / name).write_text("Sí\n")
    data = open_text(tmp_path)
    assert data.languages() == ["cat", "fra"]
    (note,) = data.notes
    assert note.startswith("passed over, not named as text: README.md, dict.cat.txt, eng.tsv, ")
    assert note.endswith(" and 1 more")


def test_a_folder_without_text_says_how_text_is_named(tmp_path: Path) -> None:
    said = refused(DataError, lambda: open_text(folder(tmp_path, notes__md="Sí\n")))
    assert "has no text that is named in a known way; call it train.cat-fra.cat and" in said
    assert "does not exist" in refused(DataError, lambda: open_text(tmp_path / "none"))
    (tmp_path / "manifest.json").write_text(json.dumps(["cat"]))
    assert "is not a manifest of sensikit corpus" in refused(DataError, lambda: open_text(tmp_path))
