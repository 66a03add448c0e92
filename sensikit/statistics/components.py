"""Where in the model sensitivity and specificity live: by stack, layer and component."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from sensikit.parameters import Parameter
from sensikit.run import Run, rest_of
from sensikit.statistics.specificity import sigma_of, specificity
from sensikit.statistics.streaming import Float, Moments, quantiles

ALL = "all"

KEY = ["stack", "layer", "component"]

HELD = 1 << 22
"""Scores of which a median is taken in memory; of more, by selection."""

_CROSS = re.compile(r"encoder_attn|EncDecAttention|cross_?attn|crossattention", re.IGNORECASE)
_PROJECTIONS = {"q": "q", "k": "k", "v": "v", "out": "out", "o": "out", "query": "q", "key": "k", "value": "v"}


def part_of(parameter: Parameter) -> str:
    """Return the component at the grain of a projection: q, k, v, out (cross-q … where a decoder reads the encoder).

    What is not attention is named as in the registry, and so is attention whose projections are stored as one tensor.
    """
    if parameter.component != "attention":
        return {"ffn": "fc"}.get(parameter.component, parameter.component)
    names = [part.removesuffix("_proj") for part in parameter.name.split(".")]
    part = next((_PROJECTIONS[name] for name in reversed(names) if name in _PROJECTIONS), "attention")
    return f"cross-{part}" if _CROSS.search(parameter.name) else part


def cells(run: Run) -> dict[tuple[str, str, str], list[Parameter]]:
    """Return the parameters of each (stack, layer, component), then those of all layers, all components, and both.

    Layers are text: numbers from 0, empty for what stands outside the layers.
    """
    found: dict[tuple[str, str, str], list[Parameter]] = {}
    for whole_layer, whole_component in ((False, False), (True, False), (False, True), (True, True)):
        for parameter in run.parameters:
            layer = ALL if whole_layer else "" if parameter.layer is None else str(parameter.layer)
            component = ALL if whole_component else part_of(parameter)
            found.setdefault((parameter.stack, layer, component), []).append(parameter)
    return found


def component_table(run: Run, task: str = "mt") -> pd.DataFrame:
    """Return how much of S and what D of each language lies in each of the `cells`, tidy.

    `sensitivity_share` is the cell's share of the language's whole sensitivity, `share_positive` the share of its
    parameters with D > 0.
    """
    parts = cells(run)
    rows = []
    for language in run.groups(task):
        sums = _sums(run, task, language)
        whole = sums["sensitivity"].sum()
        for key, members in parts.items():
            count, own, score, positive = sums.loc[[parameter.name for parameter in members]].sum()
            median = _median(_scores(run, task, language, members), int(count))
            share = own / whole if whole else np.nan
            rows.append((task, language, *key, int(count), own / count, share, score / count, median, positive / count))
    statistics = ["sensitivity_mean", "sensitivity_share", "specificity_mean", "specificity_median", "share_positive"]
    return pd.DataFrame(rows, columns=["task", "group", *KEY, "parameters", *statistics])


def component_correlation_table(run: Run, task: str = "mt") -> pd.DataFrame:
    """Return the PCC of every ordered pair of different languages within each component and each layer, tidy.

    A row is of a component in all layers of a stack, of a layer with all its components, or of the stack.
    """
    languages = run.groups(task)
    by_parameter = {parameter.name: Moments.zero(len(languages)) for parameter in run.parameters}
    for (parameter, _), block in run.pieces([run.vector(task, language) for language in languages]):
        by_parameter[parameter.name].add(block)
    rows = []
    for (stack, layer, component), members in cells(run).items():
        if ALL in (layer, component):
            moments = Moments.zero(len(languages))
            for parameter in members:
                moments.merge(by_parameter[parameter.name])
            pcc = moments.pearson()
            rows += [
                (task, stack, layer, component, first, second, pcc[a, b], moments.count)
                for a, first in enumerate(languages)
                for b, second in enumerate(languages)
                if a != b
            ]
    return pd.DataFrame(rows, columns=["task", *KEY, "group_a", "group_b", "pcc", "parameters"])


def _sums(run: Run, task: str, language: str) -> pd.DataFrame:
    """Return of each tensor, by name, its parameters, the sum of S and of D over them, and how many have D > 0."""
    names = [parameter.name for parameter in run.parameters]
    columns = ["parameters", "sensitivity", "specificity", "positive"]
    sums = {name: np.zeros(len(columns)) for name in names}
    sigma = sigma_of(run, language, task)
    for (parameter, _), (own, rest) in run.pieces([run.vector(task, language), run.vector(task, rest_of(language))]):
        score = specificity(own, rest, sigma)
        sums[parameter.name] += (own.size, own.sum(dtype=np.float64), score.sum(), (score > 0).sum())
    return pd.DataFrame.from_dict(sums, orient="index", columns=columns)


def _scores(run: Run, task: str, language: str, members: list[Parameter]) -> Callable[[], Iterator[Float]]:
    vectors, sigma = [run.vector(task, language), run.vector(task, rest_of(language))], sigma_of(run, language, task)
    return lambda: (specificity(own, rest, sigma) for own, rest in run.stream(vectors, members))


def _median(stream: Callable[[], Iterator[Float]], count: int) -> float:
    return quantiles(stream, count, [0.5])[0] if count > HELD else float(np.median(np.concatenate(list(stream()))))
