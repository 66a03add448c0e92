"""What happens after each update of a training run: its progress is shown, and an interrupt saves it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq_cli import train as fairseq_train
from torch import distributed

from sensikit.backends.fairseq.plugin.log import Log
from sensikit.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)

TWICE = 1.0
"""Seconds in which a second signal is the same one: a terminal and a launcher may both pass it on."""


class Watch:
    """Stands in for fairseq's functions of an epoch and of the end of an update, from `begin` to `end`.

    An interrupt within an update is taken up at its end, in all processes alike: the state is saved, as fairseq saves
    it, and KeyboardInterrupt raised. One that comes before the first update, or a second one, is raised at once.
    """

    current: Watch | None = None

    def __init__(self) -> None:
        self.epoch, self.update = fairseq_train.train, fairseq_train.validate_and_save
        self.training = self.saving = False
        self.asked: float | None = None
        self.process = os.getpid()
        fairseq_train.train, fairseq_train.validate_and_save = self.train, self.after
        main = threading.current_thread() is threading.main_thread()
        # one that somebody else takes care of, or that ends the process, is left as it is
        mine = [number for number in SIGNALS if main and signal.getsignal(number) is signal.default_int_handler]
        self.handlers = {number: signal.signal(number, self.interrupt) for number in mine}

    @classmethod
    def begin(cls) -> None:
        """Watch from now on."""
        cls.end()
        cls.current = cls()

    @classmethod
    def end(cls) -> None:
        """Put everything back."""
        if cls.current:
            fairseq_train.train, fairseq_train.validate_and_save = cls.current.epoch, cls.current.update
            for number, handler in cls.current.handlers.items():
                signal.signal(number, handler)
            cls.current = None

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal, or raise KeyboardInterrupt."""
        now = time.monotonic()
        if self.saving or (self.asked is not None and now - self.asked < TWICE):
            return
        # a process that loads data has inherited this
        if not self.training or self.asked is not None or os.getpid() != self.process:
            raise KeyboardInterrupt
        self.asked = now
        with contextlib.suppress(RuntimeError):  # it may have come in the midst of another line
            say("interrupted: this update is finished and saved; once more stops at once, without")

    def train(self, cfg: Any, trainer: Any, *more: Any) -> Any:
        """Train an epoch."""
        self.training = True
        Log.begin(trainer.get_num_updates())
        return self.epoch(cfg, trainer, *more)

    def after(self, cfg: Any, trainer: Any, task: Any, epoch_itr: Any, *more: Any) -> Any:
        """Do what fairseq does after an update, and what this class is for."""
        found = self.update(cfg, trainer, task, epoch_itr, *more)
        Log.after(trainer.get_num_updates())
        if not found[1] and self._any_asked(trainer):
            self.saving = True
            # with its loss, where it was validated: this may be the second save of a checkpoint that has one
            checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, found[0][0])
            if _several():
                distributed.barrier()  # the launcher ends all processes when the first one has ended
            raise KeyboardInterrupt
        return found

    def _any_asked(self, trainer: Any) -> bool:
        """Return whether any process was interrupted: one that went on alone would wait for the others for ever."""
        if not _several():
            return self.asked is not None
        asked = torch.tensor(float(self.asked is not None), device=trainer.device)
        distributed.all_reduce(asked, op=distributed.ReduceOp.MAX)
        return bool(asked)


def _several() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1
