"""A report of run and evaluation directories: figures, tables, and one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from sensikit import figures
from sensikit.errors import OptionError, printable
from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.scoring import EVALUATION
from sensikit.figures.hover import spots
from sensikit.figures.words import RESULT, joined
from sensikit.files import safe_name, write_text
from sensikit.folder import Folder
from sensikit.progress import progress
from sensikit.report import text as summary
from sensikit.report.inputs import TABLES, Inputs, Subject, gather
from sensikit.report.missing import missing, prune_command
from sensikit.report.sections import MANIFEST, SECTIONS, Entry
from sensikit.report.tables import headline
from sensikit.settings import ReportSettings
from sensikit.tables import Table
from sensikit.version import __version__


def report(
    paths: Folder | str | Path | Sequence[Folder | str | Path],
    out: str | Path | None = None,
    *,
    labels: Sequence[str] = (),
    groups: Sequence[str] = (),
    settings: ReportSettings | None = None,
    command: str = "",
) -> Path:
    """Write figures/, tables/ and report.html of some runs and evaluations, and return the path of the page.

    An older report in the same place is replaced, each file in one step: all of it can be made again.

    >>> page = sensikit.report([scores], folder / "report", labels=["test sets"])
    >>> sorted(path.name for path in page.parent.iterdir())
    ['figures', 'report.html', 'tables']

    Args:
        paths: a run or an evaluation, or several, each opened or as its directory; runs are shown side by side.
        out: where to write; by default the one directory that is given.
        labels: what to call them; by default the names of their directories.
        groups: "ID=a,b,c" for each recipe: which runs, by their labels, are training seeds of it.
        settings: what is shown.
        command: the command line, shown at the end of the page.

    Raises:
        RunError: if one is damaged, or neither a run nor an evaluation.
        OptionError: if several have no `out`, a label is missing, or a group is not of such runs.
        SensikitError: if `out` cannot be written.
    """
    several = [paths] if isinstance(paths, Folder | str | Path) else paths
    given = [each.path if isinstance(each, Folder) else Path(each) for each in several]
    if not given:
        raise OptionError("PATH", "there is none", "give what sensikit analyze or evaluate wrote")
    if out is None and len(given) > 1:
        raise OptionError("--out", "several directories share no place", "say where the report goes")
    place = Path(out) if out is not None else given[0]
    if place.exists() and not place.is_dir():
        raise OptionError(f"--out {place}", "is not a directory", "choose another place")
    inputs = replace(gather(given, labels, compare=True, groups=groups), settings=settings or ReportSettings())
    sections = []
    with progress(len(SECTIONS), "report", "sections") as bar:
        for title, make in SECTIONS:
            shown = [_written(entry, place, inputs) for entry in make(inputs)]
            sections += [{"title": title, "entries": shown}] if shown else []
            bar.advance()
    page = place / "report.html"
    write_text(page, render(inputs, sections, command))
    return page


def render(inputs: Inputs, sections: Sequence[Mapping[str, Any]], command: str = "") -> str:
    """Return the page. Every name, path and command in it is untrusted text, and escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    own = importlib.resources.files("sensikit.report")
    # the hash is in the page's content security policy, which lets no other script run
    template, script = (own.joinpath(name).read_text(encoding="utf-8") for name in ("report.html.j2", "report.js"))
    return environment.from_string(template).render(
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        title=joined(inputs.labels),
        results=[(what, said, _cells(table) if table else None) for what, said, table in summary.results(inputs)],
        measured=summary.measured(inputs),
        subjects=inputs.subjects,
        evaluations=inputs.evaluations,
        headline=_cells(headline(inputs.tables, inputs.recipes))
        if len(inputs.subjects) > 1 and inputs.tables
        else None,
        recipes=inputs.recipes,
        differences=summary.differences(inputs),
        missing=missing(inputs),
        sections=sections,
        command=command,
        version=__version__,
    )


