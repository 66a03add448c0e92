"""A folder of resumable work: what is taken up, what is refused, and what is left behind: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from sensikit.errors import DamagedError, RunError
from sensikit.files import sha256
from sensikit.folder import Folder
from tests.support.stored import everything

FACTS: dict[str, Any] = {"data": "d", "settings": {"beam": 5, "orders": ("a", "b")}, "signature": "S|seed:1|tokens:9"}


class Work(Folder):
    KIND, VERB, FORMAT = "a work", "toil", 4
    BARE: ClassVar[Sequence[str]] = ("log.txt",)
    FIELDS: ClassVar[Mapping[str, type]] = {"data": str}


class Bare(Work):
    """One that is begun anew where only its note stands."""

    BARE = ("manifest.json", "log.txt")


def made(path: Path, facts: dict[str, Any] = FACTS, kind: type[Folder] = Work) -> Folder:
    with kind.begun(path, facts, resume=False) as folder:
        folder.save()
    return folder


def refused(path: Path, match: str, facts: dict[str, Any] = FACTS, resume: bool = False) -> None:
    """The work is not begun, in one line, and nothing changes, not even beside the place."""
    before = everything(path.parent)
    with pytest.raises(RunError, match=match) as caught, Work.begun(path, facts, resume) as folder:
        folder.save()
    assert "\n" not in str(caught.value)
    assert everything(path.parent) == before


# made and taken up


def test_it_is_there_once_it_is_saved_and_holds_its_facts(tmp_path: Path) -> None:
    made(tmp_path / "a" / "b")
    found = Work.open(tmp_path / "a" / "b")
    assert found.manifest == {"format": 4, **json.loads(json.dumps(FACTS))}
    assert list(everything(tmp_path)) == ["a", "a/b", "a/b/manifest.json"]


def test_it_is_taken_up_with_what_it_holds(tmp_path: Path) -> None:
    folder = made(tmp_path / "w")
    folder.manifest["done"] = 3
    folder.save()
    with Work.begun(tmp_path / "w", {**FACTS, "done": 3}, resume=True) as again:
        assert again.manifest["done"] == 3
    with Work.begun(tmp_path / "new", FACTS, resume=True) as first:  # where nothing stands, it begins
        assert first.manifest["format"] == 4


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [True, False])
def test_what_ends_before_anything_is_saved_leaves_nothing(
    tmp_path: Path, error: type[BaseException], there: bool
) -> None:
    if there:
        (tmp_path / "a" / "b").mkdir(parents=True)
    before = everything(tmp_path)
    with pytest.raises(error), Work.begun(tmp_path / "a" / "b", FACTS, resume=False):
        raise error
    assert everything(tmp_path) == before


def test_what_ends_after_it_was_saved_is_kept(tmp_path: Path) -> None:
    with contextlib.suppress(ValueError), Work.begun(tmp_path / "w", FACTS, resume=False) as folder:
        folder.save()
        raise ValueError
    assert list(everything(tmp_path)) == ["w", "w/manifest.json"]


@pytest.mark.parametrize("name", [".lock", ".manifest.json.4711.partial", ".tmpAbCd12", "log.txt"])
def test_what_was_killed_before_it_was_saved_begins_anew_without_resume(tmp_path: Path, name: str) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / name).write_text("x")
    for resume in (False, True):
        with Work.begun(tmp_path / "w", FACTS, resume=resume) as folder:
            assert folder.manifest["data"] == "d"


def test_a_note_alone_is_replaced_where_it_is_worth_nothing(tmp_path: Path) -> None:
    made(tmp_path / "w", kind=Bare)
    with Bare.begun(tmp_path / "w", {**FACTS, "data": "e"}, resume=False) as folder:
        folder.save()
    assert Bare.open(tmp_path / "w").manifest["data"] == "e"
    (tmp_path / "w" / "checkpoint.pt").write_text("x")
    with pytest.raises(RunError, match=r"already exists; .*--resume"), Bare.begun(tmp_path / "w", FACTS, resume=False):
        pass


# refused


def test_it_is_not_overwritten_without_resume(tmp_path: Path) -> None:
    made(tmp_path / "w")
    refused(tmp_path / "w", f"^{tmp_path}/w: already exists; choose another --out, or --resume what is there$")


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["thesis.tex", ".notes", "a/manifest.json"])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, name: str, resume: bool) -> None:
    path = tmp_path / "w" / name
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    for half in ("w/.tmpAbCd12", "w/.letter.partial"):  # somebody else's
        (tmp_path / half).write_text("x")
    refused(
        tmp_path / "w", "w: already exists and is not a work .*manifest.json.*; choose another --out$", FACTS, resume
    )


@pytest.mark.parametrize("resume", [True, False])
def test_a_file_is_left_alone(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "w").write_text("years of work")
    refused(tmp_path / "w", "w: already exists and is not a work", FACTS, resume)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"data": "e"}, r"data \(d, not e\)"),
        ({"more": 1}, r"more \(none, not 1\)"),
        ({"settings": {"beam": 4, "orders": ("a", "b")}}, r"settings\.beam \(5, not 4\)"),
        ({"settings": {"beam": 5}}, r"settings\.orders \(\['a', 'b'\], not none\)"),
        ({"signature": "S|seed:2|tokens:8"}, r"signature \(seed:1, not seed:2, tokens:9, not tokens:8\)"),
        ({"signature": "S|seed:1"}, r"signature \(S\|seed:1\|tokens:9, not S\|seed:1\)"),
        ({"data": "e" * 64}, r"data \(d, not e{20}…\)"),
    ],
)
def test_other_facts_are_named(tmp_path: Path, change: dict[str, Any], difference: str) -> None:
    made(tmp_path / "w")
    match = f"^{tmp_path}/w: was made with another {difference}; keep to its own, or choose another --out$"
    refused(tmp_path / "w", match, {**FACTS, **change}, resume=True)


@pytest.mark.parametrize("format", [3, 5, None, "4"])
def test_another_format_is_refused_with_the_command_that_makes_it_again(tmp_path: Path, format: Any) -> None:
    folder = made(tmp_path / "w")
    folder.manifest["format"] = format
    folder.save()
    match = f"^{tmp_path}/w/manifest.json: is not of format 4; toil again with this version$"
    refused(tmp_path / "w", match, resume=True)
    with pytest.raises(RunError, match=match):
        Work.open(tmp_path / "w")


@pytest.mark.parametrize("text", ["[4]", "4", '"format"', "null"])
def test_a_note_that_is_something_else_is_refused(tmp_path: Path, text: str) -> None:
    made(tmp_path / "w")
    (tmp_path / "w" / "manifest.json").write_text(text)
    refused(tmp_path / "w", "is not of format 4", resume=True)


def test_a_note_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "w", {**FACTS, "data": 3})
    refused(tmp_path / "w", r"manifest\.json: lacks data; it is damaged; toil again$", resume=True)


def test_a_note_that_is_damaged_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "w")
    (tmp_path / "w" / "manifest.json").write_text("{")
    refused(tmp_path / "w", r"manifest\.json: is not valid JSON", resume=True)


def test_a_note_that_was_edited_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "w")
    note = tmp_path / "w" / "manifest.json"
    note.write_text(note.read_text().replace('"d"', '"e"'))
    refused(tmp_path / "w", r"manifest\.json: is not as it was written; put it back, or toil again$", resume=True)


@pytest.mark.parametrize("name", ["manifest.json", ".lock"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "link"])
def test_what_stands_in_the_place_of_a_note_or_a_lock_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    path, victim = made(tmp_path / "w").path / name, tmp_path / "victim"
    path.unlink(missing_ok=True)
    victim.write_text("years of work")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(victim)
    with (
        pytest.raises(RunError, match=r"is not (a work|a lock|valid JSON)"),
        Work.begun(tmp_path / "w", FACTS, resume=True),
    ):
        pass
    assert victim.read_text() == "years of work"


def test_what_is_no_folder_is_not_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match=f"^{path}: is not a work .*manifest.json.*; give what toil wrote to --out$"):
            Work.open(path)


# one writer


def test_a_folder_is_held_by_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with Work.begun(path, FACTS, resume=False) as folder:
        refused(path, f"^{path}: is being written by another process; wait for it to end$")
        folder.save()
        refused(path, "is being written by another process", resume=True)
        with pytest.raises(RunError, match="is being written"), Work.open(path).locked():
            pass
    with pytest.raises(ValueError), folder.locked():  # noqa: PT011
        raise ValueError
    with folder.locked():
        refused(path, "is being written by another process", resume=True)
    assert list(everything(path)) == ["manifest.json"]


def test_what_another_writer_noted_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "w"
    made(path)
    one, other = Work.open(path), Work.open(path)
    for number, folder in enumerate((one, other)):
        with folder.locked():
            folder.manifest[f"set{number}"] = number
            folder.save()
    assert Work.open(path).manifest == other.manifest
    assert (other.manifest["set0"], other.manifest["set1"]) == (0, 1)


def test_what_another_process_makes_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the place and the lock, another makes it."""
    path, real = tmp_path / "w", Work.stands.__func__  # type: ignore[attr-defined]

    def late(kind: type[Work], place: Path, resume: bool) -> bool:
        found: bool = real(kind, place, resume)
        monkeypatch.undo()
        made(path, {**FACTS, "done": 7})
        return found

    monkeypatch.setattr(Work, "stands", classmethod(late))
    with pytest.raises(RunError, match="already exists"), Work.begun(path, FACTS, resume=False) as folder:
        folder.save()
    assert Work.open(path).manifest["done"] == 7


