"""A page of a report, read back: its tags, its text; and the reports that several tests look at."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from tests.support import synthetic_run

FEW = {code: synthetic_run.LANGUAGES[code] for code in ("cat", "fao", "fur", "nob")}
VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and whether every tag is closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]
