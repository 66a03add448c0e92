"""A second process of a demo: on two cores, two processes of one thread do more than one process of two."""

from __future__ import annotations

import _thread
import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sensikit.distributed import Share
from sensikit.errors import RunError, SensikitError
from sensikit.progress import quiet, say

Step = Callable[[Any, Share], Any]
"""What is done with the model, by which share of the processes."""

PATIENCE = 10.0
"""Seconds in which the end of a process is noticed."""


class Partner:
    """The first process's end: steps are named, and begin in the second process in that order.

    Args:
        end: of the pipe between them; None where there is no second process.
    """

    def __init__(self, end: Connection | None) -> None:
        self._end = end
        self.share = Share(0, 2 if end else 1)

    def __bool__(self) -> bool:
        return self._end is not None

    def begin(self, step: str) -> None:
        """Let the second process begin a step, if there is one."""
        if self._end:
            with contextlib.suppress(OSError):  # it has ended: `partner` will say so
                self._end.send(step)

    def answer(self) -> Any:
        """Return what the step gave that was begun last."""
        assert self._end is not None
        with contextlib.suppress(EOFError, OSError):
            return self._end.recv()
        time.sleep(PATIENCE)  # it has ended, and `partner` interrupts this
        raise EOFError


@contextlib.contextmanager
def partner(out: Path, opened: Callable[[], Any], steps: Mapping[str, Step]) -> Iterator[Partner]:
    """Give a second process half of the threads of this one; where there is one thread or a GPU, there is none.

    Args:
        out: the directory of the demo.
        opened: opens the model.
        steps: by name; what one of them returns, if anything, is an answer.

    Raises:
        RunError: if the second process ends before this one is done with it.
    """
    import torch

    threads = torch.get_num_threads()
    if threads < 2 or torch.cuda.is_available():
        yield Partner(None)
        return
    context, done = multiprocessing.get_context("spawn"), threading.Event()
    mine, other = context.Pipe()
    process = context.Process(target=_serve, args=(other, opened, steps, threads // 2), daemon=True)
    process.start()
    other.close()

    def watch() -> None:
        process.join()
        if not done.is_set():
            lost.set()
            _thread.interrupt_main()  # which may be waiting for what will never come

    lost = threading.Event()
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    torch.set_num_threads(threads - threads // 2)
    try:
        yield Partner(mine)
    except KeyboardInterrupt as error:
        if lost.is_set():
            raise RunError(out, "its second process has ended", "start the same command again") from error
        raise
    finally:
        done.set()
        mine.close()  # by which the second process knows
        watching.join(PATIENCE)
        torch.set_num_threads(threads)


def _serve(end: Connection, opened: Callable[[], Any], steps: Mapping[str, Step], threads: int) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the first process decides
    torch.set_num_threads(threads)
    asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(end, asked), daemon=True).start()
    try:
        with quiet():
            model = opened()
            while (step := asked.get()) is not None:
                found = steps[step](model, Share(1, 2))
                if found is not None:
                    end.send(found)
    except SensikitError as error:
        say(str(error))
        os._exit(1)


def _listen(end: Connection, asked: queue.SimpleQueue[str | None]) -> None:
    """Take note of what is asked for; the first process's end is this one's, in the middle of a step too."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked.put(end.recv())
    asked.put(None)
    time.sleep(PATIENCE / 2)
    os._exit(0)
