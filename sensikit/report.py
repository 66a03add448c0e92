"""A report of one or more run directories: figures, tables, and one self-contained HTML page."""

from __future__ import annotations

import base64
import importlib.resources
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from sensikit import __version__, figures, summary
from sensikit.errors import OptionError
from sensikit.exhibits import EXHIBITS, MANIFEST, PRUNING, Exhibit
from sensikit.figures.style import joined
from sensikit.files import write_text
from sensikit.material import Material, Subject, gather, printable
from sensikit.progress import progress
from sensikit.tables import Table, headline


def report(
    runs: Sequence[str | Path], out: str | Path | None = None, *, labels: Sequence[str] = (), command: str = ""
) -> Path:
    """Write figures/, tables/ and report.html of some runs, and return the path of the page.

    An older report in the same place is replaced, each file in one step: all of it can be made again from the runs.

    Args:
        runs: run directories; several are shown side by side.
        out: where to write; by default the run itself, if there is one.
        labels: what to call the runs; by default the names of their directories.
        command: the command line, shown at the end of the page.

    Raises:
        RunError: if a run is damaged or no run at all.
        OptionError: if several runs have no `out`, or a label is missing.
        SensikitError: if `out` cannot be written.
    """
    paths = [Path(run) for run in runs]
    if not paths:
        raise OptionError("RUN", "there is none", "give what sensikit analyze wrote")
    if out is None and len(paths) > 1:
        raise OptionError("--out", "several runs share no directory", "say where the report goes")
    place = Path(out) if out is not None else paths[0]
    if place.exists() and not place.is_dir():
        raise OptionError(f"--out {place}", "is not a directory", "choose another place")
    material = gather(paths, labels)
    shown = []
    with progress(len(EXHIBITS), "report", "chapters") as bar:
        for make in EXHIBITS:
            shown += [_written(exhibit, place, material) for exhibit in make(material)]
            bar.advance()
    page = place / "report.html"
    write_text(page, render(material, shown, command))
    return page


def render(material: Material, shown: Sequence[dict[str, Any]], command: str = "") -> str:
    """Return the page. Every name, path and command in it is untrusted text, and escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = importlib.resources.files("sensikit").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=joined(subject.label for subject in material.subjects),
        subjects=[(subject, summary.sentences(subject)) for subject in material.subjects],
        headline=_cells(headline(material.tables)) if len(material.subjects) > 1 and material.tables else None,
        differences=summary.differences(material),
        missing=summary.missing(material),
        exhibits=shown,
        command=command,
        version=__version__,
    )


def _written(exhibit: Exhibit, place: Path, material: Material) -> dict[str, Any]:
    """Write the files of one exhibit and return what the page says of it."""
    made = _made(material, exhibit.source)
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


def _made(material: Material, source: str) -> list[tuple[str, str]]:
    """Return the signatures and commands behind a file of the runs, each with the labels of the runs it is of."""
    lines: dict[str, list[str]] = {}
    for subject in material.subjects:
        for line in _origin(subject, source):
            lines.setdefault(line, []).append(subject.label)
    alone = len(material.subjects) == 1
    return [("" if alone else joined(labels), line) for line, labels in lines.items()]


def _origin(subject: Subject, source: str) -> list[str]:
    manifest = subject.manifest
    if source == MANIFEST:
        return [f"data sha256 {manifest['provenance']['data_sha256']}", manifest["command"]]
    if source not in subject.tables:
        return []
    if source != PRUNING:
        return [manifest["signature"], manifest["command"]]
    frame = subject.tables[PRUNING]
    names = {"signature": "", "bleu_signature": "BLEU|", "chrf_signature": "chrF++|"}
    found = [(name, frame[column].dropna().unique()) for column, name in names.items() if column in frame]
    signatures = [printable(f"{name}{each}") for name, each_of in found for each in each_of]
    return [*signatures, f"sensikit prune {shlex.quote(subject.path)}"]


def _inline(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
