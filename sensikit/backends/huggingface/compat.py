"""transformers and huggingface_hub, imported when they are needed."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType

from sensikit.errors import MissingDependencyError


def load() -> ModuleType:
    """Return transformers.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    return _load("transformers")


def load_hub() -> ModuleType:
    """Return huggingface_hub.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    return _load("huggingface_hub")


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(name, "is not installed", "pip install sensikit[hf]") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' log and its progress bars off the terminal: what matters of them is an error of ours."""
    log = importlib.import_module("transformers.utils.logging")
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
