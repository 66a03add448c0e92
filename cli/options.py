"""How a verb gets its options from settings, and the options that more than one verb has."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from sensikit.backends.base import HUB
from sensikit.errors import OptionError
from sensikit.files import size_text
from sensikit.progress import announced
from sensikit.progress import quiet as hushed
from sensikit.settings import Loading, Options, Tiers, names_of, option

from .endings import Ending

if TYPE_CHECKING:
    from sensikit.backends.base import Model
    from sensikit.run import Run

T = TypeVar("T")

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A fairseq checkpoint, a Hugging Face directory, or owner/model of the Hugging Face hub."
    ),
]
Checkpoints = Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Each as analyze takes it.")]
Data = Annotated[
    Path,
    typer.Option("--data", help="What `sensikit corpus` wrote, a fairseq data directory, or a folder of text."),
]
Task = Annotated[
    str | None, typer.Option(help="mt, denoise or lm: whose sentences; by default the first that there is.")
]
Shared = Annotated[
    str | None,
    typer.Option(
        "--share",
        metavar="<i/n>",
        help="3/16: this is the third of sixteen processes, all called alike on one shared file system. "
        "torchrun needs no --share.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an earlier call left.")]


OUTPUTS = ("out", "mask")
"""Parameters of verbs that name what is written; every other path is read."""

MODELS = ("checkpoint", "checkpoints")
"""Parameters that may name a model on the hub."""

QUICK = ("inspect", "report")
"""Verbs that end too soon for anyone to want to know what they open."""

ENTRIES = 10_000
"""Files of a directory that are looked at for its size: it is to be told at once."""

Paths = list[tuple[str, Path]]
"""Paths, each with the name of the parameter that it was given for."""


def _paths(typed: Mapping[str, Any]) -> tuple[Paths, Paths]:
    """Return the paths that a verb reads, and those that it writes, among the values of its parameters."""
    named = [(name, path) for name, value in typed.items() for path in (value if isinstance(value, list) else [value])]
    read = [(name, path) for name, path in named if isinstance(path, Path) and name not in OUTPUTS]
    return read, [(name, typed[name]) for name in OUTPUTS if isinstance(typed.get(name), Path)]


def check_apart(typed: Mapping[str, Any]) -> None:
    """Refuse two outputs that are one file or lie in one another, and an output that is an input."""
    read, outputs = _paths(typed)
    for (name, path), (other, beside) in itertools.combinations(outputs, 2):
        one, two = (_alike(each) for each in (path, beside))
        if _same(path, beside) or one == two or one in two.parents or two in one.parents:
            problem = f"is, lies in or holds what --{name} names"
            raise OptionError(f"--{other} {beside}", problem, "give each a place of its own")
    for name, path in outputs:
        for _, source in read:
            if path.is_file() and _same(path, source):
                raise OptionError(f"--{name} {path}", "is a file that is read", "choose another place")


def _alike(path: Path) -> Path:
    """Return a resolved path in letters that a system does not tell apart: x and X are one file on some."""
    return Path(unicodedata.normalize("NFC", str(path.resolve())).casefold())


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths are one file, also by a link."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def check_there(typed: Mapping[str, Any]) -> None:
    """Refuse a path that is read and does not exist, before anything heavy is loaded."""
    for name, path in _paths(typed)[0]:
        if name in MODELS and HUB.fullmatch(str(path)) and path.suffix != ".pt":
            continue
        if name == "data" and any(Path(part).is_dir() for part in str(path).split(":")):
            continue  # DATA:DATA, fairseq's shards, is refused as that where data are opened
        if not path.exists():
            model = ": give a checkpoint, a directory, or owner/model of the hub" if name in MODELS else ""
            raise OptionError(str(path), "does not exist", f"check the path{model}")
        if name == "run" and not path.is_dir():
            raise OptionError(str(path), "is not a run directory", "give what sensikit analyze wrote")


def opens(verb: str, typed: Mapping[str, Any]) -> str:
    """Return what a verb reads and how large it is, and where it writes, for those who wait."""
    texts = [Path(each) for each in typed.get("sources") or ()]
    read = [f"{path} ({_size(path)})" for path in [*(path for _, path in _paths(typed)[0]), *texts]]
    parts = [f"opens {', '.join(read)}"] if read else []
    parts += [f"writes {typed['out']}"] if typed.get("out") else []
    return f"{verb}: {', '.join(parts)}; the time left is shown once the first steps are done" if parts else ""


def _size(path: Path) -> str:
    if not path.exists():
        return "of the hub"
    files = list(itertools.islice(path.rglob("*"), ENTRIES)) if path.is_dir() else [path]
    size = size_text(sum(each.stat().st_size for each in files if each.is_file()))
    return f"over {size}" if len(files) == ENTRIES else size


@dataclass(frozen=True)
class Every(Options):
    """Every verb."""

    config: Path | None = option(None, "A TOML file of options by their names: batches = 100. What is typed wins.")
    json: bool = option(False, "Print the result as one JSON object; all else goes to standard error.")
    quiet: bool = option(False, "Show no progress and no notes: the result and errors alone.")


def with_options(function: Callable[..., Ending | None]) -> Callable[..., None]:
    """Return `function` as typer takes it: a parameter that is a dataclass becomes an option for each of its fields.

    The fields are those with a help text, of nested dataclasses too. Their defaults are those of the class, or those
    of the object that the parameter has for its default. Two options of one name are a ValueError. Beside them stand
    those of `Every`; what the function returns is shown as they say. Before it is called, paths are checked.
    """
    hints = get_type_hints(function, include_extras=True)
    defaults: dict[str, Any] = {}
    parameters: list[Parameter] = []
    for name, parameter in signature(function).parameters.items():
        if is_dataclass(hints[name]):
            defaults[name] = hints[name]() if parameter.default is Parameter.empty else parameter.default
            parameters += _parameters(defaults[name])
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))
    parameters += _parameters(Every())

    def verb(**typed: Any) -> None:
        paths = dict(typed)  # `_built` takes what is a setting's out of `typed`
        every = _built(Every(), typed)
        check_apart(paths)
        settings = {name: _built(default, typed) for name, default in defaults.items()}
        check_there(paths)
        with hushed(every.quiet):
            # what a library prints is no result
            with contextlib.redirect_stdout(sys.stderr):
                told = "" if function.__name__ in QUICK else opens(function.__name__, paths)
                try:
                    with announced(told) if told else contextlib.nullcontext():
                        ending = function(**settings, **typed)
                except KeyboardInterrupt as stop:
                    raise typer.Abort(*stop.args) from stop  # typer would drop what it says was kept
            if ending is not None:
                ending.show(function.__name__, every.json)

    verb.__name__, verb.__doc__ = function.__name__, function.__doc__
    # typer reads the names and defaults of the one, and the types of the other
    verb.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return verb


def _parameters(settings: Any) -> Iterator[Parameter]:
    """Return the parameters that typer makes options of, one for each field."""
    types = get_type_hints(type(settings))
    panel = re.split(r"[.:;,]", type(settings).__doc__ or "")[0]  # --help has them under the beginning of the docstring
    for each, value in _fields(settings):
        if is_dataclass(value):
            yield from _parameters(value)
            continue
        of, choices = types[each.name], ", ".join(each.metadata["choices"])
        # the choices are what a reader looks for, so they open the line
        more: dict[str, Any] = {
            "rich_help_panel": panel,
            "help": f"{choices}: {each.metadata['help']}" if choices else each.metadata["help"],
        }
        if of in (tuple[str, ...], tuple[str, ...] | None):
            # typer takes a tuple for an option with several values; here it is one value with commas
            more |= {"metavar": "<a,b,…>", "parser": _parts}
            of, value = str | None, value and ",".join(value)
        info = typer.Option(*names_of(each), **more)
        yield Parameter(each.name, Parameter.KEYWORD_ONLY, default=value, annotation=Annotated[of, info])


def spellings(settings: Any) -> list[str]:
    """Return every spelling of the options that settings have."""
    return [
        name
        for each, value in _fields(settings)
        for name in (spellings(value) if is_dataclass(value) else names_of(each))
    ]


def _built(settings: T, typed: dict[str, Any]) -> T:
    """Return the settings as they were typed; what is theirs is taken out of `typed`."""
    given = {
        each.name: _built(value, typed) if is_dataclass(value) else typed.pop(each.name)
        for each, value in _fields(settings)
    }
    return replace(settings, **given)  # type: ignore[type-var]


def _fields(settings: Any) -> Iterator[tuple[Field[Any], Any]]:
    """Return the fields that are options or hold options, and their values."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value) or each.metadata.get("help"):
            yield each, value


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True)
class Groups(Options):
    """Which groups."""

    groups: tuple[str, ...] | None = option(
        None, "Only these, comma-separated; all by default.", names=("--groups", "--languages")
    )


