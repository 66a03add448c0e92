import sys
from pathlib import Path

import pytest

from sensikit.files import read_json
from sensikit_cli.main import main
from tests.support.corpus_text import english, write_tsv


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    shared = english(200)
    paths = [write_tsv(tmp_path / f"{code}.tsv", shared, code) for code in ("cat", "isl")]
    with paths[0].open("a") as file:
        file.write("a line that has no tab\n")
    return [str(path) for path in paths]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["sensikit", "corpus", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_it_makes_a_data_directory_and_shows_what_it_dropped(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--vocab",
        150,
        "--seed",
        7,
        "--valid",
        5,
        "--test",
        12,
        "--tiers",
        "100,10",
        "--name",
        "cat=Català:Romance",
    ]
    assert run(monkeypatch, *sources, "--out", tmp_path / "data", *options) == 0
    manifest = read_json(tmp_path / "data" / "manifest.json")
    assert (manifest["seed"], manifest["vocabulary"]["size"]) == (7, 150)
    assert manifest["languages"]["cat"]["sizes"] == {"train": 183, "valid": 5, "test": 12}
    assert (manifest["languages"]["cat"]["name"], manifest["languages"]["cat"]["tier"]) == ("Català", "High")
    printed = capsys.readouterr().out
    assert "cat: 200 of 201 lines kept; dropped:" in printed
    assert "1 no tab               such as: a line that has no tab" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("isl ")]
    assert row == ["isl", "Icelandic", "North", "Germanic", "High", "183", "5", "12", "0"]


def test_it_takes_the_languages_that_are_asked_for(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *sources, "--out", tmp_path / "data", "--no-binarise", "--languages", "is") == 0
    following = capsys.readouterr().out.splitlines()[-1]
    assert following == f"Next: sensikit analyze MODEL --data {tmp_path / 'data'} --out RUN"
    assert not (tmp_path / "data" / "bin").exists()
    assert list(read_json(tmp_path / "data" / "manifest.json")["languages"]) == ["isl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tiers", "5"], "--tiers: '5' is not two thresholds"),
        (["--name", "Catalan"], "--name: 'Catalan' is not CODE=NAME:FAMILY"),
        (["--name", "fao=Faroese"], "--name: no source has fao; there are cat, isl"),
        (["--languages", "Catalan"], "--languages: no source has Catalan; there are cat, isl"),
        (["--languages", ","], "--languages: names no language; there are cat, isl"),
        (["--languages", "fao"], "--languages: no source has fao; there are cat, isl"),
        (["--vocab", "99999"], "--vocab: 99999 pieces are more than this text has"),
        (["--test", "150"], "--test"),
        (["missing.tsv"], "missing.tsv: does not exist"),
        (["--mono", "cat.txt"], "cat.txt: does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    sources: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    before = sorted(tmp_path.iterdir())
    assert run(monkeypatch, *sources, "--out", tmp_path / "data", *options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sensikit: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert sorted(tmp_path.iterdir()) == before
