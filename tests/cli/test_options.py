"""Every field of the settings is an option of its verb, with the default and the help text that stand beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from sensikit.errors import OptionError
from sensikit.progress import say
from sensikit.settings import AnalysisSettings, EvaluationSettings, Options, SweepSettings, names_of, option
from sensikit_cli import options
from sensikit_cli.corpus import Preparation
from sensikit_cli.endings import json_of, tell
from sensikit_cli.main import app, told
from sensikit_cli.options import OUTPUTS, Groups, Opening, Origin, with_options
from sensikit_cli.train import System
from tests.support.command import call
from tests.support.stored import everything

anywhere = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths need not exist."""
    monkeypatch.setattr(options, "check_there", lambda _: None)


COMMANDS: dict[str, Any] = typer.main.get_command(app).commands
FROM_PYTHON_ALONE = {
    (AnalysisSettings, "task"), (AnalysisSettings, "split"), (EvaluationSettings, "task"), (SweepSettings, "task"),
}  # fmt: skip
"""Verbs have a --task of their own, for a run takes several; and what is measured is what was trained on."""


def leaves(kind: type[Any]) -> Iterator[tuple[str, str, Any, str]]:
    """The fields of settings, of nested ones too: name, option, default, help text."""
    settings = kind()
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            yield from leaves(type(value))
        elif (kind, each.name) not in FROM_PYTHON_ALONE:
            yield each.name, names_of(each)[0], value, each.metadata["help"]


OF_VERBS = [
    *((verb, AnalysisSettings) for verb in ("analyze", "sweep")),
    *((verb, SweepSettings) for verb in ("prune", "sweep")),
    *((verb, Groups) for verb in ("analyze", "audit", "prune", "evaluate", "sweep")),
    *((verb, Opening) for verb in ("analyze", "evaluate", "sweep")),
    *((verb, Origin) for verb in ("audit", "prune", "export")),
    ("evaluate", EvaluationSettings),
    ("corpus", Preparation),
    ("train", System),
]


@pytest.mark.parametrize(
    ("verb", "name", "spelled", "default", "text"), [(verb, *leaf) for verb, kind in OF_VERBS for leaf in leaves(kind)]
)
def test_every_field_is_an_option_of_its_verb(verb: str, name: str, spelled: str, default: object, text: str) -> None:
    (found,) = [each for each in COMMANDS[verb].params if each.name == name]
    assert {*spelled.split("/")} <= {*found.opts, *found.secondary_opts}
    assert found.default == (",".join(default) if isinstance(default, tuple) else default)
    assert text
    assert found.help.endswith(text)  # type: ignore[attr-defined]


def test_a_sweep_has_every_option_of_analyze_and_prune_but_what_it_does_itself() -> None:
    of = {verb: {option for each in COMMANDS[verb].params for option in each.opts} for verb in COMMANDS}
    assert (of["analyze"] | of["prune"]) - of["sweep"] == {"checkpoint", "run", "--resume", "--dry-run", "--checkpoint"}


@pytest.mark.parametrize("verb", ["analyze", "audit", "prune", "evaluate", "sweep"])
def test_groups_have_a_second_spelling(verb: str) -> None:
    (found,) = [each for each in COMMANDS[verb].params if each.name == "groups"]
    assert found.opts == ["--groups", "--languages"]


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_example_of_a_verb_can_be_typed(verb: str) -> None:
    epilog = COMMANDS[verb].epilog or ""
    words = shlex.split(epilog.removeprefix("Example: sensikit "))
    assert words[0] == verb
    COMMANDS[verb].make_context(verb, words[1:])


# a dataclass of the test's own


@dataclass(frozen=True)
class Inner(Options):
    depth: float = option(0.5, "How deep.", above=0)


@dataclass(frozen=True)
class Settings(Options):
    count: int = option(7, "How many.", least=1)
    name: str | None = option(None, "What it is called.")
    kind: str = option("one", "which of them.", choices=("one", "two"))
    orders: tuple[str, ...] = option(("a", "b"), "Which orders.")
    chosen: tuple[str, ...] | None = option(None, "Only these.", names=("--chosen", "--only"))
    place: Path = option(Path("here"), "Where.")
    quick_one: bool = option(False, "Quick.")
    inner: Inner = field(default_factory=Inner)
    hidden: int = 3


def typed(*words: str, function: Callable[..., None] | None = None) -> Any:
    """Return the settings that a command with them is called with."""
    seen: list[Any] = []

    def verb(
        path: Annotated[Path, typer.Argument()],
        settings: Settings,
        last: Annotated[bool, typer.Option("--last")] = False,
    ) -> None:
        """Say what it is."""
        seen.append(settings)

    main = typer.Typer()
    main.command()(with_options(verb))
    done = CliRunner().invoke(main, ["path", *words], standalone_mode=False)
    if done.exception:
        raise done.exception
    return seen[0] if seen else done.output


@anywhere
def test_what_is_not_typed_has_its_default() -> None:
    assert typed() == Settings()
    assert typed("--last") == Settings()


