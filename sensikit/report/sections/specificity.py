"""Which parameters belong to one language, and where in the model are they?"""

from __future__ import annotations

from collections.abc import Iterator

from sensikit.figures import components, distributions, overlap
from sensikit.report import tables
from sensikit.report.inputs import Material
from sensikit.report.sections.base import Exhibit, by_task, named

SOURCE, COMPONENTS, CORRELATION, OVERLAP = (
    "specificity.csv", "components.csv", "components-correlation.csv", "overlap.csv",
)  # fmt: skip


def exhibits(material: Material) -> Iterator[Exhibit]:
    """Yield how D(θ,l) is spread over the parameters, where in the model it lives, and who shares its top."""
    yield from _spread(material)
    yield from _components(material)
    yield from _overlap(material)


def _spread(material: Material) -> Iterator[Exhibit]:
    known = material.languages
    for task, frame in by_task(material, SOURCE):
        content = (distributions.specificity(frame, known, task=task), distributions.wide(frame, task))
        title = named("Language specificity of the parameters", task)
        caption = distributions.specificity_caption(frame, task=task)
        yield Exhibit(f"specificity-{task}", title, caption, SOURCE, content, task)
    if SOURCE in material.tables:
        caption = (
            "Quantiles of D over the parameters; the share with D > 0; with D = 0, which no order can tell apart; and "
            "with S_-l below 10σ, where σ rather than the other languages decides D."
        )
        table = tables.specificity(material.tables[SOURCE], known)
        yield Exhibit("specificity", "Language specificity in numbers", caption, SOURCE, table)


def _components(material: Material) -> Iterator[Exhibit]:
    for task, frame in by_task(material, COMPONENTS):
        content = (components.component_heatmaps(frame, task=task), components.by_layer(frame))
        title = named("Where sensitivity and specificity live", task)
        yield Exhibit(f"components-{task}", title, components.caption(), COMPONENTS, content, task)
        figure = components.specificity_by_component(frame, material.languages, task=task)
        caption = (
            "Median of D(θ,l) over the parameters of each part of the model, all layers together: above 0, the typical "
            "parameter matters more to the language than to the others together."
        )
        content = (figure, components.whole(frame))
        title = named("Specificity of each language by component", task)
        yield Exhibit(f"components-languages-{task}", title, caption, COMPONENTS, content, task)
    for task, frame in by_task(material, CORRELATION):
        figure = components.component_correlation(frame, task=task)
        caption = (
            "PCC between the sensitivities of two languages within each part of the model, all layers together: the "
            "mark is the mean over the pairs of languages, the line reaches from the least to the most."
        )
        content = (figure, components.whole(frame))
        title = named("Correlation within components", task)
        yield Exhibit(f"components-correlation-{task}", title, caption, CORRELATION, content, task)


def _overlap(material: Material) -> Iterator[Exhibit]:
    for task, frame in by_task(material, OVERLAP):
        content = (overlap.overlap_heatmaps(frame, material.languages, task=task), frame)
        title = named("Overlap of the most specific parameters", task)
        yield Exhibit(f"overlap-{task}", title, overlap.caption(frame, task=task), OVERLAP, content, task)
