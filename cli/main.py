"""The `sensikit` command: its verbs, its exit codes, its one-line errors."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

# libgomp reads this once, when torch is first loaded: threads that spin while they wait
# bring a shared machine to a standstill (measured: 4 sentences/s instead of 55).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# numpy's products here are of a few rows: several threads take longer for them than one
# (measured on two busy cores: the tables of an analysis 14 s instead of 27).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from sensikit.progress import say
from sensikit.version import __version__

from . import config
from .analyze import analyze
from .audit import audit
from .corpus import corpus
from .demo import demo
from .evaluate import evaluate
from .export import export
from .inspect import inspect
from .layout import Verb, Verbs
from .options import with_options
from .prune import prune
from .report import report
from .sweep import sweep
from .train import train

INTERRUPTED = 130
"""The exit code after Ctrl-C, as of a shell: 128 and the number of the signal."""

app = typer.Typer(
    name="sensikit",
    help="Which parameters of a multilingual model belong to which language.",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Which parameters of a multilingual model belong to which language."""
    if version:
        typer.echo(f"sensikit {__version__}")
        raise typer.Exit


# each verb imports what is heavy inside its function, so that --help is quick
for verb, example in (
    (demo, "sensikit demo --out demo"),
    (corpus, "sensikit corpus cat.tsv nob.tsv fao.tsv --out data --vocab 8000"),
    (train, "sensikit train data --method cd+id --out systems/cd+id -- --lr 0.001"),
    (evaluate, "sensikit evaluate a.pt b.pt --data data --out evaluation"),
    (inspect, "sensikit inspect Qwen/Qwen2.5-0.5B"),
    (analyze, "sensikit analyze nllb --data flores200 --direction xxx-eng --groups cat,fao,nob --split dev --out run"),
    (audit, "sensikit audit run --parameters 400"),
    (prune, "sensikit prune run --order specificity,reverse,random --ratios 0:0.9:0.1"),
    (sweep, "sensikit sweep a.pt b.pt --data data --out runs"),
    (export, "sensikit export run --order specificity --group cat --ratio 0.3 --out pruned.pt"),
    (report, "sensikit report run evaluation --out page"),
):
    app.command(verb.__name__, cls=Verb, epilog=f"Example: {example}")(with_options(verb))


_RESUMABLE = {
    command.name
    for command in app.registered_commands
    if command.callback and "resume" in signature(command.callback).parameters
}

_GOING_ON = ("demo", "sweep")  # by themselves


def main() -> None:
    """Run the command line; bad input ends with one line and exit code 2, an interrupt with 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Windows gives a pipe an encoding that has no θ
            stream.reconfigure(errors="backslashreplace")
    debug, kept = "--debug" in sys.argv, ""
    if debug:
        sys.argv.remove("--debug")
    # what a scheduler ends, or a launcher because another process failed, says how to go on
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        "".join(sys.argv[1:]).encode()  # names that are not UTF-8 could not be noted in what is written
        if any(word.partition("=")[0] == config.NAME for word in sys.argv):
            verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
            sys.argv[1:] = config.expanded(sys.argv[1:], verbs)
        code = app(prog_name="sensikit", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort) as stop:
        code, kept = INTERRUPTED, str(stop)
    except Exception as error:
        if debug:
            raise
        code = told(error)
    if code == INTERRUPTED:
        say(f"sensikit: interrupted; {f'{kept}; ' if kept else ''}{_remedy(sys.argv[1:])}")
    sys.exit(code)


def _remedy(arguments: Sequence[str]) -> str:
    """Return how to go on after an interrupt."""
    verb = next((word for word in arguments if not word.startswith("-")), "")
    if verb in _GOING_ON:
        return "the same command goes on from here"
    if verb not in _RESUMABLE:
        return "nothing was kept: the same command starts again"
    if verb == "prune":  # writes in the run, which is its one argument without a name
        places = [Path(word, "pruning") for word in arguments if Path(word, "pruning").is_dir()]
    else:
        pairs = pairwise([*arguments, ""])
        places = [Path(word.partition("=")[2] or after) for word, after in pairs if word.partition("=")[0] == "--out"]
    if any(path.is_dir() and (verb != "train" or any(path.glob("checkpoint*.pt"))) for path in places):
        return "the same command with --resume goes on from what is kept"
    more = " with --resume" if any(path.exists() for path in places) else ""
    return f"nothing was kept: the same command{more} starts again"


def _of_input(error: Exception) -> str:
    """Return the line for what the system or Python refuses to do with an input that no other place has refused."""
    if isinstance(error, OSError):
        where = f"{str(error.filename)[:300]}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path and its permissions"
    if isinstance(error, UnicodeError):
        return f"text that cannot be read or written ({error}); give names and text in UTF-8"
    limit = "memory" if isinstance(error, MemoryError) else "bounds"
    return f"an input or an option is too large for the {limit} there are ({type(error).__name__}: {error})"


def told(error: Exception) -> int:
    """Tell of an error in one line on standard error; return the exit code."""
    from sensikit.errors import SensikitError

    code = getattr(error, "exit_code", 1)
    if isinstance(error, SensikitError):
        line = str(error)
    elif hasattr(error, "format_message"):  # what typer could not read
        line = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(line, file=sys.stderr)
            return int(code)
        context = getattr(error, "ctx", None)
        line += f" (see {context.command_path} --help)" if context else ""
    elif isinstance(error, OSError | UnicodeError | MemoryError | RecursionError | OverflowError):
        code, line = 2, _of_input(error)
    else:
        line = f"{type(error).__name__}: {error} (--debug shows where)"
    line = "".join(sign if sign.isprintable() or sign.isspace() else ascii(sign)[1:-1] for sign in line)
    print(f"sensikit: {' '.join(line.split())}", file=sys.stderr)
    return int(code)
