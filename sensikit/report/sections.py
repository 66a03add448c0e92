"""What a report shows: a function for each question that its inputs may answer, a few lines for each figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import pandas as pd

from sensikit import figures
from sensikit.evaluation import tables as quality_tables
from sensikit.evaluation.metrics import METRICS
from sensikit.evaluation.resampling import FEWEST, INDEPENDENT, LEVEL
from sensikit.evaluation.scoring import BY_TIER, SIGNIFICANCE
from sensikit.figures.curves import ORDERS, is_matched, line_of
from sensikit.figures.frames import averaged, examples_of, metrics_of, of_metric, units
from sensikit.figures.points import CHOSEN, HOW, MATCHED, RANDOM, near_0
from sensikit.figures.quality import by_ratio
from sensikit.figures.style import FULL, Drawn
from sensikit.figures.words import TASKS, arrow, joined, named, noted
from sensikit.pruning.ledger import CROSS, PRUNING, UNPRUNED
from sensikit.report import tables
from sensikit.report.inputs import Evaluated, Inputs, Subject
from sensikit.report.missing import orders_command
from sensikit.report.text import answers, judgements
from sensikit.sensitivity.ablation import AUDIT, SUMMARY
from sensikit.sensitivity.analysis import LAYOUT
from sensikit.statistics.components import COMPONENTS, WITHIN
from sensikit.statistics.convergence import CONVERGENCE
from sensikit.statistics.correlation import CORRELATION, SIMILARITY
from sensikit.statistics.specificity import OVERLAP, SPECIFICITY
from sensikit.statistics.spread import BALANCE, DISTRIBUTION
from sensikit.tables import Schema, Table

WIDE = 4.6  # inches of a single panel on a page, wider than the column it would have in print
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """A figure, which brings its caption, or a table of a report, with its title and the name of its own files.

    `source` is the file of the run directory, or of the `evaluation`, that it comes from; `task` is whose numbers it
    shows, where it is of one task.
    """

    stem: str
    title: str
    source: str
    content: Drawn | Table
    caption: str = ""
    task: str = ""
    evaluation: Evaluated | None = None


def quality(inputs: Inputs) -> Iterator[Entry]:
    """How well do the systems do (Tables 1 to 6, Figure 11)? Each evaluation; without any, the unpruned models."""
    directions = [each.manifest["direction"] for each in inputs.evaluations]
    for number, each in enumerate(inputs.evaluations, start=1):
        direction = each.manifest["direction"]
        alone, shown = directions.count(direction) == 1, arrow(direction)
        name, title = (direction, shown) if alone else (f"{direction}-{number}", f"{shown}, {each.label}")
        yield from _evaluation(each, name, title)
    frame = inputs.tables.get(PRUNING.name)
    if frame is not None and not inputs.evaluations:
        yield from _told(_unpruned(frame, inputs), frame, metrics_of(frame)[0])


def _unpruned(frame: pd.DataFrame, inputs: Inputs) -> Iterator[Entry]:
    caption = "Mean over the languages of each resource level, and over all languages; nothing pruned."
    table = tables.quality_by_tier(frame, inputs.groups)
    yield Entry("quality", "Quality by resource level", PRUNING.name, table, caption)
    caption = "Nothing pruned; the interval is a 95% bootstrap over the test sentences."
    table = tables.quality_by_group(frame, inputs.groups)
    yield Entry("quality-by-group", "Quality by language", PRUNING.name, table, caption)


def _told(entries: Iterable[Entry], frame: pd.DataFrame, metric: str) -> Iterator[Entry]:
    """Yield entries whose captions say it where the references of a sweep's translations are not raw text."""
    if not METRICS[metric].decodes or not frame["signature"].dropna().map(quality_tables.decoded).any():
        yield from entries
        return
    for each in entries:
        if isinstance(each.content, Drawn):
            drawn = each.content._replace(caption=noted(each.content.caption, quality_tables.DECODED))
            yield replace(each, content=drawn)
        else:
            yield replace(each, caption=f"{each.caption} {quality_tables.DECODED}")