PROGRAM = """
    import sys, time
    from pathlib import Path
    from tests.test_folder import Work

    with Work.open(sys.argv[1]).locked():
        print("ready", flush=True)
        time.sleep(600)
"""


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "w"
    made(path)
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        refused(path, f"^{path}: is being written by another process", resume=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (path / ".lock").exists()
    with Work.begun(path, FACTS, resume=True):
        pass
    assert not (path / ".lock").exists()


def test_a_lock_that_was_removed_when_it_was_taken_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened before the one who held it removed it, taken afterwards: the next would make, and hold, a new file."""
    import fcntl

    path, real, calls = tmp_path / "w", fcntl.flock, 0
    made(path)

    def late(file: Any, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (path / ".lock").unlink()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Work.begun(path, FACTS, resume=True):
        assert calls == 2
        refused(path, "is being written by another process", resume=True)


def test_where_an_open_file_cannot_be_removed_the_lock_is_let_go_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "used by another process", path)

    path = tmp_path / "w"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kept)
        with Work.begun(path, FACTS, resume=False):
            pass
    assert made(path).path == path


def test_what_a_killed_writer_left_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    folder = made(tmp_path / "w")
    inner = folder.path / "sensitivity" / "mt"
    inner.mkdir(parents=True)
    # ours, and the one safetensors writes beside ours before it renames it
    left = [inner / ".cat.safetensors.123.partial", inner / ".tmpKJONJQ", folder.path / ".manifest.json.1.partial"]
    mine = [inner / "notes.partial", folder.path / ".hidden", inner / ".tmp"]
    for path in left + mine:
        path.write_text("x")
    left.append(folder.path / ".model.1.partial")  # a directory that was to appear whole
    left[-1].mkdir()
    (left[-1] / "config.json").write_text("{")
    with folder.locked():
        assert not any(path.exists() for path in left)
    assert all(path.exists() for path in mine)


# tables


def test_a_table_is_what_was_written_or_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "w")
    frame = pd.DataFrame({"name": ["=1+1", "a"], "value": [1.0, 2.0]})
    path = folder.write_table("a.csv", frame)
    again = Work.open(folder.path)
    pd.testing.assert_frame_equal(again.read_table("a.csv"), frame)
    with pytest.raises(DamagedError, match=r"a: does not exist; there are a\.csv$"):
        again.read_table("a")
    path.write_text(path.read_text().replace("2.0", "3.0"))
    with pytest.raises(DamagedError, match=r"a\.csv: is not as it was written; remove it and make it again with toil"):
        again.read_table("a.csv")
    path.unlink()
    with pytest.raises(DamagedError, match=r"a\.csv: does not exist; make it with toil --resume"):
        again.read_table("a.csv")


@pytest.mark.parametrize("moment", ["before it is in its place", "before its hash is alone"])
def test_a_kill_while_a_table_is_written_leaves_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder, calls = made(tmp_path / "w"), 0
    old, new = pd.DataFrame({"value": [1.0]}), pd.DataFrame({"value": [2.0]})
    folder.write_table("a.csv", old)
    real = Work.save

    def killed(self: Work) -> None:
        nonlocal calls
        calls += 1
        if moment == "before its hash is alone" and calls == 2:
            raise KeyboardInterrupt
        real(self)
        if moment == "before it is in its place":
            raise KeyboardInterrupt

    monkeypatch.setattr(Work, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.write_table("a.csv", new)
    monkeypatch.undo()
    found = Work.open(folder.path)
    wanted = old if moment == "before it is in its place" else new
    pd.testing.assert_frame_equal(found.read_table("a.csv"), wanted)
    found.write_table("a.csv", new)
    assert Work.open(folder.path).manifest["tables"] == {"a.csv": [sha256(folder.path / "a.csv")]}


# files whose hash is noted


def test_a_file_is_whole_as_long_as_it_is_what_was_written(tmp_path: Path) -> None:
    folder = made(tmp_path / "w")
    noted = folder.write_lines("texts/a.txt", ["één", "two"])
    path = folder.path / "texts" / "a.txt"
    assert path.read_text(encoding="utf-8") == "één\ntwo\n"
    assert noted == sha256(path)
    assert folder.whole("texts/a.txt", noted)
    assert not folder.whole("texts/a.txt", None)
    assert not folder.whole("texts/b.txt", noted)
    path.write_text("één\ntwo.\n", encoding="utf-8")
    assert not folder.whole("texts/a.txt", noted)
