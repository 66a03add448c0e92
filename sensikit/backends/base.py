"""The protocol between sensikit and a framework: a `Model` has tasks, a `Task` has groups, sentences and a loss.

Everything else (which sentences make a batch, S, D, PCC, masks, sweeps, scores, figures) is written once against this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sensikit.errors import OptionError
from sensikit.languages import Group
from sensikit.settings import Decoding

if TYPE_CHECKING:
    # the command line reads languages from here, and must answer before torch is loaded
    import numpy as np
    import pandas as pd
    import torch
    from torch import nn

Item = tuple[str, int]
"""An example of a task: the key of its group, and its row in `Task.sizes` of that group and split."""


@dataclass(frozen=True)
class Translations:
    """Detokenised hypotheses and references of one split, in the order of the split."""

    hypotheses: list[str]
    references: list[str]
    references_from: str
    """Where the references come from: "text" (raw text beside the data) or "binarised" (decoded from it)."""
    truncated: int = 0
    """Sentences longer than the model's positions, translated from as much of them as it can take."""


@dataclass(frozen=True)
class Provenance:
    """What a backend measures: the checkpoint and the data, by SHA-256, and how the checkpoint is loaded."""

    framework: str
    checkpoint: str
    checkpoint_sha256: str
    data: str
    data_sha256: str
    loading: Mapping[str, str] = field(default_factory=dict)
    """What of `Loading` is not as usual; of a model on the hub its commit too."""


@dataclass(frozen=True)
class Segments:
    """What tells the sentences of a split apart: where that is known, a segment has the same text in every group.

    Attributes:
        texts: one for each sentence of the split, in its order.
        rows: (n,) int64, those that `Task.sizes` has a row of.
        known_by: the code of the language whose sentences the texts are, which all groups have in common; "line" where
            they are places in a set that is parallel in all languages; "own" where the data say nothing of what is the
            same in another group, and each has sentences of its own.
    """

    texts: Sequence[str]
    rows: np.ndarray
    known_by: str


HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
"""What a model on the Hugging Face hub is called."""


def is_file(checkpoint: Path) -> bool:
    """Return whether a model is a file, as fairseq's are; Hugging Face's are directories, or names of the hub."""
    # a pipe or a device is one too: it is refused as a file, and not looked up on the hub
    return not checkpoint.is_dir() if checkpoint.exists() else checkpoint.suffix == ".pt"


class Task(Protocol):
    """What a model was trained to do: the examples of its groups, and what the model loses on them."""

    @property
    def name(self) -> str:
        """The name that --task takes: "mt", "denoise" or "lm"."""

    @property
    def groups(self) -> Mapping[str, Group]:
        """The groups that there are data of, by key, in a fixed order."""

    @property
    def direction(self) -> str:
        """What the groups have in common: "xxx-eng", "eng-xxx", or the pairs themselves."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The losses that `loss` knows: "nll", and "train" where the criterion of the training run is known."""

    def choices(self) -> dict[str, str]:
        """Return what belongs in a signature because of this task alone."""

    def sizes(self, group: str, split: str = "train") -> np.ndarray:
        """Return the tokens of every example, (n, 1 + K) int64: of the source, and targets of each of the K terms.

        What is a target is what the loss counts; translation has one term. Examples longer than the model's positions
        have no row; `left_out` counts them.
        """

    def left_out(self, group: str, split: str = "train") -> int:
        """Return how many examples of the split are longer than the model's positions, and so have no row."""

    def segments(self, group: str, split: str = "train") -> Segments:
        """Return what tells the sentences of a split apart, in all groups."""

    def bytes(self, group: str, split: str = "train") -> np.ndarray | None:
        """Return the bytes in UTF-8 of the counted text of every example, (n,) int64; None if they are not known."""

    def collate(self, items: Sequence[Item], split: str = "train") -> Any:
        """Return some examples, whatever their groups, as one padded micro-batch on the model's device."""

    def loss(self, micro_batch: Any, kind: str = "nll") -> tuple[torch.Tensor, int | tuple[int, ...]]:
        """Return the *summed* loss of a micro-batch (nats) and the number of target tokens in it, of each term.

        A scalar and a number for one term, a (K,) tensor and K numbers for several: what is minimised is the sum of
        the terms, each divided by its own tokens in the whole batch. In the module's own dtype and mode. `kind`: "nll"
        (cross-entropy without label smoothing) or "train" (the criterion of the training run).
        """

    def losses(self, items: Sequence[Item], split: str, kind: str = "nll") -> np.ndarray:
        """Return the loss of each of some examples, in their order: (n, 2·K) float64, nats and targets of each term."""

    def layout(self, groups: Sequence[str], split: str = "train") -> pd.DataFrame | None:
        """Return how one sentence of each group looks to the model, token by token (Figure 4); None of translation.

        One row for each position: group, position, what the encoder reads (`source`) and predicts (`encoder_target`),
        what the decoder reads (`decoder_input`) and predicts (`decoder_target`), as they are written in the dictionary.
        A target is empty where nothing is to be predicted.
        """