def _written(entry: Entry, place: Path, inputs: Inputs) -> dict[str, Any]:
    """Write the files of one entry and return what the page shows of it."""
    content, made = entry.content, _made(inputs, entry)
    notes = [f"{labels}: {line}" if labels else line for labels, line in made]
    shown: dict[str, Any]
    if isinstance(content, Table):
        stem = _stem(place, "tables", entry)
        paths = content.save(stem, [f"{entry.title}. {entry.caption}", *notes])
        shown = {"kind": "table", "caption": entry.caption, **_cells(content)}
    else:
        stem = _stem(place, "figures", entry)
        paths = figures.save(content, stem, title=entry.title, note="\n".join(notes))
        caption, _, result = content.caption.partition(f" {RESULT}")
        shown = {"kind": "figure", "caption": caption, "result": result, "image": _inline(paths[0], "image/svg+xml")}
        shown["inches"] = content.figure.get_figwidth()
        found = spots(content.figure)
        shown["spots"] = json.dumps(found, ensure_ascii=False, separators=(",", ":")) if found else ""
    csv = next(path for path in paths if path.suffix == ".csv")
    files = f"{stem.relative_to(place).as_posix()}.{{{','.join(path.suffix[1:] for path in paths)}}}"
    return {
        "stem": safe_name(entry.stem),
        "title": entry.title,
        "made": made,
        "files": files,
        **shown,
        "csv": _inline(csv, "text/csv"),
    }


def _stem(place: Path, folder: str, entry: Entry) -> Path:
    """Return where the files of an entry go, without their endings: below `place`, whatever it is called."""
    if (place / folder).resolve() != place.resolve() / folder:
        raise OptionError(f"--out {place}", f"its {folder} is a link to another place", "choose another place")
    return place / folder / safe_name(entry.stem)


def _cells(table: Table) -> dict[str, Any]:
    shown = table.shown()
    return {"head": list(shown), "numeric": table.numeric(), "rows": shown.to_numpy().tolist()}


def _made(inputs: Inputs, entry: Entry) -> list[tuple[str, str]]:
    """Return the signatures and commands behind an entry, each with the labels of the directories it is of."""
    if entry.evaluation is not None:
        noted, scores = entry.evaluation.manifest, _scored(entry.evaluation.tables[EVALUATION.name])
        return [("", line) for line in (noted["signature"], *scores, noted["command"]) if line]
    lines: dict[str, list[str]] = {}
    for subject in inputs.subjects:
        for line in _origin(subject, entry):
            lines.setdefault(line, []).append(subject.label)
    alone = len(inputs.subjects) == 1
    return [("" if alone else joined(labels), line) for line, labels in lines.items()]


def _scored(frame: pd.DataFrame) -> list[str]:
    """Return the signature of each metric of a table, behind the name of the metric."""
    rows = frame[["metric", "metric_signature"]].drop_duplicates().itertuples(index=False)
    return [printable(f"{METRICS[metric].label}|{signature}") for metric, signature in rows]


def _origin(subject: Subject, entry: Entry) -> list[str]:
    """Return the signatures and commands of a run behind an entry."""
    analyses = [of for task, of in subject.manifest["analyses"].items() if entry.task in ("", task)]
    commands = list(dict.fromkeys(analysis["command"] for analysis in analyses if analysis["command"]))
    if entry.source == MANIFEST:
        return [f"data sha256 {subject.manifest['provenance']['data_sha256']}", *commands]
    if entry.source not in subject.tables:
        return []
    verb = TABLES[entry.source].verb
    if verb in ("analyze", "denoise"):
        return [*(analysis["signature"] for analysis in analyses), *commands]
    frame = subject.tables[entry.source]
    frame = frame[frame["task"] == entry.task] if "task" in frame else frame
    signatures = [*map(printable, frame["signature"].dropna().unique()), *(_scored(frame) if "metric" in frame else ())]
    if verb == "audit":
        noted = [printable(each) for each in frame["command"].dropna().unique()] if "command" in frame else []
        return [*signatures, *(noted or [shlex.join(["sensikit", "audit", subject.path])])]
    return [*signatures, *(subject.prunings or (prune_command(subject),))]


def _inline(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
