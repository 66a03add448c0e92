"""One family of errors: everything a user can put right is a `SensikitError`, and says how in one line."""

from __future__ import annotations

from pathlib import Path


def printable(text: str) -> str:
    """Return text that may be shown and stored anywhere: plain spaces, no control or bidi signs, nothing but UTF-8.

    >>> printable("one" + chr(9) + "two" + chr(7))
    'one two�'
    """
    shown = (sign if sign.isprintable() else " " if sign.isspace() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return "".join(shown)


class SensikitError(Exception):
    """Bad input, told in one line: where it is, what is wrong with it, what to do about it.

    Args:
        where: the file, directory or option at fault, as the user would write it.
        problem: what is wrong with it, without a full stop.
        remedy: what to do, a sentence without a full stop; empty where there is nothing to add.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 2

    def __init__(self, where: str | Path, problem: str, remedy: str = "") -> None:
        self.where, self.problem, self.remedy = str(where), problem, remedy
        line = f"{where}: {problem}" + (f"; {remedy}" if remedy else "")
        super().__init__(" ".join(printable(line).split()))


class CheckpointError(SensikitError):
    """A checkpoint that cannot be read safely, or is not what it should be."""


class DataError(SensikitError):
    """Text or binarised data that is missing, empty, or does not belong to the checkpoint."""


class OptionError(SensikitError):
    """An option, or a combination of options, that cannot be carried out."""


class RunError(SensikitError):
    """A run directory that is damaged, or was made of something else."""


class DamagedError(RunError):
    """Something that sensikit wrote and that is missing, or is not as it was written."""


class NonFiniteError(SensikitError):
    """A gradient or a loss that is infinite or not a number."""


class EndedError(SensikitError):
    """Another of the processes that work together has ended: what it said tells why."""

    exit_code = 1


class MissingDependencyError(SensikitError):
    """An optional package that the request needs and that is not installed."""


def said(error: BaseException) -> str:
    """Return what another library says of an error, in a line of its own."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
