"""The command line, called in this process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from sensikit_cli.main import main


@dataclass(frozen=True)
class Called:
    """What a command left: its exit code, and what it wrote."""

    code: int
    output: str
    error: str


def call(*arguments: object) -> Called:
    """Run `sensikit ARGUMENTS` and return how it ended."""
    output, error = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["sensikit", *map(str, arguments)]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Called(code, output.getvalue(), error.getvalue())


def done(*arguments: object) -> str:
    """Run `sensikit ARGUMENTS`, which must succeed, and return what it wrote."""
    found = call(*arguments)
    assert found.code == 0, found.error
    return found.output


def alone(module: str, *arguments: object, limit: float | None = 300) -> subprocess.CompletedProcess[str]:
    """Run a module in a process of its own, which must succeed with every warning an error; return what it wrote."""
    warned = ("-W", "error", "-W", "ignore::DeprecationWarning")
    command = [sys.executable, *warned, "-m", module, *map(str, arguments)]
    place, environment = Path(__file__).parents[2], {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=limit)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended
