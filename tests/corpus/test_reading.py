import gzip
import os
from pathlib import Path

import pytest

from sensikit.corpus.reading import Row, Source, find, language_of, lines
from sensikit.errors import DataError, OptionError


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def rows(source: Source) -> list[Row]:
    return list(source.rows())


def test_a_tsv_holds_english_then_the_language_of_its_name(tmp_path: Path) -> None:
    (source,) = find([write(tmp_path / "cat.tsv", "Yes\tSí\nNo\tNo pas\n")])
    assert (source.language, source.split) == ("cat", None)
    assert rows(source) == [Row("Yes", "Sí"), Row("No", "No pas")]


@pytest.mark.parametrize(
    ("name", "language", "split"),
    [
        ("cat.train.tsv.gz", "cat", "train"),
        ("cat.dev.tsv", "cat", "valid"),
        ("cat.valid.tsv", "cat", "valid"),
        ("ca.test.tsv", "cat", "test"),
        ("nb_NO.tsv", "nob", None),
        ("fao.software.tsv", "fao", None),
        ("new.tsv", "new", None),
        ("cat_Latn.dev.tsv", "cat", "valid"),
    ],
)
def test_the_name_says_language_and_split(tmp_path: Path, name: str, language: str, split: str | None) -> None:
    (source,) = find([write(tmp_path / name, "Yes\tSí\n")])
    assert (source.language, source.split) == (language, split)
    assert rows(source) == [Row("Yes", "Sí")]


def test_bad_lines_are_rows_with_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "cat.tsv", b"no tab here\na\tb\tc\n\xff\xfe\tb\n\nYes\tS\xc3\xad\r\n")
    assert rows(Source((path,), "cat")) == [
        Row("no tab here", "", "no tab"),
        Row("a\tb\tc", "", "more than one tab"),
        Row("\\xff\\xfe\tb", "", "undecodable bytes"),
        Row("", "", "no tab"),
        Row("Yes", "Sí"),
    ]


def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path: Path) -> None:
    path = write(tmp_path / "cat.tsv", "One\u2028line\x0b\x85\tUna\x1clínia\n")
    assert len(rows(Source((path,), "cat"))) == 1


@pytest.mark.parametrize("name", ["data.tsv", "12.tsv", "x.tsv"])
def test_a_name_without_a_language_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"no language in its name; call it .* cat\.tsv"):
        find([write(tmp_path / name, "Yes\tSí\n")])