@dataclass(frozen=True)
class Opening(Groups):
    """Which groups a model is opened with, how it is loaded, and where it is computed."""

    direction: str | None = option(
        None, "xxx-eng, eng-xxx, or with another language; by default the one that all pairs have in common."
    )
    pairs: tuple[str, ...] | None = option(None, "In place of a direction: cat-fra,spa-fra.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    loading: Loading = field(default_factory=Loading)
    levels: Tiers = field(default_factory=Tiers)

    def open(self, checkpoint: Path, data: Path, on_paper: bool = False, shard: int = 1) -> Model:
        """Return a model with its data; `on_paper`, --device meta is one that has no weights."""
        from sensikit.backends import open_model

        if self.device == "meta" and not on_paper:
            raise OptionError("--device meta", "has no weights to compute with", "it is for analyze --dry-run alone")
        if shard > 1 and self.device not in ("auto", "cpu", "meta"):
            raise OptionError("--device", f"{self.device} is one device, and --shard takes several", "leave it out")
        named = self.direction, self.device, self.pairs, self.loading, self.levels
        return open_model(checkpoint, data, *named, 1 if self.device == "meta" else shard)


@dataclass(frozen=True)
class Origin(Options):
    """Where the model and the data of a run are now, if they moved, and where it is computed."""

    checkpoint: Path | None = option(None, "Where the model is now, if it moved.")
    data: Path | None = option(None, "Where the data are now, if they moved.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")

    def open(self, run: Run) -> Model:
        """Return the model of a run with its data."""
        from sensikit.api import reopened

        return reopened(run, self.checkpoint, self.data, self.device)
