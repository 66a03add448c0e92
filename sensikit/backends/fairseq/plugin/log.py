"""What a training run says of itself: progress, and a line of JSON for each of fairseq's."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

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

    @classmethod
    def attach(cls, out: Path, updates: int) -> None:
        """Keep the log of a run from now on, instead of any other."""
        cls.detach()
        _SOURCE.addHandler(cls(out, updates))

    @staticmethod
    def detach() -> None:
        """End every log."""
        for handler in [each for each in _SOURCE.handlers if isinstance(each, Log)]:
            _SOURCE.removeHandler(handler)
            handler.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        if not record.getMessage().startswith("{"):
            return
        values = {
            name.removeprefix(f"{record.name}_"): value for name, value in json.loads(record.getMessage()).items()
        }
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"set": record.name, **numbers}) + "\n")
        if record.name != "train":
            self._show(record.name.removesuffix("_inner"), numbers)

    def _show(self, name: str, numbers: dict[str, float]) -> None:
        update = int(numbers["num_updates"])
        if self._bar is None:
            left = self.updates - update if self.updates else None
            self._bar = self._shown.enter_context(progress(left, "training", unit="updates"))
        else:
            self._bar.advance(update - self._done)
        self._done = update
        terms = [
            f"{term} {numbers[term]:.3f}" for term in ("loss", "translation", "encoder", "decoder") if term in numbers
        ]
        speed = f", {numbers['wps']:,.0f} target tokens/s" if name == "train" else ""
        say(f"update {update}, {name}: {', '.join(terms)}{speed}")

    def close(self) -> None:
        """End the progress."""
        self._shown.close()
        super().close()


def forget_after(out: Path, update: int) -> None:
    """Drop what was logged after `update`, and a line that a kill cut short: a resumed run logs it again."""
    path = out / NAME
    if path.is_file():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
        write_text(path, "".join(line for line in lines if json.loads(line)["num_updates"] <= update))
