"""What a ledger says and names is believed only as it was written; a resume makes again what is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sensikit.distributed import Share, Work
from sensikit.errors import DamagedError
from sensikit.files import write_text
from sensikit.pruning.ledger import PRUNING, Ledger
from sensikit.pruning.sweep import prune
from sensikit.run import Run
from tests.support.watched import SCORING, SMALL, snapshot, translating


def edited(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda line: json.dumps({**json.loads(line), **changes}).encode()


DAMAGED_LINES: dict[str, Callable[[bytes], bytes]] = {
    **{
        text.decode(errors="replace"): (lambda _, text=text: text)
        for text in (b"{", b"null", b"[1, 2]", b"\xff\xfe", b"7")
    },
    "deep": lambda _: b"[" * 10**5 + b"]" * 10**5,
    "a huge number": lambda _: b"1" * 10**4,
    "an edited score": edited(value=77.7),
    "a score that is none": edited(value=float("nan")),
    "a ratio beyond all numbers": edited(ratio=10**400),
    "sums of another place": edited(sums="../../notes"),
    "twice, with another score": lambda line: line + b"\n" + edited(value=77.7)(line),
}


@pytest.mark.parametrize("damage", DAMAGED_LINES)
def test_a_damaged_line_is_refused_with_its_number_and_mended_by_a_resume(
    run: Run, straight: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    path = run.path / "pruning" / "ledger.jsonl"
    lines = path.read_bytes().splitlines()
    lines[3] = DAMAGED_LINES[damage](lines[3])
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DamagedError, match=r"ledger\.jsonl:[45]: (is not|says something else)") as caught:
        Ledger.open(path.parent)
    assert "\n" not in str(caught.value)
    backend = translating()
    prune(run, backend, **SMALL, settings=SCORING, resume=True)
    assert f"{caught.value.where}: {caught.value.problem}; it is scored again" in capsys.readouterr().err
    assert len(backend.calls) == 1
    assert snapshot(run.path) == snapshot(straight)


DAMAGED_FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a translation edited": ("hypotheses/cat.none.0.0.txt", lambda path: path.write_text("x\n" * 24)),
    "a translation gone": ("hypotheses/cat.none.0.0.txt", Path.unlink),
    "sums gone": ("pruning/sums/cat.none.0.0.bleu.npy", Path.unlink),
    "segments gone": ("pruning/segments/*.npy", Path.unlink),
    "sums of another cell": (
        "pruning/sums/cat.none.0.0.bleu.npy",
        lambda path: shutil.copy(path.with_name("cat.specificity.0.8.bleu.npy"), path),
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_FILES)
def test_what_a_line_names_is_missed_and_made_again_by_a_resume(run: Run, straight: Path, damage: str) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    name, harm = DAMAGED_FILES[damage]
    name = next(run.path.glob(name)).relative_to(run.path).as_posix()
    harm(run.path / name)
    with pytest.raises(DamagedError, match=f"{name}: is missing or damaged; score it again: prune --resume$"):
        Ledger.open(run.path / "pruning").check()
    prune(run, translating(), **SMALL, settings=SCORING, resume=True)
    assert snapshot(run.path) == snapshot(straight)


def test_a_process_that_shares_a_sweep_does_not_take_for_done_what_is_damaged(
    run: Run, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    path, left = run.path / "pruning" / "ledger.jsonl", []
    monkeypatch.setattr(Work, "give", lambda work, make, of: left.extend(of(range(len(work.owners)))))
    again = {**SMALL, "settings": SCORING, "resume": True, "share": Share(1, 2)}
    prune(run, translating(), **again)
    assert left == []
    (run.path / "pruning/sums/cat.none.0.0.bleu.npy").unlink()
    prune(run, translating(), **again)
    assert left == [0]
    path.write_bytes(b"{\n" + path.read_bytes())
    prune(run, translating(), **again)
    assert left == [0, 0]


def test_a_score_that_is_not_that_of_its_sums_is_named_whatever_its_hash(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    found = Ledger.open(run.path / "pruning")
    (cell, metric), line = next(iter(found.lines.items()))
    write_text(found.file, "")
    found.add(cell, [{**line, "value": line["value"] + 1}])
    with pytest.raises(DamagedError, match=rf"{cell.group} none 0 {metric}: has another value than its sums"):
        Ledger.open(found.path).check()


def test_a_table_that_says_something_else_than_the_ledger_is_named(run: Run, straight: Path) -> None:
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    again = Run.open(run.path)
    again.write_table("pruning.csv", again.read_table(PRUNING).assign(value=1.0))
    said = r"pruning\.csv: says something else than the ledger; write it again: sensikit"
    with pytest.raises(DamagedError, match=said):
        Ledger.open(run.path / "pruning").check()
    shutil.copytree(straight, run.path, dirs_exist_ok=True)
    ledger = run.path / "pruning" / "ledger.jsonl"
    ledger.write_text("".join(reversed(ledger.read_text().splitlines(keepends=True))))
    with pytest.raises(DamagedError, match=said):
        Ledger.open(run.path / "pruning").check()
