"""The README and the pages of docs/ say what is so: commands are parsed, examples run, pages are linked."""

from __future__ import annotations

import doctest
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import sensikit
from sensikit.run import Run
from sensikit_cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = [path.relative_to(ROOT).as_posix() for path in PAGES]
VERBS: Any = typer.main.get_command(app)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every `sensikit` command in the blocks of a page."""
    for block in re.findall(r"^```(?:bash)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"^(?:torchrun .*-m )?sensikit(?:_cli)? (.*)", line)
            if found:
                yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize("page", NAMED)
def test_every_command_of_a_page_can_be_typed(page: str) -> None:
    for verb, *words in commands(ROOT / page):
        if verb.startswith("-") or "…" in words:
            continue
        VERBS.commands[verb].make_context(verb, list(words))  # refuses an option that does not exist


def test_the_pages_show_every_verb_and_a_wrong_option_would_be_seen(tmp_path: Path) -> None:
    shown = {words[0] for page in PAGES for words in commands(page)}
    assert set(VERBS.commands) - {"demo", "sweep"} <= shown
    page = tmp_path / "page.md"
    page.write_text("```\ntorchrun --nproc-per-node 8 -m sensikit_cli prune run \\\n  --ordre random # none\n```\n")
    (words,) = commands(page)
    assert words == ["prune", "run", "--ordre", "random"]
    with pytest.raises(Exception, match="No such option"):
        VERBS.commands["prune"].make_context("prune", words[1:])


@pytest.mark.parametrize("page", [name for name in NAMED if ">>> " in (ROOT / name).read_text(encoding="utf-8")])
def test_the_examples_of_a_page_are_right(page: str, analysed: Path) -> None:
    failed, attempted = doctest.testfile(
        str(ROOT / page), module_relative=False, globs={"sensikit": sensikit, "run": Run.open(analysed)}
    )
    assert attempted
    assert not failed


@pytest.mark.parametrize("page", NAMED)
def test_no_link_of_a_page_is_dead(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        made = re.sub(r"^(?:\.\./)?notebooks/(\w+)\.md$", r"\1", target)  # pages that docs/hooks.py makes
        if made == target:
            assert (ROOT / page).parent.joinpath(target).exists(), target
        else:
            assert (ROOT / "notebooks" / f"{made}.ipynb").exists(), target


def test_every_public_function_and_page_is_in_the_documentation() -> None:
    reference = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    named = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)", reference, re.M)}
    public = {name for name in sensikit.__all__ if callable(getattr(sensikit, name))}
    assert public <= named
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in PAGES[1:]]
    notebooks = [f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert [page for page in itertools.chain(pages, notebooks) if f": {page}\n" not in listed] == []


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    assert f"version = {{{sensikit.__version__}}}" in text
