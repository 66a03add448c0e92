"""A report of run and evaluation directories: figures, tables, and one self-contained HTML page."""

from __future__ import annotations

import base64
import importlib.resources
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from sensikit import figures
from sensikit.errors import OptionError
from sensikit.figures.style import joined
from sensikit.files import write_text
from sensikit.progress import progress
from sensikit.report import text as summary
from sensikit.report.inputs import TABLES, Evaluated, Material, Subject, gather
from sensikit.report.missing import missing, prune_command
from sensikit.report.sections import CHAPTERS, MANIFEST, Exhibit
from sensikit.report.tables import headline
from sensikit.tables import Table, printable
from sensikit.version import __version__


def report(
    paths: Sequence[str | Path], out: str | Path | None = None, *, labels: Sequence[str] = (), command: str = ""
) -> Path:
    """Write figures/, tables/ and report.html of some runs and evaluations, and return the path of the page.

    An older report in the same place is replaced, each file in one step: all of it can be made again.

    Args:
        paths: run directories and evaluation directories; several runs are shown side by side.
        out: where to write; by default the one directory that is given.
        labels: what to call them; by default the names of their directories.
        command: the command line, shown at the end of the page.

    Raises:
        RunError: if one is damaged, or neither a run nor an evaluation.
        OptionError: if several have no `out`, or a label is missing.
        SensikitError: if `out` cannot be written.
    """
    given = [Path(path) for path in paths]
    if not given:
        raise OptionError("PATH", "there is none", "give what sensikit analyze or evaluate wrote")
    if out is None and len(given) > 1:
        raise OptionError("--out", "several directories share no place", "say where the report goes")
    place = Path(out) if out is not None else given[0]
    if place.exists() and not place.is_dir():
        raise OptionError(f"--out {place}", "is not a directory", "choose another place")
    material = gather(given, labels, compare=True)
    chapters = []
    with progress(len(CHAPTERS), "report", "chapters") as bar:
        for title, make in CHAPTERS:
            shown = [_written(exhibit, place, material) for exhibit in make(material)]
            chapters += [{"title": title, "exhibits": shown}] if shown else []
            bar.advance()
    page = place / "report.html"
    write_text(page, render(material, chapters, command))
    return page


def render(material: Material, chapters: Sequence[Mapping[str, Any]], command: str = "") -> str:
    """Return the page. Every name, path and command in it is untrusted text, and escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = importlib.resources.files("sensikit.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=joined(material.labels),
        subjects=[(subject, summary.sentences(subject)) for subject in material.subjects],
        evaluations=material.evaluations,
        headline=_cells(headline(material.tables)) if len(material.subjects) > 1 and material.tables else None,
        changes=summary.changes(material),
        differences=summary.differences(material),
        missing=missing(material),
        chapters=chapters,
        command=command,
        version=__version__,
    )


def _written(exhibit: Exhibit, place: Path, material: Material) -> dict[str, Any]:
    """Write the files of one exhibit and return what the page says of it."""
    made = _made(material, exhibit)
    entry: dict[str, Any] = {"stem": exhibit.stem, "title": exhibit.title, "caption": exhibit.caption, "made": made}
    notes = [f"{labels}: {line}" if labels else line for labels, line in made]
    if isinstance(exhibit.content, Table):
        stem = place / "tables" / exhibit.stem
        paths = exhibit.content.save(stem, [f"{exhibit.title}. {exhibit.caption}", *notes])
        entry |= {"kind": "table", **_cells(exhibit.content)}
    else:
        stem = place / "figures" / exhibit.stem
        figure, data = exhibit.content
        paths = figures.save(figure, stem, title=exhibit.title, note="\n".join(notes))
        entry |= {"kind": "figure", "image": _inline(paths[0], "image/svg+xml"), "inches": figure.get_figwidth()}
        paths.append(stem.with_name(f"{exhibit.stem}.csv"))
        write_text(paths[-1], data.to_csv(index=False))
    csv = next(path for path in paths if path.suffix == ".csv")
    files = f"{stem.relative_to(place).as_posix()}.{{{','.join(path.suffix[1:] for path in paths)}}}"
    return entry | {"files": files, "csv": _inline(csv, "text/csv")}


def _cells(table: Table) -> dict[str, Any]:
    shown = table.shown()
    return {"head": list(shown), "numeric": table.numeric(), "rows": shown.to_numpy().tolist()}


def _made(material: Material, exhibit: Exhibit) -> list[tuple[str, str]]:
    """Return the signatures and commands behind an exhibit, each with the labels of the directories it is of."""
    if exhibit.evaluation is not None:
        return [("", line) for line in _evaluated(exhibit.evaluation) if line]
    lines: dict[str, list[str]] = {}
    for subject in material.subjects:
        for line in _origin(subject, exhibit):
            lines.setdefault(line, []).append(subject.label)
    alone = len(material.subjects) == 1
    return [("" if alone else joined(labels), line) for line, labels in lines.items()]


def _evaluated(evaluation: Evaluated) -> list[str]:
    scores = evaluation.tables["evaluation.csv"].drop_duplicates("metric")
    names = {"bleu": "BLEU", "chrf": "chrF++"}
    signatures = [f"{names.get(row['metric'], row['metric'])}|{row['signature']}" for _, row in scores.iterrows()]
    return [evaluation.manifest["signature"], *signatures, evaluation.manifest["command"]]


def _origin(subject: Subject, exhibit: Exhibit) -> list[str]:
    """Return the signatures and commands of a run behind an exhibit."""
    analyses = [of for task, of in subject.manifest["analyses"].items() if exhibit.task in ("", task)]
    commands = list(dict.fromkeys(analysis["command"] for analysis in analyses if analysis["command"]))
    if exhibit.source == MANIFEST:
        return [f"data sha256 {subject.manifest['provenance']['data_sha256']}", *commands]
    if exhibit.source not in subject.tables:
        return []
    verb = TABLES[exhibit.source].verb
    if verb in ("analyze", "denoise"):
        return [*(analysis["signature"] for analysis in analyses), *commands]
    frame = subject.tables[exhibit.source]
    frame = frame[frame["task"] == exhibit.task] if "task" in frame else frame
    names = {"signature": "", "bleu_signature": "BLEU|", "chrf_signature": "chrF++|"}
    found = [(name, frame[column].dropna().unique()) for column, name in names.items() if column in frame]
    signatures = [printable(f"{name}{each}") for name, each_of in found for each in each_of]
    if verb == "audit":
        noted = [printable(each) for each in frame["command"].dropna().unique()] if "command" in frame else []
        return [*signatures, *(noted or [shlex.join(["sensikit", "audit", subject.path])])]
    return [*signatures, *(subject.prunings or (prune_command(subject),))]


def _inline(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
