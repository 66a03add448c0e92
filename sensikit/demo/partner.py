"""A second process of a demo: on two cores, two processes of one thread do more than one process of two."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import multiprocessing
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sensikit.distributed import Share
from sensikit.errors import RunError, SensikitError
from sensikit.progress import quiet, say

Step = Callable[..., Any]
"""What is done by which share of the processes, given what `Partner.begin` is."""

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

    def begin(self, step: str, *given: Any) -> None:
        """Let the second process begin a step with what is given, if there is one."""
        if self._end:
            with contextlib.suppress(OSError):  # it has ended: `partner` will say so
                self._end.send((step, given))

    def answer(self) -> Any:
        """Return what the step gave that was begun last."""
        assert self._end is not None
        with contextlib.suppress(EOFError, OSError):
            return self._end.recv()
        time.sleep(PATIENCE)  # it has ended, and `partner` interrupts this
        raise EOFError


@contextlib.contextmanager
def partner(out: Path, steps: Mapping[str, Step]) -> Iterator[Partner]:
    """Give a second process half of the threads of this one; where there is one thread or a GPU, there is none.

    What one of the steps returns, if anything, is an answer.

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
    process = context.Process(target=_serve, args=(other, steps, threads // 2), daemon=True)
    process.start()
    other.close()

    def watch() -> None:
        process.join()
        if not done.is_set():
            lost.set()
            _thread.interrupt_main()  # which may be waiting for what will never come
            if not done.wait(PATIENCE):  # and, where processes find each other, cannot be interrupted
                say(str(gone))
                os._exit(1)

    gone, lost = RunError(out, "its second process has ended", "start the same command again"), threading.Event()
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    torch.set_num_threads(threads - threads // 2)
    try:
        yield Partner(mine)
    except (KeyboardInterrupt, RuntimeError) as error:
        if isinstance(error, RuntimeError):  # of what both did together; `watch` may not know yet
            with contextlib.suppress(KeyboardInterrupt):
                lost.wait(1)
        if lost.is_set():
            raise gone from error
        raise
    finally:
        done.set()
        mine.close()  # by which the second process knows
        watching.join(PATIENCE)
        torch.set_num_threads(threads)


@contextlib.contextmanager
def launched(share: Share, port: int) -> Iterator[None]:
    """Have torch's processes find each other while the block runs, as torchrun would; of one process, nothing."""
    if share.size == 1:
        yield
        return
    import torch.distributed

    given = {"RANK": share.rank, "LOCAL_RANK": share.rank, "WORLD_SIZE": share.size, "TORCHELASTIC_RUN_ID": "demo"}
    given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    before = dict(os.environ)
    os.environ.update({name: str(value) for name, value in given.items()})
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name)
        os.environ.update(before)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _serve(end: Connection, steps: Mapping[str, Step], threads: int) -> None:
    import torch

    atexit.register(os._exit, 0)  # last of all: what libraries take down after it, they hang in for seconds
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the first process decides
    torch.set_num_threads(threads)
    asked: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(end, asked), daemon=True).start()
    try:
        with quiet():
            while (step := asked.get()) is not None:
                with contextlib.suppress(KeyboardInterrupt):  # the first process was interrupted, and trained with it
                    found = steps[step[0]](Share(1, 2), *step[1])
                    if found is not None:
                        end.send(found)
    except SensikitError as error:
        say(str(error))
        os._exit(1)
    except RuntimeError:
        time.sleep(1)  # if the first process has ended, and broken off what they did together, this one does too
        if asked.empty():
            raise


def _listen(end: Connection, asked: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None]) -> None:
    """Take note of what is asked for; the first process's end is this one's, in the middle of a step too."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked.put(end.recv())
    asked.put(None)
    time.sleep(PATIENCE / 2)
    os._exit(0)
