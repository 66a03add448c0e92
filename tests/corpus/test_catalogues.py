from pathlib import Path

import polib
import pytest

from sensikit.corpus.catalogues import messages, without_accelerators
from sensikit.corpus.reading import find
from sensikit.errors import DataError

HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n"Plural-Forms: {plural}\\n"\n\n'
GERMANIC = "nplurals=2; plural=(n != 1);"
SLOVENE = "nplurals=4; plural=(n%100==1 ? 1 : n%100==2 ? 2 : n%100==3 || n%100==4 ? 3 : 0);"
FILES = 'msgid "%d file"\nmsgid_plural "%d files"\n'


def write_po(path: Path, body: str, plural: str = GERMANIC) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER.format(plural=plural) + body, encoding="utf-8")
    return path


def write_mo(path: Path, body: str, plural: str = GERMANIC) -> Path:
    po = write_po(path.with_suffix(".tmp"), body, plural)
    polib.pofile(str(po)).save_as_mofile(str(path))
    po.unlink()
    return path


def test_a_catalogue_holds_english_and_its_translations(tmp_path: Path) -> None:
    body = (
        'msgid "Page"\nmsgstr "Pàgina"\n\nmsgctxt "verb"\nmsgid "Open"\nmsgstr "Obre"\n\nmsgid "Not yet"\nmsgstr ""\n\n'
    )
    body += 'msgid ""\n"Two "\n"lines\\n"\nmsgstr ""\n"Dues "\n"línies\\n"\n'
    expected = [("Page", "Pàgina"), ("Open", "Obre"), ("Not yet", ""), ("Two lines\n", "Dues línies\n")]
    assert list(messages(write_po(tmp_path / "ca.po", body))) == expected
    assert sorted(messages(write_mo(tmp_path / "ca.mo", body))) == sorted(pair for pair in expected if pair[1])


@pytest.mark.parametrize(
    "plural", ["nplurals=2; plural=n/0;", "nplurals=2; plural=n%0;", "plural=((((", "plural=n" * 999]
)
def test_a_rule_that_makes_no_sense_is_passed_over(tmp_path: Path, plural: str) -> None:
    body = FILES + 'msgstr[0] "ein"\nmsgstr[1] "viele"\n'
    assert list(messages(write_po(tmp_path / "ca.po", body, plural))) == [("%d file", "ein"), ("%d files", "viele")]


def test_one_name_in_the_folders_of_several_languages_is_no_language(tmp_path: Path) -> None:
    for folder in ("te", "ur", "ca"):
        write_po(tmp_path / folder / "app.po", 'msgid "Page"\nmsgstr "Full"\n')
    assert {source.language for source in find([tmp_path])} == {"tel", "urd", "cat"}


def test_fuzzy_and_obsolete_messages_are_none(tmp_path: Path) -> None:
    body = '#, fuzzy\nmsgid "Guess"\nmsgstr "Endevina"\n\nmsgid "Sure"\nmsgstr "Segur"\n\n'
    body += '#~ msgid "Old"\n#~ msgstr "Vell"\n'
    assert list(messages(write_po(tmp_path / "ca.po", body))) == [("Sure", "Segur")]


@pytest.mark.parametrize("suffix", [".po", ".mo"])
@pytest.mark.parametrize(
    ("plural", "forms", "expected"),
    [
        (GERMANIC, ["ein", "viele"], [("%d file", "ein"), ("%d files", "viele")]),
        (SLOVENE, ["datotek", "datoteka", "datoteki", "datoteke"], [("%d file", "datoteka"), ("%d files", "datotek")]),
        ("nplurals=1; plural=0;", ["berkas"], [("%d files", "berkas")]),
    ],
)
def test_plural_forms_go_by_the_catalogues_own_rule(
    tmp_path: Path, suffix: str, plural: str, forms: list[str], expected: list[tuple[str, str]]
) -> None:
    body = FILES + "".join(f'msgstr[{number}] "{form}"\n' for number, form in enumerate(forms))
    write = write_po if suffix == ".po" else write_mo
    path = write(tmp_path / f"xx{suffix}", body, plural)
    assert list(messages(path)) == expected


