"""Progress: plain lines in a log, a bar on a terminal, always on standard error."""

from __future__ import annotations

import contextlib
import io
import re
import sys

import pytest

from sensikit import progress as module
from sensikit.progress import LOG_EVERY, SOON, announced, progress, quiet, say


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its only entry is changed."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    say("T lowered")
    assert capsys.readouterr() == ("", "T lowered\n")


def test_a_log_has_a_line_now_and_then_with_rate_and_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(100, "S(θ,B) cat", after=200) as bar:
        for _ in range(60):
            clock[0] += 0.5
            bar.advance()
        assert capsys.readouterr() == (
            "",
            # after the first second, and every 15 of the 30 that have passed
            "S(θ,B) cat: 2/100 batches, 2/s, 1 s, 49 s left, 149 s to the end\n"
            "S(θ,B) cat: 32/100 batches, 2/s, 16 s, 34 s left, 134 s to the end\n",
        )
        bar.advance(40)
    assert capsys.readouterr().err == "S(θ,B) cat: 100/100 batches, 3.3/s, 30 s, 60 s to the end\n"


def test_short_work_has_one_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "tables", "tables") as bar:
        for _ in range(3):
            clock[0] += SOON / 4
            bar.advance()
    assert capsys.readouterr().err == "tables: 3/3 tables, 4/s, 1 s\n"


def test_large_numbers_are_written_out(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2_000_000, "reading", "lines") as bar:
        clock[0] += 1000
        bar.advance(1_234_567)
    assert capsys.readouterr().err.startswith("reading: 1234567/2000000 lines, 1235/s, 17 min")


def test_work_of_unknown_length_has_no_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(None, "reading", "lines") as bar:
        clock[0] += 2 * LOG_EVERY
        bar.advance(60)
    assert capsys.readouterr().err == "reading: 60 lines, 2/s, 30 s\n" * 2


def test_training_speaks_after_its_first_step_of_what_an_earlier_call_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(300, "training", "updates", done=50, soon=0) as bar:
        clock[0] += 2
        bar.advance(1, lambda: "loss 5.1")
        assert capsys.readouterr().err == "training: 51/300 updates, loss 5.1, 0.5/s, 2 s, 8 min left\n"


def test_quiet_says_nothing_and_ends(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with quiet(), progress(3, "tables") as bar:
        clock[0] += LOG_EVERY
        bar.advance(note=pytest.fail)
        say("T lowered")
    say("over")
    assert capsys.readouterr() == ("", "over\n")


def test_no_work_at_all_divides_by_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(0, "pruning", "cells"):
        pass
    assert capsys.readouterr().err == "pruning: 0 cells, 0/s, 0 s\n"


def test_an_error_passes_through_without_a_word_of_success(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), progress(3, "tables"):
        raise ValueError("broken")
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [4, None])
def test_a_terminal_has_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], total: int | None
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress(total, "S(θ,B) cat", "batches") as bar:
        bar.advance()
        bar.advance(3)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    last = text.strip().split("\n")[-1].split("\r")[-1]
    assert last.startswith("S(θ,B) cat")
    assert f"4/{total or '?'}" in last
    assert re.search(r"batches +[\d.]+/s", last)
    assert capsys.readouterr().out == ""


def test_no_number_is_cut_on_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress(500, "S(θ,B) denoise cat-eng.rest", after=4000) as bar:
        clock[0] += 10
        bar.advance(300)
    assert "…" not in terminal.getvalue()
    assert re.search(r"300/500 batches +30.0/s, 140 s to the end", re.sub(r"\x1b\[[\d;?]*\w", "", terminal.getvalue()))


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_announced_is_said_at_once_on_a_terminal_and_in_a_log_before_the_next_line(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    shown = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with contextlib.suppress(ValueError), announced("opens a"):
        assert shown.getvalue() == ("opens a\n" if terminal else "")
        raise ValueError
    with announced("opens b"):
        say("T lowered")
    assert shown.getvalue() == ("opens a\n" if terminal else "") + "opens b\nT lowered\n"


def test_a_terminal_has_its_cursor_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyboardInterrupt), progress(4, "S(θ,B) cat"):
        raise KeyboardInterrupt
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