@pytest.mark.parametrize(("name", "language"), [("all.tsv", "Allar"), ("dev.tsv", "Domung"), ("raw.tsv", "Rawang")])
def test_a_code_that_is_a_word_too_is_a_language_and_said(
    tmp_path: Path, name: str, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = find([write(tmp_path / name, "Yes\tSí\n")])
    assert source.language == name[:3]
    assert f"read as {language}" in capsys.readouterr().err


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cat.tsv")
    with pytest.raises(DataError, match=r"cat\.tsv: is not a regular file"):
        find([tmp_path / "cat.tsv"])


@pytest.mark.parametrize("name", ["eng.tsv", "en.po"])
def test_english_is_paired_with_other_languages_not_with_itself(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="is named after English"):
        find([write(tmp_path / name, "Yes\tYeah\n")])


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cat\.tsv: does not exist"):
        find([tmp_path / "cat.tsv"])


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of no known kind; give LANG.tsv, the prefix of"):
        find([write(tmp_path / "cat.xml", "<x/>")])


def test_no_source_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no parallel text; .* cat.txt goes to --mono, or to analyze"):
        find([tmp_path])


@pytest.mark.parametrize("name", ["cat.tsv", "cat.tsv.gz"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (source,) = find([write(tmp_path / name, "")])
    with pytest.raises(DataError, match="is empty"):
        rows(source)


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cat.tsv.gz", "".join(f"{n} Yes\t{n * 7} Sí\n" for n in range(2000)))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="is damaged after line"):
        rows(find([path])[0])


def test_a_file_that_is_no_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cat.tsv.gz"
    path.write_text("Yes\tSí\n")
    with pytest.raises(DataError, match="is damaged"):
        rows(find([path])[0])


def test_a_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(lines(tmp_path))


@pytest.mark.parametrize(("name", "pair"), [("corpus.cat-eng", "cat-eng"), ("corpus.eng-cat", "eng-cat")])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_two_plain_files_are_named_by_their_prefix(tmp_path: Path, name: str, pair: str, suffix: str) -> None:
    write(tmp_path / f"{name}.cat{suffix}", "Sí\nNo pas\n")
    write(tmp_path / f"{name}.eng{suffix}", "Yes\nNo\n")
    (source,) = find([tmp_path / name])
    assert (source.language, source.split) == ("cat", None)
    assert rows(source) == [Row("Yes", "Sí"), Row("No", "No pas")]


@pytest.mark.parametrize(
    ("pair", "language"),
    [("ca-en", "cat"), ("en-ca", "cat"), ("ca-en_GB", "cat"), ("en-zh_TW", "zho_Hant"), ("cat_Latn-eng_Latn", "cat")],
)
def test_two_plain_files_may_be_named_as_opus_or_flores_name_them(tmp_path: Path, pair: str, language: str) -> None:
    for side in pair.split("-"):
        write(tmp_path / f"GNOME.{pair}.{side}", "Yes\n" if side.startswith("en") else "Sí\n")
    (source,) = find([tmp_path / f"GNOME.{pair}"])
    assert source.language == language
    assert rows(source) == [Row("Yes", "Sí")]


def test_the_prefix_of_two_plain_files_may_say_the_split(tmp_path: Path) -> None:
    for side in ("cat", "eng"):
        write(tmp_path / f"dev.cat-eng.{side}", f"{side}\n")
    (source,) = find([tmp_path / "dev.cat-eng"])
    assert source.split == "valid"


def test_a_prefix_needs_both_sides(tmp_path: Path) -> None:
    write(tmp_path / "corpus.cat-eng.cat", "Sí\n")
    with pytest.raises(DataError, match=r"corpus\.cat-eng\.eng: does not exist"):
        find([tmp_path / "corpus.cat-eng"])


@pytest.mark.parametrize(("english", "other", "at_fault"), [("1\n2\n", "1\n", "cat"), ("1\n", "1\n2\n3\n", "eng")])
def test_two_plain_files_of_unequal_length_are_refused(tmp_path: Path, english: str, other: str, at_fault: str) -> None:
    write(tmp_path / "corpus.cat-eng.eng", english)
    write(tmp_path / "corpus.cat-eng.cat", other)
    with pytest.raises(DataError, match=rf"corpus\.cat-eng\.{at_fault}: ends before line 2 of"):
        rows(find([tmp_path / "corpus.cat-eng"])[0])


def test_an_undecodable_side_takes_its_pair_with_it_and_no_other(tmp_path: Path) -> None:
    write(tmp_path / "corpus.cat-eng.eng", "Yes\nNo\n")
    write(tmp_path / "corpus.cat-eng.cat", b"\xff\nNo pas\n")
    assert rows(find([tmp_path / "corpus.cat-eng"])[0]) == [
        Row("Yes | \\xff", "", "undecodable bytes"),
        Row("No", "No pas"),
    ]


@pytest.mark.parametrize(("first", "second"), [("cat.test.tsv", "ca.test.tsv"), ("cat.dev.tsv", "cat.valid.tsv")])
def test_two_sources_of_one_split_are_refused(tmp_path: Path, first: str, second: str) -> None:
    paths = [write(tmp_path / name, "Yes\tSí\n") for name in (first, second)]
    with pytest.raises(DataError, match="split of cat, and so is"):
        find(paths)


def test_sources_without_a_split_add_up(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, "Yes\tSí\n") for name in ("cat.tsv", "cat.more.tsv", "cat.test.tsv")]
    assert [source.split for source in find(paths)] == [None, None, "test"]


def test_languages_are_chosen_by_code(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, "Yes\tSí\n") for name in ("cat.tsv", "glg.tsv", "isl.tsv")]
    assert [source.language for source in find(paths, ["isl", "cat"])] == ["cat", "isl"]
    with pytest.raises(OptionError, match="no source has fao; there are cat, glg, isl"):
        find(paths, ["fao"])


@pytest.mark.parametrize(("name", "code"), [("cat.txt", "cat"), ("nob.extra.txt.gz", "nob"), ("en.txt", "eng")])
def test_text_in_one_language_is_named_after_it(name: str, code: str) -> None:
    assert language_of(Path(name)) == code
