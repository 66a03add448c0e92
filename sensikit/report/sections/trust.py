"""Can the sensitivities be trusted? Enough batches, and a Taylor estimate that agrees with exact ablation."""

from __future__ import annotations

from collections.abc import Iterator

from sensikit.figures import audit, convergence
from sensikit.figures.style import of_run, runs
from sensikit.report.inputs import Material
from sensikit.report.sections.base import Exhibit, by_task, named
from sensikit.statistics.convergence import answer

CONVERGENCE, AUDIT, AUDIT_SUMMARY = "convergence.csv", "audit.csv", "audit-summary.csv"


def exhibits(material: Material) -> Iterator[Exhibit]:
    """Yield how S settles with the number of batches, and the audit of its Taylor estimate."""
    for task, frame in by_task(material, CONVERGENCE):
        content = (convergence.convergence_curves(frame, material.languages, task=task), frame)
        found = [f"{label}: {answer(of_run(frame, label), task)}".removeprefix(": ") for label in runs(frame)]
        caption = " ".join([convergence.caption(frame, material.languages), *found])
        title = named("Convergence with the number of batches", task)
        yield Exhibit(f"convergence-{task}", title, caption, CONVERGENCE, content, task)
    summaries = dict(by_task(material, AUDIT_SUMMARY))
    for task, points in by_task(material, AUDIT):
        if task not in summaries:
            continue
        summary = summaries[task]
        content = (audit.audit_scatter(points, summary, material.languages, task=task), points)
        title = named("Taylor estimate against exact ablation", task)
        yield Exhibit(f"audit-{task}", title, audit.caption(points, summary, task=task), AUDIT_SUMMARY, content, task)