def _evaluation(each: Evaluated, name: str, title: str) -> Iterator[Entry]:
    notes = " ".join(quality_tables.said(each.manifest, each.tables))
    for stem, (what, table) in quality_tables.tables(each.tables).items():
        yield Entry(f"{stem}-{name}", f"{what}, {title}", BY_TIER.name, table, notes, evaluation=each)
    systems = each.manifest["systems"]
    caption = (
        "What each system was trained on, in the notation of Table 4: L′ is the mean over the K passes of "
        "intra-distillation, and α weighs its divergence."
    )
    yield Entry(f"systems-{name}", f"Systems, {title}", MANIFEST, tables.systems(systems), caption, evaluation=each)
    if SIGNIFICANCE.name in each.tables:
        found, recipes = each.tables, each.manifest["recipes"]
        drawn = figures.quality_gains(found[SIGNIFICANCE.name], tiers=found[BY_TIER.name], recipes=recipes)
        what = f"What each system gains, {title}"
        yield Entry(f"gains-{name}", what, SIGNIFICANCE.name, drawn, evaluation=each)
    ratios = by_ratio(each.tables[BY_TIER.name], systems)
    for design, rows in ratios.groupby("design", sort=False):
        method = rows["method"].iloc[0]
        again = f"-{design}" if ratios.loc[ratios["method"] == method, "design"].nunique() > 1 else ""
        what = f"Effect of the masking ratio on {method or 'the system'}, {title}"
        stem = "-".join(part for part in ("masking", method, name) if part) + again
        yield Entry(stem, what, BY_TIER.name, figures.masking_ratio(rows, width=WIDE), evaluation=each)


def correlation(inputs: Inputs) -> Iterator[Entry]:
    """Do languages use the same parameters (Figures 2, 6, 7 and 8)? Heat maps, what a second run changed, a tree."""
    for task, frame in by_task(inputs, CORRELATION):
        yield from _heatmaps(inputs, frame, task)
    if CORRELATION.name in inputs.tables:
        caption = (
            "PCC corrected for the noise of finite batches, over the pairs of different languages, each pair once: "
            "mean, least and most, and of how many it may be 1: is not below it by the 95% interval. These batches: "
            "the mean PCC with their noise, and its ceiling, that of languages that differ in nothing but their "
            "batches. Spearman and the PCC of log S are of these batches too; where they order the subsets in another "
            "way, the PCC speaks of a few parameters. Half of variance: the fewest parameters that hold half of the "
            "variance of S, the median over languages."
        )
        table = tables.correlation(inputs.tables[CORRELATION.name])
        yield Entry("correlation", "Correlation by subset", CORRELATION.name, table, caption)
    compared = [
        each.table.assign(run=f"{second} − {first}", first=first, second=second)
        for each in inputs.comparisons
        if each.table is not None
        for first, second in [(each.first.label, each.second.label)]
    ]
    if compared:
        caption = (
            "Mean PCC over the pairs of languages, corrected for noise, in the second run minus that in the first, "
            "with a 95% interval over batches, and how many of the pairs moved down or up by more than theirs; one "
            "border between the subsets for all runs of one shape. In simulation such intervals hold the true "
            "difference in 94 to 98% of cases, with 40 and with 200 batches a language. {}Without one: the least and "
            "the largest mean change when one language is left out."
        )
        differences = pd.concat(compared, ignore_index=True)
        table, caption = tables.differences(differences), caption.format(_of_seeds(differences))
        yield Entry("difference", "What the second run changed", CORRELATION.name, table, caption)
    for task, frame in by_task(inputs, CORRELATION):
        drawn = figures.dendrogram(averaged(frame, CORRELATION.key), inputs.groups, value=inputs.settings.correlation)
        if len(drawn.data):
            title = of_the("Languages by their correlations", task)
            yield Entry(f"dendrogram-{task}", title, CORRELATION.name, drawn, task=task)
    if SIMILARITY.name in inputs.tables:
        drawn = figures.task_similarity(inputs.tables[SIMILARITY.name], inputs.groups)
        yield Entry("similarity", "Similarity of translation and denoising, by language", SIMILARITY.name, drawn)


def _of_seeds(tests: pd.DataFrame) -> str:
    """Return what differences say of other training seeds: between recipes much, of one run against one nothing."""
    text, counts = "", tests[["seeds_a", "seeds_b"]]
    if (counts > 1).any(axis=None):
        text += "Over training seeds the interval is of t over them (Welch); a single run is taken to vary as they do. "
    if (counts == 1).all(axis=1).any():
        text += "Of one run against one, it speaks of these two trained models: other training seeds give others. "
    return text


