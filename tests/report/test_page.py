from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sensikit.figures import style
from sensikit.files import write_text
from sensikit.report.page import report
from tests.report.test_content import FIGURES, TABLES
from tests.support import synthetic_run
from tests.support.page import FEW, Page
from tests.support.stored import sealed
from tests.support.watched import snapshot


def test_the_page_needs_nothing_but_itself(reported: Path, reported_pair: Path) -> None:
    for path in (reported / "report.html", reported_pair / "report.html"):
        page = Page(path)
        assert all(link.startswith(("data:", "#")) for name in ("src", "href") for link in page.all(name))
        assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base")]
        assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        style = path.read_text().split("<style>")[1].split("</style>")[0]
        assert not re.search(r"url\(|@import|http", style)
        policy = [
            attributes for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy[0]["content"].startswith("default-src 'none';")
        (script,) = re.findall(r"<script>(.*?)</script>", path.read_text(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert policy[0]["content"].endswith(f"; script-src 'sha256-{digest}'")
        assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML|http", script)


def test_images_are_the_vector_figures_and_say_what_they_show(reported: Path) -> None:
    page = Page(reported / "report.html")
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(FIGURES)
    drawn = {path.read_bytes() for path in (reported / "figures").glob("*.svg")}
    assert {base64.b64decode(each["src"].removeprefix("data:image/svg+xml;base64,")) for each in images} == drawn
    assert all(len(each["alt"]) > 40 for each in images)


def test_every_link_of_the_contents_leads_somewhere(reported: Path) -> None:
    page = Page(reported / "report.html")
    places = page.all("id")
    assert len(set(places)) == len(places)
    links = [link[1:] for link in page.all("href") if link.startswith("#")]
    assert len(links) == len(FIGURES) + len(TABLES) + 7 + 1  # seven sections, and the provenance
    assert set(links) <= set(places)


def test_names_and_commands_are_text_and_never_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    languages = {
        "cat": {**FEW["cat"], "name": evil, "family": "\"'><img src=http://x.example onerror=alert(1)>"},
        "fao": {**FEW["fao"], "name": r"\input{/etc/passwd}", "tier": "</td><b>High"},
    }
    run = synthetic_run.write_run(
        tmp_path / "run", languages, command=evil, notes=[evil], signature=f"S|task:mt|{evil}", only=["balance"]
    )
    page = Page(report([run], labels=[f"{evil} & co"], command=evil))
    assert [tag for tag, _ in page.tags if tag in ("script", "b")] == ["script"]  # the page's own
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(source.startswith("data:") for source in page.all("src"))
    assert page.text.count(evil) > 4
    latex = (run / "tables" / "groups.tex").read_text()
    assert r"\textbackslash input\{/etc/passwd\}" in latex
    assert r"\input" not in latex


def test_control_signs_and_foreign_bytes_in_names_do_not_break_the_files(tmp_path: Path) -> None:
    languages = {"cat": {**FEW["cat"], "name": "Cat\x1b[31m\x00a\u00a0lan"}, "fao": FEW["fao"]}
    run = synthetic_run.write_run(tmp_path / "run", languages, only=["pruning"], command="a\x07b")
    write_text(run / "pruning.csv", (run / "pruning.csv").read_text().replace("|beam", "\x02|"))
    sealed(run)
    moved = os.fsdecode(os.fsencode(tmp_path) + b"/r\xffn\n")
    run.rename(moved)
    page = report([moved])
    assert "Cat\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}a lan" in Page(page).text
    for path in (page.parent / "figures").glob("*.svg"):
        ElementTree.parse(path)


def test_wide_things_scroll_inside_themselves_on_a_phone(reported: Path) -> None:
    page = Page(reported / "report.html")
    assert "width=device-width" in page.all("content")[0] + page.all("content")[1]
    inside = re.findall(r'<div class="scroll"[^>]*>\s*<(img|table)', (reported / "report.html").read_text())
    assert sorted(inside) == ["img"] * len(FIGURES) + ["table"] * len(TABLES)
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", (reported / "report.html").read_text())


def test_the_same_runs_give_the_same_page_and_the_same_files_of_every_kind(
    tmp_path: Path, every_kind: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "KINDS", every_kind)
    bare = synthetic_run.write_run(tmp_path / "bare", FEW, only=["overlap"])
    report([bare])
    first = snapshot(bare)
    assert {name.partition(".")[2] for name in first if "overlap-mt" in name} == {"svg", "png", "pdf", "csv"}
    report([bare])
    assert snapshot(bare) == first