@anywhere
def test_what_is_typed_reaches_the_settings() -> None:
    words = ["--count", "9", "--name", "x", "--kind", "two", "--orders", "c, d,", "--only", "e", "--place", "there"]
    expected = Settings(9, "x", "two", ("c", "d"), ("e",), Path("there"), True, Inner(0.25))
    assert typed(*words, "--quick-one", "--depth", "0.25") == expected
    assert typed("--chosen", ",").chosen == ()


def test_help_tells_every_field_and_its_default() -> None:
    text = " ".join(typed("--help").split())
    for part in ("--count", "How many. [default: 7]", "one, two: which of them. [default: one]", "Say what it is."):
        assert part in text
    assert "Which orders. [default: a,b]" in text
    assert "--depth" in text
    assert "hidden" not in text
    assert "--no-quick-one" not in text


@anywhere
def test_the_default_of_a_parameter_is_that_of_its_options() -> None:
    def verb(settings: Settings = Settings(count=2, hidden=8, inner=Inner(0.1))) -> None:
        seen.append(settings)

    seen: list[Settings] = []
    main = typer.Typer()
    main.command()(with_options(verb))
    assert CliRunner().invoke(main, ["--kind", "two"]).exit_code == 0
    assert seen == [Settings(count=2, kind="two", hidden=8, inner=Inner(0.1))]


def test_two_options_of_one_name_are_an_error_of_the_program() -> None:
    def verb(settings: Settings, depth: int = 3) -> None: ...

    with pytest.raises(ValueError, match="depth"):
        with_options(verb)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--count", "0"], "sensikit: --count: 0 is out of range; give 1 or more"),
        (["--depth", "0"], "sensikit: --depth: 0 is out of range; give more than 0"),
        (["--kind", "three"], "sensikit: --kind: three is not one of them; choose one or two"),
        (["--count", "many"], "sensikit: Invalid value for '--count'"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        typed(*words)
    assert told(caught.value) == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1


def test_a_wrong_value_of_a_verb_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for verb, words in (
        ("train", ["data", "--out", tmp_path / "new", "--method", "bert"]),
        ("train", ["data", "--out", tmp_path / "new", "--updates", 0]),
        ("corpus", ["a.tsv", "--out", tmp_path / "new", "--vocab", 0]),
        ("evaluate", ["a.pt", "--data", "data", "--beam", 0]),
        ("sweep", ["a.pt", "--data", "data", "--out", tmp_path / "new", "--protect", 2]),
    ):
        done = call(verb, *words)
        assert done.code == 2
        assert done.error.startswith(f"sensikit: {words[-2]}: {words[-1]} is ")
        assert done.error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


PLACES = {"checkpoint", "checkpoints", "config", "data", "mono", "paths", "run", "source", "sources"}
"""Parameters that are paths of what is read."""


def test_every_path_of_a_verb_is_read_or_written() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in signature(command.callback).parameters.items():
            assert "Path" not in str(parameter.annotation) or name in PLACES | {*OUTPUTS}, name


@pytest.mark.parametrize("spelling", ["same", "case", "dots", "link", "inside", "hard link", "input"])
def test_outputs_that_are_one_file_are_refused_before_anything_is_opened(tmp_path: Path, spelling: str) -> None:
    out = tmp_path / "out.pt"
    other = {
        "case": tmp_path / "OUT.pt",  # one file on some systems
        "dots": tmp_path / "a" / ".." / "out.pt",
        "inside": out / "mask",
        "link": tmp_path / "link",
    }.get(spelling, out)
    source, said = tmp_path / "run", f"--mask {other}: is, lies in or holds what --out names"
    if spelling == "link":
        (tmp_path / "elsewhere").mkdir()
        other = tmp_path / "link" / "out.pt"
        other.parent.symlink_to("elsewhere")
        out, said = tmp_path / "elsewhere" / "out.pt", f"--mask {other}: is, lies in or holds what --out names"
    if spelling == "hard link":
        out.write_text("mine")
        other = tmp_path / "other"
        other.hardlink_to(out)
        said = f"--mask {other}: is, lies in or holds what --out names"
    if spelling == "input":
        source.write_text("mine")
        other, said = tmp_path / "mask", f"--out {source}: is a file that is read"
        out = source
    before = everything(tmp_path)
    done = call("export", source, "--group", "cat", "--ratio", 0.5, "--out", out, "--mask", other)
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert said in done.error
    assert everything(tmp_path) == before


def test_no_sign_of_a_name_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31m\x85\u202ex"
    tell(f"{name}\ny")
    assert capsys.readouterr().out == "\N{REPLACEMENT CHARACTER}[31m \N{REPLACEMENT CHARACTER}x\ny\n"
    shown = json_of({name: [name, "é"]})
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert json.loads(shown) == {name: [name, "é"]}
    say(name)
    assert told(OptionError(name, name, name)) == told(RuntimeError(name)) + 1 == 2
    assert all(sign.isprintable() or sign == "\n" for sign in capsys.readouterr().err)