def _heatmaps(inputs: Inputs, frame: pd.DataFrame, task: str) -> Iterator[Entry]:
    """Yield the heat maps of one task: with two runs, the difference of the corrected PCC stands beside it.

    The PCC of these batches, which shows how reliable each language is, has heat maps of its own.
    """
    value = inputs.settings.correlation
    known = inputs.comparisons if value == "corrected" else ()
    compared = [each for each in known if each.task == task and each.table is not None]
    beside = compared[0].table if len(units(frame)) == 2 and compared else None
    title = of_the("Correlation of sensitivity between languages", task)
    drawn = figures.correlation_heatmaps(frame, inputs.groups, value=value, difference=beside)
    yield Entry(f"correlation-{task}", title, CORRELATION.name, drawn, task=task)
    for number, each in enumerate(compared, start=1) if beside is None else ():
        first, second = each.first.label, each.second.label
        pair = frame[frame["recipe" if "recipe" in frame else "run"].isin([first, second])]
        drawn = figures.correlation_heatmaps(pair, inputs.groups, difference=each.table)
        title = of_the(f"{second} minus {first}", task)
        yield Entry(f"correlation-{task}-difference-{number}", title, CORRELATION.name, drawn, task=task)
    if value != "pcc":
        drawn = figures.correlation_heatmaps(frame, inputs.groups, value="pcc")
        title = of_the("Correlation with the noise of these batches", task)
        yield Entry(f"correlation-{task}-observed", title, CORRELATION.name, drawn, task=task)


def specificity(inputs: Inputs) -> Iterator[Entry]:
    """Which parameters belong to one language, and where in the model are they? D, components, overlap of the tops."""
    groups = inputs.groups
    title = "Language specificity of the parameters"
    yield from _drawn(inputs, SPECIFICITY, "specificity", title, lambda frame: figures.specificity(frame, groups))
    if SPECIFICITY.name in inputs.tables:
        caption = (
            "Quantiles of D over the parameters; the share with D > 0; with D = 0, which no order can tell apart; and "
            "with S_-l below 10σ, where σ rather than the other languages decides D."
        )
        table = tables.specificity(inputs.tables[SPECIFICITY.name], groups)
        yield Entry("specificity", "Language specificity in numbers", SPECIFICITY.name, table, caption)
    of_means: tuple[tuple[Schema, str, str, Callable[[pd.DataFrame], Drawn]], ...] = (
        (COMPONENTS, "components", "Where sensitivity and specificity live", figures.component_heatmaps),
        (COMPONENTS, "components-by-group", "Specificity of each language by component",
         lambda means: figures.specificity_by_component(means, groups)),
        (WITHIN, "components-correlation", "Correlation within components", figures.component_correlation),
        (OVERLAP, "overlap", "Overlap of the most specific parameters",
         lambda means: figures.overlap_heatmaps(means, groups)),
    )  # fmt: skip
    for schema, stem, title, draw in of_means:
        yield from _drawn(inputs, schema, stem, title, draw, seeds=False)


def pruning(inputs: Inputs) -> Iterator[Entry]:
    """What happens when parameters are removed (Figures 3 and 9)? Curves, in numbers, tests, the cross matrix."""
    for frame, metric, suffix, of in _swept(inputs, PRUNING):
        yield from _told(_curves(inputs, frame, metric, suffix, of), frame, metric)
    for frame, metric, suffix, of in _swept(inputs, CROSS):
        if near_0(frame):
            continue  # a share of nothing
        yield from _told(_crossed(inputs, frame, metric, suffix, of), frame, metric)


def _crossed(inputs: Inputs, frame: pd.DataFrame, metric: str, suffix: str, of: str) -> Iterator[Entry]:
    for name in (name for name in dict.fromkeys(frame["order"]) if name != UNPRUNED):
        drawn = figures.cross_matrix(frame, inputs.groups, metric, name=name)
        title = f"Pruned for one language, evaluated on all: {line_of(name).name}{of}"
        yield Entry(f"pruning-cross-{name}{suffix}", title, CROSS.name, drawn)


def _swept(inputs: Inputs, schema: Schema) -> Iterator[tuple[pd.DataFrame, str, str, str]]:
    """Yield the rows of a sweep, by metric, with what is added to stems and titles of all metrics but the first.

    The first is BLEU where there is BLEU; chrF++ draws the same picture and has no figures of its own beside it.
    """
    frame = inputs.tables.get(schema.name)
    if frame is None or (frame["order"] == UNPRUNED).all():
        return
    first, *others = metrics_of(frame)
    yield of_metric(frame, first), first, "", ""
    for metric in (metric for metric in others if not METRICS[metric].higher):
        yield of_metric(frame, metric), metric, f"-{metric}", f", {named(metric)}"