@runtime_checkable
class Translation(Task, Protocol):
    """The task of translation."""

    def translate(self, group: str, split: str, decoding: Decoding) -> Translations:
        """Return a translation of every sentence of the split (its first `max_sentences`), none missing, in order.

        A sentence is translated even when `sizes` has no row for it. The module keeps its weights and its mode.
        """


@runtime_checkable
class Counted(Task, Protocol):
    """A task that must cut its text into tokens to know how long it is.

    Attributes:
        lengths: (lines, 2) int64 by (group, split): the tokens of the input and of the target of every line. What is
            there is believed, and not counted again.
    """

    lengths: dict[tuple[str, str], np.ndarray]


class Model(Protocol):
    """A trained model with its data, in one selection of groups.

    Attributes:
        module: in evaluation mode.
        ghosts: names of parameters that never take part in any task; left out of everything.
        device: where the module is.
        provenance: the checkpoint and the data, by SHA-256.
        training: how it was trained, as far as the checkpoint says: its method, its updates; empty if it does not say.
        tasks: what it was trained to do, the first of them first: "mt", "denoise", "lm".
        notes: what a user should know of the opening, such as groups that there are no data of.
    """

    module: nn.Module
    ghosts: frozenset[str]
    device: torch.device
    provenance: Provenance
    training: Mapping[str, Any]
    tasks: tuple[str, ...]
    notes: Sequence[str]

    def task(self, name: str, seed: int = 1) -> Task:
        """Return one of `tasks`, the same at every call; `seed` decides the noise of its examples.

        `task_of` refuses the name of another.
        """

    def write_pruned(self, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
        """Write the model to `out` in its own format with what `masks` say set to zero; return how many scalars went.

        Args:
            out: where to.
            masks: parameter name → bool of its shape, true where it goes to zero; a tied tensor counts once.
            note: kept in the file.
        """


@runtime_checkable
class Convertible(Protocol):
    """A model that another framework can load too."""

    def write_huggingface(self, out: Path, masks: Mapping[str, torch.Tensor], note: str) -> int:
        """Write the model to the new directory `out` as stock transformers loads it; else as `Model.write_pruned`."""


def described(model: Model) -> str:
    """Return what a notebook shows of a model: its checkpoint and data, and the groups of each of its tasks."""
    origin = model.provenance
    lines = [f"Model {origin.checkpoint}", f"  model: {origin.framework}, on {model.device}", f"  data: {origin.data}"]
    return "\n".join([*lines, *(f"  {name}: {', '.join(model.task(name).groups)}" for name in model.tasks)])


def task_of(model: Model, name: str, seed: int = 1) -> Task:
    """Return one of a model's tasks; refuse what it was not trained on."""
    if name not in model.tasks:
        problem = f"the model was not trained on {name} (it was trained on {' and '.join(model.tasks)})"
        raise OptionError("--task", problem, "choose one of those, or give another checkpoint")
    return model.task(name, seed)


def translation_of(model: Model, name: str = "mt") -> Translation:
    """Return a task of a model that translates; refuse any other."""
    task = task_of(model, name)
    if not isinstance(task, Translation):
        raise OptionError("--metric", f"{name} has no translations to score", "give --metric loss")
    return task
