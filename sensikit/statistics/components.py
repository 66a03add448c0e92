"""Where in the model sensitivity and specificity live: by stack, layer and component."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from sensikit.parameters import Parameter
from sensikit.run import Run
from sensikit.statistics.specificity import Scores, scores_of
from sensikit.statistics.streaming import Moments
from sensikit.tables import PAIR, Schema

ALL = "all"

PART = ("stack", "layer", "component")

COMPONENTS = Schema(
    "components.csv", "Sensitivity and specificity by component", "analyze",
    key=("task", "group", *PART),
    numbers=("parameters", "sensitivity_mean", "sensitivity_share", "specificity_mean", "specificity_median",
             "share_positive"),
    empty=("layer", "sensitivity_share", "specificity_mean", "specificity_median"),
)  # fmt: skip

WITHIN = Schema(
    "components-correlation.csv", "Correlation within components", "analyze",
    key=("task", *PART, *PAIR),
    numbers=("pcc", "parameters"),
    empty=("layer", "pcc"),
    groups=PAIR,
)  # fmt: skip

_CROSS = re.compile(r"encoder_attn|EncDecAttention|cross_?attn|crossattention", re.IGNORECASE)
_PROJECTIONS = {"q": "q", "k": "k", "v": "v", "out": "out", "o": "out", "query": "q", "key": "k", "value": "v"}


def part_of(parameter: Parameter) -> str:
    """Return the part of the model that a tensor belongs to, attention by projection: q, k, v, out, cross-q, ….

    The projections of an attention over the encoder's output are called cross-q and so on. Everything else, and
    attention whose projections are stored as one tensor, has the name that the registry gives it.

    >>> part_of(Parameter("decoder.layers.0.encoder_attn.q_proj.weight", (4, 4), 0, "attention", "decoder", 0, True))
    'cross-q'
    """
    if parameter.component != "attention":
        return {"ffn": "fc"}.get(parameter.component, parameter.component)
    names = [part.removesuffix("_proj") for part in parameter.name.split(".")]
    part = next((_PROJECTIONS[name] for name in reversed(names) if name in _PROJECTIONS), "attention")
    return f"cross-{part}" if _CROSS.search(parameter.name) else part


def parts(run: Run) -> dict[tuple[str, str, str], list[Parameter]]:
    """Return the parameters of each (stack, layer, component), then of all layers, of all components, and of both.

    Layers are text: numbers from 0, empty for what is in no layer, and `ALL`.
    """
    found: dict[tuple[str, str, str], list[Parameter]] = {}
    for whole_layer, whole_component in ((False, False), (True, False), (False, True), (True, True)):
        for parameter in run.parameters:
            layer = ALL if whole_layer else "" if parameter.layer is None else str(parameter.layer)
            component = ALL if whole_component else part_of(parameter)
            found.setdefault((parameter.stack, layer, component), []).append(parameter)
    return found


def component_table(run: Run, task: str, scores: Sequence[Scores] = ()) -> pd.DataFrame:
    """Return components.csv: the sensitivity and specificity of each group in each part of the model (see `parts`).

    `sensitivity_mean` is the mean of S(θ,B_l) over the part's parameters, in nats, `sensitivity_share` the part's share
    of the sum of S over the model, `share_positive` the share of the part's parameters with D(θ,l) > 0. Arguments and
    errors are those of `specificity_table`, but that the scores are those of these parts.
    """
    members_of = parts(run)
    rows = []
    for of in scores or scores_of(run, task, members_of):
        whole = of.total(of.sums)[1]
        for key, members in members_of.items():
            count, own, score, positive, *_ = of.total(parameter.name for parameter in members)
            share, median = own / whole if whole else np.nan, of.medians[key]
            rows.append((task, of.group, *key, int(count), own / count, share, score / count, median, positive / count))
    return COMPONENTS.frame(rows)


def component_correlation_table(run: Run, task: str) -> pd.DataFrame:
    """Return components-correlation.csv: the PCC of every ordered pair of different groups within each part.

    A part is a component in all layers of a stack, a layer with all its components, or a whole stack. Errors are those
    of `specificity_table`.
    """
    groups = run.groups(task)
    by_parameter = {parameter.name: Moments.zero(len(groups)) for parameter in run.parameters}
    for (parameter, _), block in run.chunks([run.vector(task, group) for group in groups]):
        by_parameter[parameter.name].add(block)
    rows = []
    for (stack, layer, component), members in parts(run).items():
        if ALL in (layer, component):
            moments = Moments.zero(len(groups))
            for parameter in members:
                moments.merge(by_parameter[parameter.name])
            pcc = moments.pearson()
            rows += [
                (task, stack, layer, component, first, second, pcc[a, b], moments.count)
                for (a, first), (b, second) in permutations(enumerate(groups), 2)
            ]
    return WITHIN.frame(rows)
