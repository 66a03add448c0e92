"""The only file that knows fairseq's age: what 0.12.2 and ve-fairseq 0.12.3 need on today's Python and torch."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sensikit.errors import MissingDependencyError

INSTALL = (
    'pip install "sensikit[fairseq]" (on Linux, x86-64, Python 3.11 or 3.12; '
    "elsewhere build fairseq 0.12.2 with pip below 24.1)"
)

EVERY_SENTENCE = ("--required-batch-size-multiple", "1")
"""For every command line: with the default of 8, fairseq after 0.12.2 drops a set's last batch, its longest pairs."""

GHOSTS = tuple(f"{part}_{kind}" for part in ("in_proj", "out_proj", "fc1", "fc2") for kind in ("weight", "bias"))
"""Second copies of an encoder layer's weights in fairseq 0.12.2, which its fast path reads instead of the real ones."""

PLACEHOLDER = "_float_tensor"
"""A tensor in 0.12.2 that is there for its type alone."""

_PACKAGES = ("fairseq", "fairseq_cli", "hydra")


def load() -> SimpleNamespace:
    """Return the parts of fairseq that are used, imported on the first call and without a word."""
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(), _own_log():
            warnings.simplefilter("ignore")
            return _parts()
    except ModuleNotFoundError as error:
        missing = "is not installed" if error.name == "fairseq" else f"needs {error.name}, which is not installed"
        raise MissingDependencyError("fairseq", missing, INSTALL) from error
    except ImportError as error:
        raise MissingDependencyError("fairseq", f"cannot be imported ({error})", INSTALL) from error


@contextlib.contextmanager
def _own_log() -> Iterator[None]:
    """Leave the log of the process as it is: wav2vec's module shows the debugging of every library, once imported."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = [*handlers]
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


def _parts() -> SimpleNamespace:
    try:
        task = importlib.import_module("fairseq.tasks.translation_multi_simple_epoch")
    except ValueError as error:
        if "mutable default" not in str(error):
            raise
        # packages that are half imported are imported afresh
        for name in [name for name in sys.modules if name.split(".")[0] in _PACKAGES]:
            del sys.modules[name]
        with hashable_dataclasses():
            task = importlib.import_module("fairseq.tasks.translation_multi_simple_epoch")
    functions: Any = importlib.import_module("fairseq.utils")
    functions.softmax = softmax
    return SimpleNamespace(
        Task=task.TranslationMultiSimpleEpochTask,
        Dictionary=importlib.import_module("fairseq.data").Dictionary,
        batch_by_size=importlib.import_module("fairseq.data.data_utils").batch_by_size,
        get_lang_tok=importlib.import_module("fairseq.data.multilingual.multilingual_utils").get_lang_tok,
    )


def softmax(x: torch.Tensor, dim: int, onnx_trace: bool = False) -> torch.Tensor:
    """Return what fairseq's own softmax returns, but in float64 where `x` is.

    Fairseq's is float32 whatever `x` is, and attention between encoder and decoder goes through it.
    """
    return functional.softmax(x, dim=dim, dtype=torch.promote_types(x.dtype, torch.float32))


@contextlib.contextmanager
def hashable_dataclasses() -> Iterator[None]:
    """Let fairseq 0.12.2 (and hydra 1.0) be imported on Python 3.11 and later.

    Their dataclasses have instances of other dataclasses as defaults; since 3.11 a default must be hashable.
    """
    process = dataclasses._process_class  # type: ignore[attr-defined]

    def hashable(cls: type, init: bool, repr_: bool, eq: bool, order: bool, unsafe_hash: bool, *rest: Any, **more: Any):  # type: ignore[no-untyped-def]
        ours = cls.__module__.split(".")[0] in _PACKAGES and "__hash__" not in cls.__dict__
        return process(cls, init, repr_, eq, order, unsafe_hash or ours, *rest, **more)

    dataclasses._process_class = hashable  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dataclasses._process_class = process  # type: ignore[attr-defined]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what fairseq's forward pass makes torch say: it mixes boolean and float masks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask", UserWarning)
        yield


def ghosts(module: nn.Module) -> frozenset[str]:
    """Return the names of parameters that duplicate others and, the fast path off, take part in nothing."""
    return frozenset(
        f"{name}.{ghost}" if name else ghost
        for name, layer in module.named_modules()
        if hasattr(layer, "can_use_fastpath")
        for ghost in GHOSTS
        if ghost in layer._parameters
    )


def disable_fast_path(module: nn.Module) -> None:
    """Make every encoder layer read its real weights in evaluation too.

    The fast path of 0.12.2 reads the duplicates: zero all weights of the encoder, and the output stays the same.
    """
    for layer in module.modules():
        if hasattr(layer, "can_use_fastpath"):
            layer.__dict__["can_use_fastpath"] = False


def weights(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of `state` that hold weights of their own, whichever fairseq wrote it.

    0.12.2 also stores the ghosts, and beside sinusoidal positions a placeholder of whatever memory held.
    """
    return {name: tensor for name, tensor in state.items() if name.rsplit(".", 1)[-1] not in (*GHOSTS, PLACEHOLDER)}


def fitted(state: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """Return `state` with what this fairseq's `module` has beside its weights, as 0.12.2 expects it."""
    own = module.state_dict()
    return {**state, **{name: own[name] for name in own if name not in weights(own)}}


def allow_resuming() -> None:
    """Let fairseq's own loading read what fairseq wrote: torch's restricted unpickler needs this one inert class."""
    torch.serialization.add_safe_globals([argparse.Namespace])