@pytest.mark.parametrize("plural", ["nplurals=2; plural=import os;", "", "nplurals=2; plural=n +;"])
def test_a_rule_that_is_none_leaves_first_and_second_form(tmp_path: Path, plural: str) -> None:
    path = write_po(tmp_path / "ca.po", FILES + 'msgstr[0] "u"\nmsgstr[1] "molts"\n', plural)
    assert list(messages(path)) == [("%d file", "u"), ("%d files", "molts")]


@pytest.mark.parametrize(
    ("english", "other", "expected"),
    [
        ("&File", "&Fitxer", ("File", "Fitxer")),
        ("Save _As", "Anomena i _desa", ("Save As", "Anomena i desa")),
        ("E_xit", "_Surt", ("Exit", "Surt")),
        ("~Close", "~Tanca", ("Close", "Tanca")),
        ("_File", "文件(_F)", ("File", "文件")),
        ("_OK", "_OK", ("OK", "OK")),
        ("The file_name is wrong", "El file_name és erroni", ("The file_name is wrong", "El file_name és erroni")),
        ("Copy & paste", "Copia & enganxa", ("Copy & paste", "Copia & enganxa")),
        ("R&amp;D &File", "R&amp;D &Fitxer", ("R&amp;D File", "R&amp;D Fitxer")),
        ("a &lt; b", "a &gt; b", ("a &lt; b", "a &gt; b")),
        ("_one _two", "_un _dos", ("_one _two", "_un _dos")),
        ("Cut & &Paste", "Retalla & &Enganxa", ("Cut & Paste", "Retalla & Enganxa")),
        ("my_long_name", "nom_molt_llarg", ("my_long_name", "nom_molt_llarg")),
        ("my_file", "fitxer", ("my_file", "fitxer")),
    ],
)
def test_accelerators_are_taken_out_and_nothing_else(english: str, other: str, expected: tuple[str, str]) -> None:
    assert without_accelerators(english, other) == expected


def test_a_tree_gives_each_catalogue_once_with_its_language(tmp_path: Path) -> None:
    body = 'msgid "Page"\nmsgstr "Pàgina"\n'
    for code in ("ca", "en", "en_GB", "pt_BR", "default"):
        write_po(tmp_path / f"app/locale/{code}/LC_MESSAGES/django.po", body)
    write_mo(tmp_path / "app/locale/ca/LC_MESSAGES/django.mo", body)
    write_po(tmp_path / "po/gl.po", body)
    found = {(source.paths[0].relative_to(tmp_path).as_posix(), source.language) for source in find([tmp_path])}
    assert found == {
        ("app/locale/ca/LC_MESSAGES/django.mo", "cat"),
        ("app/locale/pt_BR/LC_MESSAGES/django.po", "por"),
        ("po/gl.po", "glg"),
    }


def test_a_tree_has_every_language_of_the_standard_and_says_which_catalogues_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for code in ("ca", "fo", "new", "te", "ur"):
        write_po(tmp_path / f"locale/{code}/LC_MESSAGES/app.po", 'msgid "Page"\nmsgstr "Pàgina"\n')
    assert [source.language for source in find([tmp_path])] == ["cat", "fao", "new", "tel", "urd"]
    assert capsys.readouterr().err == ""
    for code in ("xx", "default"):
        for app in ("one", "two"):
            write_po(tmp_path / f"locale/{code}/LC_MESSAGES/{app}.po", "")
    assert len(find([tmp_path])) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert line.endswith("passed over: catalogues of default, xx")


def test_one_catalogue_is_a_source_too(tmp_path: Path) -> None:
    (source,) = find([write_po(tmp_path / "ca.po", 'msgid "Page"\nmsgstr "Pàgina"\n')])
    assert source.language == "cat"
    assert [(row.english, row.other) for row in source.rows()] == [("Page", "Pàgina")]


def test_a_catalogue_without_a_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no language in its name"):
        find([write_po(tmp_path / "messages.po", "")])


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"\xde\x12\x04\x95\x00\x00\x00\x00\xff\xff\xff\x0f" + b"\xff" * 16]
)
def test_a_damaged_catalogue_is_counted_not_passed_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ca.mo"
    path.write_bytes(content)
    (row,) = find([path])[0].rows()
    assert row.fault == "unreadable catalogue"
    assert "ca.mo" in row.english
