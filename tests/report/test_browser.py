"""The page of a report in a real browser, at the width of a desktop and of a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.page import Page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, to lay the page out")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip
LOOK = """
const page = document.querySelector('iframe').contentDocument, root = page.documentElement;
const wide = [...page.querySelectorAll('body *')].filter(it => it.getBoundingClientRect().right > root.clientWidth + 1
    && !it.closest('.scroll') && !it.closest('nav'));
document.title = JSON.stringify({content: root.scrollWidth, window: root.clientWidth, images: page.images.length,
    broken: [...page.images].filter(it => !it.complete || !it.naturalWidth).map(it => it.alt),
    wide: wide.map(it => it.tagName)});
"""


def opened(path: Path, profile: Path, more: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return the document that Chromium makes of a page, and what it logs to its console: errors, refused contents."""
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", *more, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def laid_out(html: str, place: Path, width: int, script: str = LOOK) -> dict[str, Any]:
    """Return how a page is laid out in a frame of `width`, where a script may look at it: its own ban is lifted."""
    inner = html.replace("http-equiv", "data-equiv").replace("&", "&amp;").replace('"', "&quot;")
    outer = place / "outer.html"
    look = script.replace('"', "&quot;")
    outer.write_text(f'<iframe width={width} height=800 frameborder=0 srcdoc="{inner}" onload="{look}"></iframe>')
    document, _ = opened(outer, place / "profile")
    (found,) = re.findall(r"<title>(.*?)</title>", document.split("<iframe")[0])
    result: dict[str, Any] = json.loads(found.replace("&quot;", '"').replace("&amp;", "&"))
    return result


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_laid_out_without_scrolling_sideways_or_a_broken_image(
    reported_pair: Path, tmp_path: Path, width: int
) -> None:
    page = reported_pair / "report.html"
    found = laid_out(page.read_text(), tmp_path, width)
    assert found["content"] == found["window"]
    assert width - 20 < found["window"] <= width  # less than the frame by its upright scroll bar
    assert found["images"] == sum(tag == "img" for tag, _ in Page(page).tags) > 5
    assert found["broken"] == []
    assert found["wide"] == []


def test_the_page_opens_from_disk_and_nothing_in_it_is_refused_or_fails(reported: Path, tmp_path: Path) -> None:
    document, console = opened(reported / "report.html", tmp_path)
    assert console == []
    assert 'id="provenance"' in document


USED = """
const page = document.querySelector('iframe').contentDocument;
const at = (head) => [...page.querySelectorAll('table')].find(it => it.tHead.textContent.startsWith(head));
const table = at('Language'), column = () => [...table.tBodies[0].rows].filter(it => !it.hidden)
    .map(it => it.cells[5].textContent);
const before = column();
table.tHead.rows[0].cells[5].click();
const up = column();
table.tHead.rows[0].cells[5].click();
const field = page.querySelector('nav input'), down = column();
field.value = 'cat, FU';
field.dispatchEvent(new Event('input'));
const image = page.querySelector('#figure-correlation-mt img'), box = image.getBoundingClientRect();
const spot = JSON.parse(image.dataset.spots)[1];
image.dispatchEvent(new PointerEvent('pointermove', {
    clientX: box.left + box.width * (spot[0] + spot[2] / 2) / 1000,
    clientY: box.top + box.height * (spot[1] + spot[3] / 2) / 1000}));
const tip = page.querySelector('.tip');
document.title = JSON.stringify({before, up, down, left: [...table.tBodies[0].rows].filter(it => !it.hidden)
    .map(it => it.cells[0].textContent), spot: spot[4], tip: tip.hidden ? '' : tip.textContent});
"""


def test_tables_are_sorted_and_filtered_and_figures_tell_their_numbers(reported: Path, tmp_path: Path) -> None:
    found = laid_out((reported / "report.html").read_text(), tmp_path, 1280, USED)
    assert sorted(found["before"]) == sorted(found["up"]) == sorted(found["down"])
    numbers = [float(cell.rstrip("%").replace("−", "-")) for cell in found["up"]]
    assert numbers == sorted(numbers)
    assert found["down"] == found["up"][::-1]
    assert sorted(found["left"]) == ["cat", "fur"]
    assert found["tip"] == found["spot"] != ""


def test_a_broken_image_and_something_wide_would_be_seen(tmp_path: Path) -> None:
    html = (
        '<!doctype html><body><img alt="gone" src="data:image/svg+xml;base64,PHN2Zz4="><div style="width:900px">x</div>'
    )
    found = laid_out(html, tmp_path, 390)
    assert found["broken"] == ["gone"]
    assert found["wide"] == ["DIV"]
    assert found["content"] > found["window"]


def test_a_script_that_fails_and_an_image_that_is_refused_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><script>nothing()</script>")
    assert any("nothing is not defined" in line for line in opened(page, tmp_path / "one")[1])
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    page.write_text(f"<!doctype html>{policy}<img src='data:image/png;base64,AAAA'>")
    assert any("Content Security Policy" in line for line in opened(page, tmp_path / "two")[1])
