"""How evenly is sensitivity spread over the parameters (Figure 10)?"""

from __future__ import annotations

from collections.abc import Iterator

from sensikit.figures import distributions, violins
from sensikit.report import tables
from sensikit.report.inputs import Material
from sensikit.report.sections.base import Exhibit, by_task, named

SOURCE, DISTRIBUTION = "balance.csv", "distribution.csv"


def exhibits(material: Material) -> Iterator[Exhibit]:
    """Yield violins of S with its standard deviation, its quantiles with what the top 10% hold, and the numbers."""
    known, shapes = material.languages, dict(by_task(material, DISTRIBUTION))
    for task, frame in by_task(material, SOURCE):
        if task in shapes:
            content = (violins.sensitivity_violins(shapes[task], frame, known, task=task), shapes[task])
            title = named("Distribution of sensitivity", task)
            caption = violins.caption(frame, task=task)
            yield Exhibit(f"distribution-{task}", title, caption, DISTRIBUTION, content, task)
        data = distributions.relative(distributions.wide(frame, task))
        content = (distributions.balance(frame, known, task=task), data)
        title = named("Balance of sensitivity", task)
        caption = distributions.balance_caption(frame, task=task)
        yield Exhibit(f"balance-{task}", title, caption, SOURCE, content, task)
    if SOURCE in material.tables:
        caption = "S(θ,B_l) over the parameters; a smaller deviation and share of the top 10% mean a more even spread."
        table = tables.balance(material.tables[SOURCE], known)
        yield Exhibit("balance", "Balance in numbers", caption, SOURCE, table)