def _curves(inputs: Inputs, frame: pd.DataFrame, metric: str, suffix: str, of: str) -> Iterator[Entry]:
    def entry(stem: str, title: str, content: Drawn | Table, caption: str = "") -> Entry:
        return Entry(f"{stem}{suffix}", f"{title}{of}", PRUNING.name, content, caption)

    caption = (
        f"{METRICS[metric].label}, mean over languages, at each share of the prunable parameters that is set to zero."
    )
    numbers = entry("pruning", "Pruning curves in numbers", tables.pruning(frame), caption)
    if near_0(frame):
        why = "It is near 0 before anything is pruned, so that nothing can be lost: no curves of it are drawn."
        yield replace(numbers, caption=f"{caption} {why}")
        return
    bands, tests = inputs.curves.bands, inputs.curves.tests
    tests = None if tests is None else of_metric(tests, metric)
    width = FULL if len(units(frame)) > 1 else WIDE
    matched = frame["order"].map(is_matched)
    if tests is not None and len(judgements(tests)):
        table = tables.verdicts(tests)
        yield entry("pruning-verdicts", "Does specificity matter?", table, _answered(inputs, tests))
    if matched.any():
        drawn = figures.pruning_curves(frame, bands=bands, tests=tests, matched=True, width=width)
        yield entry("pruning-matched", "At equal sensitivity, does specificity matter?", drawn)
    if not matched[frame["order"] != UNPRUNED].all():
        drawn = figures.pruning_curves(frame, bands=bands, tests=tests, width=width)
        yield entry("pruning", "Pruning curves", drawn)
    if (drawn.data["order"] == CHOSEN).any():
        drawn = figures.pruning_comparison(frame, bands=bands, tests=tests, width=WIDE)
        title = f"Change in {named(metric)}, least language-specific parameters first"
        yield Entry(f"pruning-change{suffix}", title, PRUNING.name, drawn)
    yield entry("pruning-by-group", "Pruning curves by language", figures.pruning_curves_by_group(frame, inputs.groups))
    yield numbers
    if METRICS[metric].lengths:
        caption = "Mean over languages of exp(1 - r/c) where translations, c, are shorter than their references, r."
        yield entry("brevity", "Brevity penalty by the share that is pruned", tables.brevity(frame), caption)
    if tests is not None and len(tests):
        fewest = int(tests["segments"].min())
        few = f"Under {FEWEST} test sentences (here {fewest}) no p is to be trusted. " if fewest < FEWEST else ""
        few += f"{INDEPENDENT} " if frame["signature"].str.contains("|seg:own|", regex=False).any() else ""
        caption = (
            f"Mean {named(metric)} of the second curve minus that of the first at each ratio, with a 95% interval over "
            "the test sentences, a sentence drawn at once in all languages, and the p of approximate randomisation, by "
            "itself and after Holm over all tests here; against random of several seeds both are of t, over seeds too. "
            f"{few}{_seeds(tests, inputs)}"
            "Between two runs, Change is the difference in what pruning has taken from each."
        )
        yield entry("pruning-tests", "Pruning curves against each other", tables.curve_tests(tests), caption)


def _seeds(tests: pd.DataFrame, inputs: Inputs) -> str:
    """Return over how many training seeds curves are compared, and of which nothing speaks of other seeds."""
    labels = set(tests["run_a"]) | set(tests["run_b"])
    several = [f"{name} ({len(those)})" for name, those in inputs.recipes.items() if name in labels]
    single = sorted(labels - set(inputs.recipes))
    if not several:
        return "One training run each: nothing here speaks of other training seeds. "
    text = (
        f"Of {joined(several)} the training seeds are averaged, and interval and p are of t over seeds and test "
        "sentences; within a recipe, of the differences in each seed. "
    )
    alone = f"Of {joined(single)} there is one training run: nothing here speaks of other training seeds. "
    return text + alone if single else text


