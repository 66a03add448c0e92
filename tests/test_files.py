"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sensikit import files
from sensikit.errors import DataError, RunError, SensikitError
from sensikit.files import lines, raw_lines, read_json, replacing, safe_name, sha256, sha256_of, write_json, write_text


def leftovers(directory: Path, *expected: str) -> list[str]:
    return sorted(set(os.listdir(directory)) - set(expected))  # noqa: PTH208  (hidden ones too)


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    with replacing(path) as partial:
        partial.write_text("one")
        assert partial.parent == path.parent, "a rename must not cross file systems"
        assert not path.exists()
    assert path.read_text() == "one"
    with replacing(path) as partial:
        partial.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert not leftovers(path.parent, "table.csv")


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_what_stood_there_is_whole_after_an_exception(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def write() -> None:
        with replacing(path) as partial:
            partial.write_text("new, but not all of")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert not leftovers(tmp_path, "table.csv")


def test_a_file_that_was_not_written_does_not_appear(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with pytest.raises(SensikitError, match="cannot be written"), replacing(path):
        pass
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_full_disk_is_one_line_and_leaves_what_stood_there_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, step: str
) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr(Path, "write_text", full)
        elif step == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(Path, "replace", full)
        with pytest.raises(SensikitError) as caught:
            write_text(path, "new")
    assert str(caught.value) == f"{path}: the disk is full; free some space or choose another --out"
    assert caught.value.exit_code == 2
    assert path.read_text() == "old"
    assert not leftovers(tmp_path, "table.csv")


def test_the_bytes_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    replace = Path.replace

    def fsync(handle: int) -> None:
        steps.append("directory" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112

    def renamed(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "table.csv", "new")
    assert steps == ["file", "rename", "directory"]


def test_where_no_directory_can_be_opened_a_rename_is_left_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "os", SimpleNamespace(name="nt"))  # it has no `open`
    files.sync_directory(tmp_path)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(SensikitError, match=r"cannot be written .*; choose another place") as caught:
        write_text(tmp_path / "file" / "table.csv", "x")
    assert "\n" not in str(caught.value)


def test_a_kill_in_the_middle_leaves_what_stood_there_whole(tmp_path: Path) -> None:
    path = tmp_path / "vector.bin"
    path.write_bytes(b"old" * 1000)
    program = """
        import sys, time
        from pathlib import Path
        from sensikit.files import replacing

        with replacing(Path(sys.argv[1])) as partial, partial.open("wb") as file:
            file.write(b"new" * 500_000)
            file.flush()
            print("half written", flush=True)
            time.sleep(600)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half written\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    (left,) = leftovers(tmp_path, "vector.bin")
    assert (tmp_path / left).stat().st_size == 1_500_000, "the kill came in the middle"
    assert left.startswith(".")
    assert path.read_bytes() == b"old" * 1000
    # and another process, or this one, can write it afterwards
    write_text(path, "new")
    assert path.read_text() == "new"


# JSON


def test_mappings_keep_their_order(tmp_path: Path) -> None:
    value = {"nob": [1.5, None], "cat": {"b": "ñ", "a": True}}
    write_json(tmp_path / "a.json", value)
    found = read_json(tmp_path / "a.json")
    assert found == value
    assert list(found) == ["nob", "cat"]
    assert list(found["cat"]) == ["b", "a"]
    assert "ñ" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [b"", b'{"a": 1', b"\xff\xfe", b"{'a': 1}", b'{"a": 1}}', b"\x00" * 50, b"[" * 100_000, b"1" * 5000],
    ids=["empty", "cut short", "not UTF-8", "not JSON", "too much", "zeros", "deep", "long number"],
)
def test_damaged_json_is_one_line_of_the_kind_asked_for(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(text)
    with pytest.raises(RunError) as caught:
        read_json(path, RunError)
    assert str(caught.value) == f"{path}: is not valid JSON; it is damaged; make it again"


def test_json_that_is_not_there_or_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}/none.json: does not exist; check the path$"):
        read_json(tmp_path / "none.json", DataError)
    with pytest.raises(DataError, match=f"^{tmp_path}: cannot be read "):
        read_json(tmp_path, DataError)


# hashes


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensikit.files.CHUNK", 7)
    content = bytes(range(256)) * 3
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_strings_are_kept_apart_in_a_hash() -> None:
    alike = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("abc", ""),
        ("", "abc"),
        ("1:a",),
        ("a", "1:b"),
        ("a1:b",),
        ("a:", "b"),
        ("a", ":b"),
    ]
    assert len({sha256_of(*parts) for parts in alike}) == len(alike)
    assert sha256_of("ñ", "x") == sha256_of("ñ", "x")


# errors


def test_an_error_is_one_line_whatever_it_tells_of() -> None:
    error = SensikitError("a\nfile", "is\n  broken", "mend it")
    assert str(error) == "a file: is broken; mend it"
    assert str(SensikitError("x", "is wrong")) == "x: is wrong"


NAMES = [
    "../../notes", "x/../../../victim/notes", "/etc/passwd", "..", ".", "", "a\0b", "\ud800", "C:\\x", "~", "x" * 300,
    "é" * 140, ".hidden", "a\nb", "\u202ex",
]  # fmt: skip


def test_no_text_leads_out_of_its_folder(tmp_path: Path) -> None:
    made = [safe_name(name) for name in NAMES]
    assert len({*made}) == len(NAMES)
    for name in made:
        path = tmp_path / f"{name}.csv"
        path.write_text("x")
        assert path.resolve().parent == tmp_path.resolve()
    for name in ("cat", "zho_Hans", "cat-fra", "cd+id", "A model (big), 2"):
        assert safe_name(name) == name


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        for reading in (read_json, lines, lambda path: list(raw_lines(path))):
            with pytest.raises(SensikitError, match=f"^{tmp_path / name}: "):
                reading(tmp_path / name)
        with pytest.raises(OSError, match="not a file"):
            sha256(tmp_path / name)


def test_text_is_not_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    monkeypatch.setattr(files, "UNPACKED", (3000, 5))
    (tmp_path / "a.txt").write_bytes(b"a\n" * 3000 + b"b" * 999 + b"\nc")
    assert len(list(raw_lines(tmp_path / "a.txt"))) == 3002
    (tmp_path / "a.txt").write_bytes(b"a\n" + b"b" * 10**6)
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"a\n" * 5000))
    for name, problem in (
        ("a.txt", "has a line of over 0 MB, its line 2"),
        ("b.gz", "unpacks to over 5 times its size"),
    ):
        with pytest.raises(DataError, match=problem):
            list(raw_lines(tmp_path / name))


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "[" * 10**5, "1" * 10**4, '"\xff"', ""])
def test_what_is_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(SensikitError, match=r"a\.json: is not valid JSON; "):
        read_json(tmp_path / "a.json")
