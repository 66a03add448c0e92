"""What a training run says of itself: progress, and a line of JSON for each of fairseq's."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensikit.files import write_text
from sensikit.progress import Bar, progress, say

NAME = "log.jsonl"
_SOURCE = logging.getLogger("fairseq.logging.progress_bar")


class Log(logging.Handler):
    """Appends what fairseq logs with --log-format json to OUT/log.jsonl, and shows progress.

    fairseq logs in its first process alone: train_inner (the last updates), train (an epoch), valid.

    Args:
        out: the directory of the run.
        updates: of the whole training; 0 where nobody knows.
    """

    def __init__(self, out: Path, updates: int) -> None:
        super().__init__()
        self.path, self.updates = out / NAME, updates
        self._shown, self._done = contextlib.ExitStack(), 0
        self._bar: Bar | None = None
        self._last: dict[str, float] = {}
        self._begun = 0.0

    @classmethod
    def attach(cls, out: Path, updates: int) -> None:
        """Keep the log of a run from now on, instead of any other."""
        cls.detach()
        _SOURCE.addHandler(cls(out, updates))

    @staticmethod
    def detach() -> None:
        """End every log."""
        for log in _logs():
            _SOURCE.removeHandler(log)
            log.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        if not record.getMessage().startswith("{"):
            return
        values = json.loads(record.getMessage()).items()
        short = ((name.removeprefix(f"{record.name}_"), value) for name, value in values)
        numbers = {name: float(value) for name, value in short if value is not None}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"set": record.name, **numbers}) + "\n")
        if record.name == "train_inner":
            self._last = numbers
        elif record.name != "train":
            say(f"update {numbers['num_updates']:.0f}, {record.name}: {_losses(numbers)}")

    @staticmethod
    def begin(done: int) -> None:
        """Begin to show progress, after so many updates."""
        for log in _logs():
            if log._bar is None:
                log._done, log._begun = done, time.monotonic()
                bar = progress(log.updates or None, "training", unit="updates", done=done, soon=0)
                log._bar = log._shown.enter_context(bar)

    @staticmethod
    def after(update: int) -> None:
        """Show how far the training is."""
        for log in _logs():
            if log._bar is not None:
                log._bar.advance(update - log._done, log._note)
                log._done = update

    def _note(self) -> str:
        from fairseq.logging import metrics

        # since the last line that fairseq logged; right after it, that line
        inner = metrics.get_smoothed_values("train_inner")
        numbers = {name: float(value) for name, value in inner.items() if value is not None}
        numbers = numbers if numbers.get("loss") else self._last
        # fairseq begins to measure at the second update
        speed = numbers.get("wps") or numbers.get("wpb", 0) / max(time.monotonic() - self._begun, 1e-9)
        return f"{_losses(numbers)}, {speed:,.0f} target tokens/s"

    def close(self) -> None:
        """End the progress."""
        self._shown.close()
        super().close()


def _logs() -> list[Log]:
    return [each for each in _SOURCE.handlers if isinstance(each, Log)]


def _losses(numbers: Mapping[str, float]) -> str:
    terms = ("loss", "translation", "encoder", "decoder")
    return ", ".join(f"{term} {numbers[term]:.3f}" for term in terms if term in numbers)


def validated(out: Path) -> dict[str, float]:
    """Return what was logged of the validation with the lowest loss: `num_updates`, `loss`; nothing of none."""
    path = out / NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    valid = [line for line in found if line["set"] not in ("train", "train_inner") and "loss" in line]
    best: dict[str, Any] = min(valid, key=lambda line: float(line["loss"]), default={})
    return {name: value for name, value in best.items() if name != "set"}


def forget_after(out: Path, update: int) -> None:
    """Drop what was logged after `update`, and a line that a kill cut short: a resumed run logs it again."""
    path = out / NAME
    if path.is_file():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
        write_text(path, "".join(line for line in lines if json.loads(line)["num_updates"] <= update))
