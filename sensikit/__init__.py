"""sensikit: which parameters of a multilingual translation model belong to which language.

The names below are loaded when they are first used, so importing sensikit is quick and needs neither fairseq nor
transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sensikit.version import __version__

_HOME = {
    "Model": "sensikit.backends.base",
    "Decoding": "sensikit.settings",
    "Group": "sensikit.languages",
    "open_model": "sensikit.backends",
    "AnalysisSettings": "sensikit.settings",
    "analyze": "sensikit.sensitivity.analysis",
    "audit": "sensikit.sensitivity.ablation",
    "balance_table": "sensikit.statistics.spread",
    "correlation_table": "sensikit.statistics.correlation",
    "evaluate": "sensikit.evaluation.metrics",
    "export": "sensikit.pruning.export",
    "pruning_plan": "sensikit.pruning.masks",
    "Order": "sensikit.pruning.masks",
    "pruned": "sensikit.pruning.masks",
    "registry": "sensikit.parameters",
    "measure": "sensikit.sensitivity.taylor",
    "specificity_table": "sensikit.statistics.specificity",
    "Run": "sensikit.run",
    "EvaluationSettings": "sensikit.settings",
    "SweepSettings": "sensikit.settings",
    "prune": "sensikit.pruning.sweep",
    "evaluate_systems": "sensikit.evaluation.systems",
    "SensikitError": "sensikit.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from sensikit.backends import open_model as open_model
    from sensikit.backends.base import Model as Model
    from sensikit.errors import SensikitError as SensikitError
    from sensikit.evaluation.metrics import evaluate as evaluate
    from sensikit.evaluation.systems import evaluate_systems as evaluate_systems
    from sensikit.languages import Group as Group
    from sensikit.parameters import registry as registry
    from sensikit.pruning.export import export as export
    from sensikit.pruning.masks import Order as Order
    from sensikit.pruning.masks import pruned as pruned
    from sensikit.pruning.masks import pruning_plan as pruning_plan
    from sensikit.pruning.sweep import prune as prune
    from sensikit.run import Run as Run
    from sensikit.sensitivity.ablation import audit as audit
    from sensikit.sensitivity.analysis import analyze as analyze
    from sensikit.sensitivity.taylor import measure as measure
    from sensikit.settings import AnalysisSettings as AnalysisSettings
    from sensikit.settings import Decoding as Decoding
    from sensikit.settings import EvaluationSettings as EvaluationSettings
    from sensikit.settings import SweepSettings as SweepSettings
    from sensikit.statistics.correlation import correlation_table as correlation_table
    from sensikit.statistics.specificity import specificity_table as specificity_table
    from sensikit.statistics.spread import balance_table as balance_table


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"sensikit has no {name}")
    return getattr(importlib.import_module(_HOME[name]), name)
