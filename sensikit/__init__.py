"""sensikit: which parameters of a multilingual translation model belong to which language.

The names below are loaded when they are first used, so importing sensikit is quick and needs neither fairseq nor
transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Backend": "sensikit.backends.base",
    "Decoding": "sensikit.backends.base",
    "Language": "sensikit.backends.base",
    "open_checkpoint": "sensikit.backends",
    "Settings": "sensikit.planning",
    "analyze": "sensikit.analysis",
    "audit": "sensikit.ablation",
    "balance_table": "sensikit.balance",
    "correlation_table": "sensikit.correlation",
    "evaluate": "sensikit.evaluation",
    "export": "sensikit.exporting",
    "make_plan": "sensikit.masks",
    "Order": "sensikit.masks",
    "pruned": "sensikit.masks",
    "registry": "sensikit.parameters",
    "measure": "sensikit.sensitivity",
    "specificity_table": "sensikit.specificity",
    "Run": "sensikit.store",
    "SweepSettings": "sensikit.sweep",
    "prune": "sensikit.sweep",
    "evaluate_systems": "sensikit.systems",
    "SensikitError": "sensikit.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from sensikit.ablation import audit as audit
    from sensikit.analysis import analyze as analyze
    from sensikit.backends import open_checkpoint as open_checkpoint
    from sensikit.backends.base import Backend as Backend
    from sensikit.backends.base import Decoding as Decoding
    from sensikit.backends.base import Language as Language
    from sensikit.balance import balance_table as balance_table
    from sensikit.correlation import correlation_table as correlation_table
    from sensikit.errors import SensikitError as SensikitError
    from sensikit.evaluation import evaluate as evaluate
    from sensikit.exporting import export as export
    from sensikit.masks import Order as Order
    from sensikit.masks import make_plan as make_plan
    from sensikit.masks import pruned as pruned
    from sensikit.parameters import registry as registry
    from sensikit.planning import Settings as Settings
    from sensikit.sensitivity import measure as measure
    from sensikit.specificity import specificity_table as specificity_table
    from sensikit.store import Run as Run
    from sensikit.sweep import SweepSettings as SweepSettings
    from sensikit.sweep import prune as prune
    from sensikit.systems import evaluate_systems as evaluate_systems


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"sensikit has no {name}")
    return getattr(importlib.import_module(_HOME[name]), name)
