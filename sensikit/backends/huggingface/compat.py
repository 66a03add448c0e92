"""transformers and huggingface_hub, imported when they are needed."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType

from sensikit.errors import MissingDependencyError


def load() -> ModuleType:
    """Return transformers, whose model classes can then be imported even beside a torchaudio that cannot."""
    transformers = installed("transformers")
    _pass_over_broken_torchaudio(transformers)
    return transformers


def installed(name: str) -> ModuleType:
    """Return a package that comes with sensikit[hf]."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(name, "is not installed", 'pip install "sensikit[hf]"') from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' log and its progress bars off the terminal: what matters of them is an error of ours."""
    log = importlib.import_module("transformers.utils.logging")
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)  # errors tell whole configurations, signs that steer a terminal too
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _pass_over_broken_torchaudio(transformers: ModuleType) -> None:
    """Have transformers take a torchaudio that cannot be imported for one that is not there.

    fairseq's metadata ask for torchaudio, whose build on PyPI needs CUDA. transformers looks whether it is installed
    and then imports it with every model class, which fails beside a torch for the CPU.
    """
    utils = transformers.utils
    if not utils.is_torchaudio_available():
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("torchaudio")
    except Exception:  # an OSError where a library is missing, a RuntimeError where it was built for another torch
        for module in (utils, utils.import_utils):
            module.is_torchaudio_available = lambda: False
