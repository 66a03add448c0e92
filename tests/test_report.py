from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from sensikit import material, summary, tables
from sensikit.errors import SensikitError
from sensikit.figures import curves
from sensikit.files import read_json, write_json, write_text
from sensikit.report import report
from tests import synthetic_run
from tests.command import call

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


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with everything in it, reported into itself."""
    run = synthetic_run.write_run(tmp_path_factory.mktemp("alone") / "my run", FEW)
    report([run], command="sensikit report 'my run'")
    return run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two runs that differ in T."""
    root = tmp_path_factory.mktemp("pair")
    first = synthetic_run.write_run(root / "regular", FEW)
    second = synthetic_run.write_run(root / "distilled", FEW, seed=1, drop=0.1, tokens=3000)
    report([first, second], root / "out")
    return root / "out"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A run with the table of correlations alone: quick to report."""
    return synthetic_run.write_run(tmp_path / "bare", FEW, only=["correlation"])


# what a report holds


def test_one_run_is_reported_into_itself_and_loses_nothing(alone: Path) -> None:
    kinds = {"svg", "png", "pdf", "csv"}
    stems = {
        "correlation-mt",
        "pruning",
        "pruning-change",
        "pruning-by-language",
        "specificity-mt",
        "balance-mt",
        "languages",
    }
    assert {path.name for path in (alone / "figures").iterdir()} == {
        f"{stem}.{kind}" for stem in stems for kind in kinds
    }
    tables = {"correlation", "pruning", "quality", "quality-by-language", "specificity", "balance", "languages"}
    written = {f"{stem}.{kind}" for stem in tables for kind in ("csv", "txt", "tex")}
    assert {path.name for path in (alone / "tables").iterdir()} == written
    assert {path.name for path in alone.iterdir()} == {
        "manifest.json", "correlation.csv", "specificity.csv", "balance.csv", "pruning.csv", "report.html",
        "figures", "tables",
    }  # fmt: skip
    assert "Not in these runs" not in Page(alone / "report.html").text


def test_the_headline_numbers_are_those_of_the_tables(alone: Path) -> None:
    text = Page(alone / "report.html").text
    frame = pd.read_csv(alone / "correlation.csv")
    for group, words in (("high", "10% high-sensitive"), ("low", "90% low-sensitive")):
        at = frame[(frame["group"] == group) & (frame["language_a"] != frame["language_b"])]
        assert f"{words} parameters: {at['pcc'].mean():.3f} over 6 pairs" in text
        assert f"with a noise ceiling of {at['ceiling'].mean():.3f}" in text
    pruning = pd.read_csv(alone / "pruning.csv")
    start = pruning.loc[pruning["order"] == "none", "bleu"].mean()
    last = pruning.loc[(pruning["order"] == "specificity") & (pruning["ratio"] == 0.9), "bleu"].mean()
    assert f"Unpruned, BLEU is {start:.2f}, the mean over 4 languages; with 90% of the prunable" in text
    assert f"first, it is {last:.2f}." in text
    assert "1,000,000 parameters, 900,000 of them prunable, translating from 4 languages into English" in text
    assert "500 batches a language, of 4,084 target tokens" in text


def test_quality_is_averaged_by_tier_and_a_tier_without_languages_is_a_dash(alone: Path) -> None:
    table = pd.read_csv(alone / "tables" / "quality.csv", index_col="Score")
    assert table.loc["BLEU"].round(6).to_dict() == {"High": 19.45, "Low": 15.1, "Very Low": 12.4, "All": 16.6}
    found = material.gather([synthetic_run.write_run(alone.parent / "high", {"cat": FEW["cat"], "nob": FEW["nob"]})])
    shown = tables.quality_by_tier(found.tables["pruning.csv"], found.languages).shown()
    assert shown.iloc[0].tolist() == ["BLEU", "19.45", "–", "–", "19.45"]


def test_each_pair_of_languages_counts_once_and_none_with_itself(alone: Path) -> None:
    table = pd.read_csv(alone / "tables" / "correlation.csv", index_col="Group")
    assert (table["Pairs"] == 6).all()
    assert (table["Most"] < 1).all()


def test_beside_each_figure_stands_what_it_shows(alone: Path) -> None:
    shown = pd.read_csv(alone / "figures" / "pruning.csv")
    pd.testing.assert_frame_equal(
        shown[["order", "ratio", "value"]],
        curves.curve(pd.read_csv(alone / "pruning.csv"))[["order", "ratio", "value"]],
    )
    pcc = pd.read_csv(alone / "figures" / "correlation-mt.csv")
    assert len(pcc) == 3 * 4 * 4
    assert pcc["at_ceiling"].isna().sum() == 3 * 4  # a language with itself


def test_signature_and_command_stand_with_every_figure_and_table(alone: Path) -> None:
    manifest = read_json(alone / "manifest.json")
    prune = f"sensikit prune '{alone}'"
    for stem in ("correlation", "specificity", "balance"):
        for path in (
            alone / "tables" / f"{stem}.tex",
            alone / "tables" / f"{stem}.txt",
            alone / "figures" / f"{stem}-mt.svg",
        ):
            assert manifest["signature"] in path.read_text(), path
            assert manifest["command"] in path.read_text(), path
    for path in (alone / "tables" / "pruning.txt", alone / "tables" / "quality.tex", alone / "figures" / "pruning.svg"):
        assert all(sign in path.read_text() for sign in ("P|protect:0.1", "BLEU|nrefs:1", "chrF++|nrefs:1", prune)), (
            path
        )
    text = Page(alone / "report.html").text
    # correlation twice, specificity twice, balance twice, and the provenance
    assert text.count(manifest["signature"]) == 7
    assert text.count(prune) == 6


def test_the_numbers_in_the_page_are_those_on_disk(alone: Path) -> None:
    page = Page(alone / "report.html")
    found = [attributes for tag, attributes in page.tags if tag == "a" and "download" in attributes]
    assert len(found) == 14
    for attributes in found:
        inside = base64.b64decode(attributes["href"].removeprefix("data:text/csv;base64,"))
        places = [alone / folder / attributes["download"] for folder in ("figures", "tables")]
        assert inside in [place.read_bytes() for place in places if place.exists()]


# the page


def test_the_page_needs_nothing_but_itself(alone: Path, pair: Path) -> None:
    for path in (alone / "report.html", pair / "report.html"):
        page = Page(path)
        assert all(link.startswith(("data:", "#")) for name in ("src", "href") for link in page.all(name))
        assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "embed", "base")]
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        style = path.read_text().split("<style>")[1].split("</style>")[0]
        assert not re.search(r"url\(|@import|http", style)
        policy = [
            attributes for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy[0]["content"].startswith("default-src 'none';")


def test_images_are_the_vector_figures_and_say_what_they_show(alone: Path) -> None:
    page = Page(alone / "report.html")
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 7
    drawn = {path.read_bytes() for path in (alone / "figures").glob("*.svg")}
    assert {base64.b64decode(each["src"].removeprefix("data:image/svg+xml;base64,")) for each in images} == drawn
    assert all(len(each["alt"]) > 40 for each in images)


def test_every_link_of_the_contents_leads_somewhere(alone: Path) -> None:
    page = Page(alone / "report.html")
    places = page.all("id")
    assert len(set(places)) == len(places)
    links = [link[1:] for link in page.all("href") if link.startswith("#")]
    assert len(links) == 15
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
    assert not [tag for tag, _ in page.tags if tag in ("script", "b")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(source.startswith("data:") for source in page.all("src"))
    assert page.text.count(evil) > 4
    latex = (run / "tables" / "languages.tex").read_text()
    assert r"\textbackslash input\{/etc/passwd\}" in latex
    assert r"\input" not in latex


def test_control_signs_and_foreign_bytes_in_names_do_not_break_the_files(tmp_path: Path) -> None:
    languages = {"cat": {**FEW["cat"], "name": "Cat\x1b[31m\x00a\u00a0lan"}, "fao": FEW["fao"]}
    run = synthetic_run.write_run(tmp_path / "run", languages, only=["pruning"], command="a\x07b")
    write_text(
        run / "pruning.csv", (run / "pruning.csv").read_text().replace("magnitude", "mag\x01").replace("|beam", "\x02|")
    )
    moved = os.fsdecode(os.fsencode(tmp_path) + b"/r\xffn\n")
    run.rename(moved)
    page = report([moved])
    assert "Cat\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}a lan" in Page(page).text
    for path in (page.parent / "figures").glob("*.svg"):
        ElementTree.parse(path)


def test_wide_things_scroll_inside_themselves_on_a_phone(alone: Path) -> None:
    page = Page(alone / "report.html")
    assert "width=device-width" in page.all("content")[0] + page.all("content")[1]
    inside = re.findall(r'<div class="scroll"[^>]*>\s*<(img|table)', (alone / "report.html").read_text())
    assert sorted(inside) == ["img"] * 7 + ["table"] * 7
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", (alone / "report.html").read_text())


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium, to lay the page out")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_lays_the_page_out_without_scrolling_sideways(pair: Path, tmp_path: Path, width: int) -> None:
    # the page in a frame of that width, told apart from its own ban on scripts
    inner = (pair / "report.html").read_text().replace("http-equiv", "data-equiv")
    script = "const it = document.querySelector('iframe').contentDocument.documentElement; "
    script += "document.title = `${it.scrollWidth} ${it.clientWidth}`"
    outer = tmp_path / "outer.html"
    quoted = inner.replace("&", "&amp;").replace('"', "&quot;")
    outer.write_text(f'<iframe width={width} frameborder=0 srcdoc="{quoted}" onload="{script}"></iframe>')
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(["chromium", *flags, outer.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    (found,) = re.findall(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert found[0] == found[1]
    assert width - 20 < int(found[1]) <= width  # less than the frame by its upright scroll bar


def test_the_same_runs_give_the_same_page(bare: Path) -> None:
    first = report([bare]).read_bytes()
    assert report([bare]).read_bytes() == first


# what is missing, and what differs


def test_what_a_run_lacks_is_listed_with_its_command(bare: Path) -> None:
    page = report([bare])
    text = Page(page).text
    assert f"Pruning curves: sensikit prune {bare}" in text
    analyze = f"sensikit analyze synthetic/checkpoint_best.pt --data synthetic/data --out {bare} --resume"
    assert f"balance.csv: {analyze}" in text
    assert f"specificity.csv: {analyze}" in text
    assert not (bare / "figures" / "pruning.svg").exists()
    assert "BLEU" not in text


def test_a_path_with_a_space_is_quoted_in_a_command(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "my run", FEW, only=["correlation", "specificity", "balance"])
    (command,) = (each.command for each in summary.missing(material.gather([run])))
    assert command == f"sensikit prune '{run}'"


def test_orders_languages_and_points_that_were_not_decoded_are_listed(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW)
    frame = pd.read_csv(run / "pruning.csv")
    frame = frame[~frame["order"].isin(["reverse", "random"]) & (frame["language"] != "nob")]
    frame = frame[~((frame["language"] == "cat") & (frame["ratio"] == 0.9) & (frame["order"] == "specificity"))]
    write_text(run / "pruning.csv", frame.to_csv(index=False))
    found = {each.what: each.command for each in summary.missing(material.gather([run]))}
    resume = f"sensikit prune {run} --resume"
    assert found == {
        "Pruning curves in the orders reverse and random": f"sensikit prune {run} --order reverse,random --resume",
        "Pruning curves for nob": resume,
        "1 point of the pruning curves, left out because not every language was decoded there": resume,
    }


def test_runs_that_were_not_measured_alike_are_compared_under_a_warning(pair: Path, alone: Path) -> None:
    text = Page(pair / "report.html").text
    assert "These runs were not measured alike" in text
    assert "regular and distilled differ in tokens: 4096 and 3000." in text
    assert "not measured alike" not in Page(alone / "report.html").text


SIGNATURE = synthetic_run.SIGNATURE.format(tokens=4096)


@pytest.mark.parametrize(
    ("was", "now", "differs"),
    [("loss:nll/token", "loss:train/sum", True), ("rest:mixed/T1", "rest:pooled", True),
     ("mode:eval", "mode:train", True), ("dir:xxx-eng", "dir:eng-xxx", True),
     ("data:0ddba115", "data:00000000", True), ("tokens:4096", "tokens:100", True),
     ("seed:1", "seed:2", False), ("batches:500", "batches:50", False), ("ckpt:5e1fca5e", "ckpt:0", False)],
)  # fmt: skip
def test_only_differences_that_move_what_is_measured_are_told(
    tmp_path: Path, was: str, now: str, differs: bool
) -> None:
    assert was in SIGNATURE
    first = synthetic_run.write_run(tmp_path / "a", FEW, only=["correlation"])
    second = synthetic_run.write_run(tmp_path / "b", FEW, only=["correlation"], signature=SIGNATURE.replace(was, now))
    found = summary.differences(material.gather([first, second]))
    name, old, new = was.split(":")[0], was.split(":")[1], now.split(":")[1]
    assert found == ([f"a and b differ in {name}: {old} and {new}."] if differs else [])


def test_another_bleu_another_beam_and_other_languages_are_told(tmp_path: Path) -> None:
    first = synthetic_run.write_run(tmp_path / "a", FEW)
    second = synthetic_run.write_run(tmp_path / "b", {code: FEW[code] for code in ("cat", "fao", "fur")})
    text = (second / "pruning.csv").read_text().replace("tok:13a", "tok:flores101").replace("beam:5", "beam:1")
    write_text(second / "pruning.csv", text)
    assert summary.differences(material.gather([first, second])) == [
        "a and b differ in beam: 5 and 1.",
        "BLEU of a and b is not the same score: nrefs:1|tok:13a|v:2.6.0 and nrefs:1|tok:flores101|v:2.6.0.",
        "a and b are of different languages: nob in one alone.",
    ]


# traps


def test_a_run_of_which_nothing_was_pruned_yet_shows_its_quality_and_no_curve(tmp_path: Path) -> None:
    first = synthetic_run.write_run(tmp_path / "a", FEW, only=["pruning"])
    frame = pd.read_csv(first / "pruning.csv").query("order == 'none'")
    write_text(first / "pruning.csv", frame.to_csv(index=False))
    report([first])
    assert {path.stem for path in (first / "figures").iterdir()} == {"languages"}
    assert {path.stem for path in (first / "tables").iterdir()} == {"quality", "quality-by-language", "languages"}
    second = synthetic_run.write_run(tmp_path / "b", FEW, only=["pruning"])
    headline = tables.headline(material.gather([first, second]).tables).shown()
    assert headline.iloc[0].tolist() == ["a", "16.60", "–"]
    assert headline.iloc[1].tolist()[:2] == ["b", "16.60"]
    points = curves.curve(material.gather([first, second]).tables["pruning.csv"])
    assert points["run"].unique().tolist() == ["b"]
    assert points["value"].dtype == float


def test_the_language_nan_is_a_language(tmp_path: Path) -> None:
    # ISO 639-3 calls Min Nan Chinese nan, which pandas reads as a missing value
    languages = {"nan": {**FEW["fao"], "name": "Min Nan", "family": "Sinitic"}, "cat": FEW["cat"], "fur": FEW["fur"]}
    run = synthetic_run.write_run(tmp_path / "run", languages, only=["pruning"])
    report([run])
    assert set(pd.read_csv(run / "tables" / "quality-by-language.csv", keep_default_na=False)["Language"]) == set(
        languages
    )


def test_sets_that_were_pooled_and_have_no_batches_do_not_count(tmp_path: Path) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW, only=["correlation"])
    manifest = read_json(run / "manifest.json")
    manifest["sets"] = {name: entry for name, entry in manifest["sets"].items() if not name.startswith("mt/rest-")}
    manifest["sets"] |= {f"mt/rest-{code}": {"pooled": ["x"], "tokens_mean": 1.0, "files": {}} for code in FEW}
    del manifest["sets"]["mt/cat"]["batches"]
    write_json(run / "manifest.json", manifest)
    assert "over 500 batches a language, of 4,084 target tokens" in Page(report([run])).text


def test_a_run_of_both_tasks_has_a_figure_for_each(bare: Path) -> None:
    frame = pd.read_csv(bare / "correlation.csv")
    both = pd.concat([frame, frame.assign(task="denoise", pcc=frame["pcc"] / 2)])
    write_text(bare / "correlation.csv", both.to_csv(index=False))
    report([bare])
    shown = pd.read_csv(bare / "figures" / "correlation-denoise.csv")
    assert shown["pcc"].max() == 0.5
    assert pd.read_csv(bare / "tables" / "correlation.csv")["Task"].tolist() == ["mt"] * 3 + ["denoise"] * 3


# several runs


def test_runs_of_the_same_name_are_told_apart_by_their_parents(tmp_path: Path) -> None:
    runs = [synthetic_run.write_run(tmp_path / name / "run", FEW, only=["correlation"]) for name in ("a", "b")]
    assert [subject.label for subject in material.gather(runs).subjects] == ["a/run", "b/run"]
    named = material.gather(runs, ["one", "two"])
    assert named.tables["correlation.csv"]["run"].unique().tolist() == ["one", "two"]


def test_the_headline_table_holds_both_runs(pair: Path) -> None:
    text = Page(pair / "report.html").text
    for label in ("regular", "distilled"):
        frame = pd.read_csv(pair.parent / label / "correlation.csv").query(
            "group == 'low' and language_a != language_b"
        )
        assert re.search(
            rf"{label} ?0\.\d+ ?0\.\d+ ?{frame['pcc'].mean():.3f}", text.replace("BLEU, 90% pruned", "")
        ), label


def test_one_run_may_lack_what_the_other_has(tmp_path: Path) -> None:
    first = synthetic_run.write_run(tmp_path / "a", FEW, only=["correlation", "pruning"])
    second = synthetic_run.write_run(tmp_path / "b", FEW, only=["correlation"])
    text = Page(report([first, second], tmp_path / "out")).text
    assert f"Pruning curves of b: sensikit prune {second}" in text
    assert pd.read_csv(tmp_path / "out" / "figures" / "pruning.csv")["run"].unique().tolist() == ["a"]


# bad input


def edited(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        frame = pd.read_csv(run / name, dtype=object)
        write_text(run / name, change(frame).to_csv(index=False))

    return edit


def cell(line: int, column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[line - 2, column] = value
        return frame

    return change


def manifest_of(**changes: Any) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        manifest = {**read_json(run / "manifest.json"), **changes}
        write_json(run / "manifest.json", {key: value for key, value in manifest.items() if value is not None})

    return edit


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame.iloc[:5], frame.iloc[:1], frame.iloc[5:]])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda run: (run / "manifest.json").unlink(), "is not a run directory"),
    "another format": (manifest_of(format=2), "manifest.json: is not of format 1"),
    "no signature": (manifest_of(signature=None), "manifest.json: lacks signature"),
    "no languages": (manifest_of(languages={}), "manifest.json: has no language"),
    "a language without a family": (manifest_of(languages={"cat": {"name": "C"}}), "tier or sizes of cat"),
    "a size in words": (
        manifest_of(languages={"cat": {**FEW["cat"], "sizes": {"train": "many"}}}), "tier or sizes of cat"
    ),
    "a set without tokens": (manifest_of(sets={"mt/cat": {"batches": 3}}), "manifest.json: lacks the tokens of mt/cat"),
    "no hash": (manifest_of(provenance={"framework": "fairseq"}), "lacks the provenance's checkpoint"),
    "not JSON": (lambda run: (run / "manifest.json").write_text("{"), "manifest.json: is not valid JSON"),
    "a missing column": (
        edited("correlation.csv", lambda frame: frame.drop(columns="ceiling")),
        "correlation.csv: lacks the column ceiling",
    ),
    "a column that is only in the key": (
        edited("pruning.csv", lambda frame: frame.drop(columns="seed")), "pruning.csv: lacks the column seed"
    ),
    "an empty file": (lambda run: (run / "balance.csv").write_bytes(b""), "balance.csv: is not a table"),
    "no rows": (edited("balance.csv", lambda frame: frame.iloc[:0]), "balance.csv: has no rows"),
    "a directory": (
        lambda run: ((run / "balance.csv").unlink(), (run / "balance.csv").mkdir()), "balance.csv: does not exist"
    ),
    "bytes that are no text": (
        lambda run: (run / "balance.csv").write_bytes(b"task\n\xff\xfe\n"), "balance.csv: is not a table"
    ),
    "one cell too many": (
        lambda run: (run / "balance.csv").write_text("task,language,statistic,value\nmt,cat,mean,1\nmt,cat,std,1,2\n"),
        "balance.csv: is not a table",
    ),
    "a word for a number": (edited("pruning.csv", cell(7, "bleu", "many")), "pruning.csv:7: has many for bleu"),
    "an infinite number": (edited("correlation.csv", cell(4, "pcc", "inf")), "correlation.csv:4: has inf for pcc"),
    "a number that is not there": (
        edited("pruning.csv", cell(3, "ratio", None)), "pruning.csv:3: has nothing for ratio"
    ),
    "a language that is not there": (
        edited("pruning.csv", cell(3, "language", None)), "pruning.csv:3: has nothing for language"
    ),
    "a language of another run": (
        edited("specificity.csv", cell(3, "language", "zul")), "specificity.csv: names zul, which is no language"
    ),
    "a row twice": (edited("correlation.csv", repeated), "correlation.csv:7: says again"),
    "a statistic that is not there": (
        edited("specificity.csv", lambda frame: frame[(frame["statistic"] != "q75") | (frame["language"] != "fao")]),
        "specificity.csv: lacks the statistic q75 of fao",
    ),
    "no unpruned score": (
        edited("pruning.csv", lambda frame: frame[(frame["order"] != "none") | (frame["language"] != "fur")]),
        "pruning.csv: lacks the unpruned score of fur",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused_in_one_line_and_the_earlier_report_stays(tmp_path: Path, damage: str) -> None:
    run = synthetic_run.write_run(tmp_path / "run", FEW)
    write_text(run / "report.html", "an earlier report")
    harm, said = DAMAGE[damage]
    harm(run)
    done = call("report", run)
    assert done.code == 2
    assert said in done.error
    assert len(done.error.splitlines()) == 1
    assert (run / "report.html").read_text() == "an earlier report"
    assert not (run / "figures").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere"], "nowhere: is not a run directory"), (["a", "b"], "--out: several runs share no directory"),
     (["a", "a", "--out", "out"], "a: is given twice"), (["a", "../here/a/", "--out", "out"], "a: is given twice"),
     (["a", "--label", "x", "--label", "y"], "--label: there are 2 for 1 runs"),
     (["a", "--out", "file"], "--out file: is not a directory"),
     (["a", "b", "--out", "out", "--label", "x", "--label", "x"], "--label: two runs would have the same name")],
)  # fmt: skip
def test_bad_arguments_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    here = tmp_path / "here"
    for name in ("a", "b"):
        synthetic_run.write_run(here / name, FEW, only=["correlation"])
    (here / "file").write_text("mine")
    monkeypatch.chdir(here)
    before = sorted(path.relative_to(here) for path in here.rglob("*"))
    done = call("report", *arguments)
    assert done.code == 2
    assert said in done.error
    assert len(done.error.splitlines()) == 1
    assert sorted(path.relative_to(here) for path in here.rglob("*")) == before


def test_no_run_at_all_is_refused() -> None:
    with pytest.raises(SensikitError, match="RUN: there is none"):
        report([])


def test_the_command_writes_the_page_and_says_where(bare: Path) -> None:
    write_text(bare / "report.html", "an earlier report")
    done = call("report", bare, "--label", "A model")
    assert done.code == 0, done.error
    assert done.output == f"{bare / 'report.html'}\n"
    text = Page(bare / "report.html").text
    assert text.startswith("A model – sensikit report")
    assert f"sensikit report {bare} --label 'A model'" in text


def test_tables_are_written_for_text_and_latex_with_numbers_flush_right(alone: Path) -> None:
    latex = (alone / "tables" / "quality.tex").read_text()
    assert r"\begin{tabular}{lrrrr}" in latex
    assert r"BLEU & 19.45 & 15.10 & 12.40 & 16.60 \\" in latex
    text = (alone / "tables" / "quality.txt").read_text()
    assert text.splitlines()[1].split() == ["BLEU", "19.45", "15.10", "12.40", "16.60"]
    frame = pd.read_csv(io.StringIO((alone / "tables" / "pruning.csv").read_text()))
    assert list(frame) == ["Order", "0%", "10%", "30%", "50%", "70%", "90%"]