def _answered(inputs: Inputs, tests: pd.DataFrame) -> str:
    """Return what the tests say of specificity, and how to ask what they don't."""
    how = "t over training seeds and test sentences" if inputs.recipes else "Paired tests"
    text = f"{' '.join(answers(tests))} {how}, p < {LEVEL:g}, {HOW}."
    lacking: dict[tuple[str, ...], list[Subject]] = {}
    for subject in inputs.subjects:
        frame = subject.tables.get(PRUNING.name, pd.DataFrame({"order": []}))
        absent = tuple(name for name in ORDERS if is_matched(name) and name not in set(frame["order"]))
        if len(frame) and {MATCHED, RANDOM[MATCHED]} & set(absent):
            lacking.setdefault(absent, []).append(subject)
    for absent, those in lacking.items():
        others = f" (and so on with {joined(each.label for each in those[1:])})" if len(those) > 1 else ""
        text += (
            f" Whether specificity matters at equal sensitivity, {joined(each.label for each in those)} can say once "
            f"the orders {joined(absent)} are swept: {orders_command(those[0], absent)}{others}"
        )
    return text


def balance(inputs: Inputs) -> Iterator[Entry]:
    """How evenly is sensitivity spread over the parameters (Figure 10)? Violins, quantiles, and the numbers."""
    shapes = dict(by_task(inputs, DISTRIBUTION))
    for task, frame in by_task(inputs, BALANCE):
        if task in shapes:
            drawn = figures.sensitivity_violins(shapes[task], frame, inputs.groups)
            title = of_the("Distribution of sensitivity", task)
            yield Entry(f"distribution-{task}", title, DISTRIBUTION.name, drawn, task=task)
        title, drawn = of_the("Balance of sensitivity", task), figures.balance(frame, inputs.groups)
        yield Entry(f"balance-{task}", title, BALANCE.name, drawn, task=task)
    if BALANCE.name in inputs.tables:
        caption = "S(θ,B_l) over the parameters; a smaller deviation and share of the top 10% mean a more even spread."
        table = tables.balance(inputs.tables[BALANCE.name], inputs.groups)
        yield Entry("balance", "Balance in numbers", BALANCE.name, table, caption)


def trust(inputs: Inputs) -> Iterator[Entry]:
    """Can the sensitivities be trusted? Enough batches, and a Taylor estimate that agrees with exact ablation."""
    title = "Convergence with the number of batches"
    yield from _drawn(
        inputs, CONVERGENCE, "convergence", title, lambda frame: figures.convergence_curves(frame, inputs.groups)
    )
    summaries = dict(by_task(inputs, SUMMARY))
    for task, frame in by_task(inputs, AUDIT):
        if task in summaries:
            title = of_the("Taylor estimate against exact ablation", task)
            drawn = figures.audit_scatter(frame, summaries[task], inputs.groups)
            yield Entry(f"audit-{task}", title, SUMMARY.name, drawn, task=task)


def data(inputs: Inputs) -> Iterator[Entry]:
    """What was there to learn from (Figures 4, 5, Table 7)? Sizes, and a sentence under concurrent denoising."""
    if any(group["sizes"].get("train") for group in inputs.groups.values()):
        yield Entry("groups", "Training data", MANIFEST, figures.data_statistics(inputs.groups, width=WIDE))
    caption = f"{examples_of(inputs.groups).capitalize()} in each split."
    yield Entry("groups", "Languages", MANIFEST, tables.groups(inputs.groups), caption)
    if LAYOUT.name in inputs.tables:
        drawn = figures.token_layout(inputs.tables[LAYOUT.name])
        yield Entry("layout", "Concurrent denoising, token by token", LAYOUT.name, drawn)


SECTIONS: tuple[tuple[str, Callable[[Inputs], Iterator[Entry]]], ...] = (
    ("Quality", quality),
    ("Correlation", correlation),
    ("Specificity", specificity),
    ("Pruning", pruning),
    ("Balance", balance),
    ("Can the numbers be trusted?", trust),
    ("Data", data),
)


def by_task(inputs: Inputs, schema: Schema) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each task of a tidy table with its rows; nothing where no run has the table."""
    frame = inputs.tables.get(schema.name)
    if frame is not None:
        yield from ((task, frame[frame["task"] == task]) for task in dict.fromkeys(frame["task"]))


def _drawn(
    inputs: Inputs, schema: Schema, stem: str, title: str, draw: Callable[[pd.DataFrame], Drawn], seeds: bool = True
) -> Iterator[Entry]:
    """Yield what is drawn of a table in each task; where `draw` does not tell training seeds apart, of their means."""
    for task, frame in by_task(inputs, schema):
        drawn = draw(frame if seeds else averaged(frame, schema.key))
        yield Entry(f"{stem}-{task}", of_the(title, task), schema.name, drawn, task=task)


def of_the(title: str, task: str) -> str:
    """Return a title with its task."""
    return f"{title}, {TASKS.get(task, task)}"
