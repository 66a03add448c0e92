"""`--config FILE.toml` of every verb: options by their names, which become words of the command line before it is read.

So they are checked as if they were typed, and every record of a command holds them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sensikit.errors import OptionError
from sensikit.files import open_file

NAME = "--config"


def expanded(words: Sequence[str], verbs: Mapping[str, Any]) -> list[str]:
    """Return the words of a command with the options of its --config in place of it; what is typed wins.

    `verbs` are typer's commands by name.
    """
    end = words.index("--") if "--" in words else len(words)
    verb = next((number for number, word in enumerate(words[:end]) if word in verbs), None)
    where = next((number for number, word in enumerate(words[:end]) if word.partition("=")[0] == NAME), None)
    if verb is None or where is None or (words[where] == NAME and where + 1 >= end):
        return list(words)  # what is wrong is told by whoever reads the command line
    after = where + (2 if words[where] == NAME else 1)
    path = Path(words[where + 1] if words[where] == NAME else words[where].partition("=")[2])
    rest = [*words[:where], *words[after:]]
    if any(word.partition("=")[0] == NAME for word in words[after:end]):
        raise OptionError(NAME, "is given twice", "put all options into one file")
    typed = {word.partition("=")[0] for word in words[:end]}
    options = {name.removeprefix("--"): each for each in verbs[words[verb]].params for name in each.opts}
    added = []
    for name, value in _read(path).items():
        option = options.get(name)
        if option is None or f"--{name}" not in option.opts or name in ("config", "help"):
            raise OptionError(f"{NAME} {path}", f"{name} is no option of {words[verb]}", f"see {words[verb]} --help")
        if not typed & {*option.opts, *option.secondary_opts}:
            added += _words(path, name, value, option)
    return [*rest[: verb + 1], *added, *rest[verb + 1 :]]


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_file(path) as file:
            return tomllib.loads(file.read().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        problem = getattr(error, "strerror", None) or f"is not TOML ({error})"
        raise OptionError(f"{NAME} {path}", problem, "give a file with lines such as batches = 100") from error


def _words(path: Path, name: str, value: Any, option: Any) -> list[str]:
    """Return an option and its value as they would be typed."""
    flag = bool(option.is_flag)
    values = value if isinstance(value, list) else [value]
    if flag != isinstance(value, bool) or not all(
        isinstance(each, str | int | float) and (flag or not isinstance(each, bool)) for each in values
    ):
        wanted = "true or false" if flag else "text, a number, or a list of them"
        raise OptionError(f"{NAME} {path}", f"{name} is none it can be", f"give {wanted}")
    if flag:
        return [f"--{name}"] if value else option.secondary_opts[:1]
    if option.multiple:
        return [word for each in values for word in (f"--{name}", str(each))]
    return [f"--{name}", ",".join(map(str, values))]
