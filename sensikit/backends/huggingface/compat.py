"""transformers, imported when it is needed."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from sensikit.errors import MissingDependencyError


def load() -> ModuleType:
    """Return transformers, whose model classes can then be imported even beside a torchaudio that cannot.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("transformers", "is not installed", 'pip install "sensikit[hf]"') from error
    _pass_over_broken_torchaudio(transformers)
    return transformers


def _pass_over_broken_torchaudio(transformers: ModuleType) -> None:
    """Have transformers take a torchaudio that cannot be imported for one that is not there.

    fairseq's metadata ask for torchaudio, whose build on PyPI needs CUDA. transformers looks whether it is installed
    and then imports it with every model class, beside a CPU torch to no avail.
    """
    utils = transformers.utils
    if utils.is_torchaudio_available() and not _can_be_imported("torchaudio"):
        for module in (utils, utils.import_utils):
            module.is_torchaudio_available = lambda: False


def _can_be_imported(name: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except Exception:  # an OSError where a library is missing, a RuntimeError where it was built for another torch
        return False
    return True
