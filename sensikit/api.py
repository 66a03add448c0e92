"""What Python has beside the steps themselves: a model opened by one call, and figures straight from runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sensikit.backends.base import Model
from sensikit.errors import OptionError
from sensikit.run import Run
from sensikit.settings import Loading, ReportSettings, Tiers

if TYPE_CHECKING:
    from sensikit.figures.style import Captioned
    from sensikit.report.inputs import Inputs


def open(
    model: str | Path | Run,
    data: str | Path | None = None,
    direction: str | None = None,
    *,
    pairs: Sequence[str] | None = None,
    device: str = "auto",
    loading: Loading | None = None,
    tiers: Tiers | None = None,
) -> Model:
    """Return a model with its data; nothing inside the checkpoint is run.

    Given a run, it is the model that the run was measured on, opened in the same way, for `prune`, `audit` and
    `export`.

    >>> opened = sensikit.open(checkpoint, data)
    >>> opened.tasks, list(opened.task("mt").groups), opened.task("mt").direction
    (('mt',), ['cat', 'nob', 'fao'], 'xxx-eng')

    Args:
        model: a fairseq checkpoint, a Hugging Face directory, owner/model of the Hugging Face hub, or a run.
        data: what `sensikit corpus` wrote, a fairseq data directory, or for Hugging Face's models a folder of text;
            for a run, where they are now, if they moved.
        direction: "xxx-eng", "eng-xxx", or with any other language; by default the pairs into the language that all
            pairs have in common, else those out of it, else all pairs.
        pairs: instead of a direction, such as ["cat-fra", "spa-fra"].
        device: "auto", "cpu", "cuda" or "cuda:N".
        loading: of Hugging Face's models alone: the weights' dtype, the revision, the prompt.
        tiers: resource levels of the groups, in place of those of the data.

    Raises:
        CheckpointError, DataError, OptionError, MissingDependencyError: in one line, what is wrong and what to do.
    """
    from sensikit.backends import open_model

    if isinstance(model, Run):
        if direction or pairs or loading or tiers:
            problem = "is measured with choices of its own"
            raise OptionError(str(model.path), problem, "leave out direction, pairs, loading and tiers")
        return reopened(model, data=data, device=device)
    if data is None:
        raise OptionError("data", "is not given", "say where the text is: open(model, data)")
    return open_model(Path(model), Path(data), direction, device, pairs, loading, tiers)


def reopened(
    run: Run, checkpoint: str | Path | None = None, data: str | Path | None = None, device: str = "auto"
) -> Model:
    """Return the model of a run with its data, from where they are now, if they moved."""
    from sensikit.backends import open_model

    noted = run.manifest["provenance"]
    places = Path(checkpoint or noted["checkpoint"]), Path(data or noted["data"])
    loading = Loading.noted(noted["loading"], directory=places[0].is_dir())
    return open_model(*places, run.manifest["direction"], device, None, loading, None)


def plot_correlation(*runs: Run | str | Path, task: str = "", value: str = "corrected") -> Captioned:
    """Return heat maps of how alike the groups' sensitivities are (Figures 2, 6 and 8), by subset of the parameters.

    Two runs stand side by side, and their difference beside them where it can be told.

    >>> figure = sensikit.plot_correlation(run)
    >>> len(figure.axes), figure.caption == ""
    (6, False)

    Args:
        runs: run directories, or what `analyze` returned.
        task: mt, denoise or lm; by default the first that was analysed.
        value: corrected (PCC of endless batches), pcc (of these batches), spearman or log_pcc.

    Raises:
        OptionError: if there is no run, the task was not analysed, or the value is none of these.
        RunError: if a run is damaged, or lacks what is drawn.
    """
    from sensikit import figures

    ReportSettings(correlation=value)  # refuses what is none of its values
    inputs, frame = _of(runs, "correlation", task, compare=value == "corrected" and len(runs) == 2)
    difference = next((each.table for each in inputs.comparisons if each.task == frame["task"].iloc[0]), None)
    return figures.correlation_heatmaps(frame, inputs.groups, value=value, difference=difference).figure


def plot_dendrogram(*runs: Run | str | Path, task: str = "", value: str = "corrected") -> Captioned:
    """Return the tree in which groups join at 1 − their correlation; arguments are those of `plot_correlation`.

    >>> sensikit.plot_dendrogram(run).savefig(folder / "tree.svg")
    """
    from sensikit import figures

    ReportSettings(correlation=value)
    inputs, frame = _of(runs, "correlation", task)
    return figures.dendrogram(frame, inputs.groups, value=value).figure


def plot_specificity(*runs: Run | str | Path, task: str = "") -> Captioned:
    """Return how D (Eq. 4) is spread in each group, and the share above 0; arguments as of `plot_correlation`.

    >>> len(sensikit.plot_specificity(run).axes)
    2
    """
    from sensikit import figures

    inputs, frame = _of(runs, "specificity", task)
    return figures.specificity(frame, inputs.groups).figure


def plot_components(*runs: Run | str | Path, task: str = "") -> Captioned:
    """Return where in the model sensitivity and specificity are; arguments as of `plot_correlation`.

    >>> len(sensikit.plot_components(run).axes)
    4
    """
    from sensikit import figures

    return figures.component_heatmaps(_of(runs, "components", task)[1]).figure


def plot_overlap(*runs: Run | str | Path, task: str = "") -> Captioned:
    """Return what groups' most specific parameters have in common; arguments as of `plot_correlation`.

    >>> sensikit.plot_overlap(run).savefig(folder / "overlap.pdf")
    """
    from sensikit import figures

    inputs, frame = _of(runs, "overlap", task)
    return figures.overlap_heatmaps(frame, inputs.groups).figure


def plot_balance(*runs: Run | str | Path, task: str = "") -> Captioned:
    """Return how evenly S is spread over the parameters (Figure 10); arguments as of `plot_correlation`.

    >>> sensikit.plot_balance(run).savefig(folder / "balance.png", dpi=60)
    """
    from sensikit import figures

    inputs, frame = _of(runs, "balance", task)
    return figures.sensitivity_violins(_rows(inputs, "distribution", task), frame, inputs.groups).figure


def plot_convergence(*runs: Run | str | Path, task: str = "") -> Captioned:
    """Return the PCC of a group with itself against the number of batches; arguments as of `plot_correlation`.

    >>> len(sensikit.plot_convergence(run, task="mt").axes)
    3
    """
    from sensikit import figures

    inputs, frame = _of(runs, "convergence", task)
    return figures.convergence_curves(frame, inputs.groups).figure


def plot_pruning(*runs: Run | str | Path, metric: str = "") -> Captioned:
    """Return the curves of a sweep, with their bands and whether each can be told from random (Figures 3 and 9).

    >>> settings = sensikit.SweepSettings(metrics=("loss",), bootstrap=100)
    >>> _ = sensikit.prune(run, model, [0, 0.5], ["specificity", "random"], settings=settings)
    >>> [line.get_label() for line in sensikit.plot_pruning(run, metric="loss").axes[0].lines][:1]
    ['least specific first']

    Args:
        runs: run directories that were pruned, or what `analyze` returned.
        metric: bleu, chrf, loss or bpb; by default BLEU, or the first that was scored.

    Raises:
        RunError: if a run is damaged, or was not pruned.
    """
    from sensikit import figures

    inputs, frame = _of(runs, "pruning", compare=True)
    return figures.pruning_curves(frame, metric, bands=inputs.curves.bands, tests=inputs.curves.tests).figure


def _of(
    runs: Sequence[Run | str | Path], table: str, task: str = "", *, compare: bool = False
) -> tuple[Inputs, pd.DataFrame]:
    """Return what a report of some runs would be made from, and the rows of one of its tables, of one task.

    Raises:
        OptionError: if there is no run, or the task was not analysed.
        RunError: if a run is damaged, or lacks the table.
    """
    from sensikit.report.inputs import TABLES, gather

    if not runs:
        raise OptionError("runs", "there is none", "give what analyze returned, or its directory")
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    for run in opened:
        run.read_table(TABLES[f"{table}.csv"])  # says what is missing, and how to make it
    inputs = gather([run.path for run in opened], compare=compare)
    return inputs, _rows(inputs, table, task)


def _rows(inputs: Inputs, table: str, task: str) -> pd.DataFrame:
    from sensikit.figures.frames import of_task

    frame = inputs.tables[f"{table}.csv"]
    if task and task not in set(frame["task"]):
        raise OptionError("task", f"{task} was not analysed", f"choose {' or '.join(frame['task'].unique())}")
    return of_task(frame, task) if "task" in frame else frame
